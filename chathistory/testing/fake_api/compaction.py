"""Compaction: the server writes a summary, and a `compaction` block takes the place of what it summarizes.

On demand (`compaction={"type": "summarize"}`) the block comes alone, with a signature. It goes *first* in later
requests, in place of exactly the messages that were sent. The signature covers the summary and a hash of what it
stands for, so that thinking in later messages stays valid.

At a threshold (`compact_20260112` in `context_management`) it comes before a reply, without a signature. It is appended
with the reply; what is before it no longer counts, whether it is sent or not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from chathistory.testing.fake_api.build_message import content_of
from chathistory.testing.fake_api.edited_prompt import EditedPrompt
from chathistory.testing.fake_api.replies import Reply
from chathistory.testing.fake_api.request import ApiRequest
from chathistory.testing.fake_api.signatures import canonical, digest, make_signature
from chathistory.testing.fake_api.signed_thinking import PrefixWalk
from chathistory.testing.fake_api.token_usage import NO_INPUT, Prompt, count_tokens

__all__ = [
    "COMPACT",
    "compaction_iteration",
    "default_summary",
    "find_due_edit",
    "make_summary_reply",
    "message_iteration",
    "pauses",
    "summary_block",
    "without_prefix",
]

COMPACT = "compact_20260112"
_TRIGGER = 150_000


def default_summary(body: dict[str, Any]) -> str:
    """Return the summary that is used without `summary=`: a text that is plainly not Claude's."""
    return f"[fake reply, no model] Summary of {len(body['messages'])} messages"


def find_due_edit(request: ApiRequest, shown: EditedPrompt) -> Mapping[str, Any] | None:
    """Return the compaction edit with a threshold that the prompt reaches, or None.

    There is no compaction while a server tool call has no result, since the result would lose its call (a guess).

    Args:
        request: The request.
        shown: Its prompt.

    Returns:
        The edit, or None.
    """
    if _has_open_server_call(request):
        return None
    for edit in request.edits:
        if edit["type"] == COMPACT and shown.prompt.tokens >= (edit.get("trigger") or {}).get("value", _TRIGGER):
            return edit
    return None


def _has_open_server_call(request: ApiRequest) -> bool:
    blocks = [place.block for turn in request.turns for place in turn.places]
    called = {block["id"] for block in blocks if block["type"] in ("server_tool_use", "mcp_tool_use")}
    return not called.issubset(block.get("tool_use_id") for block in blocks)


def pauses(edit: Mapping[str, Any]) -> bool:
    """Return True if the reply ends after the compaction, until the client's next request."""
    return bool(edit.get("pause_after_compaction"))


def summary_block(reply: Reply) -> dict[str, Any] | None:
    """Return the compaction block for the summary in a reply, or None if there is no summary."""
    for block in content_of(reply):
        if block["type"] == "compaction":
            return block
        if block["type"] == "text" and block["text"]:
            return {"type": "compaction", "content": block["text"]}
    return None


def make_summary_reply(request: ApiRequest, reply: Reply, shown: EditedPrompt) -> Reply:
    """Return the reply to a request for a summary: the signed block, or no content and a stop reason."""
    block = summary_block(reply)
    counts = {**NO_INPUT, "iterations": [compaction_iteration(shown.prompt, block)], **reply.usage}
    if block is None:
        return replace(reply, content=[], usage=counts, stop_reason=reply.stop_reason or "end_turn")
    return replace(reply, content=[_sign_summary(block, request)], usage=counts, stop_reason="compaction")


def _sign_summary(block: dict[str, Any], request: ApiRequest) -> dict[str, Any]:
    walk = PrefixWalk.through(request, request.body["model"])
    carries = request.setting.models.preserves_thinking(walk.model)
    facts = {
        "summarized": walk.prefixes if carries else (),
        "base": walk.base,
        "role": request.turns[-1].role,
        "content": digest(str(block["content"])),
        "tool_changes": digest(canonical(block.get("tool_changes"))),
    }
    return {**block, "signature": make_signature(facts)}


def without_prefix(prompt: Prompt, block: dict[str, Any]) -> Prompt:
    """Return the prompt with a block in place of all messages."""
    before = tuple(part for part in prompt.parts if part[0] in ("tool", "prompt"))
    return replace(prompt, parts=(*before, ["assistant", block]))


def compaction_iteration(prompt: Prompt, block: object) -> dict[str, Any]:
    """Return the entry of `usage.iterations` for a summary."""
    return {**NO_INPUT, "type": "compaction", "input_tokens": prompt.tokens, "output_tokens": count_tokens(block)}


def message_iteration(usage: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entry of `usage.iterations` for a reply; it has the counts of the whole usage."""
    return {"type": "message", **{name: usage[name] for name in NO_INPUT}}
