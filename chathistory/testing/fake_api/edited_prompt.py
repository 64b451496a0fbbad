"""The prompt of a request: the server's own copy of the conversation, edited as the request asks.

The client's messages stay as they are. Only in this copy, blocks that a compaction replaced are removed, thinking of
another conversation is dropped, and old tool results and thinking are cleared (context editing). None of this counts as
a change of the conversation: thinking is checked against the original request.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from chathistory.testing.fake_api.context_editing import apply_edits
from chathistory.testing.fake_api.request import ApiRequest, PlacedBlock
from chathistory.testing.fake_api.signed_thinking import find_returned_thinking
from chathistory.testing.fake_api.token_usage import Prompt

__all__ = ["EditedPrompt", "edit_prompt"]


@dataclass(frozen=True, slots=True)
class EditedPrompt:
    """A prompt after the edits of `context_management`.

    Attributes:
        prompt: The prompt.
        original_tokens: Its tokens before the edits.
        applied_edits: Reports of the edits, or None if the request has no `context_management`.
    """

    prompt: Prompt
    original_tokens: int
    applied_edits: tuple[dict[str, Any], ...] | None

    @property
    def reply_fields(self) -> dict[str, Any]:
        """The fields of the reply that report the edits."""
        edits = self.applied_edits
        return {} if edits is None else {"context_management": {"applied_edits": list(edits)}}

    @property
    def count_answer(self) -> dict[str, Any]:
        """The body of the answer to a token count."""
        original = {"original_input_tokens": self.original_tokens}
        more = {} if self.applied_edits is None else {"context_management": original}
        return {"input_tokens": self.prompt.tokens, **more}


def edit_prompt(request: ApiRequest) -> EditedPrompt:
    """Return the prompt of a request that was not refused."""
    places = _readable_blocks(request)
    before = _build_prompt(request, places)
    if request.body.get("context_management") is None:
        return EditedPrompt(before, before.tokens, None)
    keeps_all = request.setting.models.keeps_all_thinking(request.body["model"])
    after, applied = apply_edits(places, request.edits, total=before.tokens, keeps_all=keeps_all)
    return EditedPrompt(_build_prompt(request, after), before.tokens, tuple(applied))


def _readable_blocks(request: ApiRequest) -> list[PlacedBlock]:
    """Return the blocks that count, without thinking that is dropped."""
    if request.setting.thinking is None:
        return request.live_places
    dropped = {id(each.place) for each in find_returned_thinking(request) if each.dropped}
    return [place for place in request.live_places if id(place) not in dropped]


def _build_prompt(request: ApiRequest, places: list[PlacedBlock]) -> Prompt:
    tools = [["tool", tool if isinstance(tool, dict) else {"tool": tool}] for tool in request.body.get("tools", ())]
    said = [[place.within if place.message is not None else "prompt", place.block] for place in places]
    return Prompt(str(request.body["model"]), (*tools, *said), request.body.get("cache_control"))
