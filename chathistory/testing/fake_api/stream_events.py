"""From a message to the events of its stream, in the order of the API.

    message_start, ping, (content_block_start, content_block_delta*, content_block_stop)*, message_delta, message_stop

Text, thinking and the input of tools come in several deltas, a summary without signature in one. Every other block is
complete in its `content_block_start`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

__all__ = ["encode_event", "error_event", "events_of"]

Event = dict[str, Any]
_WORD = re.compile(r"\S+\s*|\s+")
_PIECE = 24
_LATER = ("stop_reason", "stop_sequence", "stop_details", "container")
_OF_DELTA = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens", "output_tokens",
             "output_tokens_details", "server_tool_use", "iterations")  # fmt: skip
_EDITS = "context_management"


def events_of(message: dict[str, Any]) -> Iterator[Event]:
    """Yield the stream events of a message."""
    start = {**message, "content": [], "usage": {**message["usage"], "output_tokens": 1}}
    start |= {name: None for name in (*_LATER, _EDITS) if name in message}
    yield {"type": "message_start", "message": start}
    yield {"type": "ping"}
    for index, block in enumerate(message["content"]):
        begun, deltas = _split_block(block)
        yield {"type": "content_block_start", "index": index, "content_block": begun}
        for each in deltas:
            yield {"type": "content_block_delta", "index": index, "delta": each}
        yield {"type": "content_block_stop", "index": index}
    delta = {name: message[name] for name in _LATER if name in message}
    usage = {name: message["usage"][name] for name in _OF_DELTA if name in message["usage"]}
    edits = {_EDITS: message[_EDITS]} if _EDITS in message else {}
    yield {"type": "message_delta", "delta": delta, "usage": usage, **edits}
    yield {"type": "message_stop"}


def _split_block(block: dict[str, Any]) -> tuple[dict[str, Any], list[Event]]:
    match block:
        case {"type": "text", "text": str(text)}:
            return _split_text(block, text)
        case {"type": "thinking", "thinking": str(text), "signature": str(signature)}:
            said = [{"type": "thinking_delta", "thinking": piece} for piece in _WORD.findall(text)]
            signed = [{"type": "signature_delta", "signature": signature}]
            return {**block, "thinking": "", "signature": ""}, said + signed
        case {"type": "tool_use" | "server_tool_use" | "mcp_tool_use", "input": dict(given)}:
            text = json.dumps(given, ensure_ascii=False) if given else ""
            parts = ["", *(text[start : start + _PIECE] for start in range(0, len(text), _PIECE))]
            return {**block, "input": {}}, [{"type": "input_json_delta", "partial_json": part} for part in parts]
        case {"type": "compaction"} if not block.get("signature"):
            later: Event = {name: block[name] for name in ("content", "encrypted_content") if name in block}
            return {**block, **dict.fromkeys(later)}, [{"type": "compaction_delta", **later}]
    return block, []


def _split_text(block: dict[str, Any], text: str) -> tuple[dict[str, Any], list[Event]]:
    start = {**block, "text": ""}
    deltas: list[Event] = [{"type": "text_delta", "text": piece} for piece in _WORD.findall(text)]
    if block.get("citations"):
        start["citations"] = []
        deltas = [{"type": "citations_delta", "citation": each} for each in block["citations"]] + deltas
    return start, deltas


def error_event(type_: str, message: str) -> Event:
    """Return the event for an error within a stream."""
    return {"type": "error", "error": {"type": type_, "message": message}}


def encode_event(event: Event) -> bytes:
    """Return an event as the bytes of a server-sent event."""
    return f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()
