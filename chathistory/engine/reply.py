"""What a turn gives back."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self, TypeVar

from chathistory.checks import check_kind
from chathistory.errors import InvalidInput
from chathistory.log.entry import Entry, to_json
from chathistory.log.events import MessageAdded
from chathistory.messages.content import Message, blocks_of, text_of

__all__ = ["Reply", "ReplyEvent", "events_of", "require_entered"]

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
        """The tool_use blocks; each is due a tool_result in the next message: see `ChatEngine.submit`.

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
        check_kind("results", results, Mapping, "a dict from the ids of tool calls to their results")
        calls = {call["id"]: call for call in self.tool_calls}
        for name in results:
            if name not in calls:
                raise InvalidInput(f"this reply has no tool call {name!r}")
        return [_result(call, results[name]) for name, call in calls.items() if name in results]


def _result(call: Mapping[str, Any], result: Any) -> dict[str, Any]:
    """Return the block that answers a call; one of a toolset has to be named with it."""
    failed = isinstance(result, BaseException)
    content = _told(result) if failed else result
    block = {"type": "tool_result", "tool_use_id": call["id"], "content": content}
    if failed:
        block["is_error"] = True
    return block | ({"toolset_name": call["toolset_name"]} if call.get("toolset_name") else {})


def _told(error: BaseException) -> str:
    """Return what Claude is told of a tool that failed: the kind of the error, and its words if it can say them."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001 - the error of a caller can raise anything
        return type(error).__name__


_PIECES: Mapping[str, tuple[Literal["text", "thinking"], str]] = {
    "text": ("text", "text"),
    "thinking": ("thinking", "thinking"),
}


def events_of(reply: Reply) -> Generator[ReplyEvent]:
    """Yield a reply that is stored already as if it was streamed: each block is one piece."""
    for index, block in enumerate(reply.content):
        if block["type"] in _PIECES:
            kind, name = _PIECES[block["type"]]
            yield ReplyEvent(kind, block.get(name) or "", index)
        elif block["type"] == "tool_use":
            yield ReplyEvent("tool_input", to_json(block.get("input", {})), index, block.get("name"))


def require_entered(pieces: T | None) -> T:
    """Return the pieces of a stream. Raises `InvalidInput` for a stream that is used without `with`."""
    if pieces is None:
        raise InvalidInput("a stream must be entered first: `with engine.stream(...) as stream:` (or `async with`)")
    return pieces
