"""Many threads and processes with one conversation: nothing is lost, duplicated or interleaved; no writer starves."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest
import redis_writer

from chathistory import History, open_store

WRITER = Path(__file__).with_name("redis_writer.py")


def race(url: str, *, threads: int, by_thread: int, processes: int, by_process: int) -> list[int]:
    """Let all write at the same time, check the result, and return the most tries of each."""
    command = [sys.executable, str(WRITER), url]
    running = [
        subprocess.Popen([*command, f"process{at}", str(by_process)], stdout=subprocess.PIPE, text=True)
        for at in range(processes)
    ]
    worst: list[int] = []
    with open_store(url) as store:
        works = [(History(store), f"thread{at}", by_thread) for at in range(threads)]
        running_threads = [
            threading.Thread(target=lambda work=work: worst.append(redis_writer.write(*work))) for work in works
        ]
        for thread in running_threads:
            thread.start()
        for thread in running_threads:
            thread.join()
        tries = [int(process.communicate()[0]) for process in running]
        assert all(process.returncode == 0 for process in running)
        assert len(worst) == threads, "a thread failed"
        texts = [record.content for record in _messages(store)]
    due = [(f"thread{at}", number) for at in range(threads) for number in range(by_thread)]
    due += [(f"process{at}", number) for at in range(processes) for number in range(by_process)]
    batches = [tuple(texts[at : at + 2]) for at in range(0, len(texts), 2)]
    assert sorted(batches) == sorted((f"{name} {number} 0", f"{name} {number} 1") for name, number in due)
    return worst + tries


class _Message:
    def __init__(self, message) -> None:
        self.content = message["content"] if isinstance(message["content"], str) else message["content"][0]["text"]


def _messages(store) -> list[_Message]:
    found = []
    for record in History(store).conversation("together").entries():
        message = getattr(record, "message", None)
        if message is not None:
            found.append(_Message(message))
    return found


@pytest.mark.parametrize("where", ["valkey", pytest.param("cluster", marks=pytest.mark.wide)])
def test_threads_and_processes(request, where, prefix):
    url = f"{request.getfixturevalue(where).url}?prefix={prefix}"
    race(url, threads=4, by_thread=5, processes=2, by_process=8)


@pytest.mark.stress
def test_threads_and_processes_for_long(valkey, prefix):
    tries = race(f"{valkey.url}?prefix={prefix}", threads=16, by_thread=100, processes=8, by_process=300)
    print(f"most tries: {sorted(tries)}")  # noqa: T201
