"""What the core writes into a log: an entry, and the line of text that holds it.

    {"sum":"5f0c11d2","v":2,"id":"...","kind":"message","at":1790000000000000,"turn":"...","data":{...},"message":{...}}

Everything that happens to a conversation is an entry, so the log is the truth and all else is its fold. `event` is what
happened (see `log.events`); `data` and `message` on disk are its fields.

Two surrogates that belong together come back as the character they make: JSON has no other way to write them.

`sum` is the CRC-32 of all behind it. `v` grows when a reader of today could misread what is written. A line with
`"optional":true` may be passed by where its kind is not known; every other one must be understood.
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
_WITH_BLOCKS = frozenset({"tool_result", "search_result"})
_HEAD = '{"sum":"'
_BEHIND = len(_HEAD) + 8 + 1  # where the text that `sum` covers begins


@dataclass(frozen=True, slots=True)
class Entry(Generic[E_co]):
    """One event of a conversation, and where it stands.

    Attributes:
        event: What happened.
        turn: The turn it belongs to, if any.
        id: Of this entry alone.
        time_us: When it happened, in microseconds since 1970 UTC; `at` is the same as a `datetime`.
        position: Where it is stored; -1: not yet.
        version: The format of its line. One that is later than this library knows has an `UnknownEvent`.
        surrogates: Whether its text may hold lone surrogates, which can be stored but not sent.
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
        """The name of the event's kind, as it is stored: "message", "annotation", "rewind", "cut" and so on."""
        return self.event.kind

    @property
    def message(self) -> Message | None:
        """The Claude message, for events that carry one."""
        return None if isinstance(self.event, UnknownEvent) else getattr(self.event, "message", None)

    @property
    def data(self) -> dict[str, Any]:
        """The fields of the event without its message, as JSON values under their stored names."""
        event = self.event
        return (event.data if isinstance(event, UnknownEvent) else dump_fields(event)) | self.extra

    def to_dict(self) -> dict[str, Any]:
        """Return it for JSON: kind, message, data, turn, id, at (microseconds), position, version and surrogates."""
        values = {"kind": self.kind, "message": self.message, "data": self.data, "turn": self.turn, "id": self.id}
        place = {"at": self.time_us, "position": self.position, "version": self.version}
        return values | place | {"surrogates": self.surrogates}


def make_message_entry(given: Any, *, turn: str | None = None, key: str | None = None) -> Entry[MessageAdded]:
    """Return the entry of a message that a caller hands in, checked as `accept_message` says.

    Args:
        given: The message.
        turn: The turn that it belongs to.
        key: The caller's name for the append that stores it.
    """
    accepted = accept_message(given)
    event = MessageAdded(
        accepted.message,
        NO_RESPONSE if accepted.response is None else Response(accepted.response),
        accepted.request_id,
        accepted.extra,
        accepted.received,
        key,
    )
    return Entry(event, turn)


def is_message_entry(entry: Entry) -> TypeGuard[Entry[MessageAdded]]:
    """Whether an entry is a message of the conversation."""
    return isinstance(entry.event, MessageAdded)


def is_cut_entry(entry: Entry) -> TypeGuard[Entry[Cut | CompactionByAPI]]:
    """Whether an entry is a cut, or a compaction by the API."""
    return isinstance(entry.event, Cut | CompactionByAPI)


def select_messages(entries: Iterable[Entry]) -> list[Entry[MessageAdded]]:
    """Return the messages of the conversation among some entries."""
    found = (entry for entry in entries if isinstance(entry.event, MessageAdded))
    return cast("list[Entry[MessageAdded]]", list(found))


def filter_known(entries: Sequence[Entry], key: Key) -> list[Entry]:
    """Return the entries whose kind this version knows, without those that may be passed by.

    Raises:
        UnsupportedRecord: One of another kind must be understood, or has a later format.
    """
    for entry in entries:
        if isinstance(entry.event, UnknownEvent) and not entry.event.is_optional:
            raise UnsupportedRecord(key, entry.position, entry.version)
    return [entry for entry in entries if not isinstance(entry.event, UnknownEvent)]


def is_activity(entry: Entry) -> bool:
    """Return whether somebody said something, or a turn went on: what listings are ordered by.

    A title, a cut or a repair is no activity, and neither is a message that a repair stored once more.
    """
    if is_message_entry(entry):
        return entry.event.copy_of is None
    return isinstance(entry.event, _ACTIVITY)


_ACTIVITY = (TurnOpened, LeaseRenewed, TurnAbandoned, TurnRefusedByAPI, ReplyInterrupted, ReplyOrphaned)


def encode(entry: Entry) -> str:
    """Return the line of an entry: one line without control characters or lone surrogates.

    Raises `InvalidInput` for what `decode` would call damaged; nothing of the kind may get into a log.
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
            f"{wrong.name}: has a wrong type or value for an entry of the kind {event.kind!r}; nothing was stored"
        )
    rest = f",{to_json(values)[1:]}"
    return f'{_HEAD}{compute_checksum(rest)}"{rest}'


def decode(record: Record, key: Key) -> Entry:
    """Return the entry of a record. Raises `CorruptRecord` if its line is not what was once written."""
    body = record.body
    rest = body[_BEHIND:]
    if body[:_BEHIND] != f'{_HEAD}{compute_checksum(rest)}"':
        raise CorruptRecord(key, record.position, "its checksum does not fit")
    entry = _decode_line(body, record.position)
    if isinstance(entry, str):
        raise CorruptRecord(key, record.position, entry)
    return entry


_scan = DECODER.raw_decode  # what `json.loads` comes down to, without looking for blanks around it


def _decode_line(text: str, position: int) -> Entry | str:  # noqa: PLR0911 - each is another thing that can be wrong
    """Return the entry of a line, or why it has none: an error raised here would carry its text in its context."""
    try:
        values, end = _scan(text)
    except (ValueError, RecursionError):
        return _NO_ENTRY
    if end != len(text) or type(version := values.get("v")) is not int or version < 1:
        return _NO_ENTRY
    if text.count("{") + text.count("[") > DEEPEST and not is_storable(values):
        return "it is nested too deep"
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
    """Return the first field of a line itself that has a wrong type or value; None: all are right."""
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
    """Return the event that a line holds.

    Args:
        kind: Its name on disk.
        data: The JSON object of its fields.
        message: Its message; None: it has none.
        is_optional: What the line says for readers that do not know the kind.
    """
    cls = EVENT_CLASSES.get(kind)
    if cls is None:
        return UnknownEvent(kind, is_optional, data, message)
    is_right = _MESSAGE_CHECKS.get(kind)
    if is_right is None:
        return load_fields(cls, data)
    return load_fields(cls, data, message=message) if is_right(message) else WrongField("message")


def is_message(value: Any) -> bool:
    """Whether a JSON value is a message that the view can read."""
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
    if kind in _WITH_BLOCKS and not is_text_or_none(block.get("content")):
        return _are_blocks(block["content"])
    return True


def _is_partial_message(value: Any) -> bool:
    """Whether a value is a message for people to read; blocks of it may have been broken off."""
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
"""What the message of an event must be, by the kind; the others have none."""


_NO_ENTRY = "it is not the line of an entry"


_READABLE = json.JSONEncoder(ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":"))
_ESCAPED = json.JSONEncoder(ensure_ascii=True, allow_nan=False, check_circular=False, separators=(",", ":"))


def to_json(value: Any) -> str:
    """Return one line of JSON that gives back `value` exactly; readable, unless it holds lone surrogates."""
    try:
        text = _READABLE.encode(value)
        text.encode()
    except UnicodeEncodeError:
        return _ESCAPED.encode(value)
    return text


def compute_checksum(text: str) -> str:
    return f"{zlib.crc32(text.encode('utf-8', 'surrogatepass')):08x}"
