"""Where a record is in a file, and the records from there: whatever is sound, wherever damage stands beside it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from chathistory_file.faults import Damage
from chathistory_file.lines import COMMIT, LF, RecordLine, body_in, may_hold_record
from chathistory_file.source import LONGEST_LINE, Source
from chathistory_file.states import State, contents_of

__all__ = ["NO_LINE", "bodies_from", "kept_lines"]

NO_LINE = "no sound line of this record is in the file"

_NEAR = 16 * 1024  # bytes that are rather read through than searched
_STEP = 4096
_PART = 1024 * 1024
_NUMBER = re.compile(rb"\[([0-9]{1,19})(?![0-9])")


def bodies_from(state: State, low: int, high: int) -> Iterator[bytes]:
    """Yield the bodies of the records `low` to `high` of what is kept; raises `Damage` at the first that is not sound.

    What is beside them is not looked at. A record is found wherever it stands, also where two lines changed places. For
    a state whose lines were moved there is `Recovery.bodies`.
    """
    offset: int | None = _locate(state, low)
    while low < high:
        if offset is None:
            raise Damage(low, NO_LINE)
        for body in _in_order(state, offset, low):
            yield body
            low += 1
            if low == high:
                return
        offset = _elsewhere(state, low)


def _in_order(state: State, offset: int, position: int) -> Iterator[bytes]:
    """Yield the bodies from `position` on that follow each other from `offset` on; ends where the next one does not."""
    for _, line in state.source.lines(offset, state.stop):
        body = body_in(line, position)
        if body is not None:
            yield body
            position += 1
        elif not line.startswith(COMMIT) or may_hold_record(line):
            records = [
                piece.content for piece in contents_of(line, ended=True) if isinstance(piece.content, RecordLine)
            ]
            for record in records:
                if record.position == position:
                    yield record.body
                    position += 1
            if any(record.position > position for record in records):
                return


def _elsewhere(state: State, position: int) -> int | None:
    """Return the offset of the line with a sound record that is not where it belongs; None: there is no such line."""
    source, beginning = state.source.twin(_STEP), b'[%d,"' % position
    found = _search(source, beginning, 0, state.stop)
    while found >= 0:
        before = max(found - _PART, 0)
        start = before + source.take(before, found).rfind(LF) + 1
        end = source.find(LF, found, state.stop)
        stop = end if end >= 0 else state.stop
        for piece in contents_of(source.take(start, min(stop, start + _PART + LONGEST_LINE)), ended=True):
            if isinstance(piece.content, RecordLine) and piece.content.position == position:
                return start
        found = _search(source, beginning, stop, state.stop)
    return None


def _search(source: Source, text: bytes, start: int, stop: int) -> int:
    """Return the offset of the first `text` in that range, -1: there is none; holds a part of the range at a time."""
    while start < stop:
        end = min(start + _PART, stop)
        found = source.take(start, end).find(text)
        if found >= 0:
            return start + found
        if end == stop:
            break
        start = end - len(text) + 1
    return -1


class _Place(NamedTuple):
    """Where the line of a record begins, and the position of the record."""

    offset: int
    position: int


def _locate(state: State, position: int) -> int:
    """Return the offset of a line at or before that of `position`, and near it.

    Looks at a few lines: nearer and nearer to the end for a tail, else by halving. What is not sound is passed over.
    """
    head, low, high = state.head, 0, state.stop
    if position == head.start:
        return 0
    back = (head.end - position) * high // (head.end - head.start) * 5 // 4 + 512  # if all records were about alike
    while back < state.stop:
        place = _first_record(state.source.twin(_STEP), state.stop - back, high)
        if place is not None and place.position <= position:
            low = place.offset
            break
        high, back = state.stop - back, 2 * back
    while high - low > _NEAR:
        middle = (low + high) // 2
        place = _first_record(state.source.twin(_STEP), middle, high)
        if place is not None and place.position <= position:
            low = place.offset
        else:
            high = middle
    return low


def _first_record(source: Source, start: int, stop: int) -> _Place | None:
    """Return the first sound line of a record that begins in [start, stop)."""
    before = source.find(LF, start, stop)
    if before < 0:
        return None
    for offset, line in source.lines(before + 1, stop):
        for piece in contents_of(line, ended=True):
            if isinstance(piece.content, RecordLine):
                return _Place(offset, piece.content.position)
    return None


def kept_lines(state: State, first: int) -> Iterator[bytes]:
    """Yield the lines of the records from `first` on, for a file without those before.

    A line that is not sound stays as it is where it stands behind one of these, and does not begin like an earlier one:
    so the records that are left out are gone for good, and those that are damaged stay damaged.
    """
    place = _locate(state, first)
    begun = False
    for offset, line in state.source.lines(0, state.stop):  # all of it: two lines may have changed places
        found = contents_of(line, ended=True)
        for piece in found:
            content = piece.content
            if isinstance(content, RecordLine) and content.position >= first:
                begun = begun or offset >= place
                yield line[piece.start : piece.stop] + LF
        if not found and begun and not _begins_before(line, first):
            yield line + LF


def _begins_before(line: bytes, first: int) -> bool:
    found = _NUMBER.match(line)
    return found is not None and int(found[1]) < first
