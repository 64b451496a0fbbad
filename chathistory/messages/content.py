"""The content of messages: the type of a message, its blocks and its text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from anthropic.types import Message as SDKMessage
    from anthropic.types.beta import BetaMessage
    from pydantic import BaseModel

__all__ = ["ROLES", "Content", "Message", "MessageInput", "blocks_of", "text_of"]

Message: TypeAlias = dict[str, Any]
"""A message as the Messages API takes it: {"role": "user" | "assistant" | "system", "content": str | [block, ...]}."""

MessageInput: TypeAlias = "Mapping[str, Any] | SDKMessage | BetaMessage"
"""A message as callers have it: a dict with role and content, or what `messages.create` of the SDK returned."""

Content: TypeAlias = "str | Sequence[Mapping[str, Any] | BaseModel]"
"""What is said: text, or content blocks as dicts or objects of the SDK."""

ROLES = ("user", "assistant", "system")


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
