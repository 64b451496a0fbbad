"""The state of a conversation: what can be known of it without reading its messages.

The state is computed from the events of the log; `log.apply` says how each event changes it. It is stored in
`Revision.payload` with every append. So a listing, a title and the next append need no records at all. Its five parts
are stored in one JSON object, each field under its own name.

Fields that this version does not know are kept, in the state and in the objects within it, while the object that they
belong to stays the same. They cannot be computed again: a fork, and a head that is rebuilt from the records, do not
have them. A forget keeps them, so a later version may not quote messages in a field without a new format number.

This module has no `from __future__ import annotations`: `stored_fields` reads the evaluated annotations.
"""

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Annotated, Any, TypeAlias, TypeGuard

from chathistory.errors import CorruptRecord, UnsupportedRecord
from chathistory.log.entry import FORMAT, Entry, decode, to_json
from chathistory.log.field_types import Bool, PositionOrNone, Text, TextMap, TextOrNone, is_call_refs
from chathistory.log.process import Process
from chathistory.log.stored_fields import (
    Form,
    WrongField,
    dump_fields,
    is_list_of_text,
    is_number,
    is_text,
    load_fields,
    select_unknown,
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

_CONTAINER_LIFETIME = 30 * 24 * 3600 * 1_000_000  # microseconds


def _clamp_number(number: int) -> int:
    """Return the nearest number that every store keeps exactly."""
    return number if 0 <= number <= LARGEST_NUMBER else max(0, min(number, LARGEST_NUMBER))


def _is_storable_object(value: Any) -> bool:
    return isinstance(value, dict) and is_storable(value)


@dataclass(frozen=True, slots=True)
class OpenTurn:
    """A turn without a stored reply.

    Attributes:
        id: The id of the turn; a turn that is started again keeps it.
        lease_until: When its lease ends, so that the turn counts as abandoned (microseconds since 1970 UTC).
        since: When it was opened, or started again (microseconds since 1970 UTC).
        lease: The id of the entry that opened it, or started it again. The writer of that entry owns the turn.
        process: The process that wrote that entry; None: unknown.
        extra: Fields that this version does not know.
    """

    id: str
    lease_until: int
    since: int = 0
    lease: str = ""
    process: Process | None = None
    extra: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        values = {
            "id": self.id,
            "lease_until": _clamp_number(self.lease_until),
            "since": self.since,
            "lease": self.lease,
        }
        return values | ({"process": self.process.to_dict()} if self.process else {}) | self.extra

    @classmethod
    def from_dict(cls, values: Mapping[str, Any] | None) -> "OpenTurn | None":
        """Return the turn that `to_dict` returned as a JSON object; None for None.

        Args:
            values: The JSON object, checked with `is_valid`; None: no turn is open.
        """
        if values is None:
            return None
        process = Process.from_dict(values.get("process"))
        extra = select_unknown(values, ("id", "lease_until", "since", "lease", "process"))
        return cls(values["id"], values["lease_until"], values.get("since", 0), values.get("lease", ""), process, extra)

    @staticmethod
    def is_valid(value: Any) -> bool:
        """Return True if `from_dict` can read a JSON value.

        Args:
            value: The JSON value.
        """
        return value is None or (
            _is_storable_object(value)
            and is_text(value.get("id"))
            and is_number(value.get("lease_until"))
            and is_number(value.get("since", 0))
            and is_text(value.get("lease", ""))
        )


@dataclass(frozen=True, slots=True)
class ClosedTurn:
    """The last turn, if it was closed without a reply and no message followed.

    Attributes:
        id: The id of the turn.
        state: "interrupted": it was interrupted, timed out or was abandoned. "refused": the API did not accept it.
        since: When it was closed (microseconds since 1970 UTC).
        process: The process that had opened it; None: unknown.
        extra: Fields that this version does not know.
    """

    id: str
    state: str
    since: int
    process: Process | None = None
    extra: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Return the turn as a JSON object."""
        values = {"id": self.id, "state": self.state, "since": self.since}
        return values | ({"process": self.process.to_dict()} if self.process else {}) | self.extra

    @classmethod
    def from_dict(cls, values: Mapping[str, Any] | None) -> "ClosedTurn | None":
        """Return the turn that `to_dict` returned as a JSON object; None for None.

        Args:
            values: The JSON object, checked with `is_valid`; None: no such turn.
        """
        if values is None:
            return None
        extra = select_unknown(values, ("id", "state", "since", "process"))
        return cls(values["id"], values["state"], values["since"], Process.from_dict(values.get("process")), extra)

    @staticmethod
    def is_valid(value: Any) -> bool:
        """Return True if `from_dict` can read a JSON value.

        Args:
            value: The JSON value.
        """
        return value is None or (
            _is_storable_object(value)
            and is_text(value.get("id"))
            and is_text(value.get("state"))
            and is_number(value.get("since"))
        )


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a fork was copied from.

    Attributes:
        scope: The scope of the original conversation.
        id: The id of the original conversation.
        position: The position up to which it was copied.
        extra: Fields that this version does not know.
    """

    scope: str
    id: str
    position: int
    extra: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return {"scope": self.scope, "id": self.id, "position": self.position, **self.extra}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Origin | None":
        """Return the origin that `to_dict` returned as a JSON object; None for {}.

        Args:
            values: The JSON object, checked with `is_valid`.
        """
        if not values:
            return None
        extra = select_unknown(values, ("scope", "id", "position"))
        return cls(values["scope"], values["id"], values["position"], extra)

    @staticmethod
    def is_valid(value: Any) -> bool:
        """Return True if `from_dict` can read a JSON value.

        Args:
            value: The JSON value.
        """
        if value == {}:
            return True
        is_whole = _is_storable_object(value) and value.keys() >= {"scope", "id", "position"}
        return is_whole and is_text(value["scope"]) and is_text(value["id"]) and is_number(value["position"])


_SURROGATE = re.compile("[\ud800-\udfff]")


def is_sendable_id(value: object) -> TypeGuard[str]:
    """Return True for text that a request can carry as an id: it is not blank, and has no lone surrogates.

    Args:
        value: Any value.
    """
    return isinstance(value, str) and bool(value.strip()) and _SURROGATE.search(value) is None


@dataclass(frozen=True, slots=True)
class Container:
    """The last container of the code execution tool.

    Attributes:
        id: The id of the container.
        expires_at: The API's value. It is earlier than the end of the container's life, and moves with each use.
        since: When a reply first named it (microseconds since 1970 UTC); None: unknown.
        extra: Fields that this version does not know.
    """

    id: str
    expires_at: str | None = None
    since: int | None = None
    extra: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def is_usable(self, time: int) -> bool:
        """Return True while the API keeps the container: for 30 days from its creation.

        Source: the page on the code execution tool.

        Args:
            time: The present time (microseconds since 1970 UTC).
        """
        since = self.since
        if since is None and self.expires_at is not None:
            with suppress(ValueError, OverflowError):
                since = int(datetime.fromisoformat(self.expires_at).timestamp() * 1e6)
        return since is None or since + _CONTAINER_LIFETIME > time

    def to_dict(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return {"id": self.id, "expires_at": self.expires_at, "since": self.since, **self.extra}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Container | None":
        """Return the container in a JSON object; None if it has no id that can be sent.

        Args:
            values: Any JSON object.
        """
        id, expires_at, since = values.get("id"), values.get("expires_at"), values.get("since")
        if not is_sendable_id(id):
            return None
        extra = select_unknown(values, ("id", "expires_at", "since"))
        return cls(id, expires_at if isinstance(expires_at, str) else None, since if is_number(since) else None, extra)


def _is_map_of_numbers(value: Any) -> bool:
    return isinstance(value, dict) and all(map(is_number, value.values()))


Number: TypeAlias = Annotated[int, Form(is_number, dump=_clamp_number)]


@dataclass(frozen=True, slots=True)
class Identity:
    """Which conversation this is.

    Attributes:
        creation_id: A unique id. A conversation that is created later under the same key has another one.
        created: When it was created (microseconds since 1970 UTC).
        origin: For a fork, where it was copied from.
    """

    creation_id: Text
    created: Number
    origin: Annotated[Origin | None, Form(Origin.is_valid, Origin.from_dict, Origin.to_dict)] = None


@dataclass(frozen=True, slots=True)
class Annotations:
    """The title, tags and metadata that users set.

    Attributes:
        title: The title, or None.
        tags: The tags, in the order in which they were given.
        metadata: Any JSON object of the user.
    """

    title: TextOrNone = field(default=None, repr=False)
    tags: Annotated[tuple[str, ...], Form(is_list_of_text, tuple, list)] = field(default=(), repr=False)
    metadata: Annotated[dict[str, Any], Form(_is_storable_object)] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Totals:
    """What a listing shows of the conversation.

    Attributes:
        messages: The number of messages, without those that a rewind took back.
        turns: How many of them open a turn: messages of the user that are not tool results.
        usage: Sums of the token counts of all replies, under the API's names.
        model: The model of the last reply.
        preview: The beginning of the first text of the user.
    """

    messages: Number = 0
    turns: Number = 0
    usage: Annotated[dict[str, int], Form(_is_map_of_numbers)] = field(default_factory=dict)
    model: TextOrNone = None
    preview: TextOrNone = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class ViewState:
    """Which messages are sent, and how.

    Attributes:
        path_position: The position of the newest rewind, snapshot or repair, which holds the ranges of the active path
            before it; None: the whole log is active.
        view_start: The position of the first message that is sent.
        cut_position: The position of the cut that set `view_start`; the cut's message, if any, is sent first.
        hidden_turns: How many turns precede `view_start`.
        view_since: The time of the first message that is sent (microseconds since 1970 UTC).
        tokens: About how many tokens are sent, with the last reply; exact if the last message is a reply.
        cache_valid_from: The position of the last event that changed what precedes other messages in a request. What
            was cached before that event is not used again.
        thinking_valid_from: The position from which on thinking can be sent. Earlier thinking depends on content that
            is no longer sent.
        drop_stale_thinking: Whether the API is asked to drop such thinking itself.
        renamed_calls: Tool calls ("position.index") that are sent under another id, because a call with the same id was
            sent before them and is no longer sent.
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
        """Return the same state with another number of tokens: three times as fast as `replace`, for each message.

        Args:
            tokens: The number.
        """
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


@dataclass(frozen=True, slots=True)
class EngineState:
    """What engines in different processes need to know of each other.

    Attributes:
        open_turn: The turn that waits for a reply; None: no turn is open.
        unanswered_turn: The last turn, if it was closed without a reply and no message followed.
        setup_fingerprints: Short hashes of the model, system prompt and tools of the last turn.
        setup_position: The position of the `Setup` event that holds them in full.
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
    """The state of a conversation. It is immutable; each append makes a new one.

    Attributes:
        identity: Which conversation this is.
        annotations: Title, tags and metadata.
        totals: What a listing shows.
        view: Which messages are sent.
        engine: Open turn, setup and container.
        extra: Fields that this version does not know.
    """

    identity: Identity
    annotations: Annotations = Annotations()
    totals: Totals = Totals()
    view: ViewState = ViewState()
    engine: EngineState = EngineState()
    extra: dict[str, Any] = field(default_factory=dict, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        values: dict[str, Any] = {"v": FORMAT}
        for part in (self.identity, self.annotations, self.totals, self.view, self.engine):
            if part is not _DEFAULTS.get(type(part)):  # a part that is the default is not stored
                values |= dump_fields(part)
        return values | self.extra

    def encode(self) -> str:
        """Return the text for `Revision.payload`. A number out of range is written as the nearest one in range."""
        return to_json(self.to_dict())


_DEFAULTS = {type(each.default): each.default for each in fields(ConversationState)}
_PARTS = {"identity": Identity, "annotations": Annotations, "totals": Totals, "view": ViewState, "engine": EngineState}
_KEYS = frozenset[str]().union(*map(stored_names, _PARTS.values()))


def _load_state(values: dict[str, Any]) -> ConversationState | WrongField:
    """Return the state in a JSON object without its format number, or the first field that is wrong."""
    parts: dict[str, Any] = {"extra": {} if values.keys() <= _KEYS else select_unknown(values, _KEYS)}
    if not is_storable(parts["extra"]):
        return WrongField("an unknown field")
    for name, cls in _PARTS.items():
        part = load_fields(cls, values)
        if isinstance(part, WrongField):
            return part
        parts[name] = part
    return ConversationState(**parts)


def parse_state(values: dict[str, Any]) -> ConversationState | None:
    """Return the state that a `Snapshot` or `Forked` event holds; None if it is not valid.

    Args:
        values: The JSON object in the event.
    """
    state = _load_state({name: value for name, value in values.items() if name != "v"})
    return None if isinstance(state, WrongField) else state


def read_state(head: Head) -> ConversationState:
    """Return the state in a head.

    Args:
        head: The head.

    Raises:
        CorruptRecord: The payload of the head is not a valid state.
        UnsupportedRecord: The payload has another format: a later version wrote it, or a version before the format was
            frozen.
    """
    payload = head.revision.payload
    if len(payload) > LONGEST_PAYLOAD:  # no store accepts it
        raise CorruptRecord(head.key, None, f"its payload must have at most {LONGEST_PAYLOAD} characters")
    values: Any = None
    with suppress(ValueError, RecursionError):  # an error raised in a handler would carry the text in its context
        values = DECODER.decode(payload)
    version = values.pop("v", None) if isinstance(values, dict) else None
    if type(version) is not int or version < 1:
        raise CorruptRecord(head.key, None, "its payload is not the state of a conversation")
    if version != FORMAT:
        raise UnsupportedRecord(head.key, head.end, version)
    state = _load_state(values)
    if isinstance(state, WrongField):
        raise CorruptRecord(head.key, None, f"the state in it is not valid: {state.name} is wrong or missing")
    view, engine = state.view, state.engine
    named = (view.path_position, view.cut_position, engine.setup_position)
    bounds = (view.view_start, view.cache_valid_from, view.thinking_valid_from)
    if any(position is not None and position >= head.end for position in named) or max(bounds) > head.end:
        raise CorruptRecord(head.key, None, "the state in it is not valid: a position is beyond the end")
    return state


@dataclass(frozen=True, slots=True)
class ConversationHead:
    """The head of a conversation together with its state, so that the payload is read only once.

    Attributes:
        stored: The head.
        state: The state in its payload.
    """

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
        """The version, times and payload."""
        return self.stored.revision

    @property
    def version(self) -> str:
        """The version of the state."""
        return self.stored.revision.version


@dataclass(frozen=True, slots=True)
class AppendResult(ConversationHead):
    """The head after an append, and the lines that the append stored.

    Attributes:
        lines: The lines of the entries, in order.
    """

    lines: Sequence[str] = field(repr=False)

    @property
    def head(self) -> ConversationHead:
        """The head without the lines, for callers that keep it."""
        return ConversationHead(self.stored, self.state)

    def read_entries(self) -> list[Entry]:
        """Return the stored entries as other readers will read them. They share no values with the appended entries."""
        start = self.stored.end - len(self.lines)
        return [decode(Record(position, line), self.stored.key) for position, line in enumerate(self.lines, start)]
