"""What is wrong with thinking that comes back: changed, moved into another conversation, missing where it is needed."""

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
    """Tool results are sent, and thinking of the reply that asked for them is missing, changed or in another order."""
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
    """Return the assistant's turn that the last user turn answers with tool results, None if it does not."""
    spoken = [turn for turn in request.turns if turn.role != "system"]
    answered = len(spoken) > 1 and spoken[-1].role == "user" and spoken[-1].of("tool_result")
    return spoken[-2] if answered else None


def tampered_thinking(request: ApiRequest) -> Found:
    """A signature is not one that was given out, or its text was changed."""
    for block in _returned_thinking(request):
        if block.is_tampered:
            yield {"path": block.place.path, "type": block.place.type}


def moved_thinking(request: ApiRequest) -> Found:
    """What stands before a block is not what it was thought after, and the request does not ask to drop it then."""
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
    """Return the `input_transformations` of the reply, for requests with the beta that tells of them; {} for others."""
    if not request.has_beta("thinking-binding-controls"):
        return {}
    dropped = [block for block in _returned_thinking(request) if block.dropped]
    told = [{"type": "thinking_dropped", "path": each.place.path, "reason": each.dropped} for each in dropped]
    return {"input_transformations": told}
