"""One message of each kind that Claude or a caller can produce, and how each must be read back from any store.

@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_exact(kind): ...  chat.append(kind.given()); same([e.message for e in chat.entries()], [kind.stored()])
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from anthropic.types import Message, TextBlock, ThinkingBlock, ToolUseBlock

__all__ = ["KINDS", "RESPONSE", "Kind", "same", "sdk_message"]

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}}
CACHED = {"type": "text", "text": "long", "cache_control": {"type": "ephemeral", "ttl": "1h"}}


@dataclass(frozen=True)
class Kind:
    """A message as it is passed in, and as it is stored (the same, unless it is an object of the SDK)."""

    name: str
    given: Callable[[], Any]
    stored: Callable[[], dict[str, Any]]

    def __str__(self) -> str:
        return self.name


def same(found: Any, expected: Any) -> bool:
    """Return True if two JSON values are equal to the character: order of keys, -0.0, 1 and not 1.0 or true."""
    return found == expected and json.dumps(found) == json.dumps(expected)


def _user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def _assistant(*blocks: dict[str, Any]) -> dict[str, Any]:
    return {"role": "assistant", "content": list(blocks)}


def _tool(values: Any) -> dict[str, Any]:
    return _assistant({"type": "tool_use", "id": "toolu_1", "name": "calculate", "input": values})


def _text(words: str) -> dict[str, Any]:
    return _user([{"type": "text", "text": words}])


CITATION = {
    "type": "char_location",
    "cited_text": "Grass is green.",
    "document_index": 0,
    "document_title": None,
    "start_char_index": 0,
    "end_char_index": 15,
    "file_id": None,
}

RESPONSE: dict[str, Any] = {
    "id": "msg_01",
    "type": "message",
    "role": "assistant",
    "model": "claude-sonnet-5-5",
    "content": [
        {"type": "thinking", "thinking": "", "signature": "EqQB"},
        {"type": "text", "text": "Green.", "citations": [CITATION]},
        {"type": "tool_use", "id": "toolu_9", "name": "count", "input": {"z": 1, "a": {"n": 2**64 + 1}}},
        {"type": "brand_new_block", "secret": None, "nested": {"$k": [1, None]}},
    ],
    "stop_reason": "tool_use",
    "stop_sequence": None,
    "usage": {"input_tokens": 10, "output_tokens": 5, "cache_read_input_tokens": None, "service_tier": "standard"},
    "container": {"id": "container_1", "expires_at": "2026-12-01T00:00:00Z"},
    "from_the_future": {"x": None},
}


def sdk_message() -> Any:
    """Return the response as the SDK returns it."""
    return Message.construct(**copy.deepcopy(RESPONSE))


def _stored_sdk_message() -> dict[str, Any]:
    dumped = sdk_message().to_dict(mode="json", warnings=False)
    return _select_message(dumped)


def _select_message(response: dict[str, Any]) -> dict[str, Any]:
    return {
        name: copy.deepcopy(response[name]) for name in ("role", "content")
    }  # in the order that the SDK has in a request


def _sdk_blocks() -> list[Any]:
    return [
        ThinkingBlock(type="thinking", thinking="", signature="EqQ="),
        TextBlock(type="text", text="Hi", citations=None),
        ToolUseBlock(type="tool_use", id="toolu_2", name="f", input={"b": 1, "a.c": None}),
    ]


def _dict_kind(name: str, message: dict[str, Any]) -> Kind:
    return Kind(name, lambda: copy.deepcopy(message), lambda: copy.deepcopy(message))


_SEARCH = {"type": "web_search_result", "url": "https://a.example", "title": "A", "encrypted_content": "Eo=="}

_DICTS = {
    "string": _user("Hello"),
    "text block": _text("Hello"),
    "empty text": _user(""),
    "empty text block": _text(""),
    "empty content": _assistant(),
    "thinking": _assistant({"type": "thinking", "thinking": "So.\nThen", "signature": "EqQ="}, CACHED),
    "empty thinking": _assistant({"type": "thinking", "thinking": "", "signature": "EqQ="}),
    "redacted thinking": _assistant({"type": "redacted_thinking", "data": "EmwK"}),
    "nested input": _tool({"z": [{"b": [[], {}, [None, True, False]]}], "a": {"": {"deep": {"er": 1.5}}}}),
    "result with image": _user(
        [
            {
                "type": "tool_result",
                "tool_use_id": "toolu_1",
                "content": [{"type": "text", "text": "a"}, IMAGE],
                "is_error": False,
            }
        ]
    ),
    "citations": _assistant({"type": "text", "text": "Grass is green.", "citations": [CITATION]}),
    "image": _user([IMAGE, {"type": "image", "source": {"type": "url", "url": "https://a.example/b.png"}}]),
    "server tools": _assistant(
        {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "grass"}},
        {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": [_SEARCH | {"page_age": None}]},
    ),
    "unknown block": _assistant({"type": "hologram", "depth": 3, "frames": [None, {"$": 1}], "text": None}),
    "cache_control": _user([CACHED]),
    "emoji and line separators": _text("👩‍👩‍👧‍👦 \u2028\u2029\x85\r\n\t\x0b\x0c\x1c e\u0301 \ufeff \uffff \U0010ffff"),
    "NUL": _text("a\x00b\x7f\x1b"),
    "lone surrogate": _text("half \ud83d of a pair, and \udc00 😀 whole"),
    "2^53+1": _tool({"n": [2**53 + 1, -(2**53) - 1, 2**63 - 1, -(2**63)]}),
    "2^64+1": _tool({"n": [2**64 + 1, -(2**64) - 1, 10**300]}),
    "odd floats": _tool({"n": [-0.0, 5e-324, 1.7976931348623157e308, 0.1, 1.0, 1e3, 0.30000000000000004]}),
    "odd keys": _tool({"a.b": 1, "$set": {"$inc": {"x": 1}}, "": 2, "\x00": 3, "__proto__": 4, "ключ": 5, "_id": 6}),
    "system": {"role": "system", "content": "Answer in verse."},
}

KINDS: tuple[Kind, ...] = (
    *(_dict_kind(name, message) for name, message in _DICTS.items()),
    Kind(
        "SDK blocks in a dict",
        lambda: {"role": "assistant", "content": _sdk_blocks()},
        lambda: _assistant(*(block.to_dict(mode="json") for block in _sdk_blocks())),
    ),
    Kind("SDK message", sdk_message, _stored_sdk_message),
    Kind("response as a dict", lambda: copy.deepcopy(RESPONSE), lambda: _select_message(RESPONSE)),
)
