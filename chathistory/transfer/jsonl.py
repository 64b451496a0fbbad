r"""The format of exports: JSON lines that hold the stored lines unchanged, and show whether the file is complete.

    {"chathistory":2,"kind":"conversation","scope":..,"id":..,"start":0,"end":2,"version":..,"updated":..,"expires":..,"payload":..}
    {"sum":"5f0c11d2","v":2,"id":"...","kind":"message","at":1790000000000000,"message":{...}}
    {"sum":"0b1d72aa","v":2,"id":"...","kind":"message","at":1790000000000007,"message":{...}}
    {"chathistory":2,"kind":"complete","sha256":"..."}
    {"chathistory":2,"kind":"end","conversations":1,"records":2}

The lines that this format adds to the stored ones are called *control lines*; they begin with `{"chathistory":`.

`aborted` in place of `complete`, or earlier, says that the lines of this conversation are not valid: it changed while
it was written, and follows once more, or it is damaged (`"reason":"damaged"`). A file without `end` is incomplete.
If `end` states another number of conversations than follow the previous `end`, or the beginning, some are missing.

Files can be concatenated. Lines that belong to no conversation are skipped and reported, and reading continues at the
next line that begins one. If its name ends in `.gz`, a file is gzipped; readers recognize that by its first bytes.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Any, NoReturn, TypeAlias

from chathistory.errors import ChatHistoryError, Conflict, CorruptRecord, InvalidInput, UnsupportedRecord
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

FORMAT = 2

_CONTROL_PREFIX = b'{"chathistory":'
_BOM = b"\xef\xbb\xbf"


def is_control_line(line: bytes) -> bool:
    """Return True if a line is a control line.

    Args:
        line: The line.
    """
    return line.lstrip(_BOM).startswith(_CONTROL_PREFIX)


@dataclass(frozen=True, slots=True)
class WriteResult:
    """The result of writing a conversation.

    Attributes:
        records: How many records were written.
        later: How many of them have a later format than this version of chathistory knows.
    """

    records: int
    later: int


class ExportWriter:
    """Writes an export: first its conversations, then its end.

    Attributes:
        conversations: How many conversations were written.
        records: How many records they have.
    """

    def __init__(self, out: IO[bytes]) -> None:
        self._out = out
        self.conversations = 0
        self.records = 0

    def write(self, source: CopySource, *, salvages: bool = False) -> WriteResult:
        """Write one conversation.

        Args:
            source: The conversation.
            salvages: If the conversation is damaged, the caller will write what can be read of it next.

        Raises:
            Conflict: The conversation changed meanwhile and must be written again; its lines are marked as aborted.
            CorruptRecord: A record is damaged; its lines are marked as aborted, with the reason unless `salvages`.
        """
        head = source.head
        self._write_control_line("conversation", **head_to_values(head))
        digest, checker = hashlib.sha256(), LineChecker()
        try:
            for line in checker.check(source, head.start):
                data = f"{line}\n".encode()
                digest.update(data)
                self._out.write(data)
        except Conflict:
            self._write_control_line("aborted")
            raise
        except ChatHistoryError:
            self._write_control_line("aborted", **({} if salvages else {"reason": "damaged"}))
            raise
        self._write_control_line("complete", sha256=digest.hexdigest())
        self.conversations += 1
        self.records += head.end - head.start
        return WriteResult(head.end - head.start, checker.later)

    def end(self) -> None:
        """Write the last line, without which the file is incomplete."""
        self._write_control_line("end", conversations=self.conversations, records=self.records)

    def _write_control_line(self, kind: str, **values: Any) -> None:
        self._out.write(to_json({"chathistory": FORMAT, "kind": kind, **values}).encode() + b"\n")


def head_to_values(head: Head) -> dict[str, Any]:
    """Return the values of the first line of a conversation, which `head_from_values` reads.

    Args:
        head: The head of the conversation.
    """
    revision = head.revision
    return {
        "scope": head.key.scope,
        "id": head.key.id,
        "start": head.start,
        "end": head.end,
        "version": revision.version,
        "updated": revision.updated,
        "expires": revision.expires,
        "payload": revision.payload,
    }


@dataclass(frozen=True, slots=True)
class SkippedLines:
    """Lines of a file that were skipped.

    Attributes:
        offset: The byte at which they begin, in the decompressed file.
        lines: How many lines they are.
        reason: Why they were skipped, without message text.
    """

    offset: int
    lines: int
    reason: str

    def with_one_line_more(self) -> SkippedLines:
        """Return the same with one more line."""
        return SkippedLines(self.offset, self.lines + 1, self.reason)

    def __str__(self) -> str:
        return f"{self.lines} lines from byte {self.offset} on: {self.reason}"


ExportPart: TypeAlias = "ExportedConversation | SkippedLines"


class ExportReader:
    """Reads an export from a seekable file, and continues after lines that it cannot read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def iter_parts(self) -> Iterator[ExportPart]:
        """Yield the conversations in order, and the lines between them that were skipped.

        The rest of a conversation is skipped when the next one is requested.

        Raises:
            InvalidInput: The file is incomplete: it has no end. Everything before was yielded.
        """
        is_ended = False
        count: int | None = 0  # complete conversations after the last end of a file; None: one of its parts is missing
        skipped: SkippedLines | None = None
        while True:
            offset = self._file.tell()
            line = self._file.readline()
            if line and not line.lstrip(_BOM).strip():
                continue
            header = _parse_header(line) if line else None
            if isinstance(header, str):
                if index := _find_header(line):
                    self._file.seek(offset + index)
                skipped = skipped.with_one_line_more() if skipped else SkippedLines(offset, 1, header)
                continue
            if skipped is not None:
                yield skipped
                skipped, count = None, None
            if isinstance(header, Head):
                is_ended = False
                part = ExportedConversation(self._file, header, self._file.tell())
                yield part
                part.skip()
                count = _count_part(count, part)
            elif line:
                is_ended = True
                if count is not None and (wrong := _find_wrong_count(line, count)):
                    yield SkippedLines(offset, 1, wrong)
                count = 0
            elif is_ended:
                return
            else:
                reason = "it is incomplete, because its last line is missing; export or transfer it again"
                raise _make_file_error(reason)


def _count_part(count: int | None, part: ExportedConversation) -> int | None:
    """Return the count with one more conversation; None if the end of one is missing."""
    if count is None or part.is_aborted:
        return count
    return count + 1 if part.is_marked_complete else None


def _find_wrong_count(line: bytes, count: int) -> str | None:
    """Return what is wrong if the end of a file states another number of conversations than were found before it."""
    stated = _parse_values(line).get("conversations")
    if stated == count:
        return None
    return f"the end of a file with {stated!r} conversations follows {count}; export or transfer the file again"


def has_conversation_header(line: bytes) -> bool:
    """Return True if a conversation begins in a line, also after the beginning of an incomplete line.

    Args:
        line: The line.
    """
    return isinstance(_parse_header(line), Head) or _find_header(line) is not None


def _parse_header(line: bytes) -> Head | str | None:
    """Return the head in a line, or the reason why the line is skipped; None if the line is the end of a file."""
    try:
        values = parse_control_line(line)
        if values is not None and values["kind"] == "conversation":
            return head_from_values(values)
    except (InvalidInput, UnsupportedRecord) as error:
        return str(error)
    return None if values is not None and values["kind"] == "end" else "they belong to no conversation"


def parse_control_line(line: bytes) -> dict[str, Any] | None:
    """Return the values of a control line; None if the line is not a valid one.

    Args:
        line: The line.

    Raises:
        InvalidInput: A later version of chathistory wrote it.
        UnsupportedRecord: It was written before the format was frozen.
    """
    if not is_control_line(line):
        return None
    try:
        values = DECODER.decode(line.lstrip(_BOM).decode())
    except (ValueError, RecursionError):
        return None
    version = values["chathistory"] if isinstance(values, dict) else None
    if type(version) is not int or version < 1:
        return None
    if version < FORMAT:
        raise UnsupportedRecord(None, 0, version)
    if version > FORMAT:
        reason = "a later version of chathistory wrote it; update chathistory"
        raise _make_file_error(reason)
    return values if isinstance(values.get("kind"), str) else None


def _make_file_error(reason: str) -> InvalidInput:
    return InvalidInput(f"the file cannot be read further: {reason}")


def head_from_values(values: dict[str, Any]) -> Head:
    """Return the head in the first line of a conversation, after each field is checked by type and range.

    Args:
        values: The values of the line.

    Raises:
        InvalidInput: A field is missing or invalid; the text names it.
    """
    for name, is_valid in _FIELDS.items():
        if name not in values or not is_valid(values[name]):
            raise InvalidInput(
                f"the field {name!r} of the first line of a conversation is missing or invalid; export it again"
            )
    if values["start"] > values["end"]:
        raise InvalidInput("the field 'end' of the first line of a conversation is below 'start'; export it again")
    key = Key(values["scope"], values["id"])
    revision = Revision(values["version"], values["updated"], values["expires"], values["payload"])
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
    "payload": lambda value: _is_text(value) and len(value) <= LONGEST_PAYLOAD and not _FORBIDDEN.search(value),
}
"""Checks for the fields in the first line of a conversation; `Key` checks scope and id further."""


@dataclass(slots=True)
class ExportedConversation:
    """A conversation in a file; a `CopySource`.

    Attributes:
        file: The file, which can seek.
        head: The head in its first line.
        offset: The byte at which its lines begin.
        end_offset: The byte after its last line; -1 if it is not known yet.
        is_aborted: True if it changed while it was written; then its lines are not valid, and it follows once more.
        is_marked_complete: True if the control line was found that says that all its lines were written.
    """

    file: IO[bytes]
    head: Head
    offset: int
    end_offset: int = -1
    is_aborted: bool = False
    is_marked_complete: bool = False

    def lines(self, start: int) -> Iterator[str]:
        """Yield the lines.

        Args:
            start: The position of the first line.

        Raises:
            InvalidInput: The lines are not the ones that were written; possibly after the last line.
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
                continue  # an editor or a transfer may have added an empty line
            index = _find_control_line(data)
            if index is not None:
                self._raise_at_control_line(begin + index, data[index:])
            if not data.endswith(b"\n"):
                raise self._make_truncation_error()
            digest.update(data)
            if position >= start:
                text = None
                with suppress(UnicodeDecodeError):  # an error raised in a handler would have the text in its context
                    text = data[:-1].decode()
                if text is None:
                    reason = "a line is not text in UTF-8; export or transfer it again"
                    raise _make_file_error(reason)
                yield text
            position += 1
        self._check_end(digest.hexdigest())

    def _check_end(self, digest: str) -> None:
        """Read to the next control line, and raise as `lines` does unless it fits the lines before it."""
        has_more_lines = False
        while True:
            begin = self.file.tell()
            data = self.file.readline()
            if not data:
                raise self._make_truncation_error()
            index = _find_control_line(data)
            if index is None:
                has_more_lines = has_more_lines or bool(data.strip())
                continue
            values = _parse_values(data[index:])
            if has_more_lines or index or values.get("kind") != "complete" or values.get("sha256") != digest:
                self._raise_at_control_line(begin + index, data[index:])
            self.end_offset, self.is_marked_complete = self.file.tell(), True
            return

    def _raise_at_control_line(self, offset: int, line: bytes) -> NoReturn:
        """Raise the error for a control line where a line of the conversation, or its valid end, was expected."""
        key = self.head.key
        kind, reason = _parse_values(line).get("kind"), _parse_values(line).get("reason")
        if kind not in ("aborted", "complete"):
            self.end_offset = offset  # the next conversation begins here
            raise InvalidInput(f"lines are missing at the end of conversation {key.id!r}; export or transfer it again")
        self.end_offset, self.is_marked_complete = self.file.tell(), kind == "complete"
        if kind == "complete":
            raise InvalidInput(f"the lines of conversation {key.id!r} do not match their checksum; export it again")
        if reason is not None:
            raise CorruptRecord(key, None, "it was damaged when the file was written; repair it there, or use salvage")
        self.is_aborted = True
        raise Conflict(key, None)

    def find_source(self) -> ExportedConversation | None:
        """Return it as a source for a copy; None if it was aborted.

        Raises:
            CorruptRecord: The state in its head is damaged, so that a listing could not show it.
            UnsupportedRecord: A later version of chathistory wrote its head.
        """
        if self.is_aborted:
            return None
        read_state(self.head)
        return self

    def skip(self) -> None:
        """Move the file to the byte after the conversation.

        Raises:
            InvalidInput: The file ends before it.
        """
        if self.end_offset < 0:
            with suppress(Conflict, CorruptRecord, InvalidInput):  # the reader of its lines got this error already
                for _ in self.lines(self.head.end):
                    pass
        if self.end_offset < 0:
            raise self._make_truncation_error()
        self.file.seek(self.end_offset)

    def _make_truncation_error(self) -> InvalidInput:
        reason = (
            f"it is incomplete, because it ends within conversation {self.head.key.id!r}; export or transfer it again"
        )
        return _make_file_error(reason)


def _find_control_line(data: bytes) -> int | None:
    """Return the index at which a control line begins: 0, or after an incomplete line; None without one."""
    return _find_header(data) or (0 if is_control_line(data) else None)


def _find_header(data: bytes) -> int | None:
    """Return the index after an incomplete line at which the first line of a conversation begins, or None."""
    index = data.find(_CONTROL_PREFIX, 1)
    while index > 0:
        if isinstance(_parse_header(data[index:]), Head):
            return index
        index = data.find(_CONTROL_PREFIX, index + 1)
    return None


def _parse_values(line: bytes) -> dict[str, Any]:
    try:
        return parse_control_line(line) or {}
    except (InvalidInput, UnsupportedRecord):
        return {}
