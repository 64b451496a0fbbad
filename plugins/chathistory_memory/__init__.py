"""Conversations in the memory of this process: for tests and trials, and as the simplest model of the contract.

    memory:          private to the store that is opened
    memory:NAME      shared by all stores of this process with this name, until the process ends

One lock, one dict. Strings are immutable, so callers and the store cannot change each other's data.
"""

from __future__ import annotations

import heapq
import os
import threading
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Self

from chathistory import BaseStore, Head, HistoryStore, Key, ReadResult, Record, Revision, StoreURL, Traits, hookimpl
from chathistory.checks import class_name
from chathistory.errors import ConfigError, Conflict
from chathistory.storage.checks import check_version
from chathistory.storage.values import SortKey

__all__ = ["MemoryStore"]


@dataclass(slots=True)
class _Conversation:
    head: Head
    bodies: list[str]


@dataclass(slots=True)
class _Data:
    """The data that all stores with one name share."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    scopes: defaultdict[str, dict[str, _Conversation]] = field(default_factory=lambda: defaultdict(dict))


class MemoryStore(BaseStore):
    """A store that lives and dies with this process."""

    traits = Traits(durable=False, shared=False)
    _named: ClassVar[dict[str, _Data]] = {}

    def __init__(self, name: str = "") -> None:
        """Open the store with this name.

        Args:
            name: Stores with the same name share their data; "" opens a new, private store.

        Raises:
            ConfigError: `name` is not a str.
        """
        super().__init__()
        if not isinstance(name, str):
            raise ConfigError(f"name: must be text, not {class_name(name)}")
        self._data = self._named.setdefault(name, _Data()) if name else _Data()

    @classmethod
    def from_url(cls, url: StoreURL) -> Self:
        return cls(url.path)

    def _append_records(
        self, key: Key, bodies: list[str], *, after: Head | None, revision: Revision, first: int
    ) -> Head:
        with self._data.lock:
            found = self._find_conversation(key)
            check_version(key, found.head if found else None, after)
            if found is None:
                found = self._data.scopes[key.scope][key.id] = _Conversation(Head(key, first, first, revision), [])
            found.bodies += bodies
            found.head = Head(key, found.head.start, found.head.end + len(bodies), revision)
            return found.head

    def _read_range(self, key: Key, start: int, stop: int | None) -> ReadResult | None:
        with self._data.lock:
            found = self._find_conversation(key)
            if found is None:
                return None
            head, wanted = found.head, found.head.narrow(start, stop)
            bodies = found.bodies[wanted.start - head.start : wanted.stop - head.start]
        return ReadResult(head, list(map(Record, wanted, bodies)))

    def _list_heads(self, scope: str, *, below: SortKey | None, count: int) -> Sequence[Head]:
        with self._data.lock:
            heads = [found.head for found in self._data.scopes.get(scope, {}).values()]
        if below is not None:
            heads = [head for head in heads if head.sort_key < below]
        return heapq.nlargest(count, heads, key=lambda head: head.sort_key)

    def _list_keys(self, scope: str | None) -> Sequence[Key]:
        with self._data.lock:
            names = [scope] if scope is not None else list(self._data.scopes)
            return [found.head.key for name in names for found in self._data.scopes.get(name, {}).values()]

    def _forget_records(self, key: Key, before: int) -> Head | None:
        with self._data.lock:
            found = self._find_conversation(key)
            if found is None:
                return None
            old, found.head = found.head, found.head.drop_below(before)
            del found.bodies[: found.head.start - old.start]
            return found.head

    def _delete(self, key: Key, version: str | None) -> bool:
        with self._data.lock:
            found = self._find_conversation(key)
            if found is None:
                return False
            if version not in (None, found.head.revision.version):
                raise Conflict(key, found.head)
            del self._data.scopes[key.scope][key.id]
            if not self._data.scopes[key.scope]:
                del self._data.scopes[key.scope]
            return True

    def _find_conversation(self, key: Key) -> _Conversation | None:
        return self._data.scopes.get(key.scope, {}).get(key.id)


def _renew_locks() -> None:
    """Replace the locks in a forked child: the thread that may hold one does not exist there."""
    for data in MemoryStore._named.values():  # noqa: SLF001 - of this module
        data.lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_locks)


@hookimpl
def chathistory_store(scheme: str) -> type[HistoryStore] | None:
    """Return the store class for `memory:` URLs."""
    return MemoryStore if scheme == "memory" else None
