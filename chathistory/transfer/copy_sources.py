"""Conversations to copy or export: which, and each as it was at one moment, with its lines checked as they pass.

A source is a conversation of a store, of a file, or what can be read of a damaged one. In that, each position that
cannot be read is a record of its own, of the kind `lost`: so all others keep their positions, and readers of the
conversation see later that something was there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from chathistory.errors import Conflict, CorruptRecord, UnsupportedRecord
from chathistory.log.commit import slices
from chathistory.log.conversation_log import ConversationLog, alive
from chathistory.log.entry import FORMAT, Entry, decode, encode
from chathistory.log.events import RecordLost
from chathistory.log.read_damaged import Lost, Sound
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
    "have_same_birth",
    "make_lost_record",
    "salvage_source",
]


@dataclass(frozen=True, slots=True)
class Selection:
    """The conversations of a store that are meant.

    Attributes:
        store: Where they are.
        scope: All of this scope, or those `ids` of it ("default" if it is None); None: all of the store.
        ids: Only these.
        full_scan: Find them by a walk over the whole storage.
    """

    store: HistoryStore
    scope: str | None
    ids: tuple[str, ...] | None
    full_scan: bool

    @property
    def is_named(self) -> bool:
        """Whether they were asked for by name, so that each that is absent is told."""
        return self.ids is not None

    def iter_keys(self) -> Iterator[Key]:
        """Yield their keys."""
        if self.ids is not None:
            return iter([Key("default" if self.scope is None else self.scope, id) for id in self.ids])
        return self.store.scan_keys(self.scope) if self.full_scan else self.store.keys(self.scope)

    def list_damaged(self) -> list[Damaged]:
        """Return what is stored among them and has no key that can be told."""
        return [] if self.is_named else list(self.store.damaged_keys(self.scope))

    def has_found_all(self, damaged: Sequence[Damaged]) -> bool:
        """Return whether `keys` names all of them for certain; what is `damaged` may be the index itself."""
        return self.is_named or self.full_scan or (not damaged and self.store.is_index_complete())


class CopySource(Protocol):
    """A conversation as it was at one moment; `lines` gives those from a position on, and may be called again."""

    @property
    def head(self) -> Head:
        """Positions and revision."""
        ...

    def lines(self, start: int) -> Iterator[str]:
        """Yield the lines of [start, head.end). Raises what shows that they cannot be had, also behind the last."""
        ...


@dataclass(frozen=True, slots=True)
class _StoreSource:
    """A source in a store. It raises `Conflict` if its lines go while they are fetched."""

    store: HistoryStore
    head: Head

    def lines(self, start: int) -> Iterator[str]:
        position = start
        for part in slices(self.store, self.head.key, start, self.head.end):
            changed = part.head.revision.version != self.head.revision.version
            if changed and _get_birth_id(part.head) != _get_birth_id(self.head):
                break  # it was deleted and made again
            yield from (record.body for record in part.records)
            position += len(part.records)
        if position != self.head.end:
            raise Conflict(self.head.key, None)


def find_source(store: HistoryStore, key: Key) -> CopySource | None:
    """Return a conversation of a store as it is now; None: it is absent, or has expired."""
    part = store.read(key, start=0, stop=0)
    head = alive(part.head if part else None)
    if head is None:
        return None
    read_state(head)  # what is no summary would be none in its new place either
    return _StoreSource(store, head)


@dataclass(slots=True)
class LineChecker:
    """Checks the lines of a source as they pass, and counts those of a later format."""

    later: int = 0

    def check(self, source: CopySource, start: int) -> Iterator[str]:
        """Yield the lines from `start` on. Raises `CorruptRecord` at one that is not the line of an entry."""
        for position, line in enumerate(source.lines(start), start):
            if decode(Record(position, line), source.head.key).version > FORMAT:
                self.later += 1
            yield line


def _get_birth_id(head: Head) -> str:
    return read_state(head).identity.born


def have_same_birth(one: Head, other: Head) -> bool:
    """Whether two heads are of one conversation, as far as can be told."""
    try:
        return _get_birth_id(one) == _get_birth_id(other)
    except (CorruptRecord, UnsupportedRecord):
        return False


# What can be read of a damaged one.


@dataclass(frozen=True, slots=True)
class SalvagedSource:
    """What can be read of a conversation.

    Attributes:
        head: Folded from what can be read.
        lost: How many positions cannot be read.
        remains: What is stored.
    """

    head: Head
    lost: int
    log: StoredLog

    def lines(self, start: int) -> Iterator[str]:
        """Yield the lines from `start` on."""
        return (each.record.body for each in _iter_with_lost_records(self.log) if each.position >= start)

    def entries(self) -> Iterator[Entry]:
        """Yield the entries."""
        return (each.entry for each in _iter_with_lost_records(self.log))


def salvage_source(log: ConversationLog) -> SalvagedSource | None:
    """Return what can be read of a conversation; None: it is not there, or nothing of it can be read.

    Raises what `operations.restore_head.salvage` raises.
    """
    remains = find_stored_log(log)
    if remains is None:
        return None
    count, lost = remains.end - remains.start, 0

    def counted() -> Iterator[Sound]:
        nonlocal lost
        for each in _iter_with_lost_records(remains):
            lost += isinstance(each.entry.event, RecordLost)
            yield each

    rebuilt = rebuild_state(counted())
    if rebuilt is None or lost == count:
        return None
    revision = remains.revision
    updated, expires = (revision.updated, revision.expires) if revision else (rebuilt.updated, None)
    made = Revision(rebuilt.version, updated, expires, rebuilt.state.encode())
    return SalvagedSource(Head(log.key, remains.start, remains.end, made), lost, remains)


def make_lost_record(lost: Lost, at: int) -> Sound:
    """Return the record that says that one stood here which cannot be read; at: the time of the one before it."""
    entry: Entry = Entry(RecordLost(lost.reason), id=f"lost{lost.position}", time_us=at, position=lost.position)
    return Sound(Record(lost.position, encode(entry)), entry)


def _iter_with_lost_records(remains: StoredLog) -> Iterator[Sound]:
    """Yield each position, with a record that says so in the place of each that cannot be read."""
    at = 0
    for each in remains.read():
        if isinstance(each, Lost):
            yield make_lost_record(each, at)
        else:
            at = each.entry.time_us or at
            yield each
