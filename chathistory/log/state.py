"""The fold of a log: what is to be known of a conversation without reading its messages.

It travels in `Revision.info` with every append, so that a listing, a title or the next append needs no record at all.
What an entry changes of it is in `log.fold`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import MISSING, dataclass, field, fields
from datetime import datetime
from typing import Any, TypeGuard, cast

from chathistory.errors import CorruptRecord, UnsupportedRecord
from chathistory.log.entry import DECODER, FORMAT, Entry, to_json
from chathistory.log.process import Process
from chathistory.messages.json_values import is_storable
from chathistory.storage.store import LARGEST_NUMBER, LONGEST_PAYLOAD, Head

__all__ = ["ClosedTurn", "OpenTurn", "Summary", "is_list_of_marks", "is_sendable_id", "summary_in", "summary_of"]

_CONTAINER_LIVES = 30 * 24 * 3600 * 1_000_000


@dataclass(frozen=True, slots=True)
class OpenTurn:
    """A turn whose reply is not stored yet.

    id: Its id; a turn that is begun again keeps it.
    until: When its lease ends: it counts as abandoned then (microseconds since 1970 UTC).
    since: When it was opened, or begun again.
    lease: The id of the entry that opened it or began it again; whoever wrote that holds the turn.
    process: The process that did so; None: unknown.
    """

    id: str
    until: int
    since: int = 0
    lease: str = ""
    process: Process | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        held = {"by": self.process.to_dict()} if self.process else {}
        until = max(0, min(self.until, LARGEST_NUMBER))
        return {"id": self.id, "until": until, "since": self.since, "lease": self.lease} | held

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> OpenTurn:
        """Return the turn that was stored."""
        process = Process.from_dict(values.get("by"))
        return cls(values["id"], values["until"], values.get("since", 0), values.get("lease", ""), process)


@dataclass(frozen=True, slots=True)
class ClosedTurn:
    """The last turn, if it was closed without a reply and nothing was said since.

    id: Its id.
    state: "interrupted": it broke off, timed out or was given up. "refused": the API did not accept it.
    since: When it was closed (microseconds since 1970 UTC).
    process: The process that had opened it; None: unknown.
    """

    id: str
    state: str
    since: int
    process: Process | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        held = {"by": self.process.to_dict()} if self.process else {}
        return {"id": self.id, "state": self.state, "since": self.since} | held

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ClosedTurn:
        """Return the turn that was stored."""
        return cls(values["id"], values["state"], values["since"], Process.from_dict(values.get("by")))


@dataclass(slots=True)
class Summary:
    """The state of a conversation; a copy of the caller's own.

    born: a token that tells this conversation from another one made later under the same key.
    created: microseconds since 1970 UTC. messages: how many were said, but for those that a rewind left out.
    turns: how many of them open a turn: a user's message that is no tool result.
    usage: sums of the token counts of all replies, by the API's names. model: of the last reply.
    preview: the beginning of the first user text. turn: the open turn, if any. unanswered: the last turn, if it was
    closed without a reply.
    path: the position of the newest rewind or snapshot, which tells the spans that the view goes through before it.
    begin: the position from which on messages are sent. cut: the position of the record that said so; its message, if
    any, is sent first. hidden: how many turns stand before `begin`. since: the time of the first message sent.
    context: about how many tokens are sent, the last reply included; exact if that is the last message.
    prefix: the position of the record that changed last what stands before others; what was cached is void then.
    thinking_from: the position from which on thinking may be sent; before it, it is bound to what is not sent any more.
    drop_block: the API is asked to drop such thinking itself.
    setup: fingerprints of the model, system prompt and tools of the last turn of an engine; setup_at: the position of
    the record that has them whole.
    container: id, expires_at (as the API wrote it) and since (microseconds; when it was first told of) of the last
    container of the code execution tool.
    origin: of a fork: scope and id of the conversation that it came from, and the position at which it left it.
    renamed: marks ("position.index") of tool calls that are sent under another id, for one that had theirs was sent
    before them and is not sent any more.
    """

    born: str
    created: int
    title: str | None = None
    tags: tuple[str, ...] = ()
    metadata: dict[str, Any] = field(default_factory=dict)
    messages: int = 0
    turns: int = 0
    usage: dict[str, int] = field(default_factory=dict)
    model: str | None = None
    preview: str | None = field(default=None, repr=False)
    turn: OpenTurn | None = None
    unanswered: ClosedTurn | None = None
    path: int | None = None
    begin: int = 0
    cut: int | None = None
    hidden: int = 0
    since: int = 0
    context: int = 0
    prefix: int = 0
    thinking_from: int = 0
    drop_block: bool = False
    setup: dict[str, str] = field(default_factory=dict)
    setup_at: int | None = None
    container: dict[str, Any] = field(default_factory=dict)
    origin: dict[str, Any] = field(default_factory=dict)
    renamed: list[str] = field(default_factory=list)

    def usable_container(self, time: int) -> str | None:
        """Return the id of the container if there is one that the API keeps at `time` (microseconds, UTC).

        It keeps one for 30 days from its creation; `expires_at` is a shorter value, which moves with each use (page on
        the code execution tool).
        """
        id, since = self.container.get("id"), self.container.get("since")
        if not is_sendable_id(id):  # stored by an earlier version, as is one without `since`
            return None
        if type(since) is not int:
            since = None
            with suppress(ValueError, TypeError, OverflowError):
                since = int(datetime.fromisoformat(self.container.get("expires_at", "")).timestamp() * 1e6)
        return None if since is not None and since + _CONTAINER_LIVES <= time else id

    def encode(self) -> str:
        """Return the line for `Revision.info`; a number that is out of range is written as the nearest that is not."""
        values = {name: value for name, usual in _USUAL.items() if (value := getattr(self, name)) != usual}
        for name, value in values.items():
            if type(value) is int and not 0 <= value <= LARGEST_NUMBER:
                values[name] = max(0, min(value, LARGEST_NUMBER))
        if self.turn:
            values["turn"] = self.turn.to_dict()
        if self.unanswered:
            values["unanswered"] = self.unanswered.to_dict()
        return to_json({"v": FORMAT} | values)


_USUAL = {  # what is not written: that is how a summary is read again without it
    each.name: each.default_factory() if each.default_factory is not MISSING else each.default
    for each in fields(Summary)
}


_SURROGATE = re.compile("[\ud800-\udfff]")
_MARK = re.compile(r"[0-9]{1,18}\.[0-9]{1,18}")


def summary_of(head: Head) -> Summary:
    """Return the summary in a head. Raises `CorruptRecord` or `UnsupportedRecord` if it is not one of this version."""
    if len(head.revision.payload) > LONGEST_PAYLOAD:  # no file or other store would take it
        raise CorruptRecord(head.key, None, f"its payload must have at most {LONGEST_PAYLOAD} characters")
    values = _object(head.revision.payload)
    version = values.pop("v", None) if values is not None else None
    if values is None or type(version) is not int or version < FORMAT:
        raise CorruptRecord(head.key, None, "its payload is not a summary")
    if version > FORMAT:
        raise UnsupportedRecord(head.key, head.end, version)
    wrong = _wrong_field(values) or _wrong_position(values, head.end)
    if wrong is not None:
        raise CorruptRecord(head.key, None, f"the summary in it is not valid: {wrong}")
    return _built(values)


def _wrong_position(values: dict[str, Any], end: int) -> str | None:
    """Return which position is none of the conversation; None: all are, or tell where it ends."""
    for name in ("path", "cut", "setup_at"):
        if (position := values.get(name)) is not None and position >= end:
            return f"{name} is beyond the end"
    for name in ("begin", "prefix", "thinking_from"):
        if values.get(name, 0) > end:
            return f"{name} is beyond the end"
    return None


def summary_in(entry: Entry) -> Summary | None:
    """Return the summary that a snapshot or the beginning of a fork holds; None: it is not one of this version."""
    given = entry.data.get("summary")
    if not isinstance(given, dict):
        return None
    values = {name: value for name, value in given.items() if name != "v"}
    return _built(values) if _wrong_field(values) is None else None


def _built(values: dict[str, Any]) -> Summary:
    turn, closed = values.pop("turn", None), values.pop("unanswered", None)
    tags = tuple(values.pop("tags", ()))
    return Summary(
        **values,
        tags=tags,
        turn=OpenTurn.from_dict(turn) if turn else None,
        unanswered=ClosedTurn.from_dict(closed) if closed else None,
    )


def _object(payload: str) -> dict[str, Any] | None:
    """Return the JSON object of an info, or None: an error raised here would carry the text in its context."""
    try:
        values = DECODER.decode(payload)
    except (ValueError, RecursionError):
        return None
    return values if isinstance(values, dict) else None


def _wrong_field(values: dict[str, Any]) -> str | None:
    """Return what is wrong with the first field of a summary that has a wrong type or is out of range; None: nothing.

    A summary comes from outside: from a store, a file, another program. Each of its fields is checked here, once.
    """
    for name, value in values.items():
        is_valid = _VALID.get(name)
        if is_valid is None:
            return "it has an unknown field"
        if not is_valid(value):
            return f"{name} has a wrong type or value"
    missing = next((name for name in ("born", "created") if name not in values), None)
    return None if missing is None else f"{missing} is missing"


def _is_number(value: object) -> bool:
    return type(value) is int and 0 <= value <= LARGEST_NUMBER


def _is_number_or_none(value: object) -> bool:
    return value is None or _is_number(value)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_text_or_none(value: object) -> bool:
    return value is None or isinstance(value, str)


def _is_list_of_text(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(part, str) for part in value)


def is_list_of_marks(value: object) -> bool:
    """Whether a value is what `Summary.renamed` must be."""
    return _is_list_of_text(value) and all(_MARK.fullmatch(mark) for mark in cast("list[str]", value))


def is_sendable_id(value: object) -> TypeGuard[str]:
    """Whether a value is text that a request can carry as an id: not blank, and without lone surrogates."""
    return isinstance(value, str) and bool(value.strip()) and _SURROGATE.search(value) is None


def _is_map_of_numbers(value: object) -> bool:
    return isinstance(value, dict) and all(map(_is_number, value.values()))


def _is_map_of_text(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(part, str) for part in value.values())


def _is_object(value: object) -> bool:
    return isinstance(value, dict) and is_storable(value)


def _is_turn(value: object) -> bool:
    if value is None:
        return True
    return (
        isinstance(value, dict)
        and isinstance(value.get("id"), str)
        and _is_number(value.get("until"))
        and _is_number(value.get("since", 0))
        and isinstance(value.get("lease", ""), str)
    )


def _is_closed_turn(value: object) -> bool:
    if value is None:
        return True
    return (
        isinstance(value, dict)
        and isinstance(value.get("id"), str)
        and isinstance(value.get("state"), str)
        and _is_number(value.get("since"))
    )


def _is_origin(value: object) -> bool:
    if value == {}:
        return True
    return (
        isinstance(value, dict)
        and value.keys() == {"scope", "id", "position"}
        and isinstance(value["scope"], str)
        and isinstance(value["id"], str)
        and _is_number(value["position"])
    )


_VALID: dict[str, Callable[[object], bool]] = {
    "born": _is_text,
    "created": _is_number,
    "title": _is_text_or_none,
    "tags": _is_list_of_text,
    "metadata": _is_object,
    "messages": _is_number,
    "turns": _is_number,
    "usage": _is_map_of_numbers,
    "model": _is_text_or_none,
    "preview": _is_text_or_none,
    "turn": _is_turn,
    "unanswered": _is_closed_turn,
    "path": _is_number_or_none,
    "begin": _is_number,
    "cut": _is_number_or_none,
    "hidden": _is_number,
    "since": _is_number,
    "context": _is_number,
    "prefix": _is_number,
    "thinking_from": _is_number,
    "drop_block": lambda value: isinstance(value, bool),
    "setup": _is_map_of_text,
    "setup_at": _is_number_or_none,
    "container": _is_object,
    "origin": _is_origin,
    "renamed": is_list_of_marks,
}
"""What the value of each field must be; a field that is not here is not one of a summary."""
