"""Where records go when the head's object is full, when segments are made into one, and how they are fetched.

A full tail becomes a segment. Segments are absorbed by the next one, so that there are never many: those that are
short, so that the newest messages are in one or two; and sixteen of about a size, so that their number grows with the
logarithm of the conversation. Each record is moved about three times in its life.

A damaged segment is left where it is: it is never absorbed. Only a forget that cuts through it moves its lines, the
sound ones as they are and a mark in the place of each of the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from chathistory.errors import CorruptRecord, StoreError
from chathistory.storage.store import Key, Record
from chathistory_s3.bucket import Bucket
from chathistory_s3.content import Content, Segment
from chathistory_s3.faults import Missing, Withheld, not_given
from chathistory_s3.layout import Layout, token
from chathistory_s3.lines import LF, one_per_position, read_records

__all__ = ["Changed", "Gone", "Part", "Shelf", "absorbed", "fetched", "grown", "parts_of", "records_of", "trimmed"]

KIB, MIB = 1024, 1024 * 1024
TAIL = 128 * KIB
"""Bytes of records in the head's object; one append may fill it alone, more goes into segments at once."""

_FEW, _SHORT = 20, MIB  # a segment of fewer records and bytes is absorbed by the next one
_FAN = 16
_TIERS = (512 * KIB, 4 * MIB)  # this many segments below such a size become one
_LARGEST = 64 * MIB
_BLOCK, _BLOCKS = 256 * KIB, 8  # a segment has up to so many blocks, of at least so many bytes
_PIECE = 8 * MIB  # bytes that are fetched in one request


class Gone(Exception):  # not an error yet: the head may have moved on
    """A segment that the head names is not there."""


@dataclass(frozen=True, slots=True)
class Changed:
    """The records in new places: what the head is to name, what was made for it, and what it no longer names."""

    segments: tuple[Segment, ...]
    edge: int
    tail: bytes
    made: tuple[Segment, ...] = ()
    left: tuple[Segment, ...] = ()


@dataclass(frozen=True, slots=True)
class Part:
    """A run of blocks within a segment: the records of [first, end)."""

    segment: Segment
    offset: int
    size: int
    first: int
    end: int


@dataclass(frozen=True, slots=True)
class Shelf:
    """Where the segments of one incarnation are."""

    bucket: Bucket
    layout: Layout
    key: Key
    incarnation: str

    def object(self, segment: Segment) -> str:
        """Return the object key of a segment."""
        return self.layout.segment(self.key, self.incarnation, segment.name)


def grown(shelf: Shelf, content: Content, new: list[bytes]) -> Changed:
    """Return where the records are with `new` lines behind them, having stored the segments for it."""
    size, end = sum(map(len, new)), content.head.end
    lines = one_per_position(content.tail, content.edge, end)
    tail = b"".join(lines)
    if len(tail) + size <= TAIL or (not tail and size <= TAIL):
        return Changed(content.segments, content.edge, tail + b"".join(new))
    if size > TAIL:
        lines, new, end = [*lines, *new], [], end + len(new)
    taken, before = _taken(shelf, content.segments, lines)
    first = taken[0].first if taken else content.edge
    made = stored(shelf, [*before, *lines], first)
    kept = content.segments[: len(content.segments) - len(taken)]
    return Changed((*kept, *made), end, b"".join(new), made, taken)


def _taken(shelf: Shelf, segments: tuple[Segment, ...], lines: list[bytes]) -> tuple[tuple[Segment, ...], list[bytes]]:
    """Return the segments that are made into one with the new lines, and their own lines."""
    count = absorbed(segments, size=sum(map(len, lines)))
    taken = segments[len(segments) - count :]
    try:
        return taken, lines_of(shelf, taken)
    except (Gone, StoreError):  # it is only tidying up: an append does not fail for it, damage stays where it is
        return (), []


def absorbed(segments: Sequence[Segment], *, size: int) -> int:
    """Return how many of the last segments a new one, of `size` bytes, takes in."""
    rest = list(segments)
    while rest and rest[-1].end - rest[-1].first < _FEW and rest[-1].size + size <= _SHORT:
        size += rest.pop().size
    for limit in _TIERS:
        run = _last_below(rest, limit)
        if run >= _FAN - 1 and sum(segment.size for segment in rest[-run:]) + size <= _LARGEST:
            size += sum(segment.size for segment in rest[-run:])
            del rest[-run:]
    return len(segments) - len(rest)


def _last_below(segments: Sequence[Segment], limit: int) -> int:
    """Return how many of the last segments, in a row, are smaller than `limit`."""
    return next((at for at, segment in enumerate(reversed(segments)) if segment.size >= limit), len(segments))


def trimmed(shelf: Shelf, content: Content, start: int, *, settled: bool) -> Changed:
    """Return where the records from `start` on are, having stored anew the segment that begins below it.

    Raises `Gone` if that is not there, but not if it is `settled` that it never comes back.
    """
    if start >= content.edge:
        lines = one_per_position(content.tail, content.edge, content.head.end)
        return Changed((), start, b"".join(lines[start - content.edge :]), (), content.segments)
    kept = tuple(segment for segment in content.segments if segment.first >= start)
    made: tuple[Segment, ...] = ()
    if not kept or kept[0].first > start:
        cut = content.segments[-len(kept) - 1]
        made = stored(shelf, _cut_lines(shelf, cut, start, settled=settled), start)
    left = content.segments[: len(content.segments) - len(kept)]
    return Changed((*made, *kept), content.edge, content.tail, made, left)


def _cut_lines(shelf: Shelf, cut: Segment, start: int, *, settled: bool) -> list[bytes]:
    """Return the lines of a segment from `start` on, one for each position, whatever is damaged in it."""
    try:
        return lines_of(shelf, [cut], start=start, settled=settled)
    except CorruptRecord:
        name = shelf.object(cut)
        try:
            data, _ = shelf.bucket.get(name)
        except Missing:
            data = b""
        except Withheld as withheld:  # its records would be lost
            raise not_given(name, withheld) from withheld.__cause__
        return one_per_position(data, cut.first, cut.end)[start - cut.first :]


def stored(shelf: Shelf, lines: Sequence[bytes], first: int) -> tuple[Segment, ...]:
    """Store lines as new segments, of which the head knows nothing yet."""
    groups = list(_groups(lines, first, _LARGEST))
    made = [_segment(group, at) for at, group in groups]
    pairs = zip(made, groups, strict=True)
    shelf.bucket.together(
        [partial(shelf.bucket.put, shelf.object(segment), b"".join(group)) for segment, (_, group) in pairs]
    )
    return tuple(made)


def _segment(lines: Sequence[bytes], first: int) -> Segment:
    size = max(_BLOCK, sum(map(len, lines)) // _BLOCKS)
    blocks = tuple((at, sum(map(len, group))) for at, group in _groups(lines, first, size))
    return Segment(first + len(lines), token(), blocks)


def _groups(lines: Sequence[bytes], first: int, most: int) -> Iterator[tuple[int, Sequence[bytes]]]:
    """Yield runs of lines of up to `most` bytes, or of one line, and the position of their first."""
    begun = size = 0
    for at, line in enumerate(lines):
        if at > begun and size + len(line) > most:
            yield first + begun, lines[begun:at]
            begun, size = at, 0
        size += len(line)
    yield first + begun, lines[begun:]


def lines_of(shelf: Shelf, segments: Sequence[Segment], *, start: int = 0, settled: bool = False) -> list[bytes]:
    """Return the lines of segments that follow one another, from `start` on.

    Raises `Gone`, and `CorruptRecord` if there are more or fewer lines than there must be.
    """
    if not segments:
        return []
    parts = list(parts_of(segments, start, segments[-1].end))
    found = zip(parts, fetched(shelf, parts, settled=settled), strict=True)
    lines = [line for part, data in found for line in _counted(shelf, part, data)]
    return lines[max(start - parts[0].first, 0) :]


def _counted(shelf: Shelf, part: Part, data: bytes) -> list[bytes]:
    if data.count(LF) != part.end - part.first or not data.endswith(LF):
        raise CorruptRecord(shelf.key, part.first, "its segment has more or fewer lines than it had")
    return one_per_position(data, part.first, part.end)


def parts_of(segments: Sequence[Segment], low: int, high: int) -> Iterator[Part]:
    """Yield the parts that have the records of [low, high), in order, each small enough for one request."""
    for segment in segments:
        if segment.first < high and segment.end > low:
            yield from _parts(segment, low, high)


def _parts(segment: Segment, low: int, high: int) -> Iterator[Part]:
    ends = [first for first, _ in segment.blocks[1:]] + [segment.end]
    part: Part | None = None
    offset = 0
    for (first, size), end in zip(segment.blocks, ends, strict=True):
        if first < high and end > low:
            if part is not None and part.size + size > _PIECE:
                yield part
                part = None
            part = (
                Part(segment, part.offset, part.size + size, part.first, end)
                if part
                else Part(segment, offset, size, first, end)
            )
        offset += size
    if part is not None:
        yield part


def fetched(shelf: Shelf, parts: Sequence[Part], *, settled: bool) -> list[bytes]:
    """Return the bytes of parts, fetched side by side, as they are. Raises `Gone` as `trimmed` does."""
    return shelf.bucket.together([partial(_fetched, shelf, part, settled=settled) for part in parts]) if parts else []


def _fetched(shelf: Shelf, part: Part, *, settled: bool) -> bytes:
    if part.size == part.segment.size:
        return _got(shelf, part.segment, settled=settled)
    return _got(shelf, part.segment, settled=settled, offset=part.offset, size=part.size)


def _got(shelf: Shelf, segment: Segment, *, settled: bool, offset: int = 0, size: int | None = None) -> bytes:
    try:
        data, _ = shelf.bucket.get(shelf.object(segment), offset=offset, size=size)
    except Missing:
        if not settled:
            raise Gone from None
        return b""
    except Withheld:
        return b""
    return data


def records_of(shelf: Shelf, part: Part, data: bytes, low: int, high: int) -> list[Record]:
    """Return the records of [low, high) that are in a part of which `data` was fetched.

    Where one of them is damaged, the whole segment is looked through: bytes that came in or went elsewhere in it move
    the lines from where they are looked for. Raises `CorruptRecord`.
    """
    low, high = max(low, part.first), min(high, part.end)
    try:
        return read_records(data, shelf.key, part.first, part.end, low=low, high=high)
    except CorruptRecord:
        segment = part.segment
        if part.size == segment.size:
            raise
        try:
            data, _ = shelf.bucket.get(shelf.object(segment))
        except (Missing, Withheld):
            raise CorruptRecord(shelf.key, low, "its segment is gone") from None
    return read_records(data, shelf.key, segment.first, segment.end, low=low, high=high)
