"""Context editing: the server clears old tool results and old thinking from its own copy of the conversation.

Each edit takes the blocks and gives them back with the old ones replaced or gone, and a report of what it cleared, or
None if it was not due. The client's conversation stays whole, so that the same edit has to find the same blocks again.
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
"""What stands in the place of a tool result that was cleared; the API's own words are not documented."""
_THINKING = ("thinking", "redacted_thinking")
_DUE = 100_000
_KEPT = 3

Outcome: TypeAlias = tuple[list[PlacedBlock], "dict[str, Any] | None"]


def apply_edits(
    places: list[PlacedBlock], edits: Sequence[Mapping[str, Any]], *, total: int, keeps_all: bool
) -> tuple[list[PlacedBlock], list[dict[str, Any]]]:
    """Return the blocks after the edits, in the order in which they stand, and the reports of those that were due.

    total: the tokens of the whole prompt before them. keeps_all: whether the model keeps all thinking unless told.
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
            case _:  # a compaction is made elsewhere: it needs a summary
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
