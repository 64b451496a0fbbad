r"""What a file's lines are: bodies, one per record, and *seals*, each vouching for the lines since the seal before.

    {"v":1,"id":"m1", ...}                                               bodies
    {"v":1,"id":"m2", ...}
    <TAB>{"commit":{"end":2,"sum":..,"marks":"..","start":0, ... ,"info":{...}},"crc":..}       and their seal

Bodies and a seal are a *block*. The seal `commit` ends a batch and says what the head is from there on; the seal
`block` cuts a batch that is long, so that a reader never needs to check much more than it asked for.

A seal begins with a tab: JSON allows it there, and no body can hold one (`check_append` refuses control characters).
So a seal is found from anywhere in the file by looking for a tab, and no body can pass for one. Its fields:

    end     position after the last record of the block (its first is where the block before ended, or the head's start)
    sum     CRC-32 of the block's body lines
    marks   four hexadecimal digits for each body line, if there are several: which one is it when `sum` is wrong?
    start, scope, id, version, updated, expires, info
            (commit only) the head; an info that is a JSON object stands as it is, any other as a JSON string
    crc     CRC-32 of the seal's line up to here, begun with the line's offset in the file
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple
from zlib import crc32

from chathistory.store import Head, Key, Stamp
from chathistory_file.faults import Damage

__all__ = ["BLOCK", "COMMIT", "LF", "TAB", "Block", "batch", "blocks_in", "checked", "head_of", "is_sound"]

TAB, LF = b"\t", b"\n"
BLOCK = 256 * 1024  # bytes of body lines after which a long batch is cut by a seal
COMMIT = b'\t{"commit":'

_SEAL = re.compile(
    rb'(\t\{"(?:commit|block)":\{"end":(\d+),"sum":(\d+)(?:,"marks":"([0-9a-f]+)")?(?:,"start":[^\n]*)?\},"crc":)(\d+)\}\n'
)
_INFO = b',"info":'


class Block(NamedTuple):
    """Body lines, not checked yet, and what their seal, which is sound, says of them."""

    bodies: bytes
    after: int  # the offset of the byte behind the seal
    end: int
    sum: int
    marks: bytes | None


def batch(lines: Iterable[bytes], head: Head, *, first: int, at: int = 0) -> Iterator[bytes]:
    """Yield, block by block, the bytes that store `lines` (with their LF) from position `first` and offset `at` on."""
    groups = _groups(lines)
    group = next(groups, [])
    for following in groups:
        first += len(group)
        data = _sealed(group, b"block", at, first)
        at += len(data)
        yield data
        group = following
    yield _sealed(group, b"commit", at, head.end, _head_fields(head))


def _groups(lines: Iterable[bytes]) -> Iterator[list[bytes]]:
    group: list[bytes] = []
    size = 0
    for line in lines:
        if group and size + len(line) > BLOCK:
            yield group
            group, size = [], 0
        group.append(line)
        size += len(line)
    if group:
        yield group


def _sealed(lines: list[bytes], kind: bytes, at: int, end: int, fields: bytes = b"") -> bytes:
    bodies = b"".join(lines)
    marks = b',"marks":"%b"' % b"".join(map(_mark, lines)) if len(lines) > 1 else b""
    seal = b'\t{"%b":{"end":%d,"sum":%d%b%b},"crc":' % (kind, end, crc32(bodies), marks, fields)
    return b"%b%b%d}\n" % (bodies, seal, _crc(seal, at + len(bodies)))


def _mark(line: bytes) -> bytes:
    return b"%04x" % (crc32(line) & 0xFFFF)


def _crc(text: bytes, offset: int) -> int:
    return crc32(text, offset & 0xFFFFFFFF)


def _head_fields(head: Head) -> bytes:
    key, stamp = head.key, head.stamp
    expires = "null" if stamp.expires is None else stamp.expires
    text = (
        f',"start":{head.start},"scope":{_json(key.scope)},"id":{_json(key.id)},"version":{_json(stamp.version)}'
        f',"updated":{stamp.updated},"expires":{expires},"info":{_info(stamp.info)}'
    )
    return text.encode()


_json = json.JSONEncoder(ensure_ascii=False).encode


def _info(info: str) -> str:
    return info if _is_object(info) else _json(info)


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


def blocks_in(data: bytes, index: int, offset: int) -> Iterator[Block]:
    """Yield the blocks that stand one behind the other from `index` of `data` on, which is `offset` of the file.

    Stops where a seal is not sound, or `data` does not reach to the seal's end.
    """
    while (tab := data.find(TAB, index)) >= 0 and (found := _SEAL.match(data, tab)):
        seal, end, total, marks, crc = found.groups()
        if _crc(seal, offset + tab - index) != int(crc):
            return
        bodies = data[index:tab]
        offset, index = offset + found.end() - index, found.end()
        yield Block(bodies, offset, int(end), int(total), marks)


def is_sound(line: bytes, offset: int) -> bool:
    """Tell whether this line at that offset is a sound seal."""
    return line.startswith(TAB) and any(blocks_in(line, 0, offset))


def head_of(line: bytes) -> Head:
    """Read the head from the line of a sound `commit` seal."""
    try:
        at = line.index(_INFO)
        commit = json.loads(line[:at] + b"}}")["commit"]
        info = line[at + len(_INFO) : line.rindex(b'},"crc":')].decode()
        text = info if info.startswith("{") else json.loads(info)
        stamp = Stamp(commit["version"], commit["updated"], commit["expires"], text)
        return Head(Key(commit["scope"], commit["id"]), commit["start"], commit["end"], stamp)
    except (ValueError, KeyError, TypeError) as error:
        reason = "the commit line is not of this format"
        raise Damage(None, reason) from error


def checked(block: Block, position: int) -> list[bytes]:
    """Return the lines of a block that begins at `position`, without their LF; raises `Damage` if they changed."""
    bodies, _, end, total, _ = block
    lines = bodies.split(LF)
    if crc32(bodies) == total and len(lines) == end - position + 1 and not lines.pop():
        return lines
    reason = "the line is not the one that was stored"
    raise Damage(_culprit(lines, block, position), reason)


def _culprit(lines: list[bytes], block: Block, position: int) -> int:
    """Return the position of the first line that its mark does not fit; of the block's first, if marks cannot tell."""
    marks = block.marks or b""
    if len(marks) != 4 * (block.end - position):
        return position
    for index in range(block.end - position):
        if index >= len(lines) or _mark(lines[index] + LF) != marks[4 * index : 4 * index + 4]:
            return position + index
    return position
