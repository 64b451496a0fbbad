"""Builds the message that is sent for a reply: ids, stop reason, usage."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from typing import Any

from chathistory.testing.fake_api.replies import Reply
from chathistory.testing.fake_api.token_usage import count_tokens

__all__ = ["content_of", "fresh_id", "message_of"]

_CALLS = {"tool_use": "toolu", "server_tool_use": "srvtoolu", "mcp_tool_use": "mcptoolu"}
_UNSIGNED = {"thinking": {"thinking": "", "signature": ""}, "redacted_thinking": {"data": ""}}


def fresh_id(kind: str) -> str:
    """Return a unique id with the prefix `kind`, such as "msg_3f..."."""
    return f"{kind}_{uuid.uuid4().hex[:24]}"


def message_of(reply: Reply, content: list[dict[str, Any]], model: str, usage: Mapping[str, Any]) -> dict[str, Any]:
    """Return a message as a dict for JSON.

    Args:
        reply: The reply; its stop reason, usage and extra fields are used.
        content: The content blocks.
        model: The name of the model.
        usage: The input counts of the usage.

    Returns:
        The message.
    """
    said = [block for block in content if block["type"] != "compaction"]  # a summary is counted apart
    calls_tools = any(block["type"] == "tool_use" for block in content)
    counted = {**usage, "output_tokens": count_tokens(said)}
    return {
        "id": fresh_id("msg"),
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": content,
        "stop_reason": reply.stop_reason or ("tool_use" if calls_tools else "end_turn"),
        "stop_sequence": reply.stop_sequence,
        "stop_details": None,
        "usage": {**counted, **reply.usage},
        **reply.extra,
    }


def content_of(reply: Reply) -> list[dict[str, Any]]:
    """Return a copy of a reply's content as a list of blocks; tool calls without an id get one."""
    if isinstance(reply.content, str):
        return [{"type": "text", "text": reply.content}]
    blocks = []
    for block in json.loads(json.dumps(reply.content)):
        kind = _CALLS.get(block["type"])
        if kind is not None and "id" not in block:
            blocks.append({"type": block["type"], "id": fresh_id(kind), **block})
        else:
            blocks.append({**_UNSIGNED.get(block["type"], {}), **block})
    return blocks
