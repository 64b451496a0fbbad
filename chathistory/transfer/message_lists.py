"""Imports a list of messages, as programs keep it, as a conversation.

The id of each record is derived from the messages up to it. So the same list is recognized when it is imported again,
and a list that has grown continues the conversation.
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
from chathistory.log.conversation_log import ConversationLog, unless_expired
from chathistory.log.entry import Entry, decode, encode, make_message_entry
from chathistory.operations.annotate import make_annotation
from chathistory.storage.values import LARGEST_NUMBER, Head

__all__ = ["MessageList", "MessageListSource", "read_messages"]

_ID_LENGTH = 28  # characters of an id
_TIME_FIELDS = ("created_at", "createdAt", "create_time", "timestamp", "time", "date")
"""Fields in which programs store the time of a message: ISO 8601 text, or (milli- or micro-) seconds since 1970 UTC."""


@dataclass(frozen=True, slots=True)
class MessageList:
    """A list of messages, as it was read from a file.

    Attributes:
        messages: The messages, in order, as they are in the file.
        title: The title of the object that they were in, or None.
    """

    messages: list[Any]
    title: str | None = None

    def to_source(self, target: ConversationLog) -> MessageListSource:
        """Return the messages as a conversation.

        Args:
            target: The log of the conversation to store it as.

        Raises:
            InvalidInput: There are no messages, or one cannot be stored; the text names it and its field.
        """
        if not self.messages:
            raise InvalidInput("the file must hold at least one message, and it holds an empty list")
        present = now()
        entries: list[Entry] = []
        last_id, time = "", None
        for index, message in enumerate(self.messages):
            try:
                entry = make_message_entry(message)
            except InvalidInput as error:
                raise InvalidInput(f"messages[{index}]: {error}") from None
            own_time = _find_time(message)
            time = min(own_time, present) if own_time is not None else time
            last_id = _derive_id(last_id, encode(dataclasses.replace(entry, id="-", time_us=own_time or 0)))
            entries.append(dataclasses.replace(entry, id=last_id, time_us=present if time is None else time))
        if self.title is not None:
            event = make_annotation({"title": self.title})
            entries.insert(0, Entry(event, id=_derive_id("title", self.title), time_us=entries[0].time_us))
        revision = target.make_revision(apply_all(None, entries, 0), None, version=last_id)
        updated = max(entry.time_us for entry in entries)
        head = Head(target.key, 0, len(entries), dataclasses.replace(revision, updated=updated))
        return MessageListSource(head, entries)


def _derive_id(before: str, text: str) -> str:
    return hashlib.sha256(f"{before}\n{text}".encode("utf-8", "surrogatepass")).hexdigest()[:_ID_LENGTH]


def _find_time(message: Any) -> int | None:
    """Return the time that a message has in another field (microseconds since 1970 UTC); None if it has no time."""
    for name in _TIME_FIELDS if isinstance(message, Mapping) else ():
        value = message.get(name)
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
"""The least number that is a time in microseconds, then in milliseconds; a lower one is in seconds (to year 5138)."""


@dataclass(slots=True)
class MessageListSource:
    """A list of messages as a conversation; a `CopySource`.

    Attributes:
        head: The head of the conversation.
        entries: Its entries, in order.
    """

    head: Head
    entries: list[Entry]

    def lines(self, start: int) -> Iterator[str]:
        """Yield the lines of the entries.

        Args:
            start: The position of the first line.
        """
        return map(encode, self.entries[start:])

    def is_contained(self, target: ConversationLog) -> bool:
        """Return True if all entries are stored already, possibly with others after them.

        If only the first entries are stored, the last of these takes over the time with which it was stored, so that
        its line is the same.

        Args:
            target: The log of the stored conversation.
        """
        try:
            part = target.store.read(target.key, start=-1)
            head = unless_expired(part.head if part else None)
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
    """Return the messages in a file.

    Args:
        data: The content of the file: a JSON list of messages, an object with such a list as `messages` (and perhaps a
            `title`), or one message as JSON on each line.

    Raises:
        InvalidInput: The file has another format.
    """
    value = _parse_json(data)
    title = None
    if isinstance(value, dict) and "role" not in value:
        title, value = value.get("title"), value.get("messages")
    if isinstance(value, list):
        if title is not None and not isinstance(title, str):
            raise InvalidInput(f"title: must be text, not {type(title).__name__}")
        return MessageList(value, title)
    lines = [_parse_json(line) for line in data.split(b"\n") if line.strip()]
    if not all(isinstance(line, dict) and "role" in line for line in lines):
        raise InvalidInput(
            "the file must be an export in JSON lines, or JSON with messages: a list, an object with `messages`, or "
            "one message on each line"
        )
    return MessageList(lines)


def _parse_json(data: bytes) -> Any:
    """Return a JSON value, or None. An error raised in the handler would have the text in its context."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None
