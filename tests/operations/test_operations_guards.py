"""What takes messages away is guarded by what its own user has seen, and by a version that was carried elsewhere."""

from __future__ import annotations

import asyncio
import threading

import pytest
from chathistory_memory import MemoryStore
from faulty_stores import ShortStore, chat_on, kinds_of, names_of, said, shared_names, texts, user
from made_entries import make_entry

from chathistory import AsyncHistory, ConversationInfo, History, open_store
from chathistory.errors import Conflict, ConversationExists, ConversationNotFound

NAME = "test-core-guards"
LOOKS = ["messages", "view", "state", "info", "last_messages", "last_entries", "entries"]
TAKING = {
    "rewind": lambda chat, **more: chat.rewind(to=1, **more),
    "forget": lambda chat, **more: chat.forget(before=1, **more),
}


@pytest.fixture
def two():
    """Two stores of one name: as two processes have them."""
    with shared_names(NAME), open_store(f"memory:{NAME}") as one, open_store(f"memory:{NAME}") as other:
        yield one, other


def look(chat, how):
    if how in ("last_messages", "last_entries"):
        return getattr(chat, how)(5)
    if how == "entries":
        return list(chat.entries())
    return getattr(chat, how)()


def beside(chat, kind):
    if kind == "annotation":
        chat.annotate(title="another")
    else:
        data = {"lease_until": 1, "lease": "x"} if kind == "lease_renewed" else {"reason": "x"}
        message = said("half") if kind in ("reply_interrupted", "reply_orphaned") else None
        chat.log.append([make_entry(kind, message, data, "T")])


# Per handle.


@pytest.mark.parametrize("where", ["another process", "another object"])
@pytest.mark.parametrize("what", ["message", "rewind", "made again"])
@pytest.mark.parametrize("taking", TAKING)
def test_what_the_user_has_not_seen_is_not_taken_away(two, taking, what, where):
    one, other = two
    chat = chat_on(one)
    chat.append([user("a"), said("b")])
    others = chat_on(other if where == "another process" else one)
    if what == "message":
        others.state()
        others.append(user("acknowledged"))
    elif what == "rewind":
        others.rewind(to=1)
    else:
        others.log.delete()
        others.append([user("c"), said("d"), user("e")])
    before = list(chat_on(other).entries())
    for _ in range(2):
        with pytest.raises(Conflict):
            TAKING[taking](chat)
    assert list(chat_on(other).entries()) == before
    assert chat.messages()
    TAKING[taking](chat)


@pytest.mark.parametrize("how", LOOKS)
@pytest.mark.parametrize("taking", TAKING)
def test_every_look_of_the_same_object_counts(two, taking, how):
    one, other = two
    chat = chat_on(one)
    chat.append([user("a"), said("b")])
    others = chat_on(other)
    others.state()
    others.append(user("c"))
    assert look(chat, how)
    assert chat.version == others.version
    TAKING[taking](chat)


@pytest.mark.parametrize("taking", TAKING)
def test_a_part_further_up_is_no_look_at_the_end(two, taking):
    one, other = two
    chat = chat_on(one)
    chat.append([user("a"), said("b")])
    others = chat_on(other)
    others.state()
    others.append(user("c"))
    version = chat.version
    assert chat.last_entries(1, before=1)
    assert list(chat.entries(0, 1))
    assert (names_of(chat), chat.setup()) == ((None, (), {}), None)
    assert chat.version == version
    with pytest.raises(Conflict):
        TAKING[taking](chat)


@pytest.mark.parametrize("taking", TAKING)
def test_an_object_that_has_returned_nothing_looks_first_and_once(two, taking):
    one, other = two
    chat_on(one).append([user("a"), said("b")])
    others = chat_on(other)
    others.state()
    others.append(user("c"))
    chat = chat_on(one)
    assert chat.version is None
    TAKING[taking](chat)
    assert chat.version == chat_on(one).log.last_head.revision.version


@pytest.mark.parametrize(
    "kind", ["annotation", "lease_renewed", "turn_abandoned", "reply_interrupted", "reply_orphaned"]
)
@pytest.mark.parametrize("taking", TAKING)
@pytest.mark.parametrize("times", [1, 40])
def test_what_stands_beside_is_no_conflict(two, taking, kind, times):
    one, other = two
    chat = chat_on(one)
    chat.append([user("a"), said("b"), user("c")])
    for _ in range(times):
        beside(chat_on(other), kind)
    TAKING[taking](chat)
    assert kinds_of(chat_on(other)).count(kind) == times


@pytest.mark.parametrize("taking", TAKING)
def test_a_message_before_what_stands_beside_is_one(two, taking):
    one, other = two
    chat = chat_on(one)
    chat.append([user("a"), said("b")])
    others = chat_on(other)
    others.state()
    others.append(user("c"))
    others.set_title("another")
    with pytest.raises(Conflict):
        TAKING[taking](chat)


def test_an_own_title_does_not_vouch_for_what_it_went_past(two):
    one, other = two
    fresh, chat = chat_on(one), chat_on(one)
    chat.append([user("a"), said("b")])
    fresh.set_title("mine")
    others = chat_on(other)
    others.state()
    others.append(user("c"))
    chat.set_title("mine as well")
    for each in (chat, fresh):
        with pytest.raises(Conflict):
            each.rewind(to=1)


def test_own_changes_count_as_returned(two):
    one, _ = two
    chat = chat_on(one)
    chat.set_title("A title")
    chat.append([user("a"), said("b"), user("c"), said("d")])
    chat.set_drop_stale_thinking(drop=True)
    chat.rewind(to=4)
    chat.forget(before=2)
    chat.append([user("e"), said("f")])
    chat.rewind(to=chat.last_entries(1)[0].position)
    assert texts(chat.messages())[-1] == "e"


@pytest.mark.parametrize("taking", TAKING)
def test_a_message_that_lands_while_it_is_being_taken_away_is_a_conflict(taking):
    """What is read for a rewind must not vouch for what came between its reads."""
    with shared_names(NAME), ShortStore(NAME) as store, MemoryStore(NAME) as elsewhere:
        chat, others = chat_on(store), chat_on(elsewhere)
        chat.append([user(str(number)) if number % 2 == 0 else said(str(number)) for number in range(40)])
        others.state()
        for reads in range(1, 12):
            left = reads
            landed = []

            def step(landed=landed):
                nonlocal left
                left -= 1
                if left:
                    store.between = step
                else:
                    others.append([user("acknowledged"), said("too")])
                    landed.append(True)

            before = list(others.entries())
            store.arm(step)
            try:
                TAKING[taking](chat)
            except Conflict:
                assert landed
            else:
                store.between = None
                if landed:
                    assert texts(chat_on(elsewhere).messages())[-1] == "too"
                break
            assert list(others.entries())[: len(before)] == before
            assert "too" in texts(others.messages())
            chat.state()


def test_threads_of_one_object_queue(two):
    one, _ = two
    chat = chat_on(one)
    gate = threading.Barrier(8)

    def work(number):
        gate.wait()
        for _ in range(10):
            chat.append([user(f"{number}"), said("x")])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert chat.state().totals.messages == 160


# A version that was carried.


def ways(chat, history):
    """Each public way to a version of what is there now."""
    appended = chat.append([user("x"), said("y")])
    assert chat.messages()
    return {
        "of the conversation": chat.version,
        "of the append": appended.version,
        "of the row": next(row for row in history.list().items if row.id == "c").version,
        "of its info": chat.info().version,
    }


@pytest.mark.parametrize("way", ["of the conversation", "of the append", "of the row", "of its info"])
@pytest.mark.parametrize("change", ["append", *TAKING])
def test_a_version_given_back_in_another_process_guards(two, change, way):
    one, other = two
    chat = chat_on(one)
    version = ways(chat, History(one))[way]
    act = TAKING.get(change, lambda chat, **more: chat.append(user("z"), **more))
    beside(chat_on(one), "annotation")
    page = chat_on(other)
    act(page, expected=version)  # only a title came since
    before = list(chat_on(one).entries())
    for process in (one, other):
        fresh = chat_on(process)
        fresh.state()  # whatever this process or this object has seen
        with pytest.raises(Conflict):
            act(fresh, expected=version)
    assert list(chat_on(one).entries()) == before


@pytest.mark.parametrize("change", ["append", *TAKING])
@pytest.mark.parametrize("version", ["no such version", "", "0" * 28])
def test_a_version_that_never_was_is_a_conflict(two, change, version):
    one, other = two
    chat = chat_on(one)
    chat.append([user("a"), said("b")])
    act = TAKING.get(change, lambda chat, **more: chat.append(user("z"), **more))
    with pytest.raises(Conflict):
        act(chat_on(other), expected=version)
    assert kinds_of(chat) == ["message"] * 2


def test_the_empty_version_is_that_of_no_conversation(two):
    one, other = two
    chat = chat_on(one)
    assert (chat.messages(), chat.version, chat.info()) == ([], "", None)
    with pytest.raises(Conflict):
        chat_on(other).append(user("a"), expected="0" * 28)
    chat_on(other).append(user("a"), expected=chat.version)
    with pytest.raises(Conflict):
        chat_on(other).append(user("a"), expected=chat.version)
    assert chat.info().messages == 1


def test_a_version_vouches_for_what_its_process_has_not_read(two):
    one, other = two
    chat = chat_on(one)
    chat.append(user("a"))
    others = chat_on(other)
    others.state()
    version = others.append(said("b")).version
    chat.set_title("mine")  # went past it
    with pytest.raises(Conflict):
        chat.append(user("c"))
    chat.append(user("c"), expected=version)
    assert texts(chat.messages()) == ["a", "b", "c"]


def test_a_guarded_append_costs_nothing_more_where_it_was_seen_last():
    with ShortStore() as store:
        chat = chat_on(store)
        version = chat.append(user("a")).version
        store.reads = 0
        chat.append(said("b"), expected=version)
        assert store.reads == 0


def test_the_same_for_asyncio(two):
    one, other = two

    async def main():
        async with AsyncHistory(one) as here, AsyncHistory(other) as there:
            chat, others = here.conversation("c"), there.conversation("c")
            assert chat.version is None
            await chat.append([user("a"), said("b")])
            await others.state()
            await others.append(user("c"), expected=chat.version)
            for step in (chat.rewind(to=1), chat.forget(before=1), chat.append(user("d"), expected=chat.version)):
                with pytest.raises(Conflict):
                    await step
            info = await chat.info()
            assert isinstance(info, ConversationInfo)
            assert (info.version, chat.version) == (others.version, others.version)
            await others.rewind(to=2, expected=info.version)
            await chat.forget(before=1, expected=others.version)

    asyncio.run(main())


# Forks.


def test_a_fork_conflicts_only_with_a_taken_name():
    """Whatever is done to the conversation while it is copied."""
    with shared_names(NAME), ShortStore(NAME) as store, MemoryStore(NAME) as elsewhere:
        chat, others = chat_on(store), chat_on(elsewhere)
        chat.append([user(str(number)) for number in range(12)])
        for number, (step, first, count) in enumerate(
            [
                (lambda: others.append(user("later")), 0, 12),
                (lambda: others.forget(before=10), 10, 4),
                (lambda: others.annotate(title="x"), 10, 4),
            ]
        ):
            others.state()
            store.arm(step)
            fork = chat.fork(f"fork {number}")
            assert store.between is None
            assert fork.version == fork.log.last_head.revision.version
            records = list(fork.entries())
            assert (records[0].position, len(records) - 1) == (first, count)
        store.arm(others.log.delete)
        with pytest.raises(ConversationNotFound):
            chat.fork("never")
        assert chat_on(store, "never").state() is None
        chat.append(user("anew"), expected="")
        with pytest.raises(ConversationExists):
            chat.fork("fork 0")
        with pytest.raises(ConversationExists):
            chat.fork("c")
