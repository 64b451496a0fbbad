"""What the documents look like, and the way from them to heads and back.

A conversation is one *head document*: the head, the stamp, and in `tail` the newest bodies, so that guard, append and
index are one update. `from` is the position of the tail's first body. What no longer fits, or never did, stands in
*segment documents*: runs of bodies, or one piece of a body that is too large for one document.

    head     _id {s, i}, format, scope, id, start, end, version, updated, expires, info,
             born, from, bytes, tail [text, ...], runs [{by, first}, ...], cleared
    segment  _id, of, by, first, end, part, parts, bodies [text, ...]

`born` is made anew with each conversation, and `of` repeats it: what a removed conversation left can never be taken for
a part of the next one of that name. `by` says which attempt at an append wrote a segment. The head lists in `runs` the
attempts that succeeded; later their segments are marked as such (`by` null) and the list is emptied. So nothing counts
that no head vouches for, and who writes a segment in vain harms nobody.

A head with `dead` is no conversation: it marks one whose segments are being written (MAKING) or removed (REMOVING).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from bson import Int64, ObjectId
from pymongo.collection import Collection

from chathistory.errors import InvalidInput
from chathistory.store import Head, Key, Stamp
from chathistory_mongodb.faults import Damage

__all__ = [
    "EXTRA",
    "FIELDS",
    "FORMAT",
    "LISTED",
    "LONGEST_INT",
    "MAKING",
    "REMOVING",
    "Document",
    "Documents",
    "State",
    "guard",
    "head_of",
    "identity",
    "key_of",
    "lasting",
    "new_head",
    "state_of",
    "weight",
]

Document: TypeAlias = dict[str, Any]
Documents: TypeAlias = Collection[Document]

FORMAT = 1
MAKING, REMOVING = 1, 2
EXTRA = 16  # bytes that a body of a tail weighs beside its text: type, key, length
LONGEST_INT = 2**62  # positions beyond it are as good as it, and fit a BSON integer

_HEAD = ("format", "scope", "id", "start", "end", "version", "updated", "expires", "info")
LISTED: Document = dict.fromkeys(_HEAD, True)
"""The projection of what a listing shows."""

FIELDS: Document = {**LISTED, **dict.fromkeys(("dead", "born", "from", "bytes", "runs", "cleared"), True)}
"""The projection that leaves out nothing but the tail."""


@dataclass(frozen=True, slots=True)
class State:
    """A head document as read. tail: its bodies, or the last of them, or none, as the projection was."""

    head: Head
    born: ObjectId
    tail_first: int
    bytes: int
    runs: Sequence[Document]
    cleared: int
    tail: Sequence[str]


def identity(key: Key) -> Document:
    """Return the `_id` of a conversation: an embedded document, so that scope and id cannot run together."""
    return {"s": key.scope, "i": key.id}


def weight(bodies: Iterable[str]) -> int:
    """Return the bytes that bodies take in a tail."""
    return sum(len(body.encode()) + EXTRA for body in bodies)


def guard(state: Head) -> Document:
    """Return the filter that only this very state of a conversation passes."""
    names = {"_id": identity(state.key), "version": state.stamp.version}
    return {**names, "start": Int64(state.start), "end": Int64(state.end)}


def lasting(stamp: Stamp, end: int) -> Document:
    """Return the fields that every append replaces."""
    return {
        "end": Int64(end),
        "version": stamp.version,
        "updated": Int64(stamp.updated),
        "expires": None if stamp.expires is None else Int64(stamp.expires),
        "info": stamp.info,
    }


def new_head(head: Head, born: ObjectId, tail: Sequence[str], *, runs: Sequence[Document] = ()) -> Document:
    """Return the document of a new conversation whose last bodies are `tail`."""
    return {
        "_id": identity(head.key),
        "format": FORMAT,
        "scope": head.key.scope,
        "id": head.key.id,
        "start": Int64(head.start),
        **lasting(head.stamp, head.end),
        "born": born,
        "from": Int64(head.end - len(tail)),
        "bytes": weight(tail),
        "runs": list(runs),
        "cleared": Int64(head.start),
        "tail": list(tail),
    }


_Types: TypeAlias = Mapping[str, type | tuple[type, ...]]
_HEAD_TYPES: _Types = {
    **dict.fromkeys(("version", "info"), str),
    **dict.fromkeys(("start", "end", "updated"), int),
    "expires": (int, type(None)),
}
_MORE_TYPES: _Types = {
    **dict.fromkeys(("from", "bytes", "cleared"), int),
    "born": ObjectId,
    "runs": list,
}


def key_of(document: Document) -> Key:
    """Return whose conversation a head document is, by its `_id`. Raises `Damage`."""
    try:
        return Key(document["_id"]["s"], document["_id"]["i"])
    except (LookupError, TypeError, InvalidInput):
        reason = "its name is none of a conversation's"
    raise Damage(None, reason)


def head_of(document: Document) -> Head:
    """Return the head that a document shows. Raises `Damage`."""
    key = key_of(document)
    reason = _wrong_head(document, key)
    if reason:
        raise Damage(None, reason, key)
    stamp = Stamp(document["version"], int(document["updated"]), _time(document["expires"]), document["info"])
    return Head(key, int(document["start"]), int(document["end"]), stamp)


def state_of(document: Document) -> State | None:
    """Return all that a head document says; None: it is no conversation. Raises `Damage`."""
    if document.get("dead"):
        return None
    head = head_of(document)
    reason = _wrong_tail(document)
    if reason:
        raise Damage(None, reason, head.key)
    places = int(document["from"]), document["bytes"], document["runs"], int(document["cleared"])
    return State(head, document["born"], *places, document.get("tail", []))


def _wrong_head(document: Document, key: Key) -> str | None:
    if document.get("format") != FORMAT:
        return "its format is not one that this version of chathistory knows"
    if (document.get("scope"), document.get("id")) != (key.scope, key.id):
        return "it names another conversation"
    return _wrong_types(document, _HEAD_TYPES)


def _wrong_types(document: Document, types: _Types) -> str | None:
    for name, kind in types.items():
        if name not in document or not isinstance(document[name], kind):
            return f"its field {name!r} is missing or wrong"
    return None


def _wrong_tail(document: Document) -> str | None:
    wrong = _wrong_types(document, _MORE_TYPES)
    if wrong:
        return wrong
    tail = document.get("tail", [])
    if not (isinstance(tail, list) and all(isinstance(body, str) for body in tail)):
        return "its tail holds something that is no text"
    if not document["start"] <= document["from"] <= document["end"] - len(tail):
        return "its positions contradict each other"
    return None


def _time(value: int | None) -> int | None:
    return None if value is None else int(value)
