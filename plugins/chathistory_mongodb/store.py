"""The store: the hooks that `BaseStore` calls, by means of the rest of the package."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import ClassVar, Self, TypeVar

from chathistory import BaseStore
from chathistory.errors import StoreRejected
from chathistory.storage.abilities import FoundRecords, SweepReport
from chathistory.storage.url import Option, StoreURL
from chathistory.storage.values import Damaged, Head, Key, Leftovers, ReadResult, Record, Revision, SortKey, Traits
from chathistory_mongodb import delete, listing, read, recovery, write
from chathistory_mongodb.errors import translate_errors
from chathistory_mongodb.server import Client, Collections, Server, find_difference, get_collections
from chathistory_mongodb.urls import DATABASE, OPTIONS, PREFIX, MongoTarget, parse_url

__all__ = ["MongoStore"]

T = TypeVar("T")


class MongoStore(BaseStore):
    """Conversations in two collections of one database."""

    traits = Traits(
        durable=True,
        shared=True,
        not_reached=("oplog", "journal", "snapshots", "secondaries that lag", "backups"),
    )
    options: ClassVar[Mapping[str, Option]] = OPTIONS

    def __init__(self, client: Client | MongoTarget, *, database: str = DATABASE, prefix: str = PREFIX) -> None:
        """Open a store with a client of the caller's; `close` does not close the client.

        Args:
            client: A `pymongo.MongoClient`. If it sets no write concern, the store uses its own (majority, journalled).
            database: The name of the database with the two collections.
            prefix: The beginning of the names of the two collections.

        Raises:
            ConfigError: A name is invalid, or the client has unacknowledged writes (w=0).
        """
        super().__init__()
        if isinstance(client, MongoTarget):
            self._server = Server(client)
        else:
            target = MongoTarget("", database, prefix)
            self._server = Server(target, get_collections(client, target))

    @classmethod
    def from_url(cls, url: StoreURL) -> Self:
        return cls(parse_url(url))

    @translate_errors("append")
    def _append_records(
        self, key: Key, bodies: list[str], *, after: Head | None, revision: Revision, first: int
    ) -> Head:
        collections = self._server.prepare_collections()
        if after is None:
            return write.create_conversation(collections, key, bodies, revision=revision, first=first)
        return write.append_records(collections, key, bodies, after=after, revision=revision)

    @translate_errors("read")
    def _read_range(self, key: Key, start: int, stop: int | None) -> ReadResult | None:
        return read.read_range(self._server.open_collections(), key, start, stop)

    @translate_errors("listing")
    def _list_heads(self, scope: str, *, below: SortKey | None, count: int) -> Sequence[Head | Damaged]:
        return listing.list_heads(self._server.open_collections(), scope, below, count)

    def _list_keys(self, scope: str | None) -> Iterator[Key]:
        return self._walk_collections(
            lambda collections: listing.list_keys(collections, collections.preferred_heads, scope)
        )

    def _scan_keys(self, scope: str | None) -> Iterator[Key]:
        """Yield the conversations as they are now on the primary, and then those with segments only."""
        yield from self._walk_collections(lambda collections: listing.list_keys(collections, collections.heads, scope))
        yield from self._walk_collections(lambda collections: listing.list_lost_keys(collections, scope))

    def _list_damaged_keys(self, scope: str | None) -> Iterator[Damaged]:
        return self._walk_collections(lambda collections: listing.list_damaged_keys(collections, scope))

    def _walk_collections(self, walk: Callable[[Collections], Iterator[T]]) -> Iterator[T]:
        """Yield the rows of a walk over the collections, with errors translated."""
        rows = translate_errors("listing")(lambda: walk(self._server.open_collections()))()
        step = translate_errors("listing")(lambda: next(rows, None))
        while (row := step()) is not None:
            yield row

    @translate_errors("erase")
    def _remove_leftovers(self, scope: str) -> Leftovers:
        return listing.remove_leftovers(self._server.open_collections(), scope)

    @translate_errors("forget")
    def _forget_records(self, key: Key, before: int) -> Head | None:
        return delete.forget_records(self._server.open_collections(), key, before)

    @translate_errors("delete")
    def _delete(self, key: Key, version: str | None) -> bool:
        return delete.delete(self._server.open_collections(), key, version)

    @translate_errors("check")
    def _check(self) -> None:
        """Check in about ten round trips that the server can be reached, and works as this store needs.

        Tries it with a document in the collection of segments, which is removed afterwards. Raises `StoreRejected` if
        the server differs from MongoDB, or if the user may not write.
        """
        difference = find_difference(self._server.prepare_collections().segments)
        if difference:
            raise StoreRejected(
                f"the server does not work like MongoDB ({difference}), so conversations would not be safe; use MongoDB"
            )

    def _close(self) -> None:
        self._server.close()

    @translate_errors("recovery")
    def find_records(self, key: Key) -> FoundRecords | None:
        self._check_open()
        return recovery.find_records(self._server.open_collections(), key)

    @translate_errors("recovery")
    def read_found(self, found: FoundRecords, *, start: int, stop: int) -> Sequence[Record]:
        self._check_open()
        return recovery.read_found(self._server.open_collections(), found, start, stop)

    @translate_errors("recovery")
    def restore_head(self, found: FoundRecords, head: Head) -> Head:
        self._check_open()
        return recovery.restore_head(self._server.prepare_collections(), found, head)

    @translate_errors("sweep")
    def sweep(self, *, before: int | None = None) -> SweepReport:
        """Remove the conversations that expired before a time.

        Expired conversations are absent for readers with or without this; it frees their space. Each is removed as a
        whole, and only if nobody wrote to it meanwhile, together with leftovers of interrupted deletes. A damaged one
        stays, and is counted.

        Args:
            before: The time, in microseconds since 1970 UTC; None for now, by the clock of this machine.

        Returns:
            How many were removed, and how many are damaged.

        Raises:
            StoreError: The server could not be reached, or refused the operation.
        """
        self._check_open()
        return delete.sweep(self._server.prepare_collections(), time.time_ns() // 1000 if before is None else before)
