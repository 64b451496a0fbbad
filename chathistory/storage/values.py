"""The values of the storage contract: the arguments and results of a `HistoryStore`."""

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
"""The end of a page of a listing: opaque text that only the store that made it understands, safe in a URL."""

LONGEST_NAME = 255
"""The most characters of a scope or an id."""
LONGEST_VERSION = 32
"""The most characters of `Revision.version`."""
LONGEST_PAYLOAD = 1024 * 1024
"""The most characters of `Revision.payload`; the core writes at most 100,000."""
LARGEST_NUMBER = 2**53 - 1
"""The largest position or time (microseconds since 1970: in the year 2255) that every backend keeps exactly."""


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """The name of a conversation.

    Both parts are text of 1 to 255 characters, without control characters or lone surrogates. They are compared
    character by character: nothing is normalised, and case matters.

    Attributes:
        scope: The owner of the conversation, such as a tenant or a user.
        id: The name of the conversation within the scope, chosen by the caller.

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
                raise InvalidInput(
                    f"the {name} of a conversation must not contain control characters or lone surrogates"
                )


_FORBIDDEN = re.compile("[\\x00-\\x1f\\x7f-\\x9f\\ud800-\\udfff]")
"""Unicode categories Cc and Cs. Never change this set: it would make stored ids invalid."""


@dataclass(frozen=True, slots=True)
class Revision:
    """The state that the core stores with each append; replaced as a whole, and opaque to a store except `updated`.

    Attributes:
        version: A new unique token of this append; printable ASCII, 1 to 32 characters. It alone guards an append.
        updated: The time of the last message or turn, in microseconds since 1970 UTC; it orders the listing. It never
            decreases, and an append without a new message (a title, a cut, a repair) keeps it.
        expires: The time from which the core treats the conversation as absent, in microseconds since 1970 UTC; None
            for never. A store only returns it, but may remove the conversation some time after it.
        payload: One line of text (title, totals, ...) of at most 1,048,576 characters. Not in `repr`, because it may
            quote the user.
    """

    version: str
    updated: int
    expires: int | None = None
    payload: str = field(default="", repr=False)


class SortKey(NamedTuple):
    """The key by which a listing is sorted, in descending order.

    Attributes:
        updated: `Revision.updated`, in microseconds since 1970 UTC.
        id: `Key.id`.
    """

    updated: int
    id: str


@dataclass(frozen=True, slots=True)
class Head:
    """The stored state of a conversation.

    Attributes:
        key: The name of the conversation.
        start: The position of the first record that is kept.
        end: One above the position of the last record. There are no records if `start == end`.
        revision: The revision that was stored with the last append.
    """

    key: Key
    start: int
    end: int
    revision: Revision

    @property
    def sort_key(self) -> SortKey:
        """The key by which a listing is sorted; the greatest comes first."""
        return SortKey(self.revision.updated, self.key.id)

    def narrow(self, start: int = 0, stop: int | None = None) -> range:
        """Return those positions of [start, stop) that are kept.

        Args:
            start: The first position; a negative one counts from the end.
            stop: One above the last position; None for the end.

        Returns:
            A range within `self.start` to `self.end`. An empty range begins where the first record would have been.
        """
        low = max(start if start >= 0 else self.end + start, self.start)
        high = self.end if stop is None else min(stop, self.end)
        return range(low, max(low, high))

    def drop_below(self, position: int) -> Head:
        """Return the head without the records below a position.

        Args:
            position: The first position to keep. At or below `start` nothing changes; beyond `end` no record is kept.
        """
        return replace(self, start=min(max(position, self.start), self.end))


@dataclass(frozen=True, slots=True)
class Record:
    """One stored line of a conversation.

    Attributes:
        position: The number of the record within the conversation.
        body: The line. Not in `repr`, because it is message text.
    """

    position: int
    body: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class ReadResult:
    """The result of `HistoryStore.read`, a consistent read.

    Attributes:
        head: The head at the time of the read.
        records: The records, in order and without gaps.
    """

    head: Head
    records: Sequence[Record]


@dataclass(frozen=True, slots=True)
class Damaged:
    """Something in the storage that a walk over many conversations cannot read.

    The walk reports it and continues; only a call that names the conversation raises the error.

    Attributes:
        key: The name of the conversation that it belongs to; None if unknown.
        where: Its location in the storage, so that a person can find it: a file name, a key, an object name or a
            document id. Never message text.
        error: The error that a call raises if it names the conversation: `CorruptRecord`, or `UnsupportedRecord` if a
            later version of chathistory wrote it.
    """

    key: Key | None
    where: str
    error: ChatHistoryError


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One page of a listing.

    Attributes:
        items: The items of this page, in the order of the listing.
        next: The cursor of the next page; None if this is the last page.
        damaged: Conversations that belong on this page and cannot be read. They do not count towards the limit. Each
            one is on at least one page of a complete walk.
    """

    items: Sequence[T]
    next: Cursor | None = None
    damaged: Sequence[Damaged] = ()


@dataclass(frozen=True, slots=True)
class Leftovers:
    """The result of `HistoryStore.remove_leftovers` for one scope.

    Attributes:
        removed: The number of pieces removed that belonged to no readable conversation: first appends that a crash cut
            off, files that were set aside, temporary files, segments and documents of unfinished appends.
        left: The locations of what is still there, as in `Damaged.where`; empty if nothing was found.
        complete: True only if a walk over the whole storage found nothing of the scope. The walk is made after the
            removal, and does not use an index that can be lost.
    """

    removed: int = 0
    left: tuple[str, ...] = ()
    complete: bool = True


@dataclass(frozen=True, slots=True)
class Traits:
    """What a store guarantees and what it cannot do; the contract's tests read it, and applications may.

    Attributes:
        durable: Whether acknowledged data survives the end of the process.
        shared: Whether another process that opens the same URL sees the same conversations.
        recency: "exact": listings are ordered by (updated, id) to the microsecond. "bucket": they are ordered by time
            buckets, and in any order within one; the documentation of the store gives their length.
        largest_record: The most bytes (UTF-8) of one body; None if the store has no limit of its own.
        largest_batch: The most bytes (UTF-8) of all bodies of one append together; None as above.
        not_reached: Places where the server may keep copies of removed text, for reports to name, such as "append-only
            file", "replicas", "backups", "old object versions".
    """

    durable: bool
    shared: bool
    recency: Literal["exact", "bucket"] = "exact"
    largest_record: int | None = None
    largest_batch: int | None = None
    not_reached: tuple[str, ...] = ()
