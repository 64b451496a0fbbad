"""Finding a way around what cannot be read or sent, and writing that way into the log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from chathistory.errors import CorruptRecord
from chathistory.log.entry import Entry
from chathistory.log.fold import opens_turn
from chathistory.log.journal import Journal
from chathistory.log.lease import check_free
from chathistory.log.omissions import omissions_in, to_data
from chathistory.log.size import estimated
from chathistory.log.spans import Sent, Span, clipped, covers, spans_of
from chathistory.log.summary import Summary, summary_of
from chathistory.omitting import refusal_entries, refused_places
from chathistory.store import Head
from chathistory.view import Repair, View, view_of
from chathistory.view.item import ADDED
from chathistory.view.naming import given_ids, message_with_given_ids, sent_ids

__all__ = ["repaired"]


def repaired(journal: Journal, *, write: bool) -> tuple[Repair, ...]:
    """Return what is to be mended, in the order of the log; with `write`, mend it."""
    with journal.lock:
        head = journal.refresh()
        if head is None:
            return ()
        found = _looked_through(journal, head)
        refused = refused_places(found.sent())
        if write and refused:
            check_free(journal.key, found.summary)
            found = _looked_through(journal, journal.append(refusal_entries(found.sent())))
        shown = found.view()
        repairs = (*found.lost, *refused, *shown.report.repairs)
        if write and (found.lost or shown.report.repairs):
            check_free(journal.key, found.summary)
            journal.append(found.mended(shown))
        return repairs


@dataclass(frozen=True, slots=True)
class _Found:
    """All of a log that can be read, what cannot, and the spans that the view goes through."""

    head: Head
    summary: Summary
    entries: list[Entry]
    unreadable: list[Repair]
    spans: list[Span]

    @property
    def lost(self) -> list[Repair]:
        """What cannot be read of what the view comes past."""
        summary, spans = self.summary, clipped(self.spans, low=self.summary.begin, high=self.head.end)
        wanted = (summary.cut, summary.path)
        return [each for each in self.unreadable if each.position in wanted or covers(spans, each.position)]

    def on_path(self) -> list[Entry]:
        return [entry for entry in self.entries if covers(self.spans, entry.position)]

    def sent(self) -> Sent:
        """Return what the view goes through, of what can be read."""
        summary = self.summary
        if self.lost:
            summary = replace(summary, thinking_from=self.head.end)
        entries = [entry for entry in self.on_path() if entry.position >= summary.begin]
        cuts = [entry for entry in self.entries if entry.position == summary.cut]
        return Sent(self.head, summary, entries, cuts[0] if cuts else None)

    def view(self) -> View:
        """Return the view of what can be read, as it will be once that is all."""
        return view_of(self.sent())

    def mended(self, shown: View) -> list[Entry]:
        """Return what has to be written for the log to be sent as `shown` without any repair."""
        report = shown.report
        places = {each.position for each in report.repairs}.union(report.dropped) - {ADDED, self.summary.cut}
        first = max(self.summary.begin, min(places, default=self.head.end))
        detour = [self._detour(first)] if self.lost or first < self.head.end else []
        return [*detour, *self._again(shown, first)]

    def _again(self, shown: View, first: int) -> list[Entry]:
        """Return the messages from `first` on as they are sent."""
        before = {entry.position: entry for entry in self.entries}
        sent = [entry for entry in self.on_path() if entry.position >= self.summary.begin]
        ids = given_ids(sent, self.summary.renamed)
        pairs = zip(shown.report.kept, shown.messages, strict=True)
        return [
            _copied(before.get(position), message, ids)
            for position, message in pairs
            if (position >= first and position != self.summary.cut) or position == ADDED
        ]

    def _detour(self, first: int) -> Entry:
        summary = self.summary
        kept = [entry for entry in self.on_path() if entry.kind == "message" and entry.position < first]
        gone = [each.position for each in self.unreadable]
        cut = summary.cut if summary.cut not in gone else None
        sent = [entry for entry in kept if entry.position >= summary.begin]
        data: dict[str, Any] = {
            "path": _without(clipped(self.spans, high=first), gone),
            "messages": len(kept),
            "turns": _turns(kept),
            "hidden": _turns(kept) - _turns(sent),
            "tokens": sum(estimated(entry.message or {}) for entry in sent),
            "cut": cut,
            "lost": [each.position for each in self.lost],
        }
        omissions = omissions_in(self.sent().entries)
        if omitted := to_data(each for place, there in omissions.items() if place < first for each in there):
            data["omitted"] = omitted
        return Entry("mend", data=data)


def _turns(entries: Sequence[Entry]) -> int:
    return sum(opens_turn(entry.message) for entry in entries if entry.message)


def _copied(entry: Entry | None, message: dict[str, Any], ids: Mapping[str, str]) -> Entry:
    """Return a message anew, as it is sent, with what was told beside it; entry None: the view has added it.

    ids: those that tool calls have in the log, for their callers answer to these, by those under which they are sent.
    """
    given = message_with_given_ids(message, ids)
    if entry is None:
        return Entry("message", message=given)
    data = {name: value for name, value in entry.data.items() if name not in ("until", "sent_ids")}
    others = sent_ids(message, ids)
    data |= {"again": entry.position} | ({"sent_ids": others} if others else {})
    return Entry("message", message=given, data=data, turn=entry.turn, at=entry.at)


def _without(spans: Sequence[Span], positions: Sequence[int]) -> list[Span]:
    """Return the spans without some positions."""
    for position in positions:
        halves = [
            half for start, stop in spans for half in ((start, min(stop, position)), (max(start, position + 1), stop))
        ]
        spans = [(start, stop) for start, stop in halves if start < stop]
        spans = list(dict.fromkeys(spans))
    return list(spans)


def _looked_through(journal: Journal, head: Head) -> _Found:
    """Read what can be read. Raises `CorruptRecord` if that cannot be told of single records."""
    entries: list[Entry] = []
    unreadable: list[Repair] = []
    start, stop = head.start, head.end
    while start < head.end:
        try:
            for part in journal.slices(start, stop):
                for record in part.records:
                    entries += journal.entries(replace(part, records=[record]))
                    start = record.position + 1
            start, stop = stop, head.end
        except CorruptRecord as error:
            if error.position is None or not start <= error.position < stop:
                raise
            if start < error.position:  # a store may give nothing at all of a range in which something is damaged
                stop = error.position
                continue
            unreadable.append(Repair(start, f"left out: the record is damaged, {error.reason}"))
            start, stop = start + 1, head.end
    known = [entry for entry in entries if entry.kind != "unknown"]
    later = [Repair(entry.position, "left out: a later version of chathistory wrote it") for entry in entries]
    strange = [repair for repair, entry in zip(later, entries, strict=True) if entry.kind == "unknown"]
    lost = {each.position for each in unreadable}
    summary = summary_of(head)
    spans = [(head.start, head.end)] if summary.path in lost else spans_of(journal, head, known)
    return _Found(head, summary, known, sorted([*unreadable, *strange], key=lambda each: each.position), spans)
