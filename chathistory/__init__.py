"""Save, resume, trim and list conversations with Claude, on any backend.

    store = open_store("file:./history")                # or memory:, redis://, mongodb://, s3://
    chat = History(store).conversation("support/42")
    chat.append({"role": "user", "content": "Hello"})
    chat.messages()                                     # pass them to `client.messages.create`

The public API is this module, `chathistory.errors`, `chathistory.types`, `chathistory.trimming`,
`chathistory.testing` and `chathistory.storage.hookspecs`. Authors of backends also use `chathistory.storage.values`,
`chathistory.storage.checks`, `chathistory.storage.abilities`, `chathistory.storage.url` and
`chathistory.storage.cursors`.

Importing this module does not import the Anthropic SDK, a client library, or pluggy: they are imported at first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from chathistory import errors
from chathistory.conversation import Conversation
from chathistory.defaults import OWN_SCOPE, UNCHANGED
from chathistory.history import ConversationInfo, History
from chathistory.log.entry import Entry
from chathistory.operations.listing import Origin, TurnInfo
from chathistory.storage.base_store import BaseStore
from chathistory.storage.store import HistoryStore
from chathistory.storage.values import (
    Cursor,
    Damaged,
    Head,
    Key,
    Leftovers,
    Page,
    ReadResult,
    Record,
    Revision,
    Traits,
)
from chathistory.storage.wrapped_store import WrappedStore
from chathistory.view import MessageView, ViewRepair, ViewReport

if TYPE_CHECKING:
    from chathistory.aio import AsyncConversation, AsyncHistory
    from chathistory.config.load import load_settings
    from chathistory.config.open import open_history
    from chathistory.config.settings import Settings
    from chathistory.engine.async_chat import AsyncChatEngine, AsyncReplyStream
    from chathistory.engine.chat import ChatEngine, ReplyStream
    from chathistory.engine.flows import CutFailedWarning
    from chathistory.engine.refusals import Refusal
    from chathistory.engine.reply import Reply, ReplyEvent
    from chathistory.engine.request import SetupChangedWarning, TextReplacedWarning
    from chathistory.operations.check_conversations import CheckReport, Diagnosis
    from chathistory.operations.remove_conversations import DeletedConversation, EraseReport, PruneReport
    from chathistory.operations.reply_variants import Variant
    from chathistory.operations.restore_head import Restoration
    from chathistory.operations.usage import Tokens, TurnUsage, Usage
    from chathistory.storage.hookspecs import hookimpl
    from chathistory.storage.plugins import open_store
    from chathistory.storage.url import Option, StoreURL
    from chathistory.transfer.copy import CopyReport, CopyResult
    from chathistory.transfer.import_export import ExportReport
    from chathistory.trimming.plan_cut import TrimResult

__all__ = [
    "OWN_SCOPE",
    "UNCHANGED",
    "AsyncChatEngine",
    "AsyncConversation",
    "AsyncHistory",
    "AsyncReplyStream",
    "BaseStore",
    "ChatEngine",
    "CheckReport",
    "Conversation",
    "ConversationInfo",
    "CopyReport",
    "CopyResult",
    "Cursor",
    "CutFailedWarning",
    "Damaged",
    "DeletedConversation",
    "Diagnosis",
    "Entry",
    "EraseReport",
    "ExportReport",
    "Head",
    "History",
    "HistoryStore",
    "Key",
    "Leftovers",
    "MessageView",
    "Option",
    "Origin",
    "Page",
    "PruneReport",
    "ReadResult",
    "Record",
    "Refusal",
    "Reply",
    "ReplyEvent",
    "ReplyStream",
    "Restoration",
    "Revision",
    "Settings",
    "SetupChangedWarning",
    "StoreURL",
    "TextReplacedWarning",
    "Tokens",
    "Traits",
    "TrimResult",
    "TurnInfo",
    "TurnUsage",
    "Usage",
    "Variant",
    "ViewRepair",
    "ViewReport",
    "WrappedStore",
    "errors",
    "hookimpl",
    "load_settings",
    "open_history",
    "open_store",
]

__version__ = "0.1.0"

_LAZY = {  # imported at first use: these load asyncio, pluggy and the like
    "ReplyEvent": "chathistory.engine.reply",
    "SetupChangedWarning": "chathistory.engine.request",
    "TextReplacedWarning": "chathistory.engine.request",
    "CutFailedWarning": "chathistory.engine.flows",
    "TrimResult": "chathistory.trimming.plan_cut",
    "AsyncChatEngine": "chathistory.engine.async_chat",
    "AsyncConversation": "chathistory.aio",
    "AsyncHistory": "chathistory.aio",
    "AsyncReplyStream": "chathistory.engine.async_chat",
    "ChatEngine": "chathistory.engine.chat",
    "CheckReport": "chathistory.operations.check_conversations",
    "CopyReport": "chathistory.transfer.copy",
    "CopyResult": "chathistory.transfer.copy",
    "DeletedConversation": "chathistory.operations.remove_conversations",
    "Diagnosis": "chathistory.operations.check_conversations",
    "EraseReport": "chathistory.operations.remove_conversations",
    "ExportReport": "chathistory.transfer.import_export",
    "Option": "chathistory.storage.url",
    "PruneReport": "chathistory.operations.remove_conversations",
    "Refusal": "chathistory.engine.refusals",
    "Reply": "chathistory.engine.reply",
    "ReplyStream": "chathistory.engine.chat",
    "Restoration": "chathistory.operations.restore_head",
    "Settings": "chathistory.config.settings",
    "StoreURL": "chathistory.storage.url",
    "Tokens": "chathistory.operations.usage",
    "TurnUsage": "chathistory.operations.usage",
    "Usage": "chathistory.operations.usage",
    "Variant": "chathistory.operations.reply_variants",
    "hookimpl": "chathistory.storage.hookspecs",
    "load_settings": "chathistory.config.load",
    "open_history": "chathistory.config.open",
    "open_store": "chathistory.storage.plugins",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_LAZY[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
