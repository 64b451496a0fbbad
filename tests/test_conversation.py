"""A conversation: reading its end, any part, and damaged records."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace

import pytest
from chathistory_memory import MemoryStore
from entry_factory import make_entry
from faulty_stores import bodies, chat_on, names_of, numbered, said, texts, user

from chathistory import Usage
from chathistory.errors import ConversationNotFound, CorruptRecord, InvalidInput, UnsupportedRecord


class CountingStore(MemoryStore):
    """Counts its reads and the records that they return."""

    reads = records = 0

    def read(self, key, *, start=0, stop=None):
        part = super().read(key, start=start, stop=stop)
        self.reads += 1
        self.records += len(part.records) if part else 0
        return part


def test_an_absent_conversation_is_empty_and_reading_does_not_create_it(store, chat):
    assert (chat.messages(), chat.last_messages(3), chat.last_entries(3), list(chat.entries())) == ([], [], [], [])
    assert (chat.state(), chat.info(), names_of(chat), chat.usage()) == (None, None, (None, (), {}), Usage())
    assert (chat.state(), chat.repair(dry_run=False), chat.forget(before=3)) == (None, (), None)
    with pytest.raises(ConversationNotFound):
        chat.rewind(to=0)
    with pytest.raises(LookupError):
        chat.choose(0)
    assert list(store.keys()) == []
    assert repr(chat) == "Conversation('c', scope='default')"
    assert (chat.id, chat.scope) == ("c", "default")


@pytest.mark.parametrize("count", [0, 1, 2, 7, 8, 9, 33, 60, 61, 1000])
def test_last_messages_returns_the_newest_messages_in_order(chat, count):
    numbered(chat, 60)
    expected = [str(number) for number in range(60)][max(0, 60 - count) :]
    assert texts(chat.last_messages(count)) == expected
    assert [entry.position for entry in chat.last_entries(count)] == [int(text) for text in expected]


def test_last_messages_counts_only_messages(chat):
    numbered(chat, 10)
    for number in range(30):
        chat.annotate(title=str(number))
    chat.append(user("10"))
    assert texts(chat.last_messages(3)) == ["8", "9", "10"]


def test_the_cost_of_last_messages_does_not_grow_with_the_conversation():
    counts = []
    for length in (20, 2000):
        with CountingStore() as store:
            chat = chat_on(store)
            chat.append([user(str(number)) for number in range(length)])
            store.reads = store.records = 0
            chat.last_messages(5)
            counts.append((store.reads, store.records))
    assert counts[0] == counts[1]
    assert counts[0][0] == 1
    assert counts[0][1] <= 20


def test_reading_far_back_takes_ever_larger_steps():
    with CountingStore() as store:
        chat = chat_on(store)
        chat.append([user("a"), said("b")])
        chat.log.append([make_entry("annotation", data={"title": str(number)}) for number in range(2000)])
        store.reads = 0
        assert texts(chat.last_messages(2)) == ["a", "b"]
        assert store.reads <= 12


def test_a_negative_count_is_refused(chat):
    numbered(chat, 3)
    with contextlib.suppress(InvalidInput):
        assert chat.last_messages(-1) == []


def test_last_messages_works_after_many_rewinds(chat):
    numbered(chat, 20)
    for number in range(15):
        chat.append([user(f"u{number}"), said(f"a{number}")])
        chat.rewind(to=chat.state().view.path_position + 1 if number % 2 and chat.state().view.path_position else 20)
        chat.annotate(tags=[str(number)])
    whole = texts(chat.messages())
    assert whole[:20] == [str(number) for number in range(20)]
    assert chat.state().totals.messages == len(whole)
    for count in (1, 5, 19, 20, 21, 50):
        assert texts(chat.last_messages(count)) == whole[-count:]


@pytest.mark.parametrize(
    ("start", "stop"), [(0, None), (3, 9), (-4, None), (-4, -1), (5, 5), (9, 3), (90, 99), (-99, 4), (0, 99), (0, 1)]
)
def test_entries_returns_the_entries_of_the_range(chat, start, stop):
    numbered(chat, 10)
    found = [entry.position for entry in chat.entries(start, stop)]
    low = max(start if start >= 0 else 10 + start, 0)
    if stop is None or stop >= 0:
        assert found == list(range(10))[low:stop]
    else:
        assert found in ([], list(range(10))[low:stop])


def test_entries_after_a_forget_start_at_its_position(chat):
    numbered(chat, 10)
    chat.forget(before=7)
    assert [entry.position for entry in chat.entries()] == [7, 8, 9, 10]
    assert [entry.position for entry in chat.entries(2, 9)] == [7, 8]


def test_a_damaged_record_is_named_and_never_skipped(store):
    chat = chat_on(store)
    numbered(chat, 5)
    store._data.scopes["default"]["c"].bodies[3] = bodies(store, chat)[3].replace('"3"', '"4"')
    for look in (chat.messages, lambda: chat.last_messages(2), lambda: list(chat.entries())):
        with pytest.raises(CorruptRecord) as corrupt:
            look()
        assert corrupt.value.position == 3
    assert [entry.position for entry in chat.entries(0, 3)] == [0, 1, 2]


@pytest.mark.parametrize(
    "info", ["", "nonsense", "[]", "{}", "5", '{"v":2}', '{"v":2,"creation_id":"x","created":0,"turns":"many"}']
)
def test_a_damaged_head_is_reported_as_damage(store, chat, info):
    chat.append(user("x"))
    found = store._data.scopes["default"]["c"]
    found.head = replace(found.head, revision=replace(found.head.revision, payload=info))
    with pytest.raises(CorruptRecord) as corrupt:
        chat.state()
    assert corrupt.value.position is None


def test_an_unknown_field_of_a_head_is_kept(store, chat):
    chat.append(user("x"))
    found = store._data.scopes["default"]["c"]
    payload = json.loads(found.head.revision.payload) | {"hats": [1]}
    found.head = replace(found.head, revision=replace(found.head.revision, payload=json.dumps(payload)))
    assert chat.state().extra == {"hats": [1]}
    chat.append(said("y"))
    assert json.loads(found.head.revision.payload)["hats"] == [1]


def test_a_head_of_a_later_version_is_refused(store, chat):
    chat.append(user("x"))
    found = store._data.scopes["default"]["c"]
    found.head = replace(found.head, revision=replace(found.head.revision, payload='{"v":3}'))
    with pytest.raises(UnsupportedRecord):
        chat.state()
