"""Which part of a log the view goes through: spans of positions, and how to read it without reading all.

Without a rewind that is one span, the whole log. `rewind(to=p)` leaves out what stands between p and its own entry;
that entry has the spans before it, so the state needs no more than its position (`ViewState.path`), however
often a conversation was rewound. A cut says from which position on messages are sent (`ViewState.view_start`): what
stands before it is not read at all.
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

_TAIL = 256  # records read at first where it is not known yet from which on messages are sent
_NOT_KEPT = "the head names it as {}, which is not kept any longer"
_OTHER_KIND = "the head names it as {}, which it is not"


def load_ranges(log: ConversationLog, head: ConversationHead, entries: Sequence[Entry]) -> list[PositionRange]:
    """Return the spans of a log, oldest first; one round trip if it was rewound and that entry is not in `entries`."""
    path = head.state.view.path_position
    if path is None:
        return [(head.start, head.end)]
    entry = _load_named_entry(log, head, path, "the one that says which part of the log is active", entries)
    spans = ranges_from_entry(entry, head)
    if spans is None:
        raise CorruptRecord(log.key, path, "it does not say which part of the log is active")
    return spans


def ranges_from_entry(entry: Entry, head: ConversationHead) -> list[PositionRange] | None:
    """Return the spans of a log that a rewind, a snapshot or a repair says; None: it is another kind of entry."""
    if not isinstance(entry.event, Rewind | Snapshot | Repair):
        return None
    return clip_ranges([*entry.event.path, (entry.position, head.end)], low=head.start, high=head.end)


def load_cut(
    log: ConversationLog, head: ConversationHead, entries: Iterable[Entry] = ()
) -> Entry[Cut | CompactionByAPI] | None:
    """Return the newest cut; None: there is none. One round trip if it is not among `entries`.

    Raises:
        CorruptRecord: The head names another entry as the newest cut, or one that is not kept.
        UnsupportedRecord: A later version wrote it.
    """
    position = head.state.view.cut_position
    if position is None:
        return None
    found = _load_named_entry(log, head, position, "the newest cut", entries)
    if is_cut_entry(found):
        return found
    raise CorruptRecord(log.key, position, _OTHER_KIND.format("the newest cut"))


def load_setup(log: ConversationLog, head: ConversationHead, entries: Iterable[Entry] = ()) -> Setup | None:
    """Return the newest setup, as `load_cut` does the newest cut."""
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
    """Return the entry at a position that the head names; one round trip if it is not among `entries`."""
    if position < head.start:
        raise CorruptRecord(log.key, position, _NOT_KEPT.format(name))
    found = next((entry for entry in entries if entry.position == position), None)
    filter_known([found := found or log.read_entries(position, position + 1)[0]], log.key)
    return found


def exclude_positions(spans: Sequence[PositionRange], positions: Iterable[int]) -> list[PositionRange]:
    """Return the spans without some positions."""
    left: list[PositionRange] = []
    gone = sorted(positions)
    for start, stop in spans:
        begin = start
        for position in gone[bisect_left(gone, start) : bisect_left(gone, stop)]:
            left.append((begin, position))
            begin = position + 1
        left.append((begin, stop))
    return [(start, stop) for start, stop in left if start < stop]


def clip_ranges(spans: Sequence[PositionRange], *, low: int = 0, high: int) -> list[PositionRange]:
    """Return the parts of spans within [low, high)."""
    parts = ((max(start, low), min(stop, high)) for start, stop in spans)
    return [(start, stop) for start, stop in parts if start < stop]


def contains_position(spans: Sequence[PositionRange], position: int) -> bool:
    """Whether a position is in one of the spans."""
    return any(start <= position < stop for start, stop in spans)


@dataclass(frozen=True, slots=True)
class ActiveEntries:
    """A consistent read of what the view goes through: the entries, in order, and the cut before them, if any."""

    head: ConversationHead
    entries: Sequence[Entry]
    cut: Entry[Cut | CompactionByAPI] | None = None

    @property
    def state(self) -> ConversationState:
        """The state of the conversation at that moment."""
        return self.head.state

    def with_appended(self, head: ConversationHead, stored: Sequence[Entry]) -> ActiveEntries:
        """Return it with what was stored since, up to `head`."""
        view, cut = head.state.view, self.cut
        for entry in stored:
            if is_cut_entry(entry):
                cut = entry
        entries = [entry for entry in (*self.entries, *stored) if entry.position >= view.view_start]
        is_cut = cut is not None and cut.position == view.cut_position
        return ActiveEntries(head, entries, cut if is_cut else None)


def load_active(log: ConversationLog) -> ActiveEntries | None:
    """Return what the view goes through; None if the conversation is absent.

    One round trip if this process knows where that begins, or if it is among the newest 256 records, else two; a few
    more where something is damaged, wherever that stands. Raises `UnsupportedRecord` if one of the entries is of a
    later version, and may not be passed by.
    """
    try:
        return _load_at_once(log)
    except CorruptRecord:
        return _load_range_by_range(log)


def _load_at_once(log: ConversationLog) -> ActiveEntries | None:
    last = log.last_head
    loaded = log.load(log.with_state(last).state.view.view_start if last else -_TAIL)
    if loaded is None:
        return None
    head, entries = loaded
    view = head.state.view
    low, first = max(view.view_start, head.stored.start), head.stored.end - len(entries)
    if low < first:
        entries = [*log.read_entries(low, first), *entries]
    active = entries if first == low else [entry for entry in entries if entry.position >= low]
    if (
        view.path_position is not None and view.path_position >= low
    ):  # a rewind before that left out what is not sent anyway
        spans = load_ranges(log, head, entries)
        active = [entry for entry in active if contains_position(spans, entry.position)]
    return ActiveEntries(head, filter_known(active, log.key), load_cut(log, head, entries))


def _load_range_by_range(log: ConversationLog) -> ActiveEntries | None:
    """Read no more than the spans: a repair may lead around what is damaged. Raises `CorruptRecord` if not."""
    head = log.refresh()
    if head is None:
        return None
    spans = clip_ranges(load_ranges(log, head, []), low=head.state.view.view_start, high=head.end)
    entries = [entry for start, stop in spans for entry in log.read_entries(start, stop)]
    return ActiveEntries(head, filter_known(entries, log.key), load_cut(log, head))


def iter_newest_first(log: ConversationLog, portion: int, *, before: int | None = None) -> Iterator[Entry]:
    """Yield the entries that the view goes through, newest first; nothing if the conversation is absent.

    Each is decoded only when it is its turn.

    Args:
        log: Of the conversation.
        portion: How many records are read at first; twice as many each time after. One round trip for the first.
        before: Only those below this position, and without counting what was not read as seen.

    Raises:
        UnsupportedRecord: At an entry of a later version that may not be passed by.
    """
    try:
        fetched = log.fetch_records(-portion) if before is None else log.fetch_records(max(before - portion, 0), before)
        head, records = (log.with_state(fetched[0]), fetched[1]) if fetched else (None, [])
    except CorruptRecord:  # a repair may lead around what is damaged: read span by span
        head, records = log.refresh(), []
    if head is None:
        return
    begin = (head.end if before is None else min(before, head.end)) - len(records)
    path = head.state.view.path_position
    turning = [] if path is None else [decode(record, log.key) for record in records if record.position == path]
    for low, stop in reversed(load_ranges(log, head, turning)):
        high = stop
        while high > low:
            if high <= begin:
                portion *= 2
                begin = max(low, high - portion)
                records = log.fetch_all_records(begin, high)
            start = max(low, begin)
            found = (record for record in reversed(records) if start <= record.position < high)
            for record in found:
                yield from filter_known([decode(record, log.key)], log.key)
            high = start


def iter_ranges_newest_first(log: ConversationLog, spans: Sequence[PositionRange], portion: int) -> Iterator[Entry]:
    """Yield the entries of spans, newest first; what is read does not count as seen.

    Reads `portion` records at once, twice as many each time after. Raises as `iter_newest_first` does.
    """
    for low, stop in reversed(spans):
        high = stop
        while high > low:
            start = max(low, high - portion)
            for record in reversed(log.fetch_all_records(start, high)):
                yield from filter_known([decode(record, log.key)], log.key)
            high, portion = start, portion * 2
