r"""What a record is in an object: one line, `<checksum> <body>\n`.

The checksum is a CRC-32 of the body, begun with the position: a line that changed, or that stands in another place,
is told by its position. Lines are moved from object to object as they are.
"""

from __future__ import annotations

from collections.abc import Iterable
from zlib import crc32

from chathistory.errors import CorruptRecord
from chathistory.store import Key, Record

__all__ = ["encoded", "records", "split"]

LF = b"\n"
_SUM = 9  # bytes of the checksum and the blank


def encoded(bodies: Iterable[str], first: int) -> list[bytes]:
    """Return the lines of `bodies`, which have the positions from `first` on."""
    return [_line(body.encode(), position) for position, body in enumerate(bodies, first)]


def _line(body: bytes, position: int) -> bytes:
    return b"%08x %b\n" % (crc32(body, position & 0xFFFFFFFF), body)


def split(data: bytes, key: Key, first: int, end: int) -> list[bytes]:
    """Return the lines, with their LF, of the positions from `first` to `end`, not checked but for their number."""
    lines = [line + LF for line in data.split(LF)]
    if lines.pop() != LF or len(lines) != end - first:
        raise _miscounted(key, first, end, len(lines))
    return lines


def records(data: bytes, key: Key, first: int, end: int) -> list[Record]:
    """Return the records of these lines. Raises `CorruptRecord` with the position of the first that is damaged."""
    parts = data.split(LF)
    found = [_record(part, key, position) for position, part in enumerate(parts[: end - first], first)]
    if len(parts) != end - first + 1 or parts[-1]:
        raise _miscounted(key, first, end, len(parts) - 1)
    return found


def _miscounted(key: Key, first: int, end: int, count: int) -> CorruptRecord:
    return CorruptRecord(key, first + min(count, max(end - first - 1, 0)), "there are more or fewer lines than due")


def _record(line: bytes, key: Key, position: int) -> Record:
    body = line[_SUM:]
    if line[:_SUM] != b"%08x " % crc32(body, position & 0xFFFFFFFF):
        raise CorruptRecord(key, position, "the line is not the one that was stored")
    return Record(position, body.decode())
