"""Appends, and what is moved out of the head's tail when it is full or a batch is too large for it.

An append is one command: an update that only the version that its writer has seen passes, or the insertion of the
head. Only if the tail is full, or the batch is large, are segments written first; the same guarded update then puts
them in force. Until then, and if it never comes, nobody sees them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from bson import Int64, ObjectId
from pymongo.errors import DocumentTooLarge, DuplicateKeyError, OperationFailure, WriteError

from chathistory.errors import Conflict, StoreUnavailable
from chathistory.storage.store import Head, Key, Revision
from chathistory_mongodb.connection import Place
from chathistory_mongodb.documents import (
    FIELDS,
    MAKING,
    Document,
    Documents,
    State,
    guard,
    identity,
    lasting,
    new_head,
    state_of,
    storable,
    weight,
)
from chathistory_mongodb.reading import is_sound
from chathistory_mongodb.removing import bury

__all__ = ["append", "create"]

TAIL = 64 * 1024  # bytes of a tail from which on it is full
KEPT = 24 * 1024  # bytes of the newest bodies that stay in the tail
SEGMENT = 256 * 1024  # bytes of bodies in one segment
PIECE = 2 * 1024 * 1024  # characters of a piece of a body: at most 8 MB of the 16 that a document may have
RUNS = 8  # attempts that a head names before their segments are marked
_TRIES = 100


def append(place: Place, key: Key, bodies: Sequence[str], *, after: Head, revision: Revision) -> Head:
    """Append to a conversation of which `after` was seen. Raises `Conflict`."""
    size, base = weight(bodies), after
    for _ in range(_TRIES):
        if size < TAIL and _pushed(place, key, bodies, size, base=base, revision=revision):
            return Head(key, base.start, base.end + len(bodies), revision)
        state = _present(place, key, after.revision.version)
        if state is None or state.head.revision.version != after.revision.version:
            raise Conflict(key, state.head if state else None)
        base = state.head  # a forget has moved its start, which disturbs no writer
        full = state.bytes >= TAIL or size >= TAIL
        if full and _rearranged(place, state, bodies, revision):
            return Head(key, base.start, base.end + len(bodies), revision)
    raise _restless()


def _pushed(place: Place, key: Key, bodies: Sequence[str], size: int, *, base: Head, revision: Revision) -> bool:
    in_place = {"$eq": [Int64(base.end), {"$add": ["$from", {"$size": "$tail"}]}]}  # an error if that makes no sense
    only = {**guard(Head(key, base.start, base.end, base.revision)), "bytes": {"$lt": TAIL}, "$expr": in_place}
    change = {
        "$push": {"tail": {"$each": bodies}},
        "$inc": {"bytes": size},
        "$set": lasting(revision, base.end + len(bodies)),
    }
    try:
        return place.heads.update_one(only, change).matched_count == 1
    except OperationFailure:  # what is damaged, or dead, may be nothing that the server can calculate with
        if is_sound(place.heads, {"_id": identity(key)}):
            raise
        return False


def _present(place: Place, key: Key, version: str) -> State | None:
    """Return the present state, with the whole tail if its version is this one."""
    tail = {"$cond": [{"$eq": ["$version", {"$literal": version}]}, "$tail", []]}
    document = place.heads.find_one({"_id": identity(key)}, {**FIELDS, "tail": tail})
    state = state_of(document) if document else None
    if state:
        state.check_tail()
    return state


def _rearranged(place: Place, state: State, bodies: Sequence[str], revision: Revision) -> bool:
    """Append, and keep only the newest bodies in the tail; False: somebody was faster."""
    every = [*map(storable, state.tail), *bodies]
    moved = len(every) - _newest(every)
    attempt = ObjectId()
    runs = [*_settled(place, state), {"by": attempt, "first": Int64(state.tail_first)}]
    owner = Owner(state.head.key, state.born, attempt)
    segments = _segments(owner, state.tail_first, every[:moved])
    change = {
        **lasting(revision, state.head.end + len(bodies)),
        "from": Int64(state.tail_first + moved),
        "bytes": weight(every[moved:]),
        "tail": every[moved:],
        "runs": runs,
    }
    place.segments.insert_many(segments)
    return _in_force(place, state.born, attempt, {**guard(state.head), "from": Int64(state.tail_first)}, change)


def _newest(bodies: Sequence[Any]) -> int:
    """Return how many bodies from the end on may stay in a tail."""
    size = 0
    for count, body in enumerate(reversed(bodies)):
        size += weight([body])
        if size > KEPT:
            return count
    return len(bodies)


def _settled(place: Place, state: State) -> list[Document]:
    """Mark the segments of attempts that the head names, once there are many; return those that it has yet to name."""
    runs = list(state.runs)
    if len(runs) < RUNS:
        return runs
    lowest = min(run["first"] for run in runs)
    named = {"of": state.born, "end": {"$gt": lowest}, "by": {"$in": [run["by"] for run in runs]}}
    place.segments.update_many(named, {"$set": {"by": None}})
    return []


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose a segment is: the conversation, its `born`, and the attempt at an append that writes it."""

    key: Key
    born: ObjectId
    by: ObjectId


def _segments(owner: Owner, first: int, bodies: Sequence[Any]) -> Iterator[Document]:
    """Yield the segments of a run of bodies: several bodies in one, or one body in several."""
    run: list[Any] = []
    size = 0
    for position, body in enumerate(bodies, first):
        length = weight([body])
        if run and size + length > SEGMENT:
            yield _segment(owner, position - len(run), run)
            run, size = [], 0
        if isinstance(body, str) and len(body) > PIECE:
            yield from _pieces(owner, position, body)
        else:
            run.append(body)
            size += length
    if run:
        yield _segment(owner, first + len(bodies) - len(run), run)


def _pieces(owner: Owner, position: int, body: str) -> Iterator[Document]:
    parts = -(-len(body) // PIECE)
    for part in range(parts):
        yield _segment(owner, position, [body[part * PIECE : (part + 1) * PIECE]], part=part, parts=parts)


def _segment(owner: Owner, first: int, bodies: Sequence[Any], *, part: int = 0, parts: int = 1) -> Document:
    place = {"_id": ObjectId(), "key": identity(owner.key), "of": owner.born, "by": owner.by}
    place |= {"first": Int64(first), "end": Int64(first + len(bodies))}
    return {**place, "part": part, "parts": parts, "bodies": list(bodies)}


def _in_force(place: Place, born: ObjectId, by: ObjectId, only: Document, change: Document, **more: Any) -> bool:
    """Make the guarded update that puts segments in force; if it certainly failed, remove them."""
    try:
        done = place.heads.update_one(only, {"$set": change, **more}).matched_count == 1
    except (WriteError, DocumentTooLarge):
        _discard(place.segments, born, by)
        raise
    if not done:
        _discard(place.segments, born, by)
    return done


def _discard(segments: Documents, born: ObjectId, by: ObjectId) -> None:
    segments.delete_many({"of": born, "by": by})


def create(place: Place, key: Key, bodies: Sequence[str], *, revision: Revision, first: int) -> Head:
    """Make a conversation. Raises `Conflict` if there is one."""
    head = Head(key, first, first + len(bodies), revision)
    make = _inserted if weight(bodies) < TAIL else _built
    for _ in range(_TRIES):
        if make(place, head, bodies):
            return head
        document = place.heads.find_one({"_id": identity(key)}, FIELDS)
        state = state_of(document) if document else None
        if state:
            raise Conflict(key, state.head)
        if document:
            bury(place, document)
    raise _restless()


def _inserted(place: Place, head: Head, bodies: Sequence[str]) -> bool:
    return _new(place, new_head(head, ObjectId(), bodies))


def _new(place: Place, document: Document) -> bool:
    """Insert a head document; False: there is one of that name."""
    try:
        place.heads.insert_one(document)
    except DuplicateKeyError as error:
        if (error.details or {}).get("keyPattern") != {"_id": 1}:
            raise
        return False
    return True


def _built(place: Place, head: Head, bodies: Sequence[str]) -> bool:
    """Make a conversation that begins with segments; what a crash leaves of it is found under its name."""
    born = ObjectId()
    name = identity(head.key)
    if not _new(place, {"_id": name, "born": born, "dead": MAKING, "expires": Int64(0)}):
        return False
    moved = len(bodies) - _newest(bodies)
    run = {"by": born, "first": Int64(head.start)}
    place.segments.insert_many(_segments(Owner(head.key, born, born), head.start, bodies[:moved]))
    document = new_head(head, born, bodies[moved:], runs=[run])
    del document["_id"]
    unfinished = {"_id": name, "born": born, "dead": MAKING}
    return _in_force(place, born, born, unfinished, document, **{"$unset": {"dead": True}})


def _restless() -> StoreUnavailable:
    return StoreUnavailable("append failed: the conversation changed too often meanwhile", outcome="not stored")
