"""Out of a store into a file, and back."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import IO, Any

from chathistory.content import message_entry
from chathistory.errors import ChatHistoryError, Conflict, CorruptRecord, InvalidInput, UnsupportedRecord
from chathistory.log.entry import encode
from chathistory.log.fold import folded
from chathistory.log.journal import Journal
from chathistory.log.planting import plant
from chathistory.log.spans import newest_first
from chathistory.shelf.bundle import FilePart, Reader, Writer, mark_in
from chathistory.shelf.listing import row_of
from chathistory.shelf.markdown import markdown
from chathistory.shelf.transfer import Arrival, Parcel, absent, delivered, parcel_of
from chathistory.store import HistoryStore, Key

__all__ = ["ExportReport", "as_markdown", "exported", "imported"]

_ATTEMPTS = 3


@dataclass(slots=True)
class ExportReport:
    """What an export wrote. failed: keys of conversations that are not in the file, and why: they are damaged."""

    conversations: int = 0
    records: int = 0
    failed: dict[Key, ChatHistoryError] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether all that was to be exported is in the file."""
        return not self.failed

    def add(self, arrival: Arrival) -> None:
        """Count one more."""
        if arrival.error is not None:
            self.failed[arrival.key] = arrival.error
        else:
            self.conversations += 1
            self.records += arrival.records


def exported(store: HistoryStore, out: IO[bytes], keys: Iterable[Key], *, named: bool) -> Iterator[Arrival]:
    """Write conversations as JSON lines, and yield what became of each."""
    writer = Writer(out)
    for key in keys:
        try:
            records = _written(store, writer, key)
        except (CorruptRecord, UnsupportedRecord, Conflict) as error:
            yield Arrival(key, "failed", error=error)
        else:
            if records is not None:
                yield Arrival(key, "copied", records)
            elif named:
                yield absent(key)
    writer.end()


def _written(store: HistoryStore, writer: Writer, key: Key) -> int | None:
    """Write one; None: it is absent. Raises `Conflict` if it changes all the time."""
    left = _ATTEMPTS
    while True:
        parcel = parcel_of(store, key)
        if parcel is None:
            return None
        try:
            return writer.write(parcel)
        except Conflict:
            left -= 1
            if not left:
                raise


def as_markdown(store: HistoryStore, out: IO[bytes], keys: Iterable[Key], *, named: bool) -> Iterator[Arrival]:
    """Write conversations as Markdown, and yield what became of each."""
    begun = False
    for key in keys:
        try:
            found = _text(store, key)
        except (CorruptRecord, UnsupportedRecord, Conflict) as error:
            yield Arrival(key, "failed", error=error)
            continue
        if found is not None:
            out.write(b"\n---\n\n" if begun else b"")
            out.write(found[0].encode())
            begun = True
            yield Arrival(key, "copied", found[1])
        elif named:
            yield absent(key)


_PORTION = 1000


def _text(store: HistoryStore, key: Key) -> tuple[str, int] | None:
    """Return a conversation as Markdown, and how many records it has; None: it is absent."""
    journal = Journal(store, key)
    head = journal.refresh()
    if head is None:
        return None
    entries = list(newest_first(journal, _PORTION))[::-1]  # what was cut off is part of it, for people
    return "".join(markdown(row_of(head), entries)), head.end - head.start


def imported(
    store: HistoryStore, file: IO[bytes], *, scope: str | None, id: str | None, replace: bool
) -> Iterator[Arrival]:
    """Store what a file holds, and yield what became of each conversation.

    Raises `InvalidInput` where the file cannot be read on; what came before is stored.
    """
    begin = file.tell()
    first = file.readline()
    file.seek(begin)
    if mark_in(first) is not None:
        if id is not None:
            msg = "the file knows the names of its conversations; an id is for a list of messages"
            raise InvalidInput(msg)
        for part in Reader(file).parts():
            arrival = delivered(_once(part), _target(store, part.head.key, scope), replace=replace, verify=True)
            part.skip()
            if arrival is not None and not part.void:
                yield arrival
    else:
        yield _messages(store, messages_in(file.read()), scope=scope, id=id)


def _target(store: HistoryStore, key: Key, scope: str | None) -> Journal:
    return Journal(store, key if scope is None else Key(scope, key.id))


def _once(part: FilePart) -> Callable[[], Parcel | None]:
    return lambda: None if part.void else part


def _messages(store: HistoryStore, messages: list[Any], *, scope: str | None, id: str | None) -> Arrival:
    """Store a list of messages as a new conversation, whole or not at all."""
    if id is None:
        msg = "the file is a list of messages; an id to store it under is due"
        raise InvalidInput(msg)
    if not messages:
        msg = "the file holds no messages"
        raise InvalidInput(msg)
    target = _target(store, Key("default", id), scope)
    entries = [message_entry(message) for message in messages]
    summary = folded(None, entries, 0)
    stamp = target.stamp(summary, None, version=entries[-1].id)
    try:
        plant(target, map(encode, entries), first=0, stamp=lambda: stamp)
    except Conflict:
        return Arrival(target.key, "different")
    return Arrival(target.key, "copied", len(entries))


def messages_in(data: bytes) -> list[Any]:
    """Return the messages in a file: a JSON list, an object whose `messages` is one, or one message on each line."""
    found = _json(data)
    if isinstance(found, dict) and "role" not in found:
        found = found.get("messages")
    if isinstance(found, list):
        return found
    lines = [_json(line) for line in data.split(b"\n") if line.strip()]
    if not all(isinstance(line, dict) and "role" in line for line in lines):
        msg = "the file is neither what an export wrote nor a list of messages in JSON"
        raise InvalidInput(msg)
    return lines


def _json(data: bytes) -> Any:
    """Return a JSON value, or None: an error raised in the handler would carry the text in its context."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None
