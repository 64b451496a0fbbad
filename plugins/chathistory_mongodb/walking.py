"""All names, and all that is stored beside conversations: from the collections themselves.

The `_id` of a head document cannot be changed, and every collection has an index of it. So the names are complete,
whatever else of a head is damaged. Segments say by `key` whose they are, also when their head is gone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from bson import Int64, MaxKey, ObjectId, decode
from bson.raw_bson import RawBSONDocument

from chathistory.errors import CorruptRecord
from chathistory.storage.store import Damaged, Key, Leftovers
from chathistory_mongodb.connection import Place
from chathistory_mongodb.documents import CODEC, MAKING, REMOVING, Document, Documents, key_of
from chathistory_mongodb.reading import shown
from chathistory_mongodb.removing import discard

__all__ = ["Name", "damaged", "dead_keys", "known", "lost_keys", "names", "remove_leftovers"]

_NAMES = 1000
_RAW = CODEC.with_options(document_class=RawBSONDocument)

Name = Any
"""An `_id` as it is stored: undecoded if it is a document, so that it can be asked for again whatever is in it."""


class Owner(NamedTuple):
    """Of which conversation some segments say that they are: its `_id`, and its `born`."""

    key: Name
    of: Name


def names(heads: Documents, scope: str | None, after: Name | None) -> list[Name]:
    """Return the next `_id`s of a scope (None: of all) in order, none at the end: from an index alone.

    Entries of this index never move. Some of the names may not be a conversation's, or be that of a dead one.
    """
    bounds = _bounds(scope) if after is None else {**_bounds(scope), "$gt": after}
    raw = heads.with_options(codec_options=_RAW)
    found = raw.find({"_id": bounds}, {"_id": True}, limit=_NAMES, batch_size=_NAMES)
    with found.sort("_id", 1).hint("_id_") as documents:
        return [document["_id"] for document in documents]


def _bounds(scope: str | None) -> Document:
    """Return the filter for an `_id` of a scope: documents are compared field by field."""
    return {"$gte": {}} if scope is None else {"$gte": {"s": scope}, "$lt": {"s": scope, "i": MaxKey()}}


def known(name: Name) -> Any:
    """Return an `_id` decoded."""
    return decode(name.raw, CODEC) if isinstance(name, RawBSONDocument) else name


def dead_keys(heads: Documents) -> set[Key]:
    """Return the names of those that are being made or removed, or were when somebody crashed: usually none."""
    dead = {"expires": Int64(0), "dead": {"$in": [MAKING, REMOVING]}, "version": {"$exists": False}}
    with heads.find(dead, {"_id": True}) as documents:
        return {key for document in documents if (key := key_of(document["_id"]))}


def lost_keys(place: Place, scope: str | None) -> list[Key]:
    """Return the names of conversations of which there are segments, and no head."""
    keys = {raw_of(owner.key): owner.key for owner in _owners(place, scope) if key_of(known(owner.key))}
    raw = place.heads.with_options(codec_options=_RAW)
    for some in _chunks(list(keys.values())):
        with raw.find({"_id": {"$in": some}}, {"_id": True}) as documents:
            for document in documents:
                keys.pop(raw_of(document["_id"]), None)
    return [key for name in keys.values() if (key := key_of(known(name)))]


def damaged(place: Place, scope: str | None) -> list[Damaged]:
    """Return what is stored in a scope and belongs to no conversation, and what does not tell its scope."""
    reason = "its _id is not that of a conversation"
    rows = [
        Damaged(None, f"_id {shown(known(name))}", CorruptRecord(None, None, reason)) for name in _strays(place, scope)
    ]
    reason = "these segments belong to no conversation, and do not say to which one they belonged"
    return rows + [
        Damaged(None, _place_of(owner), CorruptRecord(None, None, reason)) for owner in _nobodys(place, scope)
    ]


def remove_leftovers(place: Place, scope: str) -> Leftovers:
    """Remove what a scope has beside conversations that can be read, and look again."""
    removed = 0
    for name in [*_all_names(place.heads, scope), *_strays(place, scope)]:
        if _told(place, name) == scope:
            removed += discard(place, name)
    for owner in _ownerless(place, scope):
        if isinstance(known(owner.key), Mapping) and known(owner.key).get("s") == scope:
            of = owner.of if isinstance(owner.of, ObjectId) else {"$not": {"$type": "objectId"}}
            removed += place.segments.delete_many({"key": owner.key, "of": of}).deleted_count
    left = [*_all_names(place.heads, scope), *_strays(place, scope)]
    places = {f"_id {shown(known(name))}" for name in left} | {_place_of(owner) for owner in _ownerless(place, scope)}
    places |= {_place_of(owner) for owner in _nobodys(place, scope)}
    return Leftovers(removed, tuple(sorted(places)), not places)


def _all_names(heads: Documents, scope: str | None) -> Iterator[Name]:
    after: Name | None = None
    while found := names(heads, scope, after):
        yield from found
        after = found[-1]


def _strays(place: Place, scope: str | None) -> list[Name]:
    """Return the `_id`s of head documents that no conversation can have, of a scope or of none that can be told."""
    odd = [name for name in _all_names(place.heads, None) if key_of(known(name)) is None]
    with place.heads.find({"_id": {"$not": {"$type": "object"}}}, {"_id": True}) as documents:
        odd += [document["_id"] for document in documents]
    return [name for name in odd if scope is None or _told(place, name) in (None, scope)]


def _told(place: Place, name: Name) -> str | None:
    """Return which scope the `_id` of a head document tells, or else its field; None: none."""
    told = known(name)
    says = told.get("s") if isinstance(told, Mapping) else None
    if not isinstance(says, str):
        document = place.heads.find_one({"_id": name}, {"scope": True})
        says = document.get("scope") if document else None
    return says if isinstance(says, str) else None


def _owners(place: Place, scope: str | None) -> list[Owner]:
    """Return of whom the segments of a scope (None: of all) say that they are, from an index alone."""
    pair = {"key": "$key", "of": "$of"}
    only: list[Document] = [] if scope is None else [{"$match": {"key": _bounds(scope)}}]
    steps: list[Document] = [
        *only,
        {"$sort": {"key": 1, "of": 1}},
        {"$project": {"_id": False, **pair}},
        {"$group": {"_id": pair}},
    ]
    raw = place.segments.with_options(codec_options=_RAW)
    with raw.aggregate(steps, allowDiskUse=True, batchSize=_NAMES) as documents:
        return [Owner(each.get("key"), each.get("of")) for each in (document["_id"] for document in documents)]


def _ownerless(place: Place, scope: str) -> list[Owner]:
    """Return those of a scope whose segments no head counts as its own."""
    return _without_head(place, _owners(place, scope))


def _nobodys(place: Place, scope: str | None) -> list[Owner]:
    """Return those whose segments no head counts as its own, and of which no conversation is known.

    Where a scope is given, not those that say another one.
    """
    odd = [owner for owner in _owners(place, None) if key_of(known(owner.key)) is None]
    told = [(owner, known(owner.key)) for owner in odd]
    here = [
        owner
        for owner, name in told
        if scope is None or not (isinstance(name, Mapping) and isinstance(name.get("s"), str) and name["s"] != scope)
    ]
    return _without_head(place, here)


def _without_head(place: Place, owners: Iterable[Owner]) -> list[Owner]:
    """Return the owners of which there is no sound head: neither under that name, nor under another one."""
    left: list[Owner] = []
    raw = place.heads.with_options(codec_options=_RAW)
    for some in _chunks(list(owners)):
        keys = [owner.key for owner in some if isinstance(owner.key, RawBSONDocument)]
        with raw.find({"_id": {"$in": keys}}, {"born": True}) as documents:
            born = {(raw_of(document["_id"]), raw_of(document.get("born"))) for document in documents}
        left += [owner for owner in some if (raw_of(owner.key), raw_of(owner.of)) not in born]
    alive: set[Any] = set()
    for some in _chunks(left):  # a key may be what is damaged: this looks at every head, so only if there is something
        owned = [owner.of for owner in some if isinstance(owner.of, ObjectId)]
        with raw.find({"born": {"$in": owned}}, {"born": True}) as documents:
            alive |= {raw_of(document["born"]) for document in documents}
    return [owner for owner in left if raw_of(owner.of) not in alive]


def _place_of(owner: Owner) -> str:
    return f"segments of {shown(known(owner.key))}, born {shown(known(owner.of))}"


def raw_of(name: Name) -> Any:
    """Return something that can be compared."""
    return bytes(name.raw) if isinstance(name, RawBSONDocument) else repr(name)


def _chunks(items: list[Any]) -> Iterator[list[Any]]:
    return (items[at : at + _NAMES] for at in range(0, len(items), _NAMES))
