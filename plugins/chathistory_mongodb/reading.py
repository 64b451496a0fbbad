"""Ranges of records, and pages of heads.

A head and the tail that stands in it are of one moment, and segments never change while a head names them: only a
forget or a delete removes them. So who finds one missing looks at the head again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from bson import Int64, MinKey
from pymongo.errors import OperationFailure

from chathistory.errors import InvalidInput
from chathistory.storage.cursors import decode_cursor, encode_cursor
from chathistory.storage.recovery import LONGEST_GAP
from chathistory.storage.store import LARGEST_NUMBER, Cursor, Damaged, Head, Key, Page, ReadResult, Record
from chathistory_mongodb.connection import Place
from chathistory_mongodb.documents import (
    ALIVE,
    FIELDS,
    Document,
    Documents,
    State,
    identity,
    key_of,
    state_of,
    text_of,
    whole_number,
)
from chathistory_mongodb.faults import Damage
from chathistory_mongodb.indexes import BY_ACTIVITY

__all__ = ["COUNTED", "TOO_FAR", "bodies_in", "heads", "is_sound", "place_of", "read", "shown"]

SLICE = 8 * 1024 * 1024  # characters of bodies after which a slice ends early
_AT_ONCE = 32  # segments in one answer: about a slice
_MOST = 2**31 - 1
_ODD = 8  # segments that may be skipped in search of one that has a position
_ROWS = 100  # heads to look at where those of a page are damaged
TOO_FAR = "its positions are far from those of its records"

COUNTED: Document = {
    **dict.fromkeys(("by", "first", "end", "part", "parts"), True),
    "count": {"$cond": [{"$isArray": "$bodies"}, {"$size": "$bodies"}, -1]},
}
"""The projection of a segment that says how many bodies it has, and leaves them out."""


def read(place: Place, key: Key, start: int, stop: int | None) -> ReadResult | None:
    """Return the records of a range, with the head of the same moment. Raises `Damage` if the first is damaged."""
    before: State | None = None
    collections = place.seen_heads, place.seen_segments
    while True:
        state = _state(collections[0], key, start, stop)
        if state is None:
            _check_lost(place, key)
            return None
        low, high = _range(state.head, start, stop)
        if low >= high:
            state.check_tail()
            return ReadResult(state.head, [])
        records = _records(collections[1], state, low, high)
        if records:
            return ReadResult(state.head, records)
        if before is not None and (before.head, before.born, before.runs) == (state.head, state.born, state.runs):
            raise _loss(collections[1], state, low)
        before, collections = state, (place.heads, place.segments)  # a secondary may be behind; the primary is not


def _loss(segments: Documents, state: State, low: int) -> Damage:
    """Return what is wrong where a range begins at `low` and no record of it can be read.

    If nothing is stored there, it tells how far that goes; if that is too far, it is the head that is damaged.
    """
    reason = "it is missing, or something that is no text is stored in its place"
    if low >= state.tail_first:
        state.check_tail()
        return Damage(low, reason)
    behind = {**_counting(state.born, [run["by"] for run in state.runs]), "end": {"$gt": Int64(low), **_WHOLE}}
    with segments.find(behind, COUNTED, limit=_ODD).sort("end", 1) as found:
        firsts = [place_of(each)[0] for each in found if _has_place(each)]
    stop = max(low + 1, min([*firsts, state.tail_first]))
    if stop - low > LONGEST_GAP:
        return Damage(None, TOO_FAR, state.head.key)
    return Damage(low, reason, stop=stop)


def _state(heads: Documents, key: Key, start: int, stop: int | None) -> State | None:
    """Look up the head, with the bodies of the tail from `start` on."""
    only = {"_id": identity(key)}
    try:
        document = heads.find_one(only, {**FIELDS, **_tail(start, stop)})
    except OperationFailure:  # what is damaged may be nothing that the server can calculate with
        if is_sound(heads, only):
            raise
        return None
    return state_of(document) if document else None


def _check_lost(place: Place, key: Key) -> None:
    """Raise `Damage` if a conversation has no head document, but records that counted once."""
    name = identity(key)
    if place.segments.find_one({"key": name, "by": None}, {"_id": True}) is not None:
        present = place.heads.find_one({"_id": name}, {"_id": True})  # a secondary may not have it yet
        again = place.segments.find_one({"key": name, "by": None}, {"_id": True})
        if present is None and again is not None:
            reason = "it is gone, and records of it are there"
            raise Damage(None, reason, key)


def is_sound(heads: Documents, only: Document) -> bool:
    """Tell whether there is a conversation with a sound head. Raises `Damage` if its head is damaged."""
    document = heads.find_one(only, FIELDS)
    state = state_of(document) if document else None
    if state:
        state.check_tail()
    return state is not None


def _tail(start: int, stop: int | None) -> Document:
    """Return the projection of the tail's end that a range can be about; its begin is told by its length."""
    if stop is not None and stop <= start and (start >= 0) == (stop >= 0):
        return {}
    if start < 0:
        return {"tail": {"$slice": max(start, -_MOST)}}
    if start == 0:
        return {"tail": True}
    skipped = {"$subtract": [Int64(min(start, LARGEST_NUMBER)), {"$cond": [{"$isNumber": "$from"}, "$from", 0]}]}
    size = {"$size": "$tail"}
    part = {"$slice": ["$tail", {"$max": [0, {"$min": [size, skipped]}]}, {"$max": [1, size]}]}
    return {"tail": {"$cond": [{"$isArray": "$tail"}, part, []]}}


def _range(head: Head, start: int, stop: int | None) -> tuple[int, int]:
    low = max(start if start >= 0 else head.end + start, head.start)
    return low, head.end if stop is None else min(stop, head.end)


def _records(segments: Documents, state: State, low: int, high: int) -> list[Record]:
    """Return the records of [low, high) up to the first that is damaged, or those that a slice may have."""
    records: list[Record] = []
    if low < min(high, state.tail_first):
        records = _moved(segments, state, low, min(high, state.tail_first))
    position = low + len(records)
    if position < state.tail_first or state.size != state.head.end - state.tail_first:
        return records
    begin = state.head.end - len(state.tail)
    for at in range(position, high):
        text = text_of(state.tail[at - begin])
        if text is None:
            break
        records.append(Record(at, text))
    return records


def _moved(segments: Documents, state: State, low: int, high: int) -> list[Record]:
    """Return the records of a range below the tail, as far as they are there and a slice goes."""
    records: list[Record] = []
    size, odd = 0, 0
    for first, bodies in bodies_in(segments, state.born, [run["by"] for run in state.runs], low, high):
        position = low + len(records)
        if not first <= position < first + len(bodies):  # missing, or another one lies across it
            odd += 1
            if odd == _ODD:
                break
            continue
        for at in range(position, min(first + len(bodies), high)):
            text = text_of(bodies[at - first])
            size += len(text or "")
            if text is None or (records and size > SLICE):
                return records
            records.append(Record(at, text))
    return records


def bodies_in(
    segments: Documents, born: Any, runs: Sequence[Any], low: int, high: int
) -> Iterator[tuple[int, Sequence[Any]]]:
    """Yield the bodies of a range in order, as runs with the position of the first; pieces are put together.

    What is damaged is left out, or is something else than a text.
    """
    pieces: list[Any] = []
    for document in _segments(segments, born, runs, low, high):
        first, parts, part = place_of(document)
        bodies = document["bodies"]
        if parts == 1:
            yield first, bodies
            continue
        if part == (len(pieces) if part else 0):
            pieces = [*(pieces if part else []), *bodies]
            if len(pieces) == parts:
                texts = [text_of(piece) for piece in pieces]
                yield first, [None if None in texts else "".join(map(str, texts))]


def place_of(document: Document) -> tuple[int, int, int]:
    """Return the position of a segment's first body, of how many parts it is one, and which. Raises `Damage`."""
    first, end = whole_number(document.get("first")), whole_number(document.get("end"))
    parts, part = whole_number(document.get("parts")), whole_number(document.get("part"))
    count = document.get("count", len(document["bodies"]) if isinstance(document.get("bodies"), list) else -1)
    if first is None or end is None or not first < end or parts is None or part is None or not part < parts:
        reason = "its segment has no place"
        raise Damage(None, reason)
    if count != end - first or (parts > 1 and count != 1):
        reason = "its segment has not the length that its positions say"
        raise Damage(first, reason)
    return first, parts, part


def _segments(segments: Documents, born: Any, runs: Sequence[Any], low: int, high: int) -> Iterator[Document]:
    """Yield the sound segments of a range in order. Each holds one record of it at least, so no more are asked for."""
    named = _counting(born, runs)
    order = [("end", 1), ("part", 1)]
    while low < high:
        last: Document | None = None
        most = min(high - low, _AT_ONCE)
        behind = {**named, "end": {"$gt": Int64(low), **_WHOLE}, "part": _WHOLE}
        with segments.find(behind, limit=most, batch_size=most).sort(order) as found:
            for last in found:
                if _has_place(last):
                    yield last
        if last is None:
            return
        low = last["end"]
        if not _has_place(last) or last["part"] + 1 < last["parts"]:  # there may be more that end here
            rest = {**named, "end": low, "part": {"$gte": last["part"], **_WHOLE}, "_id": {"$ne": last["_id"]}}
            with segments.find(rest, batch_size=_AT_ONCE).sort(order) as found:
                yield from filter(_has_place, found)


_WHOLE: Document = {"$type": ["int", "long"], "$not": {"$type": "array"}}
"""The filter for a whole number: an array is of the types of its elements as well."""


def _counting(born: Any, runs: Sequence[Any]) -> Document:
    """Return the filter for the segments that count: they are marked, or of attempts that the head names."""
    return {"of": born, "by": {"$in": [None, *runs]}}


def _has_place(document: Document) -> bool:
    try:
        place_of(document)
    except Damage:
        return False
    return True


def heads(place: Place, scope: str, after: Cursor | None, limit: int) -> Page[Head]:
    """Return a page: up to `limit` heads, newest first, below a cursor. Raises `InvalidInput` for what is no cursor."""
    only: Document = {"_id.s": scope, **ALIVE} if after is None else {"_id.s": scope, "$or": _below(after), **ALIVE}
    rows: list[Head | Damaged] = []
    places: list[int] = []  # of the heads among them
    most = min(limit + 1, _MOST)
    while True:
        found = _some(place.seen_heads, only, skip=len(rows), limit=most)
        rows += map(_row, found)
        places = [at for at, row in enumerate(rows) if isinstance(row, Head)]
        if len(places) > limit or len(found) < most:
            break
        most = max(most, _ROWS)
    if len(places) > limit:
        del rows[places[limit - 1] + 1 :]
    items = [row for row in rows if isinstance(row, Head)]
    damaged = [row for row in rows if isinstance(row, Damaged)]
    return Page(items, encode_cursor(items[-1]) if len(places) > limit else None, damaged)


def _some(heads: Documents, only: Document, *, skip: int, limit: int) -> list[Document]:
    """Return some head documents in the order of the listing, which is that of an index."""
    order = [("updated", -1), ("_id.i", -1)]
    found = heads.find(only, FIELDS, skip=skip, limit=limit, batch_size=limit, allow_disk_use=True)
    with found.sort(order).hint(BY_ACTIVITY) as rows:
        return list(rows)


def _row(document: Document) -> Head | Damaged:
    """Return the head of a document, or what is wrong with it."""
    try:
        state = state_of(document)
        assert state is not None  # noqa: S101  # the filter leaves those out
        state.check_tail()
    except Damage as damage:
        key = key_of(document["_id"])
        return Damaged(key, f"_id {shown(document['_id'])}", damage.error())
    return state.head


def shown(name: Any) -> str:
    """Return an `_id` as text that can be printed."""
    text = repr(dict(name)) if isinstance(name, dict) else repr(name)
    return text if text.isprintable() else text.encode("unicode_escape").decode()


def _below(cursor: Cursor) -> list[Document]:
    """Return what is below a cursor: also what has no time, which stands at the end."""
    updated, name = decode_cursor(cursor)
    if not 0 <= updated <= LARGEST_NUMBER:
        raise InvalidInput("this is not a cursor that a page of this listing gave")
    time, last = Int64(updated), Key("-", name).id
    nothing: tuple[Any, ...] = (None, float("nan"), [], MinKey())
    timeless: list[Document] = [{"updated": value} for value in nothing]
    return [{"updated": {"$lt": time}}, {"updated": time, "_id.i": {"$lt": last}}, *timeless]
