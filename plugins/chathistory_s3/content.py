r"""What the object of a conversation holds.

    <checksum> {"v":1,"scope":..,"id":..,"start":0,"end":90,"version":..,"updated":..,"expires":null,"info":..,
                "incarnation":..,"writer":..,"marker":..,"tail":[70,8123],"segments":[[70,"<token>",[[0,130000]]]]}\n
    <checksum> {...record 70...}\n
    ...

`tail` is the position of the first record in this object, and how many bytes they have. A segment is the position
behind its last record, the token in its name, and its *blocks*: the first position and the bytes of each, so that a
part of a large segment can be fetched. Segments and tail follow one another without a gap.

A conversation that is being deleted is a `Grave` for a moment, and stays one where the service has no conditional
DELETE: so small that a listing tells it by its size. It knows what is left to remove. A grave also stays for a day
where segments were removed that a slow writer may still be about to name (see `writing`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any
from zlib import crc32

from chathistory.errors import CorruptRecord, InvalidInput, UnsupportedRecord
from chathistory.storage.store import Head, Key, Revision
from chathistory_s3.lines import SHORTEST

__all__ = [
    "GRAVE",
    "GRAVE_SIZE",
    "Content",
    "Grave",
    "Segment",
    "decoded",
    "encoded",
    "is_whole",
    "told_key",
    "told_tokens",
]

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
    fenced: its grave has to stay for a day, as a fence: see `writing`.
    """

    head: Head
    incarnation: str
    marker: str
    segments: tuple[Segment, ...] = ()
    edge: int = 0
    tail: bytes = field(default=b"", repr=False)
    writer: str = ""
    fenced: bool = False


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
        "tail": [content.edge, len(content.tail)],
        "segments": [[segment.end, segment.token, segment.blocks] for segment in content.segments],
    }
    if content.fenced:
        fields["fenced"] = True
    line = json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()
    return b"%08x %b\n%b" % (crc32(line), line, content.tail)


_GRAVE = re.compile(rb"grave ([0-9a-f]{16}) ([0-9]{19}) ([0-9a-f]{16})")


def is_whole(data: bytes) -> bool:
    """Tell whether the beginning of an object has all of the head."""
    return b"\n" in data


def decoded(data: bytes, key: Key | None, *, with_tail: bool = True) -> Content | Grave:
    """Read the object of a conversation, or only its beginning if not `with_tail`; `key` is named in errors.

    The lines of the tail are not looked at: damage among them is that of records.

    Raises:
        CorruptRecord: The head is damaged.
        UnsupportedRecord: A later version of this library wrote it.
    """
    line, _, tail = data.partition(b"\n")
    if len(data) < GRAVE and (grave := _GRAVE.fullmatch(line)):
        return Grave(*(word.decode() for word in grave.groups()))
    if line[:9] != b"%08x " % crc32(line[9:]):
        raise CorruptRecord(key, None, "the object is not the one that was stored")
    fields = _fields(line[9:])
    version = fields.get("v")
    if type(version) is int and version > FORMAT:
        end = fields.get("end")
        if key is None:
            raise CorruptRecord(None, None, f"a later version of this library wrote it, with format {version}")
        raise UnsupportedRecord(key, end if type(end) is int else 0, version)
    content = _content(fields, tail if with_tail else b"")
    if content is None:
        raise CorruptRecord(key, None, "its fields are not those that this library writes")
    return content


def _fields(text: bytes) -> dict[str, Any]:
    """Return the fields of a head; none if it has no such thing. An error of JSON would carry the text with it."""
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return fields if isinstance(fields, dict) else {}


def _content(fields: dict[str, Any], tail: bytes) -> Content | None:
    """Return what the fields say; None: they cannot have been written by this library."""
    try:
        return _checked(fields, tail)
    except (_Unfit, InvalidInput, KeyError, TypeError, ValueError):
        return None


class _Unfit(Exception):
    """A field has another type, or a value that it cannot have."""


def _check(condition: object) -> None:
    if not condition:
        raise _Unfit


def _checked(fields: dict[str, Any], tail: bytes) -> Content:
    _check(fields["v"] == FORMAT)
    version, expires, writer = fields["version"], fields["expires"], fields.get("writer", "")
    _check(isinstance(version, str) and 1 <= len(version) <= _LONGEST_VERSION)
    _check(version.isascii() and version.isprintable())
    revision = Revision(
        version, _whole(fields["updated"]), expires if expires is None else _whole(expires), fields["info"]
    )
    _check(isinstance(revision.payload, str) and _encodable(revision.payload))
    start, end = _whole(fields["start"]), _whole(fields["end"])
    incarnation, marker = fields["incarnation"], fields["marker"]
    _check(_TOKEN.fullmatch(incarnation) and _TIME.fullmatch(marker) and (writer == "" or _TOKEN.fullmatch(writer)))
    edge, size = map(_whole, fields["tail"])
    _check(start <= edge <= end and size >= SHORTEST * (end - edge))
    segments = tuple(_segment(*parts) for parts in fields["segments"])
    _check_run(segments, start, edge)
    head = Head(Key(fields["scope"], fields["id"]), start, end, revision)
    fenced = fields.get("fenced") is True
    return Content(head, incarnation, marker, segments, edge, tail, writer, fenced)


def _segment(end: object, name: object, blocks: Any) -> Segment:
    pairs = tuple((_whole(first), _whole(size)) for first, size in blocks)
    _check(isinstance(name, str) and _TOKEN.fullmatch(name) and pairs)
    segment = Segment(_whole(end), str(name), pairs)
    behind = [first for first, _ in pairs[1:]] + [segment.end]
    _check(all(first < next_one and size >= SHORTEST * (next_one - first)
               for (first, size), next_one in zip(pairs, behind, strict=True)))  # fmt: skip
    return segment


def _check_run(segments: Sequence[Segment], start: int, edge: int) -> None:
    """Check that the segments follow one another without a gap, from `start` to `edge`."""
    ends = [segment.end for segment in segments]
    firsts = [segment.first for segment in segments]
    _check([*firsts, edge] == [firsts[0] if firsts else start, *ends])
    _check(not firsts or firsts[0] <= start < ends[0])


def _whole(value: object) -> int:
    if type(value) is not int or value < 0:
        raise _Unfit
    return value


def _encodable(text: str) -> bool:
    return text.isprintable() or not any("\ud800" <= letter <= "\udfff" for letter in text)


_LONGEST_VERSION = 32
_TOKEN = re.compile("[0-9a-f]{16}")
_TIME = re.compile("[0-9]{19}")


def told_key(data: bytes, is_right: Callable[[Key], bool]) -> Key | None:
    """Return the key that a damaged head still tells, if `is_right` says that the object is in that one's place."""
    found = {name: _told_texts(data, name) for name in ("scope", "id")}
    for scope in found["scope"]:
        for id_ in found["id"]:
            key = _key(scope, id_)
            if key is not None and is_right(key):
                return key
    return None


def told_tokens(data: bytes) -> tuple[str | None, str | None]:
    """Return the incarnation and the time of the marker that a damaged head still tells; None: not that one."""
    incarnation = re.search(rb'"incarnation":"([0-9a-f]{16})"', data)
    marker = re.search(rb'"marker":"([0-9]{19})"', data)
    return (incarnation[1].decode() if incarnation else None, marker[1].decode() if marker else None)


def _told_texts(data: bytes, name: str) -> list[str]:
    """Return the first texts that stand behind a name of JSON; the head has them near its beginning."""
    pattern = rb'"%b":("(?:[^"\\\n]|\\.){1,4096}?")' % name.encode()
    found = (_text(match[1]) for match in islice(re.finditer(pattern, data[:_NEAR]), _GUESSES))
    return [text for text in found if text is not None]


_NEAR, _GUESSES = 16 * 1024, 4


def _text(literal: bytes) -> str | None:
    try:
        text = json.loads(literal)
    except ValueError:
        return None
    return text if isinstance(text, str) else None


def _key(scope: str, id_: str) -> Key | None:
    try:
        return Key(scope, id_)
    except InvalidInput:
        return None
