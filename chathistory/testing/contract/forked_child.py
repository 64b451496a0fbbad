"""Runs a function in a forked child and returns its result, to test stores after `os.fork()`."""

from __future__ import annotations

import json
import os
import select
import signal
import warnings
from collections.abc import Callable

from chathistory.testing.contract.run_threads import HANG_SECONDS

__all__ = ["run_in_child"]


def run_in_child(work: Callable[[], dict[str, str]]) -> dict[str, str]:
    """Fork, run `work` in the child, and return its result; fails if the child dies or does not answer."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # Python >= 3.12 warns if the process has threads, which is intended here
        child = os.fork()
    if child == 0:
        _report_and_exit(work, writing)
    os.close(writing)
    try:
        return _read_answer(child, reading)
    finally:
        os.close(reading)


def _report_and_exit(
    work: Callable[[], dict[str, str]], writing: int
) -> None:  # pragma: no cover  # no coverage data from a child
    try:
        os.write(writing, json.dumps(work()).encode())
    finally:
        os._exit(0)  # the child must not continue the test run


def _read_answer(child: int, reading: int) -> dict[str, str]:
    ready, _, _ = select.select([reading], [], [], HANG_SECONDS)
    if not ready:
        os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert ready, f"a forked child did not return from the store within {HANG_SECONDS} seconds"
    text = os.read(reading, 65_536)
    assert text, "a forked child ended in a call of the store, without a result"
    answer: dict[str, str] = json.loads(text)
    return answer
