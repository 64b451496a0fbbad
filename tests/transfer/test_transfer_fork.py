"""Forks: an exact prefix, independent of its origin, which it names, and created completely or not at all."""

from __future__ import annotations

import pytest
from entry_factory import make_entry
from faulty_stores import (
    CALL,
    RESULT,
    FaultyStore,
    bodies,
    chat_on,
    kinds_of,
    numbered,
    reply,
    said,
    surely_not_landed,
    texts,
    unavailable,
    user,
)

from chathistory import History, Origin
from chathistory.errors import (
    Conflict,
    ConversationChanged,
    ConversationExists,
    ConversationNotFound,
    InvalidInput,
    StoreUnavailable,
)
from chathistory.log import bulk_create
from chathistory.log.state import read_state
from chathistory.view import build_view


def view_without_later_records(chat, at):
    """Return the messages that a conversation sends that has only the records below a position."""
    return build_view(list(chat.entries(0, at))).messages


def test_a_fork_at_any_position_sends_what_was_sent_there(store, chat):
    chat.append([user("hi"), CALL, RESULT, said("done"), user("more"), said("ok")])
    for at in range(1, 7):
        fork = chat.fork(f"at {at}", at=at)
        assert fork.messages() == view_without_later_records(chat, at)
        assert bodies(store, fork)[:at] == bodies(store, chat)[:at]
        assert fork.state().totals.messages == at


def test_a_fork_and_its_origin_are_independent(store, chat):
    numbered(chat, 4)
    before = bodies(store, chat)
    fork = chat.fork("f", at=2)
    fork.append([user("other"), said("way")])
    fork.rewind(to=1)
    fork.append(said("again"))
    assert texts(fork.messages()) == ["0", "again"]
    assert bodies(store, chat) == before
    chat.append(user("on"))
    assert texts(chat.messages()) == ["0", "1", "2", "3", "on"]


def test_a_fork_into_another_scope_has_its_origin(store, chat):
    numbered(chat, 3)
    chat.annotate(title="Tea", tags=["a"], metadata={"k": 1})
    chat.append(reply(3, input_tokens=5))
    fork = chat.fork("f", at=2, scope="other")
    row = History(store).list(scope="other").items[0]
    assert (fork.id, fork.scope, row.id) == ("f", "other", "f")
    assert row.origin == Origin("default", "c", 2)
    assert (row.title, row.tags, row.metadata) == ("Tea", ("a",), {"k": 1})
    assert (row.messages, row.usage, row.preview) == (2, {}, "0")
    assert row.created >= History(store).list().items[0].updated
    assert History(store).list().items[0].origin is None
    assert fork.fork("g").state().identity.origin == Origin("other", "f", 3)


def test_without_a_position_everything_is_forked(store, chat):
    numbered(chat, 5)
    fork = chat.fork("f")
    assert fork.messages() == chat.messages()
    assert kinds_of(fork) == ["message"] * 5 + ["forked"]


def test_a_fork_can_bring_back_messages_that_a_rewind_took_back(chat):
    numbered(chat, 4)
    chat.rewind(to=1)
    chat.append(said("better"))
    assert texts(chat.messages()) == ["0", "better"]
    assert texts(chat.fork("old", at=4).messages()) == ["0", "1", "2", "3"]
    fork = chat.fork("new")
    assert texts(fork.messages()) == ["0", "better"]
    fork.append(user("and"))
    assert texts(fork.messages()) == ["0", "better", "and"]
    assert fork.state().totals.messages == 3


def test_a_fork_does_not_have_the_open_turn_of_its_origin(chat):
    entry = make_entry("message", message=user("?"), data={"lease_until": 2**60}, turn="t")
    chat.log.append([entry])
    assert chat.state().engine.open_turn is not None
    assert chat.fork("f").state().engine.open_turn is None


def test_the_setup_at_that_point_is_kept(chat):
    marks = [{"model": "m", "system": s, "tools": "t"} for s in "ab"]
    chat.log.append([make_entry("setup", data={"fingerprints": marks[0]})])
    chat.append([user("hi"), CALL, RESULT, said("x")])
    chat.log.append([make_entry("setup", data={"fingerprints": marks[1]})])
    early, late = chat.fork("early", at=5), chat.fork("late")
    assert (early.state().engine.setup_fingerprints, early.state().view.thinking_valid_from) == (marks[0], 0)
    assert (late.state().engine.setup_fingerprints, late.state().view.thinking_valid_from) == (marks[1], 5)
    assert any("thinking" in str(message["content"]) for message in early.messages())
    assert late.messages() == chat.messages()


def test_after_a_forget_a_fork_starts_at_the_same_position(store, chat):
    chat.append([user("hi"), CALL, RESULT, said("done"), user("more"), CALL, RESULT, said("ok")])
    chat.forget(before=4)
    assert chat.state().view.thinking_valid_from == 8
    before, after = chat.fork("before", at=8), chat.fork("after", at=9)
    for fork in (before, after):
        head = fork.log.refresh()
        assert (head.start, read_state(head).view.thinking_valid_from) == (4, 8)
        assert fork.messages() == chat.messages()
        assert fork.state().totals.messages == chat.state().totals.messages == 4
    assert before.state().totals.preview == "more"
    assert after.state().totals.preview is None


@pytest.mark.parametrize("at", [-1, 0, 2, 6, 10**6])
def test_a_position_outside_the_conversation_is_refused(store, chat, at):
    numbered(chat, 4)
    chat.forget(before=2)
    with pytest.raises(InvalidInput, match=f"cannot fork at position {at}: choose one from 3 to 5"):
        chat.fork("f", at=at)
    assert list(store.keys()) == [chat.log.key]


def test_an_absent_conversation_cannot_be_forked(chat):
    for at in (None, 3):
        with pytest.raises(ConversationNotFound, match="there is no conversation 'c' in scope 'default'"):
            chat.fork("f", at=at)


def test_a_fork_needs_a_free_id(store, chat):
    numbered(chat, 2)
    chat_on(store, "f").append(user("mine"))
    for name in ("f", "c"):
        with pytest.raises(ConversationExists, match="choose another id") as caught:
            chat.fork(name)
        assert caught.value.key.id == name
        assert not isinstance(caught.value, ConversationChanged)
    assert texts(chat_on(store, "f").messages()) == ["mine"]


def test_a_fork_replaces_an_expired_conversation(store, chat):
    numbered(chat, 2)
    store.ttl = -1
    chat_on(store, "f").append(user("old"))
    store.ttl = None
    assert texts(chat.fork("f").messages()) == ["0", "1"]


def test_a_fork_gets_the_time_to_live_of_the_store(store, chat):
    numbered(chat, 2)
    store.ttl = 3600
    chat.fork("f")
    rows = {row.id: row for row in History(store).list().items}
    assert rows["c"].expires is None
    assert 3500 < (rows["f"].expires - rows["f"].updated).total_seconds() <= 3600


def test_forking_does_not_count_as_reading(store, chat):
    numbered(chat, 2)
    other = chat_on(_same_data(store))
    other.append(user("theirs"))
    chat.fork("f")
    with pytest.raises(Conflict):
        chat.append(user("mine"))


def _same_data(store):
    other = type(store)()
    other._data = store._data
    return other


# Forks of several portions.


@pytest.fixture
def small_portions(monkeypatch):
    monkeypatch.setattr(bulk_create, "BATCH_BYTES", 1000)


class WatchedStore(FaultyStore):
    """Looks at the listing of another process after each append."""

    def append(self, *args, **kwargs):
        head = super().append(*args, **kwargs)
        other = History(_same_data(self))
        self.seen.append([row.id for row in other.list().items])
        assert other.conversation("f").messages() in ([], self.whole)
        return head


def test_a_large_fork_is_visible_only_when_it_is_complete(small_portions):
    store = WatchedStore()
    store.seen, store.whole = [], None
    chat = chat_on(store)
    chat.append([user("x" * 300) for _ in range(20)])
    store.seen, store.whole = [], chat.messages()
    fork = chat.fork("f")
    assert len(store.seen) > 5
    assert [sorted(names) for names in store.seen] == [["c"]] * (len(store.seen) - 1) + [["c", "f"]]
    assert fork.messages() == chat.messages()


@pytest.mark.parametrize("step", [2, 4])
def test_a_fork_that_fails_leaves_nothing(small_portions, step):
    store = FaultyStore()
    chat = chat_on(store)
    chat.append([user("x" * 300) for _ in range(20)])
    ok = [None] * (step - 1)
    store.on_append = iter([*ok, surely_not_landed])
    with pytest.raises(StoreUnavailable):
        chat.fork("f")
    assert list(store.keys()) == [chat.log.key]
    store.clear_faults()
    assert chat.fork("f").messages() == chat.messages()


def test_an_interrupted_fork_is_absent_and_can_be_repeated(small_portions):
    store = FaultyStore()
    chat = chat_on(store)
    chat.append([user("x" * 300) for _ in range(20)])
    store.on_append = iter([None, None, _die])
    store.on_delete = iter([_die])
    with pytest.raises(SystemExit):
        chat.fork("f")
    store.clear_faults()
    assert len(list(store.keys())) == 2
    again = History(_same_data(store))
    assert [row.id for row in again.list().items] == ["c"]
    assert again.conversation("f").messages() == []
    assert again.delete("f") is None
    chat.fork("f")
    assert again.conversation("f").messages() == chat.messages()


def _die(call):
    raise SystemExit


def test_the_last_portion_is_resolved_after_a_lost_answer(small_portions):
    store = FaultyStore()
    chat = chat_on(store)
    chat.append([user("x" * 300) for _ in range(20)])
    chat.forget(before=5)
    for step in range(9):
        store.on_append = iter([None] * step + [_store_and_lose_answer])
        assert chat.fork(f"f{step}").messages() == chat.messages()


def _store_and_lose_answer(call):
    call()
    raise unavailable()


def test_a_fork_with_a_lost_answer_is_resolved_although_it_was_continued(small_portions):
    store = FaultyStore()
    chat = chat_on(store)
    chat.append([user("x" * 30) for _ in range(4)])
    chat.forget(before=2)

    def store_and_continue(call):
        call()
        chat_on(_same_data(store), "f").append(user("on"))
        raise unavailable()

    store.on_append = iter([store_and_continue])
    fork = chat.fork("f", at=4)
    assert fork.state().totals.messages == 3
    assert texts(fork.messages())[-1] == "on"


def test_a_conversation_without_a_record_cannot_be_created(store, chat):
    with pytest.raises(InvalidInput, match="at least one record"):
        bulk_create.bulk_create(chat.log, [], first=0, revision=lambda: None)


# Paging backward.


@pytest.mark.parametrize("rewound", [False, True])
def test_messages_page_backward(chat, rewound):
    numbered(chat, 25)
    chat.set_title("x")
    if rewound:
        chat.rewind(to=20)
        chat.append([user("20b"), said("21b")])
    whole = texts(chat.messages())
    pages, before = [], None
    while page := chat.last_entries(4, before=before):
        pages.append([entry.message for entry in page])
        before = page[0].position
    assert texts([message for page in reversed(pages) for message in page]) == whole
    assert [len(page) for page in pages[:-1]] == [4] * (len(pages) - 1)
    assert chat.last_entries(3, before=0) == []
    assert chat.last_entries(3, before=10**6) == chat.last_entries(3)


def test_reading_an_earlier_page_does_not_count_as_seen(store, chat):
    numbered(chat, 6)
    chat_on(_same_data(store)).append(user("theirs"))
    assert len(chat.last_entries(2, before=4)) == 2
    with pytest.raises(Conflict):
        chat.append(user("mine"))


def test_a_negative_position_is_refused(chat):
    with pytest.raises(InvalidInput):
        chat.last_entries(2, before=-1)
