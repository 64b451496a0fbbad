"""Reading a range of records together with the head, consistently.

A head and its tail are one document, and segments never change while a head refers to them: only a forget or a delete
removes them. So a reader that finds a segment missing reads the head again.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bson import Int64

from chathistory.errors import CorruptRecord
from chathistory.storage.abilities import LONGEST_GAP
from chathistory.storage.values import LARGEST_NUMBER, Key, ReadResult, Record
from chathistory_mongodb.schema import (
    HEAD_FIELDS,
    INTEGER,
    SEGMENT_FIELDS,
    Document,
    Documents,
    MongoSegment,
    MongoStoredHead,
    head_id,
    is_integer,
    match_committed_segments,
    parse_head,
    parse_segment,
    read_text,
)
from chathistory_mongodb.server import Collections

__all__ = ["TOO_FAR", "load_head", "read_range"]

TOO_FAR = "its positions are far from the positions of its records"
_RESULT_SIZE = 8 * 1024 * 1024  # characters of bodies after which a result ends early
_SEGMENTS_AT_ONCE = 32  # in one reply: about as many as a result has
_MOST_STRAYS = 8  # segments in a row that are skipped in search of the one with the next record
_LARGEST_INT = 2**31 - 1


def load_head(heads: Documents, key: Key, tail: Document | None = None) -> MongoStoredHead | None:
    """Return the stored head of a conversation; None if there is no such conversation.

    Args:
        heads: The collection.
        key: The conversation.
        tail: The projection of the field `tail`; None to read no bodies.

    Raises:
        CorruptRecord: The head is damaged.
        UnsupportedRecord: A later version wrote it.
    """
    document = heads.find_one({"_id": head_id(key)}, {**HEAD_FIELDS, **(tail or {})})
    return parse_head(document) if document else None


def read_range(collections: Collections, key: Key, start: int, stop: int | None) -> ReadResult | None:
    """Return the records of a range, up to a damaged one, with the head that they belong to.

    Args:
        collections: The collections.
        key: The conversation.
        start: The first position; negative from the end.
        stop: The position after the last one; None for the end.

    Returns:
        None if there is no such conversation.

    Raises:
        CorruptRecord: The head or the first record of the range is damaged.
        UnsupportedRecord: A later version wrote the conversation.
    """
    heads, segments = collections.preferred_heads, collections.preferred_segments
    before: MongoStoredHead | None = None
    while True:
        stored = load_head(heads, key, _project_tail(start, stop))
        if stored is None:
            committed = {"key": head_id(key), "by": None}  # by an earlier head
            if (
                collections.segments.find_one(committed, {"_id": True}) is not None
                and collections.heads.find_one({"_id": head_id(key)}, {"_id": True}) is None
                and collections.segments.find_one(committed, {"_id": True}) is not None
            ):
                raise CorruptRecord(key, None, "its head is gone, but some of its records are still there")
            return None
        wanted = stored.head.narrow(start, stop)
        records = _read_records(segments, stored, wanted) if wanted else []
        if records or not wanted:
            return ReadResult(stored.head, records)
        if before is not None and (before.head, before.born, before.runs) == (stored.head, stored.born, stored.runs):
            raise _missing_record(segments, stored, wanted.start)
        before = stored
        heads, segments = collections.heads, collections.segments  # a secondary may lag; the primary does not


def _project_tail(start: int, stop: int | None) -> Document:
    """Return the projection of the part of the tail that a range may need; its length gives its first position."""
    if stop is not None and stop <= start and (start >= 0) == (stop >= 0):
        return {}
    if start <= 0:
        return {"tail": {"$slice": max(start, -_LARGEST_INT)} if start else True}
    skipped = {"$subtract": [Int64(min(start, LARGEST_NUMBER)), "$from"]}
    rest = {"$slice": ["$tail", {"$max": [0, {"$min": [_LARGEST_INT, skipped]}]}, _LARGEST_INT]}
    return {"tail": {"$cond": [{"$and": [{"$isArray": "$tail"}, is_integer("$from")]}, rest, []]}}


def _read_records(segments: Documents, stored: MongoStoredHead, wanted: range) -> list[Record]:
    """Return the records of a range up to the first damaged one, or as many as one result may have."""
    records: list[Record] = []
    pieces: list[Any] = []  # of the next record
    strays, size = 0, 0
    for segment in _find_segments(segments, stored, wanted):
        position = wanted.start + len(records)
        if segment is None or not segment.first <= position < segment.end:
            strays += segment is None or segment.end > position
            if strays == _MOST_STRAYS:
                break
            continue
        bodies = segment.bodies
        if segment.parts > 1:
            if segment.part == (len(pieces) if segment.part else 0):
                pieces = [*(pieces if segment.part else []), *bodies]
            if len(pieces) < segment.parts:
                continue
            texts = [read_text(piece) for piece in pieces]
            bodies = [None if None in texts else "".join(map(str, texts))]
        for at in range(position, min(segment.end, wanted.stop)):
            text = read_text(bodies[at - segment.first])
            size += len(text or "")
            if text is None or (records and size > _RESULT_SIZE):
                return records
            records.append(Record(at, text))
    return records


def _find_segments(segments: Documents, stored: MongoStoredHead, wanted: range) -> Iterator[MongoSegment | None]:
    """Yield the segments of a range in order, and then the tail as if it were a segment; None for a damaged segment.

    Each holds at least a record or a piece of one, which limits the number of segments to request.
    """
    order = [("end", 1), ("part", 1)]
    low, stop, seen = wanted.start + 1, min(wanted.stop, stored.tail_start), 0
    limit = min(stop - wanted.start, _SEGMENTS_AT_ONCE)
    while limit > 0:
        only = {**match_committed_segments(stored.born, stored.runs), "end": {"$gte": Int64(low), **INTEGER}}
        with segments.find(only, skip=seen, limit=limit, batch_size=limit).sort(order) as found:
            documents = list(found)
        missing = 0
        for document in documents:
            seen = seen + 1 if document["end"] == low else 1  # the number of segments that end at `low`
            low = document["end"]
            segment = parse_segment(document)
            missing = segment.parts - segment.part - 1 if segment else 1  # pieces that may still end there
            yield segment
        limit = min(stop - low + missing, _SEGMENTS_AT_ONCE) if len(documents) == limit else 0
    yield MongoSegment(stored.head.end - len(stored.tail), stored.head.end, 0, 1, stored.tail)


def _missing_record(segments: Documents, stored: MongoStoredHead, position: int) -> CorruptRecord:
    """Return the error for a range that begins with a damaged record; it contains how many are missing in a row.

    If these are too many, the head counts as damaged instead.
    """
    key, reason = stored.head.key, "it is missing, or its value is not text"
    if position >= stored.tail_start:
        return CorruptRecord(key, position, reason)
    following = {**match_committed_segments(stored.born, stored.runs), "end": {"$gt": Int64(position), **INTEGER}}
    with segments.find(following, SEGMENT_FIELDS, limit=_MOST_STRAYS).sort("end", 1) as found:
        firsts = [segment.first for each in found if (segment := parse_segment(each))]
    stop = max(position + 1, min([*firsts, stored.tail_start]))
    if stop - position > LONGEST_GAP:
        return CorruptRecord(key, None, TOO_FAR)
    return CorruptRecord(key, position, reason, stop=stop)
