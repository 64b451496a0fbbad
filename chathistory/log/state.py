"""The state of a conversation: what is to be known of it without reading its messages, folded from its events.

It travels in `Revision.payload` with every append, so that a listing, a title or the next append needs no record at
all. What an event changes of it is in `log.apply`. It has five parts, each stored by its own names in one JSON object.

The annotations are evaluated here (there is no `from __future__ import annotations`): `stored_fields` reads them.
"""

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Annotated, Any, TypeAlias, TypeGuard

from chathistory.errors import CorruptRecord, UnsupportedRecord
from chathistory.log.entry import FORMAT, Entry, decode, to_json
from chathistory.log.field_types import Bool, PositionOrNone, Text, TextMap, TextOrNone, ViewStart, is_call_refs
from chathistory.log.process import Process
from chathistory.log.stored_fields import (
    Form,
    WrongField,
    dump_fields,
    is_list_of_text,
    is_number,
    is_text,
    load_fields,
    stored_names,
)
from chathistory.messages.json_values import DECODER, is_storable
from chathistory.storage.values import LARGEST_NUMBER, LONGEST_PAYLOAD, Head, Key, Record, Revision

__all__ = [
    "Annotations",
    "AppendResult",
    "ClosedTurn",
    "Container",
    "ConversationHead",
    "ConversationState",
    "EngineState",
    "Identity",
    "OpenTurn",
    "Origin",
    "Totals",
    "ViewState",
    "is_sendable_id",
    "parse_state",
    "read_state",
]

_CONTAINER_LIVES = 30 * 24 * 3600 * 1_000_000  # microseconds


def _clamp_number(number: int) -> int:
    """Return the nearest number that every store keeps exactly."""
    return number if 0 <= number <= LARGEST_NUMBER else max(0, min(number, LARGEST_NUMBER))


@dataclass(frozen=True, slots=True)
class OpenTurn:
    """A turn whose reply is not stored yet.

    Attributes:
        id: Its id; a turn that is begun again keeps it.
        lease_until: When its lease ends: it counts as abandoned then (microseconds since 1970 UTC).
        since: When it was opened, or begun again.
        lease: The id of the entry that opened it or began it again; whoever wrote that holds the turn.
        process: The process that did so; None: unknown.
    """

    id: str
    lease_until: int
    since: int = 0
    lease: str = ""
    process: Process | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        values = {
            "id": self.id,
            "lease_until": _clamp_number(self.lease_until),
            "since": self.since,
            "lease": self.lease,
        }
        return values | ({"process": self.process.to_dict()} if self.process else {})

    @classmethod
    def from_dict(cls, values: Mapping[str, Any] | None) -> "OpenTurn | None":
        """Return what `to_dict` gave; None: no turn is open."""
        if values is None:
            return None
        process = Process.from_dict(values.get("process"))
        return cls(values["id"], values["lease_until"], values.get("since", 0), values.get("lease", ""), process)

    @staticmethod
    def is_valid(value: Any) -> bool:
        """Whether a JSON value is what `to_dict` gives, or null."""
        return value is None or (
            isinstance(value, dict)
            and is_text(value.get("id"))
            and is_number(value.get("lease_until"))
            and is_number(value.get("since", 0))
            and is_text(value.get("lease", ""))
        )


@dataclass(frozen=True, slots=True)
class ClosedTurn:
    """The last turn, if it was closed without a reply and nothing was said since.

    Attributes:
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
        values = {"id": self.id, "state": self.state, "since": self.since}
        return values | ({"process": self.process.to_dict()} if self.process else {})

    @classmethod
    def from_dict(cls, values: Mapping[str, Any] | None) -> "ClosedTurn | None":
        """Return what `to_dict` gave; None: there is none."""
        if values is None:
            return None
        return cls(values["id"], values["state"], values["since"], Process.from_dict(values.get("process")))

    @staticmethod
    def is_valid(value: Any) -> bool:
        """Whether a JSON value is what `to_dict` gives, or null."""
        return value is None or (
            isinstance(value, dict)
            and is_text(value.get("id"))
            and is_text(value.get("state"))
            and is_number(value.get("since"))
        )


@dataclass(frozen=True, slots=True)
class Origin:
    """Of a fork: the conversation that it came from, and the position at which it left it."""

    scope: str
    id: str
    position: int

    def to_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {"scope": self.scope, "id": self.id, "position": self.position}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Origin | None":
        """Return what `to_dict` gave; None for {}."""
        return cls(**values) if values else None

    @staticmethod
    def is_valid(value: Any) -> bool:
        """Whether a JSON value is what `to_dict` gives, or {}."""
        if value == {}:
            return True
        is_whole = isinstance(value, dict) and value.keys() == {"scope", "id", "position"}
        return is_whole and is_text(value["scope"]) and is_text(value["id"]) and is_number(value["position"])


_SURROGATE = re.compile("[\ud800-\udfff]")


def is_sendable_id(value: object) -> TypeGuard[str]:
    """Whether a value is text that a request can carry as an id: not blank, and without lone surrogates."""
    return isinstance(value, str) and bool(value.strip()) and _SURROGATE.search(value) is None


@dataclass(frozen=True, slots=True)
class Container:
    """The last container of the code execution tool.

    Attributes:
        id: Its id.
        expires_at: As the API wrote it: a shorter value than its life, which moves with each use.
        since: When it was first told of (microseconds since 1970 UTC); None: an earlier version did not store it.
    """

    id: str
    expires_at: str | None = None
    since: int | None = None

    def is_usable(self, time: int) -> bool:
        """Whether the API keeps it at `time` (microseconds, UTC): it does so for 30 days from its creation.

        Source: the page on the code execution tool.
        """
        since = self.since
        if since is None and self.expires_at is not None:
            with suppress(ValueError, OverflowError):
                since = int(datetime.fromisoformat(self.expires_at).timestamp() * 1e6)
        return since is None or since + _CONTAINER_LIVES > time

    def to_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {"id": self.id, "expires_at": self.expires_at, "since": self.since}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Container | None":
        """Return what `to_dict` gave; None for what names no container that can be sent."""
        id, expires_at, since = values.get("id"), values.get("expires_at"), values.get("since")
        if not is_sendable_id(id):
            return None
        return cls(id, expires_at if isinstance(expires_at, str) else None, since if is_number(since) else None)


def _is_storable_object(value: Any) -> bool:
    return isinstance(value, dict) and is_storable(value)


def _is_map_of_numbers(value: Any) -> bool:
    return isinstance(value, dict) and all(map(is_number, value.values()))


Number: TypeAlias = Annotated[int, Form(is_number, dump=_clamp_number)]


@dataclass(frozen=True, slots=True)
class Identity:
    """Which conversation this is.

    Attributes:
        born: A token that tells it from another one made later under the same key.
        created: When (microseconds since 1970 UTC).
        origin: Of a fork: where it came from.
    """

    creation_id: Text
    created: Number
    origin: Annotated[Origin | None, Form(Origin.is_valid, Origin.from_dict, Origin.to_dict)] = None


@dataclass(frozen=True, slots=True)
class Annotations:
    """What somebody set beside the conversation."""

    title: TextOrNone = field(default=None, repr=False)
    tags: Annotated[tuple[str, ...], Form(is_list_of_text, tuple, list)] = field(default=(), repr=False)
    metadata: Annotated[dict[str, Any], Form(_is_storable_object)] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Totals:
    """What a listing shows of the conversation.

    Attributes:
        messages: How many were said, but for those that a rewind left out.
        turns: How many of them open a turn: a user's message that is no tool result.
        usage: Sums of the token counts of all replies, by the API's names.
        model: Of the last reply.
        preview: The beginning of the first user text.
    """

    messages: Number = 0
    turns: Number = 0
    usage: Annotated[dict[str, int], Form(_is_map_of_numbers)] = field(default_factory=dict)
    model: TextOrNone = None
    preview: TextOrNone = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class ViewState:
    """From where on, and how, messages are sent.

    Attributes:
        path: The position of the newest rewind, snapshot or repair, which tells the spans before it; None: there is
            none.
        view_start: The position from which on messages are sent.
        cut_position: The position of the event that said so; its message, if any, is sent first.
        hidden_turns: How many turns stand before `view_start`.
        view_since: The time of the first message that is sent.
        tokens: About how many are sent, the last reply included; exact if that is the last message.
        cache_valid_from: The position of the event that changed last what stands before others: what was cached then
            is void.
        thinking_valid_from: The position from which on thinking may be sent; before it, it is bound to what is not
            sent any longer.
        drop_block: The API is asked to drop such thinking itself.
        renamed: Marks ("position.index") of tool calls that are sent under another id, for one that had theirs was
            sent before them and is not sent any longer.
    """

    path_position: PositionOrNone = None
    view_start: Number = 0
    cut_position: PositionOrNone = None
    hidden_turns: Number = 0
    view_since: Number = 0
    tokens: Number = 0
    cache_valid_from: Number = 0
    thinking_valid_from: Number = 0
    drop_stale_thinking: Bool = False
    renamed_calls: Annotated[tuple[str, ...], Form(is_call_refs, tuple, list)] = ()

    def with_tokens(self, tokens: int) -> "ViewState":
        """Return it with another count: each message changes that, and `replace` takes three times as long."""
        return ViewState(
            self.path_position,
            self.view_start,
            self.cut_position,
            self.hidden_turns,
            self.view_since,
            tokens,
            self.cache_valid_from,
            self.thinking_valid_from,
            self.drop_stale_thinking,
            self.renamed_calls,
        )

    @property
    def start(self) -> ViewStart:
        """From where on messages are sent."""
        return ViewStart(self.view_start, self.cut_position, self.hidden_turns, self.view_since)


@dataclass(frozen=True, slots=True)
class EngineState:
    """What engines have to know of each other.

    Attributes:
        open_turn: The turn whose reply is awaited; None: none is.
        unanswered: The last turn, if it was closed without a reply and nothing was said since.
        setup: Fingerprints of the model, system prompt and tools of the last turn.
        setup_position: The position of the `Setup` event that has them whole.
        container: The last container of the code execution tool.
    """

    open_turn: Annotated[OpenTurn | None, Form(OpenTurn.is_valid, OpenTurn.from_dict, lambda turn: turn.to_dict())] = (
        None
    )
    unanswered_turn: Annotated[
        ClosedTurn | None, Form(ClosedTurn.is_valid, ClosedTurn.from_dict, lambda turn: turn.to_dict())
    ] = None
    setup_fingerprints: TextMap = field(default_factory=dict)
    setup_position: PositionOrNone = None
    container: Annotated[Container | None, Form(_is_storable_object, Container.from_dict, Container.to_dict)] = None


@dataclass(frozen=True, slots=True)
class ConversationState:
    """The state of a conversation; each append makes a new one."""

    identity: Identity
    annotations: Annotations = Annotations()
    totals: Totals = Totals()
    view: ViewState = ViewState()
    engine: EngineState = EngineState()

    def to_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        values: dict[str, Any] = {"v": FORMAT}
        for part in (self.identity, self.annotations, self.totals, self.view, self.engine):
            if part is not _DEFAULTS.get(type(part)):  # of that nothing is stored
                values |= dump_fields(part)
        return values

    def encode(self) -> str:
        """Return the line for `Revision.payload`; a number that is out of range is written as the nearest in range."""
        return to_json(self.to_dict())


_DEFAULTS = {type(each.default): each.default for each in fields(ConversationState)}
_PARTS = {"identity": Identity, "annotations": Annotations, "totals": Totals, "view": ViewState, "engine": EngineState}
_KEYS = frozenset[str]().union(*map(stored_names, _PARTS.values()))


def _load_state(values: dict[str, Any]) -> ConversationState | WrongField:
    """Return the state in a JSON object without its version. A name that is not one of a state's is wrong."""
    if not values.keys() <= _KEYS:
        return WrongField("an unknown field")
    parts: dict[str, Any] = {}
    for name, cls in _PARTS.items():
        part = load_fields(cls, values)
        if isinstance(part, WrongField):
            return part
        parts[name] = part
    return ConversationState(**parts)


def parse_state(values: dict[str, Any]) -> ConversationState | None:
    """Return the state that a snapshot or the beginning of a fork holds; None: it is not one of this version."""
    state = _load_state({name: value for name, value in values.items() if name != "v"})
    return None if isinstance(state, WrongField) else state


def read_state(head: Head) -> ConversationState:
    """Return the state in a head. Raises `CorruptRecord` or `UnsupportedRecord` if it is not one of this version."""
    payload = head.revision.payload
    if len(payload) > LONGEST_PAYLOAD:  # no file or other store would take it
        raise CorruptRecord(head.key, None, f"its payload must have at most {LONGEST_PAYLOAD} characters")
    values: Any = None
    with suppress(ValueError, RecursionError):  # an error raised in a handler would carry the text in its context
        values = DECODER.decode(payload)
    version = values.pop("v", None) if isinstance(values, dict) else None
    if type(version) is not int or version < 1:
        raise CorruptRecord(head.key, None, "its payload is not a summary")
    if version != FORMAT:
        raise UnsupportedRecord(head.key, head.end, version)
    state = _load_state(values)
    if isinstance(state, WrongField):
        raise CorruptRecord(head.key, None, f"the summary in it is not valid: {state.name} is wrong or missing")
    view, engine = state.view, state.engine
    named = (view.path_position, view.cut_position, engine.setup_position)
    bounds = (view.view_start, view.cache_valid_from, view.thinking_valid_from)
    if any(position is not None and position >= head.end for position in named) or max(bounds) > head.end:
        raise CorruptRecord(head.key, None, "the summary in it is not valid: a position is beyond the end")
    return state


@dataclass(frozen=True, slots=True)
class ConversationHead:
    """The head of a conversation with the state that its payload holds, so that this is read once."""

    stored: Head
    state: ConversationState

    @property
    def key(self) -> Key:
        """The conversation."""
        return self.stored.key

    @property
    def start(self) -> int:
        """The position of the first record that is kept."""
        return self.stored.start

    @property
    def end(self) -> int:
        """One above the position of the last record."""
        return self.stored.end

    @property
    def revision(self) -> Revision:
        """Version, times and payload."""
        return self.stored.revision

    @property
    def version(self) -> str:
        """The version of the state."""
        return self.stored.revision.version


@dataclass(frozen=True, slots=True)
class AppendResult(ConversationHead):
    """The head after an append, and the lines that it stored."""

    lines: Sequence[str] = field(repr=False)

    @property
    def head(self) -> ConversationHead:
        """The head alone, for those who keep it."""
        return ConversationHead(self.stored, self.state)

    def read_entries(self) -> list[Entry]:
        """Return the stored entries as everybody reads them from now on, with values of their own."""
        start = self.stored.end - len(self.lines)
        return [decode(Record(position, line), self.stored.key) for position, line in enumerate(self.lines, start)]
