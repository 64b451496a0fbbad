"""A conversation as Markdown: for people to read, print and mail; it cannot be read back."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from chathistory.control_characters import neutralize
from chathistory.log.entry import Entry
from chathistory.messages.content import Message
from chathistory.operations.listing import ConversationInfo

__all__ = ["markdown"]

_SPEAKERS = {"user": "User", "assistant": "Claude", "system": "System"}
_MARKS = {"interrupted": ", broken off", "orphaned": ", came too late"}
_NOT_SENT = {
    "refused": "The API refused what was said above: it is not sent again.",
    "omitted": "From here on, something that was said above is not sent any longer.",
    "lost": "A record that stood here could not be read.",
}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def markdown(row: ConversationInfo, entries: Iterable[Entry]) -> Iterator[str]:
    """Yield the text of a conversation in pieces: a heading, what is known of it, and what was said.

    Thinking is left out; tool calls and their results are blocks of code.
    """
    yield f"# {_line(row.title or row.id)}\n\n"
    facts = [f"Conversation {row.id}, scope {row.scope}", f"{row.messages} messages", f"begun {row.created:%Y-%m-%d}"]
    facts += [f"tags: {', '.join(row.tags)}"] if row.tags else []
    yield f"{_line('; '.join(facts))}\n"
    for entry in entries:
        if entry.message is not None:
            yield _said(entry, entry.message)
        elif entry.kind in _NOT_SENT:
            yield f"\n*({_NOT_SENT[entry.kind]})*\n"


def _line(text: str) -> str:
    return re.sub(r"([\\`*_\[\]<>#])", r"\\\1", " ".join(_plain(text).split()))


def _said(entry: Entry, message: Message) -> str:
    time = _EPOCH + timedelta(microseconds=entry.at)
    speaker = _SPEAKERS.get(str(message["role"]), "?")
    content = message["content"]
    blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
    parts = [part for block in blocks if (part := _block(block))]
    return "\n\n".join([f"\n## {speaker}, {time:%Y-%m-%d %H:%M} UTC{_MARKS.get(entry.kind, '')}", *parts]) + "\n"


def _block(block: Mapping[str, Any]) -> str:
    kind = str(block["type"])
    if kind == "text":
        return _plain(str(block.get("text") or "")).strip()
    if kind in ("thinking", "redacted_thinking"):
        return ""
    if kind.endswith("tool_use"):
        return f"Calls **{_line(str(block.get('name')))}**:\n\n{_code(block.get('input'))}"
    if kind.endswith("tool_result"):
        return f"{'Failed' if block.get('is_error') else 'Result'}:\n\n{_code(block.get('content'))}"
    return f"*({_line(kind)})*"


def _code(value: Any) -> str:
    if isinstance(value, list) and all(isinstance(part, dict) and "text" in part for part in value):
        value = "\n".join(str(part["text"]) for part in value)
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2)
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{_plain(text)}\n{fence}"


def _plain(text: str) -> str:
    """Return the text without what a terminal would obey, or no file of text can hold."""
    return neutralize(text)
