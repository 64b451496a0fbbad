r"""Conversations in a file: JSON lines, the stored lines as they are, and who reads it knows whether it is whole.

    {"chathistory":1,"kind":"conversation","scope":..,"id":..,"start":0,"end":2,"version":..,"updated":..,"expires":..,"info":..}
    {"sum":"5f0c11d2","v":1,"id":"...","kind":"message","at":1790000000000000,"message":{...}}
    {"sum":"0b1d72aa","v":1,"id":"...","kind":"message","at":1790000000000007,"message":{...}}
    {"chathistory":1,"kind":"whole","sha256":"..."}
    {"chathistory":1,"kind":"end","conversations":1,"records":2}

Lines end with a line feed and nothing else does. `void` in the place of `whole`, or earlier, says that the conversation
changed so while it was written that what stands here is of no use; it then follows once more. A file without `end` was
broken off. One whose name ends in `.gz` is compressed; it is told by its first bytes when it is read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Any

from chathistory.errors import Conflict, InvalidInput
from chathistory.log.entry import to_json
from chathistory.shelf.transfer import Parcel
from chathistory.store import Head, Key, Stamp

__all__ = ["FilePart", "Reader", "Writer", "is_mark", "mark_in"]

FORMAT = 1
_MARK = b'{"chathistory":'


def is_mark(line: bytes) -> bool:
    """Whether a line is one of those that this format adds."""
    return line.startswith(_MARK)


class Writer:
    """Writes conversations, then the end."""

    def __init__(self, out: IO[bytes]) -> None:
        self._out = out
        self.conversations = 0
        self.records = 0

    def write(self, parcel: Parcel) -> int:
        """Write one and return how many records it has. Raises `Conflict` if it changed, and is to be written again."""
        head = parcel.head
        self._mark("conversation", **_values(head))
        digest = hashlib.sha256()
        try:
            for line in parcel.lines(head.start):
                data = f"{line}\n".encode()
                digest.update(data)
                self._out.write(data)
        except Conflict:
            self._mark("void")
            raise
        self._mark("whole", sha256=digest.hexdigest())
        self.conversations += 1
        self.records += head.end - head.start
        return head.end - head.start

    def end(self) -> None:
        """Write the last line."""
        self._mark("end", conversations=self.conversations, records=self.records)

    def _mark(self, kind: str, **values: Any) -> None:
        self._out.write(to_json({"chathistory": FORMAT, "kind": kind, **values}).encode() + b"\n")


def _values(head: Head) -> dict[str, Any]:
    stamp = head.stamp
    return {
        "scope": head.key.scope,
        "id": head.key.id,
        "start": head.start,
        "end": head.end,
        "version": stamp.version,
        "updated": stamp.updated,
        "expires": stamp.expires,
        "info": stamp.info,
    }


class Reader:
    """Reads what a `Writer` wrote, from a file that can seek. Raises `InvalidInput` for what is none, or broken off."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.ended = False

    def parts(self) -> Iterator[FilePart]:
        """Yield the conversations in order; each is passed over when the next is asked for, whatever was read of it."""
        while not self.ended:
            values = self._mark()
            if values["kind"] == "conversation":
                part = FilePart(self._file, _head(values), self._file.tell())
                yield part
                part.skip()
            elif values["kind"] == "end":
                self.ended = True
            else:
                reason = "a conversation or the end is due"
                raise _broken(reason)

    def _mark(self) -> dict[str, Any]:
        values = mark_in(self._file.readline())
        if values is None:
            reason = "it was broken off, or is not what an export wrote"
            raise _broken(reason)
        return values


def mark_in(line: bytes) -> dict[str, Any] | None:
    """Return the values of a line of this format's own; None: it is none, or none of this version."""
    try:
        values = json.loads(line) if line.endswith(b"\n") and is_mark(line) else None
    except ValueError:
        return None
    return values if values and values["chathistory"] == FORMAT and isinstance(values.get("kind"), str) else None


def _broken(why: str) -> InvalidInput:
    return InvalidInput(f"the file cannot be read on: {why}")


def _head(values: dict[str, Any]) -> Head:
    try:
        stamp = Stamp(values["version"], values["updated"], values["expires"], values["info"])
        return Head(Key(values["scope"], values["id"]), values["start"], values["end"], stamp)
    except KeyError:
        reason = "a conversation lacks something"
    raise _broken(reason)


@dataclass(slots=True)
class FilePart:
    """A parcel in a file. void: it was found to be so; what is to be had of it is none."""

    file: IO[bytes]
    head: Head
    offset: int
    behind: int = -1
    void: bool = False

    def lines(self, start: int) -> Iterator[str]:
        """Yield the lines from `start` on; at the end raise `InvalidInput` if they are not those that were written."""
        digest = hashlib.sha256()
        self.file.seek(self.offset)
        for position in range(self.head.start, self.head.end):
            data = self.file.readline()
            if is_mark(data) or not data.endswith(b"\n"):
                self._close(data, None)
            digest.update(data)
            if position >= start:
                yield _text(data)
        self._close(self.file.readline(), digest.hexdigest())

    def _close(self, line: bytes, digest: str | None) -> None:
        """Read the mark behind the lines. Raises `Conflict` if it voids them, `InvalidInput` if it does not fit."""
        values = mark_in(line)
        if values is None:
            raise self._cut()
        self.behind = self.file.tell()
        if values["kind"] == "void":
            self.void = True
            raise Conflict(self.head.key, None)
        if values["kind"] != "whole" or values.get("sha256") != digest:
            msg = f"the lines of conversation {self.head.key.id!r} are not those that were written"
            raise InvalidInput(msg)

    def skip(self) -> None:
        """Go behind it. Raises `InvalidInput` if the file ends before."""
        if self.behind < 0:
            with suppress(Conflict, InvalidInput):  # what is wrong with it was told to who read it
                for _ in self.lines(self.head.end):
                    pass
        if self.behind < 0:
            raise self._cut()
        self.file.seek(self.behind)

    def _cut(self) -> InvalidInput:
        return _broken(f"it was broken off in the midst of conversation {self.head.key.id!r}")


def _text(data: bytes) -> str:
    text = _decoded(data)
    if text is None:
        reason = "a line is no UTF-8"
        raise _broken(reason)
    return text


def _decoded(data: bytes) -> str | None:
    """Return the text of a line, or None: an error raised in the handler would carry the text in its context."""
    try:
        return data[:-1].decode()
    except UnicodeDecodeError:
        return None
