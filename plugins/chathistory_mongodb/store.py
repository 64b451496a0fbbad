"""What the store does, in terms of the rest of the package."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, Self

from chathistory.cursor import encode_cursor
from chathistory.errors import InvalidInput
from chathistory.lifeline import Lifeline
from chathistory.store import Cursor, Head, HistoryStore, Key, Page, Slice, Stamp, Traits, check_append
from chathistory.sweeping import Swept
from chathistory.url import Option, StoreURL
from chathistory_mongodb import reading, removing, writing
from chathistory_mongodb.connection import DATABASE, OPTIONS, PREFIX, Client, Link, Target, target_of
from chathistory_mongodb.documents import LONGEST_INT
from chathistory_mongodb.faults import translated

__all__ = ["MongoStore"]


class MongoStore(HistoryStore):
    """Conversations in two collections of one database.

    client: used as it is and never closed; where it sets no write concern the store's own holds (majority, journalled).
    database, prefix: where the two collections are, and what their names begin with.
    Raises `ConfigError` for a name that no database or collection can have, and for unacknowledged writes.
    """

    traits: ClassVar[Traits] = Traits(durable=True, shared=True)
    options: ClassVar[Mapping[str, Option]] = OPTIONS

    def __init__(self, client: Client | Target, *, database: str = DATABASE, prefix: str = PREFIX) -> None:
        self._link = Link(client, database=database, prefix=prefix)
        self._lifeline = Lifeline()

    @classmethod
    def from_url(cls, url: StoreURL) -> Self:
        target = target_of(url)
        return cls(target, database=target.database, prefix=target.prefix)

    def append(self, key: Key, bodies: Sequence[str], *, after: Head | None, stamp: Stamp, first: int = 0) -> Head:
        self._lifeline.check()
        batch = check_append(bodies, stamp, self.traits, first=first)
        if max(stamp.updated, stamp.expires or 0, first) > LONGEST_INT:
            msg = "times and positions above 2**62 cannot be stored"
            raise InvalidInput(msg)
        return self._append(key, batch, after=after, stamp=stamp, first=first)

    @translated("append")
    def _append(self, key: Key, bodies: Sequence[str], *, after: Head | None, stamp: Stamp, first: int) -> Head:
        place = self._link.ready()
        if after is None:
            return writing.create(place, key, bodies, stamp=stamp, first=first)
        return writing.append(place, key, bodies, after=after, stamp=stamp)

    def read(self, key: Key, *, start: int = 0, stop: int | None = None) -> Slice | None:
        self._lifeline.check()
        return self._read(key, start, stop)

    @translated("read")
    def _read(self, key: Key, start: int, stop: int | None) -> Slice | None:
        return reading.read(self._link.place(), key, start, stop)

    def heads(self, scope: str, *, after: Cursor | None = None, limit: int = 20) -> Page[Head]:
        self._lifeline.check()
        if limit < 1:
            msg = "a page has at least one item"
            raise InvalidInput(msg)
        heads = self._heads(Key(scope, "-"), after, limit + 1)
        return Page(heads[:limit], encode_cursor(heads[limit - 1]) if len(heads) > limit else None)

    @translated("listing")
    def _heads(self, key: Key, after: Cursor | None, limit: int) -> list[Head]:
        return reading.heads(self._link.place(), key.scope, after, limit)

    def keys(self, scope: str | None = None) -> Iterator[Key]:
        self._lifeline.check()
        return self._walk(Key("default" if scope is None else scope, "-"), everywhere=scope is None)

    def _walk(self, key: Key, *, everywhere: bool) -> Iterator[Key]:
        names = self._names(key, None, everywhere=everywhere)
        while names:
            yield from names
            self._lifeline.check()
            names = self._names(key, names[-1], everywhere=everywhere)

    @translated("listing")
    def _names(self, key: Key, last: Key | None, *, everywhere: bool) -> list[Key]:
        return reading.keys_after(self._link.place(), None if everywhere else key.scope, last)

    def forget(self, key: Key, *, before: int) -> Head | None:
        self._lifeline.check()
        return self._forget(key, max(min(before, LONGEST_INT), -LONGEST_INT))

    @translated("forget")
    def _forget(self, key: Key, before: int) -> Head | None:
        return removing.forget(self._link.place(), key, before)

    def delete(self, key: Key, *, version: str | None = None) -> bool:
        self._lifeline.check()
        return self._delete(key, version)

    @translated("delete")
    def _delete(self, key: Key, version: str | None) -> bool:
        return removing.delete(self._link.place(), key, version)

    def sweep(self, *, before: int | None = None) -> Swept:
        """Remove the conversations that expired before that time; return how many those were.

        Microseconds since 1970 UTC; None: before now, by the clock of this machine.
        Expired is absent, to everyone who reads through this library, with or without it: this frees the space.
        Each goes whole, and only if nobody wrote to it meanwhile. What a crash left of a delete goes with it.
        """
        self._lifeline.check()
        return Swept(self._sweep(Key("default", "-"), time.time_ns() // 1000 if before is None else before))

    @translated("sweep")
    def _sweep(self, _key: Key, before: int) -> int:
        return removing.sweep(self._link.ready(), before)

    def close(self) -> None:
        if self._lifeline.cut():
            self._link.close()
