"""The content of messages: the type of a message, its blocks, its text, and whether the API made it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

__all__ = ["ROLES", "Message", "blocks_of", "is_received", "text_of"]

Message: TypeAlias = dict[str, Any]
"""A message as the Messages API takes it: {"role": "user" | "assistant" | "system", "content": str | [block, ...]}."""

ROLES = ("user", "assistant", "system")


def is_received(data: Mapping[str, Any]) -> bool:
    """Whether a message came from the API, by what is stored beside it: it has all that a response has.

    The API takes back what it gave, so what this version does not know of it is sent as it came.
    """
    response = data.get("response")
    if not isinstance(response, dict):
        return data.get("received") is True
    whole = isinstance(response.get("id"), str) and isinstance(response.get("model"), str)
    return whole and isinstance(response.get("usage"), dict)


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
