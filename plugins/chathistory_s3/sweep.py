"""Removes expired conversations and leftovers of crashes; and all objects of a scope except readable conversations.

A *sweep* removes nothing that an active writer may still name: leftovers must be older than `grace`, and the name of a
segment is used once. It lists the names before it reads the heads: an object that is old by then, and that no head
names after that, will never be named. It costs one small GET per marker and per conversation with segments, and one
LIST per 1,000 objects. Any number of sweeps may run at the same time, together with any writers.

`remove_leftovers` does not wait for a grace period. A writer may have stored segments for a conversation that it is
about to create, and these must not vanish unnoticed. So where no conversation exists, a tombstone is created first. As
long as it exists, that writer is refused and starts again. The sweep removes it a day later.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby

from chathistory.errors import Conflict, CorruptRecord, UnsupportedRecord
from chathistory.storage import abilities
from chathistory.storage.values import Damaged, Leftovers
from chathistory_s3.errors import PreconditionFailed
from chathistory_s3.heads import S3StoredHead
from chathistory_s3.listing import list_damaged_keys
from chathistory_s3.names import UNKNOWN_TIME, SegmentName, new_token
from chathistory_s3.schema import SMALLEST_HEAD, TOMBSTONE_SIZE, HeadContent, Tombstone, encode_head
from chathistory_s3.segments import SegmentStore
from chathistory_s3.write import S3Writer

__all__ = ["GRACE", "S3SweepReport", "remove_leftovers", "sweep"]

GRACE = 24 * 3600.0
"""Seconds that a writer may take between storing a segment and naming it: a day, although seconds are usual."""

_MICROSECONDS = 1_000_000


@dataclass(slots=True)
class S3SweepReport(abilities.SweepReport):
    """What a sweep removed.

    Attributes:
        segments: Segments that no head named.
        markers: Markers that no head named.
        tombstones: Tombstones of deleted conversations.
    """

    segments: int = 0
    markers: int = 0
    tombstones: int = 0


def sweep(writer: S3Writer, *, now: float, grace: float) -> S3SweepReport:
    """Remove expired conversations and old leftovers.

    Args:
        writer: The writer.
        now: The time to compare with, in seconds since 1970 UTC.
        grace: The age of leftovers to remove, in seconds before `now`.
    """
    done, old = S3SweepReport(), now - grace
    _sweep_markers(writer, done, now, old)
    for segments in _group_segments(writer, None, old):
        found = writer.heads.peek(writer.names.head_at(segments[0].place))
        if isinstance(found, Damaged):
            done.damaged += 1
            continue
        content = found.living if found is not None else None
        named: set[str] = set()
        if content is not None:
            names = SegmentStore(writer.heads, content.head.key, content.incarnation)
            named.update(names.names_of(content.segments))
        left = [segment.name for segment in segments if segment.name not in named]
        writer.bucket.delete_all(left)
        done.segments += len(left)
    for batch in writer.bucket.list_batches(writer.names.heads()):  # finish interrupted deletes
        places = [
            place for entry in batch
            if (place := writer.names.parse_head(entry.name)) and entry.size < SMALLEST_HEAD and entry.modified < old
        ]  # fmt: skip
        for place, found in zip(places, writer.heads.peek_all(map(writer.names.head_at, places)), strict=True):
            if isinstance(found, Damaged):
                done.damaged += 1
            elif found is not None and isinstance(found.content, Tombstone):
                done.tombstones += writer.finish_delete(place, found.content, found.etag, stays=False) is None
    _remove_probes(writer, old)
    return done


def _sweep_markers(writer: S3Writer, done: S3SweepReport, now: float, old: float) -> None:
    """Remove markers without a conversation; and, since each conversation has a marker, expired conversations."""
    for batch in writer.bucket.list_batches(writer.names.markers()):
        parsed = [(entry, marker) for entry in batch if (marker := writer.names.parse_marker(entry.name))]
        heads = writer.heads.peek_all([writer.names.head_at(marker.place) for _, marker in parsed])
        left: list[str] = []
        present: list[HeadContent] = []
        for (entry, marker), found in zip(parsed, heads, strict=True):
            if isinstance(found, Damaged):
                done.damaged += 1
                continue
            content = found.living if found is not None else None
            if content is not None and content.marker == marker.time:
                present.append(content)
            # No head will refer to it again: the time of a marker only moves forward, and incarnations are not reused.
            is_stale = found is None or found.content.incarnation != marker.incarnation
            if entry.modified < old and (is_stale or (content is not None and marker.time > content.marker)):
                left.append(marker.name)
        writer.bucket.delete_all(left)
        done.markers += len(left)
        for content in present:
            revision = content.head.revision
            if revision.expires is not None and revision.expires <= now * _MICROSECONDS:
                with suppress(Conflict, CorruptRecord, UnsupportedRecord):  # somebody wrote to it meanwhile
                    done.expired += writer.delete(content.head.key, revision.version)


def _group_segments(writer: S3Writer, scope: str | None, old: float) -> Iterator[list[SegmentName]]:
    """Yield, for each place, the segments that are older than a time (seconds since 1970)."""
    entries = writer.bucket.list_objects(writer.names.segments(scope))
    parsed = ((entry, segment) for entry in entries if (segment := writer.names.parse_segment(entry.name)))
    for _, group in groupby(parsed, lambda pair: pair[1].place):
        if segments := [segment for entry, segment in group if entry.modified <= old]:
            yield segments


def _remove_probes(writer: S3Writer, old: float) -> int:
    """Remove probes of interrupted stores; a store that loses its probe makes another one."""
    entries = writer.bucket.list_objects(writer.names.probes())
    probes = [entry.name for entry in entries if entry.modified <= old and writer.names.is_probe(entry.name)]
    writer.bucket.delete_all(probes)
    return len(probes)


def remove_leftovers(writer: S3Writer, scope: str) -> Leftovers:
    """Remove leftovers, as `BaseStore._remove_leftovers` describes.

    Args:
        writer: The writer.
        scope: The scope.

    Raises:
        StoreRejected: The account may not list the bucket.
    """
    names, any_age = writer.names, float("inf")
    removed = 0
    for batch in writer.bucket.list_batches(names.heads(scope)):  # unreadable heads, with all objects of theirs
        places = [place for entry in batch if (place := names.parse_head(entry.name))]
        for place, found in zip(places, writer.heads.peek_all(map(names.head_at, places)), strict=True):
            if isinstance(found, Damaged):
                removed += writer.delete_damaged(found.where)
            elif found is not None and isinstance(found.content, Tombstone):  # of an interrupted delete
                writer.finish_delete(place, found.content, found.etag, stays=True)
    for segments in _group_segments(writer, scope, any_age):
        if _remove_absent(writer, segments[0].place, segments[0].incarnation):
            removed += len(segments)
    removed += _remove_markers(writer, scope)
    removed += _remove_probes(writer, any_age)
    left = {damaged.where for damaged in list_damaged_keys(writer.heads, scope)}
    for prefix in (names.segments(scope), names.markers(scope)):
        left |= {entry.name for entry in writer.bucket.list_objects(prefix)}
    for batch in writer.bucket.list_batches(names.heads(scope)):
        small = [entry.name for entry in batch if entry.size == TOMBSTONE_SIZE]
        heads = zip(small, writer.heads.peek_all(small), strict=True)
        tombstones = {
            name for name, found in heads if isinstance(found, S3StoredHead) and isinstance(found.content, Tombstone)
        }
        left |= {entry.name for entry in batch if entry.name not in tombstones}  # they have no text
    return Leftovers(removed, tuple(sorted(left)), complete=not left)


def _remove_markers(writer: S3Writer, scope: str) -> int:
    """Remove markers that no head refers to, and to which no writer is about to refer."""
    removed = 0
    for batch in writer.bucket.list_batches(writer.names.markers(scope)):
        markers = [marker for entry in batch if (marker := writer.names.parse_marker(entry.name))]
        heads = writer.heads.peek_all([writer.names.head_at(marker.place) for marker in markers])
        left: list[str] = []
        for marker, found in zip(markers, heads, strict=True):
            content = found.living if isinstance(found, S3StoredHead) else None
            if content is None:
                is_stale = _remove_absent(writer, marker.place, marker.incarnation)
            else:
                is_stale = content.incarnation != marker.incarnation or marker.time > content.marker
            if is_stale:
                left.append(marker.name)
        writer.bucket.delete_all(left)
        removed += len(left)
    return removed


def _remove_absent(writer: S3Writer, place: str, incarnation: str) -> bool:
    """Remove all segments at a place, with a tombstone that stays; return False if there is a conversation by now."""
    name = writer.names.head_at(place)
    found = writer.heads.peek(name)
    if isinstance(found, Damaged):
        return writer.delete_damaged(name)
    if found is None:
        tombstone = Tombstone(incarnation, UNKNOWN_TIME, new_token())
        try:
            found = S3StoredHead(tombstone, writer.bucket.create(name, encode_head(tombstone)))
        except PreconditionFailed:
            return False
    if not isinstance(found.content, Tombstone):
        return False
    return writer.finish_delete(place, found.content, found.etag, stays=True) is not None
