"""Which part of a log the view goes through: spans of positions, and how to read their end without reading all.

Without a rewind that is one span, the whole log. `rewind(to=p)` leaves out what stands between p and the rewind record;
that record itself tells the spans before it, so the head needs no more than its position (`Summary.path`), however
often a conversation was rewound.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from chathistory.log.entry import Entry, decode
from chathistory.log.journal import Journal
from chathistory.log.summary import summary_of
from chathistory.store import Head

__all__ = ["Span", "clipped", "covers", "newest_first", "on_path", "spans_of"]

Span = tuple[int, int]


def spans_of(journal: Journal, head: Head, entries: Sequence[Entry]) -> list[Span]:
    """Return the spans of a log, oldest first; one round trip if it was rewound and that record is not in `entries`."""
    path = summary_of(head).path
    if path is None:
        return [(head.start, head.end)]
    held = [entry for entry in entries if entry.position == path] or journal.read(path, path + 1)
    spans = [(start, stop) for start, stop in held[0].data["path"]]
    return clipped([*spans, (path, head.end)], low=head.start, high=head.end)


def clipped(spans: Sequence[Span], *, low: int = 0, high: int) -> list[Span]:
    """Return the parts of spans within [low, high)."""
    parts = ((max(start, low), min(stop, high)) for start, stop in spans)
    return [(start, stop) for start, stop in parts if start < stop]


def covers(spans: Sequence[Span], position: int) -> bool:
    """Whether a position is in one of the spans."""
    return any(start <= position < stop for start, stop in spans)


def on_path(journal: Journal) -> tuple[Head, list[Entry]] | None:
    """Return the head and the entries that the view goes through, in order; None if the conversation is absent.

    Raises `UnsupportedRecord` if one of them is of a later version.
    """
    loaded = journal.load()
    if loaded is None:
        return None
    head, entries = loaded
    spans = spans_of(journal, head, entries)
    return head, [entry.known(journal.key) for entry in entries if covers(spans, entry.position)]


def newest_first(journal: Journal, portion: int) -> Iterator[Entry]:
    """Yield the entries that the view goes through, newest first; nothing if the conversation is absent.

    Reads `portion` records at once, twice as many each time after; one round trip for the first portion. Each is
    decoded only when it is its turn. Raises `UnsupportedRecord` at one of a later version.
    """
    fetched = journal.fetch(-portion)
    if fetched is None:
        return
    head, held = fetched
    begin, path = head.end - len(held), summary_of(head).path
    turning = [] if path is None else [decode(record, journal.key) for record in held if record.position == path]
    for low, stop in reversed(spans_of(journal, head, turning)):
        high = stop
        while high > low:
            if high <= begin:
                portion *= 2
                begin = max(low, high - portion)
                held = journal.fetch_all(begin, high)
            cut = max(low, begin)
            found = (record for record in reversed(held) if cut <= record.position < high)
            yield from (decode(record, journal.key).known(journal.key) for record in found)
            high = cut
