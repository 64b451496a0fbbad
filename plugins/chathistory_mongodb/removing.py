"""Forget, delete, and the broom: what a conversation loses is gone for good, whole or not at all.

The head goes first. From then on nobody sees what it no longer vouches for, and the head says that something is left to
be removed (`cleared` below `start`, or `dead`), so that the next who comes by can finish what a crash left.
"""

from __future__ import annotations

from typing import Any

from bson import Int64, ObjectId
from pymongo import ReturnDocument

from chathistory.errors import Conflict
from chathistory.store import Head, Key
from chathistory_mongodb.connection import Place
from chathistory_mongodb.documents import EXTRA, FIELDS, MAKING, REMOVING, Document, State, identity, state_of
from chathistory_mongodb.indexes import EXPIRING

__all__ = ["bury", "delete", "forget", "sweep"]

_LIVE = {"$exists": True}  # of a version: a dead head has none


def forget(place: Place, key: Key, before: int) -> Head | None:
    """Remove the records below `before`. None: no such conversation."""
    name = identity(key)
    only = {"_id": name, "version": _LIVE, "start": {"$lt": Int64(before)}}
    document = place.heads.find_one_and_update(
        only, _cut(before), projection=FIELDS, return_document=ReturnDocument.AFTER
    )
    if document is None:
        document = place.heads.find_one({"_id": name}, FIELDS)
    state = state_of(document) if document else None
    if state is None:
        return None
    if state.cleared < state.head.start:
        _clear(place, state)
    return state.head


def _cut(before: int) -> list[Document]:
    """Return the update that moves the start, and takes the tail's bodies below it away."""
    gone = {"$max": [0, {"$subtract": ["$start", "$from"]}]}
    left = {"$slice": ["$tail", gone, {"$max": [1, {"$size": "$tail"}]}]}
    weights = {"$map": {"input": "$tail", "in": {"$add": [EXTRA, {"$strLenBytes": "$$this"}]}}}
    return [
        {"$set": {"start": {"$min": [{"$max": ["$start", Int64(before)]}, "$end"]}}},
        {"$set": {"tail": left, "from": {"$max": ["$from", "$start"]}}},
        {"$set": {"bytes": {"$sum": weights}}},
    ]


def _clear(place: Place, state: State) -> None:
    """Remove what segments hold below the start: whole ones, and the beginning of the one in which it lies."""
    start = Int64(state.head.start)
    place.segments.delete_many({"of": state.born, "end": {"$lte": start}})
    rest: Any = {"$slice": ["$bodies", {"$subtract": [start, "$first"]}, {"$size": "$bodies"}]}
    across = {"of": state.born, "end": {"$gt": start}, "first": {"$lt": start}}
    place.segments.update_many(across, [{"$set": {"bodies": rest, "first": start}}])
    place.heads.update_one({"_id": identity(state.head.key), "born": state.born}, {"$max": {"cleared": start}})


def delete(place: Place, key: Key, version: str | None) -> bool:
    """Remove the conversation. False: there was none. Raises `Conflict`."""
    name = identity(key)
    dead = {"_id": "$_id", "born": "$born", "dead": REMOVING, "expires": Int64(0)}
    document = place.heads.find_one_and_update(
        {"_id": name, "version": _LIVE if version is None else version},
        [{"$replaceWith": dead}],
        return_document=ReturnDocument.AFTER,
    )
    if document is not None:
        _finish(place, name, document["born"])
        return True
    document = place.heads.find_one({"_id": name}, FIELDS)
    state = state_of(document) if document else None
    if state is not None:
        raise Conflict(key, state.head)
    if document is not None:
        bury(place, document)
    return False


def bury(place: Place, document: Document) -> None:
    """Remove what a dead head stands for; one that is being made is claimed first, so that it cannot come alive."""
    name, born = document["_id"], document["born"]
    if document["dead"] == MAKING:
        claimed = {"_id": name, "born": born, "dead": MAKING}
        if not place.heads.update_one(claimed, {"$set": {"dead": REMOVING}}).matched_count:
            return
    _finish(place, name, born)


def _finish(place: Place, name: Document, born: ObjectId) -> None:
    place.segments.delete_many({"of": born})
    place.heads.delete_one({"_id": name, "born": born, "dead": REMOVING})


def sweep(place: Place, before: int) -> int:
    """Remove what expired before that time, each whole and only if it was not written since; return how many."""
    removed = 0
    for document in place.heads.find({"expires": {"$gte": 0, "$lt": Int64(before)}}, FIELDS).hint(EXPIRING):
        if document.get("dead"):
            bury(place, document)
        else:
            removed += _expired(place, document)
    return removed


def _expired(place: Place, document: Document) -> bool:
    try:
        return delete(place, Key(document["scope"], document["id"]), document["version"])
    except Conflict:
        return False
