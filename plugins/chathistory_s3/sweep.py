"""Removes what has expired, and what crashes left over: objects that no head names.

Nothing is removed that a writer at work may still name: leftovers have to be older than `grace`, and a segment's name
is used once. The names are listed before the heads are read: what was old then, and is not named after it, never will
be. One small GET per marker and per conversation with segments, one LIST per 1,000 objects. Any number of sweeps may
run at once, beside any writers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import groupby, islice

from chathistory.errors import Conflict, CorruptRecord, UnsupportedRecord
from chathistory.storage import sweep as sweep_ability
from chathistory.storage.store import Damaged
from chathistory_s3.bucket import Listed
from chathistory_s3.content import GRAVE, Content, Grave
from chathistory_s3.heads import Found
from chathistory_s3.layout import Marker
from chathistory_s3.writing import Writer

__all__ = ["GRACE", "Swept", "sweep"]

GRACE = 24 * 3600.0
"""Seconds that a writer may take between storing a segment and naming it: a day, where seconds are usual."""

_MICROSECONDS = 1_000_000
_TOGETHER = 256


@dataclass(slots=True)
class Swept(sweep_ability.Swept):
    """What a sweep removed: expired conversations, and segments, markers and graves that were left over."""

    segments: int = 0
    markers: int = 0
    graves: int = 0


def sweep(writer: Writer, *, now: float, grace: float) -> Swept:
    """Remove what has expired by `now`, and what was left over more than `grace` seconds before it."""
    done = Swept()
    _markers(writer, done, now, now - grace)
    _segments(writer, done, now - grace)
    _graves(writer, done, now - grace)
    _probes(writer, now - grace)
    return done


def _markers(writer: Writer, done: Swept, now: float, old: float) -> None:
    """Remove markers that lead nowhere, and, as each conversation has one, those conversations that have expired."""
    for chunk in _chunks(writer.bucket.listed(writer.layout.markers(None))):
        pairs = [(entry, marker) for entry in chunk if (marker := writer.layout.parsed_marker(entry.object))]
        found = _glances(writer, done, [writer.layout.of(marker) for _, marker in pairs])
        left = [
            marker.object
            for (entry, marker), each in zip(pairs, found, strict=True)
            if entry.modified < old and _is_left(marker, each)
        ]
        writer.bucket.remove_all(left)
        done.markers += len(left)
        for (_, marker), each in zip(pairs, found, strict=True):
            if isinstance(each, Found) and isinstance(each.content, Content) and each.content.marker == marker.time:
                _expire(writer, done, each.content, now)


def _is_left(marker: Marker, found: Found | Damaged | None) -> bool:
    """Tell whether a marker never will be named: time goes forward, and incarnations do not come back."""
    if isinstance(found, Damaged):
        return False
    if found is None or found.content.incarnation != marker.incarnation:
        return True
    return isinstance(found.content, Content) and marker.time > found.content.marker


def _expire(writer: Writer, done: Swept, content: Content, now: float) -> None:
    revision = content.head.revision
    if revision.expires is not None and revision.expires <= now * _MICROSECONDS:
        with suppress(Conflict, CorruptRecord, UnsupportedRecord):  # somebody wrote meanwhile
            done.expired += writer.delete(content.head.key, version=revision.version)


def _segments(writer: Writer, done: Swept, old: float) -> None:
    entries = writer.bucket.listed(writer.layout.segments_of(None))
    for place, group in groupby(entries, lambda entry: writer.layout.place_of_segment(entry.object)):
        aged = [entry.object for entry in group if entry.modified < old]
        if place is None or not aged:
            continue
        (found,) = _glances(writer, done, [writer.layout.heads(None) + place])
        if isinstance(found, Damaged):
            continue
        named = _named(found.content, writer) if found is not None and isinstance(found.content, Content) else set()
        left = [name for name in aged if name not in named]
        writer.bucket.remove_all(left)
        done.segments += len(left)


def _named(content: Content, writer: Writer) -> set[str]:
    below = writer.layout.segments(content.head.key, content.incarnation)
    return {below + segment.name for segment in content.segments}


def _graves(writer: Writer, done: Swept, old: float) -> None:
    """Finish what was deleted by somebody who died over it."""
    for chunk in _chunks(writer.bucket.listed(writer.layout.heads(None))):
        names = [entry.object for entry in chunk
                 if writer.layout.place(entry.object) and entry.size < GRAVE and entry.modified < old]  # fmt: skip
        for name, found in zip(names, _glances(writer, done, names), strict=True):
            if isinstance(found, Found) and isinstance(found.content, Grave):
                place = name.removeprefix(writer.layout.heads(None))
                done.graves += writer.finish(place, found.content, found.etag, stays=False) is None


def _probes(writer: Writer, old: float) -> None:
    """Remove probes of stores that ended over them."""
    entries = writer.bucket.listed(writer.layout.probes())
    writer.bucket.remove_all(
        [entry.object for entry in entries if entry.modified < old and writer.layout.is_probe(entry.object)]
    )


def _glances(writer: Writer, done: Swept, names: list[str]) -> list[Found | Damaged | None]:
    works = [partial(writer.heads.glance, name) for name in names]
    found = writer.bucket.together(works) if works else []
    done.damaged += sum(isinstance(each, Damaged) for each in found)
    return found


def _chunks(entries: Iterator[Listed]) -> Iterator[list[Listed]]:
    while chunk := list(islice(entries, _TOGETHER)):
        yield chunk
