"""Segments: storing records when the head's object is full, merging segments, and fetching records.

A full tail becomes a segment. Segments are merged into the next one, so that there are never many: short ones, so that
the newest messages are in one or two; and sixteen small ones, so that there is about one for each 4 MiB. Each record is
moved about three times in its life.

A segment with a wrong number of lines, or one that cannot be read, is not merged. Only a forget within such a segment
moves its lines: the sound lines as they are, and a mark in place of each other line.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from chathistory.errors import CorruptRecord, StoreError
from chathistory.storage.values import Key, Record
from chathistory_s3.errors import ObjectMissing, ObjectUnavailable, refuse_unavailable
from chathistory_s3.heads import Heads
from chathistory_s3.lines import LF, read_records, split_lines
from chathistory_s3.names import new_token, object_path
from chathistory_s3.schema import HeadContent, S3Segment

__all__ = ["Part", "Placement", "SegmentMissing", "SegmentStore", "count_segments_to_merge", "split_into_parts"]

KIB, MIB = 1024, 1024 * 1024
MAX_TAIL_SIZE = 128 * KIB
"""The most bytes of records in the head's object; a larger append is stored in segments immediately."""

_MIN_RECORDS = 20  # a segment with fewer records is merged into the next one,
_MAX_SHORT_SIZE = MIB  # if they have at most this many bytes together
_MERGE_COUNT, _MERGE_BELOW = 16, 4 * MIB  # this many segments below this size are merged, the new one included
_MAX_SEGMENT_SIZE = 64 * MIB  # the most bytes of a segment; one record may be larger
_BLOCK_SIZE = 256 * KIB  # the most bytes of a block in a small segment; one record may be larger
_BLOCK_COUNT = 8  # a larger segment has about this many blocks
_MAX_REQUEST_SIZE = 8 * MIB  # the most bytes to fetch in one request; one block may be larger


class SegmentMissing(Exception):  # not yet an error: the head may have changed
    """A segment that the head refers to does not exist."""


@dataclass(frozen=True, slots=True)
class Placement:
    """The new places of the records of a conversation.

    Attributes:
        segments: The segments for the new head.
        tail_start: The position of the first record in the head's object.
        tail: The lines in the head's object.
        created: The segments that were stored for this.
        obsolete: The segments that the new head no longer refers to.
    """

    segments: tuple[S3Segment, ...]
    tail_start: int
    tail: bytes
    created: tuple[S3Segment, ...] = ()
    obsolete: tuple[S3Segment, ...] = ()

    def apply(self, content: HeadContent) -> HeadContent:
        """Return the content of a head with the new places of the records."""
        return replace(content, segments=self.segments, tail_start=self.tail_start, tail=self.tail)


@dataclass(frozen=True, slots=True)
class Part:
    """Consecutive blocks of a segment.

    Attributes:
        segment: The segment.
        offset: The offset of the first byte.
        size: The size in bytes.
        first: The position of the first record.
        end: The position after the last record.
    """

    segment: S3Segment
    offset: int
    size: int
    first: int
    end: int


def count_segments_to_merge(segments: Sequence[S3Segment], *, size: int) -> int:
    """Return how many of the last segments to merge into a new one.

    Args:
        segments: The segments of the conversation.
        size: The bytes of the new segment.
    """
    rest = list(segments)
    while rest and rest[-1].end - rest[-1].first < _MIN_RECORDS and rest[-1].size + size <= _MAX_SHORT_SIZE:
        size += rest.pop().size
    run = next((at for at, segment in enumerate(reversed(rest)) if segment.size >= _MERGE_BELOW), len(rest))
    if run >= _MERGE_COUNT - 1 and sum(segment.size for segment in rest[-run:]) + size <= _MAX_SEGMENT_SIZE:
        del rest[-run:]
    return len(segments) - len(rest)


def split_into_parts(segments: Sequence[S3Segment], low: int, high: int) -> Iterator[Part]:
    """Yield the parts of segments with the records of a range, in order, each small enough for one request.

    Args:
        segments: The segments.
        low: The first position.
        high: The position after the last one.
    """
    for segment in segments:
        part: Part | None = None
        offset = 0
        ends = [first for first, _ in segment.blocks[1:]] + [segment.end]
        for (first, size), end in zip(segment.blocks, ends, strict=True):
            if first < high and end > low:
                if part is not None and part.size + size <= _MAX_REQUEST_SIZE:
                    part = replace(part, size=part.size + size, end=end)
                else:
                    if part is not None:
                        yield part
                    part = Part(segment, offset, size, first, end)
            offset += size
        if part is not None:
            yield part


def _split_by_size(lines: Sequence[bytes], first: int, most: int) -> Iterator[tuple[int, Sequence[bytes]]]:
    """Yield groups of lines, each with the position of its first line: at most `most` bytes, or one line."""
    begun = size = 0
    for at, line in enumerate(lines):
        if at > begun and size + len(line) > most:
            yield first + begun, lines[begun:at]
            begun, size = at, 0
        size += len(line)
    yield first + begun, lines[begun:]


class SegmentStore:
    """The segments of one incarnation of a conversation."""

    def __init__(self, heads: Heads, key: Key, incarnation: str) -> None:
        self.key = key
        self._bucket = heads.bucket
        self._folder = heads.names.segments_at(object_path(key), incarnation)

    def name_of(self, segment: S3Segment) -> str:
        """Return the name of the object of a segment."""
        return self._folder + segment.name

    def names_of(self, segments: Sequence[S3Segment]) -> list[str]:
        """Return the names of the objects of segments."""
        return [self.name_of(segment) for segment in segments]

    def add_lines(self, content: HeadContent, new: list[bytes]) -> Placement:
        """Append lines, and store the segments that this needs.

        Args:
            content: The current head.
            new: The lines to append.

        Returns:
            The places of all records.
        """
        size, end = sum(map(len, new)), content.head.end
        lines = split_lines(content.tail, content.tail_start, end)
        tail = b"".join(lines)
        if len(tail) + size <= MAX_TAIL_SIZE:
            return Placement(content.segments, content.tail_start, tail + b"".join(new))
        if size > MAX_TAIL_SIZE:
            lines, new, end = [*lines, *new], [], end + len(new)
        count = count_segments_to_merge(content.segments, size=sum(map(len, lines)))
        kept = content.segments[: len(content.segments) - count]
        merged = content.segments[len(kept) :]
        try:
            lines = [*self._load_lines(merged), *lines]
        except (SegmentMissing, StoreError):  # an append must not fail because of a merge: damage stays in its segment
            kept, merged = content.segments, ()
        created = self._store_lines(lines, merged[0].first if merged else content.tail_start)
        return Placement((*kept, *created), end, b"".join(new), created, merged)

    def drop_below(self, content: HeadContent, start: int, *, missing_is_damage: bool) -> Placement:
        """Drop the records below a position, and store the rest of the segment with that position as a new segment.

        Args:
            content: The current head.
            start: The first position to keep.
            missing_is_damage: Whether a missing segment is lost; False if another writer may have moved it.

        Returns:
            The places of the records that are left.

        Raises:
            SegmentMissing: The segment does not exist, unless `missing_is_damage`.
        """
        if start >= content.tail_start:
            lines = split_lines(content.tail, content.tail_start, content.head.end)
            tail = b"".join(lines[start - content.tail_start :])
            return Placement((), start, tail, (), content.segments)
        kept = tuple(segment for segment in content.segments if segment.first >= start)
        obsolete = content.segments[: len(content.segments) - len(kept)]
        created: tuple[S3Segment, ...] = ()
        if not kept or kept[0].first > start:
            cut = obsolete[-1]
            try:
                lines = self._load_lines([cut], start, missing_is_damage=missing_is_damage)
            except CorruptRecord:
                lines = self._load_damaged(cut)[start - cut.first :]
            created = self._store_lines(lines, start)
        return Placement((*created, *kept), content.tail_start, content.tail, created, obsolete)

    def _load_lines(
        self, segments: Sequence[S3Segment], start: int = 0, *, missing_is_damage: bool = False
    ) -> list[bytes]:
        """Return the lines of consecutive segments, from position `start` on.

        Raises `SegmentMissing`, and `CorruptRecord` if the number of lines is wrong.
        """
        parts = list(split_into_parts(segments, start, segments[-1].end)) if segments else []
        lines: list[bytes] = []
        for part, data in zip(parts, self.fetch(parts, missing_is_damage=missing_is_damage), strict=True):
            if data.count(LF) != part.end - part.first or not data.endswith(LF):
                raise CorruptRecord(self.key, part.first, "its segment has a wrong number of lines")
            lines += split_lines(data, part.first, part.end)
        return lines[max(start - parts[0].first, 0) :] if parts else []

    def _load_damaged(self, segment: S3Segment) -> list[bytes]:
        """Return one line for each position of a damaged segment, with marks in place of lost lines."""
        name = self.name_of(segment)
        try:
            data, _ = self._bucket.get(name)
        except ObjectMissing:
            data = b""
        except ObjectUnavailable as unavailable:  # continuing would lose its records
            raise refuse_unavailable(name, unavailable) from unavailable.__cause__
        return split_lines(data, segment.first, segment.end)

    def _store_lines(self, lines: Sequence[bytes], first: int) -> tuple[S3Segment, ...]:
        """Store lines as new segments, which the head does not refer to yet."""
        created: list[S3Segment] = []
        puts: list[partial[str]] = []
        for at, group in _split_by_size(lines, first, _MAX_SEGMENT_SIZE):
            most = max(_BLOCK_SIZE, sum(map(len, group)) // _BLOCK_COUNT)
            blocks = tuple((begin, sum(map(len, block))) for begin, block in _split_by_size(group, at, most))
            created.append(S3Segment(at + len(group), new_token(), blocks))
            puts.append(partial(self._bucket.put, self.name_of(created[-1]), b"".join(group)))
        self._bucket.run_parallel(puts)
        return tuple(created)

    def fetch(self, parts: Sequence[Part], *, missing_is_damage: bool) -> list[bytes]:
        """Fetch parts in parallel.

        Args:
            parts: The parts.
            missing_is_damage: Whether a missing segment is lost; False if another writer may have moved it.

        Returns:
            The bytes of each part; b"" for one that is lost.

        Raises:
            SegmentMissing: A segment does not exist, unless `missing_is_damage`.
        """

        def fetch_part(part: Part) -> bytes:
            whole = part.size == part.segment.size
            try:
                return self._bucket.get(
                    self.name_of(part.segment), offset=part.offset, size=None if whole else part.size
                )[0]
            except ObjectMissing:
                if not missing_is_damage:
                    raise SegmentMissing from None
            except ObjectUnavailable:
                pass
            return b""

        return self._bucket.run_parallel([partial(fetch_part, part) for part in parts])

    def parse_part(self, part: Part, data: bytes, low: int, high: int) -> list[Record]:
        """Return the records of the positions [low, high) that are in a part.

        If one of them is damaged, searches the whole segment: bytes that were inserted or removed elsewhere in it have
        moved its lines.

        Args:
            part: The part.
            data: Its bytes.
            low: The first position.
            high: The position after the last one.

        Raises:
            CorruptRecord: At the first damaged record.
        """
        low, high = max(low, part.first), min(high, part.end)
        segment = part.segment
        try:
            return read_records(data, self.key, part.first, part.end, low=low, high=high)
        except CorruptRecord:
            if part.size == segment.size:
                raise
            try:
                data, _ = self._bucket.get(self.name_of(segment))
            except (ObjectMissing, ObjectUnavailable):
                raise CorruptRecord(self.key, low, "its segment is missing") from None
        return read_records(data, self.key, segment.first, segment.end, low=low, high=high)
