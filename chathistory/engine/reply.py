"""`Reply` and `ReplyEvent`: what a turn returns, complete or piece by piece."""

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
from chathistory.messages.fit_blocks import TOOL_CALL_TYPES
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
        type: "text", "thinking", or "tool_input" (a piece of the JSON text of a tool's input).
        text: The piece of text; never empty while streaming. A stored reply that is replayed has one event for each
            block, which may be "".
        index: The index of the content block that it belongs to, from 0.
        tool: The name of the tool, for "tool_input"; None for other types.
    """

    type: Literal["text", "thinking", "tool_input"]
    text: str = field(repr=False)
    index: int
    tool: str | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """Claude's reply to a turn. `str(reply)` is its text.

    Attributes:
        message: A dict with the role and the content, as they are stored and sent again.
        response: The other fields of the API's response (id, model, stop_reason, usage, ...), under the API's names.
        turn: The id of its turn.
        position: Its position in the conversation; -1 if it could not be stored.
        version: The version of the conversation with this reply as its newest message; see `Conversation.version`. ""
            if it could not be stored.
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
        """The id of the API's response, such as "msg_..."; None if the response had none."""
        return self.response.get("id")

    @property
    def model(self) -> str | None:
        """The model that replied, which can differ from the requested one; None if the response named none."""
        return self.response.get("model")

    @property
    def text(self) -> str:
        """The text of all text blocks, joined; "" if it has no text."""
        return text_of(self.message)

    @property
    def usage(self) -> Mapping[str, Any]:
        """Token counts under the API's names, such as "input_tokens"; {} if the response had none."""
        return self.response.get("usage") or {}

    @property
    def stop_reason(self) -> str | None:
        """Why Claude stopped: "end_turn", "tool_use", "max_tokens", "refusal", ...; None if it is not known."""
        return self.response.get("stop_reason")

    @property
    def tool_calls(self) -> list[dict[str, Any]]:
        """The `tool_use` blocks that must be answered with a `tool_result` each; see `ChatEngine.submit`.

        If the reply reached `max_tokens` or the end of the context window, a call in its last block may be incomplete.
        It is left out, because it must not be run. When the conversation continues, each call without a result is
        answered with an error.
        """
        content = self.message["content"]
        is_cut = self.stop_reason in ("max_tokens", "model_context_window_exceeded")
        complete = content[:-1] if is_cut else content
        return [block for block in complete if isinstance(block, dict) and block["type"] == "tool_use"]

    def results(self, results: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return the `tool_result` blocks that answer its tool calls, in the order of the calls.

        A call without a result is answered with an error when the message is sent.

        Args:
            results: The result of each tool call, by the id of the call: text or content blocks. For a
                tool that failed, an exception: Claude gets its type and its message.

        Returns:
            One block for each result; [] if `results` is empty.

        Raises:
            InvalidInput: `results` is not a mapping, or has an id that is not one of the calls.
        """
        check_type("results", results, Mapping, "a dict from the ids of tool calls to their results")
        calls = {call["id"]: call for call in self.tool_calls}
        for name in results:
            if name not in calls:
                raise InvalidInput(f"results: this reply has no tool call {name!r}; use the ids of `reply.tool_calls`")
        return [_result_block(call, results[name]) for name, call in calls.items() if name in results]


def _result_block(call: Mapping[str, Any], result: Any) -> dict[str, Any]:
    """Return the block that answers a call; a call of a toolset must be answered under the toolset's name."""
    block = {"type": "tool_result", "tool_use_id": call["id"], "content": result}
    if isinstance(result, BaseException):
        try:
            text = f"{type(result).__name__}: {result}"
        except Exception:  # noqa: BLE001 - `str` of a caller's exception can raise anything
            text = type(result).__name__
        block |= {"content": text, "is_error": True}
    return block | ({"toolset_name": call["toolset_name"]} if call.get("toolset_name") else {})


_EVENT_FIELDS: Mapping[str, tuple[Literal["text", "thinking"], str]] = {
    "text": ("text", "text"),
    "thinking": ("thinking", "thinking"),
}


def events_of(reply: Reply) -> Generator[ReplyEvent]:
    """Yield the events of a stored reply as if it was streamed: one for each block.

    Args:
        reply: The stored reply.

    Yields:
        An event for each block of text, thinking or tool input; other blocks are skipped.
    """
    for index, block in enumerate(reply.content):
        if block["type"] in _EVENT_FIELDS:
            kind, name = _EVENT_FIELDS[block["type"]]
            yield ReplyEvent(kind, block.get(name) or "", index)
        elif block["type"] in TOOL_CALL_TYPES:
            yield ReplyEvent("tool_input", to_json(block.get("input", {})), index, block.get("name"))


def require_entered(pieces: T | None) -> T:
    """Return the events of a stream that was entered.

    Args:
        pieces: The events; None before the stream is entered.

    Returns:
        The events.

    Raises:
        InvalidInput: The stream is used without `with`.
    """
    if pieces is None:
        raise InvalidInput("a stream must be entered first: `with engine.stream(...) as stream:` (or `async with`)")
    return pieces


# A paid reply that cannot be stored as a message: the caller gets it, and a `reply_orphaned` entry keeps its JSON text.


def stop_reason_of(response: Any) -> str | None:
    """Return the stop reason of a response.

    Args:
        response: Anything that a client returned: a mapping, an object of the SDK, or something else.

    Returns:
        The stop reason; None if the response is not complete, or is not a response at all.
    """
    reason = response.get("stop_reason") if isinstance(response, Mapping) else getattr(response, "stop_reason", None)
    return reason if isinstance(reason, str) else None


def to_invalid_input(error: Exception) -> InvalidInput:
    """Return an error as `InvalidInput` with the field in its message.

    Args:
        error: The error of a message that could not be stored. For values that are nested too deep, the SDK and the
            interpreter raise errors that name no field.

    Returns:
        The same error if it is an `InvalidInput` already.
    """
    if isinstance(error, InvalidInput):
        return error
    msg = f"message.content: cannot be stored ({type(error).__name__}); it may be nested too deep"
    return InvalidInput(msg)


def unstored_reply(response: Any, turn: str) -> Reply:
    """Return a response as a reply that is not stored.

    Args:
        response: Anything that a client returned.
        turn: The id of the turn.

    Returns:
        A reply at position -1, with all that the response has.
    """
    values = _values_of(response)
    fields = {name: value for name, value in values.items() if name not in ("type", "role", "content")}
    message = {"role": values.get("role", "assistant"), "content": values.get("content", [])}
    return Reply(message, fields, turn, -1)


def unstorable_entry(response: Any, turn: str, error: Exception) -> Entry[ReplyOrphaned]:
    """Return an entry that saves a response which cannot be stored as a message.

    Args:
        response: Anything that a client returned.
        turn: The id of the turn.
        error: Why it cannot be stored.

    Returns:
        A `reply_orphaned` entry with the text blocks for people, and the whole response as JSON text in `raw`.
    """
    values, storable = _values_of(response), dict[str, Any]()
    for name in ("id", "model", "stop_reason", "usage"):
        with contextlib.suppress(InvalidInput):
            storable[name] = to_plain_json(values.get(name))
    fields = Response({name: value for name, value in storable.items() if value is not None})
    message = {"role": "assistant", "content": text_blocks(values.get("content"))}
    return Entry(ReplyOrphaned(message, fields, reason=type(error).__name__, raw=to_json_text(values)), turn)


def text_blocks(content: Any) -> list[dict[str, str]]:
    """Return the text blocks in some content, with no other fields than their text.

    Args:
        content: The content of a response; anything.

    Returns:
        Text blocks; [] if the content is not a list, or has none.
    """
    blocks = content if isinstance(content, list) else []
    texts = [block["text"] for block in blocks if isinstance(block, dict) and isinstance(block.get("text"), str)]
    return [{"type": "text", "text": text} for text in texts]


def _values_of(response: Any) -> dict[str, Any]:
    values = sdk_objects_to_dicts(response)
    return values if isinstance(values, dict) else {"content": values}
