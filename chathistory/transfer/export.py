"""Out of a store into a file, and back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
from chathistory.log.active_path import iter_newest_first
from chathistory.log.conversation_log import ConversationLog
from chathistory.log.state import ConversationHead, read_state
from chathistory.operations.listing import describe
from chathistory.storage.store import HistoryStore
from chathistory.storage.values import Damaged, Key
from chathistory.transfer.copy import CopyResult, CopySource, Selection, absent, delivered, parcel_of
from chathistory.transfer.jsonl import FilePart, Reader, Skipped, Writer, Written, holds_conversation, mark_in
from chathistory.transfer.markdown import markdown
from chathistory.transfer.message_lists import MessageList, read_messages
from chathistory.transfer.salvage import salvaged

__all__ = ["ExportReport", "as_markdown", "exported", "imported"]

_ATTEMPTS = 3


@dataclass(slots=True)
class ExportReport:
    """What an export wrote.

    Attributes:
        conversations: How many are in the file, those that were salvaged included.
        records: How many records they have.
        later: How many of these have a later format than this version knows; they are written as they are.
        failed: Keys of conversations that are not in the file, and why: they are damaged.
        salvaged: Keys of damaged conversations of which what can be read is in the file, and how many records are not.
        damaged: What is stored and has no key that can be told; it is not in the file.
        all_found: Whether the conversations were all found for certain. False if they were looked for in an index that
            can lose entries on this server, or that may be among what is damaged; `full_scan=True` finds all.
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
        """Whether all that was to be exported is in the file, whole."""
        return self.all_found and not (self.failed or self.salvaged or self.damaged)

    def add(self, arrival: CopyResult) -> None:
        """Internal: count one more."""
        if arrival.error is not None:
            self.failed[arrival.key] = arrival.error
            return
        self.conversations += 1
        self.records += arrival.records
        self.later += arrival.later
        if arrival.lost:
            self.salvaged[arrival.key] = arrival.lost


def exported(chosen: Selection, out: IO[bytes], *, salvage: bool) -> Iterator[CopyResult]:
    """Write conversations as JSON lines, and yield what became of each.

    Args:
        chosen: Which.
        out: Where to.
        salvage: Write what can be read of those that are damaged.
    """
    writer = Writer(out)
    for key in chosen.keys():  # noqa: SIM118 - it is no mapping
        try:
            written = _written(chosen.store, writer, key, follows=salvage)
        except (CorruptRecord, UnsupportedRecord, Conflict) as error:
            yield _salvaged(chosen.store, writer, key, error) if salvage else CopyResult(key, "failed", error=error)
        else:
            if written is not None:
                yield CopyResult(key, "copied", written.records, later=written.later)
            elif chosen.is_named:
                yield absent(key)
    writer.end()


def _written(store: HistoryStore, writer: Writer, key: Key, *, follows: bool) -> Written | None:
    """Write one; None: it is absent. Raises `Conflict` if it changes all the time."""
    left = _ATTEMPTS
    while True:
        parcel = parcel_of(store, key)
        if parcel is None:
            return None
        try:
            return writer.write(parcel, follows=follows)
        except Conflict:
            left -= 1
            if not left:
                raise


def _salvaged(store: HistoryStore, writer: Writer, key: Key, error: ChatHistoryError) -> CopyResult:
    """Write what can be read of a conversation that is damaged; `error` says how."""
    if not isinstance(error, CorruptRecord):
        return CopyResult(key, "failed", error=error)
    try:
        parcel = salvaged(ConversationLog(store, key))
        if parcel is None:
            return CopyResult(key, "failed", error=error)
        written = writer.write(parcel)
    except (CorruptRecord, UnsupportedRecord, Conflict) as failed:
        return CopyResult(key, "failed", error=failed)
    return CopyResult(key, "copied", written.records, later=written.later, lost=parcel.lost)


def as_markdown(chosen: Selection, out: IO[bytes], *, salvage: bool) -> Iterator[CopyResult]:
    """Write conversations as Markdown, and yield what became of each. Takes what `exported` takes."""
    begun = False
    for key in chosen.keys():  # noqa: SIM118 - it is no mapping
        try:
            found = _text(chosen.store, key)
        except (CorruptRecord, UnsupportedRecord, Conflict) as error:
            found = _salvaged_text(chosen.store, key) if salvage else None
            if found is None:
                yield CopyResult(key, "failed", error=error)
                continue
        if found is not None:
            out.write(b"\n---\n\n" if begun else b"")
            out.write(found.text.encode())
            begun = True
            yield CopyResult(key, "copied", found.records, lost=found.lost)
        elif chosen.is_named:
            yield absent(key)


_PORTION = 1000


@dataclass(frozen=True, slots=True)
class _Text:
    """A conversation as Markdown, how many records it has, and how many of them cannot be read."""

    text: str
    records: int
    lost: int = 0


def _text(store: HistoryStore, key: Key) -> _Text | None:
    """Return a conversation as Markdown; None: it is absent."""
    log = ConversationLog(store, key)
    head = log.refresh()
    if head is None:
        return None
    entries = list(iter_newest_first(log, _PORTION))[::-1]  # what was cut off is part of it, for people
    return _Text("".join(markdown(describe(head), entries)), head.end - head.start)


def _salvaged_text(store: HistoryStore, key: Key) -> _Text | None:
    """Return what can be read of a damaged conversation as Markdown; None: nothing can."""
    try:
        parcel = salvaged(ConversationLog(store, key))
    except (CorruptRecord, UnsupportedRecord, Conflict):
        return None
    if parcel is None:
        return None
    head = ConversationHead(parcel.head, read_state(parcel.head))
    entries = (entry for entry in parcel.entries() if entry.kind in ("message", "interrupted", "orphaned", "lost"))
    return _Text("".join(markdown(describe(head), entries)), head.end - head.start, parcel.lost)


def imported(
    store: HistoryStore, file: IO[bytes], *, scope: str, all_scopes: bool, id: str | None, replace: bool
) -> Iterator[CopyResult | Skipped]:
    """Store what a file holds, and yield what became of each conversation, and what was passed over.

    Args:
        store: Where to.
        file: The file.
        scope: The scope to store it in.
        all_scopes: Store each conversation of an export in the scope that it came from instead.
        id: The name for a list of messages.
        replace: Delete what stands under the same name and is something else.

    Raises:
        InvalidInput: The file cannot be read on; what came before is stored.
    """
    if not _is_export(file):
        yield _import_messages(store, read_messages(file.read()), scope=scope, id=id, replace=replace)
        return
    if id is not None:
        raise InvalidInput("the file knows the names of its conversations; an id is for a list of messages")
    sources: dict[str, str] = {}
    for part in Reader(file).parts():
        if isinstance(part, Skipped):
            yield part
            continue
        came_from = part.head.key
        key = came_from if all_scopes else Key(scope, came_from.id)
        if not all_scopes and sources.setdefault(key.id, came_from.scope) != came_from.scope:
            # two conversations of one name, from different scopes: the second must not take the place of the first
            arrival: CopyResult | None = CopyResult(key, "different", error=ConversationExists(key))
        else:
            arrival = delivered(_once(part), ConversationLog(store, key), replace=replace, verify=True)
        part.skip()
        if arrival is not None and not part.void:
            yield arrival


def _is_export(file: IO[bytes]) -> bool:
    """Whether the first line of a file is one of this format's own, or, as that may be damaged, a later one begins one.

    Raises `InvalidInput` if a later version wrote it.
    """
    begin = file.tell()
    later: InvalidInput | None = None
    try:
        lines = (line for line in iter(file.readline, b"") if line.strip(b"\xef\xbb\xbf \t\r\n"))
        first = next(lines, b"")
        try:
            is_ours = mark_in(first) is not None
        except InvalidInput as error:
            is_ours, later = False, error
        if is_ours or holds_conversation(first) or any(map(holds_conversation, lines)):
            return True
    finally:
        file.seek(begin)
    if later is not None:
        raise later
    return False


def _once(part: FilePart) -> Callable[[], CopySource | None]:
    def fetch() -> CopySource | None:
        if part.void:
            return None
        read_state(part.head)  # what is no summary would break the listing that it comes into
        return part

    return fetch


def _import_messages(
    store: HistoryStore, messages: MessageList, *, scope: str, id: str | None, replace: bool
) -> CopyResult:
    """Store a list of messages as a conversation; what is there already of it is not stored again."""
    if id is None:
        raise InvalidInput("the file is a list of messages; give the id to store it under")
    target = ConversationLog(store, Key(scope, id))
    parcel = messages.parcel(target)
    if parcel.is_contained(target):
        return CopyResult(target.key, "same")
    done = delivered(lambda: parcel, target, replace=replace, verify=True)
    return done or absent(target.key)
