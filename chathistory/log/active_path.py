"""The active path: the ranges of positions that are in force, and how to read them without reading the whole log.

Without a rewind the whole log is active. `rewind(to=p)` takes back the entries between p and its own entry. That entry
stores the ranges before it, so the state needs only the position of the entry (`ViewState.path_position`), however
often a conversation was rewound. A cut sets the position from which on messages are sent (`ViewState.view_start`);
entries before it are not read at all.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from chathistory.errors import CorruptRecord
from chathistory.log.conversation_log import ConversationLog
from chathistory.log.entry import Entry, decode, filter_known, is_cut_entry
from chathistory.log.events import CompactionByAPI, Cut, Repair, Rewind, Setup, Snapshot
from chathistory.log.field_types import PositionRange
from chathistory.log.state import ConversationHead, ConversationState

__all__ = [
    "ActiveEntries",
    "clip_ranges",
    "contains_position",
    "exclude_positions",
    "iter_newest_first",
    "iter_ranges_newest_first",
    "load_active",
    "load_cut",
    "load_ranges",
    "load_setup",
    "ranges_from_entry",
]

_FIRST_READ = 256  # records that are read first while the start of the view is unknown
_NOT_KEPT = "the head refers to it as {}, but it was forgotten"
_OTHER_KIND = "the head refers to it as {}, but it is another kind of entry"


def load_ranges(log: ConversationLog, head: ConversationHead, entries: Sequence[Entry]) -> list[PositionRange]:
    """Return the ranges of the active path.

    One round trip if the log was rewound and the entry that stores the ranges is not in `entries`.

    Args:
        log: The log.
        head: Its head.
        entries: Entries that were read already.

    Returns:
        The ranges, oldest first.

    Raises:
        CorruptRecord: The head refers to an entry that was forgotten, or one that stores no ranges.
        UnsupportedRecord: That entry has a format or kind that this version does not know.
    """
    path = head.state.view.path_position
    if path is None:
        return [(head.start, head.end)]
    entry = _load_named_entry(log, head, path, "the entry with the active path", entries)
    ranges = ranges_from_entry(entry, head)
    if ranges is None:
        raise CorruptRecord(log.key, path, "it does not hold the active path")
    return ranges


def ranges_from_entry(entry: Entry, head: ConversationHead) -> list[PositionRange] | None:
    """Return the ranges of the active path that a rewind, a snapshot or a repair stores.

    Args:
        entry: The entry.
        head: The head of the log.

    Returns:
        The ranges up to the end of the log, oldest first; None for another kind of entry.
    """
    if not isinstance(entry.event, Rewind | Snapshot | Repair):
        return None
    return clip_ranges([*entry.event.path, (entry.position, head.end)], low=head.start, high=head.end)


def load_cut(
    log: ConversationLog, head: ConversationHead, entries: Iterable[Entry] = ()
) -> Entry[Cut | CompactionByAPI] | None:
    """Return the newest cut. One round trip if it is not in `entries`.

    Args:
        log: The log.
        head: Its head.
        entries: Entries that were read already.

    Returns:
        The cut; None if no cut is in force.

    Raises:
        CorruptRecord: The head refers to an entry that was forgotten, or another kind of entry.
        UnsupportedRecord: That entry has a format or kind that this version does not know.
    """
    position = head.state.view.cut_position
    if position is None:
        return None
    found = _load_named_entry(log, head, position, "the newest cut", entries)
    if is_cut_entry(found):
        return found
    raise CorruptRecord(log.key, position, _OTHER_KIND.format("the newest cut"))


def load_setup(log: ConversationLog, head: ConversationHead, entries: Iterable[Entry] = ()) -> Setup | None:
    """Return the newest setup. One round trip if it is not in `entries`.

    Args:
        log: The log.
        head: Its head.
        entries: Entries that were read already.

    Returns:
        The setup; None if no engine has stored one.

    Raises:
        CorruptRecord: The head refers to an entry that was forgotten, or another kind of entry.
        UnsupportedRecord: That entry has a format or kind that this version does not know.
    """
    position = head.state.engine.setup_position
    if position is None:
        return None
    found = _load_named_entry(log, head, position, "the newest setup", entries)
    if not isinstance(found.event, Setup):
        raise CorruptRecord(log.key, position, _OTHER_KIND.format("the newest setup"))
    return found.event


def _load_named_entry(
    log: ConversationLog, head: ConversationHead, position: int, name: str, entries: Iterable[Entry]
) -> Entry:
    """Return the entry at a position to which the head refers; one round trip if it is not in `entries`."""
    if position < head.start:
        raise CorruptRecord(log.key, position, _NOT_KEPT.format(name))
    found = next((entry for entry in entries if entry.position == position), None)
    filter_known([found := found or log.read_entries(position, position + 1)[0]], log.key)
    return found


def exclude_positions(ranges: Sequence[PositionRange], positions: Iterable[int]) -> list[PositionRange]:
    """Return ranges without some positions.

    Args:
        ranges: The ranges.
        positions: The positions to leave out.
    """
    parts: list[PositionRange] = []
    excluded = sorted(positions)
    for start, stop in ranges:
        begin = start
        for position in excluded[bisect_left(excluded, start) : bisect_left(excluded, stop)]:
            parts.append((begin, position))
            begin = position + 1
        parts.append((begin, stop))
    return [(start, stop) for start, stop in parts if start < stop]


def clip_ranges(ranges: Sequence[PositionRange], *, low: int = 0, high: int) -> list[PositionRange]:
    """Return the parts of ranges between two positions.

    Args:
        ranges: The ranges.
        low: The first position.
        high: One above the last position.
    """
    parts = ((max(start, low), min(stop, high)) for start, stop in ranges)
    return [(start, stop) for start, stop in parts if start < stop]


def contains_position(ranges: Sequence[PositionRange], position: int) -> bool:
    """Return True if a position is in one of the ranges.

    Args:
        ranges: The ranges.
        position: The position.
    """
    return any(start <= position < stop for start, stop in ranges)


@dataclass(frozen=True, slots=True)
class ActiveEntries:
    """The active entries that are sent, and the cut before them, as they were at one moment.

    Attributes:
        head: The head at that moment.
        entries: The entries from the start of the view on, in order.
        cut: The newest cut; None: no cut is in force.
    """

    head: ConversationHead
    entries: Sequence[Entry]
    cut: Entry[Cut | CompactionByAPI] | None = None

    @property
    def state(self) -> ConversationState:
        """The state of the conversation at that moment."""
        return self.head.state

    def with_appended(self, head: ConversationHead, stored: Sequence[Entry]) -> ActiveEntries:
        """Return the active entries after an append.

        Args:
            head: The head after the append.
            stored: The entries that were appended.
        """
        view, cut = head.state.view, self.cut
        for entry in stored:
            if is_cut_entry(entry):
                cut = entry
        entries = [entry for entry in (*self.entries, *stored) if entry.position >= view.view_start]
        is_cut = cut is not None and cut.position == view.cut_position
        return ActiveEntries(head, entries, cut if is_cut else None)


def load_active(log: ConversationLog) -> ActiveEntries | None:
    """Return the active entries that are sent.

    One round trip if this process knows where they begin, or if that is among the newest 256 records; otherwise two. A
    few more if a record is damaged, wherever it is.

    Args:
        log: The log of the conversation.

    Returns:
        The active entries; None if the conversation does not exist.

    Raises:
        CorruptRecord: An active record, or the head, is damaged.
        UnsupportedRecord: An active entry that is not optional has a format or kind that this version does not know.
    """
    try:
        return _load_at_once(log)
    except CorruptRecord:
        return _load_range_by_range(log)


def _load_at_once(log: ConversationLog) -> ActiveEntries | None:
    last = log.last_head
    loaded = log.load(log.with_state(last).state.view.view_start if last else -_FIRST_READ)
    if loaded is None:
        return None
    head, entries = loaded
    view = head.state.view
    low, first = max(view.view_start, head.stored.start), head.stored.end - len(entries)
    if low < first:
        entries = [*log.read_entries(low, first), *entries]
    active = entries if first == low else [entry for entry in entries if entry.position >= low]
    path = view.path_position
    if path is not None and path >= low:  # an earlier rewind took back only entries that are not sent anyway
        ranges = load_ranges(log, head, entries)
        active = [entry for entry in active if contains_position(ranges, entry.position)]
    return ActiveEntries(head, filter_known(active, log.key), load_cut(log, head, entries))


def _load_range_by_range(log: ConversationLog) -> ActiveEntries | None:
    """Read only the ranges of the active path: a repair may have left damaged records out of them."""
    head = log.refresh()
    if head is None:
        return None
    ranges = clip_ranges(load_ranges(log, head, []), low=head.state.view.view_start, high=head.end)
    entries = [entry for start, stop in ranges for entry in log.read_entries(start, stop)]
    return ActiveEntries(head, filter_known(entries, log.key), load_cut(log, head))


def iter_newest_first(log: ConversationLog, portion: int, *, before: int | None = None) -> Iterator[Entry]:
    """Yield the entries of the active path, newest first. Each is decoded when it is needed.

    Args:
        log: The log of the conversation.
        portion: How many records to read in the first round trip. Each later round trip reads twice as many.
        before: Yield only entries below this position, and keep the known head. None: all entries.

    Yields:
        The entries; none if the conversation does not exist.

    Raises:
        CorruptRecord: An active record, or the head, is damaged.
        UnsupportedRecord: An active entry that is not optional has a format or kind that this version does not know.
    """
    try:
        fetched = log.fetch_records(-portion) if before is None else log.fetch_records(max(before - portion, 0), before)
        head, records = (log.with_state(fetched[0]), fetched[1]) if fetched else (None, [])
    except CorruptRecord:  # a repair may have left the damaged record out: read range by range
        head, records = log.refresh(), []
    if head is None:
        return
    begin = (head.end if before is None else min(before, head.end)) - len(records)
    path = head.state.view.path_position
    path_entries = [] if path is None else [decode(record, log.key) for record in records if record.position == path]
    for low, stop in reversed(load_ranges(log, head, path_entries)):
        high = stop
        while high > low:
            if high <= begin:
                portion *= 2
                begin = max(low, high - portion)
                records = log.fetch_all_records(begin, high)
            start = max(low, begin)
            wanted = (record for record in reversed(records) if start <= record.position < high)
            for record in wanted:
                yield from filter_known([decode(record, log.key)], log.key)
            high = start


def iter_ranges_newest_first(log: ConversationLog, ranges: Sequence[PositionRange], portion: int) -> Iterator[Entry]:
    """Yield the entries of some ranges, newest first, and keep the known head.

    Args:
        log: The log of the conversation.
        ranges: The ranges, oldest first.
        portion: How many records to read in the first round trip. Each later round trip reads twice as many.

    Raises:
        CorruptRecord: A record of the ranges is damaged.
        UnsupportedRecord: An entry that is not optional has a format or kind that this version does not know.
    """
    for low, stop in reversed(ranges):
        high = stop
        while high > low:
            start = max(low, high - portion)
            for record in reversed(log.fetch_all_records(start, high)):
                yield from filter_known([decode(record, log.key)], log.key)
            high, portion = start, portion * 2
