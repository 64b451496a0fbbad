"""One damaged thing stays one: every raw damage against every call, on one server and in a Cluster."""

from __future__ import annotations

from functools import partial

import pytest
from redis_damage import Damage, chosen, damages

from chathistory import Key, open_store
from chathistory.errors import ChatHistoryError, CorruptRecord, UnsupportedRecord
from chathistory.storage.values import Head, Revision
from chathistory.testing.contract.calls import error_of, silent
from chathistory.testing.contract.samples import KEY, created, grown, lines, revision

pytestmark = pytest.mark.repeated

COUNT = 9
OTHERS = [Key(KEY.scope, f"other {number}") for number in range(5)]
FAR_AWAY = Key("another scope", "other")
EVERY = list(damages())


@pytest.fixture(params=["valkey", "cluster"])
def place(request, prefix):
    """Yield a store and a client for the keys below it."""
    server, client = request.getfixturevalue(request.param), request.getfixturevalue(f"{request.param}_client")
    with open_store(server.url, prefix=prefix) as store:
        yield store, client
        for name in list(client.scan_iter(f"{prefix}*", count=1000)):
            client.delete(name)


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


def test_there_are_enough_of_them():
    assert len(EVERY) > 300
    assert len({damage.name for damage in EVERY}) == len(EVERY)


@pytest.mark.parametrize("place", ["valkey"], indirect=True)
@pytest.mark.parametrize("damage", spread([*EVERY, *chosen(1, 60)], 4), ids=str)
def test_damage_stays_where_it_is(place, damage):
    stays_where_it_is(*place, damage)


@pytest.mark.parametrize("place", ["cluster"], indirect=True)
@pytest.mark.parametrize("damage", spread([*EVERY, *chosen(2, 60)], 40), ids=str)
def test_damage_stays_where_it_is_in_a_cluster(place, damage):
    stays_where_it_is(*place, damage)


def stays_where_it_is(store, client, damage: Damage) -> None:
    head = grown(store, grown(store, grown(store, created(store), 2), 3), 3)
    assert head.end == COUNT
    for key in (*OTHERS, FAR_AWAY):
        created(store, key, 3)
    names = store._layout.names(KEY)
    damage.do(client, names)
    check_walks(store, client, is_there=client.exists(names.conversation) == 1)
    for key in (*OTHERS, FAR_AWAY):
        assert [record.body for record in store.read(key).records] == lines(3)
    check_reads(store, client, names)
    check_recovery(store)
    check_named(store, head)
    check_erase(store, client)


def is_listed(store, client, key: Key) -> bool:
    """Whether index and scopes name a conversation, below the interface."""
    names = store._layout.names(key)
    scope, name = names.listing[len(names.scopes) + 1 :], names.conversation[len(names.listing) + 1 :]
    if (client.type(names.listing), client.type(names.scopes)) != (b"zset", b"set"):
        return False
    return client.zscore(names.listing, name) is not None and client.sismember(names.scopes, scope) == 1


def check_walks(store, client, *, is_there: bool) -> None:
    """Nothing that is damaged hides anything else."""
    listed = {key for key in OTHERS if is_listed(store, client, key)}
    can_be_listed = client.type(store._layout.names(KEY).listing) in {b"zset", b"none"}
    for limit in (1, 2, 100):
        heads, damaged = pages(store, KEY.scope, limit)
        ids = [head.key for head in heads]
        assert len(ids) == len(set(ids))
        assert listed <= set(ids)
        assert all(isinstance(each.error, CorruptRecord | UnsupportedRecord) for each in damaged.values())
        assert can_be_listed or damaged
    assert listed <= set(store.keys(KEY.scope))
    assert listed <= set(store.keys())
    assert [head.key for head in store.heads(FAR_AWAY.scope).items] == [FAR_AWAY]
    found = list(store.scan_keys())
    assert len(found) == len(set(found))
    assert {*OTHERS, FAR_AWAY} | ({KEY} if is_there else set()) <= set(found)
    assert all(client.exists(store._layout.names(key).conversation) for key in found)
    assert sorted(store.scan_keys(KEY.scope)) == sorted(set(found) - {FAR_AWAY})
    for each in (*store.damaged_keys(), *store.damaged_keys(KEY.scope)):
        assert each.key is None
        assert each.where.isprintable()
        silent(each.error)
    if can_be_listed:
        heads, damaged = pages(store, KEY.scope, 3)
        known = {head.key for head in heads} | {each.key for each in damaged.values()}
        assert set(OTHERS) <= known
        assert not is_there or KEY in known, "neither listed nor reported, though a walk has found it"


def check_reads(store, client, names) -> None:
    """What can be read alone can be read together, and an error names the first that cannot."""
    single = [outcome(partial(store.read, KEY, start=at, stop=at + 1)) for at in range(COUNT)]
    if any(isinstance(each, CorruptRecord) and each.position is None for each in single):
        assert all(isinstance(each, CorruptRecord) and each.position is None for each in single)
        return
    texts = [run.records[0].body if hasattr(run, "records") and run and run.records else None for run in single]
    for at, text in enumerate(texts):
        element = client.lindex(names.conversation, at)
        plain = element is not None and b"\n" not in element
        assert text in (None, *lines(1, first=at)) or plain or isinstance(single[at], ChatHistoryError)
    wrong = [at for at, each in enumerate(single) if isinstance(each, CorruptRecord)]
    assert [single[at].position for at in wrong] == wrong
    for start in range(COUNT):
        for stop in range(start + 1, COUNT + 1):
            run = outcome(partial(store.read, KEY, start=start, stop=stop))
            first = next((at for at in wrong if start <= at < stop), None)
            if isinstance(run, CorruptRecord):
                assert run.position == first
            elif run is not None and hasattr(run, "records"):
                assert first is None


def check_recovery(store) -> None:
    """Whatever is sound is found again at its place, and a new head makes it readable."""
    recovery = store.get_recovery()
    found = outcome(partial(recovery.find_records, KEY))
    if found is None:
        return
    assert not isinstance(found, ChatHistoryError)
    assert 0 <= found.start <= found.end <= 10**15
    assert found.token.isascii()
    assert found.token.isprintable()
    stop = min(found.end, found.start + 1000)
    sound = {record.position: record.body for record in recovery.read_found(found, start=found.start, stop=stop)}
    assert list(sound) == sorted(sound)
    if found.problem is None or not sound:
        return
    head = Head(KEY, found.start, found.end, revision(payload="new"))
    assert recovery.restore_head(found, head) == head
    assert store.read(KEY, stop=0).head == head
    for position in range(found.start, stop):
        run = outcome(partial(store.read, KEY, start=position, stop=position + 1))
        if position in sound:
            assert [record.body for record in run.records] == [sound[position]]
        else:
            assert isinstance(run, CorruptRecord)
            assert run.position == position
    again = recovery.find_records(KEY)
    assert (again.start, again.problem) == (found.start, None)
    assert outcome(partial(recovery.restore_head, found, head)).head == head, "the head is not the one that was found"


def check_named(store, head: Head) -> None:
    """A call that names the conversation works, or says what is wrong."""
    for call in (
        partial(store.read, KEY),
        partial(store.read, KEY, start=-2),
        partial(store.read, KEY, start=-200),
        partial(store.read, KEY, stop=0),
        partial(grown, store, head),
        partial(created, store),
        partial(store.forget, KEY, before=2),
        partial(store.delete, KEY, version="other"),
    ):
        outcome(call)


def check_erase(store, client) -> None:
    """What erase does: each conversation that a walk finds, and then what is left."""
    for key in list(store.scan_keys(KEY.scope)):
        assert store.delete(key) is True
    report = store.remove_leftovers(KEY.scope)
    strays = {each.where for each in store.damaged_keys(KEY.scope)}
    assert set(report.left) <= strays, "only what does not tell its scope may be left"
    assert report.complete is (not report.left)
    prefix = store._layout.prefix
    left = [name for name in client.scan_iter(f"{prefix}*", count=1000) if b":scope" in name[len(prefix) :]]
    assert left == []
    assert [record.body for record in store.read(FAR_AWAY).records] == lines(3)


@pytest.mark.parametrize("damage", EVERY[::20], ids=str)
@pytest.mark.parametrize("place", ["valkey"], indirect=True)
def test_no_call_hangs_on_damage(place, damage):
    store, client = place
    head = created(store, count=3)
    damage.do(client, store._layout.names(KEY))
    find_records = store.get_recovery().find_records
    for call in (partial(pages, store, KEY.scope, 1), partial(grown, store, head), partial(find_records, KEY)):
        error = error_of(call, seconds=10)
        assert error is None or isinstance(error, ChatHistoryError)


BATCHES = (1, 2, 3, 300)


@pytest.mark.parametrize("size", BATCHES)
def test_damage_of_a_record_leaves_all_others_readable(store, valkey, prefix, size):
    head = None
    while head is None or head.end < 600:
        head = created(store, count=size) if head is None else grown(store, head, size)
    name = store._layout.names(KEY).conversation
    with valkey.client() as client:
        for at in (0, 1, 299, 300, head.end - 1):
            element = client.lindex(name, at)
            client.lset(name, at, bytes([element[0] ^ 0x80]) + element[1:])
            with pytest.raises(CorruptRecord) as caught:
                store.read(KEY)
            assert caught.value.position == at
            with pytest.raises(CorruptRecord) as caught:
                store.read(KEY, start=at, stop=at + 1)
            assert caught.value.position == at
            for start, stop in ((0, at), (at + 1, head.end)):
                records = store.read(KEY, start=start, stop=stop).records
                assert [record.body for record in records] == lines(stop - start, first=start)
            head = grown(store, head)
            client.lset(name, at, element)


def test_the_worst_lists_are_put_in_order(store, valkey, prefix):
    """Records lost and put in at many places at once: each that is left keeps its position."""
    head = created(store, count=2000, first=50)
    store.forget(KEY, before=60)
    name = store._layout.names(KEY).conversation
    with valkey.client() as client:
        elements = client.lrange(name, 0, -1)[:-1]
        gone = {*range(100, 110), 700, 701, 1999 - 60}
        kept = [element for at, element in enumerate(elements) if at not in gone]
        for at in (5, 300, 301, 900):
            kept.insert(at, b"put in")
        kept[20] = b"damaged\n"
        client.delete(name)
        client.rpush(name, *kept)
    found = store.get_recovery().find_records(KEY)
    assert (found.start, found.end) == (60, 2050)
    store.get_recovery().restore_head(found, Head(KEY, found.start, found.end, Revision("v", 5, None, "info")))
    wrong = []
    for position in range(60, 2050):
        try:
            (record,) = store.read(KEY, start=position, stop=position + 1).records
        except CorruptRecord as error:
            wrong.append(error.position)
        else:
            assert record.body == lines(1, first=position)[0]
    assert wrong == sorted([*(at + 60 for at in gone), 60 + 19])
    head = store.read(KEY, stop=0).head
    assert grown(store, head, 3).end == 2053
    assert [item.key for item in store.heads(KEY.scope).items] == [KEY]


def test_a_writer_who_came_meanwhile_is_not_overwritten(store, valkey):
    head = created(store, count=3)
    name = store._layout.names(KEY).conversation
    with valkey.client() as client:
        good = client.lindex(name, -1)
        client.lset(name, -1, b"damaged")
        found = store.get_recovery().find_records(KEY)
        client.lset(name, -1, good)
        head = grown(store, head)
        error = outcome(partial(store.get_recovery().restore_head, found, Head(KEY, 0, 3, revision())))
        assert error.head == head
        assert len(store.read(KEY).records) == 4
        client.delete(name)
    error = outcome(partial(store.get_recovery().restore_head, found, Head(KEY, 0, 3, revision())))
    assert error.head is None
    assert store.get_recovery().find_records(KEY) is None
