"""One damaged thing stays one: every raw damage against every call."""

from __future__ import annotations

from functools import partial

import pytest
from mongodb_damage import HEADS, SEGMENTS, Damage, chosen, damages
from mongodb_samples import RAW, damage_record, revision
from pymongo.errors import PyMongoError

from chathistory import Head, Key
from chathistory.errors import ChatHistoryError, CorruptRecord, StoreRejected, UnsupportedRecord
from chathistory.testing.contract.calls import silent
from chathistory.testing.contract.samples import created, grown, lines

pytestmark = pytest.mark.repeated

KEY = Key("default", "conversation")
NAME = {"s": KEY.scope, "i": KEY.id}
COUNT = 40
OTHERS = [Key(KEY.scope, f"other {number}") for number in range(4)]
FAR_AWAY = Key("another scope", "other")
EVERY = list(damages())
STEP = 29  # one below the number of values, so that each field comes with another value


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Have tails and segments that fill up soon, and bodies in pieces."""
    for name, size in {"TAIL": 600, "KEPT": 250, "SEGMENT": 200, "PIECE": 150}.items():
        monkeypatch.setattr(f"chathistory_mongodb.write.{name}", size)


def spread(every, step):
    """Return all damages as parameters; those of every day are each so-manieth, the others are for `make stress`."""
    return [pytest.param(each, marks=[pytest.mark.stress] if at % step else []) for at, each in enumerate(every)]


def outcome(call):
    """Return what a call gives; an error must be one of ours and quote nothing."""
    try:
        return call()
    except ChatHistoryError as error:
        silent(error)
        return error


def pages(store, scope, limit):
    """Walk a listing to its end; return the heads, and what is damaged."""
    heads, damaged, cursor = [], {}, None
    for _ in range(100):
        page = store.heads(scope, after=cursor, limit=limit)
        assert len(page.items) <= limit
        heads += page.items
        damaged |= {each.where: each for each in page.damaged}
        cursor = page.next
        if cursor is None:
            return heads, damaged
    pytest.fail("the listing does not end")


def long_line(position: int) -> str:
    return f'{{"text": "line {position}", "more": "{"x" * 400}"}}'


def text(position: int) -> str:
    return long_line(position) if position % 10 == 5 else lines(1, first=position)[0]


def filled(store) -> Head:
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
    head = filled(store)
    for key in (*OTHERS, FAR_AWAY):
        created(store, key, 3)
    assert database[SEGMENTS].count_documents({"key": NAME}) > 5
    try:
        damage.do(database, NAME)
    except PyMongoError as error:
        pytest.fail(f"the damage could not be done: {error}")
    check_walks(store, database)
    for key in (*OTHERS, FAR_AWAY):
        assert [record.body for record in store.read(key).records] == lines(3)
    check_reads(store, blind=damage.blind)
    check_recovery(store, blind=damage.blind)
    check_named(store, head)
    check_erase(store, database)


def check_walks(store, database) -> None:
    """Nothing that is damaged hides anything else."""
    document = database.with_options(codec_options=RAW)[HEADS].find_one({"_id": NAME}, {"dead": True, "version": True})
    is_there = document is not None and not ("version" not in document and document.get("dead") in (1, 2))
    for limit in (1, 2, 100):
        heads, damaged = pages(store, KEY.scope, limit)
        ids = [head.key for head in heads]
        assert len(ids) == len(set(ids))
        assert set(OTHERS) <= set(ids)
        assert all(isinstance(each.error, CorruptRecord | UnsupportedRecord) for each in damaged.values())
        assert all(each.where.isprintable() for each in damaged.values())
        if is_there:
            assert KEY in ids or KEY in {each.key for each in damaged.values()}
            head_alone = outcome(partial(store.read, KEY, stop=0))
            assert (KEY in ids) is not isinstance(head_alone, ChatHistoryError)
    for walk in (store.keys, store.scan_keys):
        found = list(walk())
        assert len(found) == len(set(found))
        assert {*OTHERS, FAR_AWAY} <= set(found)
        assert KEY in found or not is_there
        assert set(walk(KEY.scope)) == {key for key in found if key.scope == KEY.scope}
    assert [head.key for head in store.heads(FAR_AWAY.scope).items] == [FAR_AWAY]
    for each in (*store.damaged_keys(), *store.damaged_keys(KEY.scope)):
        assert each.key is None
        assert each.where.isprintable()
        silent(each.error)


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


def check_recovery(store, *, blind: bool) -> None:
    """Whatever is sound is found again at its place, and a new head makes it readable."""
    found = outcome(partial(store.find_records, KEY))
    if found is None:
        return
    assert not isinstance(found, ChatHistoryError), repr(found)
    assert 0 <= found.start <= found.end <= 2**53
    stop = min(found.end, found.start + 1000)
    sound = {record.position: record.body for record in store.read_found(found, start=found.start, stop=stop)}
    assert list(sound) == sorted(sound)
    if found.problem is None or not sound:
        return
    if found.start == 0 and found.end == COUNT and not blind:
        assert all(body == text(position) for position, body in sound.items())
    head = Head(KEY, found.start, found.end, revision(payload="new"))
    assert store.restore_head(found, head) == head
    assert store.read(KEY, stop=0).head == head
    for position in range(found.start, stop):
        run = outcome(partial(store.read, KEY, start=position, stop=position + 1))
        if position in sound:
            assert [record.body for record in run.records] == [sound[position]]
        else:
            assert isinstance(run, CorruptRecord)
            assert run.position == position
    again = store.find_records(KEY)
    assert (again.start, again.end, again.problem) == (found.start, found.end, None)
    assert outcome(partial(store.restore_head, found, head)).head == head
    grown_head = grown(store, grown(store, head, 3), 30)
    last = store.read(KEY, start=-33).records
    assert [record.body for record in last] == lines(33, first=head.end)
    assert store.delete(KEY, version=grown_head.revision.version) is True
    filled(store)


def check_named(store, head: Head) -> None:
    """A call that names the conversation works, or says what is wrong."""
    for call in (
        partial(store.read, KEY),
        partial(store.read, KEY, start=-2),
        partial(store.read, KEY, start=-200),
        partial(store.read, KEY, start=3),
        partial(store.read, KEY, stop=0),
        partial(grown, store, head),
        partial(grown, store, head, 50),
        partial(created, store),
        partial(store.forget, KEY, before=2),
        partial(store.forget, KEY, before=17),
        partial(store.sweep, before=2**53 - 1),
        partial(store.delete, KEY, version="other"),
    ):
        assert not isinstance(outcome(call), StoreRejected)


def check_erase(store, database) -> None:
    """What erase does: each conversation that a walk finds, and then what is left."""
    for key in list(store.scan_keys(KEY.scope)):
        document = database[HEADS].find_one({"_id": {"s": key.scope, "i": key.id}, "dead": {"$in": [1, 2]}})
        assert store.delete(key) is True or document is not None
    report = store.remove_leftovers(KEY.scope)
    untold = {each.where for each in store.damaged_keys(KEY.scope)}
    assert set(report.left) <= untold, "only what does not tell its scope may be left"
    assert report.complete is (not report.left)
    raw = database.with_options(codec_options=RAW)
    for name in (HEADS, SEGMENTS):
        for document in raw[name].find():
            told = document["_id"] if name == HEADS else document.get("key")
            says = told.get("s") if hasattr(told, "get") else None
            assert says != KEY.scope, f"{name} still has {document['_id']}"
    assert [record.body for record in store.read(FAR_AWAY).records] == lines(3)


BATCHES = (1, 2, 3, 300)


@pytest.mark.parametrize("size", BATCHES)
def test_damage_of_a_record_leaves_all_others_readable(store, database, size):
    head = None
    while head is None or head.end < 600:
        head = created(store, KEY, count=size) if head is None else grown(store, head, size)
    for at in (0, 1, 299, 300, head.end - 1):
        before = (
            list(database.with_options(codec_options=RAW)[HEADS].find()),
            list(database.with_options(codec_options=RAW)[SEGMENTS].find()),
        )
        damage_record(database, KEY, at)
        for start, stop in ((at, None), (at, at + 1)):
            with pytest.raises(CorruptRecord) as caught:
                store.read(KEY, start=start, stop=stop)
            assert caught.value.position == at
        for start, stop in ((0, at), (at + 1, head.end)):
            records = []
            while start + len(records) < stop:
                records += store.read(KEY, start=start + len(records), stop=stop).records
            assert [record.body for record in records] == lines(stop - start, first=start)
        for name, documents in zip((HEADS, SEGMENTS), before, strict=True):
            for document in documents:
                database[name].replace_one({"_id": document["_id"]}, document)


def test_a_damaged_record_moves_with_the_others(store, database):
    """What stands in the tail goes to a segment when that is full: also what is damaged, which stays damaged."""
    head = created(store, KEY, 3)
    damage_record(database, KEY, 1)
    for _ in range(30):
        head = grown(store, head)
    assert database[SEGMENTS].count_documents({"first": {"$lte": 1}, "end": {"$gt": 1}}) == 1
    with pytest.raises(CorruptRecord) as caught:
        store.read(KEY, start=1)
    assert caught.value.position == 1
    assert [record.body for record in store.read(KEY, start=2).records][:3] == lines(3, first=2)
    store.forget(KEY, before=1)
    assert store.forget(KEY, before=2).start == 2


def test_a_writer_who_came_meanwhile_is_not_overwritten(store, database):
    head = filled(store)
    good = database[HEADS].find_one({"_id": NAME})
    database[HEADS].update_one({"_id": NAME}, {"$set": {"end": "x"}})
    found = store.find_records(KEY)
    database[HEADS].replace_one({"_id": NAME}, good)
    head = grown(store, head)
    error = outcome(partial(store.restore_head, found, Head(KEY, 0, COUNT, revision())))
    assert error.head == head
    store.delete(KEY)
    error = outcome(partial(store.restore_head, found, Head(KEY, 0, COUNT, revision())))
    assert error.head is None
    assert store.find_records(KEY) is None


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
