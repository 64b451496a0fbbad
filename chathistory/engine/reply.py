"""What a turn gives back."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self, TypeVar

from chathistory.checks import check_type
from chathistory.errors import InvalidInput
from chathistory.log.entry import Entry, to_json
from chathistory.log.events import MessageAdded, ReplyOrphaned
from chathistory.log.field_types import Response
from chathistory.messages.content import Message, blocks_of, text_of
from chathistory.messages.json_text import sdk_objects_to_dicts, to_json_text
from chathistory.messages.json_values import to_plain_json

__all__ = [
    "Reply",
    "ReplyEvent",
    "events_of",
    "require_entered",
    "stop_reason_of",
    "text_blocks",
    "to_invalid_input",
    "unstorable_entry",
    "unstored_reply",
]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ReplyEvent:
    """A piece of a reply that is streamed.

    Attributes:
        type: "text", "thinking", or "tool_input", which is a piece of the JSON of a tool's input.
        text: The piece.
        index: The content block that it is a part of.
        tool: The name of the tool, for its input; else None.
    """

    type: Literal["text", "thinking", "tool_input"]
    text: str = field(repr=False)
    index: int
    tool: str | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """Claude's reply to a turn. `str(reply)` is its text.

    Attributes:
        message: Role and content, as they will be sent again.
        response: What came beside them (id, model, stop_reason, usage, ...; keys as in the API).
        turn: The id of its turn.
        position: Where it is stored in the conversation; -1: it is not.
        version: The version of the conversation with this reply as its newest message: see `Conversation.version`.
    """

    message: Message = field(repr=False)
    response: Mapping[str, Any] = field(repr=False)
    turn: str
    position: int
    version: str = ""

    @classmethod
    def of(cls, entry: Entry[MessageAdded]) -> Self:
        """Internal: return the reply in a stored entry."""
        event = entry.event
        return cls(event.message, event.response.values, entry.turn or entry.id, entry.position, entry.id)

    def __str__(self) -> str:
        return self.text

    @property
    def content(self) -> list[dict[str, Any]]:
        """The content blocks."""
        return blocks_of(self.message)

    @property
    def id(self) -> str | None:
        """The id that the API gave it; None: the response had none."""
        return self.response.get("id")

    @property
    def model(self) -> str | None:
        """The model that replied; None: the response named none."""
        return self.response.get("model")

    @property
    def text(self) -> str:
        """The text blocks, joined; "" if Claude said nothing in words."""
        return text_of(self.message)

    @property
    def usage(self) -> Mapping[str, Any]:
        """Token counts, by the API's names; {} if the response had none."""
        return self.response.get("usage") or {}

    @property
    def stop_reason(self) -> str | None:
        """Why Claude stopped: "end_turn", "tool_use", "max_tokens", "refusal", ..."""
        return self.response.get("stop_reason")

    @property
    def tool_calls(self) -> list[dict[str, Any]]:
        """The tool_use blocks; the next message must have a tool_result for each: see `ChatEngine.submit`.

        A call that stands last in a reply which was cut (`max_tokens`, a full context window) may be half of one, and
        is left out: it must not be run. What has no result is answered with an error when the conversation goes on.
        """
        content = self.message["content"]
        whole = content[:-1] if self.stop_reason in ("max_tokens", "model_context_window_exceeded") else content
        return [block for block in whole if isinstance(block, dict) and block["type"] == "tool_use"]

    def results(self, results: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return the blocks that answer its tool calls, in their order.

        results: by the id of each call, text or content blocks; an exception stands for a tool that failed, and Claude
        is told its words. A call without a result is answered with an error when it is sent. Raises `InvalidInput` for
        an id that is none of its calls.
        """
        check_type("results", results, Mapping, "a dict from the ids of tool calls to their results")
        calls = {call["id"]: call for call in self.tool_calls}
        for name in results:
            if name not in calls:
                raise InvalidInput(f"this reply has no tool call {name!r}")
        return [_result_block(call, results[name]) for name, call in calls.items() if name in results]


def _result_block(call: Mapping[str, Any], result: Any) -> dict[str, Any]:
    """Return the block that answers a call; one of a toolset has to be named with it."""
    block = {"type": "tool_result", "tool_use_id": call["id"], "content": result}
    if isinstance(result, BaseException):  # Claude is told its kind, and its words if it can say them
        try:
            told = f"{type(result).__name__}: {result}"
        except Exception:  # noqa: BLE001 - the error of a caller can raise anything
            told = type(result).__name__
        block |= {"content": told, "is_error": True}
    return block | ({"toolset_name": call["toolset_name"]} if call.get("toolset_name") else {})


_EVENT_FIELDS: Mapping[str, tuple[Literal["text", "thinking"], str]] = {
    "text": ("text", "text"),
    "thinking": ("thinking", "thinking"),
}


def events_of(reply: Reply) -> Generator[ReplyEvent]:
    """Yield a reply that is stored already as if it was streamed: each block is one piece."""
    for index, block in enumerate(reply.content):
        if block["type"] in _EVENT_FIELDS:
            kind, name = _EVENT_FIELDS[block["type"]]
            yield ReplyEvent(kind, block.get(name) or "", index)
        elif block["type"] == "tool_use":
            yield ReplyEvent("tool_input", to_json(block.get("input", {})), index, block.get("name"))


def require_entered(pieces: T | None) -> T:
    """Return the pieces of a stream. Raises `InvalidInput` for a stream that is used without `with`."""
    if pieces is None:
        raise InvalidInput("a stream must be entered first: `with engine.stream(...) as stream:` (or `async with`)")
    return pieces


# A paid reply that cannot be stored as it is: given to the caller, and kept beside the conversation as JSON text.


def stop_reason_of(response: Any) -> str | None:
    """Return why a response says that it ended; None: it does not say, so it is not complete, or is no response."""
    told = response.get("stop_reason") if isinstance(response, Mapping) else getattr(response, "stop_reason", None)
    return told if isinstance(told, str) else None


def to_invalid_input(error: Exception) -> InvalidInput:
    """Return the error as one of ours: what the SDK and the interpreter raise at great depth names no field."""
    if isinstance(error, InvalidInput):
        return error
    msg = f"message.content: cannot be stored as it is ({type(error).__name__}); it may be nested too deep"
    return InvalidInput(msg)


def unstored_reply(response: Any, turn: str) -> Reply:
    """Return a response as a reply that is not stored (position -1), whatever is in it."""
    values = _values_of(response)
    beside = {name: value for name, value in values.items() if name not in ("type", "role", "content")}
    message = {"role": values.get("role", "assistant"), "content": values.get("content", [])}
    return Reply(message, beside, turn, -1)


def unstorable_entry(response: Any, turn: str, error: Exception) -> Entry[ReplyOrphaned]:
    """Return an entry that keeps a response: its words for people, and all of it as JSON text in `raw`."""
    values, told = _values_of(response), dict[str, Any]()
    for name in ("id", "model", "stop_reason", "usage"):
        with contextlib.suppress(InvalidInput):
            told[name] = to_plain_json(values.get(name))
    fields = Response({name: value for name, value in told.items() if value is not None})
    message = {"role": "assistant", "content": text_blocks(values.get("content"))}
    return Entry(ReplyOrphaned(message, fields, reason=type(error).__name__, raw=to_json_text(values)), turn)


def text_blocks(content: Any) -> list[dict[str, str]]:
    """Return the blocks of text in some content, with nothing but their text; [] if it is no list of blocks."""
    blocks = content if isinstance(content, list) else []
    words = [block["text"] for block in blocks if isinstance(block, dict) and isinstance(block.get("text"), str)]
    return [{"type": "text", "text": text} for text in words]


def _values_of(response: Any) -> dict[str, Any]:
    values = sdk_objects_to_dicts(response)
    return values if isinstance(values, dict) else {"content": values}
