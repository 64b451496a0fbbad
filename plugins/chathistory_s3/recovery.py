"""The remains of a conversation with a damaged head, and a new head for it.

The position of a line can be computed from its checksum, so all sound records are found: in the object of the head,
whatever its first line has become, and in segments. The head referred to the segments with names that can still be
found in its bytes. If none can, any segment of the conversation may have a record, the newest first.

For a new head, all records are stored again, in segments of another incarnation, and the old segments are removed after
it. So a writer that has seen the old head can never interfere. A damaged record leaves a mark in its place.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import pairwise
from zlib import crc32

from chathistory.errors import Conflict, CorruptRecord, UnsupportedRecord
from chathistory.storage.abilities import FoundRecords
from chathistory.storage.values import Head, Key, Record
from chathistory_s3.bucket import ListedObject
from chathistory_s3.errors import ObjectMissing, ObjectUnavailable, PreconditionFailed, refuse_unavailable
from chathistory_s3.heads import OTHER_CONVERSATION, S3StoredHead
from chathistory_s3.lines import DAMAGED, SHORTEST, Tail, encode_line, find_sound_bodies, find_tail
from chathistory_s3.names import UNKNOWN_TIME, SegmentName, new_token, object_path
from chathistory_s3.schema import HeadContent, Tombstone, encode_head, find_tokens
from chathistory_s3.segments import SegmentStore
from chathistory_s3.write import S3Writer

__all__ = ["find_records", "read_found", "restore_head"]

_STARTS = (
    re.compile(rb'"start":([0-9]{1,18}),'),
    re.compile(rb'"segments":\[\[[0-9]{1,18},"[0-9a-f]{16}",\[\[([0-9]{1,18}),'),
    re.compile(rb'"tail":\[([0-9]{1,18}),[0-9]+\],"segments":\[\]'),
)
_TAIL_STARTS = ((re.compile(rb'"tail":\[([0-9]{1,18}),'), 0), (re.compile(rb'"end":([0-9]{1,18})[,}]'), 1))
_HEAD = re.compile(rb'[0-9a-f]{8} \{"v":[0-9]+,"scope":"[^\n]*?"incarnation":"[0-9a-f]{16}"[^\n]*?"segments":\[')
_HEAD_SEARCH_SIZE = 1024 * 1024  # bytes at the beginning of a damaged head that are searched for positions


@dataclass(frozen=True, slots=True)
class _FoundSegment:
    """A segment in a listing; `is_named` is True if its name is found in the bytes of the head."""

    name: str
    first: int
    size: int
    is_named: bool

    @property
    def limit(self) -> int:
        """The position after the last one that it can have."""
        return self.first + self.size // SHORTEST


@dataclass(frozen=True, slots=True)
class _StoredRemains:
    """Everything that is stored under a key.

    Attributes:
        etag: The ETag of the head's object; "" if that does not exist.
        content: The head if it is sound.
        error: The error of a damaged head.
        incarnation: The incarnation of the conversation, or the most likely one.
        marker: The time of its marker.
        segments: The segments of this incarnation; first those with a name in the bytes of the head.
        all_segments: The names of the segments of all incarnations.
        tail_start: The position of the first record in the object of the head.
        tail: The sound records in that object, by position.
        starts: The conversation's first position, if a damaged head still contains it in two places; else empty.
    """

    etag: str
    content: HeadContent | None
    error: CorruptRecord | UnsupportedRecord | None
    incarnation: str
    marker: str
    segments: tuple[_FoundSegment, ...]
    all_segments: tuple[str, ...]
    tail_start: int = 0
    tail: dict[int, str] = field(default_factory=dict, repr=False)
    starts: tuple[int, ...] = ()


def find_records(writer: S3Writer, key: Key) -> FoundRecords | None:
    """Return the range of sound records, as `HeadRecovery.find_records` describes.

    Args:
        writer: The writer.
        key: The conversation.

    Raises:
        StoreRejected: An object is archived, or encrypted with a disabled key, and may become readable again.
    """
    remains = _load_remains(writer, key)
    if remains is None:
        return None
    if remains.content is not None:
        head = remains.content.head
        return FoundRecords(key, remains.etag, head.start, head.end, None)
    start = min([segment.first for segment in remains.segments] + [remains.tail_start, *remains.starts])
    end = max(remains.tail, default=-1) + 1 or _find_end(writer, remains.segments, start)
    problem = "there is no head: it was removed, or a first append was interrupted"
    if isinstance(remains.error, CorruptRecord):
        problem = remains.error.reason
    elif remains.error is not None:
        problem = f"another version of this library wrote it, in format {remains.error.version}"
    return FoundRecords(key, remains.etag, start, end, problem)


def _find_end(writer: S3Writer, segments: Sequence[_FoundSegment], start: int) -> int:
    """Return the position after the last sound record in segments; `start` if they have no sound record."""
    end, is_found = start, False
    for segment in sorted(segments, key=lambda each: each.first, reverse=True):
        if segment.limit <= end or (segment.is_named and is_found):
            continue  # segments that the head refers to do not overlap
        sound = _load_sound(writer, segment)
        end = max([end, *(position + 1 for position in sound)])
        is_found = is_found or (segment.is_named and bool(sound))
    return end


def read_found(writer: S3Writer, found: FoundRecords, *, start: int, stop: int) -> Sequence[Record]:
    """Return the sound records of a range, as `HeadRecovery.read_found` describes.

    Args:
        writer: The writer.
        found: The result of `find_records`.
        start: The first position.
        stop: The position after the last one.
    """
    remains = _load_remains(writer, found.key)
    if remains is None:
        return []
    low, high = max(start, found.start), min(stop, found.end)
    sound = _load_sound_between(writer, remains, low, high)
    return [Record(position, sound[position]) for position in range(low, high) if position in sound]


def restore_head(writer: S3Writer, found: FoundRecords, head: Head) -> Head:
    """Store a new head, as `HeadRecovery.restore_head` describes.

    Args:
        writer: The writer.
        found: The result of `find_records`.
        head: The new head.

    Returns:
        The new head.

    Raises:
        Conflict: The head's object has changed since `find_records`.
        UnsupportedRecord: A later version wrote the head.
        StoreRejected: An object is archived, or encrypted with a disabled key, and may become readable again.
    """
    key = found.key
    remains = _load_remains(writer, key)
    if remains is None or remains.etag != found.token:
        raise Conflict(key, _load_head(writer, key))
    if isinstance(remains.error, UnsupportedRecord):
        raise remains.error
    old = remains.content
    if old is not None and (old.head.start, old.head.end) == (head.start, head.end):
        return _put_head(writer, remains, replace(old, head=head), [])
    if not remains.etag:  # an object must exist while the segments are stored: see `write`
        try:
            tombstone = Tombstone(new_token(), UNKNOWN_TIME, new_token())
            remains = replace(remains, etag=writer.bucket.create(writer.names.head(key), encode_head(tombstone)))
        except PreconditionFailed:
            raise Conflict(key, _load_head(writer, key)) from None
    # Store all records again, about a segment at a time, and then the head that refers to them.
    content = HeadContent(replace(head, end=head.start), new_token(), "", (), head.start, fenced=True)
    segments = SegmentStore(writer.heads, key, content.incarnation)
    firsts = {segment.first for segment in remains.segments} | {remains.tail_start}
    inner = sorted(first for first in firsts if head.start < first < head.end)
    obsolete: list[str] = []
    for low, high in pairwise([head.start, *inner, head.end]):
        sound = _load_sound_between(writer, remains, low, high)
        lines = [encode_line(sound[at], at) if at in sound else DAMAGED for at in range(low, high)]
        placement = segments.add_lines(content, lines)
        obsolete += segments.names_of(placement.obsolete)
        content = placement.apply(replace(content, head=replace(content.head, end=high)))
    return _put_head(writer, remains, content, obsolete)


def _put_head(writer: S3Writer, remains: _StoredRemains, content: HeadContent, obsolete: list[str]) -> Head:
    """Replace the head that was found with a new one, and remove the objects that it no longer refers to."""
    key, place = content.head.key, object_path(content.head.key)
    content = replace(content, marker=writer.next_marker(content.marker, content.head.revision), writer=new_token())
    marker = writer.names.marker(place, content.marker, content.incarnation)
    writer.bucket.put(marker, b"")
    named = set(SegmentStore(writer.heads, key, content.incarnation).names_of(content.segments))
    try:
        writer.heads.put(key, content, over=S3StoredHead(content, remains.etag))
    except PreconditionFailed as lost:
        current = _load_head(writer, key)
        if lost.uncertain and current == content.head:
            return content.head
        if not lost.uncertain and content.incarnation != remains.incarnation:
            writer.bucket.delete_all([*named, *obsolete, marker])
        raise Conflict(key, current) from None
    obsolete += [name for name in remains.all_segments if name not in named]
    old_marker = writer.names.marker(place, remains.marker, remains.incarnation)
    writer.remove_unnamed([*obsolete, *({old_marker} - {marker})])
    return content.head


def _load_head(writer: S3Writer, key: Key) -> Head | None:
    """Return the current head; None if it does not exist or cannot be read."""
    with suppress(CorruptRecord, UnsupportedRecord):
        stored = writer.heads.load(key)
        return stored.living.head if stored is not None and stored.living is not None else None
    return None


def _load_remains(writer: S3Writer, key: Key) -> _StoredRemains | None:
    """Return everything that is stored under a key; None if that is nothing, or only a tombstone."""
    name = writer.names.head(key)
    listed = writer.bucket.list_objects(writer.names.segments_at(object_path(key)))
    entries = [(entry, segment) for entry in listed if (segment := writer.names.parse_segment(entry.name))]
    all_segments = tuple(entry.name for entry, _ in entries)
    error: CorruptRecord | UnsupportedRecord | None = None
    content: HeadContent | Tombstone | None = None
    data, etag = b"", ""
    try:
        data, etag = writer.bucket.get(name)
        content = writer.heads.decode(data, name, key)
    except ObjectMissing:
        if not entries:
            return None
    except ObjectUnavailable as unavailable:
        raise refuse_unavailable(name, unavailable) from unavailable.__cause__
    except (CorruptRecord, UnsupportedRecord) as problem:
        error = problem
    if isinstance(content, Tombstone):
        return None
    if content is not None:
        segments = _sort_segments(entries, data, content.incarnation)
        tail = find_sound_bodies(content.tail, content.tail_start, content.head.end)
        return _StoredRemains(etag, content, None, content.incarnation, content.marker, segments, all_segments,
                        content.tail_start, tail)  # fmt: skip
    incarnation, marker = find_tokens(data)
    if entries and not any(segment.incarnation == incarnation for _, segment in entries):
        _, newest = max(entries, key=lambda pair: pair[0].modified)
        incarnation = newest.incarnation
    segments = _sort_segments(entries, data, incarnation or "")
    found = _find_tail(writer, segments, data, error)
    tail_start = found.first if found is not None else max((segment.first for segment in segments), default=0)
    return _StoredRemains(etag, None, error, incarnation or new_token(), marker or UNKNOWN_TIME, segments, all_segments,
                    tail_start, found.bodies if found is not None else {}, _find_starts(data))  # fmt: skip


def _sort_segments(
    entries: Sequence[tuple[ListedObject, SegmentName]], data: bytes, incarnation: str
) -> tuple[_FoundSegment, ...]:
    """Return the segments of an incarnation; first those with a name in the bytes of the head."""
    own: list[tuple[float, _FoundSegment]] = []
    for entry, segment in entries:
        if segment.incarnation == incarnation:
            is_named = entry.name.rpartition("-")[2].encode() in data
            own.append((entry.modified, _FoundSegment(entry.name, segment.first, entry.size, is_named)))
    own.sort(key=lambda pair: (not pair[1].is_named, -pair[1].first, -pair[0]))
    return tuple(segment for _, segment in own)


def _find_tail(
    writer: S3Writer, segments: Sequence[_FoundSegment], data: bytes, error: CorruptRecord | UnsupportedRecord | None
) -> Tail | None:
    """Return the records in the object of a damaged head, unless it holds another conversation."""
    if isinstance(error, CorruptRecord) and error.reason == OTHER_CONVERSATION:
        return None
    guesses = [
        int(match[1]) - back for pattern, back in _TAIL_STARTS for match in pattern.finditer(data[:_HEAD_SEARCH_SIZE])
    ]
    line = data.partition(b"\n")[0]
    if line[:9] == b"%08x " % crc32(line[9:]):  # the head: its line looks like the line of a record at position 0
        data = data[len(line) :]
    data = _HEAD.sub(b"", data)
    tail = find_tail(data, [guess for guess in guesses if guess >= 0])
    if tail is None and segments and data:
        return find_tail(data, [_find_end(writer, segments, 0)])
    return tail


def _find_starts(data: bytes) -> tuple[int, ...]:
    """Return the conversation's first position if a damaged head has it twice: as `start`, and of its first segment."""
    start, *firsts = (pattern.search(data[:_HEAD_SEARCH_SIZE]) for pattern in _STARTS)
    found = {int(match[1]) for match in (start, *firsts) if match is not None}
    return tuple(found) if start is not None and any(firsts) and len(found) == 1 else ()


def _load_sound_between(writer: S3Writer, remains: _StoredRemains, low: int, high: int) -> dict[int, str]:
    """Return the sound records of the positions [low, high), by position."""
    sound = {position: remains.tail[position] for position in range(low, high) if position in remains.tail}
    missing = set(range(low, high)) - set(sound)
    for segment in remains.segments:
        if not any(segment.first <= position < segment.limit for position in missing):
            continue
        found = _load_sound(writer, segment)
        sound |= {position: found[position] for position in missing if position in found}
        missing -= set(found)
        if found and segment.is_named:  # its lost records are nowhere else
            missing -= set(range(min(found), max(found)))
    return sound


def _load_sound(writer: S3Writer, segment: _FoundSegment) -> dict[int, str]:
    """Return the sound records of a segment, by position."""
    try:
        data, _ = writer.bucket.get(segment.name)
    except ObjectMissing:
        return {}
    except ObjectUnavailable as unavailable:
        raise refuse_unavailable(segment.name, unavailable) from unavailable.__cause__
    return find_sound_bodies(data, segment.first, segment.limit)
