"""Stores that are right and have bad luck: fault injectors around the memory store, and small helpers for tests."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from typing import Any

from chathistory_memory import MemoryStore

from chathistory import Conversation, History, HistoryStore, Slice
from chathistory.errors import Conflict, StoreUnavailable

THOUGHT = {"type": "thinking", "thinking": "so", "signature": "EqQ="}
CALL = {"role": "assistant", "content": [THOUGHT, {"type": "tool_use", "id": "a", "name": "f", "input": {}}]}
RESULT = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a", "content": "ok"}]}


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def said(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": [{"type": "text", "text": text}]}


def texts(messages: list[dict[str, Any]]) -> list[str]:
    """Return the texts of messages, each a string or a single block."""
    contents = (message["content"] for message in messages)
    return [content if isinstance(content, str) else content[0]["text"] for content in contents]


def bodies(store: MemoryStore, chat: Conversation) -> list[str]:
    """Return all lines that the store keeps of a conversation."""
    part = MemoryStore.read(store, chat.journal.key)
    return [record.body for record in part.records] if part else []


def lost(outcome: Any = "unknown") -> StoreUnavailable:
    return StoreUnavailable("the line went dead", outcome=outcome)


class FaultyStore(MemoryStore):
    """Meets each call with the next of its faults: a function that gets the call to make; None: nothing happens.

    `on_append`, `on_read`, `on_delete`: faults that are still to come, in order.
    """

    def __init__(self, name: str = "") -> None:
        super().__init__(name)
        self.on_append: Iterator[Callable[[Callable[[], Any]], Any] | None] = iter(())
        self.on_read: Iterator[Callable[[Callable[[], Any]], Any] | None] = iter(())
        self.on_delete: Iterator[Callable[[Callable[[], Any]], Any] | None] = iter(())
        self.appends = 0

    def append(self, *args, **kwargs):
        self.appends += 1
        return _met(self.on_append, lambda: super(FaultyStore, self).append(*args, **kwargs))

    def read(self, *args, **kwargs):
        return _met(self.on_read, lambda: super(FaultyStore, self).read(*args, **kwargs))

    def delete(self, *args, **kwargs):
        return _met(self.on_delete, lambda: super(FaultyStore, self).delete(*args, **kwargs))

    def healed(self) -> None:
        self.on_append = self.on_read = self.on_delete = iter(())


def _met(faults: Iterator[Any], call: Callable[[], Any]) -> Any:
    fault = next(faults, None)
    return fault(call) if fault else call()


def landed_then(*after: Callable[[], Any], outcome: Any = "unknown") -> Callable[[Callable[[], Any]], Any]:
    """Let the call land, then let `after` happen, then lose the answer."""

    def fault(call):
        call()
        for step in after:
            step()
        raise lost(outcome)

    return fault


def landed_but_refused(key: Any, store: MemoryStore, *after: Callable[[], Any]) -> Callable[[Callable[[], Any]], Any]:
    """Let the call land, and report the refusal of its repetition, as a client library does that retries."""

    def fault(call):
        call()
        for step in after:
            step()
        part = MemoryStore.read(store, key, start=0, stop=0)
        raise Conflict(key, part.head if part else None)

    return fault


def not_landed(call: Any, outcome: Any = "unknown") -> Any:
    raise lost(outcome)


def surely_not_landed(call: Any) -> Any:
    return not_landed(call, "not stored")


def dead(outcome: Any = "unknown") -> Iterator[Any]:
    return itertools.repeat(lambda call: not_landed(call, outcome))


class ShortStore(MemoryStore):
    """Gives at most three records at once, and calls `between` before each read but the first after `arm`."""

    between: Callable[[], Any] | None = None
    reads = 0

    def read(self, key, *, start=0, stop=None):
        self.reads += 1
        if self.between and self.reads > 1:
            step, self.between = self.between, None
            step()
        part = super().read(key, start=start, stop=stop)
        return part and Slice(part.head, part.records[:3])

    def arm(self, step: Callable[[], Any]) -> None:
        self.reads, self.between = 0, step


@contextlib.contextmanager
def named(*names: str) -> Iterator[None]:
    """Forget the shared rooms of these names at the end."""
    try:
        yield
    finally:
        for name in names:
            MemoryStore._named.pop(name, None)


def kinds_of(chat: Conversation) -> list[str]:
    return [entry.kind for entry in chat.records()]


def chat_on(store: HistoryStore, id: str = "c") -> Conversation:
    return History(store).conversation(id)


def numbered(chat, count):
    for number in range(count):
        chat.append(user(str(number)) if number % 2 == 0 else said(str(number)))


def reply(number, **usage):
    return {
        "type": "message",
        "role": "assistant",
        "id": f"msg_{number}",
        "model": f"claude-{number}",
        "content": [{"type": "text", "text": str(number)}],
        "stop_reason": "end_turn",
        "usage": usage,
    }
