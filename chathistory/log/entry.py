"""Entries of the log, and the lines of JSON that hold them.

    {"sum":"5f0c11d2","v":2,"id":"...","kind":"message","at":1790000000000000,"turn":"...","data":{...},"message":{...}}

Everything that happens to a conversation is an entry. The log is the truth, and all state is computed from it.

    sum       the CRC-32 of the rest of the line
    v         the number of the stored format
    id        unique to the entry
    kind      the kind of event; see `log.events`
    at        when it happened, in microseconds since 1970 UTC
    turn      the id of the turn that it belongs to, if any
    optional  true if a reader that does not know the kind may skip the entry
    data      the fields of the event
    message   its Claude message, for events that have one

A reader must understand every entry that is not optional. An entry of a later format, or of a format from before the
freeze, is never interpreted: it stays readable as raw JSON, and the conversation raises `UnsupportedRecord`.

Two escaped surrogates that belong together are read as the character that they encode: JSON has no other way to write
them.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Generic, TypeGuard, cast

from chathistory.errors import CorruptRecord, InvalidInput, UnsupportedRecord
from chathistory.log.clock import fresh_token, now, to_datetime
from chathistory.log.events import (
    EVENT_CLASSES,
    CompactionByAPI,
    Cut,
    Event,
    LeaseRenewed,
    MessageAdded,
    ReplyInterrupted,
    ReplyOrphaned,
    TurnAbandoned,
    TurnOpened,
    TurnRefusedByAPI,
    UnknownEvent,
)
from chathistory.log.field_types import NO_RESPONSE, Response
from chathistory.log.stored_fields import (
    WrongField,
    dump_fields,
    find_wrong_field,
    is_number,
    is_text_or_none,
    load_fields,
    stored_names,
)
from chathistory.messages.accept import accept_message
from chathistory.messages.content import Message
from chathistory.messages.json_values import DECODER, DEEPEST, is_storable
from chathistory.storage.values import Key, Record

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    E_co = TypeVar("E_co", bound=Event, default=Event, covariant=True)
else:
    from typing import TypeVar

    E_co = TypeVar("E_co", covariant=True)

__all__ = [
    "Entry",
    "decode",
    "encode",
    "filter_known",
    "is_activity",
    "is_cut_entry",
    "is_message",
    "is_message_entry",
    "load_event",
    "make_message_entry",
    "select_messages",
]

FORMAT = 2
"""The stored format that this version reads and writes: the `v` of a line, and of the state in a head."""

_LONGEST_ID = 255
_ROLES = frozenset({"user", "assistant", "system"})
_NESTING_TYPES = frozenset({"tool_result", "search_result"})
_PREFIX = '{"sum":"'
_COVERED_FROM = len(_PREFIX) + 8 + 1  # where the text that `sum` covers begins


@dataclass(frozen=True, slots=True)
class Entry(Generic[E_co]):
    """One event of a conversation, with its envelope.

    Attributes:
        event: What happened.
        turn: The id of the turn that it belongs to; None: it belongs to no turn.
        id: The unique id of the entry.
        time_us: When it happened (microseconds since 1970 UTC); `at` is the same time as a `datetime`.
        position: Where it is stored; -1: it is not stored yet.
        version: The format of its line. An entry of another format than this version's has an `UnknownEvent`.
        surrogates: Whether its text may contain lone surrogates, which can be stored but not sent.
        extra: Fields of the event that this version does not know.
    """

    event: E_co = field(repr=False)
    turn: str | None = None
    id: str = field(default_factory=fresh_token)
    time_us: int = field(default_factory=now)
    position: int = -1
    version: int = FORMAT
    surrogates: bool = False
    extra: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def at(self) -> datetime:
        """When it happened, in UTC."""
        return to_datetime(self.time_us)

    @property
    def kind(self) -> str:
        """The kind of event, as it is stored: "message", "annotation", "rewind", "cut" and so on."""
        return self.event.kind

    @property
    def message(self) -> Message | None:
        """The Claude message; None for events without one."""
        return None if isinstance(self.event, UnknownEvent) else getattr(self.event, "message", None)

    @property
    def data(self) -> dict[str, Any]:
        """The fields of the event, without its message, as a JSON object."""
        event = self.event
        return (event.data if isinstance(event, UnknownEvent) else dump_fields(event)) | self.extra

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON object: kind, message, data, turn, id, at (microseconds), position, version, surrogates."""
        values = {"kind": self.kind, "message": self.message, "data": self.data, "turn": self.turn, "id": self.id}
        envelope = {"at": self.time_us, "position": self.position, "version": self.version}
        return values | envelope | {"surrogates": self.surrogates}


def make_message_entry(given: Any, *, turn: str | None = None, key: str | None = None) -> Entry[MessageAdded]:
    """Return the entry of a message that a caller passes, checked as `accept_message` says.

    Args:
        given: The message.
        turn: The id of the turn that it belongs to; None: no turn.
        key: The caller's idempotency key for the append; None: no key.

    Raises:
        InvalidInput: The value is not a message.
    """
    accepted = accept_message(given)
    event = MessageAdded(
        accepted.message,
        NO_RESPONSE if accepted.response is None else Response(accepted.response),
        accepted.request_id,
        accepted.unsent_fields,
        accepted.received,
        key,
    )
    return Entry(event, turn)


def is_message_entry(entry: Entry) -> TypeGuard[Entry[MessageAdded]]:
    """Return True for an entry that is a message of the conversation."""
    return isinstance(entry.event, MessageAdded)


def is_cut_entry(entry: Entry) -> TypeGuard[Entry[Cut | CompactionByAPI]]:
    """Return True for a cut, also one that the API made."""
    return isinstance(entry.event, Cut | CompactionByAPI)


def select_messages(entries: Iterable[Entry]) -> list[Entry[MessageAdded]]:
    """Return the entries that are messages of the conversation.

    Args:
        entries: Any entries.
    """
    messages = (entry for entry in entries if isinstance(entry.event, MessageAdded))
    return cast("list[Entry[MessageAdded]]", list(messages))


def filter_known(entries: Sequence[Entry], key: Key) -> list[Entry]:
    """Return the entries that this version can interpret. Optional entries of an unknown kind are skipped.

    Args:
        entries: The entries.
        key: The conversation, for the error.

    Raises:
        UnsupportedRecord: An entry of an unknown kind is not optional, or an entry has another format.
    """
    for entry in entries:
        if isinstance(entry.event, UnknownEvent) and not entry.event.is_optional:
            raise UnsupportedRecord(key, entry.position, entry.version)
    return [entry for entry in entries if not isinstance(entry.event, UnknownEvent)]


def is_activity(entry: Entry) -> bool:
    """Return True for messages, and for entries that open, renew or close a turn. Listings are ordered by them.

    A title, a cut or a repair is not activity. Neither is a message that a repair stored again.

    Args:
        entry: The entry.
    """
    if is_message_entry(entry):
        return entry.event.copy_of is None
    return isinstance(entry.event, _ACTIVITY)


_ACTIVITY = (TurnOpened, LeaseRenewed, TurnAbandoned, TurnRefusedByAPI, ReplyInterrupted, ReplyOrphaned)


def encode(entry: Entry) -> str:
    """Return the line of an entry, without control characters and lone surrogates.

    Args:
        entry: The entry.

    Raises:
        InvalidInput: `decode` would refuse the line as damaged; nothing like that may get into a log.
    """
    event, data = entry.event, entry.data
    message = getattr(event, "message", None)
    values: dict[str, Any] = {"v": entry.version, "id": entry.id, "kind": event.kind, "at": entry.time_us}
    if event.is_optional:
        values["optional"] = True
    if entry.turn is not None:
        values["turn"] = entry.turn
    if data:
        values["data"] = data
    if message is not None:
        values["message"] = message
    wrong = _find_wrong(values)
    if wrong is None and not isinstance(event, UnknownEvent):
        is_right = _MESSAGE_CHECKS.get(event.kind)
        is_wrong = is_right is not None and not is_right(message)
        wrong = WrongField("message") if is_wrong else find_wrong_field(type(event), data)
    if wrong is not None and entry.version == FORMAT:
        raise InvalidInput(
            f"{wrong.name}: has a wrong type or value for an entry of kind {event.kind!r}; nothing was stored"
        )
    rest = f",{to_json(values)[1:]}"
    return f'{_PREFIX}{compute_checksum(rest)}"{rest}'


def decode(record: Record, key: Key) -> Entry:
    """Return the entry of a record.

    Args:
        record: The record.
        key: The conversation, for the error.

    Raises:
        CorruptRecord: The line is not what was written.
    """
    body = record.body
    rest = body[_COVERED_FROM:]
    if body[:_COVERED_FROM] != f'{_PREFIX}{compute_checksum(rest)}"':
        raise CorruptRecord(key, record.position, "its checksum does not fit")
    entry = _decode_line(body, record.position)
    if isinstance(entry, str):
        raise CorruptRecord(key, record.position, entry)
    return entry


_scan = DECODER.raw_decode  # `json.loads` without the search for blanks around the value


def _decode_line(text: str, position: int) -> Entry | str:  # noqa: PLR0911 - each is another thing that can be wrong
    """Return the entry of a line, or why there is no entry: an exception would keep the text in its context."""
    try:
        values, end = _scan(text)
    except (ValueError, RecursionError):
        return _NOT_AN_ENTRY
    if end != len(text) or type(version := values.get("v")) is not int or version < 1:
        return _NOT_AN_ENTRY
    if text.count("{") + text.count("[") > DEEPEST and not is_storable(values):
        return "it is nested too deeply"
    if version != FORMAT:
        del values["sum"]
        return Entry(UnknownEvent("unknown", data=values), id="", time_us=0, position=position, version=version)
    if (wrong := _find_wrong(values)) is not None:
        return f"its field {wrong.name} has a wrong type or value"
    data, optional = values.get("data") or {}, values.get("optional") is True
    loaded = load_event(values["kind"], data, values.get("message"), is_optional=optional)
    if isinstance(loaded, WrongField):
        return f"its field {loaded.name} has a wrong type or value"
    extra: dict[str, Any] = {}
    if data and not isinstance(loaded, UnknownEvent):
        known = stored_names(type(loaded))
        if not data.keys() <= known:
            extra = {name: value for name, value in data.items() if name not in known}
    return Entry(loaded, values.get("turn"), values["id"], values["at"], position, FORMAT, "\\ud" in text, extra)


def _find_wrong(values: dict[str, Any]) -> WrongField | None:
    """Return the first field of the envelope that has a wrong type or value; None: all are right."""
    id, turn, data = values.get("id"), values.get("turn"), values.get("data")
    if not isinstance(values.get("kind"), str):
        return WrongField("kind")
    if not (isinstance(id, str) and 1 <= len(id) <= _LONGEST_ID):
        return WrongField("id")
    if not is_number(values.get("at")):
        return WrongField("at")
    if turn is not None and not isinstance(turn, str):
        return WrongField("turn")
    return None if data is None or isinstance(data, dict) else WrongField("data")


def load_event(kind: str, data: dict[str, Any], message: Any, *, is_optional: bool = False) -> Event | WrongField:
    """Return the event that a line holds, or the first field that is wrong.

    Args:
        kind: The kind of event.
        data: The JSON object of its fields.
        message: Its message; None: no message.
        is_optional: Whether the line says that it may be skipped.
    """
    cls = EVENT_CLASSES.get(kind)
    if cls is None:
        return UnknownEvent(kind, is_optional, data, message)
    is_right = _MESSAGE_CHECKS.get(kind)
    if is_right is None:
        return load_fields(cls, data)
    return load_fields(cls, data, message=message) if is_right(message) else WrongField("message")


def is_message(value: Any) -> bool:
    """Return True if a JSON value is a message that the view can process."""
    if not (isinstance(value, dict) and isinstance(value.get("role"), str) and value["role"] in _ROLES):
        return False
    content = value.get("content")
    return isinstance(content, str) or _are_blocks(content)


def _are_blocks(blocks: Any) -> bool:
    return isinstance(blocks, list) and all(map(_is_block, blocks))


def _is_block(block: Any) -> bool:
    if not (isinstance(block, dict) and isinstance(block.get("type"), str)):
        return False
    kind = block["type"]
    if kind == "text":
        return is_text_or_none(block.get("text"))
    if kind.endswith("tool_use") and not isinstance(block.get("id"), str):
        return False
    if kind.endswith("tool_result") and not isinstance(block.get("tool_use_id"), str):
        return False
    if kind in _NESTING_TYPES and not is_text_or_none(block.get("content")):
        return _are_blocks(block["content"])
    return True


def _is_partial_message(value: Any) -> bool:
    """Whether a value is a message to be shown to users; its last block may be incomplete."""
    if not (isinstance(value, dict) and isinstance(value.get("role"), str)):
        return False
    content = value.get("content")
    if not isinstance(content, list):
        return isinstance(content, str)
    return all(isinstance(block, dict) and isinstance(block.get("type"), str) for block in content)


_MESSAGE_CHECKS: dict[str, Callable[[Any], bool]] = {
    MessageAdded.kind: is_message,
    CompactionByAPI.kind: is_message,
    Cut.kind: lambda message: message is None or is_message(message),
    ReplyInterrupted.kind: _is_partial_message,
    ReplyOrphaned.kind: _is_partial_message,
}
"""The check of an event's message, by kind. Other kinds have no message."""


_NOT_AN_ENTRY = "it is not the line of an entry"


_READABLE = json.JSONEncoder(ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":"))
_ESCAPED = json.JSONEncoder(ensure_ascii=True, allow_nan=False, check_circular=False, separators=(",", ":"))


def to_json(value: Any) -> str:
    """Return JSON in one line, from which the value can be read exactly. It is ASCII only if it has lone surrogates.

    Args:
        value: A JSON value.
    """
    try:
        text = _READABLE.encode(value)
        text.encode()
    except UnicodeEncodeError:
        return _ESCAPED.encode(value)
    return text


def compute_checksum(text: str) -> str:
    """Return the CRC-32 of a text in UTF-8, as eight hexadecimal digits.

    Args:
        text: The text.
    """
    return f"{zlib.crc32(text.encode('utf-8', 'surrogatepass')):08x}"
