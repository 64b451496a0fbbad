"""Checks of the tools that the server runs: their calls and results must be in one turn.

If a turn calls tools of the client and of the server, only those of the client are answered; the server's results then
begin the next turn of the assistant. A paused turn ends with a call without a result.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from chathistory.testing.fake_api.request import ApiRequest, MergedTurn, PlacedBlock

__all__ = ["is_server_result", "orphaned_server_result", "pending", "unfinished_server_use"]

Found = Iterator[dict[str, Any]]
_CALLS = ("server_tool_use", "mcp_tool_use")


def is_server_result(place: PlacedBlock) -> bool:
    """Return True if a block is the result of a server tool."""
    return str(place.type).endswith("_tool_result")


def pending(turn: MergedTurn) -> dict[str, PlacedBlock]:
    """Return the server tool calls of a turn that have no result in it, by id."""
    done = {place.block["tool_use_id"] for place in turn.places if is_server_result(place)}
    return {place.block["id"]: place for place in turn.of(*_CALLS) if place.block["id"] not in done}


def orphaned_server_result(request: ApiRequest) -> Found:
    """The result of a server tool has no call before it, in its turn or in a mixed turn before it."""
    carried: set[str] = set()
    for turn in (turn for turn in request.turns if turn.role == "assistant"):
        called = carried
        for place in turn.places:
            if place.type in _CALLS:
                called = called | {place.block["id"]}
            elif is_server_result(place) and place.block["tool_use_id"] not in called:
                yield {"path": place.path, "type": place.type, "id": place.block["tool_use_id"]}
        carried = set(pending(turn)) if turn.of("tool_use") else set()


def unfinished_server_use(request: ApiRequest) -> Found:
    """A server tool call has no result, and its turn is neither paused nor a mixed turn that is answered."""
    turns = request.turns
    for number, turn in enumerate(turns):
        following = turns[number + 1 :]
        for name, place in pending(turn).items() if turn.role == "assistant" and following else ():
            if not _goes_on(turn, following, name):
                tool = str(place.block["name"])
                result = "tool_search_tool_result" if tool.startswith("tool_search_tool") else f"{tool}_tool_result"
                yield {"path": place.path, "tool": tool, "id": name, "result": result}


def _goes_on(turn: MergedTurn, following: list[MergedTurn], name: str) -> bool:
    only_results = all(place.type == "tool_result" for place in following[0].places)
    later = next((after for after in following if after.role == "assistant"), None)
    finished = later is None or any(place.block.get("tool_use_id") == name for place in later.places)
    return bool(turn.of("tool_use")) and only_results and finished
