"""Removals of messages are guarded by what their object has returned, or by an expected version."""

from __future__ import annotations

import asyncio
import threading

import pytest
from chathistory_memory import MemoryStore
from entry_factory import make_entry
from faulty_stores import ShortStore, chat_on, kinds_of, names_of, said, shared_names, texts, user

from chathistory import AsyncHistory, ConversationInfo, History, open_store
from chathistory.errors import Conflict, ConversationExists, ConversationNotFound

NAME = "test-core-guards"
LOOKS = ["messages", "view", "state", "info", "last_messages", "last_entries", "entries"]
REMOVALS = {
    "rewind": lambda chat, **more: chat.rewind(to=1, **more),
    "forget": lambda chat, **more: chat.forget(before=1, **more),
}


@pytest.fixture
def stores():
    """Two stores that share their data, like the stores of two processes."""
    with shared_names(NAME), open_store(f"memory:{NAME}") as one, open_store(f"memory:{NAME}") as other:
        yield one, other


def read_with(chat, how):
    if how in ("last_messages", "last_entries"):
        return getattr(chat, how)(5)
    if how == "entries":
        return list(chat.entries())
    return getattr(chat, how)()


def append_side_entry(chat, kind):
    if kind == "annotation":
        chat.annotate(title="another")
    else:
        data = {"lease_until": 1, "lease": "x"} if kind == "lease_renewed" else {"reason": "x"}
        message = said("half") if kind in ("reply_interrupted", "reply_orphaned") else None
        chat.log.append([make_entry(kind, message, data, "T")])


# Guards of one object.


@pytest.mark.parametrize("where", ["another process", "another object"])
@pytest.mark.parametrize("what", ["message", "rewind", "made again"])
@pytest.mark.parametrize("removal", REMOVALS)
def test_messages_that_the_object_has_not_returned_are_not_removed(stores, removal, what, where):
    one, other = stores
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
            REMOVALS[removal](chat)
    assert list(chat_on(other).entries()) == before
    assert chat.messages()
    REMOVALS[removal](chat)


@pytest.mark.parametrize("how", LOOKS)
@pytest.mark.parametrize("removal", REMOVALS)
def test_every_read_of_the_same_object_counts_as_seen(stores, removal, how):
    one, other = stores
    chat = chat_on(one)
    chat.append([user("a"), said("b")])
    others = chat_on(other)
    others.state()
    others.append(user("c"))
    assert read_with(chat, how)
    assert chat.version == others.version
    REMOVALS[removal](chat)


@pytest.mark.parametrize("removal", REMOVALS)
def test_reading_an_earlier_part_does_not_count_as_seen(stores, removal):
    one, other = stores
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
        REMOVALS[removal](chat)


@pytest.mark.parametrize("removal", REMOVALS)
def test_a_new_object_uses_the_present_state(stores, removal):
    one, other = stores
    chat_on(one).append([user("a"), said("b")])
    others = chat_on(other)
    others.state()
    others.append(user("c"))
    chat = chat_on(one)
    assert chat.version is None
    REMOVALS[removal](chat)
    assert chat.version == chat_on(one).log.last_head.revision.version


@pytest.mark.parametrize(
    "kind", ["annotation", "lease_renewed", "turn_abandoned", "reply_interrupted", "reply_orphaned"]
)
@pytest.mark.parametrize("removal", REMOVALS)
@pytest.mark.parametrize("times", [1, 40])
def test_side_entries_of_others_are_no_conflict(stores, removal, kind, times):
    one, other = stores
    chat = chat_on(one)
    chat.append([user("a"), said("b"), user("c")])
    for _ in range(times):
        append_side_entry(chat_on(other), kind)
    REMOVALS[removal](chat)
    assert kinds_of(chat_on(other)).count(kind) == times


@pytest.mark.parametrize("removal", REMOVALS)
def test_a_message_before_a_side_entry_is_a_conflict(stores, removal):
    one, other = stores
    chat = chat_on(one)
    chat.append([user("a"), said("b")])
    others = chat_on(other)
    others.state()
    others.append(user("c"))
    others.set_title("another")
    with pytest.raises(Conflict):
        REMOVALS[removal](chat)


def test_setting_a_title_does_not_count_as_reading_earlier_messages(stores):
    one, other = stores
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


def test_own_changes_count_as_seen(stores):
    one, _ = stores
    chat = chat_on(one)
    chat.set_title("A title")
    chat.append([user("a"), said("b"), user("c"), said("d")])
    chat.set_drop_stale_thinking(drop=True)
    chat.rewind(to=4)
    chat.forget(before=2)
    chat.append([user("e"), said("f")])
    chat.rewind(to=chat.last_entries(1)[0].position)
    assert texts(chat.messages())[-1] == "e"


@pytest.mark.parametrize("removal", REMOVALS)
def test_a_message_that_is_stored_during_a_removal_is_a_conflict(removal):
    """Messages that are stored between the reads of a rewind do not count as seen."""
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
                REMOVALS[removal](chat)
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


def test_threads_that_share_an_object_wait_for_each_other(stores):
    one, _ = stores
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


# Expected versions.


def get_versions(chat, history):
    """Return the version of the present state from each public place that has it."""
    appended = chat.append([user("x"), said("y")])
    assert chat.messages()
    return {
        "of the conversation": chat.version,
        "of the append": appended.version,
        "of the row": next(row for row in history.list().items if row.id == "c").version,
        "of its info": chat.info().version,
    }


@pytest.mark.parametrize("way", ["of the conversation", "of the append", "of the row", "of its info"])
@pytest.mark.parametrize("change", ["append", *REMOVALS])
def test_an_expected_version_works_in_another_process(stores, change, way):
    one, other = stores
    chat = chat_on(one)
    version = get_versions(chat, History(one))[way]
    act = REMOVALS.get(change, lambda chat, **more: chat.append(user("z"), **more))
    append_side_entry(chat_on(one), "annotation")
    page = chat_on(other)
    act(page, expected=version)  # only a title came since
    before = list(chat_on(one).entries())
    for process in (one, other):
        fresh = chat_on(process)
        fresh.state()  # whatever this process or this object has seen
        with pytest.raises(Conflict):
            act(fresh, expected=version)
    assert list(chat_on(one).entries()) == before


@pytest.mark.parametrize("change", ["append", *REMOVALS])
@pytest.mark.parametrize("version", ["no such version", "", "0" * 28])
def test_an_unknown_expected_version_is_a_conflict(stores, change, version):
    one, other = stores
    chat = chat_on(one)
    chat.append([user("a"), said("b")])
    act = REMOVALS.get(change, lambda chat, **more: chat.append(user("z"), **more))
    with pytest.raises(Conflict):
        act(chat_on(other), expected=version)
    assert kinds_of(chat) == ["message"] * 2


def test_an_absent_conversation_has_the_empty_version(stores):
    one, other = stores
    chat = chat_on(one)
    assert (chat.messages(), chat.version, chat.info()) == ([], "", None)
    with pytest.raises(Conflict):
        chat_on(other).append(user("a"), expected="0" * 28)
    chat_on(other).append(user("a"), expected=chat.version)
    with pytest.raises(Conflict):
        chat_on(other).append(user("a"), expected=chat.version)
    assert chat.info().messages == 1


def test_an_expected_version_counts_for_messages_that_were_not_read(stores):
    one, other = stores
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


def test_an_append_with_the_version_seen_last_reads_nothing():
    with ShortStore() as store:
        chat = chat_on(store)
        version = chat.append(user("a")).version
        store.reads = 0
        chat.append(said("b"), expected=version)
        assert store.reads == 0


def test_versions_work_the_same_for_asyncio(stores):
    one, other = stores

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


def test_a_fork_conflicts_only_with_an_id_in_use():
    """It is so whatever is done to the conversation while it is copied."""
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
        chat.append(user("again"), expected="")
        with pytest.raises(ConversationExists):
            chat.fork("fork 0")
        with pytest.raises(ConversationExists):
            chat.fork("c")
