"""Access to the two collections: the client, the indexes, and a check that the server works like MongoDB.

The indexes are created once, by name, and checked: without them, queries would be slow or wrong.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from bson import Int64, ObjectId
from pymongo import IndexModel, MongoClient, ReadPreference, ReturnDocument, WriteConcern
from pymongo.errors import DuplicateKeyError
from pymongo.read_concern import ReadConcern

from chathistory.checks import class_name
from chathistory.errors import ConfigError, StoreRejected
from chathistory_mongodb.errors import translate_errors
from chathistory_mongodb.schema import (
    CODEC,
    Document,
    Documents,
    is_array_complete,
    match_document,
    with_raw_documents,
)
from chathistory_mongodb.urls import MongoTarget, check_client, is_database_name, is_prefix

__all__ = ["BY_ACTIVITY", "EXPIRING", "Client", "Collections", "Server", "find_difference", "get_collections"]

Client: TypeAlias = MongoClient[Document]

BY_ACTIVITY, EXPIRING = "by_activity", "expiring"
_HEAD_INDEXES = (
    IndexModel({"_id.s": 1, "updated": 1, "_id.i": 1}, name=BY_ACTIVITY),  # on the _id, which cannot change
    IndexModel({"expires": 1}, name=EXPIRING, partialFilterExpression={"expires": {"$gte": 0}}),
)
_SEGMENT_INDEXES = (
    IndexModel({"of": 1, "end": 1, "part": 1}, name="in_order"),
    IndexModel({"key": 1, "of": 1}, name="by_key"),
)
_SAFE = WriteConcern(w="majority", j=True, wtimeout=5000)


@dataclass(frozen=True, slots=True)
class Collections:
    """The two collections, each with two settings.

    Attributes:
        heads: Head documents, read from the primary: for writes, and for reads that a write depends on.
        segments: Segment documents, in the same way.
        preferred_heads: Head documents, with the read preference and read concern of the client: for readers.
        preferred_segments: Segment documents, in the same way.
    """

    heads: Documents
    segments: Documents
    preferred_heads: Documents
    preferred_segments: Documents


class Server:
    """The client, either one of the caller or created at the first use and then owned.

    Creating a client for `mongodb+srv` queries the name server, so it is not done when a URL is parsed.
    """

    def __init__(self, target: MongoTarget, collections: Collections | None = None) -> None:
        self._lock = threading.Lock()
        self._target = target
        self._client: Client | None = None
        self._collections = collections
        self._has_indexes = False

    def open_collections(self) -> Collections:
        """Return the collections, for reading."""
        if self._collections is None:
            with self._lock:
                if self._collections is None:
                    self._client = MongoClient(self._target.uri, connect=False)
                    self._collections = get_collections(self._client, self._target)
        return self._collections

    def prepare_collections(self) -> Collections:
        """Return the collections for writing, and create their indexes at the first call.

        Raises:
            StoreRejected: An index or a collection has other settings than this store needs.
        """
        collections = self.open_collections()
        if not self._has_indexes:
            with self._lock:
                if not self._has_indexes:
                    _ensure_indexes(collections.heads, _HEAD_INDEXES)
                    _ensure_indexes(collections.segments, _SEGMENT_INDEXES)
                    self._has_indexes = True
        return collections

    def close(self) -> None:
        """Close the client, if this object created it."""
        with self._lock:
            if self._client is not None:
                self._client.close()


def get_collections(client: Client, target: MongoTarget) -> Collections:
    """Return the collections; a write concern that the client sets is kept.

    Args:
        client: The client.
        target: The names of the database and of the prefix.

    Raises:
        ConfigError: A name is invalid, or the client has unacknowledged writes (w=0).
    """
    check_client(client)
    for name, value in (("database", target.database), ("prefix", target.prefix)):
        if not isinstance(value, str):
            raise ConfigError(f"{name}: must be text, not {class_name(value)}")
    if not is_database_name(target.database) or not is_prefix(target.prefix):
        raise ConfigError(
            "mongodb: invalid database name or collection prefix; a prefix must have letters, digits, '_', '-' and '.'"
        )
    concern = _SAFE if client.write_concern.is_server_default else client.write_concern
    if not concern.acknowledged:
        raise ConfigError("mongodb: the client must have at least w=1; with w=0 it never learns whether a write failed")
    base = client.get_database(target.database, codec_options=CODEC, write_concern=concern)
    now: dict[str, Any] = {"read_preference": ReadPreference.PRIMARY, "read_concern": ReadConcern("local")}
    heads, segments = f"{target.prefix}conversations", f"{target.prefix}segments"
    return Collections(
        base.get_collection(heads, **now), base.get_collection(segments, **now), base[heads], base[segments]
    )


@translate_errors("creating the indexes")
def _ensure_indexes(collection: Documents, indexes: Sequence[IndexModel]) -> None:
    """Create the missing indexes. Raises `StoreRejected` if an existing one has other keys."""
    present: dict[str, Mapping[str, Any]] = {index["name"]: index for index in collection.list_indexes()}
    if "collation" in present.get("_id_", {}):
        raise StoreRejected(
            f"the collection {collection.name} has a collation of its own, under which different names or versions are "
            "equal; use a collection without one"
        )
    for index in indexes:
        name, keys = index.document["name"], dict(index.document["key"])
        if name in present and dict(present[name]["key"]) != keys:
            raise StoreRejected(f"the index {name!r} of {collection.name} must have the keys {keys}; drop it")
    missing = [index for index in indexes if index.document["name"] not in present]
    if missing:
        collection.create_indexes(missing)


def find_difference(documents: Documents) -> str | None:
    """Return how the server differs from MongoDB; None if it does not.

    Tries what the version check, forget and repair depend on, with a document that is removed afterwards.

    Args:
        documents: The collection for the document.
    """
    name = ObjectId()
    try:
        trials = _try_out(documents, name)
    finally:
        documents.delete_one({"_id": name})
    return next((difference for difference, is_as_expected in trials.items() if not is_as_expected), None)


def _try_out(documents: Documents, name: ObjectId) -> dict[str, bool]:
    """Return whether each trial had the right outcome; the keys describe the failures."""
    document = {"_id": name, "key": {"s": "", "i": ""}, "version": "a", "tail": ["x", "é"], "end": Int64(2)}
    documents.insert_one({**document, "from": Int64(0), "time": Int64(2**53 - 1)})
    trials: dict[str, bool] = {}
    try:
        documents.insert_one({"_id": name})
        trials["it accepts two documents with one _id"] = False
    except DuplicateKeyError:
        pass
    change: Any = {"$push": {"tail": {"$each": ["y", "z"]}}, "$set": {"version": "b"}, "$inc": {"end": Int64(2)}}
    count = documents.update_one({"_id": name, "version": "c"}, change).matched_count
    trials["an update changes a document that its filter does not match"] = count == 0
    seen = {"_id": name, "version": "a", "$expr": is_array_complete("$tail", "$from", "$end")}
    counts = [documents.update_one(seen, change).matched_count for _ in range(2)]
    trials["a conditional update is not done exactly once"] = counts == [1, 0]
    rest: Any = {"$slice": ["$tail", {"$subtract": [Int64(2), "$from"]}, {"$size": "$tail"}]}
    size = {"$sum": {"$map": {"input": "$tail", "in": {"$strLenBytes": "$$this"}}}}
    steps = [{"$set": {"size": size}}, {"$set": {"tail": rest, "from": Int64(2)}}]
    cut: Any = documents.find_one_and_update({"_id": name}, steps, return_document=ReturnDocument.AFTER) or {}
    outcome = [cut.get(field) for field in ("tail", "from", "size", "time")]
    trials["an update by an expression has another result"] = outcome == [["y", "z"], 2, 5, 2**53 - 1]
    stored = with_raw_documents(documents).find_one({"_id": name})
    same = match_document(stored) if stored else {"_id": name}
    counts = [documents.replace_one(same, {"version": "d"}).matched_count for _ in range(2)]
    trials["it does not compare whole documents"] = counts == [1, 0]
    return trials
