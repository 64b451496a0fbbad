r"""What a record is in an object: one line, `<checksum> <body>\n`.

The checksum is a CRC-32 of the body, begun with the position: a line that changed, or that stands in another place,
is told by its position. Lines are moved from object to object as they are.

Where lines are damaged, the others are still found, also when line ends were lost or came in and lines no longer stand
where their number says. For that a line can be asked for its position: a CRC is linear, so there is exactly one 32-bit
start that gives this checksum for this body. It counts as sound only where its neighbours make that position likely.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice, pairwise
from zlib import crc32

from chathistory.errors import CorruptRecord
from chathistory.storage.values import Key, Record

__all__ = [
    "DAMAGED",
    "LF",
    "SHORTEST",
    "Tail",
    "encode_line",
    "encode_lines",
    "find_sound_bodies",
    "find_tail",
    "read_records",
    "split_lines",
]

LF = b"\n"
SHORTEST = 10
"""Bytes that a line has at least: checksum, blank and line end."""

_SUM = 9  # bytes of the checksum and the blank
_MARK = b"~damaged "  # begins a line that stands for a damaged record: never a checksum
DAMAGED = _MARK + LF
"""The line that stands for a record that is lost."""

_CHECKED = re.compile(rb"[0-9a-f]{8} ")
_TRIES = 64  # places within one line at which a lost line end is looked for
_BUDGET = 64 * 1024 * 1024  # bytes whose checksums are computed for that


def encode_lines(bodies: Iterable[str], first: int) -> list[bytes]:
    """Return the lines of `bodies`, which have the positions from `first` on."""
    return [encode_line(body, position) for position, body in enumerate(bodies, first)]


def encode_line(body: str, position: int) -> bytes:
    """Return the line of a body at a position."""
    data = body.encode()
    return b"%08x %b\n" % (crc32(data, position & 0xFFFFFFFF), data)


def read_records(data: bytes, key: Key, first: int, end: int, *, low: int, high: int) -> list[Record]:
    """Return the records of [low, high), where `data` has the lines of the positions from `first` to `end`.

    Raises `CorruptRecord` with the position of the first of them that is damaged, whatever the others are.
    """
    lines = data.split(LF)
    if len(lines) == end - first + 1 and not lines[-1]:
        found = [_decode_line(lines[position - first], position) for position in range(low, high)]
        if None not in found:
            return [record for record in found if record is not None]
    sound = find_sound_bodies(data, first, end)
    found = [Record(position, sound[position]) if position in sound else None for position in range(low, high)]
    for position, record in enumerate(found, low):
        if record is None:
            raise CorruptRecord(key, position, "the line has another checksum than it was stored with")
    return [record for record in found if record is not None]


def _decode_line(line: bytes, position: int) -> Record | None:
    """Return the record of a line at a position; None: it is damaged."""
    if line[:_SUM] != b"%08x " % crc32(line[_SUM:], position & 0xFFFFFFFF):
        return None
    try:
        return Record(position, line[_SUM:].decode())
    except UnicodeDecodeError:
        return None


def find_sound_bodies(data: bytes, first: int, end: int) -> dict[int, str]:
    """Return the bodies of all lines that are sound, by their positions within [first, end)."""
    pieces = (
        (position, _decode_line(piece, position)) for position, piece in _iter_pieces(data, first, end) if position >= 0
    )
    return {position: record.body for position, record in pieces if record is not None}


@dataclass(frozen=True, slots=True)
class Tail:
    """Sound records in the object of a damaged head, by their positions, and where they or damaged ones begin."""

    first: int
    bodies: dict[int, str] = field(repr=False)


def find_tail(data: bytes, guesses: Iterable[int]) -> Tail | None:
    """Return what the object of a damaged head has of records; None: no sound one.

    Nothing says for certain what the first position is: `guesses` are tried, and what two lines say that follow one
    another. The one that makes the most lines sound is right.
    """
    given = set(guesses)
    most = len(data) // SHORTEST + 1
    bodies = max(
        (find_sound_bodies(data, first, first + most) for first in sorted(given | _guess_firsts(data))), key=len
    )
    if not bodies:
        return None
    lowest = min(bodies)
    positions = [position for position, _ in _iter_pieces(data, lowest, lowest + most)]
    low = max(lowest - max(positions.index(lowest) - 1, 0), 0)  # the first line is the head's; others are of records
    return Tail(min((first for first in given if low <= first <= lowest), default=low), bodies)


def _guess_firsts(data: bytes) -> set[int]:
    """Return what may be the first position by what the lines say, at least 0."""
    firsts: list[int] = []
    for line, behind in pairwise(data.split(LF)):
        position = _solve_position(line, 0)
        if position is None:
            continue
        firsts.append(position)
        if _decode_line(behind, position + 1) is not None:
            return {0, *(before for before in firsts if 0 <= position - before <= len(data) // SHORTEST)}
    return {0}


def split_lines(data: bytes, first: int, end: int) -> list[bytes]:
    """Return one line for each position from `first` to `end`, so that they can be moved, and others put behind them.

    Lines are returned as they are, sound or not, if there are as many as there must be. Otherwise the sound ones have
    their places, and what is between them stands in lines that are marked as damaged.
    """
    lines = [line + LF for line in data.split(LF)]
    if lines.pop() == LF and len(lines) == end - first:
        return lines
    found: list[bytes] = []
    between: list[bytes] = []
    for position, piece in [*_iter_pieces(data, first, end), (end, b"")]:
        if position < 0:
            between.append(piece.removeprefix(_MARK))
            continue
        if position > first + len(found):
            found.append(_MARK + b" ".join(filter(None, between)) + LF)
        found += [_MARK + LF] * (position - first - len(found))
        between = []
        if position < end:
            found.append(piece + LF)
    return found


def _iter_pieces(data: bytes, first: int, end: int) -> Iterator[tuple[int, bytes]]:
    """Yield all of `data` in pieces: sound lines with their positions, which grow; what is between them with -1.

    A line counts as sound if as many lines can have stood before it as its position says, or if the next line confirms
    its position. It may stand within another one, whose line end was lost.
    """
    expected, skipped = first, 0  # the next position, and the bytes since the last sound line
    lines = data.removesuffix(LF).split(LF)
    for line, following in zip(lines, [*lines[1:], None], strict=True):
        line = line.removesuffix(b"\r")  # of an editor; no body has a control character  # noqa: PLW2901
        for start in _possible_starts(line):
            position = _solve_position(line[start:], expected)
            if position is None or not expected <= position < end:
                continue
            slots = 1 + (skipped + (len(line) + 1 if start else 0)) // SHORTEST
            is_last = following is None and position == end - 1
            is_confirmed = following is not None and _decode_line(following, position + 1) is not None
            if position - expected <= slots or is_last or is_confirmed:
                if start:
                    yield -1, line[:start]
                yield position, line[start:]
                expected, skipped = position + 1, 0
                break
        else:
            skipped += len(line) + 1
            yield -1, line


def _possible_starts(line: bytes) -> Iterator[int]:
    """Yield where a line may begin: at 0, and within, where another line's end was lost; not all of a long line."""
    yield 0
    budget = _BUDGET
    for match in islice(_CHECKED.finditer(line, 1), _TRIES):
        budget -= len(line) - match.start()
        if budget < 0:
            return
        yield match.start()


def _solve_position(line: bytes, expected: int) -> int | None:
    """Return the position, from `expected` on, that makes the checksum of a line right; None: it has no checksum."""
    if not _CHECKED.match(line):
        return None
    body = line[_SUM:]
    try:
        body.decode()
    except UnicodeDecodeError:  # this library has not written it, whatever its checksum says
        return None
    difference = int(line[: _SUM - 1], 16) ^ crc32(body, expected & 0xFFFFFFFF)
    if not difference:
        return expected
    start = (expected & 0xFFFFFFFF) ^ _multiply_polynomials(_inverse_power(len(body)), difference)
    return expected + ((start - expected) & 0xFFFFFFFF)


# Polynomials over GF(2) modulo that of CRC-32, the lowest power in the highest bit. Passing over n bytes multiplies
# what the checksum was begun with by x^8n; x has the order 2^32 - 1, so x^(8 * (2^32 - 1 - n)) takes that back.

_POLYNOMIAL, _ONE, _X8 = 0xEDB88320, 1 << 31, 1 << 23
_ORDER = (1 << 32) - 1


def _multiply_polynomials(a: int, b: int) -> int:
    product = 0
    for bit in range(31, -1, -1):
        if a >> bit & 1:
            product ^= b
        b = b >> 1 ^ (_POLYNOMIAL if b & 1 else 0)
    return product


@lru_cache(maxsize=4096)
def _inverse_power(count: int) -> int:
    """Return x^(-8 * count)."""
    result, power, left = _ONE, _X8, _ORDER - count % _ORDER
    while left:
        if left & 1:
            result = _multiply_polynomials(result, power)
        power = _multiply_polynomials(power, power)
        left >>= 1
    return result
