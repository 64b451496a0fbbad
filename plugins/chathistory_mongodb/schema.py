"""The documents: their fields, and the conversion between documents and values.

A conversation is one *head document*: the head, the revision, and in `tail` the newest bodies, so that version check,
append and index are one update. `from` is the position of the tail's first body. Bodies that do not fit, or no longer
fit, are in *segment documents*: several bodies, or one piece of a body that is too large for one document.

Head documents:

    _id         {s, i}: scope and id of the conversation
    format      number of this layout
    scope, id   the same as in `_id`
    start, end  position of the first record, and position after the last one
    version     version of the revision
    updated     time of the revision, in microseconds since 1970 UTC
    expires     time from which the conversation counts as absent, in microseconds since 1970 UTC; null: never
    info        payload of the revision
    born        id that is created with the conversation
    from        position of the first body in `tail`
    bytes       size of the bodies in `tail`, see `measure_bodies`
    tail        [text, ...]: the newest bodies
    runs        [{by, first}, ...]: the successful attempts to append with segments, and the first position of each
    cleared     segments hold no body below this position
    dead        only in a tombstone: CREATING or REMOVING

Segment documents:

    _id         id of the segment
    key         {s, i}: the `_id` of its head, which identifies the conversation when the head is lost
    of          the `born` of its head
    by          id of the attempt that wrote it; null once it is marked as committed
    first, end  position of the first body, and position after the last one
    part        number of this piece of a body, from 0
    parts       how many pieces that body has; 1 if the segment holds whole bodies
    bodies      [text, ...]

`of` repeats `born`, so that leftovers of a deleted conversation can never become part of the next one with the same
name. The head lists the successful attempts in `runs`; later their segments get `by: null` and the list is emptied. So
a segment counts only if its head refers to it, and a writer that loses a race does no harm.

A head with `dead` and without `version` is a *tombstone* and not a conversation: its segments are being written
(CREATING) or removed (REMOVING).

Every document may be damaged, so the type and the range of each field are checked.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from bson import Binary, Int64, ObjectId, decode
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.raw_bson import RawBSONDocument
from pymongo.collection import Collection

from chathistory.errors import CorruptRecord, InvalidInput, UnsupportedRecord
from chathistory.storage.checks import is_version
from chathistory.storage.values import LARGEST_NUMBER, Head, Key, Revision

__all__ = [
    "BODY_OVERHEAD",
    "CREATING",
    "HEAD_FIELDS",
    "INTEGER",
    "NOT_TOMBSTONE",
    "REMOVING",
    "SEGMENT_FIELDS",
    "Document",
    "Documents",
    "MongoSegment",
    "MongoStoredHead",
    "decode_raw",
    "head_id",
    "is_array_complete",
    "is_integer",
    "is_tombstone",
    "make_head_document",
    "match_committed_segments",
    "match_document",
    "match_head",
    "measure_bodies",
    "parse_head",
    "parse_key",
    "parse_segment",
    "read_number",
    "read_text",
    "revision_fields",
    "to_storable",
    "with_raw_documents",
]

Document: TypeAlias = dict[str, Any]
Documents: TypeAlias = Collection[Document]

FORMAT = 1
CREATING, REMOVING = 1, 2
BODY_OVERHEAD = 16  # bytes of a body in a tail in addition to its text: type, key, length

CODEC: CodecOptions[Document] = CodecOptions(
    unicode_decode_error_handler="surrogateescape", datetime_conversion=DatetimeConversion.DATETIME_MS
)
"""Decodes any content of a document, so that a damaged one hides no other in the same reply."""

HEAD_FIELDS: Document = {
    **dict.fromkeys(("format", "scope", "id", "start", "end", "version", "updated", "expires", "info"), True),
    **dict.fromkeys(("dead", "born", "from", "bytes", "runs", "cleared"), True),
    "size": {"$cond": [{"$isArray": "$tail"}, {"$size": "$tail"}, -1]},
}
"""The projection of a head document with the length of its tail (-1 if that is not an array) instead of the tail."""

SEGMENT_FIELDS: Document = {
    **dict.fromkeys(("by", "first", "end", "part", "parts"), True),
    "size": {"$cond": [{"$isArray": "$bodies"}, {"$size": "$bodies"}, -1]},
}
"""The projection of a segment with the number of its bodies (-1 if that is not an array) instead of the bodies."""

NOT_TOMBSTONE: Document = {"$nor": [{"dead": {"$in": [CREATING, REMOVING]}, "version": {"$exists": False}}]}
"""The filter that matches every head document except tombstones."""

INTEGER: Document = {"$type": ["int", "long"], "$not": {"$type": "array"}}
"""The filter for an integer. It excludes arrays, because `$type` also matches the types of their elements."""

_LARGE_DOCUMENT = 8 * 1024 * 1024  # bytes; a command may have 16 MB
_ESCAPED = re.compile("[\ud800-\udfff]")  # bytes that are not UTF-8, as `surrogateescape` decodes them
_CONTROL = re.compile("[\x00-\x1f\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class MongoStoredHead:
    """A sound head document.

    Attributes:
        head: Positions and revision.
        born: The id that its segments repeat in `of`.
        tail_start: The position of the tail's first body.
        tail_bytes: The size of the tail, see `measure_bodies`.
        runs: The successful attempts, as stored; their segments count.
        cleared: Segments hold no body below this position.
        tail: The bodies of the tail that the projection asked for: all, the last ones, or none. A damaged body is not
            a str.
    """

    head: Head
    born: ObjectId
    tail_start: int
    tail_bytes: int
    runs: Sequence[Document]
    cleared: int
    tail: Sequence[Any]


@dataclass(frozen=True, slots=True)
class MongoSegment:
    """The positions of a sound segment, and its bodies if the projection had them.

    Attributes:
        first: The position of its first body.
        end: The position after its last body.
        part: The number of its piece of a body, from 0.
        parts: How many pieces that body has; 1 if the segment holds whole bodies.
        bodies: The bodies; a damaged body is not a str.
    """

    first: int
    end: int
    part: int
    parts: int
    bodies: Sequence[Any]


def head_id(key: Key) -> Document:
    """Return the `_id` of a conversation: an embedded document, so that scope and id stay separate."""
    return {"s": key.scope, "i": key.id}


def measure_bodies(bodies: Iterable[Any]) -> int:
    """Return the size of bodies in a tail, in bytes."""
    return sum((len(body.encode()) if isinstance(body, str) else 0) + BODY_OVERHEAD for body in bodies)


def read_text(body: Any) -> str | None:
    """Return the text of a body; None if it is damaged."""
    return body if isinstance(body, str) and (body.isascii() or not _ESCAPED.search(body)) else None


def read_number(value: Any) -> int | None:
    """Return a stored position or time as an int; None if the value cannot be one."""
    is_number = isinstance(value, int) and not isinstance(value, bool)
    return int(value) if is_number and 0 <= value <= LARGEST_NUMBER else None


def to_storable(body: Any) -> Any:
    """Return a body in a form that can be stored again; a damaged body stays damaged."""
    if isinstance(body, str) and read_text(body) is None:
        return Binary(body.encode(errors="surrogateescape"))
    return body


def revision_fields(revision: Revision, end: int) -> Document:
    """Return the fields that every append replaces.

    Args:
        revision: The new revision.
        end: The new end of the conversation.
    """
    return {
        "end": Int64(end),
        "version": revision.version,
        "updated": Int64(revision.updated),
        "expires": None if revision.expires is None else Int64(revision.expires),
        "info": revision.payload,
    }


def make_head_document(head: Head, born: ObjectId, tail: Sequence[Any], runs: Sequence[Document] = ()) -> Document:
    """Return a head document.

    Args:
        head: The head.
        born: The id of the conversation, for its segments.
        tail: The last bodies.
        runs: The successful attempts that wrote its segments.
    """
    return {
        "_id": head_id(head.key),
        "format": FORMAT,
        "scope": head.key.scope,
        "id": head.key.id,
        "start": Int64(head.start),
        **revision_fields(head.revision, head.end),
        "born": born,
        "from": Int64(head.end - len(tail)),
        "bytes": measure_bodies(tail),
        "runs": list(runs),
        "cleared": Int64(head.start),
        "tail": list(tail),
    }


def parse_key(name: Any) -> Key | None:
    """Return the key in the `_id` of a head document; None if it cannot be the `_id` of a conversation."""
    if not isinstance(name, Mapping) or list(name) != ["s", "i"]:
        return None
    try:
        return Key(name["s"], name["i"])
    except InvalidInput:
        return None


def is_tombstone(document: Document) -> bool:
    """Return True if a head document is not a conversation, but one that is being created or removed."""
    return read_number(document.get("dead")) in {CREATING, REMOVING} and "version" not in document


def parse_head(document: Document) -> MongoStoredHead | None:
    """Parse a head document.

    Args:
        document: The document, with the fields of `HEAD_FIELDS`.

    Returns:
        None for a tombstone.

    Raises:
        CorruptRecord: A field is missing or wrong, or the length of the tail does not match the positions.
        UnsupportedRecord: A later version wrote it.
    """
    if is_tombstone(document):
        return None
    key, version = parse_key(document["_id"]), document.get("format")
    if key is None:
        raise CorruptRecord(None, None, "its _id is not {s: scope, i: id}")
    if isinstance(version, int) and version > FORMAT:
        raise UnsupportedRecord(key, read_number(document.get("start")) or 0, version)
    wrong = next((name for name, is_valid in _FIELD_CHECKS.items() if not is_valid(document.get(name, _MISSING))), None)
    if wrong is not None:
        raise CorruptRecord(key, None, f"its field {wrong!r} is missing or wrong")
    if (document["scope"], document["id"]) != (key.scope, key.id):
        raise CorruptRecord(key, None, "its fields name another conversation than its _id")
    start, tail_start, end = (int(document[name]) for name in ("start", "from", "end"))
    if not start <= tail_start <= end:
        raise CorruptRecord(key, None, "its positions contradict each other")
    if document["size"] != end - tail_start:
        raise CorruptRecord(key, None, f"its tail holds {document['size']} records instead of {end - tail_start}")
    expires = None if document["expires"] is None else int(document["expires"])
    revision = Revision(document["version"], int(document["updated"]), expires, document["info"])
    rest = (document["born"], tail_start, document["bytes"], document["runs"], int(document["cleared"]))
    return MongoStoredHead(Head(key, start, end, revision), *rest, document.get("tail", []))


def decode_raw(stored: RawBSONDocument | None) -> Document:
    """Decode a head document that was read whole and undecoded, and add `size` for `parse_head`."""
    document = {} if stored is None else decode(stored.raw, CODEC)
    tail = document.get("tail")
    return {**document, "size": len(tail) if isinstance(tail, list) else -1}


def parse_segment(document: Document) -> MongoSegment | None:
    """Parse a segment document; None if it is damaged."""
    first, end, part, parts = (read_number(document.get(name)) for name in ("first", "end", "part", "parts"))
    bodies = document.get("bodies")
    if first is None or end is None or part is None or parts is None or not part < parts:
        return None
    size = document.get("size", len(bodies) if isinstance(bodies, list) else -1)
    if not size == end - first > 0 or (parts > 1 and size != 1):
        return None
    return MongoSegment(first, end, part, parts, bodies or ())


def match_head(head: Head) -> Document:
    """Return the filter that matches a conversation only with this head."""
    names = {"_id": head_id(head.key), "version": head.revision.version}
    return {**names, "start": Int64(head.start), "end": Int64(head.end)}


def match_document(stored: RawBSONDocument) -> Document:
    """Return the filter that matches a document only while it is unchanged."""
    size = len(stored.raw)
    is_same = {"$eq": ["$$ROOT", {"$literal": stored}]}
    is_as_long = {"$eq": [{"$bsonSize": "$$ROOT"}, size]}
    return {"_id": stored["_id"], "$expr": is_same if size < _LARGE_DOCUMENT else is_as_long}


def match_committed_segments(born: ObjectId, runs: Iterable[Document]) -> Document:
    """Return the filter for the segments that count.

    Args:
        born: The id of their conversation.
        runs: The successful attempts, from its head.
    """
    return {"of": born, "by": {"$in": [None, *(run["by"] for run in runs)]}}


def is_integer(field: str) -> Document:
    """Return the aggregation expression that is true if a field is an integer."""
    return {"$in": [{"$type": field}, ["int", "long"]]}


def is_array_complete(array: str, first: str, end: str) -> Document:
    """Return the aggregation expression that is true if a document has one body for each position; it never fails.

    Args:
        array: The field of the bodies, with `$`.
        first: The field of the first position.
        end: The field of the position after the last one.
    """
    size = {"$size": {"$cond": [{"$isArray": array}, array, []]}}
    is_sound = {"$and": [{"$isArray": array}, is_integer(first), is_integer(end)]}
    return {"$cond": [is_sound, {"$eq": [end, {"$add": [first, size]}]}, False]}


def with_raw_documents(documents: Documents) -> Collection[RawBSONDocument]:
    """Return the collection so that it returns undecoded documents, which can be sent back as they are."""
    return documents.with_options(codec_options=CODEC.with_options(document_class=RawBSONDocument))


def _is_number(value: Any) -> bool:
    return read_number(value) is not None


_MISSING = object()
_FIELD_CHECKS: Mapping[str, Callable[[Any], bool]] = {
    "format": lambda value: type(value) is not bool and value == FORMAT,
    **dict.fromkeys(("scope", "id"), lambda value: isinstance(value, str)),
    **dict.fromkeys(("start", "end", "updated", "from", "bytes", "cleared"), _is_number),
    "version": is_version,
    "expires": lambda value: value is None or _is_number(value),
    "info": lambda value: isinstance(value, str) and not _CONTROL.search(value),
    "born": lambda value: isinstance(value, ObjectId),
    "runs": lambda value: (
        isinstance(value, list)
        and all(
            isinstance(run, Mapping) and isinstance(run.get("by"), ObjectId) and _is_number(run.get("first"))
            for run in value
        )
    ),
    "dead": lambda value: value is _MISSING,
    "size": lambda value: isinstance(value, int) and value >= 0,
}
"""The check of each field of a head document; `size` is the length of its tail."""
