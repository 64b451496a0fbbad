"""Reading a log that has damaged records, with only a part of it in memory at a time.

A store raises `CorruptRecord` for a range that begins with a damaged record, and may return nothing of a range that
contains one. The functions here find each damaged record, report it, and read all others. If a store knows how many
records in a row are missing, it is asked only once for all of them.
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

_FIRST_COUNT = 8  # records of the first read; later reads grow
_MAX_COUNT = 256  # records that are read at once
_TARGET_BYTES = 1024 * 1024
"""About how many bytes of lines are read at once; more if single lines are longer."""


@dataclass(frozen=True, slots=True)
class LostRecord:
    """A record that cannot be read.

    Attributes:
        position: Where it is stored.
        reason: Why it cannot be read, in words that quote nothing of it.
    """

    position: int
    reason: str


@dataclass(frozen=True, slots=True)
class _Gap:
    """Positions from start up to stop that have no readable record. They may go beyond the range that was read."""

    start: int
    stop: int
    reason: str


Read = Callable[[int, int], Iterator[Record | _Gap]]
"""Yields the records and gaps of a range, in order. It may stop early, but yields at least once."""


@dataclass(frozen=True, slots=True)
class ReadableRecord:
    """A record that can be read.

    Attributes:
        record: The record.
        entry: Its entry.
    """

    record: Record
    entry: Entry

    @property
    def position(self) -> int:
        """Where it is stored."""
        return self.record.position


def iter_around_damage(store: HistoryStore, head: Head, start: int, stop: int) -> Iterator[ReadableRecord | LostRecord]:
    """Yield the record at each position of a range, or why it cannot be read.

    Args:
        store: The store of the conversation.
        head: The head of the conversation; what is appended meanwhile is left out.
        start: The first position, not below `head.start`.
        stop: One above the last position, not above `head.end`.

    Raises:
        CorruptRecord: The head itself is damaged (`position` is None). A head that refers to more than `LONGEST_GAP`
            missing records in a row counts as damaged: wrong positions in it could name millions.
        Conflict: The range was forgotten, or the conversation deleted, while it was read.
    """
    return _iter_checked(head.key, start, stop, lambda low, high: _read_around(store, head.key, low, high))


def read_repaired(log: ConversationLog, head: Head, stop: int) -> Iterator[ReadableRecord | LostRecord]:
    """Yield the record at each position of a conversation that is not damaged, or has been repaired.

    Args:
        log: The log of the conversation.
        head: Its head.
        stop: One above the last position.

    Yields:
        The records; `LostRecord` for a damaged one that a repair has left out of the active path.

    Raises:
        CorruptRecord: A damaged record is on the active path: it has not been repaired.
        Conflict: The range was forgotten, or the conversation deleted, while it was read.
    """
    ranges: list[PositionRange] | None = None
    for each in iter_around_damage(log.store, head, head.start, stop):
        if isinstance(each, LostRecord):
            if ranges is None:
                ranges = load_ranges(log, log.with_state(head), [])
            if contains_position(ranges, each.position):
                raise CorruptRecord(log.key, each.position, each.reason)
        yield each


def iter_found_around_damage(
    store: HeadRecovery, found: FoundRecords, start: int, stop: int
) -> Iterator[ReadableRecord | LostRecord]:
    """Yield the record at each position of a range, or why it cannot be read, if the head is lost.

    Args:
        store: The part of the store that finds records without a head.
        found: What it found.
        start: The first position.
        stop: One above the last position.

    Raises:
        CorruptRecord: Too many records in a row are missing, as in `iter_around_damage`.
    """

    def read(low: int, high: int) -> Iterator[Record | _Gap]:
        yield from _fill_gaps(store.read_found(found, start=low, stop=high), low, high)

    return _iter_checked(found.key, start, stop, read)


def _iter_checked(key: Key, start: int, stop: int, read: Read) -> Iterator[ReadableRecord | LostRecord]:
    position, count, missing = start, _FIRST_COUNT, 0
    while position < stop:
        size, begin = 0, position
        for each in read(position, min(position + count, stop)):
            if isinstance(each, Record):
                position, missing = each.position + 1, 0
                size += len(each.body)
                yield _decode_record(each, key)
                continue
            end = min(each.stop, stop)
            missing += end - each.start
            if missing > LONGEST_GAP:
                reason = f"it names more than {LONGEST_GAP} positions in a row at which no record can be read"
                raise CorruptRecord(key, None, reason)
            position = end
            yield from (LostRecord(at, each.reason) for at in range(each.start, end))
        count = max(1, min(4 * count, _MAX_COUNT, _TARGET_BYTES * (position - begin) // max(size, 1)))


def _decode_record(record: Record, key: Key) -> ReadableRecord | LostRecord:
    try:
        return ReadableRecord(record, decode(record, key))
    except CorruptRecord as error:
        return LostRecord(record.position, error.reason)


def _read_around(store: HistoryStore, key: Key, start: int, stop: int) -> Iterator[Record | _Gap]:
    """Yield a run of readable records that begins at `start`, or the gap that begins there."""
    while True:
        try:
            part = store.read(key, start=start, stop=stop)
        except CorruptRecord as error:
            if error.position is None or not start <= error.position < stop:
                raise
            if error.position == start:
                yield _Gap(start, max(start + 1, error.stop or 0), error.reason)
                return
            stop = error.position  # a store may return nothing of a range that contains a damaged record
            continue
        if part is None or not part.records or part.records[0].position != start:
            raise Conflict(key, part.head if part else None)
        yield from part.records
        return


def _fill_gaps(records: Sequence[Record], start: int, stop: int) -> Iterator[Record | _Gap]:
    position = start
    for record in records:
        if position < record.position:
            yield _Gap(position, record.position, _MISSING)
        yield record
        position = record.position + 1
    if position < stop:
        yield _Gap(position, stop, _MISSING)


_MISSING = "it is damaged or missing"
