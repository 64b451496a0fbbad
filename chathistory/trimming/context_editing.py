"""Context editing: the API shortens its own copy of a conversation; the stored one stays, so thinking stays valid."""

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
    """The edits that the API makes in its own copy of a conversation, for `ChatEngine(..., context_editing=...)`.

    Each one is True, or a dict with the API's settings of that edit, such as
    {"keep": {"type": "tool_uses", "value": 3}}. They need betas of the API: `compact-2026-01-12` for `compact`, and
    `context-management-2025-06-27` for the others.

    Attributes:
        clear_thinking: Leave out the thinking of older turns.
        clear_tool_uses: Leave out the results of older tool calls.
        compact: Summarize the conversation above a number of input tokens: the given number (at least 50,000), or
            150,000 if True.

    Raises:
        InvalidInput: `compact` sets `pause_after_compaction`.
    """

    clear_thinking: bool | Mapping[str, Any] = False
    clear_tool_uses: bool | Mapping[str, Any] = False
    compact: bool | int | Mapping[str, Any] = False

    def __post_init__(self) -> None:
        if isinstance(self.compact, Mapping) and self.compact.get("pause_after_compaction"):
            raise InvalidInput(
                "ContextEditing: compact: must not set pause_after_compaction, because the engine does not continue "
                "a reply that pauses for it"
            )

    @property
    def edits(self) -> list[dict[str, Any]]:
        """The edits in the form of a request; the API requires `clear_thinking` to be the first."""
        compact = self.compact
        if isinstance(compact, int) and not isinstance(compact, bool):
            compact = {"trigger": {"type": "input_tokens", "value": compact}}
        settings_by_type = {
            "clear_thinking_20251015": self.clear_thinking,
            "clear_tool_uses_20250919": self.clear_tool_uses,
            _COMPACT: compact,
        }
        return [
            {"type": kind} | (dict(settings) if isinstance(settings, Mapping) else {})
            for kind, settings in settings_by_type.items()
            if settings
        ]


@dataclass(frozen=True, slots=True)
class CompactionBlocks:
    """The kinds of compaction blocks among the messages of a request; the request must name them to the API.

    Attributes:
        has_signed: Whether there is a signed block, which was made on demand.
        has_unsigned: Whether there is an unsigned block, which was made at a threshold, or failed.
    """

    has_signed: bool
    has_unsigned: bool

    @classmethod
    def from_messages(cls, messages: Iterable[Message]) -> CompactionBlocks:
        """Find the compaction blocks of a request.

        Args:
            messages: The messages of the request.
        """
        replies = (each["content"] for each in messages if each["role"] == "assistant")
        blocks = [block for content in replies if isinstance(content, list) for block in content]
        is_signed = {bool(block.get("signature")) for block in blocks if block["type"] == "compaction"}
        return cls(True in is_signed, False in is_signed)

    def select_edits(self, editing: ContextEditing | None) -> list[dict[str, Any]]:
        """Return the edits of a request with these messages.

        With an unsigned compaction, the request must have the edit that makes one; with a signed one, it must not.

        Args:
            editing: The edits that the engine is configured with; None for no edits.
        """
        edits = editing.edits if editing else []
        if self.has_signed:
            return [edit for edit in edits if edit["type"] != _COMPACT]
        if self.has_unsigned and not any(edit["type"] == _COMPACT for edit in edits):
            return [*edits, {"type": _COMPACT}]
        return edits

    def select_betas(self, edits: Iterable[Mapping[str, Any]]) -> list[str]:
        """Return the betas that a request with these messages needs.

        Args:
            edits: The edits of the request.
        """
        needed = [_THRESHOLD_BETA if edit["type"] == _COMPACT else _EDITING_BETA for edit in edits]
        return [*dict.fromkeys(needed), *([ON_DEMAND_BETA] if self.has_signed else [])]
