"""How many calls the core makes to a store, and for how many records: the same for a long conversation."""

from __future__ import annotations

import pytest
from chathistory_memory import MemoryStore

from chathistory import Conversation, History
from chathistory.log import local_state

TURN = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Good day"}]


class CountingStore(MemoryStore):
    """A store that notes each call, and the number of records written or read."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def append(self, key, bodies, **more):
        self.calls.append(("append", len(bodies)))
        return super().append(key, bodies, **more)

    def read(self, key, **more):
        found = super().read(key, **more)
        self.calls.append(("read", len(found.records) if found else 0))
        return found

    def heads(self, scope, **more):
        page = super().heads(scope, **more)
        self.calls.append(("heads", len(page.items)))
        return page

    def take_calls(self):
        calls, self.calls = self.calls, []
        return calls


@pytest.fixture
def store():
    with CountingStore() as store:
        yield store


@pytest.fixture(params=[10, 10_000])
def chat(request, store) -> Conversation:
    chat = History(store).conversation("chat")
    chat.append(TURN * (request.param // 2))
    store.take_calls()
    return chat


def as_another_process(store) -> Conversation:
    local_state._local_states.clear()
    return History(store).conversation("chat")


def test_a_warm_append_is_one_append(store, chat):
    chat.append(TURN)
    assert store.take_calls() == [("append", 2)]


def test_the_first_append_of_a_process_reads_the_head(store, chat):
    as_another_process(store).append(TURN)
    assert store.take_calls() == [("read", 0), ("append", 2)]


def test_a_process_that_has_read_appends_without_another_read(store, chat):
    again = as_another_process(store)
    again.last_messages(2)
    store.take_calls()
    again.append(TURN)
    assert store.take_calls() == [("append", 2)]


def test_the_last_messages_are_one_read_of_few_records(store, chat):
    assert len(chat.last_messages(5)) == 5
    ((kind, records),) = store.take_calls()
    assert kind == "read"
    assert records <= 5 + 8


def test_all_messages_are_one_read(store, chat):
    count = len(chat.messages())
    assert store.take_calls() == [("read", count)]


def test_a_page_is_one_listing_and_reads_no_conversation(store, chat):
    for number in range(30):
        History(store).conversation(f"c{number}").append(TURN)
    store.take_calls()
    assert len(History(store).list(limit=20).items) == 20
    assert store.take_calls() == [("heads", 20)]


def test_a_title_costs_one_append_once_the_head_is_known(store, chat):
    assert chat.state().totals.usage == {}
    assert store.take_calls() == [("read", 0)]
    chat.set_title("Greetings")
    assert store.take_calls() == [("append", 1)]


def test_a_head_stays_small_however_long_the_conversation(store, chat):
    chat.append(TURN)
    assert len(chat.log.last_head.revision.payload) < 250
