"""Types in the signatures and reports of chathistory, for use in your own annotations.

    from chathistory.types import File, Outcome

The classes that a program creates or calls are in `chathistory` itself.
"""

from __future__ import annotations

from chathistory.config.source import Source
from chathistory.engine.clients import MessagesClient
from chathistory.engine.refusals import ContentLocation, RefusalKind
from chathistory.log.events import (
    Annotation,
    CompactionByAPI,
    ContentOmitted,
    Cut,
    Event,
    Forked,
    LeaseRenewed,
    MessageAdded,
    RecordLost,
    Repair,
    ReplyInterrupted,
    ReplyOrphaned,
    Rewind,
    Setup,
    Snapshot,
    ThinkingPolicy,
    TurnAbandoned,
    TurnOpened,
    TurnRefusedByAPI,
    UnknownEvent,
)
from chathistory.log.field_types import Keep, Response, ViewStart
from chathistory.log.omissions import Omission
from chathistory.log.process import Process
from chathistory.log.state import (
    Annotations,
    ClosedTurn,
    Container,
    ConversationState,
    EngineState,
    Identity,
    OpenTurn,
    Totals,
    ViewState,
)
from chathistory.messages.content import Content, Message, MessageInput
from chathistory.operations.check_conversations import CheckState
from chathistory.operations.remove_conversations import RemovalReason
from chathistory.transfer.copy import Outcome, Progress
from chathistory.transfer.open_files import File
from chathistory.trimming.policies import SummaryWriter

__all__ = [
    "Annotation",
    "Annotations",
    "CheckState",
    "ClosedTurn",
    "CompactionByAPI",
    "Container",
    "Content",
    "ContentLocation",
    "ContentOmitted",
    "ConversationState",
    "Cut",
    "EngineState",
    "Event",
    "File",
    "Forked",
    "Identity",
    "Keep",
    "LeaseRenewed",
    "Message",
    "MessageAdded",
    "MessageInput",
    "MessagesClient",
    "Omission",
    "OpenTurn",
    "Outcome",
    "Process",
    "Progress",
    "RecordLost",
    "RefusalKind",
    "RemovalReason",
    "Repair",
    "ReplyInterrupted",
    "ReplyOrphaned",
    "Response",
    "Rewind",
    "Setup",
    "Snapshot",
    "Source",
    "SummaryWriter",
    "ThinkingPolicy",
    "Totals",
    "TurnAbandoned",
    "TurnOpened",
    "TurnRefusedByAPI",
    "UnknownEvent",
    "ViewStart",
    "ViewState",
]
