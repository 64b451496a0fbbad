"""Listings: heads by time, all names, what is damaged, and what is stored beside conversations.

The `_id` of a head document cannot be changed, and every collection has an index of it. So the names are complete,
whatever else of a head is damaged. Segments say by `key` whose they are, also when their head is gone.

Names and owners come undecoded where they are documents, so that they can be asked for again whatever is in them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from bson import Int64, MaxKey, MinKey, ObjectId, decode
from bson.raw_bson import RawBSONDocument

from chathistory.errors import CorruptRecord, UnsupportedRecord
from chathistory.storage.values import Damaged, Head, Key, Leftovers, SortKey
from chathistory_mongodb.delete import delete_unreadable
from chathistory_mongodb.schema import (
    CODEC,
    CREATING,
    HEAD_FIELDS,
    NOT_TOMBSTONE,
    REMOVING,
    Document,
    Documents,
    head_id,
    parse_head,
    parse_key,
    with_raw_documents,
)
from chathistory_mongodb.server import BY_ACTIVITY, Collections

__all__ = ["list_damaged_keys", "list_heads", "list_keys", "list_lost_keys", "remove_leftovers"]

Name: TypeAlias = Any
"""The `_id` of a head document."""

_NAMES_AT_ONCE = 1000
_HEADS_AT_ONCE = 100  # where those of a page are damaged
_LARGEST_INT = 2**31 - 1


@dataclass(frozen=True, slots=True)
class SegmentOwner:
    """The conversation that some segments say they are of.

    Attributes:
        key: The `_id` of its head document.
        of: Its `born`.
    """

    key: Name
    of: Any

    @property
    def place(self) -> str:
        """Where its segments are, for people."""
        return f"segments of {_format_name(self.key)}, born {_format_name(self.of)}"


def list_heads(collections: Collections, scope: str, below: SortKey | None, count: int) -> list[Head | Damaged]:
    """Return `count` heads of a scope, newest first, and the damaged ones among them."""
    only: Document = {"_id.s": scope, **NOT_TOMBSTONE}
    if below is not None:
        time = Int64(below.updated)
        timeless: tuple[Any, ...] = (None, float("nan"), [], MinKey())  # these stand at the end
        later = [{"updated": {"$lt": time}}, {"updated": time, "_id.i": {"$lt": below.id}}]
        only["$or"] = [*later, *({"updated": value} for value in timeless)]
    rows: list[Head | Damaged] = []
    limit = count = min(count, _LARGEST_INT)
    while True:
        found = collections.preferred_heads.find(
            only, HEAD_FIELDS, skip=len(rows), limit=limit, batch_size=limit, allow_disk_use=True
        )
        with found.sort([("updated", -1), ("_id.i", -1)]).hint(BY_ACTIVITY) as documents:
            known = len(rows)
            for document in documents:
                try:
                    stored = parse_head(document)
                except (CorruptRecord, UnsupportedRecord) as error:
                    name = document["_id"]
                    rows.append(Damaged(parse_key(name), f"_id {_format_name(name)}", error.with_traceback(None)))
                    continue
                if stored is None:
                    raise ValueError("the server did not leave out a tombstone")
                rows.append(stored.head)
        if len(rows) - known < limit or sum(isinstance(row, Head) for row in rows) >= count:
            return rows
        limit = max(limit, _HEADS_AT_ONCE)


def list_keys(collections: Collections, heads: Documents, scope: str | None) -> Iterator[Key]:
    """Yield the keys of the conversations of a scope (None: of all)."""
    only = {"expires": Int64(0), "dead": {"$in": [CREATING, REMOVING]}, "version": {"$exists": False}}
    with collections.heads.find(only, {"_id": True}) as documents:  # usually none
        tombstones = {parse_key(document["_id"]) for document in documents}
    for name in _find_names(heads, scope):
        key = parse_key(_decode_name(name))
        if key is not None and key not in tombstones:
            yield key


def _find_names(heads: Documents, scope: str | None) -> Iterator[Name]:
    """Yield the `_id`s of a scope (None: of all) that are documents, in order: from an index alone.

    Entries of this index never move. Some of the names may not be a conversation's, or be that of a tombstone.
    """
    bounds = _bound_names(scope)
    while True:
        found = with_raw_documents(heads).find(
            {"_id": bounds}, {"_id": True}, limit=_NAMES_AT_ONCE, batch_size=_NAMES_AT_ONCE
        )
        with found.sort("_id", 1).hint("_id_") as documents:
            names = [document["_id"] for document in documents]
        yield from names
        if len(names) < _NAMES_AT_ONCE:
            return
        bounds = {**bounds, "$gt": names[-1]}


def _bound_names(scope: str | None) -> Document:
    """Return the filter for an `_id` of a scope: documents are compared field by field."""
    return {"$gte": {}} if scope is None else {"$gte": {"s": scope}, "$lt": {"s": scope, "i": MaxKey()}}


def list_lost_keys(collections: Collections, scope: str | None) -> Iterator[Key]:
    """Yield the keys of conversations of which there are segments, and no head."""
    headless = _find_headless_owners(collections, _find_owners(collections, scope))
    for key in {parse_key(_decode_name(owner.key)) for owner in headless}:
        if key is not None and collections.heads.find_one({"_id": head_id(key)}, {"_id": True}) is None:
            yield key


def list_damaged_keys(collections: Collections, scope: str | None) -> Iterator[Damaged]:
    """Yield what is stored in a scope and belongs to no conversation, and what does not tell its scope."""
    for name in _find_odd_names(collections, scope):
        yield Damaged(
            None, f"_id {_format_name(name)}", CorruptRecord(None, None, "its _id is not that of a conversation")
        )
    reason = "these segments belong to no conversation, and do not say to which one they belonged"
    for owner in _find_keyless_owners(collections, scope):
        yield Damaged(None, owner.place, CorruptRecord(None, None, reason))


def remove_leftovers(collections: Collections, scope: str) -> Leftovers:
    """Remove what a scope has beside conversations that can be read, and look again."""
    removed = 0
    for name in [*_find_names(collections.heads, scope), *_find_odd_names(collections, scope)]:
        if _find_scope(collections, name) == scope:
            removed += delete_unreadable(collections, name)
    for owner in _find_headless_owners(collections, _find_owners(collections, scope)):
        if _read_scope(owner.key) != scope:
            continue
        of = owner.of if isinstance(owner.of, ObjectId) else {"$not": {"$type": "objectId"}}
        removed += collections.segments.delete_many({"key": owner.key, "of": of}).deleted_count
    left = {f"_id {_format_name(name)}" for name in _find_names(collections.heads, scope)}
    left |= {f"_id {_format_name(name)}" for name in _find_odd_names(collections, scope)}
    left |= {owner.place for owner in _find_headless_owners(collections, _find_owners(collections, scope))}
    left |= {owner.place for owner in _find_keyless_owners(collections, scope)}
    return Leftovers(removed, tuple(sorted(left)), not left)


def _find_odd_names(collections: Collections, scope: str | None) -> Iterator[Name]:
    """Yield the `_id`s of head documents that no conversation can have, of a scope or of none that can be told."""
    with collections.heads.find({"_id": {"$not": {"$type": "object"}}}, {"_id": True}) as documents:
        odd = [document["_id"] for document in documents]
    odd += [name for name in _find_names(collections.heads, None) if parse_key(_decode_name(name)) is None]
    for name in odd:
        if scope is None or _find_scope(collections, name) in (None, scope):
            yield name


def _find_scope(collections: Collections, name: Name) -> str | None:
    """Return which scope the `_id` of a head document tells, or else its field; None: it tells none."""
    scope = _read_scope(name)
    if scope is None:
        document = collections.heads.find_one({"_id": name}, {"scope": True}) or {}
        scope = document.get("scope")
    return scope if isinstance(scope, str) else None


def _read_scope(name: Name) -> str | None:
    """Return which scope a name tells; None: it tells none."""
    decoded = _decode_name(name)
    scope = decoded.get("s") if isinstance(decoded, Mapping) else None
    return scope if isinstance(scope, str) else None


def _find_owners(collections: Collections, scope: str | None) -> list[SegmentOwner]:
    """Return the owners that the segments of a scope (None: of all) name, from an index alone."""
    pair = {"key": "$key", "of": "$of"}
    only: list[Document] = [] if scope is None else [{"$match": {"key": _bound_names(scope)}}]
    steps = [*only, {"$sort": {"key": 1, "of": 1}}, {"$project": {"_id": False, **pair}}, {"$group": {"_id": pair}}]
    raw = with_raw_documents(collections.segments)
    with raw.aggregate(steps, allowDiskUse=True, batchSize=_NAMES_AT_ONCE) as documents:
        return [SegmentOwner(each.get("key"), each.get("of")) for each in (document["_id"] for document in documents)]


def _find_keyless_owners(collections: Collections, scope: str | None) -> list[SegmentOwner]:
    """Return the owners that have no head and no key that can be told; with a scope, not those that tell another."""
    odd = [owner for owner in _find_owners(collections, None) if parse_key(_decode_name(owner.key)) is None]
    here = [owner for owner in odd if scope is None or _read_scope(owner.key) in (None, scope)]
    return _find_headless_owners(collections, here)


def _find_headless_owners(collections: Collections, owners: Iterable[SegmentOwner]) -> list[SegmentOwner]:
    """Return the owners of which there is no head: neither under that name, nor under another one."""
    raw, left = with_raw_documents(collections.heads), list(owners)
    for field in ("_id", "born"):
        # A key may be what is damaged. The second look is at all heads, but only if the first has left something.
        known: set[ObjectId] = set()
        for at in range(0, len(left), _NAMES_AT_ONCE):
            some = left[at : at + _NAMES_AT_ONCE]
            keys = [owner.key for owner in some if isinstance(owner.key, RawBSONDocument)]
            wanted = keys if field == "_id" else [owner.of for owner in some if isinstance(owner.of, ObjectId)]
            with raw.find({field: {"$in": wanted}}, {"born": True}) as documents:
                known |= {born for document in documents if isinstance(born := document.get("born"), ObjectId)}
        left = [owner for owner in left if not (isinstance(owner.of, ObjectId) and owner.of in known)]
    return left


def _decode_name(name: Name) -> Any:
    return decode(name.raw, CODEC) if isinstance(name, RawBSONDocument) else name


def _format_name(name: Name) -> str:
    """Return a name as text that can be printed."""
    decoded = _decode_name(name)
    text = repr(dict(decoded)) if isinstance(decoded, dict) else repr(decoded)
    return text if text.isprintable() else text.encode("unicode_escape").decode()
