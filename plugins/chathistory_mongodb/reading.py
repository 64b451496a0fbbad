"""Ranges of records, pages of heads, all names.

A head and the tail that stands in it are of one moment, and segments never change while a head names them: only a
forget or a delete removes them. So who finds one missing looks at the head again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from bson import Int64

from chathistory.cursor import decode_cursor
from chathistory.errors import InvalidInput
from chathistory.store import Cursor, Head, Key, Record, Slice
from chathistory_mongodb.connection import Place
from chathistory_mongodb.documents import (
    FIELDS,
    LISTED,
    LONGEST_INT,
    Document,
    Documents,
    State,
    head_of,
    identity,
    key_of,
    state_of,
)
from chathistory_mongodb.faults import Damage
from chathistory_mongodb.indexes import BY_NAME, BY_TIME

__all__ = ["heads", "keys_after", "read"]

SLICE = 8 * 1024 * 1024  # characters of bodies after which a slice ends early
_AT_ONCE = 32  # segments in one answer: about a slice
_NAMES = 1000
_MOST = 2**31 - 1


def read(place: Place, key: Key, start: int, stop: int | None) -> Slice | None:
    """Return the records of a range, with the head of the same moment. Raises `Damage` if one is missing."""
    before: State | None = None
    collections = place.seen_heads, place.seen_segments
    while True:
        state = _state(collections[0], key, start, stop)
        if state is None:
            return None
        low, high = _range(state.head, start, stop)
        records = _records(collections[1], state, low, high)
        if records or low >= high:
            return Slice(state.head, records)
        if before is not None and (before.head, before.born, before.runs) == (state.head, state.born, state.runs):
            reason = "the segment that held it is gone"
            raise Damage(low, reason)
        before, collections = state, (place.heads, place.segments)  # a secondary may be behind; the primary is not


def _state(heads: Documents, key: Key, start: int, stop: int | None) -> State | None:
    """Look up the head, with the bodies of the tail from `start` on."""
    document = heads.find_one({"_id": identity(key)}, {**FIELDS, **_tail(start, stop)})
    return state_of(document) if document else None


def _tail(start: int, stop: int | None) -> Document:
    """Return the projection of the tail's end that a range can be about; its begin is told by its length."""
    if stop is not None and stop <= start and (start >= 0) == (stop >= 0):
        return {}
    if start < 0:
        return {"tail": {"$slice": max(start, -_MOST)}}
    if start == 0:
        return {"tail": True}
    skipped = {"$max": [0, {"$min": [{"$size": "$tail"}, {"$subtract": [Int64(min(start, LONGEST_INT)), "$from"]}]}]}
    return {"tail": {"$slice": ["$tail", skipped, {"$max": [1, {"$size": "$tail"}]}]}}


def _range(head: Head, start: int, stop: int | None) -> tuple[int, int]:
    low = max(start if start >= 0 else head.end + start, head.start)
    return low, head.end if stop is None else min(stop, head.end)


def _records(segments: Documents, state: State, low: int, high: int) -> list[Record]:
    """Return the records of [low, high), or those that a slice may have; none if the first one is missing."""
    if low >= high:
        return []
    records = _moved(segments, state, low, min(high, state.tail_first)) if low < state.tail_first else []
    position = low + len(records)
    if position >= state.tail_first:
        begin = state.head.end - len(state.tail)
        if begin > position:
            reason = "the tail that held it is too short"
            raise Damage(position, reason)
        records += [Record(at, state.tail[at - begin]) for at in range(position, high)]
    return records


def _moved(segments: Documents, state: State, low: int, high: int) -> list[Record]:
    """Return the records of a range below the tail, as far as they are there and a slice goes."""
    records: list[Record] = []
    size = 0
    for first, bodies in _bodies(segments, state, low, high):
        position = low + len(records)
        if not first <= position < first + len(bodies):
            break
        for at in range(position, min(first + len(bodies), high)):
            body = bodies[at - first]
            size += len(body)
            if records and size > SLICE:
                return records
            records.append(Record(at, body))
    return records


def _bodies(segments: Documents, state: State, low: int, high: int) -> Iterator[tuple[int, Sequence[str]]]:
    """Yield runs of bodies in order, each with the position of its first; pieces are put together."""
    pieces: list[str] = []
    for document in _segments(segments, state, low, high):
        first, bodies = _checked(document)
        if document["parts"] == 1:
            yield first, bodies
        elif document["part"] == (len(pieces) if document["part"] else 0):
            pieces = [*(pieces if document["part"] else []), *bodies]
            if len(pieces) == document["parts"]:
                yield first, ["".join(pieces)]


def _segments(segments: Documents, state: State, low: int, high: int) -> Iterator[Document]:
    """Yield the segments of a range in order. Each holds one record of it at least, so no more are asked for."""
    named = {"of": state.born, "by": {"$in": [None, *(run["by"] for run in state.runs)]}}
    order = [("end", 1), ("part", 1)]
    while low < high:
        last: Document | None = None
        most = min(high - low, _AT_ONCE)
        with segments.find({**named, "end": {"$gt": Int64(low)}}, limit=most, batch_size=most).sort(order) as found:
            for last in found:
                yield last
        if last is None:
            return
        low = last["end"]
        if last["part"] + 1 < last["parts"]:
            rest = {**named, "end": low, "part": {"$gt": last["part"]}}
            with segments.find(rest, batch_size=_AT_ONCE).sort(order) as found:
                yield from found


def _checked(document: Document) -> tuple[int, list[str]]:
    first, bodies = document["first"], document.get("bodies")
    if not isinstance(bodies, list) or len(bodies) != document["end"] - first:
        reason = "its segment has not the length that its positions say"
        raise Damage(first, reason)
    if not all(isinstance(body, str) for body in bodies):
        reason = "its segment holds something that is no text"
        raise Damage(first, reason)
    return int(first), bodies


def heads(place: Place, scope: str, after: Cursor | None, limit: int) -> list[Head]:
    """Return up to `limit` heads, newest first, below a cursor. Raises `InvalidInput` for what is no cursor."""
    only: Document = {"scope": scope} if after is None else {"scope": scope, "$or": _below(scope, after)}
    order = [("updated", -1), ("id", -1)]
    most = min(limit, _MOST)
    with place.seen_heads.find(only, LISTED, limit=most, batch_size=most).sort(order).hint(BY_TIME) as found:
        return [head_of(document) for document in found]


def _below(scope: str, cursor: Cursor) -> list[Document]:
    updated, name = decode_cursor(cursor)
    if not 0 <= updated < LONGEST_INT:
        msg = "this is not a cursor that a page of this listing gave"
        raise InvalidInput(msg)
    time, last = Int64(updated), Key(scope, name).id
    return [{"updated": {"$lt": time}}, {"updated": time, "id": {"$lt": last}}]


def keys_after(place: Place, scope: str | None, last: Key | None) -> list[Key]:
    """Return the next names in order, none at the end: from an index alone, of which an entry never moves."""
    only: dict[str, Any] = {"scope": scope} if scope is not None else {"scope": {"$gte": ""}}
    if last is not None:
        same = {"scope": last.scope, "id": {"$gt": last.id}}
        only = same if scope is not None else {"$or": [same, {"scope": {"$gt": last.scope}}]}
    fields = {"_id": False, "scope": True, "id": True}
    found = place.seen_heads.find(only, fields, limit=_NAMES, batch_size=_NAMES)
    with found.sort([("scope", 1), ("id", 1)]).hint(BY_NAME) as names:
        return [key_of({"_id": {"s": document["scope"], "i": document["id"]}}) for document in names]
