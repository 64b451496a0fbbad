"""A list of messages as programs keep it, on its way into a store: a conversation that can be compared and continued.

Each record gets its id from the messages up to it. So the same list is known again, and one that has grown continues
what was stored of it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from chathistory.errors import CorruptRecord, InvalidInput
from chathistory.log.apply import apply_all
from chathistory.log.clock import MICROSECONDS, now
from chathistory.log.conversation_log import ConversationLog, alive
from chathistory.log.entry import Entry, decode, encode, message_entry
from chathistory.operations.annotate import make_annotation
from chathistory.storage.values import LARGEST_NUMBER, Head

__all__ = ["MessageList", "MessageListSource", "read_messages"]

_ID_LENGTH = 28  # characters of an id
_TIME_FIELDS = ("created_at", "createdAt", "create_time", "timestamp", "time", "date")
"""Where programs keep the time of a message: as text by ISO 8601, or as seconds, milliseconds or microseconds."""


@dataclass(frozen=True, slots=True)
class MessageList:
    """Messages in order, and the title that the object had which held them; None: none."""

    messages: list[Any]
    title: str | None = None

    def to_source(self, target: ConversationLog) -> MessageListSource:
        """Return them as a conversation under the key of `target`. Raises `InvalidInput` that names the field."""
        if not self.messages:
            raise InvalidInput("the file holds no messages")
        time = now()
        entries: list[Entry] = []
        before, at = "", None
        for index, given in enumerate(self.messages):
            try:
                entry = message_entry(given)
            except InvalidInput as error:
                raise InvalidInput(f"messages[{index}]: {error}") from None
            told = _find_time(given)
            at = min(told, time) if told is not None else at
            before = _derive_id(before, encode(dataclasses.replace(entry, id="-", time_us=told or 0)))
            entries.append(dataclasses.replace(entry, id=before, time_us=time if at is None else at))
        if self.title is not None:
            event = make_annotation({"title": self.title})
            entries.insert(0, Entry(event, id=_derive_id("title", self.title), time_us=entries[0].time_us))
        revision = target.revision(apply_all(None, entries, 0), None, version=before)
        updated = max(entry.time_us for entry in entries)
        head = Head(target.key, 0, len(entries), dataclasses.replace(revision, updated=updated))
        return MessageListSource(head, entries)


def _derive_id(before: str, text: str) -> str:
    return hashlib.sha256(f"{before}\n{text}".encode("utf-8", "surrogatepass")).hexdigest()[:_ID_LENGTH]


def _find_time(given: Any) -> int | None:
    """Return when a message was sent (microseconds since 1970 UTC), if something beside it tells; else None."""
    for name in _TIME_FIELDS if isinstance(given, Mapping) else ():
        value = given.get(name)
        try:
            if isinstance(value, str):
                time = datetime.fromisoformat(value)
                time = time if time.tzinfo else time.replace(tzinfo=UTC)
                microseconds = int(time.timestamp() * MICROSECONDS)
            elif isinstance(value, int | float) and not isinstance(value, bool):
                size = next((size for least, size in _UNITS if value >= least), MICROSECONDS)
                microseconds = int(value * size)
            else:
                continue
        except (ValueError, OverflowError):
            continue
        if 0 < microseconds <= LARGEST_NUMBER:
            return microseconds
    return None


_UNITS = ((10**14, 1), (10**11, 1000))
"""From which number on a time is in microseconds, or in milliseconds; below that it is in seconds (until year 5138)."""


@dataclass(slots=True)
class MessageListSource:
    """A list of messages as a conversation; see `copy_sources.CopySource`."""

    head: Head
    entries: list[Entry]

    def lines(self, start: int) -> Iterator[str]:
        """Yield the lines from `start` on."""
        return map(encode, self.entries[start:])

    def is_contained(self, target: ConversationLog) -> bool:
        """Whether all of it is stored there already, with whatever was said since.

        If only a part is, the last record of that keeps the time with which it was stored, so that it is the same.
        """
        try:
            part = target.store.read(target.key, start=-1)
            head = alive(part.head if part else None)
            if head is None or part is None:
                return False
            if head.end > len(self.entries):
                part = target.store.read(target.key, start=len(self.entries) - 1, stop=len(self.entries))
            stored = decode(part.records[0], target.key) if part and part.records else None
        except CorruptRecord:
            return False
        if stored is None or stored.position >= len(self.entries) or stored.id != self.entries[stored.position].id:
            return False
        if stored.position == len(self.entries) - 1:
            return True
        self.entries[stored.position] = dataclasses.replace(self.entries[stored.position], time_us=stored.time_us)
        return False


def read_messages(data: bytes) -> MessageList:
    """Return the messages in a file: a JSON list, an object whose `messages` is one, or one message on each line.

    Raises:
        InvalidInput: The file is none of these.
    """
    found = _parse_json(data)
    title = None
    if isinstance(found, dict) and "role" not in found:
        title, found = found.get("title"), found.get("messages")
    if isinstance(found, list):
        if title is not None and not isinstance(title, str):
            raise InvalidInput(f"title: must be text, not {type(title).__name__}")
        return MessageList(found, title)
    lines = [_parse_json(line) for line in data.split(b"\n") if line.strip()]
    if not all(isinstance(line, dict) and "role" in line for line in lines):
        raise InvalidInput("the file is neither what an export wrote nor a list of messages in JSON")
    return MessageList(lines)


def _parse_json(data: bytes) -> Any:
    """Return a JSON value, or None: an error raised in the handler would carry the text in its context."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None
