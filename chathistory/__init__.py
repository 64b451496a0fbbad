"""Conversations with Claude: saved, resumed, trimmed and listed, on any backend.

    store = open_store("file:./history")                # or memory:, redis://, mongodb://, s3://
    chat = History(store).conversation("support/42")
    chat.append({"role": "user", "content": "Hello"})
    chat.messages()                                     # ready for `client.messages.create`

This page is the whole public surface, with `chathistory.errors`, `chathistory.testing` and `chathistory.hookspecs`.
Importing it loads neither the Anthropic SDK nor a client library, nor pluggy: they come when they are used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from chathistory import errors
from chathistory.store import Cursor, Head, HistoryStore, Key, Page, Record, Slice, Stamp, Traits
from chathistory.url import Option, StoreURL

if TYPE_CHECKING:
    from chathistory.hookspecs import hookimpl
    from chathistory.plugins import open_store

__all__ = [
    "Cursor",
    "Head",
    "HistoryStore",
    "Key",
    "Option",
    "Page",
    "Record",
    "Slice",
    "Stamp",
    "StoreURL",
    "Traits",
    "errors",
    "hookimpl",
    "open_store",
]

__version__ = "0.1.0"

_LATER = {"hookimpl": "chathistory.hookspecs", "open_store": "chathistory.plugins"}  # these load pluggy


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(import_module(_LATER[name]), name)
