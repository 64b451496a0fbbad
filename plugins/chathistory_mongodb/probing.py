"""Whether a server does what guard, forget and repair rest on: one that is only like MongoDB may differ in it."""

from __future__ import annotations

from typing import Any

from bson import Int64, ObjectId
from bson.raw_bson import RawBSONDocument
from pymongo import ReturnDocument
from pymongo.errors import DuplicateKeyError

from chathistory_mongodb.connection import Place
from chathistory_mongodb.documents import CODEC, SOUND_TAIL, Documents, exactly
from chathistory_mongodb.faults import Refused

__all__ = ["probe"]


def probe(place: Place) -> None:
    """Try it out on a document that is gone afterwards. Raises `Refused` if the server differs."""
    name = ObjectId()
    document = {"_id": name, "key": {"s": "", "i": ""}, "version": "a", "tail": ["x", "é"], "end": Int64(2)}
    try:
        place.segments.insert_one({**document, "from": Int64(0), "time": Int64(2**53 - 1)})
        wrong = _difference(place.segments, name)
    finally:
        place.segments.delete_one({"_id": name})
    if wrong:
        raise Refused(f"the server does something else than MongoDB, so that nothing is safe there: {wrong}")


def _difference(documents: Documents, name: ObjectId) -> str | None:
    """Return what the server does otherwise; None: nothing."""
    if _takes_twice(documents, name):
        return "it takes two documents with one _id"
    change: Any = {"$push": {"tail": {"$each": ["y", "z"]}}, "$set": {"version": "b"}, "$inc": {"end": Int64(2)}}
    other, same = {"_id": name, "version": "c"}, {"_id": name, "version": "a", **SOUND_TAIL}
    if documents.update_one(other, change).matched_count != 0:
        return "an update changes a document that its filter does not match"
    if [documents.update_one(same, change).matched_count for _ in range(2)] != [1, 0]:
        return "a guarded update is not done once"
    left: Any = {"$slice": ["$tail", {"$subtract": [Int64(2), "$from"]}, {"$size": "$tail"}]}
    size = {"$sum": {"$map": {"input": "$tail", "in": {"$strLenBytes": "$$this"}}}}
    cut = documents.find_one_and_update(
        {"_id": name},
        [{"$set": {"size": size}}, {"$set": {"tail": left, "from": Int64(2)}}],
        return_document=ReturnDocument.AFTER,
    )
    if cut is None or (cut["tail"], cut["from"], cut["size"], cut["time"]) != (["y", "z"], 2, 5, 2**53 - 1):
        return "an update by an expression has another outcome"
    raw: Any = documents.with_options(codec_options=CODEC.with_options(document_class=RawBSONDocument))
    stored = raw.find_one({"_id": name})
    if [documents.replace_one(exactly(stored), {"version": "d"}).matched_count for _ in range(2)] != [1, 0]:
        return "a whole document is not compared"
    return None


def _takes_twice(documents: Documents, name: ObjectId) -> bool:
    try:
        documents.insert_one({"_id": name})
    except DuplicateKeyError:
        return False
    return True
