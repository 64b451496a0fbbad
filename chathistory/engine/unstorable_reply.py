"""A paid reply that cannot be stored as it is: given to the caller, and kept beside the conversation as JSON text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chathistory.engine.reply import Reply
from chathistory.errors import InvalidInput
from chathistory.log.entry import Entry
from chathistory.log.events import ReplyOrphaned
from chathistory.log.field_types import Response
from chathistory.messages.json_text import json_text, unpacked
from chathistory.messages.json_values import plain

__all__ = ["entry_of_text", "refusal_of", "reply_as_it_came", "stop_reason_of"]


def stop_reason_of(response: Any) -> str | None:
    """Return why a response says that it ended; None: it does not say, so it is not complete, or is no response."""
    told = response.get("stop_reason") if isinstance(response, Mapping) else getattr(response, "stop_reason", None)
    return told if isinstance(told, str) else None


def refusal_of(error: Exception) -> InvalidInput:
    """Return the error as one of ours: what the SDK and the interpreter raise at great depth names no field."""
    if isinstance(error, InvalidInput):
        return error
    msg = f"message.content: cannot be stored as it is ({type(error).__name__}); it may be nested too deep"
    return InvalidInput(msg)


def reply_as_it_came(response: Any, turn: str) -> Reply:
    """Return a response as a reply that is not stored (position -1), whatever is in it."""
    values = _values(response)
    beside = {name: value for name, value in values.items() if name not in ("type", "role", "content")}
    message = {"role": values.get("role", "assistant"), "content": values.get("content", [])}
    return Reply(message, beside, turn, -1)


def entry_of_text(response: Any, turn: str, error: Exception) -> Entry[ReplyOrphaned]:
    """Return an entry that keeps a response: its words for people, and all of it as JSON text in `raw`."""
    values = _values(response)
    content = values.get("content")
    blocks = content if isinstance(content, list) else []
    words = [block for block in blocks if isinstance(block, dict) and isinstance(block.get("text"), str)]
    message = {"role": "assistant", "content": [{"type": "text", "text": block["text"]} for block in words]}
    told = {name: kept for name in _TOLD if (kept := _storable(values.get(name))) is not None}
    event = ReplyOrphaned(message, Response(told), reason=type(error).__name__, raw=json_text(values))
    return Entry(event, turn)


_TOLD = ("id", "model", "stop_reason", "usage")


def _values(response: Any) -> dict[str, Any]:
    values = unpacked(response)
    return values if isinstance(values, dict) else {"content": values}


def _storable(value: Any) -> Any:
    """Return a value if it can be stored as it is, else None."""
    try:
        return plain(value)
    except InvalidInput:
        return None
