"""The storage contract: what the core asks of a store, and nothing more.

A store keeps *conversations*. A conversation is a run of *records*, each one line of text that the store never
looks into, numbered by *position*; a *head* that says which positions are there; and a *revision*, a few words of the
core's that are replaced as a whole with every append. All meaning (roles, tools, tokens, trimming, expiry, retries)
lives in the core, once.

    Key(scope, id) ── Head(key, start, end, Revision(version, updated, expires, payload))
                          └── Record(position, body) for start <= position < end

The *version* is the guard: an append names the head that its writer has seen, and is refused as a `Conflict` if that
is not the present one. A number could not do this: a conversation that was deleted and made again, or that lost
records in a failover, may have the right number and the wrong history.

`chathistory.testing.HistoryStoreContract` is the executable form of this page.
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
    """A place for conversations, as the core uses it.

    The author of a backend subclasses `BaseStore`, which implements these methods and calls hooks; a store around
    another one subclasses `WrappedStore`. `chathistory.testing.HistoryStoreContract` proves that a store is right.

    Safe to use from many threads at once. A store knows no clock, no expiry, no retry and no JSON. Every method may
    raise `StoreUnavailable`, `StoreRejected`, `CorruptRecord` or `StoreClosed` (see `chathistory.errors`), with the
    client library's error as `__cause__`, and never text of a body or of a payload, nor a credential.
    """

    traits: Traits
    """What this store can do and what it cannot. A class has those of a store with default options."""

    options: ClassVar[Mapping[str, Option]] = {}
    """The options that `from_url` understands, by name; anything else in a URL is refused before it is called."""

    ttl: float | None = None
    """Seconds that a conversation lives after its last append; None: for ever. `open_store` sets it for the core."""

    @classmethod
    @abstractmethod
    def from_url(cls, url: StoreURL) -> Self:
        """Build the store that a URL names, without any input or output.

        Raises:
            ConfigError: The location cannot be right.
        """

    @classmethod
    def resolve_relative(cls, url: StoreURL, base_dir: str) -> StoreURL:  # noqa: ARG003 - for those that have paths
        """Return `url` with a relative path in it taken from the folder of the configuration file it stands in.

        Default: return `url` unchanged. Override it if your location is a file path.
        """
        return url

    @abstractmethod
    def append(
        self, key: Key, bodies: Sequence[str], *, after: Head | None, revision: Revision, first: int = 0
    ) -> Head:
        """Store bodies and a revision, wholly or not at all; durable on return, to the extent of `traits`.

        Args:
            key: The conversation.
            bodies: At least one line of text; they are stored from `after.end` on.
            after: The head that the writer has seen: its version has to be the stored one. None: there has to be no
                such conversation.
            revision: What takes the place of the stored revision.
            first: The position of the first body in a new conversation.

        Returns:
            The new head.

        Raises:
            Conflict: The stored version is another one; with the stored head (None: there is none). Nothing changed.
            InvalidInput: What `check_append` refuses. Nothing changed.
        """

    @abstractmethod
    def read(self, key: Key, *, start: int = 0, stop: int | None = None) -> ReadResult | None:
        """Return the records of [start, stop) that are kept, and the head of the same moment.

        A range without a damaged record is readable, whatever is damaged elsewhere in the conversation.

        Args:
            key: The conversation.
            start: The first position; a negative one counts from the end.
            stop: One above the last position; None: the end.

        Returns:
            A run of records without a gap, which begins where the range begins (see `Head.narrow`). It may end early,
            to bound memory, or before a damaged record, but is never empty unless the range is. None: there is no such
            conversation.

        Raises:
            CorruptRecord: A record of the range is damaged; with the position of the first one. Always raised if the
                range begins with one. Where several are missing in a row, `CorruptRecord.stop` may say where that ends.
            InvalidInput: What `check_range` refuses.
        """

    @abstractmethod
    def heads(self, scope: str, *, after: Cursor | None = None, limit: int = 20) -> Page[Head]:
        """Return heads of a scope by (updated, id) descending, as exact as `traits.recency`.

        A conversation that is not written while pages are walked appears exactly once; one that is written may appear
        again, or not on the pages that are left.

        Args:
            scope: The scope; an unknown one has an empty page.
            after: `next` of the page before; None: the first page.
            limit: How many heads the page has at most; 1 or more.

        Returns:
            A page. A conversation whose head cannot be read is in `Page.damaged`, and never an error of the walk.

        Raises:
            InvalidInput: The cursor was not made by such a store, or the limit is below 1.
        """

    @abstractmethod
    def keys(self, scope: str | None = None) -> Iterator[Key]:
        """Yield the key of every conversation of a scope (None: of all scopes) once, in any order.

        Those that are made or deleted meanwhile may or may not appear. A damaged one is among them if its key is
        known; what has no known key is in `damaged_keys`, and never an error of the walk.
        """

    @abstractmethod
    def forget(self, key: Key, *, before: int) -> Head | None:
        """Remove the records below a position for good; `end` and the revision stay.

        Args:
            key: The conversation.
            before: The position; at or below the first one nothing changes, beyond the end all records go.

        Returns:
            The head after it; None: there is no such conversation.

        Raises:
            InvalidInput: What `check_position` refuses.
        """

    @abstractmethod
    def delete(self, key: Key, *, version: str | None = None) -> bool:
        """Remove a conversation for good, also a damaged one.

        Args:
            key: The conversation.
            version: Remove it only if this is its version; None: in any case.

        Returns:
            False if there is no such conversation.

        Raises:
            Conflict: Its version is another one; with the stored head.
        """

    @abstractmethod
    def damaged_keys(self, scope: str | None = None) -> Iterator[Damaged]:
        """Yield what is stored in a scope (None: in all scopes) and whose key is not known.

        Each `Damaged` has `key=None`. What does not even name its scope is yielded for every scope.
        """

    @abstractmethod
    def scan_keys(self, scope: str | None = None) -> Iterator[Key]:
        """Yield what `keys` yields, found in the conversations themselves and not in an index that can be lost.

        May be slow.

        Raises:
            StoreRejected: The account may not walk over the storage.
        """

    @abstractmethod
    def is_index_complete(self) -> bool:
        """Return whether `keys` and `heads` name every conversation for certain.

        False where an index can lose entries on this server, for example by eviction; `scan_keys` is complete then.
        """

    @abstractmethod
    def remove_leftovers(self, scope: str) -> Leftovers:
        """Remove what is stored in a scope beside conversations that can be read; then look whether anything is left.

        Called by `History.erase` when every conversation that it found is deleted.
        """

    @abstractmethod
    def check(self) -> None:
        """Make one round trip to see whether the store can be reached.

        Raises:
            StoreError: It cannot be reached, or cannot be used.
        """

    @abstractmethod
    def close(self) -> None:
        """Release what `from_url` opened, never a client that was handed in; a second call does nothing."""

    # Abilities that some stores have: None, or what serves them.

    @abstractmethod
    def get_recovery(self) -> HeadRecovery | None:
        """Return what gives a conversation a new head where the old one is damaged; None: this store cannot."""

    @abstractmethod
    def get_storage_notes(self) -> StorageNotes | None:
        """Return what names things that are stored beside the records; None: this store stores nothing else."""

    @abstractmethod
    def get_sweeping(self) -> Sweeping | None:
        """Return what frees the space of expired conversations; None: the server does that, or nothing does."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __reduce__(self) -> NoReturn:
        refuse_pickling(self, "pass its URL instead, and call chathistory.open_store(...) in the other process")
