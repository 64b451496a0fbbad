"""The request to Claude, and how much of a streamed reply has come."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from chathistory.content import Message
from chathistory.engine.setup import Setup
from chathistory.engine.turn import Turn
from chathistory.errors import IncompleteReply
from chathistory.log.fold import ON_DEMAND_BETA
from chathistory.log.summary import Summary
from chathistory.trimming.editing import COMPACT, ContextEditing

__all__ = ["GOES_ON", "MAX_TOKENS", "PAUSES", "TURN_TIMEOUT", "Progress", "Request"]

MAX_TOKENS = 16_000
"""The default: below 21,333, beyond which the SDK refuses a request that is not streamed."""


TURN_TIMEOUT = 600.0
"""Seconds for which a turn without a reply counts as in progress: as long as the SDK waits for an answer."""

_BINDING_BETA = "thinking-binding-controls-2026-08-01"

GOES_ON = frozenset({"tool_use", "pause_turn"})
"""Stop reasons after which the SDK's tool runner goes on with the same turn."""

PAUSES = 20
"""How often a reply that paused (stop reason "pause_turn") is sent back at once to be continued."""


@dataclass(frozen=True, slots=True)
class Request:
    """What is the same in every request of an engine: arguments of the SDK's `messages.create`.

    cache: ask for prompt caching of the conversation so far (the API's automatic, top-level `cache_control`).
    editing: what the API does with its own copy. options: any further arguments, as the SDK takes them.
    """

    model: str
    system: str | Sequence[Mapping[str, Any]] | None = None
    tools: Sequence[Any] | None = None
    max_tokens: int = MAX_TOKENS
    cache: bool = True
    editing: ContextEditing | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def arguments(self, turn: Turn) -> dict[str, Any]:
        """Return the arguments of `create` or `stream` for a turn; with `betas` if it takes the beta namespace."""
        return self._given(turn) | self._edits(turn.messages) | self._told(turn.state) | {"messages": turn.messages}

    def compaction(self, turn: Turn, messages: list[Message]) -> dict[str, Any]:
        """Return the arguments of the call that sums up `messages`: without what only shapes a reply, or edits."""
        given = self._given(turn) | self._told(turn.state)
        for name in ("stop_sequences", "context_management"):
            given.pop(name, None)
        if given.get("tool_choice", {}).get("type") in ("any", "tool"):
            del given["tool_choice"]
        if "format" in given.get("output_config", {}):
            given["output_config"] = {name: value for name, value in given["output_config"].items() if name != "format"}
        betas = [*given.get("betas", ()), ON_DEMAND_BETA]
        return given | {"messages": messages, "compaction": {"type": "summarize"}, "betas": betas}

    def counting(self, state: Summary | None, messages: list[Message]) -> dict[str, Any]:
        """Return the arguments of `count_tokens` for these messages; with `betas` as in `arguments`."""
        given = {"model": self.model, "system": self.system, "tools": self.tools, "messages": messages}
        given = {name: value for name, value in given.items() if value is not None}
        return given | self._edits(messages) | self._told(state)

    def _given(self, turn: Turn) -> dict[str, Any]:
        given = {
            "model": self.model,
            "max_tokens": self.max_tokens,
            "system": self.system,
            "tools": self.tools,
            "container": turn.container,
            "cache_control": {"type": "ephemeral"} if self.cache else None,
        }
        return {name: value for name, value in given.items() if value is not None} | dict(self.options)

    def _edits(self, messages: list[Message]) -> dict[str, Any]:
        """Return what the API is to do with its own copy: it takes its summaries back on some terms only.

        One that it signed goes with no edit that sums up by itself, one that it did not sign only with that edit.
        """
        made = {bool(block.get("signature")) for block in _summaries(messages)}
        given = self.options.get("context_management") or {}
        edits = self.editing.edits if self.editing else list(given.get("edits", ()))
        if True in made:
            edits = [edit for edit in edits if edit["type"] != COMPACT]
        if made == {False} and all(edit["type"] != COMPACT for edit in edits):
            edits.append({"type": COMPACT})
        return {"context_management": {"edits": edits}} if edits else {}

    def _told(self, state: Summary | None) -> dict[str, Any]:
        """Return what the conversation itself asks for: betas that it makes use of, what is to become of thinking."""
        return self._betas(state) | self._about_thinking(state)

    def _betas(self, state: Summary | None) -> dict[str, list[str]]:
        """Return the headers of all betas that a request makes use of."""
        wanted = [*self.options.get("betas", ()), *(self.editing.betas if self.editing else ())]
        wanted += state.betas if state else ()
        wanted += [_BINDING_BETA] if state and state.drop_block else []
        return {"betas": list(dict.fromkeys(wanted))} if wanted else {}

    def _about_thinking(self, state: Summary | None) -> dict[str, Any]:
        if not (state and state.drop_block):
            return {}
        thinking = self.options.get("thinking") or {"type": "adaptive"}
        return {"thinking": {**thinking, "block_binding": {"prefix_mismatch_behavior": "drop_block"}}}

    def setup(self, tools: Sequence[Any] | None) -> Setup:
        """Return what a conversation is held with, when it is held with these tools."""
        return Setup.of(model=self.model, system=self.system, tools=tools)


def _summaries(messages: Sequence[Message]) -> Iterator[Mapping[str, Any]]:
    """Yield the blocks of the API that stand for what was said before them; one without content stands for nothing."""
    for message in messages:
        for block in message["content"] if isinstance(message["content"], list) else ():
            if block["type"] == "compaction" and block.get("content"):
                yield block


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
