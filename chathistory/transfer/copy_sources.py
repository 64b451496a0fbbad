"""Selects conversations to copy or export, and reads each as it was at one moment, checking its lines.

A source is a conversation in a store, in a file, or what can be read of a damaged one. In a damaged one, each position
that cannot be read becomes a record of the kind `record_lost`. So all other records keep their positions, and readers
see later that a record is missing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from chathistory.errors import Conflict, CorruptRecord, UnsupportedRecord
from chathistory.log.commit import read_in_parts
from chathistory.log.conversation_log import ConversationLog, unless_expired
from chathistory.log.entry import FORMAT, Entry, decode, encode
from chathistory.log.events import RecordLost
from chathistory.log.read_damaged import LostRecord, ReadableRecord
from chathistory.log.state import read_state
from chathistory.operations.restore_head import StoredLog, find_stored_log, rebuild_state
from chathistory.storage.store import HistoryStore
from chathistory.storage.values import Damaged, Head, Key, Record, Revision

__all__ = [
    "CopySource",
    "LineChecker",
    "SalvagedSource",
    "Selection",
    "find_source",
    "is_same_creation",
    "make_lost_record",
    "salvage_source",
]


@dataclass(frozen=True, slots=True)
class Selection:
    """The conversations that a call is about.

    Attributes:
        store: The store that holds them.
        scope: Their scope; None: all scopes, or "default" if `ids` are given.
        ids: Only these conversations; None: all.
        full_scan: Find them by a scan of the whole storage instead of an index.
    """

    store: HistoryStore
    scope: str | None
    ids: tuple[str, ...] | None
    full_scan: bool

    @property
    def is_named(self) -> bool:
        """True if the conversations were named, so that each one that does not exist is reported."""
        return self.ids is not None

    def iter_keys(self) -> Iterator[Key]:
        """Yield the keys of the conversations; named ones need not exist."""
        if self.ids is not None:
            return iter([Key("default" if self.scope is None else self.scope, id) for id in self.ids])
        return self.store.scan_keys(self.scope) if self.full_scan else self.store.keys(self.scope)

    def list_damaged(self) -> list[Damaged]:
        """Return damaged data whose conversation cannot be identified; [] if the conversations were named."""
        return [] if self.is_named else list(self.store.damaged_keys(self.scope))

    def has_found_all(self, damaged: Sequence[Damaged]) -> bool:
        """Return True if `iter_keys` certainly yields all of them.

        Args:
            damaged: What `list_damaged` returned; this may be the index itself.
        """
        return self.is_named or self.full_scan or (not damaged and self.store.is_index_complete())


class CopySource(Protocol):
    """A conversation as it was at one moment."""

    @property
    def head(self) -> Head:
        """The head: positions and revision."""
        ...

    def lines(self, start: int) -> Iterator[str]:
        """Yield the lines at positions [start, head.end); may be called several times.

        Args:
            start: The first position.

        Raises:
            ChatHistoryError: The lines cannot be read, or the conversation changed; possibly after the last line.
        """
        ...


@dataclass(frozen=True, slots=True)
class _StoreSource:
    """A source in a store. It raises `Conflict` if its lines are removed while they are read."""

    store: HistoryStore
    head: Head

    def lines(self, start: int) -> Iterator[str]:
        position = start
        for part in read_in_parts(self.store, self.head.key, start, self.head.end):
            changed = part.head.revision.version != self.head.revision.version
            if changed and _get_creation_id(part.head) != _get_creation_id(self.head):
                break  # it was deleted and created again
            yield from (record.body for record in part.records)
            position += len(part.records)
        if position != self.head.end:
            raise Conflict(self.head.key, None)


def find_source(store: HistoryStore, key: Key) -> CopySource | None:
    """Return a conversation of a store as it is now; None if it does not exist or has expired.

    Args:
        store: The store.
        key: The conversation.

    Raises:
        CorruptRecord: The head is damaged.
        UnsupportedRecord: A later version of chathistory wrote the head.
    """
    part = store.read(key, start=0, stop=0)
    head = unless_expired(part.head if part else None)
    if head is None:
        return None
    read_state(head)  # raises for a head that could not be read after the copy either
    return _StoreSource(store, head)


@dataclass(slots=True)
class LineChecker:
    """Checks the lines of a source while they are read.

    Attributes:
        later: How many of the lines have a later format than this version of chathistory knows.
    """

    later: int = 0

    def check(self, source: CopySource, start: int) -> Iterator[str]:
        """Yield the lines of a source.

        Args:
            source: The source.
            start: The position of the first line.

        Raises:
            CorruptRecord: A line does not hold an entry.
            UnsupportedRecord: A line was written before the stored format was frozen.
            ChatHistoryError: The source raised it.
        """
        for position, line in enumerate(source.lines(start), start):
            version = decode(Record(position, line), source.head.key).version
            if version < FORMAT:
                raise UnsupportedRecord(source.head.key, position, version)
            self.later += version > FORMAT
            yield line


def _get_creation_id(head: Head) -> str:
    return read_state(head).identity.creation_id


def is_same_creation(one: Head, other: Head) -> bool:
    """Return True if two heads have the same creation id, thus the same conversation; False if one cannot be read.

    Args:
        one: A head.
        other: Another head.
    """
    try:
        return _get_creation_id(one) == _get_creation_id(other)
    except (CorruptRecord, UnsupportedRecord):
        return False


# Damaged conversations.


@dataclass(frozen=True, slots=True)
class SalvagedSource:
    """What can be read of a damaged conversation; a `CopySource`.

    Attributes:
        head: The head, rebuilt from the records that can be read.
        lost: How many positions cannot be read.
        log: The records of the conversation.
    """

    head: Head
    lost: int
    log: StoredLog

    def lines(self, start: int) -> Iterator[str]:
        """Yield the lines, with a record of the kind `record_lost` for each that cannot be read.

        Args:
            start: The position of the first line.
        """
        return (each.record.body for each in _iter_with_lost_records(self.log) if each.position >= start)

    def entries(self) -> Iterator[Entry]:
        """Yield the entries, with one of the kind `record_lost` for each that cannot be read."""
        return (each.entry for each in _iter_with_lost_records(self.log))


def salvage_source(log: ConversationLog) -> SalvagedSource | None:
    """Return what can be read of a conversation; None if it does not exist, or if nothing of it can be read.

    Args:
        log: The log of the conversation.

    Raises:
        CorruptRecord: The head is damaged, and the store cannot read records without it.
        Conflict: The conversation was deleted or forgotten while it was read.
    """
    stored = find_stored_log(log)
    if stored is None:
        return None
    count, lost = stored.end - stored.start, 0

    def iter_and_count() -> Iterator[ReadableRecord]:
        nonlocal lost
        for each in _iter_with_lost_records(stored):
            lost += isinstance(each.entry.event, RecordLost)
            yield each

    rebuilt = rebuild_state(iter_and_count())
    if rebuilt is None or lost == count:
        return None
    old = stored.revision
    updated, expires = (old.updated, old.expires) if old else (rebuilt.updated, None)
    revision = Revision(rebuilt.version, updated, expires, rebuilt.state.encode())
    return SalvagedSource(Head(log.key, stored.start, stored.end, revision), lost, stored)


def make_lost_record(lost: LostRecord, at: int) -> ReadableRecord:
    """Return a record of the kind `record_lost`, which takes the place of one that cannot be read.

    Args:
        lost: The position that cannot be read.
        at: The time of the record before it (microseconds since 1970 UTC).
    """
    entry: Entry = Entry(RecordLost(lost.reason), id=f"lost{lost.position}", time_us=at, position=lost.position)
    return ReadableRecord(Record(lost.position, encode(entry)), entry)


def _iter_with_lost_records(log: StoredLog) -> Iterator[ReadableRecord]:
    """Yield what is at each position, with a record of the kind `record_lost` for each that cannot be read."""
    at = 0
    for each in log.read():
        if isinstance(each, LostRecord):
            yield make_lost_record(each, at)
        else:
            at = each.entry.time_us or at
            yield each
