"""Context editing: the server clears old tool results and old thinking from its own copy of the conversation.

Each edit takes the blocks and returns them with old ones replaced or removed, and a report of what it cleared, or None
if its threshold was not reached. The client's conversation stays complete, so each edit runs again with each request.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any, TypeAlias

from chathistory.testing.fake_api.request import PlacedBlock
from chathistory.testing.fake_api.token_usage import count_tokens

__all__ = ["CLEARED", "apply_edits"]

CLEARED = "[Old tool result content cleared]"
"""The content of a cleared tool result; the API's own text is not documented."""
_THINKING = ("thinking", "redacted_thinking")
_DUE = 100_000
_KEPT = 3

Outcome: TypeAlias = tuple[list[PlacedBlock], "dict[str, Any] | None"]


def apply_edits(
    places: list[PlacedBlock], edits: Sequence[Mapping[str, Any]], *, total: int, keeps_all: bool
) -> tuple[list[PlacedBlock], list[dict[str, Any]]]:
    """Apply edits to a copy of the conversation, in order.

    Args:
        places: The blocks.
        edits: The edits of the request.
        total: Tokens of the whole prompt before the edits.
        keeps_all: Whether the model keeps all thinking by default.

    Returns:
        The blocks after the edits, and the reports of the edits that reached their thresholds.
    """
    applied = []
    for edit in edits:
        report = None
        match edit["type"]:
            case "clear_thinking_20251015":
                keep: Any = edit.get("keep") or ("all" if keeps_all else {"type": "thinking_turns", "value": 1})
                if keep != "all" and keep["type"] != "all":
                    places, report = _clear_thinking(places, int(keep["value"]))
            case "clear_tool_uses_20250919":
                places, report = _clear_tools(places, edit, total)
            case _:  # compactions are handled elsewhere, since they need a summary
                pass
        if report is not None:
            applied.append(report)
            total -= report["cleared_input_tokens"]
    return places, applied


def _clear_thinking(places: list[PlacedBlock], keep: int) -> Outcome:
    turns = [list(run) for _, run in groupby(places, key=lambda place: place.within)]
    thoughtful = [turn for turn in turns if any(place.type in _THINKING for place in turn)]
    old = thoughtful[: max(0, len(thoughtful) - keep)]
    gone = [place for turn in old for place in turn if place.type in _THINKING]
    if not gone:
        return places, None
    names = {id(place) for place in gone}
    report = {"type": "clear_thinking_20251015", "cleared_thinking_turns": len(old)}
    kept = [place for place in places if id(place) not in names]
    return kept, report | {"cleared_input_tokens": _count_tokens(gone)}


def _clear_tools(places: list[PlacedBlock], edit: Mapping[str, Any], total: int) -> Outcome:
    calls = {place.block["id"]: place.block for place in places if place.type == "tool_use"}
    results = [place for place in places if place.type == "tool_result"]
    trigger: Mapping[str, Any] = edit.get("trigger") or {"type": "input_tokens", "value": _DUE}
    if (len(results) if trigger["type"] == "tool_uses" else total) <= trigger["value"]:
        return places, None
    kept = (edit.get("keep") or {}).get("value", _KEPT)
    spared = set(edit.get("exclude_tools") or ())
    old = {
        place.block["tool_use_id"]
        for place in results[: max(0, len(results) - kept)]
        if calls[place.block["tool_use_id"]]["name"] not in spared
    }
    after = [_clear_block(place, old, edit.get("clear_tool_inputs")) for place in places]
    saved = _count_tokens(places) - _count_tokens(after)
    if saved < max(1, (edit.get("clear_at_least") or {}).get("value", 1)):
        return places, None
    report = {"type": "clear_tool_uses_20250919", "cleared_tool_uses": len(old)}
    return after, report | {"cleared_input_tokens": saved}


def _clear_block(place: PlacedBlock, old: set[str], inputs: object) -> PlacedBlock:
    if place.type == "tool_result" and place.block["tool_use_id"] in old:
        return replace(place, block={**place.block, "content": CLEARED})
    named = inputs is True or (isinstance(inputs, list) and place.block.get("name") in inputs)
    if place.type == "tool_use" and place.block["id"] in old and named:
        return replace(place, block={**place.block, "input": {}})
    return place


def _count_tokens(places: list[PlacedBlock]) -> int:
    return sum(count_tokens([place.within, place.block]) for place in places)
