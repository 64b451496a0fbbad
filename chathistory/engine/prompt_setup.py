"""What a conversation is held with: model, system prompt and tools; recorded on change, compared when it goes on.

Thinking blocks and the prompt cache are bound to system prompt and tools, so a caller who resumes with others should
know. The head keeps fingerprints only; the `setup` record has the whole.
"""

from __future__ import annotations

import copy
import hashlib
import json
import warnings
from dataclasses import dataclass
from typing import Any, Self

from chathistory.log.entry import Entry
from chathistory.log.events import Setup
from chathistory.log.state import ConversationState
from chathistory.messages.json_values import definition_of, plain
from chathistory.view.clean_message import without_surrogates

__all__ = ["PromptSetup", "SetupChangedWarning", "TextReplacedWarning", "encodable_tool", "sendable_options"]


class SetupChangedWarning(UserWarning):
    """A conversation goes on with another model, system prompt or tools than before."""


class TextReplacedWarning(UserWarning):
    """The system prompt, a tool or an option holds a lone surrogate, which no request can carry.

    U+FFFD is sent in its place.
    """


@dataclass(frozen=True, slots=True)
class PromptSetup:
    """Model, system prompt and tools of an engine, as the event that is stored when they change."""

    event: Setup

    @classmethod
    def of(cls, *, model: str, system: Any, tools: Any) -> Self:
        """Take down what is sent. Tools of the SDK's runner count by their definitions."""
        definitions = [_definition(tool) for tool in tools or ()]
        given = {"model": model, "system": plain(system, "system"), "tools": plain(definitions, "tools") or None}
        data = {name: _sendable(name, value) for name, value in given.items()}
        fingerprints = {name: _fingerprint(value) for name, value in data.items()}
        return cls(Setup(model=data["model"], system=data["system"], tools=data["tools"], fingerprints=fingerprints))

    def entries(self, state: ConversationState | None) -> list[Entry]:
        """Return the entry that has to be stored before the next message: none if nothing changed."""
        is_known = state is not None and state.engine.setup == self.event.fingerprints
        return [] if is_known else [Entry(self.event)]

    def invalidates_thinking(self, state: ConversationState) -> bool:
        """Whether thinking so far is bound to something else than this."""
        before, now = state.engine.setup, self.event.fingerprints
        return bool(before) and any(before.get(name) != now[name] for name in ("system", "tools"))

    def warn(self, state: ConversationState | None, name: str) -> None:
        """Warn if the conversation `name` was held with something else so far."""
        before = state.engine.setup if state else {}
        changed = [part for part, mark in self.event.fingerprints.items() if before and before.get(part) != mark]
        if changed:
            words = f"conversation {name!r} goes on, but not with the {' and '.join(changed)} that it had"
            if changed != ["model"] and not (state and state.view.drop_block):
                words += "; its thinking so far is not sent any more, and the prompt cache begins anew"
            warnings.warn(words, SetupChangedWarning, stacklevel=2)


def _sendable(name: str, value: Any) -> Any:
    """Return a part of the setup as it can be sent, with a warning if that is not as it was given."""
    sendable = without_surrogates(value)
    if sendable != value:
        words = f"{name}: holds a lone surrogate, which no request can carry; U+FFFD is sent in its place"
        warnings.warn(words, TextReplacedWarning, stacklevel=2)
        return sendable
    return value


def sendable_options(options: dict[str, Any]) -> dict[str, Any]:
    """Return further arguments of a request as they can be sent, with a warning if that is not as they were given."""
    sendable: dict[str, Any] = _sendable("options", options)
    return sendable


def encodable_tool(tool: Any) -> Any:
    """Return a tool of the SDK's runner whose definition can be sent: a copy, if its own cannot."""
    definition = _definition(tool)
    sendable = without_surrogates(definition)
    if sendable == definition:
        return tool
    if definition is tool:
        return sendable
    clone = copy.copy(tool)
    clone.to_dict = lambda: sendable
    return clone


def _definition(tool: Any) -> Any:
    return definition_of(tool)


def _fingerprint(value: Any) -> str:
    text = json.dumps(value, sort_keys=True)  # the order of keys changes neither the cache's nor the API's mind
    return hashlib.sha256(text.encode()).hexdigest()[:16]
