"""Follow a streamed reply, and build the reply from the events of its stream.

The SDK's own accumulation does not distinguish a complete block from an incomplete one, leaves out deltas that a
namespace does not know, raises an error for tool input that it cannot parse, and raises none for a stream that ends too
early. This module keeps what was received, and paid for, in each of these cases.
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
_OPTIONAL_FIELDS = ("input", "content", "encrypted_content")  # fields that the SDK may leave out of a block
_EVENT_FIELDS: Mapping[str, tuple[Literal["text", "thinking", "tool_input"], str]] = {
    "text_delta": ("text", "text"),
    "thinking_delta": ("thinking", "thinking"),
    "input_json_delta": ("tool_input", "partial_json"),
}
"""For each type of delta: the type of its `ReplyEvent`, and the field of the delta with the text."""


@dataclass(slots=True)
class StreamProgress:
    """What was received of a reply so far.

    Attributes:
        stream: The SDK's stream.
        started: Whether the SDK has received the start of the message.
        stopped: The indexes of the blocks that the SDK has received completely.
        ended: Whether the stream ended with `message_stop`.
        message: The fields of `message_start`, with the changes of later `message_delta` events.
        blocks: The content blocks as they were received, by index; {} if a later SDK keeps its events elsewhere.
        inputs: The pieces of the JSON text of tool input, by the index of the block.
        unknown: Deltas of types that this module does not know.
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
        """Observe the events of a stream that was just opened.

        Args:
            stream: The SDK's stream.

        Returns:
            The same stream.
        """
        self.stream = stream
        raw = getattr(stream, "_raw_stream", None)
        if raw is not None:
            stream._raw_stream = _ObservedEvents(raw, self)  # noqa: SLF001 - there is no public way to see events before the SDK
        return stream

    def handle_event(self, event: Any) -> ReplyEvent | None:
        """Follow an event that the SDK passed on.

        Args:
            event: The event.

        Returns:
            The piece that it adds to the reply; None if it adds none.
        """
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
        """Add an event to the reply before the SDK gets it.

        Args:
            event: The event, as the stream decoded it.
        """
        if event.type == "message_start":
            self.message = sdk_objects_to_dicts(event.message)
        elif event.type == "content_block_start":
            self.blocks[event.index] = sdk_objects_to_dicts(event.content_block)
        elif event.type == "content_block_delta":
            self._collect_delta(event.index, sdk_objects_to_dicts(event.delta))
        elif event.type == "message_delta":
            values = sdk_objects_to_dicts(event)
            usage = {**(self.message.get("usage") or {}), **_drop_none(values.get("usage") or {})}
            self.message |= {**_drop_none(values.get("delta") or {}), "usage": usage}
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
        """Return a reply that the SDK could not parse, in the form of a response that is not streamed.

        Iterate over `remaining_events` first. Tool input that is not JSON is kept as text.

        Returns:
            The fields of the response, with `unknown_deltas` if there were any.

        Raises:
            IncompleteReply: The stream ended too early.
        """
        if not self.ended:
            raise IncompleteReply(
                "the reply is not complete: the SDK could not read its stream; call resume(id) to send the turn again"
            ) from None
        content = [self._build_block(index) for index in sorted(self.blocks)]
        unknown = {"unknown_deltas": self.unknown} if self.unknown else {}
        return {**self.message, "content": content, **unknown}

    def _build_block(self, index: int) -> dict[str, Any]:
        text = "".join(self.inputs.get(index, ()))
        if not text.strip():
            return self.blocks[index]
        try:
            return self.blocks[index] | {"input": json.loads(text)}
        except (ValueError, RecursionError):
            return self.blocks[index] | {"input": text}

    def fill_missing_fields(self, response: Any) -> Any:
        """Return the SDK's message with the fields that the SDK left out.

        Args:
            response: The message that the SDK built.

        Returns:
            The same object if it lacks nothing; else a dict, with `unknown_deltas` if there were any.
        """
        missing = {
            index: {
                name: block[name] for name in _OPTIONAL_FIELDS if block.get(name) and not getattr(theirs, name, None)
            }
            for index, theirs in enumerate(response.content)
            if (block := self._build_block(index) if index in self.blocks else None)
        }
        if not any(missing.values()) and not self.unknown:
            return response
        values = sdk_objects_to_dicts(response)
        for index, fields in missing.items():
            values["content"][index] |= fields
        return values | ({"unknown_deltas": self.unknown} if self.unknown else {})

    @property
    def remaining_events(self) -> Any:
        """The events that were not received yet, for when the SDK raised an error; iterate to add them to the reply."""
        return getattr(self.stream, "_raw_stream", None) or _NO_EVENTS

    def check_ended(self) -> None:
        """Check that the stream ended with `message_stop`.

        Raises:
            IncompleteReply: It ended too early.
        """
        if not self.ended:
            raise IncompleteReply(
                "the reply is not complete: its stream ended too early; call resume(id) to send the turn again"
            )

    def partial_message(self) -> Message | None:
        """Return the part of an interrupted reply that is worth saving.

        Returns:
            A message with the complete blocks and with incomplete text; incomplete tool calls and thinking are left
            out. None if nothing remains.
        """
        if not self.started:
            return None
        blocks = sdk_objects_to_dicts(self.stream.current_message_snapshot)["content"]
        saved_blocks = [
            block
            for index, block in enumerate(blocks)
            if index in self.stopped or (block["type"] == "text" and (block.get("text") or "").strip())
        ]
        if not saved_blocks:
            return None
        return {"role": "assistant", "content": [block for block in saved_blocks if is_storable(block)]}


class _ObservedEvents:
    """The events of a stream before the SDK gets them: it does not pass on an event that it cannot parse."""

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
    """A stream without events, for `for` and `async for`."""

    def __iter__(self) -> Iterator[Any]:
        return iter(())

    async def __aiter__(self) -> AsyncIterator[Any]:
        return
        yield


_NO_EVENTS = _NoEvents()


def _drop_none(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
