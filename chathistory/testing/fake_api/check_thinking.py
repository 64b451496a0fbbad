"""Checks of thinking that is sent back: changed, moved to another conversation, or missing where it is required."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from chathistory.testing.fake_api.request import ApiRequest, MergedTurn
from chathistory.testing.fake_api.signed_thinking import (
    PREFIX_MISMATCH,
    THINKING,
    ReturnedThinking,
    find_returned_thinking,
    signature_of,
)

__all__ = ["missing_in_open_turn", "moved_thinking", "tampered_thinking", "transformations"]

Found = Iterator[dict[str, Any]]
_BETA = "thinking-binding-controls-2026-08-01"
_HINT = f" That setting requires the `{_BETA}` value in the `anthropic-beta` header."


def missing_in_open_turn(request: ApiRequest) -> Found:
    """Tool results are sent without all thinking of the reply with the calls, unchanged and in order."""
    known = request.setting.thinking
    turn = _open_turn(request)
    if known is None or turn is None:
        return
    thought = [known.before_call(place.block) for place in turn.of("tool_use")]
    expected = dict.fromkeys(signature for reply in thought for signature in reply)
    there = iter([signature_of(place.block) for place in turn.of(*THINKING)])
    if not all(signature in there for signature in expected):
        yield {"path": turn.places[0].path}


def _open_turn(request: ApiRequest) -> MergedTurn | None:
    """Return the assistant's turn that the last user turn answers with tool results, or None."""
    spoken = [turn for turn in request.turns if turn.role != "system"]
    answered = len(spoken) > 1 and spoken[-1].role == "user" and spoken[-1].of("tool_result")
    return spoken[-2] if answered else None


def tampered_thinking(request: ApiRequest) -> Found:
    """A signature is not from this fake, or the text was changed."""
    for block in _returned_thinking(request):
        if block.is_tampered:
            yield {"path": block.place.path, "type": block.place.type}


def moved_thinking(request: ApiRequest) -> Found:
    """The conversation before a block has changed, and the request does not ask to drop such blocks."""
    binding = request.body.get("thinking", {}).get("block_binding")
    if isinstance(binding, dict) and binding.get("prefix_mismatch_behavior") == "drop_block":
        return
    for block in _returned_thinking(request):
        if block.dropped == PREFIX_MISMATCH:
            hint = "" if request.has_beta("thinking-binding-controls") else _HINT
            yield {"path": block.place.path, "type": block.place.type, "hint": hint}


def _returned_thinking(request: ApiRequest) -> list[ReturnedThinking]:
    return [] if request.setting.thinking is None else find_returned_thinking(request)


def transformations(request: ApiRequest) -> dict[str, Any]:
    """Return the field `input_transformations` of the reply; an empty dict without its beta header.

    Args:
        request: A request that was not refused.

    Returns:
        A dict with the field: a list of dropped thinking blocks, each with its path and reason.
    """
    if not request.has_beta("thinking-binding-controls"):
        return {}
    dropped = [block for block in _returned_thinking(request) if block.dropped]
    reported = [{"type": "thinking_dropped", "path": each.place.path, "reason": each.dropped} for each in dropped]
    return {"input_transformations": reported}
