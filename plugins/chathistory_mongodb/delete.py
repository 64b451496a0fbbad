"""Forget, delete, and the sweep of expired conversations. Each is atomic, and removes its data for good.

The head is changed first. From then on no reader sees the records that it no longer covers, and the head shows that
something is left to remove (`cleared` below `start`, or `dead`). So after a crash, the next caller can finish the work.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from bson import Int64, ObjectId
from pymongo import ReturnDocument

from chathistory.errors import Conflict, CorruptRecord, UnsupportedRecord
from chathistory.storage.abilities import SweepReport
from chathistory.storage.values import Head, Key
from chathistory_mongodb.read import load_head
from chathistory_mongodb.schema import (
    BODY_OVERHEAD,
    CREATING,
    HEAD_FIELDS,
    NOT_TOMBSTONE,
    REMOVING,
    Document,
    MongoStoredHead,
    decode_raw,
    head_id,
    is_array_complete,
    is_integer,
    is_tombstone,
    match_document,
    parse_head,
    parse_key,
    with_raw_documents,
)
from chathistory_mongodb.server import EXPIRING, Collections

__all__ = ["delete", "delete_tombstone", "delete_unreadable", "forget_records", "sweep"]


def forget_records(collections: Collections, key: Key, before: int) -> Head | None:
    """Remove the records below a position.

    Args:
        collections: The collections.
        key: The conversation.
        before: The first position to keep.

    Returns:
        The new head; None if there is no such conversation.

    Raises:
        CorruptRecord: The head is damaged.
        UnsupportedRecord: A later version wrote it.
    """
    rest = {"$slice": ["$tail", {"$max": [0, {"$subtract": ["$start", "$from"]}]}, {"$max": [1, {"$size": "$tail"}]}]}
    size = {"$cond": [{"$eq": [{"$type": "$$this"}, "string"]}, {"$strLenBytes": "$$this"}, 0]}
    sizes = {"$map": {"input": "$tail", "in": {"$add": [BODY_OVERHEAD, size]}}}
    document = collections.heads.find_one_and_update(
        {
            "_id": head_id(key),
            "version": {"$exists": True},  # not a tombstone
            "start": {"$lt": Int64(before)},
            "$expr": is_array_complete("$tail", "$from", "$end"),
        },
        [
            {"$set": {"start": {"$min": [{"$max": ["$start", Int64(before)]}, "$end"]}}},
            {"$set": {"tail": rest, "from": {"$max": ["$from", "$start"]}}},
            {"$set": {"bytes": {"$sum": sizes}}},
        ],
        projection=HEAD_FIELDS,
        return_document=ReturnDocument.AFTER,
    )
    stored = load_head(collections.heads, key) if document is None else parse_head(document)
    if stored is None:
        return None
    if stored.cleared < stored.head.start:
        _clear_segments(collections, stored)
    return stored.head


def _clear_segments(collections: Collections, stored: MongoStoredHead) -> None:
    """Remove all bodies below the start from segments: whole segments, and the beginning of the one with the start.

    A damaged segment is removed as a whole if it may hold such a body: nothing in it can be read anyway.
    """
    segments, start = collections.segments, Int64(stored.head.start)
    segments.delete_many({"of": stored.born, "end": {"$lte": start}})
    rest = {"of": stored.born, "end": {"$not": {"$lte": start}}}
    is_sound = is_array_complete("$bodies", "$first", "$end")
    begins_later = {"$and": [is_integer("$first"), {"$gte": ["$first", start]}]}
    segments.delete_many({**rest, "$expr": {"$not": [{"$or": [is_sound, begins_later]}]}})
    kept: Any = {"$slice": ["$bodies", {"$subtract": [start, "$first"]}, {"$size": "$bodies"}]}
    across = {**rest, "first": {"$lt": start}, "$expr": is_sound}
    segments.update_many(across, [{"$set": {"bodies": kept, "first": start}}])
    collections.heads.update_one({"_id": head_id(stored.head.key), "born": stored.born}, {"$max": {"cleared": start}})


def delete(collections: Collections, key: Key, version: str | None) -> bool:
    """Remove a conversation.

    Args:
        collections: The collections.
        key: The conversation.
        version: The version that it must have; None removes whatever is stored, also a damaged conversation.

    Returns:
        False if there was no such conversation.

    Raises:
        Conflict: It has another version.
    """
    name = head_id(key)
    # Before the head is removed: later owners may belong to the next conversation with this name.
    owners = collections.segments.distinct("of", {"key": name, "of": {"$type": "objectId"}})
    document = collections.heads.find_one_and_update(
        {"_id": name, **(NOT_TOMBSTONE if version is None else {"version": version})},
        [{"$replaceWith": {"_id": "$_id", "born": "$born", "dead": REMOVING, "expires": Int64(0)}}],
        return_document=ReturnDocument.AFTER,
    )
    if document is not None:
        _finish_delete(collections, document, owners)
        return True
    document = collections.heads.find_one({"_id": name}, HEAD_FIELDS)
    if document is None:
        return collections.segments.delete_many(_segments_of(name, owners)).deleted_count > 0
    stored = parse_head(document)
    if stored is not None:
        raise Conflict(key, stored.head)
    delete_tombstone(collections, document)
    return False


def delete_tombstone(collections: Collections, document: Document) -> None:
    """Remove a tombstone and its segments.

    The tombstone of a conversation that is being created is claimed first, so that the creation fails.

    Args:
        collections: The collections.
        document: The tombstone.
    """
    if document["dead"] == CREATING:
        unfinished = {"_id": document["_id"], "born": document.get("born"), "dead": CREATING}
        if not collections.heads.update_one(unfinished, {"$set": {"dead": REMOVING}}).matched_count:
            return
    _finish_delete(collections, document, [])


def _finish_delete(collections: Collections, document: Document, owners: Iterable[ObjectId]) -> None:
    """Remove the segments of a tombstone and of `owners` without a head; then the tombstone."""
    name, born = document["_id"], document.get("born")
    owners = [*owners, *([born] if isinstance(born, ObjectId) else [])]
    collections.segments.delete_many(_segments_of(name, owners))
    collections.heads.delete_one({"_id": name, "born": born, "dead": REMOVING})


def _segments_of(name: Document, owners: Iterable[ObjectId]) -> Document:
    """Return the filter for the segments of some owners, and for segments of this name without an owner."""
    return {"$or": [{"of": {"$in": list(owners)}}, {"key": name, "of": {"$not": {"$type": "objectId"}}}]}


def delete_unreadable(collections: Collections, name: Any) -> bool:
    """Remove a head document unless it is a readable conversation; its segments stay, without a head.

    Args:
        collections: The collections.
        name: The `_id` of the head document.

    Returns:
        Whether it was removed.
    """
    stored = with_raw_documents(collections.heads).find_one({"_id": name})
    if stored is None:
        return False
    document = decode_raw(stored)
    if is_tombstone(document):
        delete_tombstone(collections, document)
        return True
    try:
        parse_head(document)
    except (CorruptRecord, UnsupportedRecord):
        return collections.heads.delete_one(match_document(stored)).deleted_count == 1
    return False


def sweep(collections: Collections, before: int) -> SweepReport:
    """Remove the conversations that expired before a time, each as a whole and only if nobody wrote to it meanwhile.

    Args:
        collections: The collections.
        before: The time, in microseconds since 1970 UTC.
    """
    swept = SweepReport()
    expired = {"expires": {"$gte": 0, "$lt": Int64(before)}}
    with collections.heads.find(expired, HEAD_FIELDS).hint(EXPIRING) as documents:
        for document in documents:
            try:
                stored = parse_head(document)
                if stored is not None:
                    swept.expired += delete(collections, stored.head.key, stored.head.revision.version)
                elif parse_key(document["_id"]) is not None:
                    delete_tombstone(collections, document)
            except (CorruptRecord, UnsupportedRecord):
                swept.damaged += 1
            except Conflict:
                pass
    return swept
