"""Work that many threads do at once, beginning together and changing places as often as the interpreter can."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

__all__ = ["together"]

T = TypeVar("T")

_PATIENCE = 90.0  # seconds for all of them; a deadlock would wait for ever


def together(*works: Callable[[], T], expect: tuple[type[Exception], ...] = ()) -> list[T | Exception]:
    """Run each work in a thread of its own; returns, in order, what each gave: its result, or the `expect`ed error.

    Any other error is raised, and so is the failure of a check.
    """
    barrier = threading.Barrier(len(works))
    outcomes: list[T | BaseException | None] = [None] * len(works)

    def run(at: int, work: Callable[[], T]) -> None:
        barrier.wait()
        try:
            outcomes[at] = work()
        except BaseException as error:  # noqa: BLE001  # handed over to the thread that waits
            outcomes[at] = error

    threads = [threading.Thread(target=run, args=pair, daemon=True) for pair in enumerate(works)]
    with _restless():
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(_PATIENCE)
    assert not any(thread.is_alive() for thread in threads), f"threads still at work after {_PATIENCE} seconds"
    return [_sorted_out(outcome, expect) for outcome in outcomes]


def _sorted_out(outcome: T | BaseException | None, expect: tuple[type[Exception], ...]) -> T | Exception:
    if isinstance(outcome, expect):
        return outcome
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome  # type: ignore[return-value]  # a thread that ended without an error has left its result


@contextmanager
def _restless() -> Iterator[None]:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        yield
    finally:
        sys.setswitchinterval(interval)
