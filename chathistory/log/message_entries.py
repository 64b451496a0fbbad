"""The entry of a message that a caller hands in."""

from __future__ import annotations

from typing import Any

from chathistory.log.entry import Entry
from chathistory.messages.accept import accept_message

__all__ = ["message_entry"]


def message_entry(given: Any, *, turn: str | None = None, kind: str = "message") -> Entry:
    """Return the entry of a message, which is checked as `accept_message` says."""
    accepted = accept_message(given)
    return Entry(kind, message=accepted.message, data=accepted.data, turn=turn)
