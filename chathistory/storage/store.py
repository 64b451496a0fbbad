"""The storage contract: what the core requires of a store.

A store keeps *conversations*. A conversation is a sequence of *records*; each record is one line of text at a
*position*, and the store never interprets it. The *head* says which positions are kept. The *revision* is a small value
of the core; each append replaces it as a whole. All meaning (roles, tools, tokens, trimming, expiry, retries) is in the
core.

    Key(scope, id) ── Head(key, start, end, Revision(version, updated, expires, payload))
                          └── Record(position, body) for start <= position < end

The *version* guards an append: the writer passes the head that it has seen, and the store raises `Conflict` if that is
not the present one. A number could not do this. A conversation that was deleted and created again, or that lost records
in a failover, may have the right number and the wrong history.

`chathistory.testing.HistoryStoreContract` tests all of this.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, NoReturn, Self

from chathistory.checks import refuse_pickling
from chathistory.storage.values import (
    Cursor,
    Damaged,
    Head,
    Key,
    Leftovers,
    Page,
    ReadResult,
    Revision,
    Traits,
)

if TYPE_CHECKING:
    from chathistory.storage.abilities import HeadRecovery, StorageNotes, Sweeping
    from chathistory.storage.url import Option, StoreURL


class HistoryStore(ABC):
    """A store of conversations, as the core uses it.

    To write a backend, subclass `BaseStore`, which implements these methods and calls hooks. To wrap another store,
    subclass `WrappedStore`. `chathistory.testing.HistoryStoreContract` tests a store.

    A store can be used from many threads at once. It knows no clock, no expiry, no retries and no JSON. Every method
    may raise `StoreUnavailable`, `StoreRejected`, `CorruptRecord` or `StoreClosed` (see `chathistory.errors`). The
    client library's error is the `__cause__`. No error quotes a body, a payload or a credential.
    """

    traits: Traits
    """What this store guarantees and what it cannot do. The class attribute applies to a store with default options."""

    options: ClassVar[Mapping[str, Option]] = {}
    """The options of `from_url`, by name. `open_store` refuses a URL with any other option."""

    ttl: float | None = None
    """Seconds from the last message or turn until a conversation expires; None for never.

    `open_store` sets it for the core.
    """

    @classmethod
    @abstractmethod
    def from_url(cls, url: StoreURL) -> Self:
        """Create a store, without any input or output.

        Args:
            url: The URL, with all options converted and with their defaults.

        Raises:
            ConfigError: The location is not valid.
        """

    @classmethod
    def resolve_relative(cls, url: StoreURL, base_dir: str) -> StoreURL:  # noqa: ARG003 - for those that have paths
        """Return `url` with a relative path resolved against a folder. Override it if your location is a file path.

        Args:
            url: The URL of a store, as a configuration file has it.
            base_dir: The folder of that file.

        Returns:
            The URL to open. The default returns `url` unchanged.
        """
        return url

    @abstractmethod
    def append(
        self, key: Key, bodies: Sequence[str], *, after: Head | None, revision: Revision, first: int = 0
    ) -> Head:
        """Store bodies and a revision atomically; they are durable on return, to the extent of `traits`.

        Args:
            key: The name of the conversation.
            bodies: The lines to store, at positions from `after.end` on; at least one.
            after: The head that the writer has seen; its version must be the stored one. None if there must be no such
                conversation.
            revision: The revision that replaces the stored one.
            first: The position of the first body in a new conversation.

        Returns:
            The new head.

        Raises:
            Conflict: The stored version differs; with the stored head (None if there is no such conversation). Nothing
                changed.
            InvalidInput: `check_append` refuses an argument. Nothing changed.
        """

    @abstractmethod
    def read(self, key: Key, *, start: int = 0, stop: int | None = None) -> ReadResult | None:
        """Return the records of [start, stop) that are kept, and the head, in one consistent read.

        A range without a damaged record can be read, whatever is damaged elsewhere in the conversation.

        Args:
            key: The name of the conversation.
            start: The first position; a negative one counts from the end.
            stop: One above the last position; None for the end.

        Returns:
            Records without gaps, from the first position of the range on (see `Head.narrow`). There may be fewer than
            the range has, to bound memory or because the next record is damaged, but at least one unless the range is
            empty. None if there is no such conversation.

        Raises:
            CorruptRecord: The first record of the range is damaged, or a later one; with the position of the first
                damaged record. Always raised if the range begins with a damaged record. If several are missing in a
                row, `CorruptRecord.stop` may say where they end.
            InvalidInput: `check_range` refuses the range.
        """

    @abstractmethod
    def heads(self, scope: str, *, after: Cursor | None = None, limit: int = 20) -> Page[Head]:
        """Return one page of the heads of a scope, by (updated, id) descending, as exactly as `traits.recency` says.

        A conversation that nobody writes to during the walk appears exactly once. One that is written may appear again,
        or not on the remaining pages.

        Args:
            scope: The scope; the page of an unknown scope is empty.
            after: `next` of the page before; None for the first page.
            limit: The most heads of the page; 1 or more.

        Returns:
            A page. A conversation with a head that cannot be read is in `Page.damaged`, and does not end the walk.

        Raises:
            InvalidInput: The cursor is not from such a store, or the limit is below 1.
        """

    @abstractmethod
    def keys(self, scope: str | None = None) -> Iterator[Key]:
        """Yield the key of every conversation of a scope once, in any order.

        A conversation that is created or deleted meanwhile may or may not appear. A damaged one appears if its key is
        known; `damaged_keys` yields the others. Damage does not end the walk.

        Args:
            scope: The scope; None for all scopes.
        """

    @abstractmethod
    def forget(self, key: Key, *, before: int) -> Head | None:
        """Remove the records below a position permanently; `end` and the revision stay the same.

        Args:
            key: The name of the conversation.
            before: The first position to keep. At or below `start` nothing changes; beyond `end` all records are
                removed.

        Returns:
            The new head; None if there is no such conversation.

        Raises:
            InvalidInput: `check_position` refuses the position.
        """

    @abstractmethod
    def delete(self, key: Key, *, version: str | None = None) -> bool:
        """Remove a conversation permanently, also a damaged one.

        Args:
            key: The name of the conversation.
            version: Remove it only if this is the stored version; None to remove it in any case.

        Returns:
            True if it was removed; False if there is no such conversation.

        Raises:
            Conflict: The stored version differs; with the stored head. Nothing was removed.
        """

    @abstractmethod
    def damaged_keys(self, scope: str | None = None) -> Iterator[Damaged]:
        """Yield everything stored in a scope that has no known key; each `Damaged` has `key=None`.

        Args:
            scope: The scope; None for all scopes. Data without a known scope are yielded for every scope.
        """

    @abstractmethod
    def scan_keys(self, scope: str | None = None) -> Iterator[Key]:
        """Yield the same as `keys`, from the conversations themselves and not from an index that can be lost.

        This may be slow.

        Args:
            scope: The scope; None for all scopes.

        Raises:
            StoreRejected: The account has no permission to walk over the storage.
        """

    @abstractmethod
    def is_index_complete(self) -> bool:
        """Return True if `keys` and `heads` certainly name every conversation.

        False if an index can lose entries on this server, for example by eviction; use `scan_keys` then.
        """

    @abstractmethod
    def remove_leftovers(self, scope: str) -> Leftovers:
        """Remove everything stored in a scope that belongs to no readable conversation, then look for remains.

        `History.erase` calls it after it has deleted every conversation that it found.

        Args:
            scope: The scope.
        """

    @abstractmethod
    def check(self) -> None:
        """Make one round trip to check that the store can be reached and used.

        Raises:
            StoreError: It cannot.
        """

    @abstractmethod
    def close(self) -> None:
        """Release what `from_url` opened, never a client that the caller passed. A second call does nothing."""

    # Optional abilities; see `chathistory.storage.abilities`.

    @abstractmethod
    def get_recovery(self) -> HeadRecovery | None:
        """Return the object that replaces damaged heads, usually this store; None if it has none."""

    @abstractmethod
    def get_storage_notes(self) -> StorageNotes | None:
        """Return the object that reports what is stored in addition to records; None if there is nothing else."""

    @abstractmethod
    def get_sweeping(self) -> Sweeping | None:
        """Return the object that removes expired conversations; None if the server does that, or nothing does."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __reduce__(self) -> NoReturn:
        refuse_pickling(self, "pass its URL instead, and call chathistory.open_store(url) in the other process")
