r"""What stands in the last element of a conversation's list: its head as text, in parts between line breaks.

    1 \n START \n STOP \n VERSION \n UPDATED \n EXPIRES or nothing \n INFO

The `1` is the number of this layout. Nobody else may change what is above the info: the scripts take it apart, too.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from chathistory.errors import CorruptRecord
from chathistory.store import Head, Key, Record, Stamp

__all__ = ["decoded_head", "decoded_records", "encoded_stamp", "time_to_live"]

BROOM = 3_600_000
"""Milliseconds after its expiry for which a conversation stays on the server, so that clocks may differ by so much."""


def encoded_stamp(stamp: Stamp) -> bytes:
    """Return the head from the version on; the script puts layout, start and stop before it."""
    expires = "" if stamp.expires is None else stamp.expires
    return f"{stamp.version}\n{stamp.updated}\n{expires}\n{stamp.info}".encode()


def time_to_live(stamp: Stamp) -> bytes:
    """Return after how many milliseconds from now the server may remove the conversation; empty: never.

    Counted from now, not to a moment of the server's clock, which may be wrong; or from the time of the append, which
    is later than now if a clock was ahead once: times of a conversation only grow.
    """
    if stamp.expires is None:
        return b""
    begun = min(stamp.updated, time.time_ns() // 1000)
    left = min(max(stamp.expires - begun, 0) // 1000 + BROOM, 10**14)  # which is 3,000 years
    return str(left).encode()


def decoded_head(key: Key, line: bytes) -> Head:
    """Return the head. Raises `CorruptRecord`."""
    try:
        layout, start, stop, version, updated, expires, info = line.decode().split("\n")
        stamp = Stamp(version, int(updated), int(expires) if expires else None, info)
        head = Head(key, int(start), int(stop), stamp)
    except ValueError:
        layout, head = "", None
    if head is None or layout != "1":
        raise CorruptRecord(key, None, "it is not of the layout that this version knows")
    return head


def decoded_records(key: Key, first: int, lines: Iterable[bytes]) -> list[Record]:
    """Return the records from position `first` on. Raises `CorruptRecord`."""
    records: list[Record] = []
    try:
        for position, line in enumerate(lines, first):
            records.append(Record(position, line.decode()))  # so that it is known how far it went
    except UnicodeDecodeError:
        pass
    else:
        return records
    raise CorruptRecord(key, first + len(records), "it is not UTF-8")  # not raised above: the context would quote it
