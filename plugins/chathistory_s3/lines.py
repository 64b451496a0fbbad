r"""A record in an object: one line, `<checksum> <body>\n`.

The checksum is a CRC-32 of the body with the position as its start value. So a line that has changed, or is in another
place, does not match its position. Lines are moved from object to object as they are.

If lines are damaged, the others are still found, also when line ends were lost or inserted and counting lines no longer
gives the positions. For that, the position can be computed from a line: a CRC is linear, so exactly one 32-bit start
value gives this checksum for this body. Such a line counts as sound only if its neighbours make the position likely.
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
"""The fewest bytes of a line: checksum, blank and line end."""

_CHECKSUM_SIZE = 9  # bytes of the checksum and the blank
_MARK = b"~damaged "  # the beginning of a line for a damaged record: never a checksum
DAMAGED = _MARK + LF
"""The line for a lost record."""

_CHECKED = re.compile(rb"[0-9a-f]{8} ")
_MAX_OFFSETS = 64  # offsets within one line that are tried as a lost line end
_MAX_CHECKSUM_BYTES = 64 * 1024 * 1024  # the most bytes to checksum for that


def encode_lines(bodies: Iterable[str], first: int) -> list[bytes]:
    """Return the lines of `bodies`, at the positions from `first` on."""
    return [encode_line(body, position) for position, body in enumerate(bodies, first)]


def encode_line(body: str, position: int) -> bytes:
    """Return the line of a body at a position."""
    data = body.encode()
    return b"%08x %b\n" % (crc32(data, position & 0xFFFFFFFF), data)


def read_records(data: bytes, key: Key, first: int, end: int, *, low: int, high: int) -> list[Record]:
    """Return the records of the positions [low, high).

    Args:
        data: The lines of the positions [first, end).
        key: The conversation, for errors.
        first: The position of the first line.
        end: The position after the last line.
        low: The first position to return.
        high: The position after the last one to return.

    Raises:
        CorruptRecord: At the first damaged record of the range.
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
            raise CorruptRecord(key, position, "its line does not match its checksum")
    return [record for record in found if record is not None]


def _decode_line(line: bytes, position: int) -> Record | None:
    """Return the record of a line at a position; None if it is damaged."""
    if line[:_CHECKSUM_SIZE] != b"%08x " % crc32(line[_CHECKSUM_SIZE:], position & 0xFFFFFFFF):
        return None
    try:
        return Record(position, line[_CHECKSUM_SIZE:].decode())
    except UnicodeDecodeError:
        return None


def find_sound_bodies(data: bytes, first: int, end: int) -> dict[int, str]:
    """Return the bodies of all sound lines, by position.

    Args:
        data: The lines.
        first: The position of the first line.
        end: The position after the last line.
    """
    pieces = (
        (position, _decode_line(piece, position)) for position, piece in _iter_pieces(data, first, end) if position >= 0
    )
    return {position: record.body for position, record in pieces if record is not None}


@dataclass(frozen=True, slots=True)
class Tail:
    """The records in the object of a damaged head.

    Attributes:
        first: The position of the first record, sound or damaged.
        bodies: The bodies of the sound records, by position.
    """

    first: int
    bodies: dict[int, str] = field(repr=False)


def find_tail(data: bytes, guesses: Iterable[int]) -> Tail | None:
    """Return the records in the object of a damaged head; None if it has no sound record.

    The first position is not known for certain. This function tries `guesses`, and the positions of two consecutive
    lines that agree. The position that makes the most lines sound is right.

    Args:
        data: The bytes of the object.
        guesses: Positions that may be the first one.
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
    low = max(lowest - max(positions.index(lowest) - 1, 0), 0)  # the first line is the head, the others are records
    return Tail(min((first for first in given if low <= first <= lowest), default=low), bodies)


def _guess_firsts(data: bytes) -> set[int]:
    """Return positions that may be the first one, computed from the lines; always includes 0."""
    firsts: list[int] = []
    for line, following in pairwise(data.split(LF)):
        position = _solve_position(line, 0)
        if position is None:
            continue
        firsts.append(position)
        if _decode_line(following, position + 1) is not None:
            return {0, *(before for before in firsts if 0 <= position - before <= len(data) // SHORTEST)}
    return {0}


def split_lines(data: bytes, first: int, end: int) -> list[bytes]:
    """Return one line for each position in [first, end), so that they can be moved, and lines appended.

    If the number of lines is right, they are returned as they are, sound or not. Otherwise the sound lines are returned
    at their positions, and the bytes between them in lines that are marked as damaged.

    Args:
        data: The lines.
        first: The first position.
        end: The position after the last one.
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
    """Yield all of `data` in pieces: sound lines with their positions, in rising order; the bytes between them with -1.

    A line counts as sound if there is room before it for the lines of earlier positions, or if the next line confirms
    its position. It may be within another line that has lost its line end.
    """
    expected, skipped = first, 0  # the next position, and the bytes since the last sound line
    lines = data.removesuffix(LF).split(LF)
    for line, following in zip(lines, [*lines[1:], None], strict=True):
        line = line.removesuffix(b"\r")  # from an editor; no body has a control character  # noqa: PLW2901
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
    """Yield the offsets at which a line may begin: 0, and after a lost line end; for a long line only some of them."""
    yield 0
    budget = _MAX_CHECKSUM_BYTES
    for match in islice(_CHECKED.finditer(line, 1), _MAX_OFFSETS):
        budget -= len(line) - match.start()
        if budget < 0:
            return
        yield match.start()


def _solve_position(line: bytes, expected: int) -> int | None:
    """Return the position, at least `expected`, that matches the checksum of a line; None if it has no checksum."""
    if not _CHECKED.match(line):
        return None
    body = line[_CHECKSUM_SIZE:]
    try:
        body.decode()
    except UnicodeDecodeError:  # this library did not write it, whatever its checksum is
        return None
    difference = int(line[: _CHECKSUM_SIZE - 1], 16) ^ crc32(body, expected & 0xFFFFFFFF)
    if not difference:
        return expected
    start = (expected & 0xFFFFFFFF) ^ _multiply_polynomials(_inverse_power(len(body)), difference)
    return expected + ((start - expected) & 0xFFFFFFFF)


# Polynomials over GF(2) modulo the polynomial of CRC-32, the lowest power in the highest bit. Processing n bytes
# multiplies the start value by x^8n. The order of x is 2^32 - 1, so multiplying by x^(8 * (2^32 - 1 - n)) undoes that.

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
