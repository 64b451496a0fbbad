"""What the core writes into a log: an entry, and the line of text that holds it.

    {"sum":"5f0c11d2","v":1,"id":"...","kind":"message","at":1790000000000000,"turn":"...","data":{...},"message":{...}}

Everything that happens to a conversation is an entry, so the log is the truth and all else is its fold:

    message      a message as it was sent or received; `data` holds what the response told beside it
    annotation   title, tags or metadata were set; commutes with what others write
    rewind       the view goes on from an earlier position; the log keeps all
    snapshot     the state at this point, from which the fold can start again when what was before is forgotten
    setup        model, system prompt and tools that the messages behind it are held with
    cut          the view begins at a later position from now on; its own message, if any, stands before that
    compaction   a cut whose message is a block of the API's that stands for all before, and keeps thinking valid
    choice       what the API is to do with thinking that is bound to what is not sent any more
    mend         the view goes around records that cannot be read any more
    opened       a turn whose message is stored already was begun again
    renewed      the process that holds the open turn is still at it: the turn counts as open for longer
    abandoned    a turn was closed without a reply
    refused      a turn was closed because the API refused what it sent, which is not sent again
    omitted      what the API refuses, or what somebody wants to leave out, is not sent from now on
    interrupted  what had arrived of a reply that broke off: for people to read, never replayed
    orphaned     a paid reply that arrived after somebody else had changed the conversation: never replayed
    forked       what stands before it was copied from another conversation; the state in which this one begins
    lost         a record stood here that could not be read when what was left was salvaged

Two surrogates that belong together come back as the character they make: JSON has no other way to write them.

`sum` is the CRC-32 of all behind it. `v` grows when a reader of today could misread what is written.
"""

from __future__ import annotations

import json
import math
import zlib
from dataclasses import dataclass, field
from typing import Any

from chathistory.errors import CorruptRecord, InvalidInput, UnsupportedRecord
from chathistory.log.clock import fresh_token, now
from chathistory.log.entry_checks import find_wrong_field
from chathistory.messages.json_values import DEEPEST, is_storable
from chathistory.storage.store import Key, Record

__all__ = ["Entry", "decode", "encode", "is_activity"]

FORMAT = 1
KINDS = frozenset(
    (
        "message",
        "annotation",
        "rewind",
        "snapshot",
        "setup",
        "cut",
        "compaction",
        "choice",
        "mend",
        "opened",
        "renewed",
        "abandoned",
        "refused",
        "omitted",
        "interrupted",
        "orphaned",
        "forked",
        "lost",
    )
)
_HEAD = '{"sum":"'
_BEHIND = len(_HEAD) + 8 + 1  # where the text that `sum` covers begins


@dataclass(frozen=True, slots=True)
class Entry:
    """One event of a conversation.

    kind: one of those above. message: the Claude message, for kinds that carry one. data: what belongs to the kind;
    for a reply `response` (id, model, stop_reason, usage, ...) and `request_id`. at: microseconds since 1970 UTC.
    turn: the turn it belongs to, if any. position: where it is stored; -1: not yet. version: the format of its line;
    a later one than this library knows is of the kind "unknown" and has the whole line as its `data`.
    surrogates: its text may hold lone surrogates, which can be stored but not sent.
    """

    kind: str
    message: dict[str, Any] | None = field(default=None, repr=False)
    data: dict[str, Any] = field(default_factory=dict, repr=False)
    turn: str | None = None
    id: str = field(default_factory=fresh_token)
    at: int = field(default_factory=now)
    position: int = -1
    version: int = FORMAT
    surrogates: bool = False

    def known(self, key: Key) -> Entry:
        """Internal: return the entry if this version understands it, else raise `UnsupportedRecord`."""
        if self.version == FORMAT and self.kind in KINDS:
            return self
        raise UnsupportedRecord(key, self.position, self.version)


_ACTIVITY = frozenset({"message", "opened", "renewed", "abandoned", "refused", "interrupted", "orphaned"})


def is_activity(entry: Entry) -> bool:
    """Return whether somebody said something, or a turn went on: what listings are ordered by.

    A title, a cut or a repair is no activity, and neither is a message that a repair stored once more.
    """
    return entry.kind in _ACTIVITY and "again" not in entry.data


def encode(entry: Entry) -> str:
    """Return the line of an entry: one line without control characters or lone surrogates.

    Raises `InvalidInput` for what `decode` would call damaged; nothing of the kind may get into a log.
    """
    values: dict[str, Any] = {"v": entry.version, "id": entry.id, "kind": entry.kind, "at": entry.at}
    if entry.turn is not None:
        values["turn"] = entry.turn
    if entry.data:
        values["data"] = entry.data
    if entry.message is not None:
        values["message"] = entry.message
    wrong = find_wrong_field(values) if entry.version == FORMAT else None
    if wrong is not None:
        raise InvalidInput(
            f"{wrong}: has a wrong type or value for an entry of the kind {entry.kind!r}; nothing was stored"
        )
    rest = f",{to_json(values)[1:]}"
    return f'{_HEAD}{_checksum(rest)}"{rest}'


def decode(record: Record, key: Key) -> Entry:
    """Return the entry of a record. Raises `CorruptRecord` if its line is not what was once written."""
    body = record.body
    rest = body[_BEHIND:]
    if body[:_BEHIND] != f'{_HEAD}{_checksum(rest)}"':
        raise CorruptRecord(key, record.position, "its checksum does not fit")
    entry = _read(body, record.position)
    if isinstance(entry, str):
        raise CorruptRecord(key, record.position, entry)
    return entry


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError  # JSON text such as 1e999, which could not be written again
    return value


def _refuse_constant(_name: str) -> float:
    raise ValueError  # NaN and infinities are not JSON


DECODER = json.JSONDecoder(parse_float=_finite, parse_constant=_refuse_constant)
"""Reads JSON that comes from outside: only numbers that can be written again. Raises `ValueError`, `RecursionError`."""

_scan = DECODER.raw_decode  # what `json.loads` comes down to, without looking for blanks around it


def _read(text: str, position: int) -> Entry | str:
    """Return the entry of a line, or why it has none: an error raised here would carry its text in its context."""
    try:
        values, end = _scan(text)
    except (ValueError, RecursionError):
        return _NO_ENTRY
    if end != len(text) or type(version := values.get("v")) is not int or version < FORMAT:
        return _NO_ENTRY
    if text.count("{") + text.count("[") > DEEPEST and not is_storable(values):
        return "it is nested too deep"
    if version > FORMAT:
        del values["sum"]
        return Entry("unknown", data=values, id="", at=0, position=position, version=version)
    wrong = find_wrong_field(values)
    if wrong is not None:
        return f"its field {wrong} has a wrong type or value"
    return Entry(
        values["kind"],
        values.get("message"),
        values.get("data") or {},
        values.get("turn"),
        values["id"],
        values["at"],
        position,
        FORMAT,
        "\\ud" in text,
    )


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


def _checksum(text: str) -> str:
    return f"{zlib.crc32(text.encode('utf-8', 'surrogatepass')):08x}"
