"""Restoring a damaged head from the records, completely or as far as records can be read."""

from __future__ import annotations

import asyncio
import random
import tracemalloc
from dataclasses import replace

import pytest
from chathistory_memory import MemoryStore
from entry_factory import make_entry
from faulty_stores import DamagedStore, chat_on, numbered, reply, said, texts, user

from chathistory import AsyncHistory, Damaged, Entry, History, Key, Restoration, Revision, ViewRepair
from chathistory.errors import Conflict, CorruptRecord, TurnInProgress, UnsupportedRecord
from chathistory.log.clock import now
from chathistory.storage.abilities import HeadRecovery
from chathistory.trimming import LastTurns

KEY = Key("default", "c")


@pytest.fixture
def store():
    with DamagedStore() as store:
        yield store


@pytest.fixture
def chat(store):
    return chat_on(store)


def damage_state(store, key=KEY, info="nonsense"):
    """Store a head that the store can read, but that has no valid state."""
    bodies_of = store._data.scopes[key.scope][key.id]
    bodies_of.head = replace(bodies_of.head, revision=replace(bodies_of.head.revision, payload=info))


def damage_head(store, key=KEY):
    store.damage_head(key)


WAYS = [damage_state, damage_head]
both_ways = pytest.mark.parametrize("damage", WAYS)


def store_conversation(chat):
    """Store a conversation with everything that changes its state."""
    chat.log.append([make_entry("setup", data={"model": "m", "fingerprints": {"model": "1"}})])
    for number in range(8):
        chat.append([user(f"q{number}"), reply(number, output_tokens=number)])
    chat.annotate(title="Title", tags=["a"], metadata={"k": [1]})
    chat.rewind(to=9)
    chat.append([user("again"), reply(50, input_tokens=7)])
    chat.trim(LastTurns(3, 2))
    chat.append([user("last"), said("so")])
    return chat


@both_ways
def test_a_restored_head_is_the_same_as_before(store, chat, damage):
    store_conversation(chat)
    before, messages = chat.log.refresh(), chat.messages()
    damage(store)
    fresh = chat_on(store)
    with pytest.raises(CorruptRecord):
        fresh.messages()
    plan = fresh.restore()
    assert (plan.start, plan.end, plan.messages, plan.lost, plan.written) == (0, before.end, 12, (), False)
    with pytest.raises(CorruptRecord):
        fresh.messages()
    assert fresh.restore(dry_run=False) == replace(plan, written=True)
    assert fresh.restore() is None
    assert fresh.repair() == ()
    after = chat_on(store).log.refresh()
    summary = after.state
    assert summary == before.state
    assert (after.revision.updated, after.revision.expires) == (before.revision.updated, before.revision.expires) or (
        damage is damage_head
        and before.revision.updated - 1_000_000 < after.revision.updated <= before.revision.updated
    )
    assert chat_on(store).messages() == messages
    fresh.append(user("on"))
    assert texts(chat_on(store).messages())[-1] == "on"


@both_ways
def test_totals_of_forgotten_records_come_from_the_snapshot(store, chat, damage):
    store_conversation(chat)
    chat.forget(before=6)
    chat.append([user("more"), said("yes")])
    before, messages = chat.log.refresh(), chat.messages()
    damage(store)
    chat_on(store).restore(dry_run=False)
    after = chat_on(store).log.refresh()
    assert after.state == before.state
    assert after.start == 6
    assert chat_on(store).messages() == messages


@both_ways
def test_a_restored_fork_is_still_a_fork(store, chat, damage):
    store_conversation(chat)
    fork = chat.fork("f", at=9)
    fork.append(user("x"))
    before = fork.log.refresh().state
    damage(store, Key("default", "f"))
    chat_on(store, "f").restore(dry_run=False)
    assert chat_on(store, "f").log.refresh().state == before
    assert before.identity.origin.id == "c"


@both_ways
def test_without_the_first_state_no_thinking_is_sent(store, chat, damage):
    numbered(chat, 8)
    store.forget(KEY, before=3)  # without a snapshot: as if that were lost
    damage(store)
    made = chat_on(store).restore(dry_run=False)
    assert (made.start, made.messages) == (3, 5)
    summary = chat_on(store).state()
    assert (summary.totals.messages, summary.view.thinking_valid_from) == (5, 8)
    assert texts(chat_on(store).last_messages(9)) == ["3", "4", "5", "6", "7"]


@both_ways
@pytest.mark.parametrize("seed", range(20))
def test_all_records_that_can_be_read_are_kept(store, chat, damage, seed):
    choose = random.Random(seed)
    store_conversation(chat)
    end = chat.log.last_head.end
    damaged = set(choose.sample(range(end), choose.randint(1, end - 1)))
    store.damage_records(KEY, *damaged)
    damage(store)
    fresh = chat_on(store)
    plan = fresh.restore()
    assert {each.position for each in plan.lost} == damaged
    rescued = [each for each in fresh.salvage() if isinstance(each, Entry)]
    assert [each.position for each in rescued] == [position for position in range(end) if position not in damaged]
    assert {each.position for each in fresh.salvage() if isinstance(each, ViewRepair)} == damaged
    fresh.restore(dry_run=False)
    other = chat_on(store)
    other.messages()
    assert other.repair() == ()
    sound = {each.position for each in rescued if each.kind == "message"}
    assert {entry.data.get("copy_of", entry.position) for entry in other.last_entries(100)} <= sound
    assert len(other.last_entries(100)) == other.state().totals.messages
    other.append(user("on"))
    assert texts(chat_on(store).messages())[-1] == "on"


@both_ways
def test_without_a_readable_record_nothing_is_restored(store, chat, damage):
    numbered(chat, 3)
    store.damage_records(KEY, 0, 1, 2)
    damage(store)
    for write in (False, True):
        with pytest.raises(CorruptRecord, match="none of its records can be read"):
            chat_on(store).restore(dry_run=not write)


class NoRecoveryStore(MemoryStore):
    """Cannot read this conversation, nor records without their head."""

    def read(self, key, **span):
        raise CorruptRecord(key, None, "it is hurt")


def test_a_store_that_needs_the_head_to_read_records_raises(store):
    assert isinstance(store, HeadRecovery)
    with NoRecoveryStore() as blind:
        for call in (chat_on(blind).restore, lambda: list(chat_on(blind).salvage())):
            with pytest.raises(CorruptRecord, match="it is hurt"):
                call()


@both_ways
def test_a_head_is_not_restored_while_a_turn_is_open(store, chat, damage):
    numbered(chat, 2)
    until = now() + 10**9
    chat.log.append([make_entry("message", message=user("?"), turn="t", data={"lease_until": until})])
    damage(store)
    fresh = chat_on(store)
    assert fresh.restore().messages == 3
    with pytest.raises(TurnInProgress):
        fresh.restore(dry_run=False)
    assert fresh.restore(dry_run=False, force=True).written
    assert chat_on(store).state().engine.open_turn.id == "t"


def test_a_write_during_a_restore_is_not_overwritten(store, chat):
    numbered(chat, 3)
    store.damage_head(KEY, "one")
    find_records = DamagedStore.find_records

    def find_and_change(self, key):
        records = find_records(self, key)
        self.unreadable[key] = "two"
        return records

    DamagedStore.find_records = find_and_change
    try:
        with pytest.raises(Conflict):
            chat_on(store).restore(dry_run=False)
    finally:
        DamagedStore.find_records = find_records
    assert store.restored == []


def test_a_head_that_is_restored_meanwhile_is_left_alone(store, chat):
    numbered(chat, 3)
    store.damage_head(KEY)
    read = DamagedStore.read

    def restored_meanwhile(self, key, **more):
        try:
            return read(self, key, **more)
        finally:
            self.unreadable.clear()

    DamagedStore.read = restored_meanwhile
    try:
        assert chat_on(store).restore(dry_run=False) is None
    finally:
        DamagedStore.read = read


def test_a_head_of_a_later_version_is_never_overwritten(store, chat):
    numbered(chat, 3)
    damage_state(store, info='{"v":3}')
    with pytest.raises(UnsupportedRecord):
        chat_on(store).restore(dry_run=False)
    assert [each.position for each in chat_on(store).salvage()] == [0, 1, 2]


@pytest.mark.parametrize("ttl", [None, 100])
def test_a_restored_head_gets_the_time_to_live_of_the_store(store, chat, ttl):
    numbered(chat, 2)
    store.ttl = ttl
    store.damage_head(KEY)
    time = now()
    chat_on(store).restore(dry_run=False)
    expires = store.restored[0].revision.expires
    assert expires is None if ttl is None else time + 100_000_000 <= expires <= now() + 100_000_000


def test_a_sound_or_absent_conversation_needs_no_restore(store, chat):
    assert chat.restore() is None
    assert list(chat.salvage()) == []
    numbered(chat, 2)
    assert chat.restore(dry_run=False) is None
    assert len(list(chat.salvage())) == 2


def test_a_head_without_a_valid_state_is_restored_without_help_of_the_store():
    with MemoryStore() as store:
        assert store.get_recovery() is None
        numbered(chat_on(store), 3)
        assert chat_on(store).restore() is None
        damage_state(store)
        assert chat_on(store).restore(dry_run=False).messages == 3
        assert texts(chat_on(store).messages()) == ["0", "1", "2"]


def test_a_readable_head_with_records_at_other_positions_is_restored():
    class ShiftedStore(DamagedStore):
        def find_records(self, key):
            return replace(super().find_records(key), problem="its records are at other positions")

        def _check(self, key):
            """Let the head be read although it is damaged."""

    with ShiftedStore() as store:
        numbered(chat_on(store), 3)
        store.damage_head(KEY)
        plan = chat_on(store).restore()
        assert (plan.problem, plan.messages) == ("its records are at other positions", 3)
        assert chat_on(store).restore(dry_run=False).written
        assert [head.end for head in store.restored] == [3]


@both_ways
def test_restore_and_salvage_work_for_asyncio(store, chat, damage):
    numbered(chat, 3)
    store.damage_records(KEY, 1)
    damage(store)

    async def salvage_and_restore():
        async with AsyncHistory(store) as history:
            there = history.conversation("c")
            rescued = [each.position async for each in there.salvage()]
            report = await history.check()
            return rescued, [each.state for each in report.found], await there.restore(dry_run=False)

    rescued, states, made = asyncio.run(salvage_and_restore())
    assert (rescued, states) == ([0, 1, 2], ["restorable"])
    assert isinstance(made, Restoration)
    assert texts(chat_on(store).messages()) == ["0", "2"]


def test_restore_does_not_load_sixty_megabytes_into_memory(store, chat):
    words = "x" * 100_000
    for start in range(0, 600, 100):
        chat.append([(said if n % 2 else user)(f"{n} {words}") for n in range(start, start + 100)])
    store.damage_records(KEY, 3, 400)
    store.damage_head(KEY)
    tracemalloc.start()
    try:
        made = chat_on(store).restore(dry_run=False)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert [each.position for each in made.lost] == [3, 400]
    assert peak < 20_000_000


# Checks of all conversations.


def test_check_says_what_can_be_done(store):
    for name in ("sound", "repairable", "waiting", "restorable", "restorable too", "lost", "unsupported", "left out"):
        store_conversation(chat_on(store, name))
    key = lambda name: Key("default", name)  # noqa: E731
    store.damage_records(key("repairable"), 1)
    chat_on(store, "waiting").append({"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "f"}]})
    store.damage_head(key("restorable"))
    damage_state(store, key("restorable too"))
    store.damage_head(key("lost"))
    store.damage_records(key("lost"), *range(chat_on(store, "sound").log.refresh().end))
    damage_state(store, key("unsupported"), '{"v":3}')
    store.damage_records(key("left out"), 1)
    chat_on(store, "left out").repair(dry_run=False)
    diagnoses = []
    report = History(store).check(progress=diagnoses.append)
    found = {each.key.id: each.state for each in report.found}
    assert found.pop("left out") == "sound"
    assert found == {
        name: name.removesuffix(" too")
        for name in ("repairable", "waiting", "restorable", "restorable too", "lost", "unsupported")
    }
    assert (report.checked, len(diagnoses), report.complete) == (8, 8, True)
    [left_out] = [each for each in diagnoses if each.key.id == "left out"]
    assert (left_out.state, [each.position for each in left_out.left_out]) == ("sound", [1])
    one = History(store).check(ids=["repairable", "nobody"])
    assert (one.checked, [each.findings[0].position for each in one.found]) == (1, [1])
    assert History(store).check(scope="other").checked == 0


def test_data_without_a_key_is_reported(store):
    numbered(chat_on(store), 2)
    store.lost.append(Damaged(None, "stray", CorruptRecord(None, None, "it is no conversation")))
    report = History(store).check()
    assert [(each.key, each.where, each.state) for each in report.found] == [(None, "stray", "lost")]
    assert (report.checked, report.complete) == (2, True)


def test_other_processes_can_append_to_a_restored_conversation(store, chat):
    """The version is the id of the last record, so other processes see no change."""
    numbered(chat, 3)
    before = chat.log.refresh()
    store.damage_head(KEY)
    chat_on(store).restore(dry_run=False)
    assert store.restored[0].revision.version == before.revision.version
    assert isinstance(store.restored[0].revision, Revision)
    chat.append(user("by a process that never noticed"))
