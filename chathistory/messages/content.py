"""The types of messages, and the blocks and the text of a message."""

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
"""A message that a caller passes: a dict with role and content, or the result of the SDK's `messages.create`."""

Content: TypeAlias = "str | Sequence[Mapping[str, Any] | BaseModel]"
"""The content of a message: text, or a list of content blocks, which are dicts or objects of the SDK."""

ROLES = ("user", "assistant", "system")


def blocks_of(message: Message) -> list[dict[str, Any]]:
    """Return the content blocks of a message.

    Args:
        message: The message. If its content is text, one text block is returned.
    """
    content = message["content"]
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def text_of(message: Message) -> str:
    """Return the text of a message: its text blocks, joined without a separator; "" if it has none.

    Args:
        message: The message.
    """
    content = message["content"]
    if isinstance(content, str):
        return content
    return "".join(block.get("text") or "" for block in content if block["type"] == "text")
