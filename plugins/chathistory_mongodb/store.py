"""What the store does, in terms of the rest of the package."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Self

from chathistory.errors import InvalidInput
from chathistory.storage.open_guard import OpenGuard
from chathistory.storage.recovery import FoundRecords
from chathistory.storage.store import (
    LARGEST_NUMBER,
    Cursor,
    Damaged,
    Head,
    HistoryStore,
    Key,
    Leftovers,
    Page,
    ReadResult,
    Record,
    Revision,
    Traits,
    check_append,
    check_position,
    check_range,
)
from chathistory.storage.sweep import Swept
from chathistory.storage.url import Option, StoreURL
from chathistory_mongodb import reading, recovery, removing, walking, writing
from chathistory_mongodb.connection import DATABASE, OPTIONS, PREFIX, Client, Link, Target, target_of
from chathistory_mongodb.documents import key_of
from chathistory_mongodb.faults import translated
from chathistory_mongodb.probing import probe

__all__ = ["MongoStore"]


class MongoStore(HistoryStore):
    """Conversations in two collections of one database.

    client: used as it is and never closed; where it sets no write concern the store's own holds (majority, journalled).
    database, prefix: where the two collections are, and what their names begin with.
    Raises `ConfigError` for a name that no database or collection can have, and for unacknowledged writes.
    """

    traits = Traits(
        durable=True,
        shared=True,
        not_reached=("oplog", "journal", "snapshots", "secondaries that are behind", "backups"),
    )
    options: ClassVar[Mapping[str, Option]] = OPTIONS

    def __init__(self, client: Client | Target, *, database: str = DATABASE, prefix: str = PREFIX) -> None:
        self._link = Link(client, database=database, prefix=prefix)
        self._open_guard = OpenGuard()

    @classmethod
    def from_url(cls, url: StoreURL) -> Self:
        target = target_of(url)
        return cls(target, database=target.database, prefix=target.prefix)

    def append(
        self, key: Key, bodies: Sequence[str], *, after: Head | None, revision: Revision, first: int = 0
    ) -> Head:
        self._open_guard.check()
        batch = check_append(bodies, revision, self.traits, first=first)
        if (first if after is None else after.end) + len(batch) > LARGEST_NUMBER:
            raise InvalidInput("positions must be below 2**53")
        return self._append(key, batch, after=after, revision=revision, first=first)

    @translated("append")
    def _append(self, key: Key, bodies: Sequence[str], *, after: Head | None, revision: Revision, first: int) -> Head:
        place = self._link.ready()
        if after is None:
            return writing.create(place, key, bodies, revision=revision, first=first)
        return writing.append(place, key, bodies, after=after, revision=revision)

    def read(self, key: Key, *, start: int = 0, stop: int | None = None) -> ReadResult | None:
        self._open_guard.check()
        check_range(start, stop)
        return self._read(key, start, stop)

    @translated("read")
    def _read(self, key: Key, start: int, stop: int | None) -> ReadResult | None:
        return reading.read(self._link.place(), key, start, stop)

    def heads(self, scope: str, *, after: Cursor | None = None, limit: int = 20) -> Page[Head]:
        self._open_guard.check()
        if limit < 1:
            raise InvalidInput("a page has at least one item")
        return self._heads(Key(scope, "-"), after, limit)

    @translated("listing")
    def _heads(self, key: Key, after: Cursor | None, limit: int) -> Page[Head]:
        return reading.heads(self._link.place(), key.scope, after, limit)

    def keys(self, scope: str | None = None) -> Iterator[Key]:
        self._open_guard.check()
        return self._walk(_any_of(scope), everywhere=scope is None, now=False)

    def scan_keys(self, scope: str | None = None) -> Iterator[Key]:
        """Yield what `keys` yields, as it is now on the primary, and then those of which only segments are left."""
        self._open_guard.check()
        return self._scan(_any_of(scope), everywhere=scope is None)

    def damaged_keys(self, scope: str | None = None) -> Iterator[Damaged]:
        self._open_guard.check()
        return self._damage(_any_of(scope), everywhere=scope is None)

    def remove_leftovers(self, scope: str) -> Leftovers:
        self._open_guard.check()
        return self._remove_leftovers(Key(scope, "-"))

    @translated("erase")
    def _remove_leftovers(self, key: Key) -> Leftovers:
        return walking.remove_leftovers(self._link.place(), key.scope)

    def _scan(self, key: Key, *, everywhere: bool) -> Iterator[Key]:
        yield from self._walk(key, everywhere=everywhere, now=True)
        self._open_guard.check()
        yield from self._lost(key, everywhere=everywhere)

    def _walk(self, key: Key, *, everywhere: bool, now: bool) -> Iterator[Key]:
        dead = self._dead(key)
        names = self._names(key, None, everywhere=everywhere, now=now)
        while names:
            keys = (key_of(walking.known(name)) for name in names)
            yield from (each for each in keys if each is not None and each not in dead)
            self._open_guard.check()
            names = self._names(key, names[-1], everywhere=everywhere, now=now)

    def _damage(self, key: Key, *, everywhere: bool) -> Iterator[Damaged]:
        yield from self._damaged(key, everywhere=everywhere)

    @translated("listing")
    def _dead(self, _key: Key) -> set[Key]:
        return walking.dead_keys(self._link.place().heads)

    @translated("listing")
    def _names(self, key: Key, last: Any, *, everywhere: bool, now: bool) -> list[Any]:
        place = self._link.place()
        return walking.names(place.heads if now else place.seen_heads, None if everywhere else key.scope, last)

    @translated("listing")
    def _lost(self, key: Key, *, everywhere: bool) -> list[Key]:
        return walking.lost_keys(self._link.place(), None if everywhere else key.scope)

    @translated("listing")
    def _damaged(self, key: Key, *, everywhere: bool) -> list[Damaged]:
        return walking.damaged(self._link.place(), None if everywhere else key.scope)

    def find_records(self, key: Key) -> FoundRecords | None:
        self._open_guard.check()
        return self._find_records(key)

    @translated("recovery")
    def _find_records(self, key: Key) -> FoundRecords | None:
        return recovery.find(self._link.place(), key)

    def read_found(self, found: FoundRecords, *, start: int, stop: int) -> Sequence[Record]:
        self._open_guard.check()
        return self._read_found(found.key, found, start, stop)

    @translated("recovery")
    def _read_found(self, _key: Key, found: FoundRecords, start: int, stop: int) -> Sequence[Record]:
        return recovery.read(self._link.place(), found, start, stop)

    def restore_head(self, found: FoundRecords, head: Head) -> Head:
        self._open_guard.check()
        return self._restore_head(found.key, found, head)

    @translated("recovery")
    def _restore_head(self, _key: Key, found: FoundRecords, head: Head) -> Head:
        return recovery.restore(self._link.ready(), found, head)

    def forget(self, key: Key, *, before: int) -> Head | None:
        self._open_guard.check()
        check_position("before", before)
        return self._forget(key, max(min(before, LARGEST_NUMBER), 0))

    @translated("forget")
    def _forget(self, key: Key, before: int) -> Head | None:
        return removing.forget(self._link.place(), key, before)

    def delete(self, key: Key, *, version: str | None = None) -> bool:
        self._open_guard.check()
        return self._delete(key, version)

    @translated("delete")
    def _delete(self, key: Key, version: str | None) -> bool:
        return removing.delete(self._link.place(), key, version)

    def sweep(self, *, before: int | None = None) -> Swept:
        """Remove the conversations that expired before that time; return how many those were.

        Microseconds since 1970 UTC; None: before now, by the clock of this machine.
        Expired is absent, to everyone who reads through this library, with or without it: this frees the space.
        Each goes whole, and only if nobody wrote to it meanwhile. What a crash left of a delete goes with it. A damaged
        one stays, and is counted.
        """
        self._open_guard.check()
        return self._sweep(Key("default", "-"), time.time_ns() // 1000 if before is None else before)

    @translated("sweep")
    def _sweep(self, _key: Key, before: int) -> Swept:
        return removing.sweep(self._link.ready(), before)

    def check(self) -> None:
        """See whether the server can be reached, and whether it does what this store rests on, in some ten round trips.

        Tries it out on a document in the collection of segments, which is gone afterwards. Raises `StoreRejected` if
        the server differs, or if the user may not write.
        """
        self._open_guard.check()
        self._check(Key("default", "-"))

    @translated("check")
    def _check(self, _key: Key) -> None:
        probe(self._link.ready())

    def close(self) -> None:
        if self._open_guard.cut():
            self._link.close()


def _any_of(scope: str | None) -> Key:
    """Return a key of a scope: `translated` wants one."""
    return Key("default" if scope is None else scope, "-")
