"""An append whose answer is lost, at each step: never doubled, never lost, and the right word for it."""

from __future__ import annotations

import itertools

import pytest
from chathistory_memory import MemoryStore
from faulty_stores import (
    FaultyStore,
    always_unavailable,
    chat_on,
    landed_but_refused,
    landed_then,
    names_of,
    not_landed,
    said,
    shared_names,
    surely_not_landed,
    texts,
    unavailable,
    user,
)

from chathistory.errors import Conflict, OutcomeUnknown, StoreRejected, StoreUnavailable

NAME = "test-core-commit"


@pytest.fixture
def store():
    with shared_names(NAME), FaultyStore(NAME) as store:
        yield store


@pytest.fixture
def other(store):
    """The same conversation, as another process has it."""
    with MemoryStore(NAME) as elsewhere:
        yield chat_on(elsewhere)


@pytest.fixture(params=["first append", "later append", "batch"])
def chat(request, store):
    chat = chat_on(store)
    if request.param != "first append":
        chat.append(user("before"))
    chat.batch = [user("new")] if request.param != "batch" else [user("new"), said("new"), user("new")]
    chat.start = 0 if request.param == "first append" else 1
    return chat


def stored(other):
    other.state()
    return texts([entry.message for entry in other.entries() if entry.kind == "message"])


def expected(chat, *, times=1):
    return ["before"] * chat.start + ["new"] * (len(chat.batch) * times)


def test_a_stored_append_with_a_lost_answer_succeeds(store, other, chat):
    store.on_append = iter([landed_then()])
    head = chat.append(chat.batch)
    assert stored(other) == expected(chat)
    assert head.end == chat.start + len(chat.batch)
    chat.append(chat.batch)
    assert stored(other) == expected(chat, times=2)


def test_an_append_that_was_lost_with_its_answer_is_repeated(store, other, chat):
    store.on_append = iter([not_landed])
    assert chat.append(chat.batch).end == chat.start + len(chat.batch)
    assert stored(other) == expected(chat)


def test_an_append_that_was_certainly_not_stored_is_not_repeated(store, other, chat):
    before, store.on_append = store.appends, iter([surely_not_landed])
    with pytest.raises(StoreUnavailable) as failed:
        chat.append(chat.batch)
    assert failed.value.outcome == "not stored"
    assert store.appends == before + 1
    assert stored(other) == ["before"] * chat.start
    chat.append(chat.batch)
    assert stored(other) == expected(chat)


def test_a_stored_append_that_a_client_library_repeated_succeeds(store, other, chat):
    store.on_append = iter([landed_but_refused(chat.log.key, store)])
    assert chat.append(chat.batch).end == chat.start + len(chat.batch)
    assert stored(other) == expected(chat)
    chat.append(user("next"))
    assert stored(other) == [*expected(chat), "next"]


@pytest.mark.parametrize("refused", [False, True])
def test_a_stored_append_succeeds_though_others_have_appended_since(store, other, chat, refused):
    fault = landed_but_refused(chat.log.key, store, lambda: (other.state(), other.append(said("theirs"))))
    lost_answer = landed_then(lambda: (other.state(), other.append(said("theirs"))))
    store.on_append = iter([fault if refused else lost_answer])
    head = chat.append(chat.batch)
    assert head.end == chat.start + len(chat.batch)
    assert stored(other) == [*expected(chat), "theirs"]
    with pytest.raises(Conflict) as conflict:  # theirs was not seen
        chat.append(user("blind"))
    assert type(conflict.value) is Conflict
    assert stored(other) == [*expected(chat), "theirs"]
    chat.state()
    chat.append(user("knowing"))
    assert stored(other) == [*expected(chat), "theirs", "knowing"]


def test_identical_text_of_others_is_a_conflict(store, other, chat):
    def theirs(_call):
        other.state()
        other.append(chat.batch)
        raise unavailable()

    store.on_append = iter([theirs])
    with pytest.raises(Conflict) as conflict:
        chat.append(chat.batch)
    assert type(conflict.value) is Conflict
    assert conflict.value.head.end == chat.start + len(chat.batch)
    assert stored(other) == expected(chat)


@pytest.mark.parametrize("refused", [False, True])
def test_a_stored_append_that_was_forgotten_since_is_unknown(store, other, chat, refused):
    """Others append and forget: what could tell whether ours was stored is gone."""

    def after():
        other.state()
        other.append(said("theirs"))
        other.forget(before=chat.start + len(chat.batch))

    fault = landed_but_refused(chat.log.key, store, after) if refused else landed_then(after)
    store.on_append = iter([fault])
    with pytest.raises(OutcomeUnknown):
        chat.append(chat.batch)
    assert stored(other) == ["theirs"]


def test_a_stored_append_with_records_removed_since_is_unknown(store, other, chat):
    """The revision that is there is ours, so it was stored, although its lines are gone."""
    store.on_append = iter([landed_then(lambda: MemoryStore.forget(store, chat.log.key, before=10))])
    end = chat.start + len(chat.batch)
    head = chat.append(chat.batch)
    assert (head.start, head.end) == (end, end)


def test_records_that_are_forgotten_before_they_are_read_are_unknown(store, other):
    chat = chat_on(store)
    chat.append(user("before"))

    def forgotten(call):
        other.forget(before=2)
        return call()

    store.on_append = iter([landed_then(lambda: (other.state(), other.append(said("theirs"))))])
    store.on_read = iter([forgotten])
    with pytest.raises(OutcomeUnknown):
        chat.append(user("new"))


def test_an_append_to_a_conversation_deleted_since_is_unknown(store, other, chat):
    store.on_append = iter([landed_then(other.log.delete)])
    if chat.start:
        with pytest.raises(OutcomeUnknown) as unknown:
            chat.append(chat.batch)
        assert unknown.value.head is None
        assert stored(other) == []
    else:  # nothing was there before, nothing is there now: it is stored
        chat.append(chat.batch)
        assert stored(other) == expected(chat)


def test_an_append_to_a_conversation_created_again_since_is_a_conflict(store, other, chat):
    def again():
        other.log.delete()
        other.append([user("another")] * 5)

    store.on_append = iter([landed_then(again)])
    with pytest.raises(Conflict):
        chat.append(chat.batch)
    assert stored(other) == ["another"] * 5


def test_a_store_that_stays_unreachable_after_the_append(store, other, chat):
    store.on_append = itertools.chain([landed_then()], always_unavailable("not stored"))
    with pytest.raises(StoreUnavailable) as failed:
        chat.append(chat.batch)
    assert failed.value.outcome == "unknown"
    store.clear_faults()
    assert stored(other) == expected(chat)
    with pytest.raises(Conflict):  # a repeated append is an error, instead of a duplicate
        chat.append(chat.batch)
    assert stored(other) == expected(chat)


@pytest.mark.parametrize("outcome", ["unknown", "not stored"])
@pytest.mark.parametrize("refused", [False, True])
def test_a_store_that_is_unreachable_when_the_outcome_is_read(store, other, chat, outcome, refused):
    """A look that fails says nothing of the append, whatever the store says of the look."""
    store.on_append = iter(
        [
            landed_but_refused(chat.log.key, store, lambda: other.annotate(title="theirs"))
            if refused
            else landed_then(lambda: other.annotate(title="theirs"))
        ]
    )
    other.state()
    if chat.start:
        chat.state()
    else:
        chat.state()
        other.log._local_state.is_known = False  # it looks when it is its turn
    store.on_read = always_unavailable(outcome)
    with pytest.raises(StoreUnavailable) as failed:
        chat.append(chat.batch)
    assert failed.value.outcome == "unknown"
    store.clear_faults()
    assert stored(other) == expected(chat)


def test_a_store_that_is_unreachable_from_the_beginning(store, other, chat):
    store.on_append = always_unavailable("unknown")
    with pytest.raises(StoreUnavailable) as failed:
        chat.append(chat.batch)
    assert failed.value.outcome == "unknown"
    store.clear_faults()
    assert stored(other) == ["before"] * chat.start
    chat.append(chat.batch)
    assert stored(other) == expected(chat)


def test_a_refusal_of_the_second_attempt_says_nothing_about_the_first(store, other, chat):
    def full(_call):
        raise StoreRejected("no space")

    store.on_append = iter([landed_then(), full])
    with pytest.raises(StoreUnavailable) as failed:
        chat.append(chat.batch)
    assert failed.value.outcome == "unknown"
    assert stored(other) == expected(chat)


def test_a_refusal_of_the_first_attempt_is_raised_and_nothing_is_stored(store, other, chat):
    def full(_call):
        raise StoreRejected("no space")

    store.on_append = iter([full])
    with pytest.raises(StoreRejected):
        chat.append(chat.batch)
    assert stored(other) == ["before"] * chat.start
    chat.append(chat.batch)
    assert stored(other) == expected(chat)


def test_the_first_attempt_is_stored_late_before_the_second(store, other, chat):
    """The first try times out, lands while the second is under way, and refuses it."""
    late = []

    def delayed(call):
        late.append(call)
        raise unavailable()

    def second(call):
        late[0]()
        return call()

    store.on_append = iter([delayed, second])
    chat.append(chat.batch)
    assert stored(other) == expected(chat)


def test_a_lost_annotation_that_is_rebased_is_stored_once(store, other):
    chat = chat_on(store)
    chat.append(user("before"))
    store.on_append = iter([landed_then(lambda: (other.state(), other.append(said("theirs"))))])
    chat.set_title("mine")
    other.state()
    assert [entry.kind for entry in other.entries()] == ["message", "annotation", "message"]
    assert names_of(other)[0] == "mine"
