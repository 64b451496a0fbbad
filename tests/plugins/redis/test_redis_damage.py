"""Every raw damage against every call, on one server and in a Cluster: it affects nothing but the damaged key."""

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
    list_all_pages,
    outcome,
    spread,
)
from redis_damage import Damage, chosen, damages

from chathistory import Key, open_store
from chathistory.errors import ChatHistoryError, CorruptRecord
from chathistory.storage.values import Head, Revision
from chathistory.testing.contract.every_method import catch_error
from chathistory.testing.contract.samples import KEY, append_lines, create_conversation, make_lines

pytestmark = pytest.mark.wide

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
    head = append_lines(store, append_lines(store, append_lines(store, create_conversation(store), 2), 3), 3)
    assert head.end == COUNT
    for key in (*OTHERS, FAR_AWAY):
        create_conversation(store, key, 3)
    names = store._layout.names(KEY)
    damage.do(client, names)
    check_what_is_listed(store, client)
    check_reads(store, client, names)
    check_recovery(store, KEY, most=10**15)
    call_by_name(store, KEY, head)
    check_erase(store, KEY.scope, FAR_AWAY)
    prefix = store._layout.prefix
    left = [name for name in client.scan_iter(f"{prefix}*", count=1000) if b":scope" in name[len(prefix) :]]
    assert left == []


def is_listed(store, client, key: Key) -> bool:
    """Whether index and scopes name a conversation, below the interface."""
    names = store._layout.names(key)
    scope, name = names.listing[len(names.scopes) + 1 :], names.conversation[len(names.listing) + 1 :]
    if (client.type(names.listing), client.type(names.scopes)) != (b"zset", b"set"):
        return False
    return client.zscore(names.listing, name) is not None and client.sismember(names.scopes, scope) == 1


def check_what_is_listed(store, client) -> None:
    """Nothing that is damaged hides anything else, and what a walk has found is listed or reported after it."""
    names = store._layout.names(KEY)
    is_there = client.exists(names.conversation) == 1
    can_be_listed = client.type(names.listing) in {b"zset", b"none"}
    listed = {key for key in OTHERS if is_listed(store, client, key)}
    walks = check_walks(store, KEY, others=OTHERS, listed=listed, far=FAR_AWAY, is_there=is_there)
    assert can_be_listed or all(damaged for _, damaged in walks.listings)
    assert all(client.exists(store._layout.names(key).conversation) for key in walks.found)
    if can_be_listed:
        heads, damaged = list_all_pages(store, KEY.scope, 3)
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
        assert text in (None, *make_lines(1, first=at)) or plain or isinstance(single[at], ChatHistoryError)
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


@pytest.mark.parametrize("damage", EVERY[::20], ids=str)
@pytest.mark.parametrize("place", ["valkey"], indirect=True)
def test_no_call_hangs_on_damage(place, damage):
    store, client = place
    head = create_conversation(store, count=3)
    damage.do(client, store._layout.names(KEY))
    find_records = store.get_recovery().find_records
    for call in (
        partial(list_all_pages, store, KEY.scope, 1),
        partial(append_lines, store, head),
        partial(find_records, KEY),
    ):
        error = catch_error(call)
        assert error is None or isinstance(error, ChatHistoryError)


BATCHES = (1, 2, 3, 300)


@pytest.mark.parametrize("size", BATCHES)
def test_damage_of_a_record_leaves_all_others_readable(store, valkey_client, size):
    name = store._layout.names(KEY).conversation

    def damage(at):
        element = valkey_client.lindex(name, at)
        valkey_client.lset(name, at, bytes([element[0] ^ 0x80]) + element[1:])
        return partial(valkey_client.lset, name, at, element)

    check_others_readable(store, KEY, size, damage, grows=True)


def test_the_worst_lists_are_put_in_order(store, valkey, prefix):
    """Records lost and put in at many places at once: each that is left keeps its position."""
    head = create_conversation(store, count=2000, first=50)
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
            assert record.body == make_lines(1, first=position)[0]
    assert wrong == sorted([*(at + 60 for at in gone), 60 + 19])
    head = store.read(KEY, stop=0).head
    assert append_lines(store, head, 3).end == 2053
    assert [item.key for item in store.heads(KEY.scope).items] == [KEY]


def test_a_writer_who_came_meanwhile_is_not_overwritten(store, valkey_client):
    head = create_conversation(store, count=3)
    name = store._layout.names(KEY).conversation

    def damage():
        good = valkey_client.lindex(name, -1)
        valkey_client.lset(name, -1, b"damaged")
        return partial(valkey_client.lset, name, -1, good)

    check_not_overwritten(store, head, damage=damage, remove=partial(valkey_client.delete, name))
