"""Records that cannot be read: told with their position, never skipped in silence, and led around when asked."""

from __future__ import annotations

import json
import random
import tracemalloc
from dataclasses import replace
from datetime import timedelta

import pytest
from api_rules import list_problems
from chathistory_memory import MemoryStore
from faulty_stores import CALL, RESULT, THOUGHT, bodies, chat_on, numbered, reply, said, texts, user
from made_entries import make_entry

from chathistory import History, Key, ReadResult, Record, Revision
from chathistory.errors import CorruptRecord, TurnInProgress, UnsupportedRecord
from chathistory.log.clock import now
from chathistory.log.entry import FORMAT, encode
from chathistory.operations import repair
from chathistory.trimming import LastTurns


@pytest.fixture
def hurt(store, chat):
    """A function that damages records of the conversation, or makes a later version of them."""

    def hurt(*positions: int, version: int | None = None) -> None:
        held = store._data.scopes[chat.scope][chat.id].bodies
        for position in positions:
            line = held[position]
            held[position] = (
                encode(make_entry("message", message=user("x"), version=version)) if version else f"{line} "
            )

    return hurt


def test_damage_is_an_error_until_it_is_mended(chat, hurt):
    numbered(chat, 6)
    hurt(2)
    for look in (chat.messages, lambda: chat.last_messages(9), lambda: list(chat.entries())):
        with pytest.raises(CorruptRecord) as caught:
            look()
        assert caught.value.position == 2
    [found] = chat.repair()
    assert (found.position, found.what) == (2, "left out: the record is damaged, its checksum does not fit")
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


def test_what_replies_cost_can_be_asked_once_damage_is_mended(chat, hurt):
    costs = [{"response": {"model": "m", "usage": {"output_tokens": tokens}}} for tokens in (1, 10, 100)]
    for number, cost in enumerate(costs):
        chat.append(user(str(number)))
        chat._log.append([make_entry("message", message=said("x"), data=cost)])
    assert chat.usage().total.output == 111
    hurt(3)
    with pytest.raises(CorruptRecord) as caught:
        chat.usage()
    assert caught.value.position == 3
    chat.repair(dry_run=False)
    spent = chat.usage()
    assert spent.left_out == (3,)
    assert spent.total.output == 111, "the head has the sums"
    assert spent.models["m"].output == sum(turn.tokens.output for turn in spent.turns) == 101
    hurt(5)
    with pytest.raises(CorruptRecord) as caught:
        chat.usage()  # it was repaired before this damage
    assert caught.value.position == 5


@pytest.mark.parametrize("positions", [(0,), (5,), (0, 1, 2), (1, 3, 5), (0, 1, 2, 3, 4, 5)])
def test_any_records_may_be_damaged(chat, hurt, positions):
    numbered(chat, 6)
    hurt(*positions)
    chat.repair(dry_run=False)
    left = [str(number) for number in range(6) if number not in positions]
    while left and int(left[0]) % 2:
        left.pop(0)  # a conversation begins with the user
    assert texts(chat.messages()) == left
    assert list_problems(chat.messages()) == []
    assert chat.repair() == ()


def test_half_of_a_tool_round_is_completed(chat, hurt):
    chat.append([user("a"), CALL, RESULT, said("b")])
    hurt(2)
    assert len(chat.repair(dry_run=False)) == 2
    assert [block["type"] for block in chat.messages()[-1]["content"]] == ["tool_result"]
    assert list_problems(chat.messages()) == []


def test_thinking_behind_damage_is_not_sent(chat, hurt):
    thought = {"role": "assistant", "content": [THOUGHT, {"type": "text", "text": "so"}]}
    chat.append([user("a"), said("b"), user("c"), thought])
    hurt(1)
    chat.repair(dry_run=False)
    assert chat.messages()[-1] == said("so")
    assert chat.view().report.thinking_stripped == 1


def test_a_record_of_a_later_version_is_led_around_only_when_asked(chat, hurt):
    numbered(chat, 4)
    hurt(1, version=3)
    with pytest.raises(UnsupportedRecord):
        chat.messages()
    [found] = chat.repair()
    assert (found.position, found.what) == (1, "left out: a later version of chathistory wrote it")
    chat.repair(dry_run=False)
    assert texts(chat.messages()) == ["0", "2", "3"]
    assert len(list(chat.entries())) == 5


def test_a_lost_rewind_brings_back_what_it_left_out(chat, hurt):
    numbered(chat, 4)
    chat.rewind(to=2)
    hurt(4)
    [found] = chat.repair(dry_run=False)
    assert found.position == 4
    assert texts(chat.messages()) == ["0", "1", "2", "3"]


def test_a_lost_cut_is_a_cut_all_the_same(chat, hurt):
    numbered(chat, 8)
    chat.trim(LastTurns(2, 2))
    chat.append([user("on"), said("so")])
    hurt(8)
    assert [repair.position for repair in chat.repair(dry_run=False)] == [8]
    assert texts(chat.messages()) == ["4", "5", "6", "7", "on", "so"]
    assert chat.state().totals.messages == 10


@pytest.fixture
def misnamed(store):
    """A function that stores a conversation whose head names a record as what it is not."""

    def misnamed(name="bad", version=FORMAT, messages=6, **fields):
        lines = [
            encode(make_entry("message", message=said(str(n)) if n % 2 else user(str(n)))) for n in range(messages)
        ]
        lines.append(encode(make_entry("annotation", data={"title": "t"}, version=version)))
        info = {"v": 2, "creation_id": "b", "created": 1, "messages": messages, "turns": messages // 2} | fields
        store.append(Key("default", name), lines, after=None, revision=Revision("v", 5, None, json.dumps(info)))
        return chat_on(store, name)

    return misnamed


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
def test_a_head_that_names_another_record_is_an_error_until_it_is_mended(misnamed, fields, calls):
    messages = fields.get("messages", 6)
    given = {
        "view": lambda chat: chat.view(),
        "trim": lambda chat: chat.trim(LastTurns(1, 1)),
        "rewind": lambda chat: chat.rewind(to=chat.log.fetch_head().end),
        "forget": lambda chat: chat.forget(before=messages),
        "setup": lambda chat: chat.setup(),
    }
    chat = misnamed(**fields)
    lines = bodies(chat.log.store, chat)
    for name in calls:
        with pytest.raises(CorruptRecord, match=r"the head names it as|it does not hold the active path"):
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
def test_a_head_that_names_a_record_of_a_later_version_is_told(misnamed, field):
    chat = misnamed(version=9, **{field: 6})
    with pytest.raises(UnsupportedRecord):
        chat.setup() if field == "setup_position" else chat.view()
    assert chat.repair(dry_run=False)
    assert chat.setup() is None
    assert len(chat.messages()) == 6


@pytest.mark.parametrize("field", ["cut_position", "setup_position", "path_position"])
def test_a_head_that_names_a_record_which_is_forgotten_is_mended(store, misnamed, field):
    chat = misnamed(**{field: 0})
    store.forget(chat.log.key, before=2)
    with pytest.raises(CorruptRecord, match="but it was forgotten"):
        chat.setup() if field == "setup_position" else chat.rewind(to=4)
    assert chat.repair(dry_run=False)
    assert texts(chat.messages()) == ["2", "3", "4", "5"]
    assert chat.repair() == ()


def test_a_walk_goes_on_behind_a_head_that_names_another_record(store, misnamed):
    numbered(chat_on(store, "a"), 6)
    misnamed("b", cut_position=0, view_start=1)
    numbered(chat_on(store, "c"), 6)
    history = History(store)
    assert [each.key.id for each in history.check().found] == ["b"]
    assert len(history.list().items) == 3
    assert history.prune(ttl=timedelta(days=1)).kept == 2


def test_damage_before_what_is_sent_is_led_around_for_those_who_read_it(chat, hurt):
    thought = {"role": "assistant", "content": [THOUGHT, {"type": "text", "text": "so"}]}
    chat.append([user("0"), said("1"), user("2"), said("3"), user("4"), said("5"), user("6"), thought])
    chat.trim(LastTurns(2, 2))
    chat.append([user("8"), thought])
    hurt(1)
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


def test_what_was_paid_is_counted_once(chat, hurt):
    chat.append([user("a"), reply(1, output_tokens=3), user("c"), reply(2, output_tokens=4)])
    before = chat.usage()
    hurt(0)
    chat.repair(dry_run=False)
    spent = chat.state().totals.usage
    assert sum(turn.tokens.output for turn in before.turns) == before.total.output == spent["output_tokens"]


def test_nothing_is_mended_while_a_turn_is_open(chat, hurt):
    numbered(chat, 4)
    opened = make_entry("message", message=user("?"), turn="t", data={"lease_until": now() + 10**9})
    chat.log.append([opened])
    hurt(1)
    with pytest.raises(TurnInProgress):
        chat.repair(dry_run=False)
    assert len(chat.repair()) == 1


# Wherever it stands.


def long_conversation(chat):
    """Store one of 700 records with everything that a log can have; return the positions of what is special in it."""
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


def reopened(store, chat):
    """Return the conversation as another process finds it."""
    other = type(store)()
    other._data = store._data
    return History(other).conversation(chat.id)


def check_mended(store, chat, lost):
    """A new reader reads all that is left, a second repair finds nothing, and the conversation goes on."""
    fresh = reopened(store, chat)
    assert fresh.repair() == ()
    messages = fresh.messages()
    assert list_problems(messages) == []
    newest = fresh.last_entries(10_000)
    assert len(newest) == fresh.state().totals.messages
    assert not lost.intersection(entry.position for entry in newest)
    assert fresh.setup() is None or fresh.setup()["model"] == "m"
    fresh.append(user("on"))
    assert texts(reopened(store, chat).messages())[-1] == "on"
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
def test_damage_is_led_around_wherever_it_stands(store, chat, hurt, places):
    special = long_conversation(chat)
    start, end = chat.log.last_head.start, chat.log.last_head.end
    lost = {special[place] if isinstance(place, str) else place % end for place in places}
    held = store._data.scopes[chat.scope][chat.id].bodies
    for position in lost:
        held[position - start] += " "
    fresh = reopened(store, chat)
    found = fresh.repair(dry_run=False)
    damaged = {each.position for each in found if "the record is damaged" in each.what}
    assert damaged <= lost, "what is on no path is nobody's trouble"
    check_mended(store, chat, lost)
    assert reopened(store, chat).info().title == "T"


@pytest.mark.parametrize("seed", range(12))
def test_any_damage_is_led_around(store, chat, seed):
    """Also once more, when what leads around it is damaged itself."""
    choose = random.Random(seed)
    special = long_conversation(chat)
    lost = set()
    for _ in range(2):
        head = chat.log.refresh()
        held = store._data.scopes[chat.scope][chat.id].bodies
        new = set(choose.sample(range(head.start, head.end), choose.choice([1, 2, 30])))
        new |= {position for position in special.values() if choose.random() < 0.3}
        new |= {position for position in range(head.end - 3, head.end) if choose.random() < 0.3}
        for position in new:
            held[position - head.start] += " "
        lost |= new
        reopened(store, chat).repair(dry_run=False)
        check_mended(store, chat, lost)
        chat.log.refresh()


@pytest.mark.parametrize("seed", range(150))
def test_stretches_tell_the_same_as_the_whole(seed, monkeypatch):
    """What is read piece by piece is mended as what is read at once."""
    outcomes = []
    for size in (0, 300, 10**9):
        monkeypatch.setattr(repair, "_CHUNK_SIZE", size)
        with MemoryStore() as store:
            chat = chat_on(store)
            messy(chat, random.Random(seed))
            found = chat.repair(dry_run=False)
            outcomes.append(
                (
                    found,
                    chat.messages(),
                    chat.state().totals.messages,
                    chat.state().totals.turns,
                    chat.state().view.tokens,
                )
            )
            assert chat.repair() == ()
            assert list_problems(chat.messages()) == []
    assert outcomes[0] == outcomes[1] == outcomes[2]


def messy(chat, choose):
    """Store what crashes and other programs leave: calls without results, results without calls, nothing at all."""
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


class Weighing(MemoryStore):
    """Keeps lines packed, and gives no more at once than a store should."""

    def read(self, key, *, start=0, stop=None):
        part = super().read(key, start=start, stop=stop)
        return part and ReadResult(part.head, [Record(each.position, each.body[:-1] + "}") for each in part.records])


@pytest.mark.parametrize(("count", "size"), [(60, 1_000_000), (6000, 10_000)])
def test_a_conversation_of_sixty_megabytes_is_not_held(count, size):
    with Weighing() as store:
        chat = chat_on(store)
        for start in range(0, count, 1000):
            words = "x" * size
            chat.append([(said if n % 2 else user)(f"{n} {words}") for n in range(start, min(start + 1000, count))])
        held = store._data.scopes[chat.scope][chat.id].bodies
        held[1] += " "
        held[count // 2] += " "
        tracemalloc.start()
        try:
            found = reopened(store, chat).repair(dry_run=False)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert {each.position for each in found} == {1, count // 2}
    assert peak < 20_000_000


@pytest.mark.parametrize("place", [0, 3, 9])
def test_a_repaired_conversation_is_forked_and_forgotten(store, chat, hurt, place):
    numbered(chat, 10)
    hurt(place)
    fresh = reopened(store, chat)
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
    assert reopened(store, chat).repair() == ()
    assert next(iter(reopened(store, chat).entries())).position == 10


class HoledStore(MemoryStore):
    """Keeps nothing at the positions of `hole`, and says how far that goes if `tells`; counts the reads."""

    hole = range(0)
    tells = True
    reads = 0

    def read(self, key, *, start=0, stop=None):
        self.reads += 1
        part = super().read(key, start=0, stop=0)
        if part is None or not self.hole:
            return super().read(key, start=start, stop=stop)
        shift = len(self.hole)
        head = replace(part.head, end=part.head.end + shift)
        low = max(start if start >= 0 else head.end + start, head.start)
        high = head.end if stop is None else min(stop, head.end)
        if low >= high:
            return ReadResult(head, [])
        if low in self.hole:
            raise CorruptRecord(key, low, "it is missing", stop=self.hole.stop if self.tells else None)
        if low < self.hole.start:
            return ReadResult(head, super().read(key, start=low, stop=min(high, self.hole.start)).records)
        records = super().read(key, start=low - shift, stop=high - shift).records
        return ReadResult(head, [Record(each.position + shift, each.body) for each in records])


@pytest.mark.parametrize("length", [1, 100_000])
def test_records_that_are_missing_in_a_row_are_found_with_a_few_reads(length):
    store = HoledStore()
    numbered(History(store).conversation("x"), 20)
    store.hole = range(7, 7 + length)
    store.reads = 0
    found = History(store).conversation("x").repair()
    assert [each.position for each in found] == list(store.hole)
    assert store.reads < 12


@pytest.mark.parametrize("tells", [True, False])
def test_a_head_that_names_too_many_positions_is_told_as_damaged(tells, monkeypatch):
    monkeypatch.setattr("chathistory.log.read_damaged.LONGEST_GAP", 1000)
    store = HoledStore()
    numbered(History(store).conversation("x"), 20)
    store.hole, store.tells = range(7, 7 + 10**12), tells
    chat = History(store).conversation("x")
    with pytest.raises(CorruptRecord, match="more than 1000 positions in a row") as caught:
        chat.repair()
    assert caught.value.position is None
    assert store.reads < (20 if tells else 1100)
