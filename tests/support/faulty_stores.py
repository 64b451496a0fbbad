"""Correct stores with injected faults, based on the memory store, and small helpers for tests."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from chathistory_memory import MemoryStore

from chathistory import Conversation, Damaged, Head, History, HistoryStore, Key, Leftovers, Page, ReadResult, Record
from chathistory.errors import Conflict, CorruptRecord, StoreUnavailable
from chathistory.log.state import ConversationHead, read_state
from chathistory.operations.listing import describe
from chathistory.storage.abilities import FoundRecords

THOUGHT = {"type": "thinking", "thinking": "so", "signature": "EqQ="}
CALL = {"role": "assistant", "content": [THOUGHT, {"type": "tool_use", "id": "a", "name": "f", "input": {}}]}
RESULT = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a", "content": "ok"}]}


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def said(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": [{"type": "text", "text": text}]}


def names_of(chat: Conversation) -> tuple[str | None, tuple[str, ...], Mapping[str, Any]]:
    """Return title, tags and metadata as they are stored now, without changing what this process has seen."""
    head = chat.log.fetch_head()
    row = describe(ConversationHead(head, read_state(head))) if head else None
    return (row.title, row.tags, row.metadata) if row else (None, (), {})


def all_unless_named(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a transfer, of all scopes unless they name some conversations."""
    return dict(options) if {"scope", "ids", "id"} & options.keys() else {**options, "all_scopes": True}


def texts(messages: list[dict[str, Any]]) -> list[str]:
    """Return the texts of messages, each a string or a single block."""
    contents = (message["content"] for message in messages)
    return [content if isinstance(content, str) else content[0]["text"] for content in contents]


def bodies(store: MemoryStore, chat: Conversation) -> list[str]:
    """Return all lines that the store keeps of a conversation."""
    part = MemoryStore.read(store, chat.log.key)
    return [record.body for record in part.records] if part else []


def unavailable(outcome: Any = "unknown") -> StoreUnavailable:
    return StoreUnavailable("the line went dead", outcome=outcome)


class FaultyStore(MemoryStore):
    """Applies the next fault to each call: a function that takes the call to make, or None for no fault.

    Attributes:
        on_append: The next faults of append, in order; also `on_read` and `on_delete`.
    """

    def __init__(self, name: str = "") -> None:
        super().__init__(name)
        self.on_append: Iterator[Callable[[Callable[[], Any]], Any] | None] = iter(())
        self.on_read: Iterator[Callable[[Callable[[], Any]], Any] | None] = iter(())
        self.on_delete: Iterator[Callable[[Callable[[], Any]], Any] | None] = iter(())
        self.appends = 0

    def append(self, *args, **kwargs):
        self.appends += 1
        return _call_with_fault(self.on_append, lambda: super(FaultyStore, self).append(*args, **kwargs))

    def read(self, *args, **kwargs):
        return _call_with_fault(self.on_read, lambda: super(FaultyStore, self).read(*args, **kwargs))

    def delete(self, *args, **kwargs):
        return _call_with_fault(self.on_delete, lambda: super(FaultyStore, self).delete(*args, **kwargs))

    def clear_faults(self) -> None:
        self.on_append = self.on_read = self.on_delete = iter(())


def _call_with_fault(faults: Iterator[Any], call: Callable[[], Any]) -> Any:
    fault = next(faults, None)
    return fault(call) if fault else call()


def landed_then(*after: Callable[[], Any], outcome: Any = "unknown") -> Callable[[Callable[[], Any]], Any]:
    """Return a fault: the call is carried out, then the steps of `after`, then the answer is lost."""

    def fault(call):
        call()
        for step in after:
            step()
        raise unavailable(outcome)

    return fault


def landed_but_refused(key: Any, store: MemoryStore, *after: Callable[[], Any]) -> Callable[[Callable[[], Any]], Any]:
    """Return a fault: the call is carried out, and its retry by a client library is refused."""

    def fault(call):
        call()
        for step in after:
            step()
        part = MemoryStore.read(store, key, start=0, stop=0)
        raise Conflict(key, part.head if part else None)

    return fault


def not_landed(call: Any, outcome: Any = "unknown") -> Any:
    raise unavailable(outcome)


def surely_not_landed(call: Any) -> Any:
    return not_landed(call, "not stored")


def always_unavailable(outcome: Any = "unknown") -> Iterator[Any]:
    return itertools.repeat(lambda call: not_landed(call, outcome))


class ShortStore(MemoryStore):
    """Returns at most three records per read, and calls `between` before the second read after `arm`."""

    between: Callable[[], Any] | None = None
    reads = 0

    def read(self, key, *, start=0, stop=None):
        self.reads += 1
        if self.between and self.reads > 1:
            step, self.between = self.between, None
            step()
        part = super().read(key, start=start, stop=stop)
        return part and ReadResult(part.head, part.records[:3])

    def arm(self, step: Callable[[], Any]) -> None:
        self.reads, self.between = 0, step


@contextlib.contextmanager
def shared_names(*names: str) -> Iterator[None]:
    """Forget the shared data of these names at the end."""
    try:
        yield
    finally:
        for name in names:
            MemoryStore._named.pop(name, None)


def kinds_of(chat: Conversation) -> list[str]:
    return [entry.kind for entry in chat.entries()]


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


class DamagedStore(MemoryStore):
    """A store with damage that can read records without their head, as backends can.

    unreadable: keys with a head that cannot be read, with the bytes in its place. lost: heads with an unreadable key.
    """

    def __init__(self, name: str = "") -> None:
        super().__init__(name)
        self.unreadable: dict[Key, str] = {}
        self.lost: list[Damaged] = []
        self.restored: list[Head] = []

    def damage_head(self, key: Key, token: str = "bytes") -> None:
        self.unreadable[key] = token

    def damage_records(self, key: Key, *positions: int) -> None:
        stored = self._data.scopes[key.scope][key.id]
        for position in positions:
            stored.bodies[position - stored.head.start] += " "

    def append(self, key, *args, **kwargs):
        self._check(key)
        return super().append(key, *args, **kwargs)

    def read(self, key, **span):
        self._check(key)
        return super().read(key, **span)

    def forget(self, key, **before):
        self._check(key)
        return super().forget(key, **before)

    def delete(self, key, *, version=None):
        if version is not None:
            self._check(key)
        self.unreadable.pop(key, None)
        return super().delete(key, version=version)

    def _check(self, key):
        if key in self.unreadable:
            raise CorruptRecord(key, None, "it is hurt")

    def heads(self, scope, **page):
        found = super().heads(scope, **page)
        heads = [head for head in found.items if head.key in self.unreadable]
        damaged = [Damaged(head.key, head.key.id, CorruptRecord(head.key, None, "it is hurt")) for head in heads]
        lost = [each for each in self.lost if page.get("after") is None]
        return Page([head for head in found.items if head.key not in self.unreadable], found.next, [*damaged, *lost])

    def damaged_keys(self, scope=None):
        return iter(self.lost)

    def remove_leftovers(self, scope):
        count = len(self.lost)
        self.lost.clear()
        left = super().remove_leftovers(scope)
        return Leftovers(count, left.left, left.complete)

    def find_records(self, key):
        stored = self._data.scopes.get(key.scope, {}).get(key.id)
        if stored is None:
            return None
        problem = "it is hurt" if key in self.unreadable else None
        return FoundRecords(key, self.unreadable.get(key, "sound"), stored.head.start, stored.head.end, problem)

    def read_found(self, found, *, start, stop):
        stored = self._data.scopes[found.key.scope][found.key.id]
        return [
            Record(position, body)
            for position, body in enumerate(stored.bodies, stored.head.start)
            if start <= position < stop and not body.endswith(" ")
        ]

    def restore_head(self, found, head):
        if self.unreadable.get(found.key) != found.token:
            raise Conflict(found.key, None)
        del self.unreadable[found.key]
        self.restored.append(head)
        self._data.scopes[head.key.scope][head.key.id].head = head
        return head
