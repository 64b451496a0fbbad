r"""The lines of a file: records and commits. Each has its own checksum, so damage to one line affects no other.

    [0,"5a1f0c3e",{"v":2,"id":"m1", ...}]
    [1,"9d02b7aa",{"v":2,"id":"m2", ...}]
    {"commit":2,"at":0,"size":412,"start":0,"end":2,"scope":"default","id":"support/42", ... ,"crc":"c01dcafe"}

A record has its position, the CRC-32 of its body (with the position as the start value), and the body as it was given.
So it can be recognised at any offset of the file. A commit ends an append and contains the head from there on:

    commit  the number of this layout
    at      offset in the file at which the lines of its append begin
    size    bytes of these lines; the commit's own line begins at `at` + `size`
    start, end, scope, id, version, updated, expires, info
            the head; a payload that is a JSON object is written as it is, any other as a JSON string
    crc     CRC-32 of the line up to here

A body has no line feed (`check_append` refuses control characters), and the line of a record begins with a bracket. So
no body can be mistaken for a line. If the line feed between two lines was damaged, `find_lines` still finds both.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from zlib import crc32

from chathistory.storage.values import LARGEST_NUMBER, Head, Key, Revision
from chathistory_file.errors import OtherLayout

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
"""The largest body of a record, in bytes."""

LONGEST_LINE = LARGEST_RECORD + 64
"""The longest line of a record, in bytes; a longer line is not one of this store."""

_RECORD = re.compile(rb'\[(0|[1-9][0-9]{0,18}),"([0-9a-f]{8})",')
_BEGINNING = re.compile(rb'\[(?:0|[1-9][0-9]{0,18}),"[0-9a-f]{8}",|\{"commit":[0-9]')
_LAYOUT = re.compile(rb'\{"commit":([0-9]{1,9}),')
_COMMIT_END = re.compile(rb'"crc":"[0-9a-f]{8}"\}.?\Z', re.DOTALL)
_CONTROL = re.compile(rb"[\x00-\x1f]")
_CRC = b',"crc":"'
_CRC_BEGINNING = re.compile(rb'[0-9a-f]{0,8}|[0-9a-f]{8}"')
_INFO = b',"info":'
_MOST_CHECKED = 64 * 1024 * 1024  # the most bytes to checksum in search of the lines within one line


@dataclass(frozen=True, slots=True)
class RecordLine:
    """A sound line of a record, at offsets [start, stop) of the file; the body is not decoded."""

    start: int
    stop: int
    position: int
    body: bytes


@dataclass(frozen=True, slots=True)
class CommitLine:
    """A sound line of a commit, at offsets [start, stop) of the file.

    Attributes:
        head: The head from this append on.
        at: The offset at which the lines of its append were written.
        size: The bytes of these lines.
        has_moved: The commit is not at the offset where it was written: lines were inserted or removed before it.
    """

    start: int
    stop: int
    head: Head
    at: int
    size: int
    has_moved: bool


@dataclass(frozen=True, slots=True)
class Batch:
    """The bytes of an append: the lines of its records, and the line of its commit."""

    records: bytes
    commit: bytes


def encode_batch(bodies: Iterable[bytes], head: Head, *, first: int, at: int) -> Batch:
    """Return the bytes of an append.

    Args:
        bodies: The bodies of its records.
        head: The head from this append on.
        first: The position of the first record.
        at: The offset of the file at which the bytes will be written.
    """
    records = b"".join([encode_record(position, body) for position, body in enumerate(bodies, first)])
    return Batch(records, encode_commit(head, at=at, size=len(records)))


def encode_record(position: int, body: bytes) -> bytes:
    """Return the line of a record, with its line feed."""
    return b'[%d,"%08x",%b]\n' % (position, crc32(body, position & 0xFFFFFFFF), body)


def encode_commit(head: Head, *, at: int, size: int) -> bytes:
    """Return the line of a commit, with its line feed.

    Args:
        head: The head.
        at: The offset at which the lines of the append begin.
        size: The bytes of these lines.
    """
    key, revision = head.key, head.revision
    expires = "null" if revision.expires is None else revision.expires
    payload = revision.payload
    try:
        _strict.decode(payload if payload.startswith("{") else "")
    except (ValueError, RecursionError):  # not a JSON object
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
    """Return the body in the line of a record; None if the line is not the sound line of that record.

    Args:
        line: The line, without its line feed.
        position: The position of the record.
    """
    beginning = b'[%d,"' % position
    if not (line.startswith(beginning) and line.endswith(b"]")):
        return None
    at = len(beginning)
    body = line[at + 10 : -1]
    return body if line[at : at + 10] == b'%08x",' % crc32(body, position & 0xFFFFFFFF) else None


def decode_commit(line: bytes, start: int) -> CommitLine | None:
    """Return the commit if a line is a sound one of this layout; else None.

    Args:
        line: The line, without its line feed.
        start: Its offset in the file.

    Raises:
        OtherLayout: It is a sound commit of another layout.
    """
    found = _LAYOUT.match(line)
    text, crc = line[:-10], line[-10:-2]
    if found is None or not line.endswith(b'"}') or not text.endswith(_CRC) or crc != b"%08x" % crc32(text):
        return None
    if int(found[1]) != LAYOUT:
        raise OtherLayout(int(found[1]))
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
    """Return the record or commit in a line (without its line feed); None if the line as a whole is not sound."""
    if line.startswith(COMMIT):
        return decode_commit(line, start)
    found = _RECORD.match(line)
    if found is None or not line.endswith(b"]"):
        return None
    position, body = int(found[1]), line[found.end() : -1]
    sound = found[2] == b"%08x" % crc32(body, position & 0xFFFFFFFF)
    return RecordLine(start, start + len(line), position, body) if sound else None


def find_lines(data: bytes, offset: int, *, ended: bool = True) -> list[RecordLine | CommitLine]:
    """Return the sound lines in the bytes between two line feeds: one, or several if line feeds were changed.

    Each line but the last must end where the next begins, or one byte before (the changed line feed). The last line
    must end at the end, or one byte before. Text in a body that looks like a line never does: a bracket follows it.

    Args:
        data: The bytes.
        offset: Their offset in the file.
        ended: Whether a line feed follows. If not, the line may be cut, so only a line at the beginning counts.

    Returns:
        The lines, in order; [] without any.
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
        if line is None and data[end - 1 : end] != b"]":  # a bracket would end a record that has this text in its body
            line = _decode_line(data[start : end - 1], offset + start)
        if line is not None:
            found.append(line)
            end = start
    if not ended:
        found = [line for line in found if line.start == offset and line.stop >= offset + len(data) - 1]
    return found[::-1]


def may_hold_record(data: bytes) -> bool:
    """Return True if something in a line looks like the beginning of a record's line."""
    return _RECORD.search(data) is not None


def may_be_cut_line(data: bytes) -> bool:
    """Return True if data that are not a sound line may be the beginning of one: text, perhaps cut in a character."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(data)
    except UnicodeDecodeError:
        return False
    _, crc, end = data.rpartition(_CRC) if data.startswith(COMMIT) else (b"", b"", b"")
    if crc and len(end) < 2 * len("c01dcafe") and not _CRC_BEGINNING.fullmatch(end):
        return False
    return not _CONTROL.search(data)


def looks_like_commit(data: bytes, *, ended: bool) -> bool:
    """Return True if a line that is not sound looks like a damaged commit.

    Args:
        data: The line, without its line feed.
        ended: Whether a line feed follows. An append that a crash interrupted does not end in one.
    """
    return (ended and COMMIT in data) or _COMMIT_END.search(data[-32:]) is not None
