"""A store that goes back to an earlier state, as a server does after a failover: no loss is silent."""

from __future__ import annotations

import pytest

from chathistory import Conversation, History, HistoryStore, open_store
from chathistory.errors import Conflict


@pytest.fixture
def conversation():
    """A conversation of three messages, as this process read it last."""
    conversation = History(open_store("memory:")).conversation("c")
    for text in ("one", "two", "three"):
        conversation.append({"role": "user", "content": text})
    return conversation


def roll_back(conversation: Conversation, count: int) -> HistoryStore:
    """Return the store without the newest `count` records, at the revision that it had before them."""
    store, key = conversation.log.store, conversation.log.key
    head, entries = conversation.log.load()
    kept = entries[: head.end - count]
    older = History(open_store("memory:")).conversation("c")
    for entry in kept:
        older.log.append([entry])
    state = older.log.store.read(key)
    store.delete(key)
    store.append(key, [record.body for record in state.records], after=None, revision=state.head.revision)
    return store


def texts(conversation: Conversation) -> list[str]:
    return [message["content"] for message in conversation.messages()]


@pytest.mark.parametrize("count", [1, 2])
def test_a_writer_that_has_read_lost_entries_gets_a_conflict(conversation, count):
    roll_back(conversation, count)
    with pytest.raises(Conflict):
        conversation.append({"role": "user", "content": "four"})
    conversation.state()
    conversation.append({"role": "user", "content": "four"})
    assert texts(conversation) == [*["one", "two", "three"][: 3 - count], "four"]


@pytest.mark.parametrize("others", [1, 2, 3])
def test_conflict_even_if_others_refilled_the_lost_positions(conversation, others):
    store = roll_back(conversation, 1)
    sharing = History(open_store("memory:")).conversation("c")
    sharing.log.store = store
    for number in range(others):
        sharing.set_title(f"title {number}")
    with pytest.raises(Conflict):
        conversation.append({"role": "user", "content": "four"})
    assert texts(sharing) == ["one", "two"]
