"""The records of a range: reads the head, and then the records that it does not contain, in parallel."""

from __future__ import annotations

from chathistory.errors import StoreUnavailable
from chathistory.storage.values import Key, ReadResult
from chathistory_s3.heads import Heads, S3StoredHead
from chathistory_s3.lines import read_records
from chathistory_s3.schema import HeadContent
from chathistory_s3.segments import SegmentMissing, SegmentStore, split_into_parts

__all__ = ["read_range"]

LARGEST_READ = 32 * 1024 * 1024
"""Bytes of records after which a read ends early."""

_ATTEMPTS = 10  # attempts to read a conversation while its segments are merged or forgotten each time


def read_range(heads: Heads, key: Key, start: int, stop: int | None) -> ReadResult | None:
    """Return the records of a range, as `BaseStore._read_range` describes.

    Args:
        heads: The heads.
        key: The conversation.
        start: The first position; negative from the end.
        stop: The position after the last one; None for the end.

    Returns:
        None if there is no such conversation.

    Raises:
        CorruptRecord: The head, or a record of the range, is damaged.
        StoreUnavailable: The segments changed during each of several attempts.
    """
    last: S3StoredHead | None = None
    for _ in range(_ATTEMPTS):
        stored = heads.load(key)
        content = stored.living if stored is not None else None
        if stored is None or content is None:
            return None
        missing_is_damage = last is not None and stored.etag == last.etag
        try:
            return _read_content(heads, content, start, stop, missing_is_damage=missing_is_damage)
        except SegmentMissing:
            last = stored
    raise StoreUnavailable(
        f"the segments of the conversation changed {_ATTEMPTS} times while they were read", outcome="not stored"
    )


def _read_content(
    heads: Heads, content: HeadContent, start: int, stop: int | None, *, missing_is_damage: bool
) -> ReadResult:
    head = content.head
    wanted = head.narrow(start, stop)
    if not wanted:
        return ReadResult(head, [])
    low, high = wanted.start, wanted.stop
    parts = list(split_into_parts(content.segments, low, min(high, content.tail_start)))
    size = 0
    for at, part in enumerate(parts):
        size += part.size
        if at and size > LARGEST_READ:
            parts, high = parts[:at], part.first
            break
    segments = SegmentStore(heads, head.key, content.incarnation)
    fetched = zip(parts, segments.fetch(parts, missing_is_damage=missing_is_damage), strict=True)
    records = [record for part, data in fetched for record in segments.parse_part(part, data, low, high)]
    if high > content.tail_start:
        low = max(low, content.tail_start)
        records += read_records(content.tail, head.key, content.tail_start, head.end, low=low, high=high)
    return ReadResult(head, records)
