"""The values of the storage contract: what goes into a store and what comes out of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Generic, Literal, NamedTuple, TypeAlias, TypeVar

from chathistory.errors import ChatHistoryError, InvalidInput

__all__ = [
    "LARGEST_NUMBER",
    "LONGEST_NAME",
    "LONGEST_PAYLOAD",
    "LONGEST_VERSION",
    "Cursor",
    "Damaged",
    "Head",
    "Key",
    "Leftovers",
    "Page",
    "ReadResult",
    "Record",
    "Revision",
    "SortKey",
    "Traits",
]

T = TypeVar("T")

Cursor: TypeAlias = str
"""Where a page of a listing ended: opaque text of the store that made it, safe in a URL."""

LONGEST_NAME = 255
LONGEST_VERSION = 32
LONGEST_PAYLOAD = 1024 * 1024
"""Characters that `Revision.payload` may have; the core writes no more than 100,000."""
LARGEST_NUMBER = 2**53 - 1
"""The largest position or time (microseconds since 1970: in the year 2255) that every backend keeps exactly."""


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """The name of a conversation.

    Both parts are text of 1 to 255 characters without control characters or lone surrogates. They are compared
    character by character: nothing is normalised, and upper and lower case differ.

    Attributes:
        scope: Whose conversation it is, such as a tenant or a user.
        id: The caller's name for it within the scope.

    Raises:
        InvalidInput: A part is not such a text.
    """

    scope: str
    id: str

    def __post_init__(self) -> None:
        for name, text in (("scope", self.scope), ("id", self.id)):
            if not isinstance(text, str):
                raise InvalidInput(f"the {name} of a conversation must be text, not {type(text).__name__}")
            if not 1 <= len(text) <= LONGEST_NAME:
                raise InvalidInput(
                    f"the {name} of a conversation must have 1 to {LONGEST_NAME} characters, not {len(text)}"
                )
            if _FORBIDDEN.search(text):
                raise InvalidInput(f"the {name} of a conversation must not hold control characters or lone surrogates")


_FORBIDDEN = re.compile("[\\x00-\\x1f\\x7f-\\x9f\\ud800-\\udfff]")
"""Unicode categories Cc and Cs. Never change this set: it would make stored ids invalid."""


@dataclass(frozen=True, slots=True)
class Revision:
    """What the core says about a conversation with each append; stored as a whole, opaque but for `updated`.

    Attributes:
        version: A fresh unique token of this append; printable ASCII, 1 to 32 characters. It alone is the guard.
        updated: Microseconds since 1970 UTC, the time of the last message or turn; orders the listing. It never goes
            back, and stays the same in an append that says nothing new (a title, a cut, a repair).
        expires: Microseconds since 1970 UTC from which the core treats the conversation as absent; None: never. A store
            returns it and does nothing else with it, but may remove the conversation some time after it.
        payload: One line of text (title, totals, ...) of at most 1,048,576 characters. Kept out of `repr`, because it
            may quote the user.
    """

    version: str
    updated: int
    expires: int | None = None
    payload: str = field(default="", repr=False)


class SortKey(NamedTuple):
    """Where a conversation stands in a listing, which goes from the greatest to the smallest."""

    updated: int
    id: str


@dataclass(frozen=True, slots=True)
class Head:
    """The state of a conversation: records `start` to `end - 1` are kept; none when start == end."""

    key: Key
    start: int
    end: int
    revision: Revision

    @property
    def sort_key(self) -> SortKey:
        """Its place in a listing: the greatest comes first."""
        return SortKey(self.revision.updated, self.key.id)

    def narrow(self, start: int = 0, stop: int | None = None) -> range:
        """Return the positions of [start, stop) that are kept.

        Args:
            start: The first position; a negative one counts from the end.
            stop: One above the last position; None: the end.

        Returns:
            A range within `self.start` to `self.end`; an empty one begins where the first record would have been.
        """
        low = max(start if start >= 0 else self.end + start, self.start)
        high = self.end if stop is None else min(stop, self.end)
        return range(low, max(low, high))

    def drop_below(self, position: int) -> Head:
        """Return the head without the records below a position; beyond the end: without any record."""
        return replace(self, start=min(max(position, self.start), self.end))


@dataclass(frozen=True, slots=True)
class Record:
    """One line of a conversation at its position. The body is kept out of `repr`: it is message text."""

    position: int
    body: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class ReadResult:
    """A run of records without gaps, and the head of the same moment."""

    head: Head
    records: Sequence[Record]


@dataclass(frozen=True, slots=True)
class Damaged:
    """Something in the storage that a walk over many conversations cannot read.

    A walk reports it and goes on; only a call that names the conversation raises the error.

    Attributes:
        key: The conversation that it belongs to; None if not even that can be told.
        where: Its place in the storage, so that a person can find it: a file name, a key, an object name or a document
            id. Never text of a message.
        error: What a call that names the conversation raises: `CorruptRecord`, or `UnsupportedRecord` for what a later
            version wrote.
    """

    key: Key | None
    where: str
    error: ChatHistoryError


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Some items of a listing.

    Attributes:
        items: The items of this page, in the order of the listing.
        next: The cursor of the following page; None at the end.
        damaged: Conversations that belong on this page and cannot be read. They do not count towards the limit, and
            each is on at least one page of a complete walk.
    """

    items: Sequence[T]
    next: Cursor | None = None
    damaged: Sequence[Damaged] = ()


@dataclass(frozen=True, slots=True)
class Leftovers:
    """What `HistoryStore.remove_leftovers` did for one scope.

    Attributes:
        removed: How many pieces it removed that belonged to no conversation that can be read: torn first appends,
            files that were set aside, temporary files, segments and documents of unfinished appends.
        left: Places of what is still there, as in `Damaged.where`; empty if nothing was found.
        complete: True only if a walk over the whole storage, made after the removal and not relying on any index that
            can be lost, has found nothing of the scope.
    """

    removed: int = 0
    left: tuple[str, ...] = ()
    complete: bool = True


@dataclass(frozen=True, slots=True)
class Traits:
    """What differs between stores, as data; the contract suite reads it, and so may callers.

    Attributes:
        durable: What was acknowledged outlives the process.
        shared: Another process that opens the same URL sees the same conversations.
        recency: "exact": listings are ordered by (updated, id) to the microsecond; "bucket": only as exactly as the
            store's documentation says, within a time bucket in any order.
        largest_record: Bytes of UTF-8 that one body may have; None: the store has no limit of its own.
        largest_batch: Bytes of UTF-8 that all bodies of one append may have together; None: as above.
        not_reached: Where removed text may stay on the server's own account, for reports to name, such as "append-only
            file", "replicas", "backups", "old object versions".
    """

    durable: bool
    shared: bool
    recency: Literal["exact", "bucket"] = "exact"
    largest_record: int | None = None
    largest_batch: int | None = None
    not_reached: tuple[str, ...] = ()
