"""Exports conversations as JSON lines, and imports such files and lists of messages."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO

from chathistory.errors import (
    ChatHistoryError,
    Conflict,
    ConversationExists,
    CorruptRecord,
    InvalidInput,
    UnsupportedRecord,
)
from chathistory.log.conversation_log import ConversationLog
from chathistory.storage.store import HistoryStore
from chathistory.storage.values import Damaged, Key
from chathistory.transfer.copy import CopyResult, copy_with_retry, report_absent
from chathistory.transfer.copy_sources import Selection, find_source, salvage_source
from chathistory.transfer.jsonl import (
    ExportReader,
    ExportWriter,
    SkippedLines,
    has_conversation_header,
    parse_control_line,
)
from chathistory.transfer.message_lists import MessageList, read_messages

__all__ = ["ExportReport", "import_file", "write_jsonl"]

_ATTEMPTS = 3


@dataclass(slots=True)
class ExportReport:
    """What an export wrote.

    Attributes:
        conversations: How many conversations are in the file, including salvaged ones.
        records: How many records they have.
        later: How many of these have a later format than this version of chathistory knows; they are written
            unchanged.
        failed: The error for each conversation that is not in the file, by key: it is damaged or does not exist.
        salvaged: How many records are missing of each damaged conversation that was written as far as it can be read
            (`salvage`), by key.
        damaged: Damaged data in the store whose conversation cannot be identified; it is not in the file.
        all_found: True if all conversations were certainly found. False if they came from an index that can lose
            entries on this server, or that may itself be damaged; `full_scan=True` finds all.
    """

    conversations: int = 0
    records: int = 0
    later: int = 0
    failed: dict[Key, ChatHistoryError] = field(default_factory=dict)
    salvaged: dict[Key, int] = field(default_factory=dict)
    damaged: list[Damaged] = field(default_factory=list)
    all_found: bool = True

    @property
    def complete(self) -> bool:
        """True if everything that was asked for is in the file completely."""
        return self.all_found and not (self.failed or self.salvaged or self.damaged)

    def add(self, result: CopyResult) -> None:
        """Internal: add the result for one conversation.

        Args:
            result: The result.
        """
        if result.error is not None:
            self.failed[result.key] = result.error
            return
        self.conversations += 1
        self.records += result.records
        self.later += result.later
        if result.lost:
            self.salvaged[result.key] = result.lost


def write_jsonl(selection: Selection, out: IO[bytes], *, salvage: bool) -> Iterator[CopyResult]:
    """Write conversations as JSON lines, and yield the result for each.

    Args:
        selection: The conversations.
        out: The file to write to.
        salvage: Of damaged conversations, write what can be read.

    Raises:
        OSError: The file cannot be written.
        StoreError: The store cannot be used; the problem of one conversation is part of its result.
    """
    writer = ExportWriter(out)
    for key in selection.iter_keys():
        result = _write_one(selection.store, writer, key, salvage=salvage)
        if result is not None:
            yield result
        elif selection.is_named:
            yield report_absent(key)
    writer.end()


def _write_one(store: HistoryStore, writer: ExportWriter, key: Key, *, salvage: bool) -> CopyResult | None:
    """Write a conversation, again if it changes meanwhile, and return the result; None if it does not exist."""
    problem: ChatHistoryError = Conflict(key, None)
    for _ in range(_ATTEMPTS):
        try:
            if (source := find_source(store, key)) is None:
                return None
            written = writer.write(source, salvages=salvage)
            return CopyResult(key, "copied", written.records, later=written.later)
        except Conflict as error:
            problem = error
        except (CorruptRecord, UnsupportedRecord) as error:
            problem = error
            break
    if salvage and isinstance(problem, CorruptRecord):
        try:
            if salvaged := salvage_source(ConversationLog(store, key)):
                written = writer.write(salvaged)
                return CopyResult(key, "copied", written.records, later=written.later, lost=salvaged.lost)
        except (CorruptRecord, UnsupportedRecord, Conflict) as error:
            problem = error
    return CopyResult(key, "failed", error=problem)


def import_file(
    store: HistoryStore, file: IO[bytes], *, scope: str, all_scopes: bool, id: str | None, replace: bool
) -> Iterator[CopyResult | SkippedLines]:
    """Store the conversations of a file, and yield the result for each, and the lines that were skipped.

    Args:
        store: The store to import into.
        file: The file; it must be seekable.
        scope: The scope to store the conversations in.
        all_scopes: Store each conversation of an export in the scope from which it was exported instead.
        id: The id for a list of messages; None for an export.
        replace: Delete another conversation that is stored under the same key.

    Raises:
        InvalidInput: The file is neither an export nor a list of messages, an id is missing or must not be given, a
            later version of chathistory wrote the file, or it ends early; what was read before is stored.
        UnsupportedRecord: The file was written before the stored format was frozen.
    """
    if not _is_export(file):
        yield _import_messages(store, read_messages(file.read()), scope=scope, id=id, replace=replace)
        return
    if id is not None:
        raise InvalidInput(
            "id (--id) cannot be given for an export, which contains the ids of its conversations; it is only for a "
            "list of messages"
        )
    source_scopes: dict[str, str] = {}  # by id
    for part in ExportReader(file).iter_parts():
        if isinstance(part, SkippedLines):
            yield part
            continue
        exported_key = part.head.key
        key = exported_key if all_scopes else Key(scope, exported_key.id)
        if not all_scopes and source_scopes.setdefault(key.id, exported_key.scope) != exported_key.scope:
            # two conversations with one id, from different scopes: the second must not replace the first
            result: CopyResult | None = CopyResult(key, "different", error=ConversationExists(key))
        else:
            result = copy_with_retry(part.find_source, ConversationLog(store, key), replace=replace, verify=True)
        part.skip()
        if result is not None and not part.is_aborted:
            yield result


def _is_export(file: IO[bytes]) -> bool:
    """Return True if a file is an export: its first line is a control line, or a later line begins a conversation.

    Later lines count because the first one may be damaged. Raises `InvalidInput` if a later version wrote the file, and
    `UnsupportedRecord` if it was written before the format was frozen.
    """
    begin = file.tell()
    unsupported: InvalidInput | UnsupportedRecord | None = None
    try:
        lines = (line for line in iter(file.readline, b"") if line.strip(b"\xef\xbb\xbf \t\r\n"))
        first = next(lines, b"")
        try:
            is_ours = parse_control_line(first) is not None
        except (InvalidInput, UnsupportedRecord) as error:
            is_ours, unsupported = False, error
        if is_ours or has_conversation_header(first) or any(map(has_conversation_header, lines)):
            return True
    finally:
        file.seek(begin)
    if unsupported is not None:
        raise unsupported
    return False


def _import_messages(
    store: HistoryStore, messages: MessageList, *, scope: str, id: str | None, replace: bool
) -> CopyResult:
    """Store a list of messages as a conversation; messages that are stored already are not stored again."""
    if id is None:
        raise InvalidInput(
            "the file is a list of messages without the id of a conversation; give one with id= (in the command: --id)"
        )
    target = ConversationLog(store, Key(scope, id))
    source = messages.to_source(target)
    if source.is_contained(target):
        return CopyResult(target.key, "same")
    return copy_with_retry(lambda: source, target, replace=replace, verify=True) or report_absent(target.key)
