"""The records of a range: one look at the head, and then what is not in it, fetched side by side."""

from __future__ import annotations

from collections.abc import Sequence

from chathistory.errors import StoreUnavailable
from chathistory.storage.store import Key, ReadResult
from chathistory_s3.bucket import Bucket
from chathistory_s3.content import Content, Grave
from chathistory_s3.heads import Found, Heads
from chathistory_s3.layout import Layout
from chathistory_s3.lines import read_records
from chathistory_s3.segments import Gone, Part, Shelf, fetched, parts_of, records_of

__all__ = ["read"]

SLICE = 32 * 1024 * 1024
"""Bytes of records after which a slice ends early."""

_LOOKS = 10  # at a conversation whose segments are made into one, or forgotten, each time while they are fetched


def read(bucket: Bucket, layout: Layout, heads: Heads, key: Key, *, start: int, stop: int | None) -> ReadResult | None:
    """Return the records of a range as `HistoryStore.read` says."""
    last: Found | None = None
    for _ in range(_LOOKS):
        found = heads.look(key)
        if found is None or isinstance(found.content, Grave):
            return None
        shelf = Shelf(bucket, layout, key, found.content.incarnation)
        settled = last is not None and found.etag == last.etag  # what is gone was not moved, but is damaged
        try:
            return _slice(shelf, found.content, start, stop, settled=settled)
        except Gone:
            last = found
    raise StoreUnavailable(
        f"the segments of the conversation changed {_LOOKS} times while they were read", outcome="not stored"
    )


def _slice(shelf: Shelf, content: Content, start: int, stop: int | None, *, settled: bool) -> ReadResult:
    head = content.head
    low = max(start if start >= 0 else head.end + start, head.start)
    high = head.end if stop is None else min(stop, head.end)
    if low >= high:
        return ReadResult(head, [])
    parts, whole = _first_ones(list(parts_of(content.segments, low, min(high, content.edge))))
    found = zip(parts, fetched(shelf, parts, settled=settled), strict=True)
    run = [record for part, data in found for record in records_of(shelf, part, data, low, high)]
    if whole and high > content.edge:
        low = max(low, content.edge)
        run += read_records(content.tail, shelf.key, content.edge, head.end, low=low, high=high)
    return ReadResult(head, run)


def _first_ones(parts: Sequence[Part]) -> tuple[Sequence[Part], bool]:
    """Return the first parts, as many as a slice may have, and whether these are all."""
    size = 0
    for at, part in enumerate(parts):
        size += part.size
        if at and size > SLICE:
            return parts[:at], False
    return parts, True
