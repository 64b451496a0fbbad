"""Events as JSON values of a line and back, with the check of what is read and of what is about to be written.

Messages of the conversation must be such that the view can read them; those for people to read may have broken off.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from chathistory.log.events import (
    EVENT_CLASSES,
    Compaction,
    Cut,
    Event,
    MessageAdded,
    ReplyInterrupted,
    ReplyOrphaned,
    UnknownEvent,
)
from chathistory.log.stored_fields import WrongField, dump_fields, find_wrong_field, is_text_or_none, load_fields

__all__ = ["dump_event", "find_wrong_part", "is_message", "load_event"]

_ROLES = frozenset({"user", "assistant", "system"})
_WITH_BLOCKS = frozenset({"tool_result", "search_result"})


def load_event(kind: str, data: dict[str, Any], message: Any, *, may_be_passed_by: bool = False) -> Event | WrongField:
    """Return the event that a line holds.

    Args:
        kind: Its name on disk.
        data: The JSON object of its fields.
        message: Its message; None: it has none.
        may_be_passed_by: What the line says for readers that do not know the kind.
    """
    cls = EVENT_CLASSES.get(kind)
    if cls is None:
        return UnknownEvent(kind, may_be_passed_by, data, message)
    is_right = _MESSAGE_CHECKS.get(kind)
    if is_right is None:
        return load_fields(cls, data)
    return load_fields(cls, data, message=message) if is_right(message) else WrongField("message")


def find_wrong_part(event: Event, data: dict[str, Any]) -> WrongField | None:
    """Return the first part of an event that `load_event` would not read from `data`; None: it reads all."""
    if isinstance(event, UnknownEvent):
        return None
    is_right = _MESSAGE_CHECKS.get(event.kind)
    if is_right and not is_right(getattr(event, "message", None)):
        return WrongField("message")
    return find_wrong_field(type(event), data)


def dump_event(event: Event) -> dict[str, Any]:
    """Return the JSON object of an event's fields, without its message."""
    return event.data if isinstance(event, UnknownEvent) else dump_fields(event)


def is_message(value: Any) -> bool:
    """Whether a JSON value is a message that the view can read."""
    if not (isinstance(value, dict) and isinstance(value.get("role"), str) and value["role"] in _ROLES):
        return False
    content = value.get("content")
    return isinstance(content, str) or _are_blocks(content)


def _are_blocks(blocks: Any) -> bool:
    return isinstance(blocks, list) and all(map(_is_block, blocks))


def _is_block(block: Any) -> bool:
    if not (isinstance(block, dict) and isinstance(block.get("type"), str)):
        return False
    kind = block["type"]
    if kind == "text" and not is_text_or_none(block.get("text")):
        return False
    if kind.endswith("tool_use") and not isinstance(block.get("id"), str):
        return False
    if kind.endswith("tool_result") and not isinstance(block.get("tool_use_id"), str):
        return False
    if kind in _WITH_BLOCKS and not is_text_or_none(block.get("content")):
        return _are_blocks(block["content"])
    return True


def _is_partial_message(value: Any) -> bool:
    """Whether a value is a message for people to read; blocks of it may have been broken off."""
    if not (isinstance(value, dict) and isinstance(value.get("role"), str)):
        return False
    content = value.get("content")
    if isinstance(content, str):
        return True
    return isinstance(content, list) and all(
        isinstance(block, dict) and isinstance(block.get("type"), str) for block in content
    )


_MESSAGE_CHECKS: dict[str, Callable[[Any], bool]] = {
    MessageAdded.kind: is_message,
    Compaction.kind: is_message,
    Cut.kind: lambda message: message is None or is_message(message),
    ReplyInterrupted.kind: _is_partial_message,
    ReplyOrphaned.kind: _is_partial_message,
}
"""What the message of an event must be, by the kind; the others have none."""
