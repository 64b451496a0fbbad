"""The waist: what the core asks of a backend, and nothing more.

A backend keeps *conversations*. A conversation is a run of *records*, each one line of text that the backend never
looks into, numbered by *position*; a *head* that says which positions are there; and a *revision*, a few words of the
core's that are replaced as a whole with every append. All meaning (roles, tools, tokens, trimming, expiry, retries)
lives in the core, once.

    Key(scope, id) ── Head(key, start, end, Revision(version, updated, expires, info))
                          └── Record(position, body) for start <= position < end

The *version* is the guard: an append names the head that its writer has seen, and is refused as a `Conflict` if that
is not the present one. A number could not do this: a conversation that was deleted and made again, or that lost
records in a failover, may have the right number and the wrong history.

`chathistory.testing.HistoryStoreContract` is the executable form of this page.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Generic, Literal, NoReturn, Self, TypeAlias, TypeVar

from chathistory.checks import check_position, check_range, refuse_pickling
from chathistory.errors import ChatHistoryError, InvalidInput

if TYPE_CHECKING:
    from chathistory.storage.url import Option, StoreURL

__all__ = [
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

T = TypeVar("T")

Cursor: TypeAlias = str
"""Where a page of a listing ended: opaque text of the store that made it, safe in a URL."""

LONGEST_NAME = 255
LONGEST_VERSION = 32
LONGEST_PAYLOAD = 1024 * 1024
"""Characters that `Revision.info` may have; the core writes no more than 100,000."""
LARGEST_NUMBER = 2**53 - 1
"""The largest position or time (microseconds since 1970: in the year 2255) that every backend keeps exactly."""


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """Whose conversation, and the caller's name for it.

    Both are any text of 1 to 255 characters without control characters or lone surrogates; they are told apart to
    the character (no folding of case, no normalising). Raises `InvalidInput` otherwise.
    """

    scope: str
    id: str

    def __post_init__(self) -> None:
        for name, text in (("scope", self.scope), ("id", self.id)):
            _check_name(name, text)


def _check_name(name: str, text: object) -> None:
    if not isinstance(text, str):
        raise InvalidInput(f"the {name} of a conversation must be text, not {type(text).__name__}")
    if not 1 <= len(text) <= LONGEST_NAME:
        raise InvalidInput(f"the {name} of a conversation must have 1 to {LONGEST_NAME} characters, not {len(text)}")
    if _UNFIT.search(text):
        raise InvalidInput(f"the {name} of a conversation must not hold control characters or lone surrogates")


_UNFIT = re.compile("[\\x00-\\x1f\\x7f-\\x9f\\ud800-\\udfff]")
"""Unicode's categories Cc (controls) and Cs (surrogates): whole, and for ever."""


@dataclass(frozen=True, slots=True)
class Revision:
    """What the core says about a conversation with each append; stored as a whole, opaque but for `updated`.

    version: a fresh unique token of this append; printable ASCII, 1 to 32 characters. It alone is the guard.
    updated: microseconds since 1970 UTC, the time of the last message or turn; orders the listing. It never goes back,
        and stays the same in an append that says nothing new (a title, a cut, a repair).
    expires: microseconds since 1970 UTC from which the core treats the conversation as absent; None: never.
        A store returns it and does nothing else with it, but may remove the conversation some time after it.
    info:    one line of text (title, totals, ...) of at most 1,048,576 characters. Kept out of `repr`, for it may
        quote the user.
    """

    version: str
    updated: int
    expires: int | None = None
    payload: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Head:
    """The state of a conversation: records `start` to `end - 1` are kept; none when start == end."""

    key: Key
    start: int
    end: int
    revision: Revision


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
    """What differs between backends, as data; the contract suite reads it, and so may callers.

    durable: what was acknowledged outlives the process.
    shared: another process that opens the same URL sees the same conversations.
    recency: "exact": listings are ordered by (updated, id) to the microsecond; "bucket": only as exactly as the
        store's documentation says, within a time bucket in any order.
    largest_record, largest_batch: bytes of UTF-8 that one body, or one append, may have; None: no limit of its own.
    not_reached: where removed text may stay on the server's own account, for reports to name, such as "append-only
        file", "replicas", "backups", "old object versions".
    """

    durable: bool
    shared: bool
    recency: Literal["exact", "bucket"] = "exact"
    largest_record: int | None = None
    largest_batch: int | None = None
    not_reached: tuple[str, ...] = ()


class HistoryStore(ABC):
    """A place for conversations. Subclass it, serve it through the `chathistory_store` hook, prove it by the contract.

    Safe to use from many threads at once. A store knows no clock, no expiry, no retry and no JSON. Every method
    raises `StoreUnavailable`, `StoreRejected`, `CorruptRecord` or `StoreClosed` (see `chathistory.errors`), with
    the client library's error as `__cause__`, and never text of a body or of `info`, nor a credential.
    """

    traits: ClassVar[Traits]
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

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __reduce__(self) -> NoReturn:
        refuse_pickling(self, "pass its URL instead, and call chathistory.open_store(...) in the other process")


def check_append(bodies: Sequence[str], revision: Revision, traits: Traits, *, first: int = 0) -> list[str]:
    """Return `bodies` as a list of the store's own, or raise `InvalidInput`: every store calls this first in `append`.

    Refused are an empty batch, a lone string, bodies or a payload that are not one line of encodable text (no control
    characters), a payload that is too long, a malformed revision, and what exceeds the store's limits.
    """
    if isinstance(bodies, str) or not bodies:
        raise InvalidInput("an append needs a list of at least one body")
    batch = list(bodies)
    sizes = [_line_size(f"body {index}", body) for index, body in enumerate(batch)]
    _line_size("the revision's payload", revision.payload)
    if len(revision.payload) > LONGEST_PAYLOAD:
        raise InvalidInput(
            f"the revision's payload must have at most {LONGEST_PAYLOAD} characters, not {len(revision.payload)}"
        )
    _check_stamp(revision, first)
    if traits.largest_record is not None and max(sizes) > traits.largest_record:
        raise InvalidInput(
            f"body {sizes.index(max(sizes))} has {max(sizes)} bytes; this store keeps at most {traits.largest_record}"
        )
    if traits.largest_batch is not None and sum(sizes) > traits.largest_batch:
        raise InvalidInput(f"the batch has {sum(sizes)} bytes; this store keeps at most {traits.largest_batch} at once")
    return batch


def _line_size(name: str, line: object) -> int:
    if not isinstance(line, str):
        raise InvalidInput(f"{name} must be text, not {type(line).__name__}")
    encoded = _encoded(line)
    if encoded is None:
        raise InvalidInput(f"{name} holds a lone surrogate")
    if len(encoded.translate(None, _CONTROLS)) != len(encoded):
        raise InvalidInput(f"{name} must be one line without control characters")
    return len(encoded)


def _encoded(line: str) -> bytes | None:
    """Return the UTF-8 of a line, or None: an error raised in the handler would carry the text in its context."""
    try:
        return line.encode()
    except UnicodeEncodeError:
        return None


_CONTROLS = bytes(range(0x20))  # C-speed over 30 MB, which a set or a loop is not


def _check_stamp(revision: Revision, first: int) -> None:
    version: object = revision.version
    if not (
        isinstance(version, str)
        and 1 <= len(version) <= LONGEST_VERSION
        and version.isascii()
        and version.isprintable()
    ):
        raise InvalidInput(f"a version must be 1 to {LONGEST_VERSION} printable ASCII characters")
    expires = 0 if revision.expires is None else revision.expires
    for name, number in (("updated", revision.updated), ("expires", expires), ("first", first)):
        if type(number) is not int or not 0 <= number <= LARGEST_NUMBER:
            raise InvalidInput(f"{name} must be a whole number from 0 to 2**53 - 1")
