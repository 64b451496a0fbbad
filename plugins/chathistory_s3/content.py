r"""What the object of a conversation holds.

    <checksum> {"v":1,"scope":..,"id":..,"start":0,"end":90,"version":..,"updated":..,"expires":null,"info":..,
                "incarnation":..,"writer":..,"marker":..,"tail":[70,8123],"segments":[[70,"<token>",[[0,130000]]]]}\n
    <checksum> {...record 70...}\n
    ...

`tail` is the position of the first record in this object, and how many bytes they have. A segment is the position
behind its last record, the token in its name, and its *blocks*: the first position and the bytes of each, so that a
part of a large segment can be fetched. Segments and tail follow one another without a gap.

A conversation that is being deleted is a `Grave` for a moment, and stays one where the service has no conditional
DELETE: so small that a listing tells it by its size. It knows what is left to remove.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

from chathistory.errors import CorruptRecord, UnsupportedRecord
from chathistory.store import Head, Key, Stamp

__all__ = ["GRAVE", "GRAVE_SIZE", "Content", "Grave", "Segment", "decoded", "encoded", "is_whole"]

FORMAT = 1
GRAVE = 64
"""Bytes that a grave never has, and a head always exceeds."""
GRAVE_SIZE = 60
"""Bytes that a grave has: what is small, but not of this size, is damage."""


@dataclass(frozen=True, slots=True)
class Segment:
    """Some records in an object of their own: up to position `end`, in `blocks` of (first position, bytes)."""

    end: int
    token: str
    blocks: tuple[tuple[int, int], ...]

    @property
    def first(self) -> int:
        """The position of its first record."""
        return self.blocks[0][0]

    @property
    def size(self) -> int:
        """Its bytes."""
        return sum(size for _, size in self.blocks)

    @property
    def name(self) -> str:
        """The last part of its object key."""
        return f"{self.first:019d}-{self.token}"


@dataclass(frozen=True, slots=True)
class Content:
    """A conversation as its object says it is; `tail` are the lines of the records from `edge` to the head's end.

    writer: a token of the append that wrote it last, by which that knows its own work again.
    """

    head: Head
    incarnation: str
    marker: str
    segments: tuple[Segment, ...] = ()
    edge: int = 0
    tail: bytes = field(default=b"", repr=False)
    writer: str = ""


@dataclass(frozen=True, slots=True)
class Grave:
    """What is left where a conversation was: its incarnation, the time of its marker, and who deleted it."""

    incarnation: str
    marker: str
    deleter: str


def encoded(content: Content | Grave) -> bytes:
    """Return the bytes of the object."""
    if isinstance(content, Grave):
        return f"grave {content.incarnation} {content.marker} {content.deleter}\n".encode()
    head, stamp = content.head, content.head.stamp
    fields = {
        "v": FORMAT,
        "scope": head.key.scope,
        "id": head.key.id,
        "start": head.start,
        "end": head.end,
        "version": stamp.version,
        "updated": stamp.updated,
        "expires": stamp.expires,
        "info": stamp.info,
        "incarnation": content.incarnation,
        "writer": content.writer,
        "marker": content.marker,
        "tail": [content.edge, len(content.tail)],
        "segments": [[segment.end, segment.token, segment.blocks] for segment in content.segments],
    }
    line = json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()
    return b"%08x %b\n%b" % (crc32(line), line, content.tail)


_GRAVE = re.compile(rb"grave ([0-9a-f]{16}) ([0-9]{19}) ([0-9a-f]{16})")


def is_whole(data: bytes) -> bool:
    """Tell whether the beginning of an object has all of the head."""
    return b"\n" in data


def decoded(data: bytes, key: Key | None, *, with_tail: bool = True, whose: Key | None = None) -> Content | Grave:
    """Read the object of `key` (None: that says the object), or its beginning if not `with_tail`.

    Raises `CorruptRecord` with no position if it is damaged, or another conversation's; `whose` names it in that error.
    """
    line, _, tail = data.partition(b"\n")
    if len(data) < GRAVE and (grave := _GRAVE.fullmatch(line)):
        return Grave(*(word.decode() for word in grave.groups()))
    fields = _fields(line, key or whose or Key("?", "?"))
    content = _content(fields, tail if with_tail else b"")
    if key is not None and content.head.key != key:
        raise CorruptRecord(key, None, "the object holds another conversation")
    if with_tail and fields["tail"][1] != len(tail):
        raise CorruptRecord(content.head.key, None, "the object has not the length that it had")
    return content


def _fields(line: bytes, key: Key) -> dict[str, Any]:
    text = line[9:]
    if line[:9] != b"%08x " % crc32(text):
        raise CorruptRecord(key, None, "the object is not the one that was stored")
    fields: dict[str, Any] = json.loads(text)
    if fields["v"] != FORMAT:
        raise UnsupportedRecord(key, 0, fields["v"])
    return fields


def _content(fields: dict[str, Any], tail: bytes) -> Content:
    stamp = Stamp(fields["version"], fields["updated"], fields["expires"], fields["info"])
    head = Head(Key(fields["scope"], fields["id"]), fields["start"], fields["end"], stamp)
    segments = tuple(
        Segment(end, name, tuple((first, size) for first, size in blocks)) for end, name, blocks in fields["segments"]
    )
    tokens = fields["incarnation"], fields["marker"]
    return Content(head, *tokens, segments, fields["tail"][0], tail, fields.get("writer", ""))
