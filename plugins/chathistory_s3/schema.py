r"""What the object of a conversation holds.

    <checksum> {"v":1,"scope":..,"id":..,"start":0,"end":90,"version":..,"updated":..,"expires":null,"info":..,
                "incarnation":..,"writer":..,"marker":..,"tail":[70,8123],"segments":[[70,"<token>",[[0,130000]]]]}\n
    <checksum> {...record 70...}\n
    ...

`tail` is the position of the first record in this object, and how many bytes they have. A segment is the position
behind its last record, the token in its name, and its *blocks*: the first position and the bytes of each, so that a
part of a large segment can be fetched. Segments and tail follow one another without a gap.

A conversation that is being deleted is a `Tombstone` for a moment, and stays one where the service has no conditional
DELETE: so small that a listing tells it by its size. It knows what is left to remove. A tombstone also stays for a day
where segments were removed that a slow writer may still be about to name (see `write`).
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

FORMAT = 1
SMALLEST_HEAD = 64
"""Bytes that a tombstone never has, and a head always exceeds."""
TOMBSTONE_SIZE = 60
"""Bytes that a tombstone has: what is small, but not of this size, is damage."""

_TOMBSTONE = re.compile(rb"grave ([0-9a-f]{16}) ([0-9]{19}) ([0-9a-f]{16})")
_TOKEN = re.compile("[0-9a-f]{16}")
_TIME = re.compile("[0-9]{19}")
_NEAR, _GUESSES = 16 * 1024, 4  # bytes in which a damaged head is searched for its key, and texts that are tried


@dataclass(frozen=True, slots=True)
class S3Segment:
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
        """The last part of the name of its object."""
        return f"{self.first:019d}-{self.token}"


@dataclass(frozen=True, slots=True)
class HeadContent:
    """A conversation as its object says it is.

    Attributes:
        head: The head of the storage contract.
        incarnation: A token made with the conversation.
        marker: The time in the name of its marker; "" as long as it has none.
        segments: Where the records before `tail_start` are.
        tail_start: The position of the first record in this object.
        tail: The lines of the records from there to the head's end.
        writer: A token of the append that wrote it last, by which that knows its own work again.
        fenced: Its tombstone has to stay for a day, as a fence: see `write`.
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
    """What is left where a conversation was: its incarnation, the time of its marker, and a token of who deleted it."""

    incarnation: str
    marker: str
    deleter: str


def encode_head(content: HeadContent | Tombstone) -> bytes:
    """Return the bytes of the object."""
    if isinstance(content, Tombstone):
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
        "tail": [content.tail_start, len(content.tail)],
        "segments": [[segment.end, segment.token, segment.blocks] for segment in content.segments],
    }
    if content.fenced:
        fields["fenced"] = True
    line = json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()
    return b"%08x %b\n%b" % (crc32(line), line, content.tail)


def decode_head(data: bytes, key: Key | None, *, with_tail: bool = True) -> HeadContent | Tombstone:
    """Read the object of a conversation, or only its beginning if not `with_tail`; `key` is named in errors.

    The lines of the tail are not looked at: damage among them is that of records.

    Raises:
        CorruptRecord: The head is damaged.
        UnsupportedRecord: A later version of this library wrote it.
    """
    line, _, tail = data.partition(b"\n")
    if len(data) < SMALLEST_HEAD and (tombstone := _TOMBSTONE.fullmatch(line)):
        return Tombstone(*(word.decode() for word in tombstone.groups()))
    if line[:9] != b"%08x " % crc32(line[9:]):
        raise CorruptRecord(key, None, "the head has another checksum than it was stored with")
    try:
        fields = json.loads(line[9:])
    except (ValueError, RecursionError):
        fields = None
    version = fields.get("v") if isinstance(fields, dict) else None
    if isinstance(fields, dict) and type(version) is int and version > FORMAT:
        if key is None:
            raise CorruptRecord(None, None, f"a later version of this library wrote it, with format {version}")
        end = fields.get("end")
        raise UnsupportedRecord(key, end if type(end) is int else 0, version)
    try:
        content = _parse_fields(fields, tail if with_tail else b"")
    except (_Malformed, InvalidInput, KeyError, TypeError, ValueError):
        content = None
    if content is None:  # not raised in the handler: the context would carry the text
        raise CorruptRecord(key, None, "the head has other fields than this library writes")
    return content


class _Malformed(Exception):
    """A field has another type, or a value that it cannot have."""


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


def find_key(data: bytes, is_right: Callable[[Key], bool]) -> Key | None:
    """Return the key that a damaged head still tells, if `is_right` says that the object is in that one's place."""
    texts: dict[str, list[Any]] = {"scope": [], "id": []}
    for name, found in texts.items():
        pattern = rb'"%b":("(?:[^"\\\n]|\\.){1,4096}?")' % name.encode()
        for match in islice(re.finditer(pattern, data[:_NEAR]), _GUESSES):
            with suppress(ValueError):
                found.append(json.loads(match[1]))
    for scope, id_ in product(texts["scope"], texts["id"]):
        with suppress(InvalidInput):
            key = Key(scope, id_)
            if is_right(key):
                return key
    return None


def find_tokens(data: bytes) -> tuple[str | None, str | None]:
    """Return the incarnation and the time of the marker that a damaged head still tells; None: not that one."""
    incarnation = re.search(rb'"incarnation":"([0-9a-f]{16})"', data)
    marker = re.search(rb'"marker":"([0-9]{19})"', data)
    return (incarnation[1].decode() if incarnation else None, marker[1].decode() if marker else None)
