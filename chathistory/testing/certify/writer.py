"""A process that appends to one conversation until it is done or killed; it says on its output what was acknowledged.

python -m chathistory.testing.certify.writer    # what to do comes as a line of JSON on standard input
"""

from __future__ import annotations

import json
import sys
from typing import Any

from chathistory.errors import Conflict
from chathistory.plugins import open_store
from chathistory.store import Head, HistoryStore, Key
from chathistory.testing.contract.samples import stamp

__all__ = ["BATCH", "batch"]

BATCH = 3


def batch(name: str, number: int, end: int) -> list[str]:
    """Return the bodies of a writer's batch of this number; each says at which position the writer means it to be."""
    return [f"{name} {number} {part} at {end + part}" for part in range(BATCH)]


def _write(store: HistoryStore, key: Key, name: str, batches: int) -> None:
    """Append batches, each as often as it takes, and tell of each that was acknowledged."""
    head: Head | None = None
    for number in range(batches):
        given = stamp()
        while True:
            try:
                head = store.append(key, batch(name, number, head.end if head else 0), after=head, stamp=given)
                break
            except Conflict as conflict:
                head = conflict.head
        sys.stdout.write(f"{number}\n")
        sys.stdout.flush()


def _main(order: dict[str, Any]) -> None:
    with open_store(order["url"]) as store:
        _write(store, Key(order["scope"], order["id"]), order["name"], order["batches"])


if __name__ == "__main__":
    _main(json.loads(sys.stdin.readline()))
