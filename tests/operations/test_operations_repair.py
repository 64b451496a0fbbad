"""Repairs of records that cannot be read: reported by position, never skipped silently, left out on request."""

from __future__ import annotations

import json
import random
import tracemalloc
from dataclasses import replace
from datetime import timedelta

import pytest
from api_rules import list_problems
from chathistory_memory import MemoryStore
from entry_factory import make_entry
from faulty_stores import CALL, RESULT, THOUGHT, FaultyStore, bodies, chat_on, numbered, reply, said, texts, user

from chathistory import History, Key, ReadResult, Record, Revision
from chathistory.errors import Conflict, CorruptRecord, TurnInProgress, UnsupportedRecord
from chathistory.log.clock import now
from chathistory.log.entry import FORMAT, encode
from chathistory.operations import repair
from chathistory.trimming import LastTurns


@pytest.fixture
def damage_records(store, chat):
    """Return a function that damages records of the conversation, or replaces them by records of a later version."""

    def damage_records(*positions: int, version: int | None = None) -> None:
        bodies_of = store._data.scopes[chat.scope][chat.id].bodies
        for position in positions:
            line = bodies_of[position]
            bodies_of[position] = (
                encode(make_entry("message", message=user("x"), version=version)) if version else f"{line} "
            )

    return damage_records


def test_damage_is_an_error_until_it_is_repaired(chat, damage_records):
    numbered(chat, 6)
    damage_records(2)
    for look in (chat.messages, lambda: chat.last_messages(9), lambda: list(chat.entries())):
        with pytest.raises(CorruptRecord) as caught:
            look()
        assert caught.value.position == 2
    [found] = chat.repair()
    assert (found.position, found.description) == (2, "left out: the record is damaged, its checksum does not fit")
    with pytest.raises(CorruptRecord):
        chat.messages()
    chat.repair(dry_run=False)
    assert texts(chat.messages()) == texts(chat.last_messages(9)) == ["0", "1", "3", "4", "5"]
    assert texts(chat.last_messages(2)) == ["4", "5"]
    assert chat.state().totals.messages == 5
    assert chat.repair() == ()
    chat.append(user("on"))
    assert texts(chat.messages())[-1] == "on"
    with pytest.raises(CorruptRecord):
        list(chat.entries())  # the log still says what was lost


def test_usage_can_be_summed_once_damage_is_repaired(chat, damage_records):
    costs = [{"response": {"model": "m", "usage": {"output_tokens": tokens}}} for tokens in (1, 10, 100)]
    for number, cost in enumerate(costs):
        chat.append(user(str(number)))
        chat._log.append([make_entry("message", message=said("x"), data=cost)])
    assert chat.usage().total.output == 111
    damage_records(3)
    with pytest.raises(CorruptRecord) as caught:
        chat.usage()
    assert caught.value.position == 3
    chat.repair(dry_run=False)
    spent = chat.usage()
    assert spent.left_out == (3,)
    assert spent.total.output == 111, "the head has the sums"
    assert spent.models["m"].output == sum(turn.tokens.output for turn in spent.turns) == 101
    damage_records(5)
    with pytest.raises(CorruptRecord) as caught:
        chat.usage()  # it was repaired before this damage
    assert caught.value.position == 5


@pytest.mark.parametrize("positions", [(0,), (5,), (0, 1, 2), (1, 3, 5), (0, 1, 2, 3, 4, 5)])
def test_any_damaged_records_can_be_repaired(chat, damage_records, positions):
    numbered(chat, 6)
    damage_records(*positions)
    chat.repair(dry_run=False)
    left = [str(number) for number in range(6) if number not in positions]
    while left and int(left[0]) % 2:
        left.pop(0)  # a conversation begins with the user
    assert texts(chat.messages()) == left
    assert list_problems(chat.messages()) == []
    assert chat.repair() == ()


def test_a_tool_call_with_a_lost_result_is_completed(chat, damage_records):
    chat.append([user("a"), CALL, RESULT, said("b")])
    damage_records(2)
    assert len(chat.repair(dry_run=False)) == 2
    assert [block["type"] for block in chat.messages()[-1]["content"]] == ["tool_result"]
    assert list_problems(chat.messages()) == []


def test_thinking_after_damage_is_not_sent(chat, damage_records):
    thought = {"role": "assistant", "content": [THOUGHT, {"type": "text", "text": "so"}]}
    chat.append([user("a"), said("b"), user("c"), thought])
    damage_records(1)
    chat.repair(dry_run=False)
    assert chat.messages()[-1] == said("so")
    assert chat.view().report.thinking_stripped == 1


def test_a_record_of_a_later_version_is_left_out_only_by_a_repair(chat, damage_records):
    numbered(chat, 4)
    damage_records(1, version=3)
    with pytest.raises(UnsupportedRecord):
        chat.messages()
    [found] = chat.repair()
    assert (found.position, found.description) == (1, "left out: a later version of chathistory wrote it")
    chat.repair(dry_run=False)
    assert texts(chat.messages()) == ["0", "2", "3"]
    assert len(list(chat.entries())) == 5


def test_a_lost_rewind_brings_back_the_messages_that_it_took_back(chat, damage_records):
    numbered(chat, 4)
    chat.rewind(to=2)
    damage_records(4)
    [found] = chat.repair(dry_run=False)
    assert found.position == 4
    assert texts(chat.messages()) == ["0", "1", "2", "3"]


def test_a_cut_stays_in_force_when_its_record_is_lost(chat, damage_records):
    numbered(chat, 8)
    chat.trim(LastTurns(2, 2))
    chat.append([user("on"), said("so")])
    damage_records(8)
    assert [repair.position for repair in chat.repair(dry_run=False)] == [8]
    assert texts(chat.messages()) == ["4", "5", "6", "7", "on", "so"]
    assert chat.state().totals.messages == 10


@pytest.fixture
def store_mismatch(store):
    """Return a function that stores a conversation with a head that names a record of another kind."""

    def store_mismatch(name="bad", version=FORMAT, messages=6, **fields):
        lines = [
            encode(make_entry("message", message=said(str(n)) if n % 2 else user(str(n)))) for n in range(messages)
        ]
        lines.append(encode(make_entry("annotation", data={"title": "t"}, version=version)))
        info = {"v": 2, "creation_id": "b", "created": 1, "messages": messages, "turns": messages // 2} | fields
        store.append(Key("default", name), lines, after=None, revision=Revision("v", 5, None, json.dumps(info)))
        return chat_on(store, name)

    return store_mismatch


@pytest.mark.parametrize(
    ("fields", "calls"),
    [
        ({"cut_position": 0, "view_start": 1}, ("view", "trim", "rewind", "forget")),
        ({"cut_position": 1}, ("view", "trim", "rewind", "forget")),
        ({"cut_position": 6}, ("view", "trim", "rewind")),
        ({"setup_position": 2, "setup_fingerprints": {"model": "a"}}, ("setup", "forget")),
        ({"setup_position": 6}, ("setup",)),
        ({"path_position": 3}, ("view", "trim", "rewind", "forget")),
        ({"cut_position": 1, "setup_position": 1, "path_position": 1}, ("view", "trim", "rewind", "forget", "setup")),
        ({"cut_position": 1, "messages": 2}, ("view", "trim", "rewind", "forget")),
        ({"cut_position": 0, "view_start": 1, "messages": 2}, ("view", "trim", "rewind", "forget")),
    ],
)
def test_a_head_that_names_another_record_is_an_error_until_it_is_repaired(store_mismatch, fields, calls):
    messages = fields.get("messages", 6)
    given = {
        "view": lambda chat: chat.view(),
        "trim": lambda chat: chat.trim(LastTurns(1, 1)),
        "rewind": lambda chat: chat.rewind(to=chat.log.fetch_head().end),
        "forget": lambda chat: chat.forget(before=messages),
        "setup": lambda chat: chat.setup(),
    }
    chat = store_mismatch(**fields)
    lines = bodies(chat.log.store, chat)
    for name in calls:
        with pytest.raises(CorruptRecord, match=r"the head refers to it as|it does not hold the active path"):
            given[name](chat)
    assert bodies(chat.log.store, chat) == lines
    history = History(chat.log.store)
    assert [each.state for each in history.check().found] == ["repairable"]
    assert chat.repair(dry_run=False)
    assert [each.state for each in history.check().found] == []
    unsendable = fields.get("view_start")  # a reply without its question
    assert texts(chat.last_messages(9)) == [str(n) for n in range(messages) if n != unsendable]
    for name in ("view", "setup", "trim", "rewind", "forget"):
        given[name](chat)


@pytest.mark.parametrize("field", ["cut_position", "setup_position", "path_position"])
def test_a_head_that_names_a_record_of_a_later_version_is_an_error_until_it_is_repaired(store_mismatch, field):
    chat = store_mismatch(version=9, **{field: 6})
    with pytest.raises(UnsupportedRecord):
        chat.setup() if field == "setup_position" else chat.view()
    assert chat.repair(dry_run=False)
    assert chat.setup() is None
    assert len(chat.messages()) == 6


@pytest.mark.parametrize("field", ["cut_position", "setup_position", "path_position"])
def test_a_head_that_names_a_forgotten_record_is_repaired(store, store_mismatch, field):
    chat = store_mismatch(**{field: 0})
    store.forget(chat.log.key, before=2)
    with pytest.raises(CorruptRecord, match="but it was forgotten"):
        chat.setup() if field == "setup_position" else chat.rewind(to=4)
    assert chat.repair(dry_run=False)
    assert texts(chat.messages()) == ["2", "3", "4", "5"]
    assert chat.repair() == ()


def test_check_continues_after_a_head_that_names_another_record(store, store_mismatch):
    numbered(chat_on(store, "a"), 6)
    store_mismatch("b", cut_position=0, view_start=1)
    numbered(chat_on(store, "c"), 6)
    history = History(store)
    assert [each.key.id for each in history.check().found] == ["b"]
    assert len(history.list().items) == 3
    assert history.prune(ttl=timedelta(days=1)).kept == 2


def test_damage_before_the_view_is_repaired_for_readers_of_the_log(chat, damage_records):
    thought = {"role": "assistant", "content": [THOUGHT, {"type": "text", "text": "so"}]}
    chat.append([user("0"), said("1"), user("2"), said("3"), user("4"), said("5"), user("6"), thought])
    chat.trim(LastTurns(2, 2))
    chat.append([user("8"), thought])
    damage_records(1)
    sent = chat.messages()
    with pytest.raises(CorruptRecord):
        chat.last_messages(20)
    assert [repair.position for repair in chat.repair(dry_run=False)] == [1]
    assert chat.repair() == ()
    assert chat.messages() == sent, "no thinking is bound to what was not sent"
    assert texts(sent[:2]) == ["4", "5"]
    assert len(chat.last_messages(20)) == chat.state().totals.messages == 9
    elsewhere = History(chat.log.store).conversation(chat.id)
    elsewhere.append(user("on"))
    assert elsewhere.messages()[-1] == user("on")


def test_usage_is_counted_once_after_a_repair(chat, damage_records):
    chat.append([user("a"), reply(1, output_tokens=3), user("c"), reply(2, output_tokens=4)])
    before = chat.usage()
    damage_records(0)
    chat.repair(dry_run=False)
    spent = chat.state().totals.usage
    assert sum(turn.tokens.output for turn in before.turns) == before.total.output == spent["output_tokens"]


def test_usage_counts_a_reply_once_that_a_repair_stored_again(chat):
    chat.append([user("a"), CALL, user("b"), reply(1, output_tokens=3)])
    before = chat.usage()
    assert chat.repair(dry_run=False)
    assert [entry.data.get("copy_of") for entry in chat.entries() if entry.kind == "message"].count(3) == 1
    assert chat.usage() == before
    assert before.total.output == 3


def test_nothing_is_repaired_while_a_turn_is_open(chat, damage_records):
    numbered(chat, 4)
    opened = make_entry("message", message=user("?"), turn="t", data={"lease_until": now() + 10**9})
    chat.log.append([opened])
    damage_records(1)
    with pytest.raises(TurnInProgress):
        chat.repair(dry_run=False)
    assert len(chat.repair()) == 1


# Damage at any place.


def long_conversation(chat):
    """Store 700 records with everything that a log can have; return the positions of the special ones."""
    chat.log.append([make_entry("setup", data=SETUP)])
    special = {"setup": 0}
    for number in range(120):
        chat.append([user(f"q{number}"), reply(number, output_tokens=1)])
    chat.rewind(to=200)
    special["rewind"] = chat.log.last_head.end - 1
    chat.append(user("again"))
    chat.append([CALL, RESULT, said("called")])
    for number in range(60):
        chat.append([user(f"r{number}"), said(f"a{number}")])
    chat.forget(before=30)
    special["snapshot"] = chat.log.last_head.end - 2
    special["setup"] = chat.log.last_head.end - 1
    chat.set_title("T")
    for number in range(90):
        chat.append([user(f"s{number}"), said(f"b{number}")])
    chat.trim(LastTurns(80, 80))
    special["cut"] = chat.log.last_head.end - 1
    for number in range(10):
        chat.append([user(f"t{number}"), said(f"c{number}")])
    return special


SETUP = {"model": "m", "system": "s", "tools": None, "fingerprints": {"model": "1", "system": "2", "tools": "3"}}


def reopen(store, chat):
    """Return the conversation as another process reads it."""
    other = type(store)()
    other._data = store._data
    return History(other).conversation(chat.id)


def check_repaired(store, chat, lost):
    """A new reader reads all that is left, a second repair finds nothing, and the conversation goes on."""
    fresh = reopen(store, chat)
    assert fresh.repair() == ()
    messages = fresh.messages()
    assert list_problems(messages) == []
    newest = fresh.last_entries(10_000)
    assert len(newest) == fresh.state().totals.messages
    assert not lost.intersection(entry.position for entry in newest)
    assert fresh.setup() is None or fresh.setup()["model"] == "m"
    fresh.append(user("on"))
    assert texts(reopen(store, chat).messages())[-1] == "on"
    page, walked = fresh.last_entries(50), []
    while page:
        walked = [*page, *walked]
        page = fresh.last_entries(50, before=page[0].position)
    assert [entry.position for entry in walked] == [entry.position for entry in fresh.last_entries(10_000)]


@pytest.mark.parametrize(
    "places",
    [
        [31],
        [40, 41, 42],
        [100],
        ["setup"],
        ["rewind"],
        ["snapshot"],
        ["cut"],
        ["setup", "cut"],
        ["snapshot", "setup", "cut", "rewind"],
        [30, 100, 170, "snapshot", "cut", 500],
        ["cut", -1],
        [-1],
        [-1, -2, -3],
        list(range(150, 450)),
        list(range(30, 500, 2)),
    ],
    ids=lambda places: str(places)[:50],
)
def test_damage_is_repaired_at_any_place(store, chat, damage_records, places):
    special = long_conversation(chat)
    start, end = chat.log.last_head.start, chat.log.last_head.end
    lost = {special[place] if isinstance(place, str) else place % end for place in places}
    bodies_of = store._data.scopes[chat.scope][chat.id].bodies
    for position in lost:
        bodies_of[position - start] += " "
    fresh = reopen(store, chat)
    found = fresh.repair(dry_run=False)
    damaged = {each.position for each in found if "the record is damaged" in each.description}
    assert damaged <= lost, "damage off the active path is not reported"
    check_repaired(store, chat, lost)
    assert reopen(store, chat).info().title == "T"


@pytest.mark.parametrize("seed", [0, 1, 2, *(pytest.param(seed, marks=pytest.mark.wide) for seed in range(3, 12))])
def test_any_damage_is_repaired(store, chat, seed):
    """This includes damage of the repair itself."""
    choose = random.Random(seed)
    special = long_conversation(chat)
    lost = set()
    for _ in range(2):
        head = chat.log.refresh()
        bodies_of = store._data.scopes[chat.scope][chat.id].bodies
        new = set(choose.sample(range(head.start, head.end), choose.choice([1, 2, 30])))
        new |= {position for position in special.values() if choose.random() < 0.3}
        new |= {position for position in range(head.end - 3, head.end) if choose.random() < 0.3}
        for position in new:
            bodies_of[position - head.start] += " "
        lost |= new
        reopen(store, chat).repair(dry_run=False)
        check_repaired(store, chat, lost)
        chat.log.refresh()


@pytest.mark.parametrize("seeds", [range(30), pytest.param(range(30, 150), marks=pytest.mark.wide)])
def test_repair_in_chunks_gives_the_same_as_in_one(seeds, monkeypatch):
    """A conversation that is read in chunks is repaired in the same way as one that is read at once."""
    for seed in seeds:
        outcomes = [repair_in_chunks(seed, size, monkeypatch) for size in (0, 300, 10**9)]
        assert outcomes[0] == outcomes[1] == outcomes[2], seed


def repair_in_chunks(seed, size, monkeypatch):
    """Return what is repaired and what is left of a conversation."""
    monkeypatch.setattr(repair, "_CHUNK_SIZE", size)
    with MemoryStore() as store:
        chat = chat_on(store)
        store_untidy_messages(chat, random.Random(seed))
        found = chat.repair(dry_run=False)
        state = chat.state()
        assert chat.repair() == ()
        assert list_problems(chat.messages()) == []
        return found, chat.messages(), state.totals.messages, state.totals.turns, state.view.tokens


def store_untidy_messages(chat, choose):
    """Store messages as crashes and other programs leave them: calls without results, results without calls."""
    for number in range(choose.randint(1, 25)):
        call = {"type": "tool_use", "id": choose.choice([f"t{number}", "t"]), "name": "f", "input": {}}
        result = {"type": "tool_result", "tool_use_id": call["id"], "content": "ok"}
        calls = {"role": "assistant", "content": [call]}
        chat.append(
            choose.choice(
                [
                    [user(f"q{number}"), said(f"a{number}")],
                    [user(f"q{number}"), said(f"a{number}")],
                    [user(f"q{number}"), calls, {"role": "user", "content": [result]}, said("so")],
                    [user(f"q{number}"), calls],
                    [{"role": "user", "content": [result]}],
                    [said("alone")],
                    [user(f"q{number}"), said(" ")],
                    [user(" ")],
                    [user(f"q{number}"), reply(number) | {"stop_reason": choose.choice(["refusal", "pause_turn"])}],
                ]
            )
        )
        if choose.random() < 0.05:
            chat.trim(LastTurns(2, 2))


class PackedStore(MemoryStore):
    """Stores compressed lines, and returns no more at once than a store should."""

    def read(self, key, *, start=0, stop=None):
        part = super().read(key, start=start, stop=stop)
        return part and ReadResult(part.head, [Record(each.position, each.body[:-1] + "}") for each in part.records])


@pytest.mark.parametrize(("count", "size"), [(60, 1_000_000), (6000, 10_000)])
def test_repair_does_not_load_sixty_megabytes_into_memory(count, size):
    with PackedStore() as store:
        chat = chat_on(store)
        for start in range(0, count, 1000):
            words = "x" * size
            chat.append([(said if n % 2 else user)(f"{n} {words}") for n in range(start, min(start + 1000, count))])
        bodies_of = store._data.scopes[chat.scope][chat.id].bodies
        bodies_of[1] += " "
        bodies_of[count // 2] += " "
        tracemalloc.start()
        try:
            found = reopen(store, chat).repair(dry_run=False)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert {each.position for each in found} == {1, count // 2}
    assert peak < 20_000_000


@pytest.mark.parametrize("place", [0, 3, 9])
def test_a_repaired_conversation_can_be_forked_and_forgotten(store, chat, damage_records, place):
    numbered(chat, 10)
    damage_records(place)
    fresh = reopen(store, chat)
    for step in (lambda: fresh.fork("early"), lambda: fresh.forget(before=10)):
        with pytest.raises(CorruptRecord) as caught:
            step()
        assert caught.value.position == place
    fresh.repair(dry_run=False)
    messages = fresh.messages()
    fork = fresh.fork("f")
    assert fork.messages() == messages
    assert [entry.kind for entry in fork.entries()].count("record_lost") == 1
    fork.append(user("on"))
    if place == 3:
        assert texts(fresh.fork("at", at=6).messages()) == ["0", "1", "2", "4", "5"]
    fresh.forget(before=10)
    assert reopen(store, chat).repair() == ()
    assert next(iter(reopen(store, chat).entries())).position == 10


class GapStore(MemoryStore):
    """Has no records at the positions of `gap`, and says how long it is if `reports_gap`; counts the reads."""

    gap = range(0)
    reports_gap = True
    reads = 0

    def read(self, key, *, start=0, stop=None):
        self.reads += 1
        part = super().read(key, start=0, stop=0)
        if part is None or not self.gap:
            return super().read(key, start=start, stop=stop)
        shift = len(self.gap)
        head = replace(part.head, end=part.head.end + shift)
        low = max(start if start >= 0 else head.end + start, head.start)
        high = head.end if stop is None else min(stop, head.end)
        if low >= high:
            return ReadResult(head, [])
        if low in self.gap:
            raise CorruptRecord(key, low, "it is missing", stop=self.gap.stop if self.reports_gap else None)
        if low < self.gap.start:
            return ReadResult(head, super().read(key, start=low, stop=min(high, self.gap.start)).records)
        records = super().read(key, start=low - shift, stop=high - shift).records
        return ReadResult(head, [Record(each.position + shift, each.body) for each in records])


@pytest.mark.parametrize("length", [1, 100_000])
def test_missing_records_in_a_row_are_found_with_a_few_reads(length):
    store = GapStore()
    numbered(History(store).conversation("x"), 20)
    store.gap = range(7, 7 + length)
    store.reads = 0
    found = History(store).conversation("x").repair()
    assert [each.position for each in found] == list(store.gap)
    assert store.reads < 12


@pytest.mark.parametrize("reports_gap", [True, False])
def test_a_head_with_too_many_positions_is_reported_as_damaged(reports_gap, monkeypatch):
    monkeypatch.setattr("chathistory.log.read_damaged.LONGEST_GAP", 1000)
    store = GapStore()
    numbered(History(store).conversation("x"), 20)
    store.gap, store.reports_gap = range(7, 7 + 10**12), reports_gap
    chat = History(store).conversation("x")
    with pytest.raises(CorruptRecord, match="more than 1000 positions in a row") as caught:
        chat.repair()
    assert caught.value.position is None
    assert store.reads < (20 if reports_gap else 1100)


# Conversations that change while they are checked.


@pytest.mark.parametrize("number", range(6))
def test_a_conversation_that_is_deleted_during_a_check_is_not_reported(number):
    store = FaultyStore()
    numbered(chat_on(store), 6)

    def delete_first(call):
        MemoryStore.delete(store, Key("default", "c"))
        return call()

    store.on_read = iter([*[None] * number, delete_first])
    assert History(store).check().found == ()


class ForgettingStore(MemoryStore):
    """Forgets the first of the records that are read, before it returns them."""

    def read(self, key, *, start=0, stop=None):
        if stop != 0:
            self.forget(key, before=start + 1)
        return super().read(key, start=start, stop=stop)


def test_a_conversation_that_changes_at_every_attempt_is_reported_as_changing():
    store = ForgettingStore()
    numbered(chat_on(store), 20)
    [found] = History(store).check().found
    assert (found.key, found.state, type(found.problem)) == (Key("default", "c"), "changing", Conflict)
