r"""What stands in a conversation's list: its records, and behind them its head.

    record    BODY \n POSITION
    head      1 \n START \n STOP \n VERSION \n UPDATED \n EXPIRES or nothing \n INFO

The `1` is the number of this layout. Nobody else may change what is above the info: the scripts take it apart, too.
Each record says its position, so that what is missing, doubled or exchanged is noticed, and so that a list is still
understood when its head is lost. A record without a line break is one of an earlier form and stands where it stands.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from typing import Any

from chathistory.errors import ChatHistoryError, CorruptRecord, UnsupportedRecord
from chathistory.storage.store import Head, Key, Record, Revision

__all__ = [
    "LARGEST",
    "damage_of",
    "decoded_head",
    "decoded_record",
    "decoded_records",
    "encoded_record",
    "encoded_stamp",
    "time_to_live",
]

LARGEST = 2**53 - 1
"""The largest position or time: up to here Lua and the index are exact."""

BROOM = 3_600_000
"""Milliseconds after its expiry for which a conversation stays on the server, so that clocks may differ by so much."""

_HEAD = re.compile(
    rb"1\n(?P<start>\d{1,16})\n(?P<stop>\d{1,16})\n(?P<version>[ -~]{1,32})\n(?P<updated>\d{1,16})\n"
    rb"(?P<expires>\d{0,16})\n(?P<info>[^\x00-\x1f]*)"
)
_LAYOUT = re.compile(rb"(\d{1,9})\n(?:(\d{1,16})\n)?")


def encoded_record(position: int, body: str) -> bytes:
    """Return the element of a record."""
    return b"%s\n%d" % (body.encode(), position)


def encoded_stamp(revision: Revision) -> bytes:
    """Return the head from the version on; the script puts layout, start and stop before it."""
    expires = "" if revision.expires is None else revision.expires
    return f"{revision.version}\n{revision.updated}\n{expires}\n{revision.payload}".encode()


def time_to_live(revision: Revision) -> bytes:
    """Return after how many milliseconds from now the server may remove the conversation; empty: never.

    Counted from now, not to a moment of the server's clock, which may be wrong; or from `updated`, if a clock was ahead
    then or is now. So it may stay too long, and never too short.
    """
    if revision.expires is None:
        return b""
    begun = min(revision.updated, time.time_ns() // 1000)
    left = min(max(revision.expires - begun, 0) // 1000 + BROOM, 10**14)  # which is 3,000 years
    return str(left).encode()


def decoded_head(key: Key, line: bytes) -> Head:
    """Return the head. Raises `CorruptRecord`, or `UnsupportedRecord` if a later version wrote it."""
    found = _HEAD.fullmatch(line)
    numbers = [int(found[name] or 0) for name in ("start", "stop", "updated", "expires")] if found else []
    payload = _text(found["info"]) if found else None
    if found is None or payload is None or max(numbers) > LARGEST or numbers[0] > numbers[1]:
        raise damage_of(key, line)
    expires = numbers[3] if found["expires"] else None
    return Head(key, numbers[0], numbers[1], Revision(found["version"].decode(), numbers[2], expires, payload))


def damage_of(key: Key, line: bytes) -> ChatHistoryError:
    """Return the error for a head that cannot be read."""
    layout = _LAYOUT.match(line)
    if layout and int(layout[1]) > 1:
        return UnsupportedRecord(key, int(layout[2] or 0), int(layout[1]))
    return CorruptRecord(key, None, "the last element of its list is not a head")


def decoded_record(position: int, element: Any) -> Record | str:
    """Return the record that must have this position, or what is wrong with it."""
    body, newline, place = element.rpartition(b"\n")
    if element == b"\n":
        return "it is missing"
    if newline and place != b"%d" % position:
        return "something else is stored in its place"
    text = _text(body if newline else element)
    return "it is not UTF-8" if text is None else Record(position, text)


def decoded_records(key: Key, first: int, elements: Iterable[bytes]) -> list[Record]:
    """Return the records from position `first` on. Raises `CorruptRecord` at the first damaged one."""
    records: list[Record] = []
    for position, element in enumerate(elements, first):
        record = decoded_record(position, element)
        if isinstance(record, str):
            raise CorruptRecord(key, position, record)
        records.append(record)
    return records


def _text(line: bytes) -> str | None:
    """Return the text, or None: an error raised in the handler would quote the line in its context."""
    try:
        return line.decode()
    except UnicodeDecodeError:
        return None
