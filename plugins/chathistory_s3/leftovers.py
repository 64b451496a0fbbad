"""Removes what is in a scope beside its conversations, and looks at the whole scope again.

A writer may be at work: what it has stored for a conversation that it is about to make must not vanish below it. So
where there is no conversation, a grave is made first. It needs no more room than a name, and as long as it is there,
that writer is refused and begins anew. The sweep removes it a day later.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import groupby, islice

from chathistory.storage.store import Damaged, Leftovers
from chathistory_s3.bucket import Listed
from chathistory_s3.content import GRAVE_SIZE, Content, Grave, encoded
from chathistory_s3.faults import Overtaken
from chathistory_s3.heads import Found
from chathistory_s3.layout import token
from chathistory_s3.walking import damaged_keys
from chathistory_s3.writing import NO_TIME, Writer

__all__ = ["remove_leftovers"]

_TOGETHER = 64


def remove_leftovers(writer: Writer, scope: str) -> Leftovers:
    """Remove leftovers as `HistoryStore.remove_leftovers` says. Raises `StoreRejected` without the right to list."""
    removed = _remove_damaged(writer, scope) + _remove_segments(writer, scope)
    removed += _remove_markers(writer, scope) + _remove_probes(writer)
    left = tuple(sorted(set(_look_through(writer, scope))))
    return Leftovers(removed, left, complete=not left)


def _remove_damaged(writer: Writer, scope: str) -> int:
    """Remove heads that cannot be read, with all that belongs to them; and finish deletes that broke off."""
    removed = 0
    for chunk in _chunks(writer.bucket.listed(writer.layout.heads(scope))):
        names = [entry.object for entry in chunk if writer.layout.place(entry.object) is not None]
        for name, found in zip(names, _glances(writer, names), strict=True):
            if isinstance(found, Damaged):
                removed += writer.remove_damaged(name)
            elif found is not None and isinstance(found.content, Grave):
                writer.finish(name.removeprefix(writer.layout.heads(None)), found.content, found.etag, stays=True)
    return removed


def _remove_segments(writer: Writer, scope: str) -> int:
    """Remove segments at places without a conversation: those of first appends that broke off."""
    removed = 0
    entries = writer.bucket.listed(writer.layout.segments_of(scope))
    for place, group in groupby(entries, lambda entry: writer.layout.place_of_segment(entry.object)):
        if place is not None:
            incarnations = [writer.layout.incarnation_of_segment(entry.object) for entry in group]
            removed += len(incarnations) if _clear(writer, place, incarnations[0]) else 0
    return removed


def _remove_markers(writer: Writer, scope: str) -> int:
    """Remove markers that no head names, and that nobody is about to name."""
    removed = 0
    for chunk in _chunks(writer.bucket.listed(writer.layout.markers(scope))):
        markers = [marker for entry in chunk if (marker := writer.layout.parsed_marker(entry.object))]
        glances = _glances(writer, [writer.layout.of(marker) for marker in markers])
        left: list[str] = []
        for marker, found in zip(markers, glances, strict=True):
            content = found.content if isinstance(found, Found) else None
            if isinstance(content, Content):
                old = content.incarnation != marker.incarnation or marker.time > content.marker
            else:
                old = _clear(writer, f"{marker.scope}/{marker.id}", marker.incarnation)
            left += [marker.object] if old else []
        writer.bucket.remove_all(left)
        removed += len(left)
    return removed


def _remove_probes(writer: Writer) -> int:
    """Remove probes of stores that ended over them; a store whose probe vanishes makes another one."""
    names = [entry.object for entry in writer.bucket.listed(writer.layout.probes())]
    probes = [name for name in names if writer.layout.is_probe(name)]
    writer.bucket.remove_all(probes)
    return len(probes)


def _clear(writer: Writer, place: str, incarnation: str) -> bool:
    """Remove all segments at a place, under a grave that stays; False: there is a conversation by now."""
    name = writer.layout.heads(None) + place
    found = writer.heads.glance(name)
    if isinstance(found, Damaged):
        return writer.remove_damaged(name)
    if found is None:
        grave = Grave(incarnation, NO_TIME, token())
        try:
            found = Found(grave, writer.bucket.create(name, encoded(grave)))
        except Overtaken:
            return False
    if not isinstance(found.content, Grave):
        return False
    return writer.finish(place, found.content, found.etag, stays=True) is not None


def _look_through(writer: Writer, scope: str) -> Iterator[str]:
    """Yield what is still there: all but graves, which have no text."""
    layout = writer.layout
    for chunk in _chunks(writer.bucket.listed(layout.heads(scope))):
        small = [entry.object for entry in chunk if entry.size == GRAVE_SIZE]
        read = dict(zip(small, _glances(writer, small), strict=True))
        for entry in chunk:
            found = read.get(entry.object)
            if not (isinstance(found, Found) and isinstance(found.content, Grave)):
                yield entry.object
    for prefix in (layout.segments_of(scope), layout.markers(scope)):
        yield from (entry.object for entry in writer.bucket.listed(prefix))
    yield from (damaged.where for damaged in damaged_keys(writer.bucket, layout, writer.heads, scope))


def _glances(writer: Writer, names: Sequence[str]) -> list[Found | Damaged | None]:
    works = [partial(writer.heads.glance, name) for name in names]
    return writer.bucket.together(works) if works else []


def _chunks(entries: Iterator[Listed]) -> Iterator[list[Listed]]:
    while chunk := list(islice(entries, _TOGETHER)):
        yield chunk
