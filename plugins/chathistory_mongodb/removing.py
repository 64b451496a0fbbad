"""Forget, delete, and the broom: what a conversation loses is gone for good, whole or not at all.

The head goes first. From then on nobody sees what it no longer vouches for, and the head says that something is left to
be removed (`cleared` below `start`, or `dead`), so that the next who comes by can finish what a crash left.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from bson import Int64, ObjectId, decode
from bson.raw_bson import RawBSONDocument
from pymongo import ReturnDocument
from pymongo.errors import OperationFailure

from chathistory.errors import Conflict
from chathistory.storage.store import Head, Key
from chathistory.storage.sweep import Swept
from chathistory_mongodb.connection import Place
from chathistory_mongodb.documents import (
    ALIVE,
    CODEC,
    EXTRA,
    FIELDS,
    MAKING,
    REMOVING,
    SOUND_TAIL,
    Document,
    State,
    exactly,
    identity,
    is_dead,
    key_of,
    state_of,
)
from chathistory_mongodb.faults import Damage
from chathistory_mongodb.indexes import EXPIRING
from chathistory_mongodb.reading import is_sound

__all__ = ["bury", "delete", "discard", "forget", "sweep"]

_LIVE = {"$exists": True}  # of a version: a dead head has none


def forget(place: Place, key: Key, before: int) -> Head | None:
    """Remove the records below `before`. None: no such conversation. Raises `Damage`."""
    name = identity(key)
    only = {"_id": name, "version": _LIVE, "start": {"$lt": Int64(before)}, **SOUND_TAIL}
    try:
        document = place.heads.find_one_and_update(
            only, _cut(before), projection=FIELDS, return_document=ReturnDocument.AFTER
        )
    except OperationFailure:  # what is damaged, or dead, may be nothing that the server can calculate with
        if is_sound(place.heads, {"_id": name}):
            raise
        return None
    if document is None:
        document = place.heads.find_one({"_id": name}, FIELDS)
    state = state_of(document) if document else None
    if state is None:
        return None
    state.check_tail()
    if state.cleared < state.head.start:
        _clear(place, state)
    return state.head


def _cut(before: int) -> list[Document]:
    """Return the update that moves the start, and takes the tail's bodies below it away."""
    gone = {"$max": [0, {"$subtract": ["$start", "$from"]}]}
    left = {"$slice": ["$tail", gone, {"$max": [1, {"$size": "$tail"}]}]}
    size = {"$cond": [{"$eq": [{"$type": "$$this"}, "string"]}, {"$strLenBytes": "$$this"}, 0]}
    weights = {"$map": {"input": "$tail", "in": {"$add": [EXTRA, size]}}}
    return [
        {"$set": {"start": {"$min": [{"$max": ["$start", Int64(before)]}, "$end"]}}},
        {"$set": {"tail": left, "from": {"$max": ["$from", "$start"]}}},
        {"$set": {"bytes": {"$sum": weights}}},
    ]


def _clear(place: Place, state: State) -> None:
    """Remove what segments hold below the start: whole ones, and the beginning of the one in which it lies.

    One that is damaged goes as a whole if it may hold something of that: nothing in it can be read anyway.
    """
    start = Int64(state.head.start)
    place.segments.delete_many({"of": state.born, "end": {"$lte": start}})
    behind = {"of": state.born, "end": {"$not": {"$lte": start}}}
    is_behind = {"$and": [_whole("$first"), {"$gte": ["$first", start]}]}
    place.segments.delete_many({**behind, "$expr": {"$not": [{"$or": [_SOUND, is_behind]}]}})
    rest: Any = {"$slice": ["$bodies", {"$subtract": [start, "$first"]}, {"$size": "$bodies"}]}
    across = {**behind, "first": {"$lt": start}, "$expr": _SOUND}
    place.segments.update_many(across, [{"$set": {"bodies": rest, "first": start}}])
    place.heads.update_one({"_id": identity(state.head.key), "born": state.born}, {"$max": {"cleared": start}})


def _whole(field: str) -> Document:
    return {"$in": [{"$type": field}, ["int", "long"]]}


_SOUND: Document = {
    "$cond": [
        {"$and": [_whole("$first"), _whole("$end"), {"$isArray": "$bodies"}]},
        {"$eq": [{"$size": {"$cond": [{"$isArray": "$bodies"}, "$bodies", []]}}, {"$subtract": ["$end", "$first"]}]},
        False,
    ]
}
"""Whether a segment has as many bodies as it has positions."""


def delete(place: Place, key: Key, version: str | None) -> bool:
    """Remove the conversation, without a version whatever is there. False: there was none. Raises `Conflict`."""
    name = identity(key)
    # Before the head goes: later ones may be of the next conversation of this name.
    owners = place.segments.distinct("of", {"key": name, "of": {"$type": "objectId"}})
    dead = {"_id": "$_id", "born": "$born", "dead": REMOVING, "expires": Int64(0)}
    document = place.heads.find_one_and_update(
        {"_id": name, **(ALIVE if version is None else {"version": version})},
        [{"$replaceWith": dead}],
        return_document=ReturnDocument.AFTER,
    )
    if document is not None:
        _finish(place, document, owners)
        return True
    document = place.heads.find_one({"_id": name}, FIELDS)
    state = state_of(document) if document else None
    if state is not None:
        raise Conflict(key, state.head)
    if document is not None:
        bury(place, document)
        return False
    return place.segments.delete_many(_of_these(name, owners)).deleted_count > 0


def bury(place: Place, document: Document) -> None:
    """Remove what a dead head stands for; one that is being made is claimed first, so that it cannot come alive."""
    if document["dead"] == MAKING:
        claimed = {"_id": document["_id"], "born": document.get("born"), "dead": MAKING}
        if not place.heads.update_one(claimed, {"$set": {"dead": REMOVING}}).matched_count:
            return
    _finish(place, document, [])


def _finish(place: Place, document: Document, owners: Iterable[Any]) -> None:
    """Remove the segments of a dead head and then the head; `owners`: `of` of others that lost theirs."""
    born = document.get("born")
    every = [*owners, *([born] if isinstance(born, ObjectId) else [])]
    place.segments.delete_many(_of_these(document["_id"], every))
    place.heads.delete_one({"_id": document["_id"], "born": born, "dead": REMOVING})


def _of_these(name: Document, owners: list[ObjectId]) -> Document:
    """Return the filter for the segments of these, and those of the name that are of nobody."""
    return {"$or": [{"of": {"$in": owners}}, {"key": name, "of": {"$not": {"$type": "objectId"}}}]}


def discard(place: Place, name: Any) -> bool:
    """Remove a head document unless it is a conversation that can be read; its segments are then nobody's."""
    raw = place.heads.with_options(codec_options=CODEC.with_options(document_class=RawBSONDocument))
    stored = raw.find_one({"_id": name})
    document = decode(stored.raw, CODEC) if stored else None
    if stored is None or document is None:
        return False
    if is_dead(document):
        bury(place, document)
        return True
    tail = document.get("tail")
    document["size"] = len(tail) if isinstance(tail, list) else -1
    try:
        state = state_of(document)
        assert state is not None  # noqa: S101  # it is not dead
        state.check_tail()
    except Damage:
        return place.heads.delete_one(exactly(stored)).deleted_count == 1
    return False


def sweep(place: Place, before: int) -> Swept:
    """Remove what expired before that time, each whole and only if it was not written since; return how many."""
    swept = Swept()
    expired = {"expires": {"$gte": 0, "$lt": Int64(before)}}
    with place.heads.find(expired, FIELDS).hint(EXPIRING) as documents:
        for document in documents:
            try:
                state = state_of(document)
                key = key_of(document["_id"])
                if state is not None:
                    swept.expired += _expired(place, state.head)
                elif key is not None:
                    bury(place, document)
            except Damage:
                swept.damaged += 1
    return swept


def _expired(place: Place, head: Head) -> bool:
    try:
        return delete(place, head.key, head.revision.version)
    except Conflict:
        return False
