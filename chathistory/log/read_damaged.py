"""Reading a log around what is damaged in it, with no more than a portion of it in memory.

A store raises `CorruptRecord` where a range begins with a damaged record, and need not give anything of a range with
one. Here each damaged record is found and told, and all others are read. A store that says how far a run of missing
records goes is asked once for the whole run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from chathistory.errors import Conflict, CorruptRecord
from chathistory.log.active_path import contains_position, load_ranges
from chathistory.log.conversation_log import ConversationLog
from chathistory.log.entry import Entry, decode
from chathistory.log.field_types import PositionRange
from chathistory.storage.abilities import LONGEST_GAP, FoundRecords, HeadRecovery
from chathistory.storage.store import HistoryStore
from chathistory.storage.values import Head, Key, Record

__all__ = ["LostRecord", "ReadableRecord", "iter_around_damage", "iter_found_around_damage", "read_repaired"]

_FIRST = 8
_MOST = 256
_BYTES = 1024 * 1024
"""About how many bytes of lines are read at once; a store may give more if single lines are longer."""


@dataclass(frozen=True, slots=True)
class LostRecord:
    """A position whose record cannot be read, and why, in words that quote nothing of it."""

    position: int
    reason: str


@dataclass(frozen=True, slots=True)
class _Gap:
    """Positions [start, stop) whose records cannot be read, and why; it may go beyond the range that was read."""

    start: int
    stop: int
    reason: str


Read = Callable[[int, int], Iterator[Record | _Gap]]
"""Yields what is at each position of a range, in order; it may end early, but yields at least one."""


@dataclass(frozen=True, slots=True)
class ReadableRecord:
    """A record that can be read, and its entry."""

    record: Record
    entry: Entry

    @property
    def position(self) -> int:
        """Where it is stored."""
        return self.record.position


def iter_around_damage(store: HistoryStore, head: Head, start: int, stop: int) -> Iterator[ReadableRecord | LostRecord]:
    """Yield what is at each position of [start, stop) of a conversation.

    Args:
        store: Where the conversation is.
        head: As it was seen; what is appended meanwhile is left out.
        start: The first position, at or behind `head.start`.
        stop: One above the last, at or before `head.end`.

    Raises:
        CorruptRecord: The head itself is damaged; its `position` is None. So it is where more than `LONGEST_GAP`
            records in a row are missing: a head with wrong positions would name millions of them.
        Conflict: The range was forgotten, or the conversation deleted, while it was read.
    """
    return _iter_checked(head.key, start, stop, lambda low, high: _read_around(store, head.key, low, high))


def read_repaired(log: ConversationLog, head: Head, stop: int) -> Iterator[ReadableRecord | LostRecord]:
    """Yield what is at each position below `stop` of a conversation; `Lost` where a repair has left a record out.

    Raises:
        CorruptRecord: A record is damaged and has not been repaired: the conversation still goes through it.
        Conflict: The range was forgotten, or the conversation deleted, while it was read.
    """
    spans: list[PositionRange] | None = None
    for each in iter_around_damage(log.store, head, head.start, stop):
        if isinstance(each, LostRecord):
            if spans is None:
                spans = load_ranges(log, log.with_state(head), [])
            if contains_position(spans, each.position):
                raise CorruptRecord(log.key, each.position, each.reason)
        yield each


def iter_found_around_damage(
    store: HeadRecovery, found: FoundRecords, start: int, stop: int
) -> Iterator[ReadableRecord | LostRecord]:
    """Yield what is at each position of [start, stop) of what was found without a head.

    Raises `CorruptRecord` as `read_log_around` does where too many are missing in a row.
    """

    def read(low: int, high: int) -> Iterator[Record | _Gap]:
        yield from _fill_gaps(store.read_found(found, start=low, stop=high), low, high)

    return _iter_checked(found.key, start, stop, read)


def _iter_checked(key: Key, start: int, stop: int, read: Read) -> Iterator[ReadableRecord | LostRecord]:
    position, count, missing = start, _FIRST, 0
    while position < stop:
        size, begin = 0, position
        for each in read(position, min(position + count, stop)):
            if isinstance(each, Record):
                position, missing = each.position + 1, 0
                size += len(each.body)
                yield _decode_record(each, key)
                continue
            behind = min(each.stop, stop)
            missing += behind - each.start
            if missing > LONGEST_GAP:
                reason = f"it names more than {LONGEST_GAP} positions in a row at which no record can be read"
                raise CorruptRecord(key, None, reason)
            position = behind
            yield from (LostRecord(at, each.reason) for at in range(each.start, behind))
        count = max(1, min(4 * count, _MOST, _BYTES * (position - begin) // max(size, 1)))


def _decode_record(record: Record, key: Key) -> ReadableRecord | LostRecord:
    try:
        return ReadableRecord(record, decode(record, key))
    except CorruptRecord as error:
        return LostRecord(record.position, error.reason)


def _read_around(store: HistoryStore, key: Key, start: int, stop: int) -> Iterator[Record | _Gap]:
    """Yield what is at each position from `start` on: one run of sound records, or one gap."""
    while True:
        try:
            part = store.read(key, start=start, stop=stop)
        except CorruptRecord as error:
            if error.position is None or not start <= error.position < stop:
                raise
            if error.position == start:
                yield _Gap(start, max(start + 1, error.stop or 0), error.reason)
                return
            stop = error.position  # a store may give nothing at all of a range in which something is damaged
            continue
        if part is None or not part.records or part.records[0].position != start:
            raise Conflict(key, part.head if part else None)
        yield from part.records
        return


def _fill_gaps(records: Sequence[Record], start: int, stop: int) -> Iterator[Record | _Gap]:
    position = start
    for record in records:
        if position < record.position:
            yield _Gap(position, record.position, _GONE)
        yield record
        position = record.position + 1
    if position < stop:
        yield _Gap(position, stop, _GONE)


_GONE = "it is damaged, or is not there"
