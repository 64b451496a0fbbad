"""The entry of a message that a caller hands in."""

from __future__ import annotations

from typing import Any

from chathistory.log.entry import Entry
from chathistory.log.events import MessageAdded
from chathistory.log.field_types import NO_RESPONSE, Response
from chathistory.messages.accept import accept_message

__all__ = ["message_entry"]


def message_entry(given: Any, *, turn: str | None = None, key: str | None = None) -> Entry[MessageAdded]:
    """Return the entry of a message, which is checked as `accept_message` says.

    Args:
        given: The message.
        turn: The turn that it belongs to.
        key: The caller's name for the append that stores it.
    """
    accepted = accept_message(given)
    event = MessageAdded(
        accepted.message,
        response=NO_RESPONSE if accepted.response is None else Response(accepted.response),
        request_id=accepted.request_id,
        beside=accepted.beside,
        received=accepted.received,
        key=key,
    )
    return Entry(event, turn)
