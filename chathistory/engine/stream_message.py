"""How much of a streamed reply has come, and the reply put together from the events of its stream.

The SDK's own accumulation does not tell a whole block from half of one, leaves out deltas that it does not know in a
namespace, gives up on a tool's input that it cannot parse, and raises nothing for a stream that ends too early: what
was paid for is here all the same.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from chathistory.engine.reply import ReplyEvent
from chathistory.errors import IncompleteReply
from chathistory.messages.content import Message
from chathistory.messages.json_text import sdk_objects_to_dicts
from chathistory.messages.json_values import is_storable

__all__ = ["StreamProgress"]

_TEXTS = {"text_delta": "text", "thinking_delta": "thinking", "signature_delta": "signature"}
_OPTIONAL_FIELDS = ("input", "content", "encrypted_content")  # what the SDK may leave out of a block
_EVENT_FIELDS: Mapping[str, tuple[Literal["text", "thinking", "tool_input"], str]] = {
    "text_delta": ("text", "text"),
    "thinking_delta": ("thinking", "thinking"),
    "input_json_delta": ("tool_input", "partial_json"),
}
"""The type of a `ReplyEvent` for each type of delta, and the field of the delta that has the piece."""


@dataclass(slots=True)
class StreamProgress:
    """What has come of a stream of the SDK.

    Attributes:
        stream: The SDK's stream.
        started: The SDK has seen the start of the message.
        stopped: The blocks that the SDK has seen whole, by index.
        ended: The stream came to its proper end.
        message: What the start of the message had, and what later `message_delta` events changed.
        blocks: The content blocks as they came, by index; none if the SDK keeps its events elsewhere some day.
        inputs: The JSON text of the input of tools, by index.
        unknown: Deltas of types that are not known here.
    """

    stream: Any = None
    started: bool = False
    stopped: set[int] = field(default_factory=set)
    ended: bool = False
    message: dict[str, Any] = field(default_factory=dict)
    blocks: dict[int, dict[str, Any]] = field(default_factory=dict)
    inputs: dict[int, list[str]] = field(default_factory=dict)
    unknown: list[dict[str, Any]] = field(default_factory=list)

    def attach_stream(self, stream: Any) -> Any:
        """Take note of what comes of a stream that was opened just now, and return it."""
        self.stream = stream
        raw = getattr(stream, "_raw_stream", None)
        if raw is not None:
            stream._raw_stream = _ObservedEvents(raw, self)  # noqa: SLF001 - the SDK offers no other place before its own
        return stream

    def handle_event(self, event: Any) -> ReplyEvent | None:
        """Take note of an event of the SDK; return the piece of the reply that it adds, if any."""
        if event.type == "content_block_stop":
            self.stopped.add(event.index)
        self.started = self.started or event.type == "message_start"
        self.ended = self.ended or event.type == "message_stop"
        if event.type != "content_block_delta" or event.delta.type not in _EVENT_FIELDS:
            return None
        kind, name = _EVENT_FIELDS[event.delta.type]
        text = getattr(event.delta, name, "")
        tool = self.blocks.get(event.index, {}).get("name") if kind == "tool_input" else None
        return ReplyEvent(kind, text, event.index, tool) if text else None

    def collect_raw_event(self, event: Any) -> None:
        """Take in an event on its way to the SDK."""
        if event.type == "message_start":
            self.message = sdk_objects_to_dicts(event.message)
        elif event.type == "content_block_start":
            self.blocks[event.index] = sdk_objects_to_dicts(event.content_block)
        elif event.type == "content_block_delta":
            self._collect_delta(event.index, sdk_objects_to_dicts(event.delta))
        elif event.type == "message_delta":
            told = sdk_objects_to_dicts(event)
            usage = {**(self.message.get("usage") or {}), **_drop_none(told.get("usage") or {})}
            self.message |= {**_drop_none(told.get("delta") or {}), "usage": usage}
        self.ended = self.ended or event.type == "message_stop"

    def _collect_delta(self, index: int, delta: dict[str, Any]) -> None:
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

    def build_unparsed_reply(self) -> dict[str, Any]:
        """Return a reply that the SDK could not read, once its rest has come, as the API would have given it in one.

        The input of a tool that is no JSON is its text. Raises `IncompleteReply`.
        """
        if not self.ended:
            raise IncompleteReply("the SDK could not read the reply's stream, and the reply is not complete") from None
        content = [self._build_block(index) for index in sorted(self.blocks)]
        more = {"unknown_deltas": self.unknown} if self.unknown else {}
        return {**self.message, "content": content, **more}

    def _build_block(self, index: int) -> dict[str, Any]:
        text = "".join(self.inputs.get(index, ()))
        if not text.strip():
            return self.blocks[index]
        try:
            return self.blocks[index] | {"input": json.loads(text)}
        except (ValueError, RecursionError):
            return self.blocks[index] | {"input": text}

    def fill_missing_fields(self, response: Any) -> Any:
        """Return the SDK's message with what it lacks of the deltas; that message itself if it lacks nothing."""
        lacking = {
            index: {
                name: block[name] for name in _OPTIONAL_FIELDS if block.get(name) and not getattr(theirs, name, None)
            }
            for index, theirs in enumerate(response.content)
            if (block := self._build_block(index) if index in self.blocks else None)
        }
        if not any(lacking.values()) and not self.unknown:
            return response
        values = sdk_objects_to_dicts(response)
        for index, named in lacking.items():
            values["content"][index] |= named
        return values | ({"unknown_deltas": self.unknown} if self.unknown else {})

    @property
    def remaining_events(self) -> Any:
        """The events that are still to come, for when the SDK has given up: whoever iterates has them gathered."""
        return getattr(self.stream, "_raw_stream", None) or _NO_EVENTS

    def check_ended(self) -> None:
        """Raise `IncompleteReply` unless the stream came to its proper end."""
        if not self.ended:
            raise IncompleteReply("the reply's stream ended before the reply was complete")

    def partial_message(self) -> Message | None:
        """Return what is worth keeping of a reply that broke off; None: nothing.

        Blocks that were complete, and text that was not; half a tool call or half a thought says nothing.
        """
        if not self.started:
            return None
        blocks = sdk_objects_to_dicts(self.stream.current_message_snapshot)["content"]
        kept = [
            block
            for index, block in enumerate(blocks)
            if index in self.stopped or (block["type"] == "text" and (block.get("text") or "").strip())
        ]
        return {"role": "assistant", "content": [block for block in kept if is_storable(block)]} if kept else None


class _ObservedEvents:
    """The events of a stream on their way to the SDK, which does not pass on one that it gives up at."""

    def __init__(self, raw: Any, progress: StreamProgress) -> None:
        self._raw = raw
        self._progress = progress

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)

    def __iter__(self) -> Iterator[Any]:
        for event in self._raw:
            self._progress.collect_raw_event(event)
            yield event

    async def __aiter__(self) -> AsyncIterator[Any]:
        async for event in self._raw:
            self._progress.collect_raw_event(event)
            yield event


class _NoEvents:
    """A stream that is at its end, for either kind of loop."""

    def __iter__(self) -> Iterator[Any]:
        return iter(())

    async def __aiter__(self) -> AsyncIterator[Any]:
        return
        yield


_NO_EVENTS = _NoEvents()


def _drop_none(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
