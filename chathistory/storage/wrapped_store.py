"""The base class of stores that wrap another store and pass calls on to it.

A subclass overrides the methods that it changes, under the names of `HistoryStore`, and calls `self.inner` or `super()`
in them. Every other method passes its arguments to the inner store unchanged.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Self

from chathistory.errors import ConfigError
from chathistory.storage.abilities import HeadRecovery, StorageNotes, Sweeping
from chathistory.storage.store import HistoryStore
from chathistory.storage.url import StoreURL
from chathistory.storage.values import Cursor, Damaged, Head, Key, Leftovers, Page, ReadResult, Revision

__all__ = ["WrappedStore"]


class WrappedStore(HistoryStore):
    """A store that passes all calls to another store.

    Attributes:
        inner: The other store. Closing this store closes it, too.
    """

    def __init__(self, inner: HistoryStore) -> None:
        """Wrap a store.

        Args:
            inner: The other store, which must be open.
        """
        self.inner = inner
        self.traits = inner.traits

    @classmethod
    def from_url(cls, url: StoreURL) -> Self:
        raise ConfigError(
            f"{url.scheme}: {cls.__name__} wraps another store and has no URL; open the other store, and pass it: "
            f"{cls.__name__}(open_store(...))"
        )

    @property
    def ttl(self) -> float | None:
        """Seconds from the last message or turn until a conversation expires; None for never."""
        return self.inner.ttl

    @ttl.setter
    def ttl(self, ttl: float | None) -> None:  # pyright: ignore[reportIncompatibleVariableOverride]  # set as there
        self.inner.ttl = ttl

    def append(
        self, key: Key, bodies: Sequence[str], *, after: Head | None, revision: Revision, first: int = 0
    ) -> Head:
        return self.inner.append(key, bodies, after=after, revision=revision, first=first)

    def read(self, key: Key, *, start: int = 0, stop: int | None = None) -> ReadResult | None:
        return self.inner.read(key, start=start, stop=stop)

    def heads(self, scope: str, *, after: Cursor | None = None, limit: int = 20) -> Page[Head]:
        return self.inner.heads(scope, after=after, limit=limit)

    def keys(self, scope: str | None = None) -> Iterator[Key]:
        return self.inner.keys(scope)

    def damaged_keys(self, scope: str | None = None) -> Iterator[Damaged]:
        return self.inner.damaged_keys(scope)

    def scan_keys(self, scope: str | None = None) -> Iterator[Key]:
        return self.inner.scan_keys(scope)

    def is_index_complete(self) -> bool:
        return self.inner.is_index_complete()

    def forget(self, key: Key, *, before: int) -> Head | None:
        return self.inner.forget(key, before=before)

    def delete(self, key: Key, *, version: str | None = None) -> bool:
        return self.inner.delete(key, version=version)

    def remove_leftovers(self, scope: str) -> Leftovers:
        return self.inner.remove_leftovers(scope)

    def check(self) -> None:
        self.inner.check()

    def close(self) -> None:
        self.inner.close()

    def get_recovery(self) -> HeadRecovery | None:
        return self.inner.get_recovery()

    def get_storage_notes(self) -> StorageNotes | None:
        return self.inner.get_storage_notes()

    def get_sweeping(self) -> Sweeping | None:
        return self.inner.get_sweeping()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.inner!r})"
