"""What the documents look like, and the way from them to heads and back.

A conversation is one *head document*: the head, the revision, and in `tail` the newest bodies, so that guard, append
and index are one update. `from` is the position of the tail's first body. What no longer fits, or never did, stands in
*segment documents*: runs of bodies, or one piece of a body that is too large for one document.

    head     _id {s, i}, format, scope, id, start, end, version, updated, expires, info,
             born, from, bytes, tail [text, ...], runs [{by, first}, ...], cleared
    segment  _id, key {s, i}, of, by, first, end, part, parts, bodies [text, ...]

`born` is made anew with each conversation, and `of` repeats it: what a removed conversation left can never be taken for
a part of the next one of that name. `by` says which attempt at an append wrote a segment. The head lists in `runs` the
attempts that succeeded; later their segments are marked as such (`by` null) and the list is emptied. So nothing counts
that no head vouches for, and who writes a segment in vain harms nobody. `key` says whose a segment is when its head is
lost.

A head with `dead` is no conversation: it marks one whose segments are being written (MAKING) or removed (REMOVING). It
has no version.

Everything that is read here may be damaged, so nothing is believed: each field has its type and its range.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from bson import Binary, Int64, ObjectId
from bson.codec_options import CodecOptions, DatetimeConversion
from pymongo.collection import Collection

from chathistory.errors import InvalidInput
from chathistory.storage.store import LARGEST_NUMBER, LONGEST_VERSION, Head, Key, Revision
from chathistory_mongodb.faults import Damage

if TYPE_CHECKING:
    from bson.raw_bson import RawBSONDocument

__all__ = [
    "ALIVE",
    "CODEC",
    "EXTRA",
    "FIELDS",
    "FORMAT",
    "MAKING",
    "REMOVING",
    "SOUND_TAIL",
    "Document",
    "Documents",
    "State",
    "exactly",
    "guard",
    "identity",
    "is_dead",
    "key_of",
    "lasting",
    "new_head",
    "state_of",
    "storable",
    "text_of",
    "weight",
    "whole_number",
]

Document: TypeAlias = dict[str, Any]
Documents: TypeAlias = Collection[Document]

FORMAT = 1
MAKING, REMOVING = 1, 2
EXTRA = 16  # bytes that a body of a tail weighs beside its text: type, key, length

CODEC: CodecOptions[Document] = CodecOptions(
    unicode_decode_error_handler="surrogateescape", datetime_conversion=DatetimeConversion.DATETIME_MS
)
"""Whatever a document holds can be decoded, so that one that is damaged hides no other of the same answer."""

_HEAD = ("format", "scope", "id", "start", "end", "version", "updated", "expires", "info")
_MORE = ("dead", "born", "from", "bytes", "runs", "cleared")

FIELDS: Document = {
    **dict.fromkeys((*_HEAD, *_MORE), True),
    "size": {"$cond": [{"$isArray": "$tail"}, {"$size": "$tail"}, -1]},
}
"""The projection that leaves out nothing but the tail, and says how many bodies that has; -1: it is no array."""

_LARGE = 8 * 1024 * 1024  # a command has room for 16 MB

ALIVE: Document = {"$nor": [{"dead": {"$in": [MAKING, REMOVING]}, "version": {"$exists": False}}]}
"""The filter that all pass but those that are no conversation."""


SOUND_TAIL: Document = {"$expr": {"$eq": [{"$size": "$tail"}, {"$subtract": ["$end", "$from"]}]}}
"""The filter that a head passes whose tail has as many bodies as its positions say; an error if that makes no sense."""


@dataclass(frozen=True, slots=True)
class State:
    """A head document as read.

    size: how many bodies its tail has. tail: its bodies, or the last of them, or none, as the projection was; one that
    is damaged may be anything.
    """

    head: Head
    born: ObjectId
    tail_first: int
    bytes: int
    runs: Sequence[Document]
    cleared: int
    size: int
    tail: Sequence[Any]

    def check_tail(self) -> None:
        """Raise `Damage` if the tail has not as many bodies as it must have: none of them is known to be in place."""
        due = self.head.end - self.tail_first
        if self.size != due:
            reason = f"its tail holds {self.size} records instead of {due}"
            raise Damage(None, reason, self.head.key)


def identity(key: Key) -> Document:
    """Return the `_id` of a conversation: an embedded document, so that scope and id cannot run together."""
    return {"s": key.scope, "i": key.id}


def weight(bodies: Iterable[Any]) -> int:
    """Return the bytes that bodies take in a tail."""
    return sum((len(body.encode()) if isinstance(body, str) else 0) + EXTRA for body in bodies)


def text_of(body: Any) -> str | None:
    """Return the text of a body; None: it is damaged."""
    return body if isinstance(body, str) and (body.isascii() or not _ESCAPED.search(body)) else None


def storable(body: Any) -> Any:
    """Return a body as it can be stored again, also one that is damaged: that stays damaged."""
    if isinstance(body, str) and text_of(body) is None:
        return Binary(body.encode(errors="surrogateescape"))
    return body


def guard(state: Head) -> Document:
    """Return the filter that only this very state of a conversation passes."""
    names = {"_id": identity(state.key), "version": state.revision.version}
    return {**names, "start": Int64(state.start), "end": Int64(state.end)}


def exactly(stored: RawBSONDocument) -> Document:
    """Return the filter that a document passes only as long as nobody has changed anything of it."""
    size = len(stored.raw)
    same = {"$eq": ["$$ROOT", {"$literal": stored}]} if size < _LARGE else {"$eq": [{"$bsonSize": "$$ROOT"}, size]}
    return {"_id": stored["_id"], "$expr": same}


def lasting(revision: Revision, end: int) -> Document:
    """Return the fields that every append replaces."""
    return {
        "end": Int64(end),
        "version": revision.version,
        "updated": Int64(revision.updated),
        "expires": None if revision.expires is None else Int64(revision.expires),
        "info": revision.payload,
    }


def new_head(head: Head, born: ObjectId, tail: Sequence[Any], *, runs: Sequence[Document] = ()) -> Document:
    """Return the document of a new conversation whose last bodies are `tail`."""
    return {
        "_id": identity(head.key),
        "format": FORMAT,
        "scope": head.key.scope,
        "id": head.key.id,
        "start": Int64(head.start),
        **lasting(head.revision, head.end),
        "born": born,
        "from": Int64(head.end - len(tail)),
        "bytes": weight(tail),
        "runs": list(runs),
        "cleared": Int64(head.start),
        "tail": list(tail),
    }


def whole_number(value: Any) -> int | None:
    """Return a position or a time; None: the value cannot be one."""
    is_number = isinstance(value, int) and not isinstance(value, bool)
    return int(value) if is_number and 0 <= value <= LARGEST_NUMBER else None


def key_of(name: Any) -> Key | None:
    """Return whose conversation the `_id` of a head document names; None: it cannot be the `_id` of one."""
    if not isinstance(name, Mapping) or list(name) != ["s", "i"]:
        return None
    try:
        return Key(name["s"], name["i"])
    except InvalidInput:
        return None


def is_dead(document: Document) -> bool:
    """Tell whether a head document is no conversation, but one that is being made or removed."""
    return whole_number(document.get("dead")) in {MAKING, REMOVING} and "version" not in document


def state_of(document: Document) -> State | None:
    """Return all that a head document says; None: it is no conversation. Raises `Damage`."""
    if is_dead(document):
        return None
    key = key_of(document["_id"])
    if key is None:
        reason = "its _id is not {s: scope, i: id}"
        raise Damage(None, reason)
    version = document.get("format")
    if isinstance(version, int) and version > FORMAT:
        raise Damage(whole_number(document.get("start")), "a later version wrote it", key, version=version)
    wrong = next((name for name, is_right in _RIGHT.items() if not is_right(document.get(name))), None)
    if wrong is not None or "expires" not in document or "dead" in document:
        reason = f"its field {wrong or ('dead' if 'dead' in document else 'expires')!r} is missing or wrong"
        raise Damage(None, reason, key)
    if (document["scope"], document["id"]) != (key.scope, key.id):
        reason = "its fields name another conversation than its _id"
        raise Damage(None, reason, key)
    if not document["start"] <= document["from"] <= document["end"]:
        reason = "its positions contradict each other"
        raise Damage(None, reason, key)
    expires = None if document["expires"] is None else int(document["expires"])
    revision = Revision(document["version"], int(document["updated"]), expires, document["info"])
    return State(
        head=Head(key, int(document["start"]), int(document["end"]), revision),
        born=document["born"],
        tail_first=int(document["from"]),
        bytes=document["bytes"],
        runs=document["runs"],
        cleared=int(document["cleared"]),
        size=document["size"],
        tail=document.get("tail", []),
    )


_ESCAPED = re.compile("[\ud800-\udfff]")
"""What stands for bytes that are no UTF-8."""

_CONTROL = re.compile("[\x00-\x1f\ud800-\udfff]")


def _is_number(value: Any) -> bool:
    return whole_number(value) is not None


def _is_version(value: Any) -> bool:
    return isinstance(value, str) and 1 <= len(value) <= LONGEST_VERSION and value.isascii() and value.isprintable()


def _is_run(run: Any) -> bool:
    return isinstance(run, Mapping) and isinstance(run.get("by"), ObjectId) and _is_number(run.get("first"))


_RIGHT: Mapping[str, Callable[[Any], bool]] = {
    "format": lambda value: type(value) is not bool and value == FORMAT,
    "scope": lambda value: isinstance(value, str),
    "id": lambda value: isinstance(value, str),
    "start": _is_number,
    "end": _is_number,
    "version": _is_version,
    "updated": _is_number,
    "expires": lambda value: value is None or _is_number(value),
    "info": lambda value: isinstance(value, str) and not _CONTROL.search(value),
    "born": lambda value: isinstance(value, ObjectId),
    "from": _is_number,
    "bytes": _is_number,
    "runs": lambda value: isinstance(value, list) and all(map(_is_run, value)),
    "cleared": _is_number,
    "size": lambda value: isinstance(value, int) and value >= 0,
}
"""What each field of a head document must be; `size` is that of its tail."""
