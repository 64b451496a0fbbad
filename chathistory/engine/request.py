"""The request to Claude, and how much of a streamed reply has come."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from chathistory.content import Message
from chathistory.engine.setup import Setup
from chathistory.engine.turn import Turn
from chathistory.errors import IncompleteReply

__all__ = ["GOES_ON", "MAX_TOKENS", "PAUSES", "TURN_TIMEOUT", "Progress", "Request"]

MAX_TOKENS = 16_000
"""The default: below 21,333, beyond which the SDK refuses a request that is not streamed."""


TURN_TIMEOUT = 600.0
"""Seconds for which a turn without a reply counts as in progress: as long as the SDK waits for an answer."""

GOES_ON = frozenset({"tool_use", "pause_turn"})
"""Stop reasons after which the SDK's tool runner goes on with the same turn."""

PAUSES = 20
"""How often a reply that paused (stop reason "pause_turn") is sent back at once to be continued."""


@dataclass(frozen=True, slots=True)
class Request:
    """What is the same in every request of an engine: arguments of the SDK's `messages.create`.

    cache: ask for prompt caching of the conversation so far (the API's automatic, top-level `cache_control`).
    options: any further arguments, as the SDK takes them.
    """

    model: str
    system: str | Sequence[Mapping[str, Any]] | None = None
    tools: Sequence[Any] | None = None
    max_tokens: int = MAX_TOKENS
    cache: bool = True
    options: Mapping[str, Any] = field(default_factory=dict)

    def arguments(self, messages: list[Message], *, container: str | None = None) -> dict[str, Any]:
        """Return the arguments of `create` or `stream` for these messages, in the container that they began in."""
        given = {
            "model": self.model,
            "max_tokens": self.max_tokens,
            "system": self.system,
            "tools": self.tools,
            "container": container,
            "cache_control": {"type": "ephemeral"} if self.cache else None,
        }
        return (
            {name: value for name, value in given.items() if value is not None}
            | dict(self.options)
            | {"messages": messages}
        )

    def setup(self, tools: Sequence[Any] | None) -> Setup:
        """Return what a conversation is held with, when it is held with these tools."""
        return Setup.of(model=self.model, system=self.system, tools=tools)

    def tool_runner(self, beta: Any, turn: Turn, tools: Sequence[Any]) -> Any:
        """Return the SDK's tool runner for a turn; without its threads, which keep a copy on the server."""
        arguments = self.arguments(turn.messages, container=turn.container)
        return beta.messages.tool_runner(**arguments | {"tools": list(tools), "thread": False})


@dataclass(slots=True)
class Progress:
    """What has arrived of a stream of the SDK: its own accumulation does not tell a whole block from half of one.

    A stream that ends before `message_stop` raises nothing in the SDK, so the end has to be looked for.
    """

    stream: Any = None
    started: bool = False
    stopped: set[int] = field(default_factory=set)
    ended: bool = False

    def see(self, event: Any) -> str:
        """Take note of an event; return the text that it adds."""
        if event.type == "content_block_stop":
            self.stopped.add(event.index)
        self.started = self.started or event.type == "message_start"
        self.ended = self.ended or event.type == "message_stop"
        return str(event.text) if event.type == "text" else ""

    def check_ended(self) -> None:
        """Raise `IncompleteReply` unless the stream came to its proper end."""
        if not self.ended:
            msg = "the reply's stream ended before the reply was complete"
            raise IncompleteReply(msg)

    def partial(self) -> Message | None:
        """Return what is worth keeping of a reply that broke off; None: nothing.

        Blocks that were complete, and text that was not; half a tool call or half a thought says nothing.
        """
        if not self.started:
            return None
        blocks = self.stream.current_message_snapshot.to_dict(mode="json", warnings=False)["content"]
        kept = [block for index, block in enumerate(blocks) if index in self.stopped or _words(block)]
        return {"role": "assistant", "content": kept} if kept else None


def _words(block: Mapping[str, Any]) -> bool:
    return block["type"] == "text" and bool((block.get("text") or "").strip())
