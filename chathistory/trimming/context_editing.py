"""What the API does with its own copy of a conversation: the client's stays as it is, so thinking stays valid."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from chathistory.errors import InvalidInput
from chathistory.messages.content import Message

__all__ = ["BINDING_BETA", "ON_DEMAND_BETA", "CompactionBlocks", "ContextEditing"]

BINDING_BETA = "thinking-binding-controls-2026-08-01"
ON_DEMAND_BETA = "compact-2026-09-04"
_THRESHOLD_BETA = "compact-2026-01-12"
_EDITING_BETA = "context-management-2025-06-27"
_COMPACT = "compact_20260112"


@dataclass(frozen=True, slots=True)
class ContextEditing:
    """What the API is asked to clear or to sum up by itself, for `ChatEngine(..., context_editing=...)`.

    Each is True, or the API's own settings of that edit, such as {"keep": {"type": "tool_uses", "value": 3}}. Betas of
    the API: `context-management-2025-06-27`, `compact-2026-01-12`.

    Attributes:
        clear_thinking: Leave out thinking of older turns.
        clear_tool_uses: Leave out results of older tool calls.
        compact: Sum up all so far once it is over a number of input tokens: this one, or 150,000; at least 50,000.
    """

    clear_thinking: bool | Mapping[str, Any] = False
    clear_tool_uses: bool | Mapping[str, Any] = False
    compact: bool | int | Mapping[str, Any] = False

    def __post_init__(self) -> None:
        if isinstance(self.compact, Mapping) and self.compact.get("pause_after_compaction"):
            raise InvalidInput(
                "ContextEditing: compact: must not set pause_after_compaction: nobody would continue the reply"
            )

    @property
    def edits(self) -> list[dict[str, Any]]:
        """The edits as the API takes them; it wants `clear_thinking` first."""
        compact = self.compact
        if isinstance(compact, int) and not isinstance(compact, bool):
            compact = {"trigger": {"type": "input_tokens", "value": compact}}
        given = {
            "clear_thinking_20251015": self.clear_thinking,
            "clear_tool_uses_20250919": self.clear_tool_uses,
            _COMPACT: compact,
        }
        return [
            {"type": kind} | (dict(settings) if isinstance(settings, Mapping) else {})
            for kind, settings in given.items()
            if settings
        ]


@dataclass(frozen=True, slots=True)
class CompactionBlocks:
    """Which compactions are among the messages of a request, for the API wants to be told what it is given back.

    Attributes:
        signed: One that was made on demand.
        plain: One that was made at a threshold, or failed.
    """

    has_signed: bool
    has_unsigned: bool

    @classmethod
    def from_messages(cls, messages: Iterable[Message]) -> CompactionBlocks:
        """Look through the replies among the messages."""
        replies = (each["content"] for each in messages if each["role"] == "assistant")
        blocks = [block for content in replies if isinstance(content, list) for block in content]
        marks = {bool(block.get("signature")) for block in blocks if block["type"] == "compaction"}
        return cls(True in marks, False in marks)

    def select_edits(self, editing: ContextEditing | None) -> list[dict[str, Any]]:
        """Return the edits of a request with these messages.

        A compaction made at a threshold wants that edit with it; one that is signed is not to be compacted by it.
        """
        edits = editing.edits if editing else []
        if self.has_signed:
            return [edit for edit in edits if edit["type"] != _COMPACT]
        if self.has_unsigned and not any(edit["type"] == _COMPACT for edit in edits):
            return [*edits, {"type": _COMPACT}]
        return edits

    def select_betas(self, edits: Iterable[Mapping[str, Any]]) -> list[str]:
        """Return the headers of the betas that a request with these messages and edits makes use of."""
        wanted = [_THRESHOLD_BETA if edit["type"] == _COMPACT else _EDITING_BETA for edit in edits]
        return [*dict.fromkeys(wanted), *([ON_DEMAND_BETA] if self.has_signed else [])]
