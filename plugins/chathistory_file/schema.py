r"""The lines of a file: records, and commits. Each carries its own checksum, so damage to one line stays there.

    [0,"5a1f0c3e",{"v":1,"id":"m1", ...}]
    [1,"9d02b7aa",{"v":1,"id":"m2", ...}]
    {"commit":2,"at":0,"size":412,"start":0,"end":2,"scope":"default","id":"support/42", ... ,"crc":"c01dcafe"}

A record has its position, the CRC-32 of its body begun with the position, and the body as it was given. So it can be
recognised wherever in the file it stands. A commit ends an append and says what the head is from there on:

    commit  the number of this layout
    at      offset in the file at which the lines of its append begin
    size    bytes of these lines; the commit's own line begins at `at` + `size`
    start, end, scope, id, version, updated, expires, info
            the head; a payload that is a JSON object stands as it is, any other as a JSON string
    crc     CRC-32 of the line up to here

A body has no line feed (`check_append` refuses control characters), and the line of a record begins with a bracket. So
no body can pass for a line. Where the line feed between two lines was damaged, `find_lines` finds both in the rest.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from zlib import crc32

from chathistory.storage.values import LARGEST_NUMBER, Head, Key, Revision
from chathistory_file.errors import NewerLayout

__all__ = [
    "COMMIT",
    "LARGEST_RECORD",
    "LF",
    "LONGEST_LINE",
    "Batch",
    "CommitLine",
    "RecordLine",
    "decode_body",
    "decode_commit",
    "encode_batch",
    "encode_commit",
    "encode_record",
    "find_lines",
    "looks_like_commit",
    "may_be_cut_line",
    "may_hold_record",
]

LAYOUT = 2
LF = b"\n"
COMMIT = b'{"commit":'

LARGEST_RECORD = 256 * 1024 * 1024
"""Bytes of the body of a record that is stored at most."""

LONGEST_LINE = LARGEST_RECORD + 64
"""Bytes of the line of a record at most: what is longer is no line of this store."""

_RECORD = re.compile(rb'\[(0|[1-9][0-9]{0,18}),"([0-9a-f]{8})",')
_BEGINNING = re.compile(rb'\[(?:0|[1-9][0-9]{0,18}),"[0-9a-f]{8}",|\{"commit":[0-9]')
_LAYOUT = re.compile(rb'\{"commit":([0-9]{1,9}),')
_COMMIT_END = re.compile(rb'"crc":"[0-9a-f]{8}"\}.?\Z', re.DOTALL)
_CONTROL = re.compile(rb"[\x00-\x1f]")
_CRC = b',"crc":"'
_CRC_BEGINNING = re.compile(rb'[0-9a-f]{0,8}|[0-9a-f]{8}"')
_INFO = b',"info":'
_MOST_CHECKED = 64 * 1024 * 1024  # bytes: so much is checksummed at most to find the lines within one line


@dataclass(frozen=True, slots=True)
class RecordLine:
    """A sound line of a record, at [start, stop) of the file; the body is not decoded."""

    start: int
    stop: int
    position: int
    body: bytes


@dataclass(frozen=True, slots=True)
class CommitLine:
    """A sound line of a commit, at [start, stop) of the file.

    Attributes:
        head: The head from this append on.
        at: Where the lines of its append were written.
        size: The bytes of these lines.
        has_moved: It stands elsewhere than it was written, so that lines were put in or taken out before it.
    """

    start: int
    stop: int
    head: Head
    at: int
    size: int
    has_moved: bool


@dataclass(frozen=True, slots=True)
class Batch:
    """The bytes of an append: the lines of its records, and that of its commit."""

    records: bytes
    commit: bytes


def encode_batch(bodies: Iterable[bytes], head: Head, *, first: int, at: int) -> Batch:
    """Return the bytes that store `bodies` from position `first` on, written at offset `at` of the file."""
    records = b"".join([encode_record(position, body) for position, body in enumerate(bodies, first)])
    return Batch(records, encode_commit(head, at=at, size=len(records)))


def encode_record(position: int, body: bytes) -> bytes:
    """Return the line of a record."""
    return b'[%d,"%08x",%b]\n' % (position, crc32(body, position & 0xFFFFFFFF), body)


def encode_commit(head: Head, *, at: int, size: int) -> bytes:
    """Return the line of a commit."""
    key, revision = head.key, head.revision
    expires = "null" if revision.expires is None else revision.expires
    payload = revision.payload
    try:
        _strict.decode(payload if payload.startswith("{") else "")
    except (ValueError, RecursionError):  # it is no JSON object
        payload = _to_json(payload)
    text = (
        f'{{"commit":{LAYOUT},"at":{at},"size":{size},"start":{head.start},"end":{head.end},'
        f'"scope":{_to_json(key.scope)},"id":{_to_json(key.id)},"version":{_to_json(revision.version)},'
        f'"updated":{revision.updated},"expires":{expires},"info":{payload},"crc":"'
    ).encode()
    return b'%b%08x"}\n' % (text, crc32(text))


_to_json = json.JSONEncoder(ensure_ascii=False).encode


_strict = json.JSONDecoder(parse_constant=int)  # which raises ValueError for NaN and Infinity


def decode_body(line: bytes, position: int) -> bytes | None:
    """Return the body if the line is the sound line of the record at `position`."""
    beginning = b'[%d,"' % position
    if not (line.startswith(beginning) and line.endswith(b"]")):
        return None
    at = len(beginning)
    body = line[at + 10 : -1]
    return body if line[at : at + 10] == b'%08x",' % crc32(body, position & 0xFFFFFFFF) else None


def decode_commit(line: bytes, start: int) -> CommitLine | None:
    """Return the commit if the line at offset `start` is a sound one.

    Raises:
        NewerLayout: It is a sound one of another layout.
    """
    found = _LAYOUT.match(line)
    text, crc = line[:-10], line[-10:-2]
    if found is None or not line.endswith(b'"}') or not text.endswith(_CRC) or crc != b"%08x" % crc32(text):
        return None
    if int(found[1]) != LAYOUT:
        raise NewerLayout(int(found[1]))
    try:
        info = text.index(_INFO)
        fields = json.loads(text[:info] + b"}")
        payload = text[info + len(_INFO) : -len(_CRC)].decode()
        payload = payload if payload.startswith("{") else str(json.loads(payload))
        revision = Revision(fields["version"], fields["updated"], fields["expires"], payload)
        head = Head(Key(fields["scope"], fields["id"]), fields["start"], fields["end"], revision)
        at, size = fields["at"], fields["size"]
        numbers = head.start, head.end, at, size
        if min(numbers) >= 0 and max(numbers) <= LARGEST_NUMBER:
            return CommitLine(start, start + len(line), head, at, size, has_moved=start != at + size)
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    return None


def _decode_line(line: bytes, start: int) -> RecordLine | CommitLine | None:
    """Return what is in a line (without its line feed) if it is sound as a whole."""
    if line.startswith(COMMIT):
        return decode_commit(line, start)
    found = _RECORD.match(line)
    if found is None or not line.endswith(b"]"):
        return None
    position, body = int(found[1]), line[found.end() : -1]
    sound = found[2] == b"%08x" % crc32(body, position & 0xFFFFFFFF)
    return RecordLine(start, start + len(line), position, body) if sound else None


def find_lines(data: bytes, offset: int, *, ended: bool = True) -> list[RecordLine | CommitLine]:
    """Return the sound lines in what stands between two line feeds: one, or those whose line feeds were changed.

    Each but the last ends where the next begins, or one byte before (the changed line feed); the last ends at the end,
    or one byte before. Text of a body that looks like a line never does: the brackets around it follow.

    Args:
        data: What stands there.
        offset: Where it stands in the file.
        ended: Whether a line feed follows. If none does, it may be a torn line, so only what it begins with counts.
    """
    whole = _decode_line(data, offset)
    if whole is not None:
        return [whole]
    found: list[RecordLine | CommitLine] = []
    if b"[" not in data and COMMIT not in data:  # quick to see, also in a gigabyte of zeros
        return found
    end, left = len(data), _MOST_CHECKED + 2 * len(data)
    for start in reversed([match.start() for match in _BEGINNING.finditer(data)]):
        left -= 2 * (end - start)
        if left < 0:
            break
        line = _decode_line(data[start:end], offset + start)
        if (
            line is None and data[end - 1 : end] != b"]"
        ):  # a bracket would be that of a record that has this in its body
            line = _decode_line(data[start : end - 1], offset + start)
        if line is not None:
            found.append(line)
            end = start
    if not ended:
        found = [line for line in found if line.start == offset and line.stop >= offset + len(data) - 1]
    return found[::-1]


def may_hold_record(data: bytes) -> bool:
    """Return whether something in a line looks like the beginning of a record's line."""
    return _RECORD.search(data) is not None


def may_be_cut_line(data: bytes) -> bool:
    """Return whether data that are not a sound line may be the beginning of one: text, perhaps cut in a character."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(data)
    except UnicodeDecodeError:
        return False
    _, crc, end = data.rpartition(_CRC) if data.startswith(COMMIT) else (b"", b"", b"")
    if crc and len(end) < 2 * len("c01dcafe") and not _CRC_BEGINNING.fullmatch(end):
        return False
    return not _CONTROL.search(data)


def looks_like_commit(data: bytes, *, ended: bool) -> bool:
    """Return whether a line that is not sound is what is left of a commit. A torn append ends in no line feed."""
    return (ended and COMMIT in data) or _COMMIT_END.search(data[-32:]) is not None
