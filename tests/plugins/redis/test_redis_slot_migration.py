"""Slots of a Cluster that move between nodes, key by key: nothing is lost, or counts as damaged."""

from __future__ import annotations

import threading

import pytest
from redis.crc import key_slot
from redis_servers import Cluster, Move, ended, until

from chathistory import Key, open_store
from chathistory.errors import StoreUnavailable
from chathistory.log.commit import commit
from chathistory.testing.contract.checked_reads import read_bodies
from chathistory.testing.contract.samples import append_lines, create_conversation, make_lines, make_revision

SCOPE = "default"


@pytest.fixture(scope="module")
def cluster():
    """One with replicas, for those who wait for them; each test moves back what it has moved."""
    with ended(Cluster(replicas=1)) as cluster:
        yield cluster


@pytest.fixture
def moving(cluster, prefix):
    """Yield a store, the conversations in one of its slots, all its keys, and the move of that slot, just begun."""
    with open_store(cluster.url, prefix=prefix) as store:
        every = [Key(SCOPE, f"c{number:03d}") for number in range(80)]
        for key in every:
            create_conversation(store, key)
        slot = key_slot(store._layout.names(every[0]).conversation)
        mine = [key for key in every if key_slot(store._layout.names(key).conversation) == slot]
        assert 4 <= len(mine) < 20
        source = cluster.owner(slot)
        move = Move(slot, source, next(server for server in cluster.masters if server is not source))
        yield store, mine, every, move
        move.finish()
        Move(slot, move.target, source).finish()


def _stage(move, store, mine, name):
    index, scopes = store._layout.names(mine[0])[1:]
    parts = {
        "nothing": [],
        "some conversations": [store._layout.names(key).conversation for key in mine[:3]],
        "the index": [index],
        "index and scopes": [index, scopes],
        "all but one": [name for name in move.left() if name != store._layout.names(mine[-1]).conversation],
    }
    move.take(*parts[name])


def tried(call):
    """Return the result; None if the slot is being moved, which is the only error that may be."""
    try:
        return call()
    except StoreUnavailable as error:
        why = error
    assert (why.outcome, "being moved" in str(why)) == ("not stored", True)
    return None


@pytest.mark.parametrize("moved", ["nothing", "some conversations", "the index", "index and scopes", "all but one"])
def test_what_is_on_its_way_is_not_gone(moving, moved):
    store, mine, every, move = moving
    _stage(move, store, mine, moved)
    page = tried(lambda: store.heads(SCOPE, limit=300))
    assert page is None or len(page.items) == len(every), "a page left something out"
    names = tried(lambda: sorted(store.keys(SCOPE)))
    assert names in (None, every)
    assert tried(lambda: sorted(store.keys())) in (None, every)
    for key in mine:
        assert read_bodies(store, key) == make_lines(1)
    for key in (mine[0], mine[-1]):
        head = store.read(key, stop=0).head
        tried(lambda key=key, head=head: append_lines(store, head))
    tried(lambda: create_conversation(store, Key(SCOPE, "new")))
    tried(lambda: store.delete(Key(SCOPE, "new")))
    move.finish()
    assert sorted(set(store.keys()) - {Key(SCOPE, "new")}) == every
    listed = {head.key for head in store.heads(SCOPE, limit=300).items}
    assert set(every) <= listed, "the listing has lost a conversation that is being moved"
    for key in mine:
        assert read_bodies(store, key) in (make_lines(1), make_lines(2))


def test_an_append_that_waits_for_a_replica_follows_a_slot_on_its_way(moving, cluster, prefix):
    plain, mine, _, move = moving
    move.take(*move.left())
    with open_store(cluster.url, prefix=prefix, wait=1, wait_timeout=90) as store:
        for key in mine:
            head = plain.read(key, stop=0).head
            assert append_lines(store, head).end == 2


def test_writers_go_on_while_slots_move(cluster, prefix):
    """Each message is stored once, whatever moves: one reported as not stored is not stored, and is sent again."""
    with open_store(cluster.url, prefix=prefix) as store:
        keys = [Key(SCOPE, f"w{number}") for number in range(5)]
        slots = {key_slot(store._layout.names(key).conversation) for key in keys}
        done = threading.Event()
        written = dict.fromkeys(keys, 0)
        threads = [threading.Thread(target=_write, args=(store, key, done, written)) for key in keys]
        for thread in threads:
            thread.start()
        for slot in slots:
            owner = cluster.owner(slot)
            target = next(server for server in cluster.masters if server is not owner)
            for there, here in ((owner, target), (target, owner)):
                Move(slot, there, here).finish()
                before = dict(written)
                until(lambda before=before: all(written[key] > before[key] for key in keys), what="appends of all")
        done.set()
        for thread in threads:
            thread.join()
        assert sorted(store.keys()) == sorted(keys)
        for key in keys:
            texts = read_bodies(store, key)
            assert texts == [f"{key.id} {number}" for number in range(written[key])]
            assert len(texts) >= 2 * len(slots)
        assert {head.key for head in store.heads(SCOPE).items} == set(keys)


def _write(store, key, done, written):
    head, number = None, 0
    while not done.is_set():
        given = make_revision()
        try:
            head = commit(store, key, [f"{key.id} {number}"], after=head, revision=given)
        except StoreUnavailable as error:
            if error.outcome != "not stored":
                raise
        else:
            number += 1
            written[key] = number
