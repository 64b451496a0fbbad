"""Messages as they are handed in: a dict to send, a response of the SDK, or either as stored elsewhere.

Stored is exactly what was sent and received. What a response tells beside the message (id, usage, stop reason) is kept
beside it, never inside it: the API refuses keys that do not belong into a request.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from chathistory.errors import InvalidInput
from chathistory.log.entry import Entry
from chathistory.log.plain import plain

__all__ = ["Message", "message_entry", "text_of"]

Message: TypeAlias = dict[str, Any]
"""A message as the Messages API takes it: {"role": "user" | "assistant" | "system", "content": str | [block, ...]}."""

ROLES = ("user", "assistant", "system")


def message_entry(given: Any, *, turn: str | None = None, kind: str = "message") -> Entry:
    """Return the entry of a message: a dict, or an SDK object such as the `Message` that `create` returns.

    Raises `InvalidInput` that names the field which is not a message's or cannot be stored.
    """
    values = plain(given)
    if not isinstance(values, dict):
        msg = "a message is a dict with role and content, or an object of the SDK"
        raise InvalidInput(msg)
    data: dict[str, Any] = {}
    if values.get("type") == "message":
        values, data = _split(values)
        request = getattr(given, "_request_id", None)
        data |= {"request_id": request} if isinstance(request, str) else {}
    _check(values)
    return Entry(kind, message=values, data=data, turn=turn)


def _split(response: dict[str, Any]) -> tuple[Message, dict[str, Any]]:
    message: Message = {name: value for name, value in response.items() if name in ("role", "content")}
    beside = {name: value for name, value in response.items() if name not in ("type", "role", "content")}
    return message, {"response": beside}


def _check(message: Message) -> None:
    if message.get("role") not in ROLES:
        msg = f"message.role: one of {', '.join(ROLES)} is due"
        raise InvalidInput(msg)
    content = message.get("content")
    if isinstance(content, str):
        return
    if not isinstance(content, list):
        msg = "message.content: text or a list of content blocks is due"
        raise InvalidInput(msg)
    for index, block in enumerate(content):
        if not (isinstance(block, dict) and isinstance(block.get("type"), str)):
            msg = f"message.content[{index}]: a content block is a dict with a type"
            raise InvalidInput(msg)


def text_of(message: Message) -> str:
    """Return the text of a message: its text blocks joined; "" if it has none."""
    content = message["content"]
    if isinstance(content, str):
        return content
    return "".join(block.get("text") or "" for block in content if block["type"] == "text")
