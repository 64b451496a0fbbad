r"""Conversations in a file: JSON lines, the stored lines as they are, and who reads it knows whether it is whole.

    {"chathistory":1,"kind":"conversation","scope":..,"id":..,"start":0,"end":2,"version":..,"updated":..,"expires":..,"info":..}
    {"sum":"5f0c11d2","v":1,"id":"...","kind":"message","at":1790000000000000,"message":{...}}
    {"sum":"0b1d72aa","v":1,"id":"...","kind":"message","at":1790000000000007,"message":{...}}
    {"chathistory":1,"kind":"whole","sha256":"..."}
    {"chathistory":1,"kind":"end","conversations":1,"records":2}

`void` in the place of `whole`, or earlier, says that what stands here is of no use: the conversation changed while it
was written and follows once more, or it is damaged (`"why":"damaged"`). A file without `end` was broken off.

Files may be put behind each other. What belongs to no conversation is passed over and told: reading goes on at the next
line that begins one. A file whose name ends in `.gz` is compressed; it is told by its first bytes when it is read.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Any, NoReturn, TypeAlias

from chathistory.errors import ChatHistoryError, Conflict, CorruptRecord, InvalidInput
from chathistory.log.entry import to_json
from chathistory.log.state import read_state
from chathistory.messages.json_values import DECODER
from chathistory.storage.values import LARGEST_NUMBER, LONGEST_PAYLOAD, LONGEST_VERSION, Head, Key, Revision
from chathistory.transfer.copy_sources import CopySource, LineChecker

__all__ = [
    "ExportReader",
    "ExportWriter",
    "ExportedConversation",
    "SkippedLines",
    "WriteResult",
    "has_conversation_header",
    "is_control_line",
    "parse_control_line",
]

FORMAT = 1

_CONTROL_PREFIX = b'{"chathistory":'
_BOM = b"\xef\xbb\xbf"


def is_control_line(line: bytes) -> bool:
    """Whether a line is one of those that this format adds."""
    return line.lstrip(_BOM).startswith(_CONTROL_PREFIX)


@dataclass(frozen=True, slots=True)
class WriteResult:
    """A conversation that was written: its records, and how many of them have a later format than this version's."""

    records: int
    later: int


class ExportWriter:
    """Writes conversations, then the end."""

    def __init__(self, out: IO[bytes]) -> None:
        self._out = out
        self.conversations = 0
        self.records = 0

    def write(self, source: CopySource, *, salvages: bool = False) -> WriteResult:
        """Write one conversation.

        Args:
            source: The conversation.
            salvages: What can be read of it is to follow if it is damaged.

        Raises:
            Conflict: It changed meanwhile, and is to be written again; what was written of it is marked as void.
            CorruptRecord: A record is damaged; what was written is marked as void, with the reason.
        """
        head = source.head
        self._write_control_line("conversation", **head_to_values(head))
        digest, tally = hashlib.sha256(), LineChecker()
        try:
            for line in tally.check(source, head.start):
                data = f"{line}\n".encode()
                digest.update(data)
                self._out.write(data)
        except Conflict:
            self._write_control_line("void")
            raise
        except ChatHistoryError:
            self._write_control_line("void", **({} if salvages else {"why": "damaged"}))
            raise
        self._write_control_line("whole", sha256=digest.hexdigest())
        self.conversations += 1
        self.records += head.end - head.start
        return WriteResult(head.end - head.start, tally.later)

    def end(self) -> None:
        """Write the last line."""
        self._write_control_line("end", conversations=self.conversations, records=self.records)

    def _write_control_line(self, kind: str, **values: Any) -> None:
        self._out.write(to_json({"chathistory": FORMAT, "kind": kind, **values}).encode() + b"\n")


def head_to_values(head: Head) -> dict[str, Any]:
    """Return the values of the first line of a conversation, which `head_from_values` reads."""
    revision = head.revision
    return {
        "scope": head.key.scope,
        "id": head.key.id,
        "start": head.start,
        "end": head.end,
        "version": revision.version,
        "updated": revision.updated,
        "expires": revision.expires,
        "info": revision.payload,
    }


@dataclass(frozen=True, slots=True)
class SkippedLines:
    """A part of a file that was passed over.

    Attributes:
        offset: The byte at which it begins, in the unpacked file.
        lines: How many lines it has.
        reason: Why, in words without message text.
    """

    offset: int
    lines: int
    reason: str

    def with_one_line_more(self) -> SkippedLines:
        """Return it with one line more."""
        return SkippedLines(self.offset, self.lines + 1, self.reason)

    def __str__(self) -> str:
        return f"{self.lines} lines from byte {self.offset} on: {self.reason}"


ExportPart: TypeAlias = "ExportedConversation | SkippedLines"


class ExportReader:
    """Reads what a `Writer` wrote, from a file that can seek, and goes on behind what it cannot read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def iter_parts(self) -> Iterator[ExportPart]:
        """Yield the conversations in order, and what was passed over between them.

        Each conversation is passed over when the next is asked for, whatever was read of it.

        Raises:
            InvalidInput: The file was broken off: it has no end. What came before was yielded.
        """
        ended = False
        skipped: SkippedLines | None = None
        while True:
            offset = self._file.tell()
            line = self._file.readline()
            if line and not line.lstrip(_BOM).strip():
                continue
            found = _parse_header(line) if line else None
            if isinstance(found, str):
                if place := _find_header(line):
                    self._file.seek(offset + place)
                skipped = skipped.with_one_line_more() if skipped else SkippedLines(offset, 1, found)
                continue
            if skipped is not None:
                yield skipped
                skipped = None
            if isinstance(found, Head):
                ended = False
                part = ExportedConversation(self._file, found, self._file.tell())
                yield part
                part.skip()
            elif line:
                ended = True
            elif ended:
                return
            else:
                reason = "it was broken off: its last line is missing"
                raise _make_file_error(reason)


def has_conversation_header(line: bytes) -> bool:
    """Return whether a conversation begins in a line, also behind one that was broken off."""
    return isinstance(_parse_header(line), Head) or _find_header(line) is not None


def _parse_header(line: bytes) -> Head | str | None:
    """Return the head that a line tells, or why the line is passed over; None: it ends a file."""
    try:
        values = parse_control_line(line)
        if values is not None and values["kind"] == "conversation":
            return head_from_values(values)
    except InvalidInput as error:
        return str(error)
    return None if values is not None and values["kind"] == "end" else "they belong to no conversation"


def parse_control_line(line: bytes) -> dict[str, Any] | None:
    """Return the values of a line of this format's own; None: it is another line.

    Raises:
        InvalidInput: A later version wrote it.
    """
    if not is_control_line(line):
        return None
    try:
        values = DECODER.decode(line.lstrip(_BOM).decode())
    except (ValueError, RecursionError):
        return None
    version = values["chathistory"] if isinstance(values, dict) else None
    if type(version) is not int or version < FORMAT:
        return None
    if version > FORMAT:
        reason = "a later version of chathistory wrote it; update chathistory"
        raise _make_file_error(reason)
    return values if isinstance(values.get("kind"), str) else None


def _make_file_error(reason: str) -> InvalidInput:
    return InvalidInput(f"the file cannot be read on: {reason}")


def head_from_values(values: dict[str, Any]) -> Head:
    """Return the head that the first line of a conversation tells, each field checked by type and range.

    Raises:
        InvalidInput: A field is missing or wrong; the text names it.
    """
    for name, is_valid in _FIELDS.items():
        if name not in values or not is_valid(values[name]):
            raise InvalidInput(f"a conversation's first line has no valid {name}")
    if values["start"] > values["end"]:
        raise InvalidInput("a conversation's first line has no valid end: it is before the start")
    key = Key(values["scope"], values["id"])
    revision = Revision(values["version"], values["updated"], values["expires"], values["info"])
    return Head(key, values["start"], values["end"], revision)


def _is_number(value: object) -> bool:
    return type(value) is int and 0 <= value <= LARGEST_NUMBER


def _is_text(value: object) -> bool:
    return isinstance(value, str)


_FORBIDDEN = re.compile("[\x00-\x1f\ud800-\udfff]")
_FIELDS: dict[str, Callable[[Any], bool]] = {
    "scope": _is_text,
    "id": _is_text,
    "start": _is_number,
    "end": _is_number,
    "version": lambda value: (
        _is_text(value) and 0 < len(value) <= LONGEST_VERSION and value.isascii() and value.isprintable()
    ),
    "updated": _is_number,
    "expires": lambda value: value is None or _is_number(value),
    "info": lambda value: _is_text(value) and len(value) <= LONGEST_PAYLOAD and not _FORBIDDEN.search(value),
}
"""What the fields of a conversation's first line must be; scope and id are checked further by `Key`."""


@dataclass(slots=True)
class ExportedConversation:
    """A conversation in a file; a `CopySource`.

    Attributes:
        file: The file, which can seek.
        head: What its first line says.
        offset: The byte at which its lines begin.
        end_offset: The byte behind it; -1: it is not known yet.
        is_void: It changed while it was written, and follows once more; nothing of it is of use.
    """

    file: IO[bytes]
    head: Head
    offset: int
    end_offset: int = -1
    is_void: bool = False

    def lines(self, start: int) -> Iterator[str]:
        """Yield the lines from `start` on.

        Raises:
            InvalidInput: The lines are not those that were written; also behind the last.
            Conflict: The conversation changed while it was written.
            CorruptRecord: The conversation was damaged when it was written.
        """
        digest = hashlib.sha256()
        self.file.seek(self.offset)
        position = self.head.start
        while position < self.head.end:
            begin = self.file.tell()
            data = self.file.readline()
            data = data[:-2] + b"\n" if data.endswith(b"\r\n") else data
            if data and not data.strip():
                continue  # an editor or a transfer may have put it there
            place = _find_control_line(data)
            if place is not None:
                self._raise_at_control_line(begin + place, data[place:])
            if not data.endswith(b"\n"):
                raise self._make_truncation_error()
            digest.update(data)
            if position >= start:
                text = None
                with suppress(UnicodeDecodeError):  # an error raised in a handler would carry the text in its context
                    text = data[:-1].decode()
                if text is None:
                    reason = "a line is not text in UTF-8"
                    raise _make_file_error(reason)
                yield text
            position += 1
        self._check_end(digest.hexdigest())

    def _check_end(self, digest: str) -> None:
        """Read on to the next line of this format's own, and raise as `lines` does unless it fits the lines before."""
        is_long = False
        while True:
            begin = self.file.tell()
            data = self.file.readline()
            if not data:
                raise self._make_truncation_error()
            place = _find_control_line(data)
            if place is None:
                is_long = is_long or bool(data.strip())
                continue
            values = _parse_values(data[place:])
            if is_long or place or values.get("kind") != "whole" or values.get("sha256") != digest:
                self._raise_at_control_line(begin + place, data[place:])
            self.end_offset = self.file.tell()
            return

    def _raise_at_control_line(self, offset: int, line: bytes) -> NoReturn:
        """Raise what a line of this format's own says that stands where a line of the conversation should."""
        key = self.head.key
        kind, why = _parse_values(line).get("kind"), _parse_values(line).get("why")
        if kind not in ("void", "whole"):
            self.end_offset = offset  # the next conversation begins here
            raise InvalidInput(f"the file breaks off within conversation {key.id!r}")
        self.end_offset = self.file.tell()
        if kind == "whole":
            raise InvalidInput(f"the lines of conversation {key.id!r} are not those that were written")
        if why is not None:
            raise CorruptRecord(key, None, "it could not be read when the file was written")
        self.is_void = True
        raise Conflict(key, None)

    def find_source(self) -> ExportedConversation | None:
        """Return it if it is of use, else None. Raises `CorruptRecord` if its head would break a listing."""
        if self.is_void:
            return None
        read_state(self.head)
        return self

    def skip(self) -> None:
        """Go behind it. Raises `InvalidInput` if the file ends before."""
        if self.end_offset < 0:
            with suppress(Conflict, CorruptRecord, InvalidInput):  # what is wrong with it was told to its reader
                for _ in self.lines(self.head.end):
                    pass
        if self.end_offset < 0:
            raise self._make_truncation_error()
        self.file.seek(self.end_offset)

    def _make_truncation_error(self) -> InvalidInput:
        return _make_file_error(f"it was broken off in the midst of conversation {self.head.key.id!r}")


def _find_control_line(data: bytes) -> int | None:
    """Return where a line of this format's own begins: at 0, or behind a line that was broken off; None: nowhere."""
    return _find_header(data) or (0 if is_control_line(data) else None)


def _find_header(data: bytes) -> int | None:
    """Return where the first line of a conversation begins that stands behind one that was broken off; else None."""
    place = data.find(_CONTROL_PREFIX, 1)
    while place > 0:
        if isinstance(_parse_header(data[place:]), Head):
            return place
        place = data.find(_CONTROL_PREFIX, place + 1)
    return None


def _parse_values(line: bytes) -> dict[str, Any]:
    try:
        return parse_control_line(line) or {}
    except InvalidInput:
        return {}
