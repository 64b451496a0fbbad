"""Conversations with Claude: saved, resumed, trimmed and listed, on any backend.

    store = open_store("file:./history")                # or memory:, redis://, mongodb://, s3://
    chat = History(store).conversation("support/42")
    chat.append({"role": "user", "content": "Hello"})
    chat.messages()                                     # ready for `client.messages.create`

This page is the whole public surface, with `chathistory.errors`, `chathistory.trimming`, `chathistory.testing` and
`chathistory.hookspecs`; for authors of backends also `chathistory.store`, `chathistory.url`, `chathistory.cursor` and
`chathistory.lifeline`.
Importing it loads neither the Anthropic SDK nor a client library, nor pluggy: they come when they are used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from chathistory import errors
from chathistory.conversation import Conversation
from chathistory.history import ConversationInfo, History
from chathistory.log.entry import Entry
from chathistory.shelf.listing import Origin, TurnInfo
from chathistory.store import (
    Cursor,
    Damaged,
    Head,
    HistoryStore,
    Key,
    Leftovers,
    Page,
    Record,
    Slice,
    Stamp,
    Traits,
)
from chathistory.view import Repair, Report, View

if TYPE_CHECKING:
    from chathistory.aio import AsyncConversation, AsyncHistory
    from chathistory.config.load import load_settings
    from chathistory.config.opening import open_history
    from chathistory.config.settings import Settings
    from chathistory.engine.async_chat import AsyncChatEngine, AsyncReplyStream
    from chathistory.engine.chat import ChatEngine, ReplyStream
    from chathistory.engine.refusal import Refusal
    from chathistory.engine.reply import Reply
    from chathistory.hookspecs import hookimpl
    from chathistory.plugins import open_store
    from chathistory.restoring import Restoration
    from chathistory.shelf.checking import CheckReport, Diagnosis
    from chathistory.shelf.export import ExportReport
    from chathistory.shelf.retention import Deletion, Erasure, Removal, Retention
    from chathistory.shelf.transfer import Arrival, CopyReport
    from chathistory.url import Option, StoreURL
    from chathistory.usage import Tokens, TurnUsage, Usage
    from chathistory.variants import Variant

__all__ = [
    "Arrival",
    "AsyncChatEngine",
    "AsyncConversation",
    "AsyncHistory",
    "AsyncReplyStream",
    "ChatEngine",
    "CheckReport",
    "Conversation",
    "ConversationInfo",
    "CopyReport",
    "Cursor",
    "Damaged",
    "Deletion",
    "Diagnosis",
    "Entry",
    "Erasure",
    "ExportReport",
    "Head",
    "History",
    "HistoryStore",
    "Key",
    "Leftovers",
    "Option",
    "Origin",
    "Page",
    "Record",
    "Refusal",
    "Removal",
    "Repair",
    "Reply",
    "ReplyStream",
    "Report",
    "Restoration",
    "Retention",
    "Settings",
    "Slice",
    "Stamp",
    "StoreURL",
    "Tokens",
    "Traits",
    "TurnInfo",
    "TurnUsage",
    "Usage",
    "Variant",
    "View",
    "errors",
    "hookimpl",
    "load_settings",
    "open_history",
    "open_store",
]

__version__ = "0.1.0"

_LATER = {  # imported when first used: they load asyncio, pluggy and the like
    "Arrival": "chathistory.shelf.transfer",
    "AsyncChatEngine": "chathistory.engine.async_chat",
    "AsyncConversation": "chathistory.aio",
    "AsyncHistory": "chathistory.aio",
    "AsyncReplyStream": "chathistory.engine.async_chat",
    "ChatEngine": "chathistory.engine.chat",
    "CheckReport": "chathistory.shelf.checking",
    "CopyReport": "chathistory.shelf.transfer",
    "Deletion": "chathistory.shelf.retention",
    "Diagnosis": "chathistory.shelf.checking",
    "Erasure": "chathistory.shelf.retention",
    "ExportReport": "chathistory.shelf.export",
    "Option": "chathistory.url",
    "Removal": "chathistory.shelf.retention",
    "Refusal": "chathistory.engine.refusal",
    "Reply": "chathistory.engine.reply",
    "ReplyStream": "chathistory.engine.chat",
    "Restoration": "chathistory.restoring",
    "Retention": "chathistory.shelf.retention",
    "Settings": "chathistory.config.settings",
    "StoreURL": "chathistory.url",
    "Tokens": "chathistory.usage",
    "TurnUsage": "chathistory.usage",
    "Usage": "chathistory.usage",
    "Variant": "chathistory.variants",
    "hookimpl": "chathistory.hookspecs",
    "load_settings": "chathistory.config.load",
    "open_history": "chathistory.config.opening",
    "open_store": "chathistory.plugins",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    value = globals()[name] = getattr(import_module(_LATER[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
