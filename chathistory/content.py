"""Messages as they are handed in: a dict to send, a response of the SDK, or either as stored elsewhere.

Stored is exactly what was sent and received. What a response tells beside the message (id, usage, stop reason) is kept
beside it, never inside it: the API refuses keys that do not belong into a request.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from chathistory.errors import InvalidInput
from chathistory.log.entry import Entry
from chathistory.log.plain import plain

__all__ = ["WITH_BLOCKS", "Message", "blocks_of", "message_entry", "text_of"]

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
    message: Message = {name: response[name] for name in ("role", "content") if name in response}  # the SDK's order
    beside = {name: value for name, value in response.items() if name not in ("type", "role", "content")}
    if not isinstance(beside.get("usage"), dict | None):
        msg = "message.usage: a dict is due"
        raise InvalidInput(msg)
    for name in ("model", "stop_reason"):
        if not isinstance(beside.get(name), str | None):
            msg = f"message.{name}: text is due"
            raise InvalidInput(msg)
    return message, {"response": beside}


def _check(message: Message) -> None:
    if message.get("role") not in ROLES:
        msg = f"message.role: one of {', '.join(ROLES)} is due"
        raise InvalidInput(msg)
    content = message.get("content")
    if not isinstance(content, str):
        _check_blocks(content, "message.content")


def _check_blocks(blocks: Any, path: str) -> None:
    """Refuse what the view could not read again; fields that it does not look at are the API's business."""
    if not isinstance(blocks, list):
        msg = f"{path}: text or a list of content blocks is due"
        raise InvalidInput(msg)
    for index, block in enumerate(blocks):
        place = f"{path}[{index}]"
        if not (isinstance(block, dict) and isinstance(block.get("type"), str)):
            msg = f"{place}: a content block is a dict with a type"
            raise InvalidInput(msg)
        for name in _NAMED.get(block["type"], ("tool_use_id",) if block["type"].endswith("_tool_result") else ()):
            if not isinstance(block.get(name), str):
                msg = f"{place}.{name}: text is due"
                raise InvalidInput(msg)
        if block["type"] in WITH_BLOCKS and not isinstance(block.get("content", ""), str | None):
            _check_blocks(block["content"], f"{place}.content")


WITH_BLOCKS = frozenset({"tool_result", "search_result"})
"""The types of blocks whose content may be content blocks that the API holds to the rules of a message's."""

_NAMED = {
    "text": ("text",),
    "tool_use": ("id",),
    "tool_result": ("tool_use_id",),
    "server_tool_use": ("id",),
    "mcp_tool_use": ("id",),
}
"""The fields of a block that have to be text, by its type."""


def blocks_of(message: Message) -> list[dict[str, Any]]:
    """Return the content blocks of a message; plain text counts as one text block."""
    content = message["content"]
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def text_of(message: Message) -> str:
    """Return the text of a message: its text blocks joined; "" if it has none."""
    content = message["content"]
    if isinstance(content, str):
        return content
    return "".join(block.get("text") or "" for block in content if block["type"] == "text")
