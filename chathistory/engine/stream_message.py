"""A message put together from the events of its stream, beside what the SDK makes of them.

The SDK leaves out deltas that it does not know in a namespace, and gives up on a tool's input that it cannot parse:
what was paid for is here all the same.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

from chathistory.messages.json_text import unpacked

__all__ = ["Accumulation", "observe"]

_TEXTS = {"text_delta": "text", "thinking_delta": "thinking", "signature_delta": "signature"}


@dataclass(slots=True)
class Accumulation:
    """What the events of a stream have told so far.

    message: of the start, and what the later `message_delta` events changed. blocks: by index. inputs: the JSON text of
    the input of tools, by index. unknown: deltas of types that are not known here.
    """

    message: dict[str, Any] = field(default_factory=dict)
    blocks: dict[int, dict[str, Any]] = field(default_factory=dict)
    inputs: dict[int, list[str]] = field(default_factory=dict)
    unknown: list[dict[str, Any]] = field(default_factory=list)
    is_ended: bool = False

    def see(self, event: Any) -> None:
        """Take in an event; those that the SDK adds of its own are passed over."""
        if event.type == "message_start":
            self.message = unpacked(event.message)
        elif event.type == "content_block_start":
            self.blocks[event.index] = unpacked(event.content_block)
        elif event.type == "content_block_delta":
            self._see_delta(event.index, unpacked(event.delta))
        elif event.type == "message_delta":
            told = unpacked(event)
            usage = {**(self.message.get("usage") or {}), **_set(told.get("usage") or {})}
            self.message |= {**_set(told.get("delta") or {}), "usage": usage}
        self.is_ended = self.is_ended or event.type == "message_stop"

    def _see_delta(self, index: int, delta: dict[str, Any]) -> None:
        kind, block = delta.get("type"), self.blocks.setdefault(index, {})
        if kind == "input_json_delta":
            self.inputs.setdefault(index, []).append(delta.get("partial_json") or "")
        elif kind in _TEXTS:
            name = _TEXTS[kind]
            block[name] = (block.get(name) or "") + (delta.get(name) or "")
        elif kind == "citations_delta":
            block["citations"] = [*(block.get("citations") or ()), delta.get("citation")]
        elif kind == "compaction_delta":
            block |= {name: value for name, value in delta.items() if name != "type"}
        else:
            self.unknown.append({"index": index, "delta": delta})

    def whole(self) -> dict[str, Any]:
        """Return the message as the API would have given it in one; the input of a tool that is no JSON is its text."""
        content = [self._block(index) for index in sorted(self.blocks)]
        more = {"unknown_deltas": self.unknown} if self.unknown else {}
        return {**self.message, "content": content, **more}

    def _block(self, index: int) -> dict[str, Any]:
        text = "".join(self.inputs.get(index, ()))
        return self.blocks[index] | ({"input": _read(text)} if text.strip() else {})

    def completed(self, response: Any) -> Any:
        """Return the SDK's message with what it lacks of the deltas; that message itself if it lacks nothing."""
        lacking = {
            index: {name: block[name] for name in _LACKED if block.get(name) and not getattr(theirs, name, None)}
            for index, theirs in enumerate(response.content)
            if (block := self._block(index) if index in self.blocks else None)
        }
        if not any(lacking.values()) and not self.unknown:
            return response
        values = unpacked(response)
        for index, named in lacking.items():
            values["content"][index] |= named
        return values | ({"unknown_deltas": self.unknown} if self.unknown else {})


_LACKED = ("input", "content", "encrypted_content")


class Observed:
    """The events of a stream on their way to the SDK, which does not pass on one that it gives up at."""

    def __init__(self, raw: Any, seen: Accumulation) -> None:
        self._raw = raw
        self._seen = seen

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)

    def __iter__(self) -> Iterator[Any]:
        for event in self._raw:
            self._seen.see(event)
            yield event

    async def __aiter__(self) -> AsyncIterator[Any]:
        async for event in self._raw:
            self._seen.see(event)
            yield event


def observe(stream: Any) -> Accumulation:
    """Return what gathers the events of a stream of the SDK as they come.

    Raises nothing if the SDK keeps them elsewhere than it does today: then it gathers none, and is of no use.
    """
    seen = Accumulation()
    raw = getattr(stream, "_raw_stream", None)
    if raw is not None:
        stream._raw_stream = Observed(raw, seen)  # noqa: SLF001 - the SDK offers no other place before its own
    return seen


def _set(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _read(text: str) -> Any:
    """Return the value of JSON text; the text itself if Python cannot read it."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
