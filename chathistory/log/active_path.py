"""Which part of a log the view goes through: spans of positions, and how to read it without reading all.

Without a rewind that is one span, the whole log. `rewind(to=p)` leaves out what stands between p and the rewind record;
that record itself tells the spans before it, so the head needs no more than its position (`Summary.path`), however
often a conversation was rewound. A cut says from which position on messages are sent (`Summary.begin`): what stands
before it is not read at all.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from chathistory.errors import CorruptRecord
from chathistory.log.conversation_log import ConversationLog
from chathistory.log.entry import Entry, decode
from chathistory.log.state import Summary, summary_of
from chathistory.storage.store import Head

__all__ = [
    "KINDS_NAMED",
    "ActiveEntries",
    "Span",
    "clipped",
    "covers",
    "newest_first",
    "on_path",
    "path_in",
    "record_named",
    "spans_of",
    "walked",
    "without",
    "wrong_words",
]

Span = tuple[int, int]
_TAIL = 256  # records read at first where it is not known yet from which on messages are sent


def spans_of(log: ConversationLog, head: Head, entries: Sequence[Entry]) -> list[Span]:
    """Return the spans of a log, oldest first; one round trip if it was rewound and that record is not in `entries`."""
    path = summary_of(head).path
    if path is None:
        return [(head.start, head.end)]
    if path < head.start:
        raise CorruptRecord(log.key, path, f"{wrong_words('path')}, which is not kept any more")
    held = [entry for entry in entries if entry.position == path] or log.read(path, path + 1)
    spans = path_in(held[0].known(log.key), head)
    if spans is None:
        reason = "it does not tell which part of the log is gone through"
        raise CorruptRecord(log.key, path, reason)
    return spans


def record_named(
    log: ConversationLog, head: Head, name: Literal["cut", "setup_at"], held: Iterable[Entry] = ()
) -> Entry | None:
    """Return the record that the summary in a head names; None: it names none.

    One round trip if it is not among those that are `held`.

    Raises:
        CorruptRecord: There is none at that position, or one of another kind.
        UnsupportedRecord: A later version wrote it.
    """
    position = getattr(summary_of(head), name)
    if position is None:
        return None
    if position < head.start:
        raise CorruptRecord(log.key, position, f"{wrong_words(name)}, which is not kept any more")
    found = next((entry for entry in held if entry.position == position), None)
    found = (found or log.read(position, position + 1)[0]).known(log.key)
    if found.kind not in KINDS_NAMED[name]:
        raise CorruptRecord(log.key, position, f"{wrong_words(name)}, which it is not")
    return found


def wrong_words(name: str) -> str:
    """Return what the head says of a record that a field of its summary names wrongly."""
    return f"the head names it as {_NAMED_AS[name]}"


KINDS_NAMED: Mapping[str, frozenset[str]] = {"cut": frozenset({"cut", "compaction"}), "setup_at": frozenset({"setup"})}
"""Of which kinds the record must be that a field of the summary names."""

_NAMED_AS = {
    "cut": "the newest cut",
    "setup_at": "the newest setup",
    "path": "the one that tells which part of the log is gone through",
}


def path_in(entry: Entry, head: Head) -> list[Span] | None:
    """Return the spans of a log that a rewind, a snapshot or a repair tells; None: this entry tells none."""
    told = entry.data.get("path")
    if entry.kind not in _TELLING or told is None:
        return None
    return clipped(
        [*((start, stop) for start, stop in told), (entry.position, head.end)], low=head.start, high=head.end
    )


_TELLING = frozenset({"rewind", "snapshot", "mend"})


def without(spans: Sequence[Span], positions: Iterable[int]) -> list[Span]:
    """Return the spans without some positions."""
    left: list[Span] = []
    gone = sorted(positions)
    for start, stop in spans:
        begin = start
        for position in gone[bisect_left(gone, start) : bisect_left(gone, stop)]:
            left.append((begin, position))
            begin = position + 1
        left.append((begin, stop))
    return [(start, stop) for start, stop in left if start < stop]


def clipped(spans: Sequence[Span], *, low: int = 0, high: int) -> list[Span]:
    """Return the parts of spans within [low, high)."""
    parts = ((max(start, low), min(stop, high)) for start, stop in spans)
    return [(start, stop) for start, stop in parts if start < stop]


def covers(spans: Sequence[Span], position: int) -> bool:
    """Whether a position is in one of the spans."""
    return any(start <= position < stop for start, stop in spans)


@dataclass(frozen=True, slots=True)
class ActiveEntries:
    """What the view goes through, of one moment: the entries, in order, and the cut before them, if there was one."""

    head: Head
    summary: Summary
    entries: list[Entry]
    cut: Entry | None = None

    def extended(self, head: Head, stored: Sequence[Entry]) -> ActiveEntries:
        """Return it with what was stored since, up to `head`."""
        summary = summary_of(head)
        cuts = [entry for entry in (self.cut, *stored) if entry and entry.position == summary.cut]
        entries = [entry for entry in (*self.entries, *stored) if entry.position >= summary.begin]
        return ActiveEntries(head, summary, entries, cuts[0] if cuts else None)


def on_path(log: ConversationLog) -> ActiveEntries | None:
    """Return what the view goes through; None if the conversation is absent.

    One round trip if this process knows where that begins, or if it is among the newest 256 records, else two; a few
    more where something is damaged, wherever that stands. Raises `UnsupportedRecord` if one of the entries is of a
    later version.
    """
    try:
        return _all_at_once(log)
    except CorruptRecord:
        return _span_by_span(log)


def _all_at_once(log: ConversationLog) -> ActiveEntries | None:
    seen = log.last
    loaded = log.load(summary_of(seen).begin if seen else -_TAIL)
    if loaded is None:
        return None
    head, held = loaded
    summary = summary_of(head)
    low, first = max(summary.begin, head.start), head.end - len(held)
    if low < first:
        held = [*log.read(low, first), *held]
    entries = held if first == low else [entry for entry in held if entry.position >= low]
    if summary.path is not None and summary.path >= low:  # a rewind before that left out what is not sent anyway
        spans = spans_of(log, head, held)
        entries = [entry for entry in entries if covers(spans, entry.position)]
    entries = [entry.known(log.key) for entry in entries]
    cut = None if summary.cut is None else record_named(log, head, "cut", held)
    return ActiveEntries(head, summary, entries, cut)


def _span_by_span(log: ConversationLog) -> ActiveEntries | None:
    """Read no more than the spans: a mend may have led them around what is damaged. Raises `CorruptRecord` if not."""
    head = log.refresh()
    if head is None:
        return None
    summary = summary_of(head)
    spans = clipped(spans_of(log, head, []), low=summary.begin, high=head.end)
    entries = [entry.known(log.key) for start, stop in spans for entry in log.read(start, stop)]
    return ActiveEntries(head, summary, entries, record_named(log, head, "cut"))


def newest_first(log: ConversationLog, portion: int, *, before: int | None = None) -> Iterator[Entry]:
    """Yield the entries that the view goes through, newest first; nothing if the conversation is absent.

    `before`: only those below this position, and without counting what was not read as seen. Reads `portion` records
    at once, twice as many each time after; one round trip for the first portion. Each is decoded only when it is its
    turn. Raises `UnsupportedRecord` at one of a later version.
    """
    try:
        fetched = log.fetch(-portion) if before is None else log.fetch(max(before - portion, 0), before)
    except CorruptRecord:  # a mend may have led around what is damaged: read span by span
        head = log.refresh()
        fetched = (head, []) if head else None
    if fetched is None:
        return
    head, held = fetched
    begin = (head.end if before is None else min(before, head.end)) - len(held)
    path = summary_of(head).path
    turning = [] if path is None else [decode(record, log.key) for record in held if record.position == path]
    for low, stop in reversed(spans_of(log, head, turning)):
        high = stop
        while high > low:
            if high <= begin:
                portion *= 2
                begin = max(low, high - portion)
                held = log.fetch_all(begin, high)
            cut = max(low, begin)
            found = (record for record in reversed(held) if cut <= record.position < high)
            yield from (decode(record, log.key).known(log.key) for record in found)
            high = cut


def walked(log: ConversationLog, spans: Sequence[Span], portion: int) -> Iterator[Entry]:
    """Yield the entries of spans, newest first; what is read does not count as seen.

    Reads `portion` records at once, twice as many each time after. Raises as `newest_first` does.
    """
    for low, stop in reversed(spans):
        high = stop
        while high > low:
            start = max(low, high - portion)
            for record in reversed(log.fetch_all(start, high)):
                yield decode(record, log.key).known(log.key)
            high, portion = start, portion * 2
