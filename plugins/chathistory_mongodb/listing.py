"""Listings: heads by time, all names, damaged documents, and documents that belong to no conversation.

The `_id` of a head document cannot be changed, and every collection has an index of it. So the names are complete,
whatever else of a head is damaged. Segments name their conversation in `key`, also when its head is gone.

Names and owners that are documents stay undecoded, so that they can be used in queries whatever they contain.
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
_HEADS_AT_ONCE = 100  # after a page with damaged heads
_LARGEST_INT = 2**31 - 1


@dataclass(frozen=True, slots=True)
class SegmentOwner:
    """The conversation that some segments name as theirs.

    Attributes:
        key: The `_id` of its head document.
        of: The `born` of its head document.
    """

    key: Name
    of: Any

    @property
    def description(self) -> str:
        """Text for people that identifies its segments."""
        return f"segments of {_format_name(self.key)}, born {_format_name(self.of)}"


def list_heads(collections: Collections, scope: str, below: SortKey | None, count: int) -> list[Head | Damaged]:
    """Return `count` heads of a scope, newest first, with the damaged ones among them.

    Args:
        collections: The collections.
        scope: The scope.
        below: Return only what sorts after this; None for the first page.
        count: The most heads to return.
    """
    only: Document = {"_id.s": scope, **NOT_TOMBSTONE}
    if below is not None:
        time = Int64(below.updated)
        timeless: tuple[Any, ...] = (None, float("nan"), [], MinKey())  # these sort at the end
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
                    raise ValueError("the server returned a tombstone, which the filter excludes")
                rows.append(stored.head)
        if len(rows) - known < limit or sum(isinstance(row, Head) for row in rows) >= count:
            return rows
        limit = max(limit, _HEADS_AT_ONCE)


def list_keys(collections: Collections, heads: Documents, scope: str | None) -> Iterator[Key]:
    """Yield the keys of the conversations of a scope.

    Args:
        collections: The collections.
        heads: The collection to read the names from.
        scope: The scope; None for all scopes.
    """
    only = {"expires": Int64(0), "dead": {"$in": [CREATING, REMOVING]}, "version": {"$exists": False}}
    with collections.heads.find(only, {"_id": True}) as documents:  # usually nothing
        tombstones = {parse_key(document["_id"]) for document in documents}
    for name in _find_names(heads, scope):
        key = parse_key(_decode_name(name))
        if key is not None and key not in tombstones:
            yield key


def _find_names(heads: Documents, scope: str | None) -> Iterator[Name]:
    """Yield the `_id`s of a scope (of all scopes if it is None) that are documents, in order, from an index only.

    Entries of this index never move. Some of the names may belong to a tombstone, or to no conversation.
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
    """Return the filter for the `_id`s of a scope: the server compares documents field by field."""
    return {"$gte": {}} if scope is None else {"$gte": {"s": scope}, "$lt": {"s": scope, "i": MaxKey()}}


def list_lost_keys(collections: Collections, scope: str | None) -> Iterator[Key]:
    """Yield the keys of conversations with segments and without a head.

    Args:
        collections: The collections.
        scope: The scope; None for all scopes.
    """
    headless = _find_headless_owners(collections, _find_owners(collections, scope))
    for key in {parse_key(_decode_name(owner.key)) for owner in headless}:
        if key is not None and collections.heads.find_one({"_id": head_id(key)}, {"_id": True}) is None:
            yield key


def list_damaged_keys(collections: Collections, scope: str | None) -> Iterator[Damaged]:
    """Yield documents that belong to no conversation: those of a scope, and those of an unknown scope.

    Args:
        collections: The collections.
        scope: The scope; None for all scopes.
    """
    for name in _find_odd_names(collections, scope):
        reason = "its _id is not that of a conversation; remove the document"
        yield Damaged(None, f"_id {_format_name(name)}", CorruptRecord(None, None, reason))
    reason = "these segments belong to no conversation, and do not name the one to which they belonged; remove them"
    for owner in _find_keyless_owners(collections, scope):
        yield Damaged(None, owner.description, CorruptRecord(None, None, reason))


def remove_leftovers(collections: Collections, scope: str) -> Leftovers:
    """Remove everything of a scope except readable conversations, and look again.

    Args:
        collections: The collections.
        scope: The scope.

    Returns:
        How many documents were removed, and the names of what is left.
    """
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
    left |= {owner.description for owner in _find_headless_owners(collections, _find_owners(collections, scope))}
    left |= {owner.description for owner in _find_keyless_owners(collections, scope)}
    return Leftovers(removed, tuple(sorted(left)), not left)


def _find_odd_names(collections: Collections, scope: str | None) -> Iterator[Name]:
    """Yield the `_id`s of head documents that no conversation can have: of a scope, and of an unknown scope."""
    with collections.heads.find({"_id": {"$not": {"$type": "object"}}}, {"_id": True}) as documents:
        odd = [document["_id"] for document in documents]
    odd += [name for name in _find_names(collections.heads, None) if parse_key(_decode_name(name)) is None]
    for name in odd:
        if scope is None or _find_scope(collections, name) in (None, scope):
            yield name


def _find_scope(collections: Collections, name: Name) -> str | None:
    """Return the scope in the `_id` of a head document, or else in its field; None if both lack it."""
    scope = _read_scope(name)
    if scope is None:
        document = collections.heads.find_one({"_id": name}, {"scope": True}) or {}
        scope = document.get("scope")
    return scope if isinstance(scope, str) else None


def _read_scope(name: Name) -> str | None:
    """Return the scope in a name; None if the name has no scope."""
    decoded = _decode_name(name)
    scope = decoded.get("s") if isinstance(decoded, Mapping) else None
    return scope if isinstance(scope, str) else None


def _find_owners(collections: Collections, scope: str | None) -> list[SegmentOwner]:
    """Return the owners that the segments of a scope (of all scopes if it is None) name, from an index only."""
    pair = {"key": "$key", "of": "$of"}
    only: list[Document] = [] if scope is None else [{"$match": {"key": _bound_names(scope)}}]
    steps = [*only, {"$sort": {"key": 1, "of": 1}}, {"$project": {"_id": False, **pair}}, {"$group": {"_id": pair}}]
    raw = with_raw_documents(collections.segments)
    with raw.aggregate(steps, allowDiskUse=True, batchSize=_NAMES_AT_ONCE) as documents:
        return [SegmentOwner(each.get("key"), each.get("of")) for each in (document["_id"] for document in documents)]


def _find_keyless_owners(collections: Collections, scope: str | None) -> list[SegmentOwner]:
    """Return the owners without a head and without a valid key; with a scope, not those that name another scope."""
    odd = [owner for owner in _find_owners(collections, None) if parse_key(_decode_name(owner.key)) is None]
    here = [owner for owner in odd if scope is None or _read_scope(owner.key) in (None, scope)]
    return _find_headless_owners(collections, here)


def _find_headless_owners(collections: Collections, owners: Iterable[SegmentOwner]) -> list[SegmentOwner]:
    """Return the owners without a head: neither under that name, nor under another one."""
    raw, left = with_raw_documents(collections.heads), list(owners)
    for field in ("_id", "born"):
        # The key itself may be damaged. So the second query searches all heads, but only if the first left something.
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
