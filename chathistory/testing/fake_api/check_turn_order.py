"""Checks of the order of messages: roles, system messages, tool calls and results, and the last message.

Consecutive messages of one role are one turn, as for the API.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import pairwise, takewhile
from typing import Any

from chathistory.testing.fake_api.check_server_tools import is_server_result
from chathistory.testing.fake_api.request import ApiRequest, MergedTurn, PlacedBlock

__all__ = [
    "doubled_result",
    "doubled_tool_use",
    "first_not_user",
    "orphaned_result",
    "other_toolset",
    "prefill",
    "system_first",
    "system_misplaced",
    "trailing_whitespace",
    "unanswered_tool_use",
]

Found = Iterator[dict[str, Any]]


def first_not_user(request: ApiRequest) -> Found:
    """The first message is not the user's, which some platforms refuse; the API itself accepts it."""
    begins = request.setting.strict_first_role and not any(place.summarizes for place in request.turns[0].places[:1])
    if begins and request.body["messages"][0]["role"] != "user":
        yield {}


def system_first(request: ApiRequest) -> Found:
    """The first message is a system message."""
    if request.body["messages"][0]["role"] == "system":
        yield {}


def system_misplaced(request: ApiRequest) -> Found:
    """A system message is not after a user turn or a server tool's result, or not before an assistant turn."""
    turns = request.turns
    for number, turn in enumerate(turns):
        if turn.role != "system" or number == 0:
            continue
        before, after = turns[number - 1], turns[number + 1 : number + 2]
        is_open = before.role == "user" or (before.places and is_server_result(before.places[-1]))
        if not is_open or (after and after[0].role != "assistant"):
            yield {"path": f"messages.{turn.last}"}


def unanswered_tool_use(request: ApiRequest) -> Found:
    """A tool call has no result at the start of the next turn."""
    turns = request.turns
    for number, turn in enumerate(turns):
        if turn.role != "assistant":
            continue
        following = turns[number + 1].places if number + 1 < len(turns) else ()
        leading = takewhile(lambda place: place.type == "tool_result", following)
        answered = {place.block["tool_use_id"] for place in leading}
        missing = [place for place in turn.of("tool_use") if place.block["id"] not in answered]
        if missing:
            ids = ", ".join(place.block["id"] for place in missing)
            yield {"path": f"messages.{missing[-1].message}", "ids": ids}


def orphaned_result(request: ApiRequest) -> Found:
    """A result answers no tool call of the turn before it."""
    for calls, place in _results_with_calls(request.turns):
        if place.block["tool_use_id"] not in {call.block["id"] for call in calls}:
            yield {"path": place.path, "id": place.block["tool_use_id"]}


def _results_with_calls(turns: list[MergedTurn]) -> Iterator[tuple[list[PlacedBlock], PlacedBlock]]:
    for before, turn in pairwise([MergedTurn("none", -1, ()), *turns]):
        for place in turn.of("tool_result"):
            yield before.of("tool_use"), place


def other_toolset(request: ApiRequest) -> Found:
    """A result does not repeat the `toolset_name` of its tool call."""
    for calls, place in _results_with_calls(request.turns):
        names = {call.block["id"]: call.block.get("toolset_name") for call in calls}
        if names.get(place.block["tool_use_id"]) != place.block.get("toolset_name"):
            yield {"path": f"{place.path}.tool_result.toolset_name"}


def doubled_tool_use(request: ApiRequest) -> Found:
    """Two tool calls of the conversation have one id."""
    seen: set[str] = set()
    for place in request.outer_places:
        if place.type in {"tool_use", "server_tool_use"}:
            if place.block["id"] in seen:
                yield {"path": place.path}
            seen.add(place.block["id"])


def doubled_result(request: ApiRequest) -> Found:
    """A tool call has two results."""
    for turn in request.turns:
        counts = Counter(place.block["tool_use_id"] for place in turn.of("tool_result"))
        for place in turn.of("tool_result"):
            if counts[place.block["tool_use_id"]] > 1:
                yield {"path": place.path, "id": place.block["tool_use_id"]}


def prefill(request: ApiRequest) -> Found:
    """The conversation ends with an assistant message, and the model does not support prefill.

    A paused turn is allowed: its last block is a server tool's call or result, or a compaction. Any reply is allowed if
    a summary is requested.
    """
    last = request.turns[-1]
    end = last.places[-1] if last.places else None
    is_paused = end and (end.type in {"server_tool_use", "compaction"} or is_server_result(end))
    begun = last.role == "assistant" and not request.compacts and not is_paused
    if begun and not request.setting.models.takes_prefill(request.body["model"]):
        yield {}


def trailing_whitespace(request: ApiRequest) -> Found:
    """A prefilled reply ends with whitespace."""
    last = request.turns[-1]
    text = last.places[-1].block.get("text", "") if last.places else ""
    if last.role == "assistant" and text != text.rstrip() and not request.compacts:
        yield {}
