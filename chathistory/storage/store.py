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
from chathistory.storage.abilities import HeadRecovery, StorageNotes, Sweeping
from chathistory.storage.checks import check_append, check_position, check_range
from chathistory.storage.values import (
    LARGEST_NUMBER,
    LONGEST_NAME,
    LONGEST_PAYLOAD,
    LONGEST_VERSION,
    Cursor,
    Damaged,
    Head,
    Key,
    Leftovers,
    Page,
    ReadResult,
    Record,
    Revision,
    Traits,
)

if TYPE_CHECKING:
    from chathistory.storage.url import Option, StoreURL

__all__ = [
    "LARGEST_NUMBER",
    "LONGEST_NAME",
    "LONGEST_PAYLOAD",
    "LONGEST_VERSION",
    "Cursor",
    "Damaged",
    "Head",
    "HistoryStore",
    "Key",
    "Leftovers",
    "Page",
    "ReadResult",
    "Record",
    "Revision",
    "Traits",
    "check_append",
    "check_position",
    "check_range",
]


class HistoryStore(ABC):
    """A place for conversations. Subclass it, serve it through the `chathistory_store` hook, prove it by the contract.

    Safe to use from many threads at once. A store knows no clock, no expiry, no retry and no JSON. Every method
    raises `StoreUnavailable`, `StoreRejected`, `CorruptRecord` or `StoreClosed` (see `chathistory.errors`), with
    the client library's error as `__cause__`, and never text of a body or of a payload, nor a credential.
    """

    traits: Traits
    options: ClassVar[Mapping[str, Option]] = {}
    """The options that `from_url` understands, by name; anything else in a URL is refused before it is called."""

    ttl: float | None = None
    """Seconds that a conversation lives after its last append; None: for ever. `open_store` sets it for the core."""

    @classmethod
    @abstractmethod
    def from_url(cls, url: StoreURL) -> Self:
        """Build the store that a URL names, without any input or output.

        Raises `ConfigError` for a location that cannot be right.
        """

    @classmethod
    def anchored(cls, url: StoreURL, folder: str) -> StoreURL:  # noqa: ARG003 - for those that have paths
        """Return `url` with a relative path in it taken from `folder`: that of the configuration file it stands in.

        As it is here, for stores whose locations are no paths, it returns `url`.
        """
        return url

    @abstractmethod
    def append(
        self, key: Key, bodies: Sequence[str], *, after: Head | None, revision: Revision, first: int = 0
    ) -> Head:
        """Store all `bodies` from `after.end` on, and the revision, if the stored version is `after.revision.version`.

        With `after=None`: if no such conversation is stored; numbering then starts at `first`. Returns the new head.
        Wholly or not at all; durable on return, to the extent of `traits`.

        Raises `Conflict` with the present head (None: there is none) if the version is another one, and
        `InvalidInput` for what `check_append` refuses; nothing changes then.
        """

    @abstractmethod
    def read(self, key: Key, *, start: int = 0, stop: int | None = None) -> ReadResult | None:
        """Return the records of [start, stop) that are kept, and the head of the same moment.

        A negative `start` counts from the end; a range beyond what is kept is narrowed to it; `stop=None` is the end.
        The run begins where the narrowed range begins and has no gap. It may end early, to bound memory, but is never
        empty unless the range is. None: there is no such conversation.

        Raises `InvalidInput` for what `check_range` refuses.

        A range without a damaged record is readable, whatever is damaged elsewhere in the conversation. Where a record
        of the range is damaged, the run ends before it, or `CorruptRecord` is raised with the position of the first
        damaged record of the range; it is always raised where the range begins with one. Where more than one is missing
        in a row, the error may say so (`CorruptRecord.stop`): the run is then asked for once, not at each position.
        """

    @abstractmethod
    def heads(self, scope: str, *, after: Cursor | None = None, limit: int = 20) -> Page[Head]:
        """Return up to `limit` heads (at least 1) of a scope by (updated, id) descending, as exact as `traits.recency`.

        `after` is the `next` of the page before. A conversation that is not written while pages are walked appears
        exactly once; one that is written may appear again, or not on the pages that are left. An unknown scope is an
        empty page. Raises `InvalidInput` for a cursor that this store did not make.

        A conversation whose head cannot be read is in `Page.damaged`, and never an error of the walk.
        """

    @abstractmethod
    def keys(self, scope: str | None = None) -> Iterator[Key]:
        """Yield the key of every conversation of the scope (None: of all scopes) once, in any order.

        Those that are made or deleted meanwhile may or may not appear. A damaged one is among them if its key can be
        told; what has no key that can be told is in `damaged_keys`, and never an error of the walk.
        """

    @abstractmethod
    def forget(self, key: Key, *, before: int) -> Head | None:
        """Remove the records below position `before` for good; `end` and the revision stay.

        Returns the head after it; nothing below `before` was there: unchanged; `before` beyond the end: all records
        go. None: there is no such conversation. Raises `InvalidInput` for what `check_position` refuses.
        """

    @abstractmethod
    def delete(self, key: Key, *, version: str | None = None) -> bool:
        """Remove the conversation for good; with `version`, only if that is still its version, else `Conflict`.

        False: there was none.
        """

    @abstractmethod
    def close(self) -> None:
        """Release what `from_url` opened, never a client that was handed in; a second call does nothing."""

    # Derived; a store may override these, but need not.

    def damaged_keys(self, scope: str | None = None) -> Iterator[Damaged]:  # noqa: ARG002 - for those that can have some
        """Yield what is stored in a scope (None: in all scopes) and whose key cannot be told.

        Each `Damaged` has `key=None`. What does not even tell its scope is yielded for every scope. The default yields
        nothing: right for stores in which a conversation cannot be without its key.
        """
        return iter(())

    def scan_keys(self, scope: str | None = None) -> Iterator[Key]:
        """Yield what `keys` yields, found in the conversations themselves and not in an index that can be lost.

        The default is `keys`: right for stores whose listing is the storage itself. May be slow.

        Raises:
            StoreRejected: The account may not walk over the storage.
        """
        return self.keys(scope)

    def is_index_complete(self) -> bool:
        """Return whether `keys` and `heads` name every conversation for certain.

        False where an index can lose entries on this server, for example by eviction; `scan_keys` is complete then.
        """
        return True

    def remove_leftovers(self, scope: str) -> Leftovers:
        """Remove what is stored in a scope beside conversations that can be read; then look whether anything is left.

        Called by `History.erase` when every conversation that it found is deleted. The default removes nothing and
        reports what `scan_keys` and `damaged_keys` still find: right for stores that keep nothing else.
        """
        left = [key.id for key in self.scan_keys(scope)]
        left += [damaged.where for damaged in self.damaged_keys(scope)]
        return Leftovers(0, tuple(left), not left)

    def check(self) -> None:
        """Make one round trip to see whether the store can be reached; raises what is wrong, returns nothing."""
        self.heads("default", limit=1)

    # Abilities that some stores have: None, or what serves them.

    def get_recovery(self) -> HeadRecovery | None:
        """Return what gives a conversation a new head where the old one is damaged; None: this store cannot."""
        return self if isinstance(self, HeadRecovery) else None

    def get_storage_notes(self) -> StorageNotes | None:
        """Return what names things that are stored beside the records; None: this store stores nothing else."""
        return self if isinstance(self, StorageNotes) else None

    def get_sweeping(self) -> Sweeping | None:
        """Return what frees the space of expired conversations; None: the server does that, or nothing does."""
        return self if isinstance(self, Sweeping) else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __reduce__(self) -> NoReturn:
        refuse_pickling(self, "pass its URL instead, and call chathistory.open_store(...) in the other process")
