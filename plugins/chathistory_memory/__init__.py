"""Conversations in the memory of this process: for tests, for trials, and as the plainest model of the contract.

    memory:          private to the store that is opened
    memory:NAME      shared by all stores of this process that are opened under this name, until it ends

One lock, one dict. Strings cannot change, so what goes in and what comes out is nobody else's.
"""

from __future__ import annotations

import heapq
import os
import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Self

from chathistory import Cursor, Head, HistoryStore, Key, Page, ReadResult, Record, Revision, StoreURL, Traits, hookimpl
from chathistory.checks import class_name
from chathistory.errors import ConfigError, Conflict, InvalidInput
from chathistory.storage.cursors import decode_cursor, encode_cursor
from chathistory.storage.open_guard import OpenGuard
from chathistory.storage.store import check_append, check_position, check_range

__all__ = ["MemoryStore"]


@dataclass(slots=True)
class _Conversation:
    head: Head
    bodies: list[str]


@dataclass(slots=True)
class _Room:
    """What the stores of one name share."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    scopes: defaultdict[str, dict[str, _Conversation]] = field(default_factory=lambda: defaultdict(dict))


class MemoryStore(HistoryStore):
    """A store that lives and dies with this process."""

    traits: ClassVar[Traits] = Traits(durable=False, shared=False)
    _named: ClassVar[dict[str, _Room]] = {}

    def __init__(self, name: str = "") -> None:
        """Open the store of that name, or with no name a new and private one."""
        if not isinstance(name, str):
            raise ConfigError(f"name: must be text, not {class_name(name)}")
        self._room = self._named.setdefault(name, _Room()) if name else _Room()
        self._open_guard = OpenGuard()

    @classmethod
    def from_url(cls, url: StoreURL) -> Self:
        return cls(url.path)

    def append(
        self, key: Key, bodies: Sequence[str], *, after: Head | None, revision: Revision, first: int = 0
    ) -> Head:
        self._open_guard.check()
        batch = check_append(bodies, revision, self.traits, first=first)
        with self._room.lock:
            found = self._found(key)
            if _version(found) != (after.revision.version if after else None):
                raise Conflict(key, found.head if found else None)
            if found is None:
                found = self._room.scopes[key.scope][key.id] = _Conversation(Head(key, first, first, revision), [])
            found.bodies += batch
            found.head = Head(key, found.head.start, found.head.end + len(batch), revision)
            return found.head

    def read(self, key: Key, *, start: int = 0, stop: int | None = None) -> ReadResult | None:
        self._open_guard.check()
        check_range(start, stop)
        with self._room.lock:
            found = self._found(key)
            if found is None:
                return None
            head = found.head
            low = max(start if start >= 0 else head.end + start, head.start)
            high = head.end if stop is None else stop
            bodies = found.bodies[low - head.start : max(high - head.start, 0)]
        return ReadResult(head, [Record(position, body) for position, body in enumerate(bodies, low)])

    def heads(self, scope: str, *, after: Cursor | None = None, limit: int = 20) -> Page[Head]:
        self._open_guard.check()
        if limit < 1:
            raise InvalidInput("a page has at least one item")
        with self._room.lock:
            heads = [found.head for found in self._room.scopes.get(scope, {}).values()]
        if after is not None:
            last = decode_cursor(after)
            heads = [head for head in heads if _order(head) < last]
        page = heapq.nlargest(limit + 1, heads, key=_order)
        return Page(page[:limit], encode_cursor(page[limit - 1]) if len(page) > limit else None)

    def keys(self, scope: str | None = None) -> Iterator[Key]:
        self._open_guard.check()
        with self._room.lock:
            names = [scope] if scope is not None else list(self._room.scopes)
            keys = [found.head.key for name in names for found in self._room.scopes.get(name, {}).values()]
        return iter(keys)

    def forget(self, key: Key, *, before: int) -> Head | None:
        self._open_guard.check()
        check_position("before", before)
        with self._room.lock:
            found = self._found(key)
            if found is None:
                return None
            start = min(max(before, found.head.start), found.head.end)
            del found.bodies[: start - found.head.start]
            found.head = replace(found.head, start=start)
            return found.head

    def delete(self, key: Key, *, version: str | None = None) -> bool:
        self._open_guard.check()
        with self._room.lock:
            found = self._found(key)
            if found is None:
                return False
            if version is not None and version != _version(found):
                raise Conflict(key, found.head)
            del self._room.scopes[key.scope][key.id]
            if not self._room.scopes[key.scope]:
                del self._room.scopes[key.scope]
            return True

    def close(self) -> None:
        self._open_guard.cut()

    def _found(self, key: Key) -> _Conversation | None:
        return self._room.scopes.get(key.scope, {}).get(key.id)


def _version(found: _Conversation | None) -> str | None:
    return found.head.revision.version if found else None


def _order(head: Head) -> tuple[int, str]:
    return head.revision.updated, head.key.id


def _renew_locks() -> None:
    """Replace the locks in a forked child: a thread that may have held one does not live there."""
    for room in MemoryStore._named.values():  # noqa: SLF001 - of this module
        room.lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_locks)


@hookimpl
def chathistory_store(scheme: str) -> type[HistoryStore] | None:
    """Serve `memory:`."""
    return MemoryStore if scheme == "memory" else None
