"""An append to `memory:` beside a deep copy of the same messages, at several lengths: the price of isolation."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable

from chathistory import History, open_store

BLOCKS = [
    {"type": "text", "text": "The quick brown fox jumps over the lazy dog. " * 10},
    {
        "type": "tool_use",
        "id": "toolu_01",
        "name": "search",
        "input": {"query": "fox", "limit": 10, "tags": ["a", "b"]},
    },
]
TURN = [{"role": "user", "content": "Where is the fox? " * 10}, {"role": "assistant", "content": BLOCKS}]
ROUNDS = 300


def median(work: Callable[[], object]) -> float:
    times = []
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        work()
        times.append(time.perf_counter() - begin)
    return statistics.median(times) * 1e6


def main() -> None:
    print("memory: append of a turn of two messages, beside copy.deepcopy of the same (medians, µs)")
    for length in (10, 1_000, 100_000):
        chat = History(open_store("memory:")).conversation("bench")
        for start in range(0, length, 1000):
            chat.append(TURN * (min(1000, length - start) // 2))
        ours = median(lambda: chat.append(TURN))  # noqa: B023
        raw = median(lambda: copy.deepcopy(TURN))
        print(f"  at {length:>7} messages: {ours:7.1f} beside {raw:6.1f} = {ours / raw:.2f} x")


if __name__ == "__main__":
    main()
