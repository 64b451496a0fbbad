"""`chathistory`, twice: the library as applications use it, and a backend alone, without the core.

The difference between the two is the work of the core: checking and copying messages, ids and checksums, the state
(title, totals, preview), the queue of the process.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

from chathistory import Conversation, Head, History, HistoryStore, Key, Revision, open_store
from chathistory.errors import Conflict
from chathistory.log.clock import fresh_token

from ..samples import INFO, Turn, fresh_name, turn
from .library_base import MeasuredLibrary

__all__ = ["Chathistory", "Store"]

_ONE = [json.dumps(turn()[0])]
_BEGIN, _STEP = 1_760_000_000_000_000, 90_000_000  # a conversation in 90 seconds: 40 in an hour
_BATCH, _BY_TURNS = 500, 250  # old turns are stored in batches, the newest one by one


@contextmanager
def _without_syncing() -> Iterator[None]:
    """Do not wait for the disk during the block: 20,000 new files would take minutes."""
    from unittest.mock import patch  # imports asyncio, which a fresh process does not need

    with patch("os.fsync", lambda _: None), patch("chathistory_file.write._sync", lambda _: None):
        yield


class _ChathistoryBase(MeasuredLibrary):
    imports: ClassVar[str] = "import chathistory"

    def __init__(self, place: str) -> None:
        super().__init__(place)
        self.store: HistoryStore = open_store(place)

    def fill(self, name: str, turns: list[Turn]) -> None:
        past = max(len(turns) - _BY_TURNS, 0)
        with _without_syncing():
            for first in range(0, past, _BATCH):
                self.append(name, [message for turn in turns[first : min(first + _BATCH, past)] for message in turn])
            for turn in turns[past:]:
                self.append(name, turn)

    def fill_conversations(self, count: int) -> None:
        if self.store.heads(self._listing_scope(count), limit=1).items:
            return
        with _without_syncing():
            for number in range(count):
                revision = Revision(fresh_token(), _BEGIN + number * _STEP, None, INFO)
                self.store.append(
                    Key(self._listing_scope(count), f"chat-{number}"), _ONE, after=None, revision=revision
                )

    def _listing_scope(self, count: int) -> str:
        return f"listing-{count}"

    def close(self) -> None:
        self.store.close()


class Chathistory(_ChathistoryBase):
    """The library: `History` and `Conversation`."""

    name: ClassVar[str] = "chathistory"

    def __init__(self, place: str) -> None:
        super().__init__(place)
        self.history = History(self.store)
        self._chats: dict[str, Conversation] = {}

    def append(self, name: str, turn: Turn) -> object:
        return self._chat(name).append(turn)

    def tail(self, name: str) -> list[Any]:
        return self._chat(name).last_messages(20)

    def load(self, name: str) -> list[Any]:
        return self._chat(name).messages()

    def recent(self, count: int) -> list[Any]:
        return list(self.history.list(scope=self._listing_scope(count)).items)

    def kept(self, given: Any) -> Any:
        name = fresh_name()
        self.history.conversation(name).append(given)
        (entry,) = self.history.conversation(name).entries()
        return entry.message

    def _chat(self, name: str) -> Conversation:
        chat = self._chats.get(name)
        if chat is None:
            chat = self._chats[name] = self.history.conversation(name)
        return chat


class Store(_ChathistoryBase):
    """The backend alone: the same bytes of JSON as the raw form, with guard, head and index."""

    name: ClassVar[str] = "backend alone"

    def __init__(self, place: str) -> None:
        super().__init__(place)
        self._heads: dict[tuple[int, str], Head | None] = {}

    def append(self, name: str, turn: Turn) -> object:
        bodies = [json.dumps(message) for message in turn]
        seen = threading.get_ident(), name
        while True:
            try:
                self._heads[seen] = self._append_once(name, bodies, self._heads.get(seen))
            except Conflict as conflict:
                self._heads[seen] = conflict.head
            else:
                return None

    def tail(self, name: str) -> list[Any]:
        found = self.store.read(self._key(name), start=-20)
        return [json.loads(record.body) for record in found.records] if found else []

    def load(self, name: str) -> list[Any]:
        messages: list[Any] = []
        while found := self.store.read(self._key(name), start=len(messages)):
            messages += [json.loads(record.body) for record in found.records]
            if len(messages) == found.head.end:
                break
        return messages

    def recent(self, count: int) -> list[Any]:
        return list(self.store.heads(self._listing_scope(count)).items)

    def _append_once(self, name: str, bodies: list[str], head: Head | None) -> Head:
        updated = head.revision.updated + 1 if head else _BEGIN
        revision = Revision(fresh_token(), updated, None, INFO)
        return self.store.append(self._key(name), bodies, after=head, revision=revision)

    def _key(self, name: str) -> Key:
        return Key("alone", name)
