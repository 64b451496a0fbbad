"""A store that goes back to an earlier state, as a server does after a failover: nobody's loss is silent."""

from __future__ import annotations

import pytest

from chathistory import Conversation, History, HistoryStore, open_store
from chathistory.errors import Conflict


@pytest.fixture
def chat():
    """A conversation of three messages, as this process has seen it."""
    chat = History(open_store("memory:")).conversation("c")
    for words in ("one", "two", "three"):
        chat.append({"role": "user", "content": words})
    return chat


def lose(chat: Conversation, count: int) -> HistoryStore:
    """Take the newest records away from under it, with the revision that was there before them."""
    store, key = chat.log.store, chat.log.key
    head, entries = chat.log.load()
    kept = entries[: head.end - count]
    older = History(open_store("memory:")).conversation("c")
    for entry in kept:
        older.log.append([entry])
    state = older.log.store.read(key)
    store.delete(key)
    store.append(key, [record.body for record in state.records], after=None, revision=state.head.revision)
    return store


def texts(chat: Conversation) -> list[str]:
    return [message["content"] for message in chat.messages()]


@pytest.mark.parametrize("count", [1, 2])
def test_a_writer_that_has_read_lost_entries_gets_a_conflict(chat, count):
    lose(chat, count)
    with pytest.raises(Conflict):
        chat.append({"role": "user", "content": "four"})
    chat.state()
    chat.append({"role": "user", "content": "four"})
    assert texts(chat) == [*["one", "two", "three"][: 3 - count], "four"]


@pytest.mark.parametrize("others", [1, 2, 3])
def test_also_if_others_wrote_side_entries_in_their_place(chat, others):
    store = lose(chat, 1)
    sharing = History(open_store("memory:")).conversation("c")
    sharing.log.store = store
    for number in range(others):
        sharing.set_title(f"title {number}")
    with pytest.raises(Conflict):
        chat.append({"role": "user", "content": "four"})
    assert texts(sharing) == ["one", "two"]
