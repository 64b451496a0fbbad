"""Every raw damage against every call: it affects nothing but the damaged document."""

from __future__ import annotations

from functools import partial

import pytest
from damage_checks import (
    call_by_name,
    check_erase,
    check_not_overwritten,
    check_others_readable,
    check_recovery,
    check_walks,
    outcome,
    spread,
)
from mongodb_damage import HEADS, SEGMENTS, Damage, chosen, damages
from mongodb_samples import RAW, damage_record, revision
from pymongo.errors import PyMongoError

from chathistory import Head, Key
from chathistory.errors import ChatHistoryError, CorruptRecord, StoreRejected
from chathistory.testing.contract.samples import append_lines, create_conversation, make_lines

pytestmark = pytest.mark.wide

KEY = Key("default", "conversation")
NAME = {"s": KEY.scope, "i": KEY.id}
COUNT = 40
OTHERS = [Key(KEY.scope, f"other {number}") for number in range(4)]
FAR_AWAY = Key("another scope", "other")
EVERY = list(damages())
STEP = 29  # one below the number of values, so that each field comes with another value


@pytest.fixture(autouse=True)
def use_small_limits(monkeypatch):
    """Have tails and segments that fill up soon, and bodies in pieces."""
    for name, size in {"FULL_TAIL_SIZE": 600, "KEPT_TAIL_SIZE": 250, "SEGMENT_SIZE": 200, "PIECE_LENGTH": 150}.items():
        monkeypatch.setattr(f"chathistory_mongodb.write.{name}", size)


def long_line(position: int) -> str:
    return f'{{"text": "line {position}", "more": "{"x" * 400}"}}'


def text(position: int) -> str:
    return long_line(position) if position % 10 == 5 else make_lines(1, first=position)[0]


def fill_store(store) -> Head:
    head = store.append(KEY, [text(0)], after=None, revision=revision())
    while head.end < COUNT:
        count = min(1 + head.end % 3, COUNT - head.end)
        head = store.append(KEY, [text(head.end + at) for at in range(count)], after=head, revision=revision())
    return head


def test_there_are_enough_of_them():
    assert len(EVERY) > 800
    assert len({damage.name for damage in EVERY}) == len(EVERY)


@pytest.mark.parametrize("damage", spread([*EVERY, *chosen(1, 120)], STEP), ids=str)
def test_damage_stays_where_it_is(store, database, damage: Damage):
    head = fill_store(store)
    for key in (*OTHERS, FAR_AWAY):
        create_conversation(store, key, 3)
    assert database[SEGMENTS].count_documents({"key": NAME}) > 5
    try:
        damage.do(database, NAME)
    except PyMongoError as error:
        pytest.fail(f"the damage could not be done: {error}")
    check_what_is_listed(store, database)
    check_reads(store, blind=damage.blind)
    check_what_is_found(store, blind=damage.blind)
    outcomes = [*call_by_name(store, KEY, head), outcome(partial(store.sweep, before=2**53 - 1))]
    assert not any(isinstance(each, StoreRejected) for each in outcomes)
    dead = {"dead": {"$in": [1, 2]}}
    check_erase(
        store,
        KEY.scope,
        FAR_AWAY,
        may_be_gone=lambda key: database[HEADS].find_one({"_id": {"s": key.scope, "i": key.id}, **dead}) is not None,
    )
    raw = database.with_options(codec_options=RAW)
    for name in (HEADS, SEGMENTS):
        for document in raw[name].find():
            name_in_it = document["_id"] if name == HEADS else document.get("key")
            says = name_in_it.get("s") if hasattr(name_in_it, "get") else None
            assert says != KEY.scope, f"{name} still has {document['_id']}"


def check_what_is_listed(store, database) -> None:
    """Nothing that is damaged hides anything else, and a damaged head is reported where it would be listed."""
    document = database.with_options(codec_options=RAW)[HEADS].find_one({"_id": NAME}, {"dead": True, "version": True})
    is_there = document is not None and not ("version" not in document and document.get("dead") in (1, 2))
    walks = check_walks(store, KEY, others=OTHERS, listed=OTHERS, far=FAR_AWAY, is_there=is_there)
    if is_there:
        is_readable = not isinstance(outcome(partial(store.read, KEY, stop=0)), ChatHistoryError)
        for listed, damaged in walks.listings:
            assert KEY in listed or KEY in {each.key for each in damaged.values()}
            assert (KEY in listed) is is_readable
    found = list(store.keys())
    assert len(found) == len(set(found))
    assert {*OTHERS, FAR_AWAY} <= set(found)
    assert KEY in found or not is_there
    assert set(store.keys(KEY.scope)) == {key for key in found if key.scope == KEY.scope}


def check_reads(store, *, blind: bool) -> None:
    """What can be read alone can be read together, and an error names the first that cannot."""
    single = [outcome(partial(store.read, KEY, start=at, stop=at + 1)) for at in range(COUNT)]
    wrong = {at: each for at, each in enumerate(single) if isinstance(each, ChatHistoryError)}
    for at, each in enumerate(single):
        if at not in wrong and each is not None and each.records:
            assert each.records[0].body == text(at) or blind
        elif isinstance(each, CorruptRecord):
            assert each.position in {at, None}
    for start, stop in [(at, at + width) for width in (2, 7, COUNT) for at in range(0, COUNT, 3)]:
        run = outcome(partial(store.read, KEY, start=start, stop=stop))
        if isinstance(run, ChatHistoryError):
            assert start in wrong
            assert run.position == wrong[start].position
        elif run is not None and run.records:
            seen = [record.position for record in run.records]
            assert not set(seen) & set(wrong)
            stopped = seen[-1] + 1
            assert stopped in {min(stop, run.head.end), *wrong}, "the run ended early, and nothing is damaged there"


def check_what_is_found(store, *, blind: bool) -> None:
    """All sound records are found again at their positions, and the conversation continues after them."""
    restored = check_recovery(store, KEY, most=2**53)
    if restored is None:
        return
    found, sound = restored
    if found.start == 0 and found.end == COUNT and not blind:
        assert all(body == text(position) for position, body in sound.items())
    assert store.find_records(KEY).end == found.end
    head = store.read(KEY, stop=0).head
    grown_head = append_lines(store, append_lines(store, head, 3), 30)
    last = store.read(KEY, start=-33).records
    assert [record.body for record in last] == make_lines(33, first=head.end)
    assert store.delete(KEY, version=grown_head.revision.version) is True
    fill_store(store)


BATCHES = (1, 2, 3, 300)


@pytest.mark.parametrize("size", BATCHES)
def test_damage_of_a_record_leaves_all_others_readable(store, database, size):
    raw = database.with_options(codec_options=RAW)

    def damage(at):
        before = {name: list(raw[name].find()) for name in (HEADS, SEGMENTS)}
        damage_record(database, KEY, at)

        def undo():
            for name, documents in before.items():
                for document in documents:
                    database[name].replace_one({"_id": document["_id"]}, document)

        return undo

    check_others_readable(store, KEY, size, damage, grows=False)


def test_a_damaged_record_moves_with_the_others(store, database):
    """The bodies of a full tail move to a segment; damaged ones too, and they stay damaged."""
    head = create_conversation(store, KEY, 3)
    damage_record(database, KEY, 1)
    for _ in range(30):
        head = append_lines(store, head)
    assert database[SEGMENTS].count_documents({"first": {"$lte": 1}, "end": {"$gt": 1}}) == 1
    with pytest.raises(CorruptRecord) as caught:
        store.read(KEY, start=1)
    assert caught.value.position == 1
    assert [record.body for record in store.read(KEY, start=2).records][:3] == make_lines(3, first=2)
    store.forget(KEY, before=1)
    assert store.forget(KEY, before=2).start == 2


def test_a_writer_who_came_meanwhile_is_not_overwritten(store, database):
    head = fill_store(store)

    def damage():
        good = database[HEADS].find_one({"_id": NAME})
        database[HEADS].update_one({"_id": NAME}, {"$set": {"end": "x"}})
        return partial(database[HEADS].replace_one, {"_id": NAME}, good)

    check_not_overwritten(store, head, damage=damage, remove=partial(store.delete, KEY))


def test_a_sweep_goes_on_past_what_is_damaged(store, database):
    for number in range(5):
        store.append(Key("default", f"c{number}"), ["x"], after=None, revision=revision(expires=5))
    database[HEADS].update_one({"_id.i": "c1"}, {"$unset": {"version": 1}})
    database[HEADS].update_one({"_id.i": "c2"}, {"$set": {"scope": 7}})
    database[HEADS].insert_one({"_id": "odd", "expires": 3})
    database[HEADS].insert_one({"_id": {"s": "default", "i": "dead"}, "dead": 2, "expires": 0})
    swept = store.sweep(before=10)
    assert (swept.expired, swept.damaged) == (3, 3)
    assert sorted(store.keys()) == [Key("default", "c1"), Key("default", "c2")]
