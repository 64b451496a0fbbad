"""A process that works on one conversation until it is done, stopped, or killed.

python -m chathistory.testing.certify.writer_process    # takes an order as a line of JSON on standard input

It prints a line for each acknowledged round. It stops when its standard input is closed.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import Self

from chathistory.errors import Conflict
from chathistory.storage.plugins import open_store
from chathistory.storage.store import HistoryStore
from chathistory.storage.url import StoreURL
from chathistory.storage.values import Head, Key
from chathistory.testing.contract.concurrency import IncarnationWriter, PairWriter
from chathistory.testing.contract.samples import make_revision

__all__ = ["BATCH", "WriterOrder", "batch_bodies", "forgettable_body"]

BATCH = 3


@dataclass(frozen=True, slots=True)
class WriterOrder:
    """What a writer process does.

    It is sent to standard input: arguments of a process are visible to other users, and a URL may hold a password.

    Attributes:
        url: The store; its `repr` hides secrets.
        key: The conversation, by its name in the store.
        work: A method of the writer's jobs, such as "appends".
        rounds: How many rounds it does at least.
        name: Part of the bodies that it writes.
        until_stdin_closes: Whether it continues until its standard input is closed.
    """

    url: StoreURL
    key: Key
    work: str
    rounds: int
    name: str
    until_stdin_closes: bool

    def to_json(self) -> str:
        """Return the order as JSON, without a line break."""
        url = [self.url.scheme, self.url.location, dict(self.url.options)]
        key = [self.key.scope, self.key.id]
        return json.dumps([url, key, self.work, self.rounds, self.name, self.until_stdin_closes])

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return the order that `to_json` wrote."""
        url, key, *rest = json.loads(text)
        return cls(StoreURL(*url), Key(*key), *rest)


def batch_bodies(name: str, number: int, end: int) -> list[str]:
    """Return the bodies of a batch; each names the position at which the writer expects it."""
    return [f"{name} {number} {part} at {end + part}" for part in range(BATCH)]


def forgettable_body(name: str, position: int) -> str:
    """Return the body of a record that will be forgotten."""
    return f"{name} forget{position}end"


class _Jobs:
    """The jobs of a writer, by name. Each returns a function that does one round."""

    def __init__(self, store: HistoryStore, key: Key, name: str) -> None:
        self._store, self._key, self._name = store, key, name
        self._rounds = count()
        self._head: Head | None = None

    def appends(self) -> Callable[[], object]:
        """Append a batch, repeated until it is stored."""
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
        """Append pairs of lines, and forget old ones."""
        return PairWriter(self._store, self._key).step

    def kept_pairs(self) -> Callable[[], object]:
        """Append pairs of lines."""
        pairs = PairWriter(self._store, self._key)
        return lambda: pairs.step(keep=None)

    def incarnations(self) -> Callable[[], object]:
        """Create the conversation, and delete it."""
        return IncarnationWriter(self._store, self._key).step

    def forgets(self) -> Callable[[], object]:
        """Append three lines, and forget three."""
        return self._forget

    def _forget(self) -> None:
        end = self._head.end if self._head else 0
        bodies = [forgettable_body(self._name, position) for position in range(end, end + BATCH)]
        self._head = self._store.append(self._key, bodies, after=self._head, revision=make_revision())
        self._store.forget(self._key, before=self._head.end - BATCH)

    def deletes(self) -> Callable[[], object]:
        """Create the conversation with three lines, and delete it."""
        return self._delete

    def _delete(self) -> None:
        bodies = [forgettable_body(self._name, position) for position in range(BATCH)]
        self._store.append(self._key, bodies, after=None, revision=make_revision())
        self._store.delete(self._key)


def _count_rounds(least: int, *, until_stdin_closes: bool) -> Iterator[int]:
    """Yield the number of each round: at least `least`, and with `until_stdin_closes` until the input is closed."""
    input_ends = threading.Thread(target=sys.stdin.read, daemon=True)
    if until_stdin_closes:
        input_ends.start()
    for number in count():
        if number >= least and not input_ends.is_alive():
            return
        yield number


def _run_order(order: WriterOrder) -> None:
    with open_store(order.url) as store:
        step = getattr(_Jobs(store, order.key, order.name), order.work)()
        for number in _count_rounds(order.rounds, until_stdin_closes=order.until_stdin_closes):
            step()
            sys.stdout.write(f"{number}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    _run_order(WriterOrder.from_json(sys.stdin.readline()))
