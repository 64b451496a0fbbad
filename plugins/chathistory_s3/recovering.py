"""What is left of a conversation whose head is damaged, and a new head for it.

Each line tells its position by its checksum, so all sound records are found: those in the object of the head, whatever
its first line has become, and those in segments. Which segments the head named is told by their names, which still
stand in its bytes; where they do not, any segment of the conversation may have a record, the newest first.

A new head gets all records anew: in segments of another incarnation, made before it, and the old ones are removed after
it. So a writer who has seen the old one can never mix with it. What is damaged leaves a mark in its place.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import pairwise
from zlib import crc32

from chathistory.errors import Conflict, CorruptRecord, UnsupportedRecord
from chathistory.storage.recovery import FoundRecords
from chathistory.storage.store import Head, Key, Record
from chathistory_s3.bucket import Listed
from chathistory_s3.content import Content, Grave, encoded, told_tokens
from chathistory_s3.faults import Missing, Overtaken, Withheld, not_given
from chathistory_s3.heads import ANOTHER, Found
from chathistory_s3.layout import first_of, place_of, token
from chathistory_s3.lines import DAMAGED, SHORTEST, Tail, find_sound, find_tail, line_of
from chathistory_s3.segments import Shelf, grown
from chathistory_s3.writing import NO_TIME, Writer

__all__ = ["find_records", "read_found", "restore_head"]


@dataclass(frozen=True, slots=True)
class _Segment:
    """A segment as a listing has it. `named`: the head names it, as far as that can be read."""

    object: str
    first: int
    size: int
    modified: float
    named: bool

    def may_have(self, position: int) -> bool:
        """Tell whether it is large enough to have the record of a position."""
        return self.first <= position < self.first + self.size // SHORTEST


@dataclass(frozen=True, slots=True)
class _Remains:
    """What is stored under a key. `content` is the head if it is sound; `error` is what is wrong with it.

    `tail` are the sound records in the object of the head, and `edge` is where that one's records begin. `told_start`
    has the first position of all, if a damaged head still says so in two places.
    """

    etag: str
    content: Content | None
    error: CorruptRecord | UnsupportedRecord | None
    incarnation: str
    marker: str
    segments: tuple[_Segment, ...]
    all_segments: tuple[str, ...]
    edge: int = 0
    tail: dict[int, str] = field(default_factory=dict, repr=False)
    told_start: tuple[int, ...] = ()


def find_records(writer: Writer, key: Key) -> FoundRecords | None:
    """Look as `HeadRecovery.find_records` says."""
    remains = _look(writer, key)
    if remains is None:
        return None
    if remains.content is not None:
        head = remains.content.head
        return FoundRecords(key, remains.etag, head.start, head.end, None)
    start = min([segment.first for segment in remains.segments] + [remains.edge, *remains.told_start])
    end = max(remains.tail, default=-1) + 1 or _last_in_segments(writer, remains, start)
    return FoundRecords(key, remains.etag, start, end, _problem(remains.error))


def _problem(error: CorruptRecord | UnsupportedRecord | None) -> str:
    if isinstance(error, CorruptRecord):
        return error.reason
    if error is not None:
        return f"a later version of this library wrote it, with format {error.version}"
    return "there is none: it was removed, or a first append broke off"


def _last_in_segments(writer: Writer, remains: _Remains, start: int) -> int:
    """Return one above the last position of a sound record in a segment; `start` if there is none."""
    last, done = start, False
    for segment in sorted(remains.segments, key=lambda each: each.first, reverse=True):
        if segment.first + segment.size // SHORTEST <= last or (segment.named and done):
            continue  # those that the head names follow one another
        found = _sound_in(writer, segment)
        last = max([last, *(position + 1 for position in found)])
        done = done or (segment.named and bool(found))
    return last


def read_found(writer: Writer, found: FoundRecords, *, start: int, stop: int) -> Sequence[Record]:
    """Read as `HeadRecovery.read_found` says."""
    remains = _look(writer, found.key)
    if remains is None:
        return []
    low, high = max(start, found.start), min(stop, found.end)
    sound = _sound_between(writer, remains, low, high)
    return [Record(position, sound[position]) for position in range(low, high) if position in sound]


def restore_head(writer: Writer, found: FoundRecords, head: Head) -> Head:
    """Store a new head as `HeadRecovery.restore_head` says."""
    key = found.key
    remains = _look(writer, key)
    if remains is None or remains.etag != found.token:
        raise Conflict(key, _present(writer, key))
    if isinstance(remains.error, UnsupportedRecord):
        raise remains.error
    old = remains.content
    if old is not None and (old.head.start, old.head.end) == (head.start, head.end):
        return _put(writer, remains, replace(old, head=head), [])
    name = writer.layout.head(key)
    if not remains.etag:  # an object has to be there while the segments are made: see `writing`
        try:
            grave = Grave(token(), NO_TIME, token())
            remains = replace(remains, etag=writer.bucket.create(name, encoded(grave)))
        except Overtaken:
            raise Conflict(key, _present(writer, key)) from None
    return _rebuild(writer, remains, head)


def _rebuild(writer: Writer, remains: _Remains, head: Head) -> Head:
    """Store all records anew, segment by segment, and then the head that names them."""
    content = Content(replace(head, end=head.start), token(), "", (), head.start, fenced=True)
    shelf = Shelf(writer.bucket, writer.layout, head.key, content.incarnation)
    left: list[str] = []
    for low, high in _portions(remains, head):
        sound = _sound_between(writer, remains, low, high)
        lines = [line_of(sound[at], at) if at in sound else DAMAGED for at in range(low, high)]
        changed = grown(shelf, content, lines)
        left += [shelf.object(segment) for segment in changed.left]
        content = replace(content, head=replace(content.head, end=high), segments=changed.segments,
                          edge=changed.edge, tail=changed.tail)  # fmt: skip
    return _put(writer, remains, content, left)


def _portions(remains: _Remains, head: Head) -> Iterator[tuple[int, int]]:
    """Yield ranges that make up that of the head, each with the records of about one segment."""
    firsts = {segment.first for segment in remains.segments} | {remains.edge}
    inner = sorted(first for first in firsts if head.start < first < head.end)
    return pairwise([head.start, *inner, head.end] if head.start < head.end else [])


def _put(writer: Writer, remains: _Remains, content: Content, left: list[str]) -> Head:
    """Put a head in the place of what was found there, and remove what it no longer names."""
    key, place = content.head.key, place_of(content.head.key)
    time = writer.next_marker(content.marker, content.head.revision)
    content = replace(content, marker=time, writer=token())
    marker = writer.layout.marker_at(place, time, content.incarnation)
    writer.bucket.put(marker, b"")
    named = {writer.layout.segment(key, content.incarnation, segment.name) for segment in content.segments}
    try:
        writer.heads.put(key, content, over=Found(content, remains.etag))
    except Overtaken as lost:
        present = _present(writer, key)
        if lost.uncertain and present == content.head:
            return content.head
        if not lost.uncertain and content.incarnation != remains.incarnation:
            writer.bucket.remove_all([*named, *left, marker])
        raise Conflict(key, present) from None
    old = writer.layout.marker_at(place, remains.marker, remains.incarnation)
    writer.tidy([*left, *(name for name in remains.all_segments if name not in named), *({old} - {marker})])
    return content.head


def _present(writer: Writer, key: Key) -> Head | None:
    with suppress(CorruptRecord, UnsupportedRecord):
        found = writer.heads.look(key)
        return found.content.head if found is not None and isinstance(found.content, Content) else None
    return None


def _look(writer: Writer, key: Key) -> _Remains | None:
    """Return what is stored under a key; None: nothing is, or the grave of a deleted conversation."""
    name = writer.layout.head(key)
    entries = [entry for entry in writer.bucket.listed(writer.layout.segments_below(place_of(key)))
               if writer.layout.incarnation_of_segment(entry.object)]  # fmt: skip
    try:
        raw = writer.bucket.get(name)
    except Missing:
        raw = None
    except Withheld as withheld:
        raise not_given(name, withheld) from withheld.__cause__
    if raw is None and not entries:
        return None
    data, etag = raw or (b"", "")
    error: CorruptRecord | UnsupportedRecord | None = None
    try:
        content = writer.heads.checked(data, key) if raw is not None else None
    except (CorruptRecord, UnsupportedRecord) as problem:
        content, error = None, problem
    if isinstance(content, Grave):
        return None
    if content is not None:
        segments = _segments(writer, entries, data, content.incarnation)
        tail = find_sound(content.tail, content.edge, content.head.end)
        tokens = content.incarnation, content.marker
        return _Remains(etag, content, None, *tokens, segments, _names(entries), content.edge, tail)
    told, marker = told_tokens(data)
    incarnation = _incarnation(writer, entries, told)
    segments = _segments(writer, entries, data, incarnation)
    remains = _Remains(etag, None, error, incarnation, marker or NO_TIME, segments, _names(entries),
                       told_start=_told_start(data))  # fmt: skip
    in_head = _tail(writer, remains, data)
    if in_head is None:
        return replace(remains, edge=max((segment.first for segment in segments), default=0))
    return replace(remains, edge=in_head.first, tail=in_head.bodies)


def _names(entries: Sequence[Listed]) -> tuple[str, ...]:
    return tuple(entry.object for entry in entries)


def _incarnation(writer: Writer, entries: Sequence[Listed], told: str | None) -> str:
    """Return the incarnation of a damaged conversation: what its head tells, or that of the newest segment."""
    newest = max(entries, key=lambda entry: entry.modified, default=None)
    known = {writer.layout.incarnation_of_segment(entry.object) for entry in entries}
    if newest is None or (told is not None and told in known):
        return told or token()
    return writer.layout.incarnation_of_segment(newest.object)


def _segments(writer: Writer, entries: Sequence[Listed], data: bytes, incarnation: str) -> tuple[_Segment, ...]:
    """Return the segments of an incarnation: those that the head names, by its bytes, before the others."""
    own = [entry for entry in entries if writer.layout.incarnation_of_segment(entry.object) == incarnation]
    found = [_Segment(entry.object, first_of(entry.object), entry.size, entry.modified,
                      entry.object.rpartition("-")[2].encode() in data) for entry in own]  # fmt: skip
    return tuple(sorted(found, key=lambda each: (not each.named, -each.first, -each.modified)))


def _tail(writer: Writer, remains: _Remains, data: bytes) -> Tail | None:
    """Return the records in the object of a damaged head, unless it is that of another conversation."""
    if isinstance(remains.error, CorruptRecord) and remains.error.reason == ANOTHER:
        return None
    told = [int(match[1]) - back for pattern, back in _EDGES for match in pattern.finditer(data[:_NEAR])]
    line = data.partition(b"\n")[0]
    if line[:9] == b"%08x " % crc32(line[9:]):  # the head's, whose checksum is like that of a record 0
        data = data[len(line) :]
    data = _HEAD.sub(b"", data)
    tail = find_tail(data, [edge for edge in told if edge >= 0])
    if tail is None and remains.segments and data:
        return find_tail(data, [_last_in_segments(writer, remains, 0)])
    return tail


def _told_start(data: bytes) -> tuple[int, ...]:
    """Return the first position of all if a damaged head says so twice: alone, and as that of its first segment."""
    start, *firsts = (pattern.search(data[:_NEAR]) for pattern in _STARTS)
    told = {int(match[1]) for match in (start, *firsts) if match is not None}
    return tuple(told) if start is not None and any(firsts) and len(told) == 1 else ()


_STARTS = (
    re.compile(rb'"start":([0-9]{1,18}),'),
    re.compile(rb'"segments":\[\[[0-9]{1,18},"[0-9a-f]{16}",\[\[([0-9]{1,18}),'),
    re.compile(rb'"tail":\[([0-9]{1,18}),[0-9]+\],"segments":\[\]'),
)
_EDGES = ((re.compile(rb'"tail":\[([0-9]{1,18}),'), 0), (re.compile(rb'"end":([0-9]{1,18})[,}]'), 1))
_HEAD = re.compile(rb'[0-9a-f]{8} \{"v":[0-9]+,"scope":"[^\n]*?"incarnation":"[0-9a-f]{16}"[^\n]*?"segments":\[')
_NEAR = 1024 * 1024


def _sound_between(writer: Writer, remains: _Remains, low: int, high: int) -> dict[int, str]:
    """Return the sound records of [low, high) by their positions."""
    sound = {position: remains.tail[position] for position in range(low, high) if position in remains.tail}
    missing = set(range(low, high)) - set(sound)
    for segment in remains.segments:
        if not any(segment.may_have(position) for position in missing):
            continue
        found = _sound_in(writer, segment)
        sound |= {position: found[position] for position in missing if position in found}
        missing -= set(found)
        if found and segment.named:  # what it had, and has no more, is nowhere else
            missing -= set(range(min(found), max(found)))
    return sound


def _sound_in(writer: Writer, segment: _Segment) -> dict[int, str]:
    try:
        data, _ = writer.bucket.get(segment.object)
    except Missing:
        return {}
    except Withheld as withheld:
        raise not_given(segment.object, withheld) from withheld.__cause__
    return find_sound(data, segment.first, segment.first + segment.size // SHORTEST)
