"""What can happen to a conversation: one frozen dataclass for each kind of event.

    MessageAdded      a message was sent or received; with the other fields of the response
    Annotation        the title, tags or metadata were set
    Rewind            the conversation continues from an earlier position; the log keeps everything
    Snapshot          the state at this point; entries before it can be forgotten
    Setup             the model, system prompt and tools that the next messages are sent with
    Cut               messages before a position are no longer sent; a message may be sent in their place
    CompactionByAPI   a cut with a compaction block of the API as its message; thinking after it stays valid
    ThinkingPolicy    whether the API or this library drops thinking that is no longer valid
    Repair            entries that cannot be read or sent are left out of the active path
    TurnOpened        a turn was started again; its message is stored already
    LeaseRenewed      the process that owns the open turn is still working on it
    TurnAbandoned     a turn was closed without a reply
    TurnRefusedByAPI  a turn was closed because the API refused its content, which is not sent again
    ContentOmitted    stored content is left out of requests from now on
    ReplyInterrupted  the part of a reply that arrived before the connection or the caller ended it; never sent
    ReplyOrphaned     a paid reply that arrived after another writer had changed the conversation; never sent
    Forked            the entries before it were copied from another conversation; the state at that point
    RecordLost        the record at this position could not be read when the conversation was salvaged
    UnknownEvent      an event that this version cannot interpret, as it was read

`kind` is the name of the event's kind in a stored line. Each field is stored under its own name, so the names of kinds
and fields are part of the stored format. `is_optional` says whether a reader that does not know the kind may skip the
entry; an event that changes what is sent to Claude is never optional.

This module has no `from __future__ import annotations`: `stored_fields` reads the evaluated annotations.
"""

from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Final, TypeAlias

from chathistory.log.field_types import (
    KEEP,
    NO_RESPONSE,
    ActivePath,
    Bool,
    CallRefs,
    Count,
    Json,
    Keep,
    LeaseEnd,
    LeaseEndOrNone,
    Locations,
    Object,
    ObjectOrNone,
    Omissions,
    Position,
    PositionOrNone,
    Positions,
    ProcessOrNone,
    RefusalOrNone,
    StoredResponse,
    Text,
    TextMap,
    TextOrNone,
    ViewStartOrNone,
)
from chathistory.log.stored_fields import Form, is_list_of_text, is_object, is_text_or_none
from chathistory.messages.content import Message

__all__ = [
    "EVENT_CLASSES",
    "Annotation",
    "CompactionByAPI",
    "ContentOmitted",
    "Cut",
    "Event",
    "Forked",
    "KnownEvent",
    "LeaseRenewed",
    "MessageAdded",
    "RecordLost",
    "Repair",
    "ReplyInterrupted",
    "ReplyOrphaned",
    "Rewind",
    "Setup",
    "Snapshot",
    "ThinkingPolicy",
    "TurnAbandoned",
    "TurnOpened",
    "TurnRefusedByAPI",
    "UnknownEvent",
]


@dataclass(frozen=True, slots=True)
class MessageAdded:
    """A message of the conversation.

    Attributes:
        message: Role and content, as they were sent or received.
        response: For a reply, the other fields of the API's response.
        request_id: For a reply, the id of its request.
        unsent_fields: Fields next to role and content that the caller passed. They are kept, and never sent.
        received: True if the content consists of SDK objects that came from the API, but is not a complete response.
        key: The caller's idempotency key for the append that stored it.
        copy_of: The position of the message that a repair stored again; None: this is not a copy.
        sent_ids: Ids of tool calls, or of the calls that results answer, where the id that is sent differs from the
            stored one; by the index of the block.
        lease_until: The message opens a turn, or continues it, until then (microseconds since 1970 UTC); None: it does
            not open one.
        opened_by: The process that opens a turn with this message; None: the message continues an open turn.
        forgotten_container: The id of a container that the API no longer knows.
    """

    kind: ClassVar[str] = "message"
    is_optional: ClassVar[bool] = False
    message: Message = field(repr=False)
    response: StoredResponse = NO_RESPONSE
    request_id: TextOrNone = None
    unsent_fields: ObjectOrNone = field(default=None, repr=False)
    received: Bool = False
    key: TextOrNone = None
    copy_of: PositionOrNone = None
    sent_ids: TextMap = field(default_factory=dict)
    lease_until: LeaseEndOrNone = None
    opened_by: ProcessOrNone = None
    forgotten_container: TextOrNone = None

    @property
    def is_received(self) -> bool:
        """Whether the message came from the API. Parts of it that are unknown here are sent unchanged."""
        return self.received if self.response is NO_RESPONSE else self.response.is_whole


@dataclass(frozen=True, slots=True)
class Annotation:
    """New title, tags or metadata of the conversation; `KEEP` leaves a field unchanged.

    Attributes:
        title: The new title; None removes it.
        tags: All tags from now on.
        metadata: All metadata from now on, a JSON object.
    """

    kind: ClassVar[str] = "annotation"
    is_optional: ClassVar[bool] = True
    title: Annotated[str | Keep | None, Form(is_text_or_none)] = field(default=KEEP, repr=False)
    tags: Annotated[tuple[str, ...] | Keep, Form(is_list_of_text, tuple, list)] = field(default=KEEP, repr=False)
    metadata: Annotated[dict[str, Any] | Keep, Form(is_object)] = field(default=KEEP, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewind:
    """The active path becomes `path`, followed by the entries after this one.

    Attributes:
        to: The position where the path ends; None: an earlier version did not store it.
        path: Ranges of positions, oldest first.
        messages: The number of messages on the path.
        turns: How many of them open a turn.
        tokens: About how many tokens of it are sent.
        view: Where the sent part begins; None: unchanged.
        omitted: Content of the path that is not sent because of events that are no longer on the path.
    """

    kind: ClassVar[str] = "rewind"
    is_optional: ClassVar[bool] = False
    to: PositionOrNone = None
    path: ActivePath
    messages: Count
    turns: Count
    tokens: Count
    view: ViewStartOrNone = None
    omitted: Omissions = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The state at this point, written before older records are forgotten.

    Attributes:
        path: Ranges of the positions that are kept, oldest first.
        messages: The number of messages on the path.
        turns: How many of them open a turn.
        tokens: About how many tokens of it are sent.
        hidden_turns: How many turns of it are not sent.
        was_sent: Whether some of the forgotten content was still sent; thinking in the rest depends on it.
        cut_position: The position of the newest cut, if that is kept.
        state: The state before this entry, as JSON; `state.parse_state` reads it.
        renamed_calls: Tool calls that are sent under another id.
    """

    kind: ClassVar[str] = "snapshot"
    is_optional: ClassVar[bool] = False
    path: ActivePath
    messages: Count
    turns: Count
    tokens: Count
    hidden_turns: Count
    was_sent: Bool
    cut_position: PositionOrNone
    state: Object = field(repr=False)
    renamed_calls: CallRefs = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """The model, system prompt and tools that an engine sends the next messages with.

    Attributes:
        model: The model's name.
        system: The system prompt.
        tools: The tools.
        fingerprints: A short hash of each of these, by its name.
    """

    kind: ClassVar[str] = "setup"
    is_optional: ClassVar[bool] = False
    model: Json = None
    system: Json = field(default=None, repr=False)
    tools: Json = field(default=None, repr=False)
    fingerprints: TextMap


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """Messages before `view_start` are no longer sent.

    Attributes:
        message: The message that is sent in their place; None: no message.
        view_start: The position of the first message that is still sent.
        hidden_turns: How many turns precede it.
        view_since: The time of the first message that is sent (microseconds since 1970 UTC).
        tokens: About how many tokens are sent after the cut.
        preamble_tokens: About how many of these belong to the system prompt and the tools.
        trimmed_turn_ids: CRCs of the caller-supplied turn ids that are no longer sent, eight characters each; None:
            unknown.
        renamed_calls: Tool calls that are sent under another id.
    """

    kind: ClassVar[str] = "cut"
    is_optional: ClassVar[bool] = False
    message: Message | None = field(default=None, repr=False)
    view_start: Position
    hidden_turns: Count
    view_since: Position
    tokens: Count
    preamble_tokens: Count
    trimmed_turn_ids: TextOrNone = ""
    renamed_calls: CallRefs = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CompactionByAPI:
    """A cut with a message that the API made; it has the fields of `Cut` and of a reply."""

    kind: ClassVar[str] = "compaction"
    is_optional: ClassVar[bool] = False
    message: Message = field(repr=False)
    view_start: Position
    hidden_turns: Count
    view_since: Position
    tokens: Count
    preamble_tokens: Count
    trimmed_turn_ids: TextOrNone = ""
    renamed_calls: CallRefs = ()
    response: StoredResponse = NO_RESPONSE
    request_id: TextOrNone = None


@dataclass(frozen=True, slots=True)
class ThinkingPolicy:
    """Who drops stale thinking, which depends on content that is no longer sent.

    Attributes:
        drop_stale_thinking: True: the API is asked to drop it. False: the view leaves it out.
    """

    kind: ClassVar[str] = "thinking_policy"
    is_optional: ClassVar[bool] = False
    drop_stale_thinking: Bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Repair:
    """The active path becomes `path`, without the entries that cannot be read or sent.

    Attributes:
        path: Ranges of positions, oldest first.
        messages: The number of messages on the path.
        turns: How many of them open a turn.
        tokens: About how many tokens of it are sent.
        hidden_turns: How many turns of it are not sent.
        cut_position: The position of the newest cut, if that can be read.
        lost: Positions of unreadable records that were sent, or that determined what is sent.
        setup_lost: Whether the newest `Setup` is one of them.
        omitted: Content of the path that is not sent because of events that are no longer on the path.
    """

    kind: ClassVar[str] = "repair"
    is_optional: ClassVar[bool] = False
    path: ActivePath
    messages: Count
    turns: Count
    tokens: Count
    hidden_turns: Count
    cut_position: PositionOrNone
    lost: Positions
    setup_lost: Bool = False
    omitted: Omissions = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnOpened:
    """A turn was started again; its message is stored already.

    Attributes:
        lease_until: The turn counts as open until then (microseconds since 1970 UTC).
        opened_by: The process that started it; None: another step of the process that owns the turn.
        question_position: The position of the message that the turn answers, if that message has another turn's id.
        restores_refused: Whether content of this turn that the API refused is sent again.
    """

    kind: ClassVar[str] = "turn_opened"
    is_optional: ClassVar[bool] = False
    lease_until: LeaseEnd
    opened_by: ProcessOrNone = None
    question_position: PositionOrNone = None
    restores_refused: Bool = False


@dataclass(frozen=True, slots=True)
class LeaseRenewed:
    """The lease of an open turn was extended.

    Attributes:
        lease_until: The turn counts as open until then (microseconds since 1970 UTC).
        lease: The id of the entry that opened the turn.
    """

    kind: ClassVar[str] = "lease_renewed"
    is_optional: ClassVar[bool] = False
    lease_until: LeaseEnd
    lease: Text


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnAbandoned:
    """A turn was closed without a reply.

    Attributes:
        reason: The name of an error, or a text.
        lease: The id of the entry that opened the turn; None: the turn is closed whoever owns it.
        refusal: What the API refused, if that was sent before the turn or was the request as a whole.
        forgotten_container: The id of a container that the API no longer knows.
    """

    kind: ClassVar[str] = "turn_abandoned"
    is_optional: ClassVar[bool] = False
    reason: TextOrNone = None
    lease: TextOrNone = None
    refusal: RefusalOrNone = None
    forgotten_container: TextOrNone = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnRefusedByAPI:
    """A turn was closed because the API refused its content.

    Attributes:
        locations: The content that is not sent again.
        tokens: About how many tokens that took.
        problem: What is wrong with it.
        reason: The name of the error.
        refusal: What the API said.
        forgotten_container: The id of a container that the API no longer knows.
    """

    kind: ClassVar[str] = "turn_refused"
    is_optional: ClassVar[bool] = False
    locations: Locations
    tokens: Count
    problem: Text = ""
    reason: TextOrNone = None
    refusal: RefusalOrNone = None
    forgotten_container: TextOrNone = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ContentOmitted:
    """Content is left out of requests from now on.

    Attributes:
        locations: The content.
        tokens: About how many tokens that took.
        problem: What is wrong with it, in words of this library; "": a user asked to leave it out.
        invalidates_thinking: Whether thinking and the prompt cache after it depend on what was sent.
        omits_all_thinking: Whether all thinking so far is left out.
    """

    kind: ClassVar[str] = "content_omitted"
    is_optional: ClassVar[bool] = False
    locations: Locations
    tokens: Count
    problem: Text = ""
    invalidates_thinking: Bool
    omits_all_thinking: Bool


@dataclass(frozen=True, slots=True)
class ReplyInterrupted:
    """The part of a reply that arrived before it was interrupted. It closes the turn, and is never sent.

    It has the fields of `ReplyOrphaned`, except `raw`.
    """

    kind: ClassVar[str] = "reply_interrupted"
    is_optional: ClassVar[bool] = True
    message: Message = field(repr=False)
    response: StoredResponse = NO_RESPONSE
    request_id: TextOrNone = None
    reason: TextOrNone = None
    lease: TextOrNone = None
    forgotten_container: TextOrNone = None


@dataclass(frozen=True, slots=True)
class ReplyOrphaned:
    """A paid reply that is not part of the conversation: it arrived too late, or cannot be stored as a message.

    Attributes:
        message: Its role and content, to be shown to users.
        response: The other fields of the API's response.
        request_id: The id of its request.
        reason: The name of the error.
        raw: The whole reply as JSON text, if it cannot be stored as a message.
        lease: The id of the entry that opened the turn; None: the turn is closed whoever owns it.
        forgotten_container: The id of a container that the API no longer knows.
    """

    kind: ClassVar[str] = "reply_orphaned"
    is_optional: ClassVar[bool] = True
    message: Message = field(repr=False)
    response: StoredResponse = NO_RESPONSE
    request_id: TextOrNone = None
    reason: TextOrNone = None
    raw: TextOrNone = field(default=None, repr=False)
    lease: TextOrNone = None
    forgotten_container: TextOrNone = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Forked:
    """The entries before it were copied from another conversation.

    Attributes:
        origin: The scope, id and position that it was forked from.
        state: The state in which the fork begins, as JSON; `state.parse_state` reads it.
    """

    kind: ClassVar[str] = "forked"
    is_optional: ClassVar[bool] = False
    origin: Json = None
    state: Object = field(repr=False)


@dataclass(frozen=True, slots=True)
class RecordLost:
    """The record at this position could not be read.

    Attributes:
        reason: Why, in words that quote nothing of the record.
    """

    kind: ClassVar[str] = "record_lost"
    is_optional: ClassVar[bool] = False
    reason: TextOrNone = None


@dataclass(frozen=True, slots=True)
class UnknownEvent:
    """An event that this version cannot interpret: its kind is unknown, or its line has another format.

    Attributes:
        kind: As it was read; "unknown" for a line of another format.
        is_optional: Whether the line says that it may be skipped.
        data: As it was read; for a line of another format the whole line.
        message: As it was read.
    """

    kind: str
    is_optional: bool = False
    data: dict[str, Any] = field(default_factory=dict, repr=False)
    message: Any = field(default=None, repr=False)


KnownEvent: TypeAlias = (
    MessageAdded
    | Annotation
    | Rewind
    | Snapshot
    | Setup
    | Cut
    | CompactionByAPI
    | ThinkingPolicy
    | Repair
    | TurnOpened
    | LeaseRenewed
    | TurnAbandoned
    | TurnRefusedByAPI
    | ContentOmitted
    | ReplyInterrupted
    | ReplyOrphaned
    | Forked
    | RecordLost
)
Event: TypeAlias = KnownEvent | UnknownEvent
"""One of the classes above."""

EVENT_CLASSES: Final[dict[str, type[KnownEvent]]] = {each.kind: each for each in KnownEvent.__args__}
"""The classes of events by their kinds."""
