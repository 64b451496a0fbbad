"""What can happen to a conversation: each kind of event is a frozen dataclass with the fields that belong to it.

    MessageAdded     a message as it was sent or received, with what the response told beside it
    Annotation       title, tags or metadata were set; commutes with what others write
    Rewind           the view goes on from an earlier position; the log keeps all
    Snapshot         the state at this point, from which the fold can start again when what was before is forgotten
    Setup            model, system prompt and tools that the messages behind it are held with
    Cut              the view begins at a later position from now on; its own message, if any, stands before that
    Compaction       a cut whose message is a block of the API's that stands for all before, and keeps thinking valid
    ThinkingPolicy   what the API is to do with thinking that is bound to what is not sent any longer
    Repair           the view goes around records that can no longer be read
    TurnOpened       a turn whose message is stored already was begun again
    LeaseRenewed     the process that holds the open turn is still at it: the turn counts as open for longer
    TurnAbandoned    a turn was closed without a reply
    TurnRefused      a turn was closed because the API refused what it sent, which is not sent again
    ContentOmitted   what the API refuses, or what somebody wants to leave out, is not sent from now on
    ReplyInterrupted what had arrived of a reply that broke off: for people to read, never replayed
    ReplyOrphaned    a paid reply that arrived after somebody else had changed the conversation: never replayed
    Forked           what stands before it was copied from another conversation; the state in which this one begins
    RecordLost       a record stood here that could not be read when what was left was salvaged
    UnknownEvent     an event of a kind that this version does not know, as it was read

`kind` is the name on disk. `may_be_passed_by` says whether a reader that does not know the kind may go on without it:
what changes what is sent to Claude must be understood.

The annotations are evaluated here (there is no `from __future__ import annotations`): `stored_fields` reads them.
"""

from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Final, TypeAlias

from chathistory.log.field_types import (
    KEEP,
    NO_RESPONSE,
    Bool,
    CallMarks,
    Count,
    Json,
    Keep,
    KeyIsThere,
    LeaseEnd,
    LeaseEndOrNone,
    Object,
    ObjectOrNone,
    Omissions,
    Path,
    Places,
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
from chathistory.log.stored_fields import Form, is_list_of_text, is_object, is_text_or_none, under_key
from chathistory.messages.content import Message

__all__ = [
    "EVENT_CLASSES",
    "Annotation",
    "Compaction",
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
    "TurnRefused",
    "UnknownEvent",
]


@dataclass(frozen=True, slots=True)
class MessageAdded:
    """A message of the conversation.

    Attributes:
        message: As it was sent or received.
        response: What the API told beside a reply.
        request_id: Of a reply.
        beside: What the caller handed in beside role and content, and is not sent.
        received: Whether objects of the SDK came from the API, though they are no whole response.
        key: The caller's name for the append that stored it.
        copy_of: The position of the message that a repair stored once more; None: it is no copy.
        sent_ids: The ids under which tool calls, or those of results, are sent, by the index of the block.
        lease_until: The turn is open, or stays open, until then (microseconds since 1970 UTC); None: it opens none.
        opened_by: The process that opens the turn with it; None: it is a step of a turn that is open.
        forgotten_container: The id of the container that the API does not know any longer.
    """

    kind: ClassVar[str] = "message"
    may_be_passed_by: ClassVar[bool] = False
    message: Message = field(repr=False)
    response: StoredResponse = NO_RESPONSE
    request_id: TextOrNone = None
    beside: ObjectOrNone = field(default=None, repr=False)
    received: Bool = False
    key: TextOrNone = None
    copy_of: PositionOrNone = field(default=None, metadata=under_key("again"))
    sent_ids: TextMap = field(default_factory=dict)
    lease_until: LeaseEndOrNone = field(default=None, metadata=under_key("until"))
    opened_by: ProcessOrNone = field(default=None, metadata=under_key("by"))
    forgotten_container: TextOrNone = field(default=None, metadata=under_key("forgot_container"))

    @property
    def is_received(self) -> bool:
        """Whether it came from the API, which takes back what it gave: what is not known of it is sent as it came."""
        return self.received if self.response is NO_RESPONSE else self.response.is_whole


@dataclass(frozen=True, slots=True)
class Annotation:
    """What somebody set beside the conversation; `KEEP`: that stays as it is."""

    kind: ClassVar[str] = "annotation"
    may_be_passed_by: ClassVar[bool] = True
    title: Annotated[str | Keep | None, Form(is_text_or_none)] = field(default=KEEP, repr=False)
    tags: Annotated[tuple[str, ...] | Keep, Form(is_list_of_text, tuple, list)] = field(default=KEEP, repr=False)
    metadata: Annotated[dict[str, Any] | Keep, Form(is_object)] = field(default=KEEP, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewind:
    """The view goes through `path`, and on behind this event.

    Attributes:
        to: Where the path ends; None: an earlier version did not say.
        path: The spans of positions, oldest first.
        messages: How many messages there are on it.
        turns: How many of them open a turn.
        tokens: About how many tokens are sent of it.
        view: From where on messages are sent; None: from where on they were.
        omitted: What is not sent of it, by events that are no longer on the path.
    """

    kind: ClassVar[str] = "rewind"
    may_be_passed_by: ClassVar[bool] = False
    to: PositionOrNone = None
    path: Path
    messages: Count
    turns: Count
    tokens: Count
    view: ViewStartOrNone = None
    omitted: Omissions = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The state at this point, for records before it are going to be forgotten.

    Attributes:
        path: The spans of positions that stay, oldest first.
        messages: How many messages there are on it.
        turns: How many of them open a turn.
        tokens: About how many tokens are sent of it.
        hidden_turns: How many turns of it are not sent.
        was_sent: Whether something that goes was sent so far: thinking in the rest is bound to it.
        cut_position: The position of the newest cut, if that stays.
        state_values: The state before it, as JSON; see `state.state_in`.
        renamed: Tool calls that are sent under another id.
    """

    kind: ClassVar[str] = "snapshot"
    may_be_passed_by: ClassVar[bool] = False
    path: Path
    messages: Count
    turns: Count
    tokens: Count
    hidden_turns: Count = field(metadata=under_key("hidden"))
    was_sent: Bool = field(metadata=under_key("sent"))
    cut_position: PositionOrNone = field(metadata=under_key("cut"))
    state_values: Object = field(repr=False, metadata=under_key("summary"))
    renamed: CallMarks = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What an engine holds the conversation with from now on; fingerprints: a short hash of each part."""

    kind: ClassVar[str] = "setup"
    may_be_passed_by: ClassVar[bool] = False
    model: Json = None
    system: Json = field(default=None, repr=False)
    tools: Json = field(default=None, repr=False)
    fingerprints: TextMap


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """Messages are sent from a later position on.

    Attributes:
        message: What is sent before them; None: nothing.
        view_start: The position of the first.
        hidden_turns: How many turns stand before it.
        view_since: The time of the first message that is sent (microseconds since 1970 UTC).
        tokens: About how many tokens are sent from now on.
        preamble_tokens: About how many of these are system prompt and tools.
        trimmed_turn_ids: CRCs of the callers' turn ids that are not sent any longer, eight characters each; None: it is
            not known which those are.
        renamed: Tool calls that are sent under another id.
    """

    kind: ClassVar[str] = "cut"
    may_be_passed_by: ClassVar[bool] = False
    message: Message | None = field(default=None, repr=False)
    view_start: Position = field(metadata=under_key("from"))
    hidden_turns: Count = field(metadata=under_key("hidden"))
    view_since: Position = field(metadata=under_key("since"))
    tokens: Count
    preamble_tokens: Count = field(metadata=under_key("before"))
    trimmed_turn_ids: TextOrNone = field(default="", metadata=under_key("turns"))
    renamed: CallMarks = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Compaction:
    """A cut whose message was made by the API; the fields are those of `Cut` and of a reply."""

    kind: ClassVar[str] = "compaction"
    may_be_passed_by: ClassVar[bool] = False
    message: Message = field(repr=False)
    view_start: Position = field(metadata=under_key("from"))
    hidden_turns: Count = field(metadata=under_key("hidden"))
    view_since: Position = field(metadata=under_key("since"))
    tokens: Count
    preamble_tokens: Count = field(metadata=under_key("before"))
    trimmed_turn_ids: TextOrNone = field(default="", metadata=under_key("turns"))
    renamed: CallMarks = ()
    response: StoredResponse = NO_RESPONSE
    request_id: TextOrNone = None


@dataclass(frozen=True, slots=True)
class ThinkingPolicy:
    """Whether the API is asked to drop thinking that is bound to what is not sent any longer; else the view does."""

    kind: ClassVar[str] = "choice"
    may_be_passed_by: ClassVar[bool] = False
    drop_block: Bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Repair:
    """The view goes through `path`, around what can no longer be read or sent.

    Attributes:
        path: The spans of positions, oldest first.
        messages: How many messages there are on it.
        turns: How many of them open a turn.
        tokens: About how many tokens are sent of it.
        hidden_turns: How many turns of it are not sent.
        cut_position: The position of the newest cut, if that can be read.
        lost: Positions that were sent, or told what is sent, and can no longer be read.
        setup_lost: Whether the newest `Setup` is among what is lost.
        omitted: What is not sent of the path, by events that are no longer on it.
    """

    kind: ClassVar[str] = "mend"
    may_be_passed_by: ClassVar[bool] = False
    path: Path
    messages: Count
    turns: Count
    tokens: Count
    hidden_turns: Count = field(metadata=under_key("hidden"))
    cut_position: PositionOrNone = field(metadata=under_key("cut"))
    lost: Positions
    setup_lost: KeyIsThere = field(default=False, metadata=under_key("setup"))
    omitted: Omissions = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnOpened:
    """A turn whose message is stored already was begun again.

    Attributes:
        lease_until: It counts as open until then (microseconds since 1970 UTC).
        opened_by: The process that did so; None: another step of the one that holds it.
        question: The position of the message that it answers, if that has another turn's id; else None.
        restored: Whether what the API refused of this turn is sent again.
    """

    kind: ClassVar[str] = "opened"
    may_be_passed_by: ClassVar[bool] = False
    lease_until: LeaseEnd = field(metadata=under_key("until"))
    opened_by: ProcessOrNone = field(default=None, metadata=under_key("by"))
    question: PositionOrNone = None
    restored: Bool = False


@dataclass(frozen=True, slots=True)
class LeaseRenewed:
    """The turn that was opened by the entry with the id `lease` counts as open until then."""

    kind: ClassVar[str] = "renewed"
    may_be_passed_by: ClassVar[bool] = False
    lease_until: LeaseEnd = field(metadata=under_key("until"))
    lease: Text


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnAbandoned:
    """A turn was closed without a reply.

    Attributes:
        reason: Why: the name of an error, or words.
        lease: The id of the entry that opened the turn; None: whoever holds it.
        refusal: What the API refused, if that stood before the turn or was the request as a whole.
        forgotten_container: The id of the container that the API does not know any longer.
    """

    kind: ClassVar[str] = "abandoned"
    may_be_passed_by: ClassVar[bool] = False
    reason: TextOrNone = None
    lease: TextOrNone = None
    refusal: RefusalOrNone = None
    forgotten_container: TextOrNone = field(default=None, metadata=under_key("forgot_container"))


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnRefused:
    """A turn was closed because the API refused what it sent.

    Attributes:
        places: What is not sent again.
        tokens: About how many tokens that took.
        why: What is wrong with it.
        reason: The name of the error.
        refusal: What the API said.
        forgotten_container: The id of the container that the API does not know any longer.
    """

    kind: ClassVar[str] = "refused"
    may_be_passed_by: ClassVar[bool] = False
    places: Places
    tokens: Count
    why: Text = ""
    reason: TextOrNone = None
    refusal: RefusalOrNone = None
    forgotten_container: TextOrNone = field(default=None, metadata=under_key("forgot_container"))


@dataclass(frozen=True, slots=True, kw_only=True)
class ContentOmitted:
    """Something is not sent from now on.

    Attributes:
        places: What.
        tokens: About how many tokens that took.
        why: Why, in words of this library; "": somebody asked for it.
        invalidates_thinking: Whether thinking and the cache behind it are bound to what was sent.
        all_thinking: Whether no thinking so far is sent.
    """

    kind: ClassVar[str] = "omitted"
    may_be_passed_by: ClassVar[bool] = False
    places: Places
    tokens: Count
    why: Text = ""
    invalidates_thinking: Bool = field(metadata=under_key("unbinds"))
    all_thinking: Bool = field(metadata=under_key("thinking"))


@dataclass(frozen=True, slots=True)
class ReplyInterrupted:
    """What had come of a reply that broke off, which closed its turn; the fields are those of `ReplyOrphaned`."""

    kind: ClassVar[str] = "interrupted"
    may_be_passed_by: ClassVar[bool] = True
    message: Message = field(repr=False)
    response: StoredResponse = NO_RESPONSE
    request_id: TextOrNone = None
    reason: TextOrNone = None
    lease: TextOrNone = None
    forgotten_container: TextOrNone = field(default=None, metadata=under_key("forgot_container"))


@dataclass(frozen=True, slots=True)
class ReplyOrphaned:
    """A paid reply that is no part of the conversation: it came too late, or could not be stored as it is.

    Attributes:
        message: Its role and content, for people to read.
        response: What the API told beside it.
        request_id: Of the reply.
        reason: The name of the error.
        raw: All of it as JSON text, if it could not be stored as it is.
        lease: The id of the entry that opened its turn; None: whoever holds it.
        forgotten_container: The id of the container that the API does not know any longer.
    """

    kind: ClassVar[str] = "orphaned"
    may_be_passed_by: ClassVar[bool] = True
    message: Message = field(repr=False)
    response: StoredResponse = NO_RESPONSE
    request_id: TextOrNone = None
    reason: TextOrNone = None
    raw: TextOrNone = field(default=None, repr=False)
    lease: TextOrNone = None
    forgotten_container: TextOrNone = field(default=None, metadata=under_key("forgot_container"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Forked:
    """What stands before it was copied; state_values: the state in which this one begins (see `state.state_in`)."""

    kind: ClassVar[str] = "forked"
    may_be_passed_by: ClassVar[bool] = False
    origin: Json = field(default=None, metadata=under_key("from"))
    state_values: Object = field(repr=False, metadata=under_key("summary"))


@dataclass(frozen=True, slots=True)
class RecordLost:
    """A record stood here that could not be read; reason: why, in words that quote nothing of it."""

    kind: ClassVar[str] = "lost"
    may_be_passed_by: ClassVar[bool] = False
    reason: TextOrNone = None


@dataclass(frozen=True, slots=True)
class UnknownEvent:
    """An event of a kind, or of a line's format, that this version does not know.

    Attributes:
        kind: As it was read; "unknown" for a later format.
        may_be_passed_by: Whether the writer said so.
        data: As it was read; of a later format the whole line.
        message: As it was read.
    """

    kind: str
    may_be_passed_by: bool = False
    data: dict[str, Any] = field(default_factory=dict, repr=False)
    message: Any = field(default=None, repr=False)


KnownEvent: TypeAlias = (
    MessageAdded
    | Annotation
    | Rewind
    | Snapshot
    | Setup
    | Cut
    | Compaction
    | ThinkingPolicy
    | Repair
    | TurnOpened
    | LeaseRenewed
    | TurnAbandoned
    | TurnRefused
    | ContentOmitted
    | ReplyInterrupted
    | ReplyOrphaned
    | Forked
    | RecordLost
)
Event: TypeAlias = KnownEvent | UnknownEvent
"""What happened to a conversation: one of the classes above."""

EVENT_CLASSES: Final[dict[str, type[KnownEvent]]] = {each.kind: each for each in KnownEvent.__args__}
"""The classes of events by their names on disk."""
