"""What the API does with its own copy of a conversation: the client's stays as it is, so thinking stays valid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from chathistory.errors import InvalidInput
from chathistory.log.fold import THRESHOLD_BETA

__all__ = ["COMPACT", "ContextEditing"]

COMPACT = "compact_20260112"
"""The type of the edit that sums up at a threshold."""
_EDITING_BETA = "context-management-2025-06-27"


@dataclass(frozen=True, slots=True)
class ContextEditing:
    """What the API is asked to clear or to sum up by itself, for `ChatEngine(..., context_editing=...)`.

    clear_thinking: leave out thinking of older turns. clear_tool_uses: leave out results of older tool calls. compact:
    sum up all so far once it is over a number of input tokens (150,000 unless set; at least 50,000). Each is True, or
    the API's own settings of that edit, such as {"keep": {"type": "tool_uses", "value": 3}}; compact may be a number.
    Betas of the API: `context-management-2025-06-27`, `compact-2026-01-12`.
    """

    clear_thinking: bool | Mapping[str, Any] = False
    clear_tool_uses: bool | Mapping[str, Any] = False
    compact: bool | int | Mapping[str, Any] = False

    def __post_init__(self) -> None:
        if isinstance(self.compact, Mapping) and self.compact.get("pause_after_compaction"):
            msg = "ContextEditing: compact: no pause_after_compaction, for nobody would go on with the reply"
            raise InvalidInput(msg)

    @property
    def betas(self) -> tuple[str, ...]:
        """The headers of the betas that are used."""
        edits = [_EDITING_BETA] if self.clear_thinking or self.clear_tool_uses else []
        return (*edits, *([THRESHOLD_BETA] if self.compact else []))

    @property
    def edits(self) -> list[dict[str, Any]]:
        """The edits as the API takes them; it wants `clear_thinking` first."""
        compact = self.compact
        if isinstance(compact, int) and not isinstance(compact, bool):
            compact = {"trigger": {"type": "input_tokens", "value": compact}}
        given = {
            "clear_thinking_20251015": self.clear_thinking,
            "clear_tool_uses_20250919": self.clear_tool_uses,
            COMPACT: compact,
        }
        return [
            {"type": kind} | (dict(settings) if isinstance(settings, Mapping) else {})
            for kind, settings in given.items()
            if settings
        ]
