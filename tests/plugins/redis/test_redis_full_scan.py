"""Walks over all keys: with an index that lost entries, and while servers change."""

from __future__ import annotations

import io
import random

import pytest
from chathistory_redis import scan
from fault_proxy import FaultProxy
from redis.crc import key_slot
from redis_servers import Cluster, Move, Pair, Sentinels, Server, ended, until

from chathistory import History, Key, open_store
from chathistory.errors import StoreRejected, StoreUnavailable
from chathistory.storage.values import Head
from chathistory.testing.contract.every_method import catch_error
from chathistory.testing.contract.samples import KEY, append_lines, create_conversation, make_lines, make_revision

SCOPES = ("one", "two", "three")


def fill_store(store, count: int) -> set[Key]:
    keys = {Key(SCOPES[number % 3], f"c{number:04d}") for number in range(count)}
    for key in sorted(keys):
        create_conversation(store, key, 2)
    return keys


def erased(store, scope: str):
    """Do what erase does, and return its report."""
    for key in list(store.scan_keys(scope)):
        store.delete(key)
    return store.remove_leftovers(scope)


def names_of(client, prefix: str) -> list[bytes]:
    return list(client.scan_iter(f"{prefix}*", count=1000))


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.wide) for seed in range(1, 4))])
@pytest.mark.parametrize("where", ["valkey", "cluster"])
def test_what_an_evicting_server_leaves_is_found_and_erased(request, where, seed, prefix):
    """Any key may go: an index, a set of scopes, a conversation."""
    chance = random.Random(seed)
    client = request.getfixturevalue(f"{where}_client")
    with open_store(request.getfixturevalue(where).url, prefix=prefix) as store:
        keys = fill_store(store, 60)
        for name in chance.sample(sorted(names_of(client, prefix)), 30):
            client.delete(name)
        left = {key for key in keys if client.exists(store._layout.names(key).conversation)}
        assert set(store.scan_keys()) == left
        assert set(store.keys()) == left, "the walk has not entered what it found into the index"
        assert {head.key for head in store.heads("one", limit=100).items} == {key for key in left if key.scope == "one"}
        for name in chance.sample(sorted(names_of(client, prefix)), 10):
            client.delete(name)
        report = erased(store, "two")
        assert (report.left, report.complete) == ((), True)
        assert not [name for name in names_of(client, prefix) if b":two" in name]
        assert all(b"two" not in client.smembers(tag) for tag in store._layout.scopes())
        assert {key.scope for key in store.scan_keys()} <= {"one", "three"}


@pytest.mark.parametrize("where", ["one server", pytest.param("a cluster", marks=pytest.mark.wide)])
def test_a_server_that_really_evicts(where, prefix):
    options = ("--maxmemory-policy", "allkeys-random")
    with ended(Server(*options) if where == "one server" else Cluster(options=options)) as place:
        servers = getattr(place, "masters", [place])
        with open_store(place.url, prefix=prefix) as store:
            assert store.is_index_complete() is False
            for server in servers:
                with server.client() as client:
                    client.config_set("maxmemory", client.info("memory")["used_memory"] + 300_000)
            written = [Key(SCOPES[number % 3], f"c{number:04d}") for number in range(650)]
            for key in written:
                store.append(key, ["x" * 2000], after=None, revision=make_revision())
            assert sum(_evicted(server) for server in servers) > 100
            for server in servers:
                with server.client() as client:
                    client.config_set("maxmemory", 0)
            stored = {key for key in written if store.read(key) is not None}
            assert 0 < len(stored) < len(written)
            assert set(store.scan_keys()) == stored == set(store.keys())
            for scope in SCOPES:
                report = erased(store, scope)
                assert (report.left, report.complete) == ((), True)
        for server in servers:
            with server.client() as client:
                assert names_of(client, prefix) == []


def _evicted(server) -> int:
    with server.client() as client:
        return client.info("stats")["evicted_keys"]


def test_an_index_is_complete_only_where_every_server_says_so(valkey_client, store, prefix, valkey):
    assert store.is_index_complete() is True
    for policy in ("allkeys-lru", "volatile-ttl", "allkeys-random"):
        valkey_client.config_set("maxmemory-policy", policy)
        assert store.is_index_complete() is False, policy
    valkey_client.config_set("maxmemory-policy", "noeviction")
    user = prefix[:-1]
    valkey_client.execute_command("ACL", "SETUSER", user, "on", ">x", "~*", "+@all", "-info")
    try:
        with open_store(valkey.url.replace("//", f"//{user}:x@"), prefix=prefix) as mute:
            assert mute.is_index_complete() is False
    finally:
        valkey_client.execute_command("ACL", "DELUSER", user)


@pytest.mark.parametrize("which", ["scopes", "index"])
def test_what_relies_on_a_damaged_listing_says_so(store, valkey_client, which):
    history = History(store)
    for name in "abcd":
        history.conversation(name).append({"role": "user", "content": "q"})
    names = store._layout.names(Key("default", "a"))
    wrong = names.scopes if which == "scopes" else names.listing
    valkey_client.delete(wrong)
    valkey_client.hset(wrong, "x", "y")
    for report in (
        history.export_to(io.BytesIO(), all_scopes=True),
        history.copy_to(open_store("memory:"), all_scopes=True),
    ):
        assert (report.all_found, report.complete) == (False, False)
    plan = history.prune(count=10)
    assert (plan.kept, plan.complete) == ((4, True) if which == "scopes" else (0, False))
    scanned = history.export_to(io.BytesIO(), full_scan=True, all_scopes=True)
    assert (scanned.conversations, scanned.all_found) == (4, True)


def test_one_server_of_a_cluster_that_evicts_is_enough(cluster, prefix):
    with open_store(cluster.url, prefix=prefix) as store, cluster.masters[2].client() as client:
        assert store.is_index_complete() is True
        client.config_set("maxmemory-policy", "allkeys-lru")
        assert store.is_index_complete() is False
        client.config_set("maxmemory-policy", "noeviction")
        assert store.is_index_complete() is True


@pytest.fixture
def small_steps(monkeypatch):
    monkeypatch.setattr(scan, "_COUNT", 10)


def test_a_walk_begins_again_after_a_failover(small_steps, prefix):
    """The new master has the same keys at other places of its memory, and some that the old one had not."""
    with ended(Pair()) as pair, FaultProxy(pair.master.port) as proxy, open_store(proxy.url, prefix=prefix) as store:
        keys = fill_store(store, 200)
        with pair.master.client() as master, pair.replica.client() as replica:
            until(lambda: master.execute_command("WAIT", 1, 1000), what="the copy")
            replica.replicaof("NO", "ONE")
            for key in sorted(keys)[:50]:
                name = store._layout.names(key).conversation
                master.delete(name)
        steps = []

        def third_step(request: bytes) -> bool:
            steps.extend([request] if b"SCAN" in request else [])
            if len(steps) == 3:
                proxy.upstream = pair.replica.port
            return len(steps) == 3 and b"SCAN" in request

        proxy.lose = third_step
        assert set(store.scan_keys()) == keys
        assert proxy.lost == 1


def test_a_master_that_becomes_a_replica_on_the_way_does_not_count(small_steps, prefix):
    with ended(Pair()) as pair, FaultProxy(pair.master.port) as proxy, open_store(proxy.url, prefix=prefix) as store:
        keys = fill_store(store, 200)
        demoted = []

        def at_third_step(request: bytes) -> None:
            if b"SCAN" in request:
                demoted.append(request)
            if len(demoted) == 3:
                with pair.master.client() as client:
                    client.replicaof("127.0.0.1", pair.replica.port)

        proxy.instead = at_third_step
        error = catch_error(lambda: list(store.scan_keys()))
        assert isinstance(error, StoreUnavailable), "a walk over a replica counted as complete"
        with pair.replica.client() as client:
            client.replicaof("NO", "ONE")
        proxy.instead = lambda _: None
        proxy.upstream = pair.replica.port
        store._connection._client.connection_pool.disconnect()
        assert set(store.scan_keys()) <= keys


def test_a_walk_through_sentinels_goes_to_the_master_that_they_name(prefix):
    """Also to the one that they name after a failover; meanwhile it says that no server can be reached."""
    with ended(Sentinels()) as group, open_store(group.url, prefix=prefix) as store:
        keys = fill_store(store, 60)
        assert set(store.scan_keys()) == keys
        assert store.is_index_complete() is True
        with group.master.client() as client:
            until(lambda: client.execute_command("WAIT", 1, 1000), what="the copy")
            client.lset(store._layout.names(min(keys)).conversation, -1, b"damaged")
            until(lambda: client.execute_command("WAIT", 1, 1000), what="the copy")
        group.master.stop()
        assert isinstance(catch_error(lambda: list(store.scan_keys())), StoreUnavailable)
        group.fail_over()
        outcomes = []

        def walked() -> bool:
            try:
                outcomes.append(set(store.scan_keys()))
            except StoreUnavailable:  # a sentinel that has not heard of it yet names the old one
                return False
            return True

        until(walked, what="a walk over the new master")
        assert outcomes == [keys]
        found = store.get_recovery().find_records(min(keys))
        store.get_recovery().restore_head(found, Head(found.key, found.start, found.end, make_revision()))
        assert len(store.read(min(keys)).records) == 2


@pytest.mark.parametrize("reports", ["reported", "not reported"])
def test_a_walk_misses_nothing_that_moves_to_where_it_has_been(cluster, prefix, monkeypatch, reports):
    """A slot is moved, while the walk is on its way, from a server that is not looked through yet to one that is."""
    with open_store(cluster.url, prefix=prefix) as store:
        keys = fill_store(store, 150)
        begun: list[Move] = []
        looked: list[str] = []

        def names(ask, pattern):
            found = list(real_names(ask, pattern))
            looked.append("pass")
            if len(looked) == 1:
                begun.extend(_moved_whole(store, cluster, keys, found))
            return iter(found)

        real_names = scan._scan_server
        monkeypatch.setattr(scan, "_scan_server", names)
        if reports == "not reported":
            monkeypatch.setattr(scan, "_moves_no_slot", lambda _ask: False)
        try:
            assert set(store.scan_keys()) == keys
            assert len(looked) > 3, "it was not begun again"
        finally:
            for move in begun:
                Move(move.slot, move.target, move.source).finish()
        until(lambda: all(map(cluster.agrees, cluster.masters)), what="agreement")


def _moved_whole(store, cluster, keys, found) -> list[Move]:
    """Move a slot of keys that were not found to the server on which the others were."""
    names = {store._layout.names(key).conversation for key in keys}
    there = cluster.owner(key_slot(next(name for name in found if name in names)))
    elsewhere = next(name for name in sorted(names - set(found)) if cluster.owner(key_slot(name)) is not there)
    move = Move(key_slot(elsewhere), cluster.owner(key_slot(elsewhere)), there)
    move.finish()
    return [move]


def test_a_walk_while_a_slot_is_on_its_way(cluster, prefix):
    with open_store(cluster.url, prefix=prefix) as store:
        keys = fill_store(store, 100)
        name = store._layout.names(min(keys)).conversation
        source = cluster.owner(key_slot(name))
        move = Move(key_slot(name), source, next(server for server in cluster.masters if server is not source))
        try:
            move.take(*move.left()[:2])
            assert set(store.scan_keys()) == keys
        finally:
            move.finish()
            Move(move.slot, move.target, source).finish()
        assert set(store.scan_keys()) == keys


def test_a_cluster_that_lacks_a_server_is_not_walked_in_part(prefix):
    with (
        ended(Cluster(options=("--cluster-require-full-coverage", "no"))) as cluster,
        open_store(cluster.url, prefix=prefix) as store,
    ):
        fill_store(store, 30)
        cluster.masters[1].stop()
        error = catch_error(lambda: list(store.scan_keys()))
        assert isinstance(error, StoreUnavailable)


def test_without_the_right_to_scan(valkey, valkey_client, prefix):
    user = prefix[:-1]
    valkey_client.execute_command("ACL", "SETUSER", user, "on", ">x", f"~{prefix}*", "+@all", "-@dangerous", "-scan")
    try:
        with open_store(valkey.url.replace("//", f"//{user}:x@"), prefix=prefix) as store:
            create_conversation(store)
            create_conversation(store, Key("broken", "c"))
            valkey_client.delete(f"{prefix}{{0}}:broken")
            valkey_client.set(f"{prefix}{{0}}:broken", "text")
            assert isinstance(catch_error(lambda: list(store.scan_keys())), StoreRejected)
            assert [each.where for each in store.damaged_keys()] == [f"{prefix}{{0}}:broken"]
            valkey_client.rpush(f"{prefix}{{0}}:{KEY.scope}:damaged", b"\xff")
            valkey_client.zadd(f"{prefix}{{0}}:{KEY.scope}", {"damaged": 5})
            report = store.remove_leftovers(KEY.scope)
            assert (report.removed, report.complete) == (1, False)
            assert report.left == (f"{prefix}{{0}}:{KEY.scope}:{KEY.id}",)
            store.delete(KEY)
            report = store.remove_leftovers(KEY.scope)
            assert (report.removed, report.left, report.complete) == (0, (), False)
    finally:
        valkey_client.execute_command("ACL", "DELUSER", user)


def test_a_walk_touches_nothing_of_other_prefixes(store, valkey_client, prefix):
    create_conversation(store)
    foreign = [f"{prefix}x{{0}}:scope:a", f"{prefix[:-1]}{{0}}:scope:a", f"x{prefix}{{0}}:scope:a", f"{prefix}scope"]
    for name in foreign:
        valkey_client.set(name, "not ours")
    assert list(store.scan_keys()) == [KEY]
    assert list(store.damaged_keys()) == []
    store.delete(KEY)
    assert store.remove_leftovers("scope").complete is True
    assert valkey_client.mget(foreign) == [b"not ours"] * len(foreign)
    valkey_client.delete(*foreign)


@pytest.mark.parametrize("prefix", ["a*b[c]?d^e-f\\g:"])
def test_a_prefix_may_look_like_a_pattern(valkey, valkey_client, prefix):
    with open_store(valkey.url, prefix=prefix) as store:
        create_conversation(store)
        valkey_client.set("aXXbcYdZe-f\\g:{0}:scope:other", "not ours")
        assert list(store.scan_keys()) == [KEY]
        store.delete(KEY)
        assert store.remove_leftovers(KEY.scope).complete is True
        valkey_client.delete("aXXbcYdZe-f\\g:{0}:scope:other")


def test_an_append_with_the_same_time_keeps_the_place_in_the_listing(store, valkey, prefix):
    """A title says nothing new: one round trip as ever, and the order stays."""
    heads = [create_conversation(store, Key("default", f"c{number}")) for number in range(6)]
    before = [head.key for head in store.heads("default").items]
    with FaultProxy(valkey.port) as proxy, open_store(proxy.url, prefix=prefix) as far:
        far.read(KEY)
        proxy.forget()
        titled = far.append(
            heads[1].key, make_lines(1), after=heads[1], revision=make_revision(updated=heads[1].revision.updated)
        )
        assert proxy.trips == 1
    assert [head.key for head in store.heads("default").items] == before
    cursor, walked = None, []
    for _ in range(6):
        page = store.heads("default", limit=1, after=cursor)
        walked += page.items
        cursor = page.next
    assert [head.key for head in walked] == before
    assert titled in walked
    same = [
        store.append(head.key, ["x"], after=store.read(head.key, stop=0).head, revision=make_revision(updated=5))
        for head in heads
    ]
    assert [head.key for head in store.heads("default").items] == [head.key for head in same[::-1]]


def test_an_append_that_leaves_the_expiry_leaves_the_servers_time_running(store, valkey_client, prefix):
    name = f"{prefix}{{0}}:{KEY.scope}:{KEY.id}"
    head = store.append(KEY, make_lines(1), after=None, revision=make_revision(expires=2**52))
    assert valkey_client.pexpire(name, 5_000_000)
    head = store.append(KEY, make_lines(1), after=head, revision=make_revision(expires=2**52))
    assert valkey_client.pttl(name) <= 5_000_000
    head = store.append(KEY, make_lines(1), after=head, revision=make_revision(expires=2**52 + 1))
    assert valkey_client.pttl(name) > 5_000_000
    store.append(KEY, make_lines(1), after=head, revision=make_revision())
    assert valkey_client.pttl(name) == -1
    valkey_client.pexpire(name, 5_000_000)
    append_lines(store, store.read(KEY, stop=0).head)
    assert valkey_client.pttl(name) == -1, "a time to live that somebody else has set stays"


@pytest.mark.parametrize("what", [b"LTRIM", b"ZREVRANGE"])
def test_a_server_that_is_only_like_redis_is_refused(valkey, prefix, what):
    with FaultProxy(valkey.port) as proxy, open_store(proxy.url, prefix=prefix) as store:
        store.check()
        answer = b"*3\r\n$0\r\n\r\n$0\r\n\r\n$%d\r\n%s\r\n" % (len(what), what)
        proxy.instead = lambda request: answer if b"EVAL" in request else None
        with pytest.raises(StoreRejected, match=what.decode()):
            store.check()


def test_trying_out_a_server_leaves_nothing_behind(store, valkey_client, prefix):
    store.check()
    assert names_of(valkey_client, prefix) == []
