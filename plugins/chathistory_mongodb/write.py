"""Appends, and moving bodies out of the head's tail when it is full or a batch is too large for it.

An append is one command: an update with the version that its writer has seen as the condition, or the insertion of the
head. If the tail is full or the batch is large, segments are written first, and the same conditional update makes them
count. Until then, no reader sees them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from bson import Int64, ObjectId
from pymongo.errors import DocumentTooLarge, DuplicateKeyError, OperationFailure, WriteError

from chathistory.errors import Conflict, StoreUnavailable
from chathistory.storage.values import Head, Key, Revision
from chathistory_mongodb.delete import delete_tombstone
from chathistory_mongodb.read import load_head
from chathistory_mongodb.schema import (
    CREATING,
    HEAD_FIELDS,
    Document,
    MongoStoredHead,
    head_id,
    make_head_document,
    match_head,
    measure_bodies,
    parse_head,
    revision_fields,
    to_storable,
)
from chathistory_mongodb.server import Collections

__all__ = ["append_records", "create_conversation", "insert_head"]

FULL_TAIL_SIZE = 64 * 1024  # a tail with at least this many bytes is full
KEPT_TAIL_SIZE = 24 * 1024  # at most this many bytes of the newest bodies stay in the tail
SEGMENT_SIZE = 256 * 1024  # the most bytes of bodies in one segment; one body may be larger
PIECE_LENGTH = 2 * 1024 * 1024  # the most characters of a piece of a body: at most 8 MB of the 16 MB of a document
MAX_RUNS = 8  # the most attempts in a head; before the next one, their segments are marked as committed
_ATTEMPTS = 100


def append_records(
    collections: Collections, key: Key, bodies: Sequence[str], *, after: Head, revision: Revision
) -> Head:
    """Append to a conversation.

    Args:
        collections: The collections.
        key: The conversation.
        bodies: The bodies of the new records.
        after: The head that the writer has seen.
        revision: The new revision.

    Returns:
        The new head.

    Raises:
        Conflict: The conversation has another version than `after`.
        StoreUnavailable: The tail changed during each of many attempts.
    """
    size, version = measure_bodies(bodies), after.revision.version
    seen = Head(key, after.start, after.end, after.revision)  # `after` may belong to another conversation
    tail = {"tail": {"$cond": [{"$eq": ["$version", {"$literal": version}]}, "$tail", []]}}
    for _ in range(_ATTEMPTS):
        failure: OperationFailure | None = None
        if size < FULL_TAIL_SIZE:
            try:
                if _push_bodies(collections, bodies, size, seen=seen, revision=revision):
                    return Head(key, seen.start, seen.end + len(bodies), revision)
            except OperationFailure as error:  # the server cannot evaluate the update on a damaged head or a tombstone
                failure = error
        stored = load_head(collections.heads, key, tail)
        if failure is not None and stored is not None:
            raise failure
        if stored is None or stored.head.revision.version != version:
            raise Conflict(key, stored.head if stored else None)
        seen = stored.head  # a forget may have moved its start, which is no conflict
        if max(size, stored.tail_bytes) >= FULL_TAIL_SIZE and _append_with_segments(
            collections, stored, bodies, revision
        ):
            return Head(key, seen.start, seen.end + len(bodies), revision)
    raise _too_many_conflicts()


def _push_bodies(collections: Collections, bodies: Sequence[str], size: int, *, seen: Head, revision: Revision) -> bool:
    in_place = {"$eq": [Int64(seen.end), {"$add": ["$from", {"$size": "$tail"}]}]}
    change = {
        "$push": {"tail": {"$each": bodies}},
        "$inc": {"bytes": size},
        "$set": revision_fields(revision, seen.end + len(bodies)),
    }
    only = {**match_head(seen), "bytes": {"$lt": FULL_TAIL_SIZE}, "$expr": in_place}
    return collections.heads.update_one(only, change).matched_count == 1


def _append_with_segments(
    collections: Collections, stored: MongoStoredHead, bodies: Sequence[str], revision: Revision
) -> bool:
    """Append, and keep only the newest bodies in the tail; return False if another writer was faster."""
    head, first = stored.head, stored.tail_start
    bodies = [*map(to_storable, stored.tail), *bodies]
    moved = len(bodies) - _count_newest(bodies)
    runs = list(stored.runs)
    if len(runs) >= MAX_RUNS:  # mark their segments as committed, so that the list stays short
        named = {"of": stored.born, "by": {"$in": [run["by"] for run in runs]}}
        lowest = min(run["first"] for run in runs)
        collections.segments.update_many({**named, "end": {"$gt": lowest}}, {"$set": {"by": None}})
        runs = []
    attempt = ObjectId()
    owner = {"key": head_id(head.key), "of": stored.born, "by": attempt}
    collections.segments.insert_many(_make_segments(owner, first, bodies[:moved]))
    change = {
        **revision_fields(revision, first + len(bodies)),
        "from": Int64(first + moved),
        "bytes": measure_bodies(bodies[moved:]),
        "tail": bodies[moved:],
        "runs": [*runs, {"by": attempt, "first": Int64(first)}],
    }
    return _commit_segments(collections, owner, {**match_head(head), "from": Int64(first)}, {"$set": change})


def _count_newest(bodies: Sequence[Any]) -> int:
    """Return how many of the last bodies may stay in a tail."""
    size = 0
    for count, body in enumerate(reversed(bodies)):
        size += measure_bodies([body])
        if size > KEPT_TAIL_SIZE:
            return count
    return len(bodies)


def _make_segments(owner: Document, first: int, bodies: Sequence[Any]) -> Iterator[Document]:
    """Yield segments of consecutive bodies: several bodies in one, or one body in several."""

    def make_segment(first: int, bodies: list[Any], part: int = 0, parts: int = 1) -> Document:
        place = {"first": Int64(first), "end": Int64(first + len(bodies)), "part": part, "parts": parts}
        return {"_id": ObjectId(), **owner, **place, "bodies": bodies}

    batch: list[Any] = []
    size = 0
    for position, body in enumerate(bodies, first):
        length = measure_bodies([body])
        if batch and size + length > SEGMENT_SIZE:
            yield make_segment(position - len(batch), batch)
            batch, size = [], 0
        if isinstance(body, str) and len(body) > PIECE_LENGTH:
            parts = -(-len(body) // PIECE_LENGTH)
            for part in range(parts):
                yield make_segment(position, [body[part * PIECE_LENGTH : (part + 1) * PIECE_LENGTH]], part, parts)
        else:
            batch.append(body)
            size += length
    if batch:
        yield make_segment(first + len(bodies) - len(batch), batch)


def _commit_segments(collections: Collections, owner: Document, only: Document, change: Document) -> bool:
    """Make the conditional update that makes segments count; if it has certainly failed, remove them."""
    mine = {"of": owner["of"], "by": owner["by"]}
    try:
        is_done = collections.heads.update_one(only, change).matched_count == 1
    except (WriteError, DocumentTooLarge):
        collections.segments.delete_many(mine)
        raise
    if not is_done:
        collections.segments.delete_many(mine)
    return is_done


def create_conversation(
    collections: Collections, key: Key, bodies: Sequence[str], *, revision: Revision, first: int
) -> Head:
    """Create a conversation.

    Args:
        collections: The collections.
        key: The conversation.
        bodies: The bodies of its records.
        revision: Its revision.
        first: The position of its first record.

    Returns:
        Its head.

    Raises:
        Conflict: The conversation already exists.
        StoreUnavailable: It was created and deleted again during each of many attempts.
    """
    head, name = Head(key, first, first + len(bodies), revision), head_id(key)
    moved = len(bodies) - _count_newest(bodies) if measure_bodies(bodies) >= FULL_TAIL_SIZE else 0
    for _ in range(_ATTEMPTS):
        born = ObjectId()
        runs = [{"by": born, "first": Int64(first)}] if moved else []
        new = make_head_document(head, born, bodies[moved:], runs)
        if not moved and insert_head(collections, new):
            return head
        # The segments are written before their head, so a tombstone refers to them in case of a crash.
        unfinished = {"_id": name, "born": born, "dead": CREATING}
        if moved and insert_head(collections, {**unfinished, "expires": Int64(0)}):
            owner = {"key": name, "of": born, "by": born}
            collections.segments.insert_many(_make_segments(owner, first, bodies[:moved]))
            del new["_id"]
            if _commit_segments(collections, owner, unfinished, {"$set": new, "$unset": {"dead": True}}):
                return head
        document = collections.heads.find_one({"_id": name}, HEAD_FIELDS)
        if document and (stored := parse_head(document)):
            raise Conflict(key, stored.head)
        if document:
            delete_tombstone(collections, document)
    raise _too_many_conflicts()


def insert_head(collections: Collections, document: Document) -> bool:
    """Insert a head document; return False if there is one with that `_id`.

    Args:
        collections: The collections.
        document: The head document, or a tombstone.

    Raises:
        DuplicateKeyError: A unique index that this store did not create refuses the document.
    """
    try:
        collections.heads.insert_one(document)
    except DuplicateKeyError as error:
        if (error.details or {}).get("keyPattern") != {"_id": 1}:
            raise
        return False
    return True


def _too_many_conflicts() -> StoreUnavailable:
    return StoreUnavailable(
        f"append failed: others changed the conversation during each of {_ATTEMPTS} attempts", outcome="not stored"
    )
