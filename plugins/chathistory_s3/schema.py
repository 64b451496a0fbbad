r"""The content of the object of a conversation.

    <checksum> {"v":2,"scope":..,"id":..,"start":0,"end":90,"version":..,"updated":..,"expires":null,"info":..,
                "incarnation":..,"writer":..,"marker":..,"tail":[70,8123],"segments":[[70,"<token>",[[0,130000]]]]}\n
    <checksum> {...record 70...}\n
    ...

The fields of the first line:

    v            number of this layout
    scope, id    the conversation
    start, end   position of the first record, and position after the last one
    version      version of the revision
    updated      time of the revision, in microseconds since 1970 UTC
    expires      time from which the conversation counts as absent, in microseconds since 1970 UTC; null: never
    info         payload of the revision
    incarnation  token that is created with the conversation; the names of its segments and markers contain it
    writer       token of the last append, by which a writer recognizes its own write
    marker       time in the name of the conversation's marker, by which it is listed
    tail         position of the first record in this object, and bytes of all records in it
    segments     [position after the last record, token in the name, blocks] of each segment
    fenced       true if the tombstone must stay for a day, to refuse slow writers (see `write`); otherwise absent

The *blocks* of a segment are the first position and the bytes of each, so that a part of a large segment can be
fetched. Segments and tail follow one another without a gap.

While a conversation is being deleted, its object is a `Tombstone`; where the service has no conditional DELETE, the
tombstone stays. It is so small that a listing recognizes it by its size, and it says what is left to remove. A
tombstone also stays for a day after the removal of segments to which a slow writer may be about to refer (see `write`).

    deleted <incarnation> <time of the marker> <token of the delete>\n
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice, pairwise, product
from typing import Any
from zlib import crc32

from chathistory.errors import CorruptRecord, InvalidInput, UnsupportedRecord
from chathistory.storage.checks import is_version
from chathistory.storage.values import Head, Key, Revision
from chathistory_s3.lines import SHORTEST

__all__ = [
    "SMALLEST_HEAD",
    "TOMBSTONE_SIZE",
    "HeadContent",
    "S3Segment",
    "Tombstone",
    "decode_head",
    "encode_head",
    "find_key",
    "find_tokens",
]

FORMAT = 2
SMALLEST_HEAD = 64
"""Bytes: a tombstone is smaller, and a head is larger."""
TOMBSTONE_SIZE = 62
"""Bytes of a tombstone; a small object of any other size is damaged."""

_EARLIER_LAYOUT = "it has the layout of a development version; read it with that version, or delete the conversation"
_TOMBSTONE = re.compile(rb"deleted ([0-9a-f]{16}) ([0-9]{19}) ([0-9a-f]{16})")
_EARLIER_TOMBSTONE = re.compile(rb"[a-z]{5} [0-9a-f]{16} [0-9]{19} [0-9a-f]{16}")
_TOKEN = re.compile("[0-9a-f]{16}")
_TIME = re.compile("[0-9]{19}")
_KEY_SEARCH_SIZE = 16 * 1024  # bytes at the beginning of a damaged head that are searched for its key
_MAX_KEY_GUESSES = 4  # the most texts to try as its scope, and as its id


@dataclass(frozen=True, slots=True)
class S3Segment:
    """Records in an object of their own.

    Attributes:
        end: The position after its last record.
        token: The last part of its name.
        blocks: The first position and the bytes of each of its blocks.
    """

    end: int
    token: str
    blocks: tuple[tuple[int, int], ...]

    @property
    def first(self) -> int:
        """The position of its first record."""
        return self.blocks[0][0]

    @property
    def size(self) -> int:
        """Its size in bytes."""
        return sum(size for _, size in self.blocks)

    @property
    def name(self) -> str:
        """The last part of the name of its object."""
        return f"{self.first:019d}-{self.token}"


@dataclass(frozen=True, slots=True)
class HeadContent:
    """The content of a conversation's object.

    Attributes:
        head: The head of the storage contract.
        incarnation: A token that is created with the conversation.
        marker: The time in the name of its marker; "" before it has one.
        segments: The segments with the records before `tail_start`.
        tail_start: The position of the first record in this object.
        tail: The lines of the records from there to the head's end.
        writer: A token of the last append, by which a writer recognizes its own write.
        fenced: Its tombstone must stay for a day, to refuse slow writers: see `write`.
    """

    head: Head
    incarnation: str
    marker: str
    segments: tuple[S3Segment, ...] = ()
    tail_start: int = 0
    tail: bytes = field(default=b"", repr=False)
    writer: str = ""
    fenced: bool = False


@dataclass(frozen=True, slots=True)
class Tombstone:
    """The object of a deleted conversation: its incarnation, the time of its marker, and a token of the delete."""

    incarnation: str
    marker: str
    deleter: str


def encode_head(content: HeadContent | Tombstone) -> bytes:
    """Return the bytes of the object."""
    if isinstance(content, Tombstone):
        return f"deleted {content.incarnation} {content.marker} {content.deleter}\n".encode()
    head, revision = content.head, content.head.revision
    fields = {
        "v": FORMAT,
        "scope": head.key.scope,
        "id": head.key.id,
        "start": head.start,
        "end": head.end,
        "version": revision.version,
        "updated": revision.updated,
        "expires": revision.expires,
        "info": revision.payload,
        "incarnation": content.incarnation,
        "writer": content.writer,
        "marker": content.marker,
        "tail": [content.tail_start, len(content.tail)],
        "segments": [[segment.end, segment.token, segment.blocks] for segment in content.segments],
    }
    if content.fenced:
        fields["fenced"] = True
    line = json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()
    return b"%08x %b\n%b" % (crc32(line), line, content.tail)


def decode_head(data: bytes, key: Key | None, *, with_tail: bool = True) -> HeadContent | Tombstone:
    """Decode the object of a conversation. The lines of the tail are not checked: their damage concerns records only.

    Args:
        data: The bytes of the object.
        key: The conversation, for errors; None if unknown.
        with_tail: Whether `data` includes the tail; False for the beginning of an object.

    Raises:
        CorruptRecord: The head is damaged.
        UnsupportedRecord: A later version of this library wrote it, or a version before the format was frozen.
    """
    line, _, tail = data.partition(b"\n")
    if len(data) < SMALLEST_HEAD and (tombstone := _TOMBSTONE.fullmatch(line)):
        return Tombstone(*(word.decode() for word in tombstone.groups()))
    if _EARLIER_TOMBSTONE.fullmatch(line):
        raise CorruptRecord(key, None, _EARLIER_LAYOUT)
    if line[:9] != b"%08x " % crc32(line[9:]):
        raise CorruptRecord(key, None, "its first line does not match its checksum")
    try:
        fields = json.loads(line[9:])
    except (ValueError, RecursionError):
        fields = None
    version = fields.get("v") if isinstance(fields, dict) else None
    if isinstance(fields, dict) and type(version) is int and version > 0 and version != FORMAT:
        if key is None:
            later = f"a later version of this library wrote it, in format {version}; upgrade"
            raise CorruptRecord(None, None, later if version > FORMAT else _EARLIER_LAYOUT)
        end = fields.get("end")
        raise UnsupportedRecord(key, end if type(end) is int else 0, version)
    try:
        content = _parse_fields(fields, tail if with_tail else b"")
    except (_Malformed, InvalidInput, KeyError, TypeError, ValueError):
        content = None
    if content is None:  # not raised in the handler: the error's context would carry the text
        raise CorruptRecord(key, None, "its first line has fields that this library does not write")
    return content


class _Malformed(Exception):
    """A field has a wrong type, or a value that it cannot have."""


def _check_condition(condition: object) -> None:
    if not condition:
        raise _Malformed


def _check_whole(value: object) -> int:
    if type(value) is not int or value < 0:
        raise _Malformed
    return value


def _parse_fields(fields: Any, tail: bytes) -> HeadContent:
    _check_condition(fields["v"] == FORMAT)
    version, expires, payload = fields["version"], fields["expires"], fields["info"]
    _check_condition(is_version(version))
    _check_condition(isinstance(payload, str) and not any("\ud800" <= letter <= "\udfff" for letter in payload))
    updated = _check_whole(fields["updated"])
    revision = Revision(version, updated, expires if expires is None else _check_whole(expires), payload)
    incarnation, marker, writer = fields["incarnation"], fields["marker"], fields.get("writer", "")
    _check_condition(
        _TOKEN.fullmatch(incarnation) and _TIME.fullmatch(marker) and (writer == "" or _TOKEN.fullmatch(writer))
    )
    start, end = _check_whole(fields["start"]), _check_whole(fields["end"])
    tail_start, size = map(_check_whole, fields["tail"])
    _check_condition(start <= tail_start <= end and size >= SHORTEST * (end - tail_start))
    segments = tuple(_parse_segment(*parts) for parts in fields["segments"])
    ends, firsts = [segment.end for segment in segments], [segment.first for segment in segments]
    _check_condition(
        [*firsts, tail_start] == [firsts[0] if firsts else start, *ends]
    )  # they follow one another without a gap
    _check_condition(not firsts or firsts[0] <= start < ends[0])
    head = Head(Key(fields["scope"], fields["id"]), start, end, revision)
    return HeadContent(head, incarnation, marker, segments, tail_start, tail, writer, fields.get("fenced") is True)


def _parse_segment(end: object, token: Any, blocks: Any) -> S3Segment:
    pairs = tuple((_check_whole(first), _check_whole(size)) for first, size in blocks)
    _check_condition(_TOKEN.fullmatch(token) and pairs)
    segment = S3Segment(_check_whole(end), token, pairs)
    for (first, size), (following, _) in pairwise([*pairs, (segment.end, 0)]):
        _check_condition(first < following and size >= SHORTEST * (following - first))
    return segment


def find_key(data: bytes, is_own: Callable[[Key], bool]) -> Key | None:
    """Return the key that can still be read from a damaged head; None if there is no valid one.

    Args:
        data: The bytes of the object.
        is_own: Returns True if the object has the name of the conversation with this key.
    """
    texts: dict[str, list[Any]] = {"scope": [], "id": []}
    for name, found in texts.items():
        pattern = rb'"%b":("(?:[^"\\\n]|\\.){1,4096}?")' % name.encode()
        for match in islice(re.finditer(pattern, data[:_KEY_SEARCH_SIZE]), _MAX_KEY_GUESSES):
            with suppress(ValueError):
                found.append(json.loads(match[1]))
    for scope, id_ in product(texts["scope"], texts["id"]):
        with suppress(InvalidInput):
            key = Key(scope, id_)
            if is_own(key):
                return key
    return None


def find_tokens(data: bytes) -> tuple[str | None, str | None]:
    """Return the incarnation and the time of the marker from a damaged head; None for one that cannot be read."""
    incarnation = re.search(rb'"incarnation":"([0-9a-f]{16})"', data)
    marker = re.search(rb'"marker":"([0-9]{19})"', data)
    return (incarnation[1].decode() if incarnation else None, marker[1].decode() if marker else None)
