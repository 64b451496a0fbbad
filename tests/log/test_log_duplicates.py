"""Messages that come again, from a queue or after a lost answer, are stored once."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from anthropic.types import Message
from chathistory_memory import MemoryStore
from entry_factory import make_entry
from faulty_stores import FaultyStore, chat_on, kinds_of, landed_then, reply, said, shared_names, texts, user

from chathistory import AsyncHistory, open_store
from chathistory.errors import Conflict, CorruptRecord, InvalidInput, StoreUnavailable
from chathistory.log import recent_entries
from chathistory.log.recent_entries import LOOKBACK_ENTRIES, RecentEntries, StoredBatch

NAME = "test-core-once"


@pytest.fixture
def two():
    """Two stores of one name: as two processes have them."""
    with shared_names(NAME), open_store(f"memory:{NAME}") as one, open_store(f"memory:{NAME}") as other:
        yield one, other


def again_by(who, one, other):
    """Return the conversation as it is used the second time."""
    return chat_on(other) if who == "another process" else chat_on(one)


@pytest.mark.parametrize("who", ["the same", "another object", "another process"])
@pytest.mark.parametrize("what", [user("a"), [user("a"), said("b"), user("c")]])
def test_a_key_stores_once(two, what, who):
    one, other = two
    chat = chat_on(one)
    chat.append(user("before"))
    first = chat.append(what, key="k")
    if who != "the same":
        chat = again_by(who, one, other)
    again = chat.append(what, key="k")
    assert (again.start, again.end, again.version) == (first.start, first.end, first.version)
    chat.append(user("later"))
    later = chat.append(what, key="k")
    assert (later.end, later.version) == (first.end, first.version)
    assert texts(chat.messages())[0] == "before"
    assert len(chat.messages()) == 2 + (1 if isinstance(what, dict) else 3)
    chat.append(what, key="another")
    assert chat.append(user("a")).end > first.end  # without a key, two identical texts are two messages


def test_a_key_for_other_messages_is_refused(two):
    one, other = two
    chat_on(one).append([user("a"), said("b")], key="k")
    for messages in (user("a"), [user("a"), said("c")], [user("a"), said("b"), user("c")]):
        with pytest.raises(InvalidInput, match="key: was used for other messages before"):
            chat_on(other).append(messages, key="k")
    assert len(chat_on(one).messages()) == 2


@pytest.mark.parametrize("key", ["", 3, b"k", "k" * 256])
def test_an_invalid_key_is_refused(two, key):
    with pytest.raises(InvalidInput, match="key: must be"):
        chat_on(two[0]).append(user("a"), key=key)


@pytest.mark.parametrize("key", ["\ud800", "k\n", "🔑" * 255, "'\"\\"])
def test_any_text_is_a_key(two, key):
    one, other = two
    for store in (one, other):
        chat_on(store).append(user("a"), key=key)
    assert kinds_of(chat_on(one)) == ["message"]


def test_a_key_is_found_among_the_newest_thousand_entries(two):
    one, other = two
    chat = chat_on(one)
    chat.append(user("a"), key="k")
    chat.log.append([make_entry("annotation", data={"title": str(number)}) for number in range(LOOKBACK_ENTRIES - 1)])
    chat_on(other).append(user("a"), key="k")
    chat.append(user("a"), key="k")
    assert chat_on(one).state().totals.messages == 1
    chat.set_title("one more")
    chat_on(other).append(user("a"), key="k")  # stands too far back
    assert chat_on(one).state().totals.messages == 2
    chat.state()
    chat.append(user("a"), key="k")
    assert chat_on(one).state().totals.messages == 2


def test_a_batch_that_begins_before_the_newest_thousand_is_found_too(two):
    one, other = two
    batch = [user(str(number)) if number % 2 == 0 else said(str(number)) for number in range(LOOKBACK_ENTRIES + 20)]
    chat_on(one).append(batch, key="k")
    chat_on(other).append(batch, key="k")
    for wrong in (batch[:-1], [*batch, user("more")], batch[1:3]):
        with pytest.raises(InvalidInput):
            chat_on(other).append(wrong, key="k")
    assert chat_on(one).state().totals.messages == LOOKBACK_ENTRIES + 20


def test_of_many_writers_of_the_same_messages_one_stores_them(two):
    stores = [*two, *[MemoryStore(NAME) for _ in range(6)]]
    gate = threading.Barrier(8)

    def work(store):
        chat = chat_on(store)
        chat.state()
        gate.wait()
        try:
            return chat.append(user("a"), key="k").end
        except Conflict:  # somebody else's of another key
            return None

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(work, stores)) == {1}
    assert kinds_of(chat_on(two[0])) == ["message"]


def test_an_append_with_a_key_is_still_conditional(two):
    one, other = two
    chat = chat_on(one)
    chat.append(user("a"))
    others = chat_on(other)
    others.state()
    others.append(said("theirs"))
    with pytest.raises(Conflict):
        chat.append(user("blind"), key="k")
    with pytest.raises(Conflict):
        others.append(user("blind"), key="k", expected="no such version")
    chat.state()
    version = chat.version
    first = chat.append(user("knowing"), key="k", expected=version)
    assert others.append(user("knowing"), key="k", expected=version).end == first.end  # whatever its own append changed


def test_a_key_whose_answer_was_lost_is_stored_once():
    with shared_names(NAME), FaultyStore(NAME) as store:
        chat = chat_on(store)
        chat.append(user("before"))

        def lost_for_good(call):
            landed_then()(call)

        store.on_append = iter([landed_then(), lost_for_good, lost_for_good])
        with contextlib.suppress(StoreUnavailable, Conflict):
            chat.append(user("a"), key="k")
        store.clear_faults()
        chat_on(store).append(user("a"), key="k")
        assert len(chat_on(store).messages()) == 2


def test_messages_before_a_rewind_are_still_found_by_their_key(two):
    one, other = two
    chat = chat_on(one)
    chat.append(user("before"))
    chat.append(user("a"), key="k")
    chat.rewind(to=1)
    chat_on(other).append(user("a"), key="k")  # delivered once more: it is not to come back by that
    assert texts(chat_on(one).messages()) == ["before"]


# Replies of the API.


@pytest.mark.parametrize("who", ["the same", "another object", "another process"])
def test_a_repeated_reply_is_not_stored_twice(two, who):
    one, other = two
    chat = chat_on(one)
    chat.append(user("a"))
    first = chat.append(reply(1))
    chat.append([user("b"), said("by hand"), user("c")])
    chat = again_by(who, one, other) if who != "the same" else chat
    again = chat.append(reply(1))
    assert (again.end, again.version) == (first.end, first.version)
    assert len(chat.messages()) == 5
    chat.state()
    chat.append(reply(2))
    assert len(chat.messages()) == 6


def test_a_reply_of_the_sdk_counts_too(two):
    made = Message.model_validate(reply(1, input_tokens=1, output_tokens=1))
    for store in two:
        chat_on(store).append([user("a")], key="q")
        chat_on(store).append(made)
    assert len(chat_on(two[0]).messages()) == 2


def test_a_repeated_reply_among_other_messages_is_refused(two):
    one, other = two
    chat_on(one).append([user("a"), reply(1)])
    with pytest.raises(InvalidInput, match=r"messages\[1\]\.id: this reply is stored at position 1 already"):
        chat_on(other).append([user("b"), reply(1)])
    chat = chat_on(other)
    chat.append([user("a"), reply(1)])  # the whole of it again
    assert len(chat_on(one).messages()) == 2


def test_another_reply_with_the_same_id_is_another_reply(two):
    """Some gateways give every reply the same id."""
    one, other = two
    chat_on(one).append([user("a"), reply(1)])
    chat_on(other).append(reply(1) | {"content": [{"type": "text", "text": "another"}]})
    assert texts(chat_on(one).messages()) == ["a", "1", "another"]


def test_a_reply_can_be_stored_again_after_a_rewind(two):
    one, other = two
    chat = chat_on(one)
    chat.append([user("a"), reply(1)])
    chat.rewind(to=1)
    chat_on(other).append(reply(1))
    assert len(chat_on(one).messages()) == 2
    assert chat_on(other).append(reply(1)).end == 4  # and is known again where it stands now


@pytest.mark.parametrize("id", [None, 3, [], {}])
def test_a_response_without_an_id_is_not_recognized(two, id):
    chat = chat_on(two[0])
    for _ in range(2):
        try:
            chat.append(reply(1) | {"id": id})
        except InvalidInput:
            return  # refused for what it is
    assert len(list(chat.entries())) == 2


# What it costs.


class CountingStore(MemoryStore):
    """Counts round trips."""

    calls = 0

    def append(self, *args, **more):
        self.calls += 1
        return super().append(*args, **more)

    def read(self, *args, **more):
        self.calls += 1
        return super().read(*args, **more)


def count_calls(store, step) -> int:
    store.calls = 0
    step()
    return store.calls


@pytest.mark.parametrize("key", [None, "k{}"])
def test_recognizing_costs_nothing_if_the_newest_entries_are_known(key):
    with shared_names(NAME), CountingStore(NAME) as store:
        chat = chat_on(store)
        given = {"key": key.format(0)} if key else {}
        assert count_calls(store, lambda: chat.append([user("a"), reply(0)], **given)) == 2  # as without: look, append
        for number in range(1, 4):
            given = {"key": key.format(number)} if key else {}
            assert count_calls(store, lambda n=number, given=given: chat.append(reply(n), **given)) == 1
        with CountingStore(NAME) as cold:
            chat = chat_on(cold)
            given = {"key": "cold"} if key else {}
            assert count_calls(cold, lambda: chat.append(reply(10), **given)) == 2  # the look reads the newest entries
        with CountingStore(NAME) as warm:
            chat = chat_on(warm)
            chat.messages()
            given = {"key": "warm"} if key else {}
            assert count_calls(warm, lambda: chat.append(reply(11), **given)) == 1


def test_a_message_without_key_costs_no_extra_call():
    with shared_names(NAME), CountingStore(NAME) as store:
        chat_on(store).append([user("a")])
        with CountingStore(NAME) as cold:
            chat = chat_on(cold)
            assert count_calls(cold, lambda: chat.append(said("b"))) == 2
            assert count_calls(cold, lambda: chat.append(user("c"))) == 1


def test_a_damaged_entry_does_not_prevent_an_append(two):
    one, other = two
    chat = chat_on(one)
    chat.append(user("a"))
    chat.append(said("b"))
    found = one._data.scopes["default"]["c"]
    found.bodies[0] = found.bodies[0].replace("a", "b", 1)
    with pytest.raises(CorruptRecord):
        list(chat_on(other).entries())
    chat_on(other).append(reply(1))
    chat_on(other).append(reply(1))
    chat_on(other).append(user("k"), key="k")
    assert chat_on(other).state().totals.messages == 4


def test_a_store_that_refuses_to_read_damage_prevents_only_an_append_with_a_key():
    """Without the newest entries, a message without a key is appended; with one, nobody can tell if it is stored."""
    with FaultyStore() as store:
        chat_on(store).append([user("a"), said("b"), user("c")])

        def damaged(_):
            raise CorruptRecord(chat_on(store).log.key, 0, "it is hurt")

        store.on_read = iter([damaged])
        with pytest.raises(CorruptRecord):
            chat_on(store).append(reply(1), key="k")
        assert chat_on(store).state().totals.messages == 3
        store.on_read = iter([damaged])
        chat_on(store).append(reply(1))
        assert texts(chat_on(store).last_messages(2)) == ["c", "1"]


def test_a_repeated_reply_is_an_error_if_the_head_names_a_record_without_the_active_path(two):
    one, other = two
    chat = chat_on(one)
    chat.append([user("a"), reply(1)])
    chat.append([user("b"), said("c")])
    found = one._data.scopes["default"]["c"]
    state = json.loads(found.head.revision.payload) | {"path_position": 3}
    found.head = replace(found.head, revision=replace(found.head.revision, payload=json.dumps(state)))
    with pytest.raises(CorruptRecord, match="it does not hold the active path") as corrupt:
        chat_on(other).append(reply(1))
    assert corrupt.value.position == 3
    assert len(found.bodies) == 4


def test_what_is_remembered_of_the_newest_entries_is_bounded(monkeypatch):
    monkeypatch.setattr(recent_entries, "LOOKBACK_ENTRIES", 4)
    recent = RecentEntries("v0")
    for position in range(100):
        data = {"key": f"k{position}", "response": {"id": f"msg_{position}"}}
        recent.extend(f"v{position + 1}", [make_entry("message", message=said("x"), data=data)], position)
        assert len(recent._keys) <= 8
        assert len(recent._responses) <= 8
    assert recent.version == "v100"
    assert recent.find_by_key("k96", 100) == StoredBatch(96, 96)
    assert recent.find_by_response("msg_96", 100) == 96
    assert recent.find_by_key("k95", 100) is None
    assert recent.find_by_response("msg_95", 100) is None


def test_the_same_for_asyncio(two):
    async def main():
        for store in two:
            async with AsyncHistory(store) as history:
                await history.conversation("c").append(user("a"), key="k")
                await history.conversation("c").append(reply(1))

    asyncio.run(main())
    assert len(chat_on(two[0]).messages()) == 2
