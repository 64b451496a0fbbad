"""A process that works on one conversation until it is done, told to stop, or killed.

python -m chathistory.testing.certify.writer_process    # what to do comes as a line of JSON on standard input

It says on its output what was acknowledged, a line for each round. The end of its input tells it to stop.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

from chathistory.errors import Conflict
from chathistory.storage.plugins import open_store
from chathistory.storage.store import HistoryStore
from chathistory.storage.values import Head, Key
from chathistory.testing.contract.concurrency import IncarnationWriter, PairWriter
from chathistory.testing.contract.samples import make_revision

__all__ = ["BATCH", "batch_bodies", "forgettable_body"]

BATCH = 3


def batch_bodies(name: str, number: int, end: int) -> list[str]:
    """Return the bodies of a writer's batch of this number; each says at which position the writer means it to be."""
    return [f"{name} {number} {part} at {end + part}" for part in range(BATCH)]


def forgettable_body(name: str, position: int) -> str:
    """Return the body of a record that is there to be forgotten."""
    return f"{name} forget{position}end"


class _Jobs:
    """What a writer can be told to do: for each a function that does one round."""

    def __init__(self, store: HistoryStore, key: Key, name: str) -> None:
        self._store, self._key, self._name = store, key, name
        self._rounds = count()
        self._head: Head | None = None

    def appends(self) -> Callable[[], object]:
        """Append a batch, as often as it takes."""
        return self._append

    def _append(self) -> None:
        number, given, head = next(self._rounds), make_revision(), self._head
        while True:
            try:
                bodies = batch_bodies(self._name, number, head.end if head else 0)
                self._head = self._store.append(self._key, bodies, after=head, revision=given)
            except Conflict as conflict:
                head = conflict.head
            else:
                return

    def pairs(self) -> Callable[[], object]:
        """Append pairs, and forget all but the last ones."""
        return PairWriter(self._store, self._key).step

    def kept_pairs(self) -> Callable[[], object]:
        """Append pairs."""
        pairs = PairWriter(self._store, self._key)
        return lambda: pairs.step(keep=None)

    def incarnations(self) -> Callable[[], object]:
        """Make the conversation, and delete it."""
        return IncarnationWriter(self._store, self._key).step

    def forgets(self) -> Callable[[], object]:
        """Append three lines to the conversation, and forget three."""
        return self._forget

    def _forget(self) -> None:
        end = self._head.end if self._head else 0
        bodies = [forgettable_body(self._name, position) for position in range(end, end + BATCH)]
        self._head = self._store.append(self._key, bodies, after=self._head, revision=make_revision())
        self._store.forget(self._key, before=self._head.end - BATCH)

    def deletes(self) -> Callable[[], object]:
        """Make the conversation with three lines, and delete it."""
        return self._delete

    def _delete(self) -> None:
        bodies = [forgettable_body(self._name, position) for position in range(BATCH)]
        self._store.append(self._key, bodies, after=None, revision=make_revision())
        self._store.delete(self._key)


def _count_rounds(least: int, *, until_told: bool) -> Iterator[int]:
    """Yield the number of each round: so many at least, and with `until_told` on to the end of the input."""
    input_ends = threading.Thread(target=sys.stdin.read, daemon=True)
    if until_told:
        input_ends.start()
    for number in count():
        if number >= least and not input_ends.is_alive():
            return
        yield number


def _run_order(order: dict[str, Any]) -> None:
    with open_store(order["url"]) as store:
        works = _Jobs(store, Key(order["scope"], order["id"]), order["name"])
        step = getattr(works, order["work"])()
        for number in _count_rounds(order["rounds"], until_told=order["until_told"]):
            step()
            sys.stdout.write(f"{number}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    _run_order(json.loads(sys.stdin.readline()))
