"""The arguments of a request to Claude, and the setup of a conversation: its model, system prompt and tools.

Thinking blocks and the prompt cache are bound to the system prompt and the tools, so an engine warns a caller who
continues a conversation with other ones. The setup is stored as a `setup` entry when it changes, and compared with the
engine's at each turn. The state in the head has fingerprints only.
"""

from __future__ import annotations

import copy
import hashlib
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar, cast

from chathistory.engine.turn import Turn
from chathistory.log.entry import Entry
from chathistory.log.events import Setup
from chathistory.log.state import ConversationState
from chathistory.messages.content import Message
from chathistory.messages.json_values import to_plain_json, to_tool_definition
from chathistory.trimming.context_editing import BINDING_BETA, ON_DEMAND_BETA, CompactionBlocks, ContextEditing
from chathistory.view.clean_message import replace_surrogates
from chathistory.view.tool_references import drop_undefined_references, list_tool_names

__all__ = [
    "MAX_TOKENS",
    "PromptSetup",
    "RequestTemplate",
    "SetupChangedWarning",
    "TextReplacedWarning",
    "copy_json",
    "to_sendable",
    "to_sendable_tool",
]

T = TypeVar("T")

MAX_TOKENS = 16_000
"""The default, in tokens. The SDK refuses more than 21,333 in a request that is not streamed."""

_COUNT_ARGUMENTS = frozenset(
    ("model", "system", "tools", "tool_choice", "thinking", "output_config", "context_management", "betas", "messages")
)

MAX_CACHE_MARKERS = 4
"""The most cache markers (`cache_control`) that the API accepts in one request, including the automatic one."""


def _count_cache_markers(arguments: Mapping[str, Any]) -> int:
    """Return how many cache markers the caller has set on the system prompt and the tools; messages have none."""
    system, tools = arguments.get("system"), arguments.get("tools") or ()
    marked = [*(system if isinstance(system, Sequence) and not isinstance(system, str) else ()), *tools]
    definitions = map(to_tool_definition, marked)
    return sum(isinstance(each, Mapping) and each.get("cache_control") is not None for each in definitions)


_SYSTEM_BETAS = {
    "clear_at": "mid-conversation-system-clear-at-2026-08-21",
    "output_config": "mid-conversation-output-config-2026-07-01",
}
"""The beta that each of these fields of a system message needs (source: the list of betas in the SDK)."""
_DATE_LENGTH = len("-2026-01-01")


def _list_system_betas(messages: Sequence[Message], caller_betas: Sequence[str]) -> list[str]:
    """Return the betas that system messages need, except those that the caller has set in any version."""
    names = {name for message in messages if message["role"] == "system" for name in message}
    wanted = [beta for name, beta in _SYSTEM_BETAS.items() if name in names]
    return [beta for beta in wanted if not any(other.startswith(beta[:-_DATE_LENGTH]) for other in caller_betas)]


def copy_json(value: Any) -> Any:
    """Return a deep copy of dicts and lists.

    Args:
        value: Any value.

    Returns:
        The copy. Values of other types (text, objects of the SDK) are not copied.
    """
    if isinstance(value, dict):
        return {name: copy_json(part) for name, part in value.items()}
    if isinstance(value, list):
        return [copy_json(part) for part in value]
    return value


class SetupChangedWarning(UserWarning):
    """A conversation continues with another model, system prompt or tools than before."""


class TextReplacedWarning(UserWarning):
    """The system prompt, a tool or an option has a lone surrogate, which cannot be encoded as UTF-8.

    U+FFFD is sent in its place.
    """


@dataclass(frozen=True, slots=True)
class PromptSetup:
    """The model, system prompt and tools of an engine, as the event that is stored when they change."""

    event: Setup

    @classmethod
    def of(cls, *, model: str, system: Any, tools: Any) -> Self:
        """Return the setup for a model, a system prompt and tools.

        Args:
            model: The model.
            system: Text or content blocks; None: no system prompt.
            tools: Tools as the API defines them, or tools of the SDK's runner, of which the definitions count; None or
                []: no tools.

        Returns:
            The setup, as it is sent.

        Raises:
            InvalidInput: The system prompt or the tools cannot be stored as JSON.
        """
        definitions = [to_tool_definition(tool) for tool in tools or ()]
        values = {
            "model": model,
            "system": to_plain_json(system, "system"),
            "tools": to_plain_json(definitions, "tools") or None,
        }
        data = {name: to_sendable(name, value) for name, value in values.items()}
        texts = {name: json.dumps(value, sort_keys=True) for name, value in data.items()}
        fingerprints = {name: hashlib.sha256(text.encode()).hexdigest()[:16] for name, text in texts.items()}
        return cls(Setup(model=data["model"], system=data["system"], tools=data["tools"], fingerprints=fingerprints))

    def list_changes(self, state: ConversationState | None) -> list[Entry]:
        """Return the entry that has to be stored before the next message, if the setup changed.

        Args:
            state: The state of the conversation; None: it does not exist.

        Returns:
            One entry, or [].
        """
        is_known = state is not None and state.engine.setup_fingerprints == self.event.fingerprints
        return [] if is_known else [Entry(self.event)]

    def invalidates_thinking(self, state: ConversationState) -> bool:
        """Whether the thinking so far is bound to another system prompt or other tools.

        Args:
            state: The state of the conversation.
        """
        before, now = state.engine.setup_fingerprints, self.event.fingerprints
        return bool(before) and any(before.get(name) != now[name] for name in ("system", "tools"))

    def warn_if_changed(self, state: ConversationState | None, name: str) -> None:
        """Warn if a conversation had another setup so far.

        Args:
            state: The state of the conversation; None: it does not exist.
            name: The conversation's id.
        """
        before = state.engine.setup_fingerprints if state else {}
        changed = [part for part, mark in self.event.fingerprints.items() if before and before.get(part) != mark]
        if changed:
            parts = " and ".join("system prompt" if part == "system" else part for part in changed)
            message = f"conversation {name!r} continues with a different {parts}"
            if changed != ["model"] and not (state and state.view.drop_stale_thinking):
                message += ": its earlier thinking is no longer sent, and the prompt cache is invalidated"
            warnings.warn(message, SetupChangedWarning, stacklevel=2)


def to_sendable(name: str, value: T) -> T:
    """Return a part of a request without lone surrogates, with a warning if it had one.

    Args:
        name: The name of the part, for the warning.
        value: The part.

    Returns:
        The value itself, or a copy in which U+FFFD replaces each lone surrogate.
    """
    changed = replace_surrogates(value)
    if changed == value:
        return value
    message = f"{name}: has a lone surrogate, which cannot be encoded as UTF-8; U+FFFD is sent in its place"
    warnings.warn(message, TextReplacedWarning, stacklevel=2)
    return cast("T", changed)


def to_sendable_tool(tool: Any) -> Any:
    """Return a tool of the SDK's runner whose definition has no lone surrogates.

    Args:
        tool: A tool as the runner takes it.

    Returns:
        The tool itself, or a copy if its definition had one.
    """
    definition = to_tool_definition(tool)
    changed = replace_surrogates(definition)
    if changed == definition:
        return tool
    if definition is tool:
        return changed
    clone = copy.copy(tool)
    clone.to_dict = lambda: changed
    return clone


@dataclass(frozen=True, slots=True)
class RequestTemplate:
    """The arguments of the SDK's `messages.create` that are the same in every request of an engine.

    Attributes:
        model: The model.
        system: The system prompt; None: none.
        tools: The tools; None: none.
        max_tokens: The maximum length of a reply, in tokens.
        cache: Whether to use the API's automatic prompt caching (the top-level `cache_control`).
        editing: What the API leaves out of its own copy of the conversation; None: nothing.
        options: Further arguments, as the SDK takes them.
    """

    model: str
    system: str | Sequence[Mapping[str, Any]] | None = None
    tools: Sequence[Any] | None = None
    max_tokens: int = MAX_TOKENS
    cache: bool = True
    editing: ContextEditing | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def build_arguments(self, turn: Turn, messages: list[Message] | None = None) -> dict[str, Any]:
        """Return the arguments of `create` or `stream` for a turn.

        All of it is a copy. A wrapper of the client may add markers or messages in place, and that must not change the
        engine's messages, or the caller's tools and options.

        Args:
            turn: The turn.
            messages: The messages to send; None: those of the turn.

        Returns:
            The arguments; they have `betas` if the call must be made in the beta namespace.

        Raises:
            TurnError: The turn has no messages that can be sent.
        """
        messages = turn.messages_to_send() if messages is None else messages
        compactions = CompactionBlocks.from_messages(messages)
        edits = compactions.select_edits(self.editing)
        binding = self._build_thinking_binding(turn.state)
        caller_betas = self.options.get("betas", ())
        betas = [
            *caller_betas,
            *compactions.select_betas(edits),
            *([BINDING_BETA] if binding else ()),
            *_list_system_betas(messages, caller_betas),
        ]
        values = {
            "model": self.model,
            "max_tokens": self.max_tokens,
            "system": self.system,
            "tools": self.tools,
            "container": turn.container,
            "cache_control": {"type": "ephemeral"} if self.cache else None,
            "context_management": {"edits": edits} if edits else None,
        }
        own_arguments = {name: value for name, value in values.items() if value is not None}
        beta_arguments = {"betas": list(dict.fromkeys(betas))} if betas else {}
        arguments: dict[str, Any] = own_arguments | dict(self.options) | beta_arguments
        if "cache_control" not in self.options and _count_cache_markers(arguments) >= MAX_CACHE_MARKERS:
            arguments.pop("cache_control", None)
        names = None if "mcp_servers" in arguments else list_tool_names(arguments.get("tools") or ())
        if names is not None:
            messages = drop_undefined_references(messages, names)
        copied = {name: copy_json(value) for name, value in arguments.items()}
        return copied | {**binding, "messages": copy_json(messages)}

    def _build_thinking_binding(self, state: ConversationState | None) -> dict[str, Any]:
        """Return the argument that lets the API drop invalid thinking; {} unless the conversation wants that."""
        if not (state and state.view.drop_stale_thinking):
            return {}
        thinking = self.options.get("thinking") or {"type": "adaptive"}
        return {"thinking": {**thinking, "block_binding": {"prefix_mismatch_behavior": "drop_block"}}}

    def build_compaction_arguments(self, turn: Turn, messages: list[Message]) -> dict[str, Any]:
        """Return the arguments of the call that summarizes messages.

        Arguments that only shape a reply, and context editing, are left out.

        Args:
            turn: The turn.
            messages: The messages to summarize.

        Returns:
            The arguments of `create` in the beta namespace.
        """
        arguments = self.build_arguments(turn, messages)
        betas = [*arguments.get("betas", ()), ON_DEMAND_BETA]
        if (arguments.get("tool_choice") or {}).get("type") in ("any", "tool"):
            del arguments["tool_choice"]
        if output := arguments.get("output_config"):
            arguments["output_config"] = {name: value for name, value in output.items() if name != "format"}
        for name in ("stop_sequences", "context_management"):
            arguments.pop(name, None)
        return arguments | {"compaction": {"type": "summarize"}, "betas": list(dict.fromkeys(betas))}

    def build_count_arguments(self, turn: Turn, messages: list[Message]) -> dict[str, Any]:
        """Return the arguments of `count_tokens` for messages that are sent in a turn.

        Args:
            turn: The turn.
            messages: The messages to count.

        Returns:
            The arguments.
        """
        return {name: value for name, value in self.build_arguments(turn, messages).items() if name in _COUNT_ARGUMENTS}

    def prompt_setup(self, tools: Sequence[Any] | None) -> PromptSetup:
        """Return the setup of a conversation with these tools, and this model and system prompt.

        Args:
            tools: The tools; None: no tools.

        Returns:
            The setup.
        """
        return PromptSetup.of(model=self.model, system=self.system, tools=tools)
