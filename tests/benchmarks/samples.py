"""What is written: turns of two messages, as an application and Claude exchange them."""

from __future__ import annotations

import json
import uuid
from typing import Any, TypeAlias

__all__ = ["INFO", "Message", "Turn", "fresh_name", "text_of", "turn", "turns"]

Message: TypeAlias = dict[str, Any]
Turn: TypeAlias = list[Message]

_TEXT = "The quick brown fox jumps over the lazy dog, and says what it thinks about that. "
_INPUT = {"query": "fox", "limit": 10, "tags": ["quick", "brown"]}
INFO = json.dumps(
    {"v": 2, "creation_id": "0" * 26, "created": 1_760_000_000_000_000, "messages": 20, "preview": _TEXT[:80]}
)


def turn(mark: str = "") -> Turn:
    """Return a question and its answer, about a kilobyte; `mark` begins both texts."""
    reply = [{"type": "text", "text": f"{mark}.1 {_TEXT * 4}"}, {"type": "text", "text": json.dumps(_INPUT)}]
    return [{"role": "user", "content": f"{mark}.0 {_TEXT * 4}"}, {"role": "assistant", "content": reply}]


def turns(count: int) -> list[Turn]:
    """Return turns that have `count` messages together."""
    return [turn(f"{number}") for number in range(count // 2)]


def text_of(message: Any) -> str:
    """Return the first text of a message: a dict as we and the SDK have it."""
    content = message["content"]
    return content if isinstance(content, str) else content[0]["text"]


def fresh_name() -> str:
    """Return a name that no conversation has yet."""
    return uuid.uuid4().hex
