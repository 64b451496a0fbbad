r"""What a file's lines are: records, and commits. Each carries its own checksum, so damage to one line stays there.

    [0,"5a1f0c3e",{"v":1,"id":"m1", ...}]
    [1,"9d02b7aa",{"v":1,"id":"m2", ...}]
    {"commit":2,"at":0,"size":412,"start":0,"end":2,"scope":"default","id":"support/42", ... ,"crc":"c01dcafe"}

A record has its position, the CRC-32 of its body begun with the position, and the body as it was given. So it can be
told wherever in the file it stands. A commit ends an append and says what the head is from there on:

    commit  the number of this layout
    at      offset in the file at which the lines of its append begin
    size    bytes of these lines; the commit's own line begins at `at` + `size`
    start, end, scope, id, version, updated, expires, info
            the head; a payload that is a JSON object stands as it is, any other as a JSON string
    crc     CRC-32 of the line up to here

A body has no line feed (`check_append` refuses control characters), and the line of a record begins with a bracket. So
no body can pass for a line. Where the line feed between two lines was damaged, `pieces` finds the lines in the rest.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from zlib import crc32

from chathistory.storage.store import LARGEST_NUMBER, Head, Key, Revision
from chathistory_file.faults import LaterLayout

__all__ = [
    "COMMIT",
    "LF",
    "Batch",
    "Commit",
    "Piece",
    "RecordLine",
    "batch_of",
    "body_in",
    "commit_in",
    "commit_line",
    "is_beginning",
    "looks_like_commit",
    "may_hold_record",
    "parsed",
    "pieces",
    "record_line",
]

LAYOUT = 2
LF = b"\n"
COMMIT = b'{"commit":'

_POSITION = rb"(0|[1-9][0-9]{0,18})"
_RECORD = re.compile(rb"\[" + _POSITION + rb',"([0-9a-f]{8})",')
_BEGINNING = re.compile(rb'\[(?:0|[1-9][0-9]{0,18}),"[0-9a-f]{8}",|\{"commit":[0-9]')
_LAYOUT = re.compile(rb'\{"commit":([0-9]{1,9}),')
_COMMIT_END = re.compile(rb'"crc":"[0-9a-f]{8}"\}.?\Z', re.DOTALL)
_CONTROL = re.compile(rb"[\x00-\x1f]")
_decoder = codecs.getincrementaldecoder("utf-8")
_CRC = b',"crc":"'
_CRC_BEGINNING = re.compile(rb'[0-9a-f]{0,8}|[0-9a-f]{8}"')
_INFO = b',"info":'
_MOST_CHECKED = 64 * 1024 * 1024  # bytes: so much is checksummed at most to find the lines within one line


@dataclass(frozen=True, slots=True)
class RecordLine:
    """A sound line of a record; the body is not decoded."""

    position: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Commit:
    """A sound line of a commit; `at` and `size` are where the lines of its append were written."""

    head: Head
    at: int
    size: int

    @property
    def offset(self) -> int:
        """Where its line was written."""
        return self.at + self.size


@dataclass(frozen=True, slots=True)
class Piece:
    """A sound line that stands at [start, stop) of what was taken for one line."""

    start: int
    stop: int
    content: RecordLine | Commit


@dataclass(frozen=True, slots=True)
class Batch:
    """The bytes of an append: the lines of its records, and that of its commit."""

    records: bytes
    commit: bytes


def batch_of(bodies: Iterable[bytes], head: Head, *, first: int, at: int) -> Batch:
    """Return the bytes that store `bodies` from position `first` on, written at offset `at` of the file."""
    records = b"".join([record_line(position, body) for position, body in enumerate(bodies, first)])
    return Batch(records, commit_line(head, at=at, size=len(records)))


def record_line(position: int, body: bytes) -> bytes:
    """Return the line of a record."""
    return b'[%d,"%08x",%b]\n' % (position, _crc(body, position), body)


def _crc(body: bytes, position: int) -> int:
    return crc32(body, position & 0xFFFFFFFF)


def commit_line(head: Head, *, at: int, size: int) -> bytes:
    """Return the line of a commit."""
    key, revision = head.key, head.revision
    expires = "null" if revision.expires is None else revision.expires
    text = (
        f'{{"commit":{LAYOUT},"at":{at},"size":{size},"start":{head.start},"end":{head.end},'
        f'"scope":{_json(key.scope)},"id":{_json(key.id)},"version":{_json(revision.version)},'
        f'"updated":{revision.updated},"expires":{expires},"info":{_info(revision.payload)},"crc":"'
    ).encode()
    return b'%b%08x"}\n' % (text, crc32(text))


_json = json.JSONEncoder(ensure_ascii=False).encode


def _info(payload: str) -> str:
    return payload if _is_object(payload) else _json(payload)


def _is_object(text: str) -> bool:
    if not text.startswith("{"):
        return False
    try:
        _strict.decode(text)
    except (ValueError, RecursionError):
        return False
    return True


def _no_json(_: str) -> None:
    raise ValueError


_strict = json.JSONDecoder(parse_constant=_no_json)


def parsed(line: bytes) -> RecordLine | Commit | None:
    """Return what is in a line (without its line feed) if it is sound as a whole; raises `LaterLayout`."""
    return commit_in(line) if line.startswith(COMMIT) else _record_in(line)


def body_in(line: bytes, position: int) -> bytes | None:
    """Return the body if the line is the sound line of the record at `position`."""
    beginning = b'[%d,"' % position
    if not (line.startswith(beginning) and line.endswith(b"]")):
        return None
    at = len(beginning)
    body = line[at + 10 : -1]
    return body if line[at : at + 10] == b'%08x",' % _crc(body, position) else None


def _record_in(line: bytes) -> RecordLine | None:
    found = _RECORD.match(line)
    if found is None or not line.endswith(b"]"):
        return None
    position, body = int(found[1]), line[found.end() : -1]
    return RecordLine(position, body) if found[2] == b"%08x" % _crc(body, position) else None


def commit_in(line: bytes) -> Commit | None:
    """Return the commit if the line is a sound one. Raises `LaterLayout` for a sound one of another layout."""
    found = _LAYOUT.match(line)
    text, crc = line[:-10], line[-10:-2]
    if found is None or not line.endswith(b'"}') or not text.endswith(_CRC) or crc != b"%08x" % crc32(text):
        return None
    if int(found[1]) != LAYOUT:
        raise LaterLayout(int(found[1]))
    return _commit_of(text)


def _commit_of(text: bytes) -> Commit | None:
    """Read a commit from its line, up to its checksum; None: its values are not those of this layout."""
    try:
        payload = text.index(_INFO)
        fields = json.loads(text[:payload] + b"}")
        said = text[payload + len(_INFO) : -len(_CRC)].decode()
        revision = Revision(fields["version"], fields["updated"], fields["expires"], _info_in(said))
        head = Head(Key(fields["scope"], fields["id"]), fields["start"], fields["end"], revision)
        numbers = head.start, head.end, fields["at"], fields["size"]
        return Commit(head, *numbers[2:]) if all(0 <= number <= LARGEST_NUMBER for number in numbers) else None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _info_in(text: str) -> str:
    return text if text.startswith("{") else str(json.loads(text))


def pieces(line: bytes) -> list[Piece]:
    """Return the sound lines in what is no sound line as a whole: lines whose line feeds were changed or removed.

    Each but the last ends where the next begins, or one byte before (the changed line feed); the last ends at the end,
    or one byte before. Text of a body that looks like a line never does: the brackets around it follow.
    """
    found: list[Piece] = []
    if b"[" not in line and COMMIT not in line:  # quick to see, also in a gigabyte of zeros
        return found
    end, left = len(line), _MOST_CHECKED + 2 * len(line)
    for beginning in reversed([match.start() for match in _BEGINNING.finditer(line)]):
        left -= 2 * (end - beginning)
        if left < 0:
            break
        piece = _piece(line, beginning, end)
        if piece is not None:
            found.append(piece)
            end = beginning
    return found[::-1]


def _piece(line: bytes, start: int, end: int) -> Piece | None:
    for stop in (end, end - 1):
        if line[stop:end] == b"]":  # the bracket of a record that has this in its body
            return None
        content = parsed(line[start:stop])
        if content is not None:
            return Piece(start, stop, content)
    return None


def may_hold_record(line: bytes) -> bool:
    """Tell whether something in a line looks like the beginning of a record's line."""
    return _RECORD.search(line) is not None


def is_beginning(line: bytes) -> bool:
    """Tell whether a line that is not sound may be the beginning of one: text, perhaps cut within a character."""
    try:
        _decoder().decode(line)
    except UnicodeDecodeError:
        return False
    _, crc, end = line.rpartition(_CRC) if line.startswith(COMMIT) else (b"", b"", b"")
    if crc and len(end) < 2 * len("c01dcafe") and not _CRC_BEGINNING.fullmatch(end):
        return False
    return not _CONTROL.search(line)


def looks_like_commit(line: bytes, *, ended: bool) -> bool:
    """Tell whether a line that is not sound is what is left of a commit. A torn append ends in no line feed."""
    return (ended and COMMIT in line) or _COMMIT_END.search(line[-32:]) is not None
