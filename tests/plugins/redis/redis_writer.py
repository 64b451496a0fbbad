"""A writer in a process of its own: appends to a conversation with other writers, and repeats after conflicts.

python redis_writer.py URL NAME COUNT      prints the most tries that one append took
"""

from __future__ import annotations

import random
import sys
import time

from chathistory import History, open_store
from chathistory.errors import Conflict


def write(history: History, name: str, count: int) -> int:
    """Append `count` batches of two messages; returns the most tries that one took."""
    chat = history.conversation("together")
    worst = 0
    for number in range(count):
        batch = [{"role": "user", "content": f"{name} {number} {part}"} for part in range(2)]
        worst = max(worst, _append(chat, batch))
    return worst


def _append(chat, batch) -> int:
    """Append as often as it takes, with growing pauses: the last writer needs no read first, and would always win."""
    tries = 0
    while True:
        tries += 1
        try:
            chat.append(batch)
        except Conflict:
            time.sleep(random.uniform(0, 0.002 * min(tries, 20)))
            chat.state()
        else:
            return tries


def main() -> None:
    url, name, count = sys.argv[1:]
    with open_store(url) as store:
        print(write(History(store), name, int(count)))  # noqa: T201


if __name__ == "__main__":
    main()
