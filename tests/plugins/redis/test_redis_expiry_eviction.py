"""Conversations that end without a delete: time to live, eviction, a server that lost its data."""

from __future__ import annotations

import contextlib
import signal
import time
import warnings

import pytest
import redis
from chathistory_redis.schema import EXPIRY_MARGIN
from fault_proxy import FaultProxy
from redis_servers import Pair, Server, ended, until

from chathistory import History, Key, open_store
from chathistory.errors import Conflict, OutcomeUnknown
from chathistory.log.clock import Clock, use_clock
from chathistory.testing.contract.checked_reads import read_bodies, read_everything
from chathistory.testing.contract.samples import (
    EPOCH,
    KEY,
    append_lines,
    create_conversation,
    make_lines,
    make_revision,
)

HOUR = 3_600_000
DAY = 24 * HOUR
SOME_MINUTES = 600_000
"""Milliseconds that a busy machine may take between two lines of a test."""


def read_milliseconds_left(valkey, prefix) -> int:
    with valkey.client() as client:
        return client.pttl(f"{prefix}{{0}}:{KEY.scope}:{KEY.id}")


def check_milliseconds_left(valkey, prefix, expected: int) -> None:
    assert expected - SOME_MINUTES < read_milliseconds_left(valkey, prefix) <= expected


def test_the_server_removes_a_conversation_an_hour_after_it_expired(store, valkey, prefix):
    at, day = EPOCH + 10**12, DAY * 1000
    head = store.append(KEY, make_lines(1), after=None, revision=make_revision(updated=at, expires=at + day))
    assert EXPIRY_MARGIN == HOUR
    check_milliseconds_left(valkey, prefix, DAY + HOUR)
    revision = make_revision(updated=at + 1, expires=at + 10 * day + 1)
    head = store.append(KEY, make_lines(1), after=head, revision=revision)
    check_milliseconds_left(valkey, prefix, 10 * DAY + HOUR)
    store.forget(KEY, before=1)
    check_milliseconds_left(valkey, prefix, 10 * DAY + HOUR)
    store.append(KEY, make_lines(1), after=head, revision=make_revision(updated=at + 2))
    assert read_milliseconds_left(valkey, prefix) == -1, "a conversation without an expiry must not get one"


def test_a_clock_that_was_ahead_does_not_shorten_a_life(store, valkey, prefix):
    """The time of an append only grows, so for a day it stays where the fast clock was; its expiry is not."""
    now, day = time.time_ns() // 1000, 86_400_000_000
    head = store.append(KEY, make_lines(1), after=None, revision=make_revision(updated=now + day))
    store.append(KEY, make_lines(1), after=head, revision=make_revision(updated=now + day + 1, expires=now + day // 2))
    check_milliseconds_left(valkey, prefix, 13 * HOUR)


@pytest.mark.parametrize("expires", [0, 1, EPOCH, 2**53 - 1])
def test_no_expiry_removes_at_once_or_fails(store, valkey, prefix, expires):
    store.append(KEY, make_lines(1), after=None, revision=make_revision(expires=expires))
    assert read_milliseconds_left(valkey, prefix) > HOUR - SOME_MINUTES
    assert read_bodies(store, KEY) == make_lines(1)


def test_a_time_to_live_through_the_core(valkey, prefix):
    seconds = 0

    def tick() -> int:
        return EPOCH + seconds * 1_000_000

    with use_clock(Clock(wall=tick, elapsed=tick)), open_store(valkey.url, prefix=prefix, ttl=60) as store:
        chat = History(store).conversation("brief")
        chat.append({"role": "user", "content": "one"})
        assert len(chat.messages()) == 1
        seconds = 61
        assert chat.messages() == []
        assert list(History(store).list().items) == []
        chat.append({"role": "user", "content": "again"})
        assert [entry.message["content"] for entry in chat.entries()] == ["again"]


@pytest.mark.parametrize("where", ["valkey", "cluster"])
def test_what_the_server_removed_is_not_listed_and_leaves_the_index(request, where, prefix):
    place = request.getfixturevalue(where)
    with open_store(place.url, prefix=prefix) as store:
        keys = [Key("default", f"c{number:03d}") for number in range(60)]
        for key in keys:
            create_conversation(store, key)
        gone = set(keys[5:50])
        for key in gone:
            _remove(place, store, key)
        page = store.heads("default", limit=12)
        assert [head.key for head in page.items] == [*keys[59:49:-1], keys[4], keys[3]]
        assert [head.key for head in store.heads("default", limit=12, after=page.next).items] == keys[2::-1]
        assert sorted(store.keys()) == sorted(set(keys) - gone)
        for key in set(keys) - gone:
            _remove(place, store, key)
        assert list(store.heads("default").items) == []
        assert list(store.keys()) == []
        assert _leftovers(place, prefix) == []


def test_a_page_goes_on_past_thousands_that_are_gone(store, valkey, prefix):
    create_conversation(store, Key("default", "oldest"))
    with valkey.client() as client:
        client.zadd(f"{prefix}{{0}}:default", {f"gone {number}": EPOCH * 2 + number for number in range(5000)})
    assert [head.key.id for head in store.heads("default").items] == ["oldest"]
    with valkey.client() as client:
        assert client.zcard(f"{prefix}{{0}}:default") == 1


def test_removed_conversations_do_not_accumulate_in_an_index_that_is_never_listed(store, valkey, prefix):
    for number in range(200):
        key = Key("default", f"c{number:03d}")
        create_conversation(store, key)
        with valkey.client() as client:
            client.delete(f"{prefix}{{0}}:default:{key.id}")
    with valkey.client() as client:
        assert client.zcard(f"{prefix}{{0}}:default") <= 3


def test_an_index_that_the_server_evicted_comes_back_with_the_next_append(store, valkey, prefix):
    head, other = create_conversation(store), create_conversation(store, Key(KEY.scope, "other"))
    with valkey.client() as client:
        client.delete(f"{prefix}{{0}}:{KEY.scope}", f"{prefix}{{0}}")
    assert read_bodies(store, KEY) == make_lines(1)
    assert list(store.keys()) == []
    append_lines(store, head)
    append_lines(store, other)
    assert sorted(store.keys()) == sorted(store.keys(KEY.scope)) == [KEY, other.key]
    with valkey.client() as client:
        client.delete(f"{prefix}{{0}}")
    append_lines(store, store.read(KEY).head)
    assert len(list(store.keys())) == 2


def test_a_walk_through_all_names_goes_on_after_a_failover():
    """The order of a set's members in memory is another one on each server; a walk may not depend on it."""
    with ended(Pair()) as pair, FaultProxy(pair.master.port) as proxy, open_store(proxy.url) as store:
        due = [Key("default", f"c{number:04d}") for number in range(700)]
        for key in due:
            create_conversation(store, key)
        with pair.master.client() as client:
            until(lambda: client.execute_command("WAIT", 1, 1000), what="the copy")
        walk = store.keys("default")
        first = [next(walk) for _ in range(10)]
        proxy.upstream = pair.replica.port
        store._connection._client.connection_pool.disconnect()
        assert sorted([*first, *walk]) == due


def test_a_walk_misses_nothing_that_is_written_meanwhile(store):
    heads = [create_conversation(store, Key("default", f"c{number:04d}")) for number in range(700)]
    walk = store.keys("default")
    seen = [next(walk)]
    for head in heads[::7]:
        append_lines(store, head)
    store.delete(heads[-1].key)
    seen += walk
    assert len(seen) == len(set(seen))
    assert set(seen) - {heads[-1].key} == {head.key for head in heads[:-1]}


def test_a_writer_does_not_go_on_in_a_server_that_came_back_empty(server):
    with open_store(server.url) as store:
        head = create_conversation(store)
        chat = History(store).conversation("chat")
        chat.append({"role": "user", "content": "before"})
        server.stop(signal.SIGKILL)
        server.start()
        assert store.read(KEY) is None
        with pytest.raises(Conflict) as caught:
            append_lines(store, head)
        assert caught.value.head is None
        with pytest.raises(OutcomeUnknown):
            chat.append({"role": "user", "content": "after"})
        assert list(store.keys()) == []
        chat.state()
        chat.append({"role": "user", "content": "again"})
        assert [entry.message["content"] for entry in chat.entries()] == ["again"]


def test_a_flush_in_mid_conversation_is_a_conflict(server):
    with open_store(server.url) as store, server.client() as client:
        head = append_lines(store, create_conversation(store))
        client.flushall()
        with pytest.raises(Conflict) as caught:
            append_lines(store, head)
        assert caught.value.head is None
        assert read_everything(store) == {}
        assert client.dbsize() == 0


def test_what_was_saved_is_there_after_a_crash():
    with Server("--appendonly", "yes", "--appendfsync", "always") as server, open_store(server.url) as store:
        head = store.append(KEY, make_lines(5), after=None, revision=make_revision(payload="info"))
        head = store.append(KEY, make_lines(2, first=5), after=head, revision=make_revision())
        store.forget(KEY, before=3)
        server.stop(signal.SIGKILL)
        server.start()
        assert read_bodies(store, KEY) == make_lines(4, first=3)
        assert append_lines(store, head).end == 8
        assert [item.key for item in store.heads(KEY.scope).items] == [KEY]


def test_a_server_that_evicts_is_warned_about(server):
    with open_store(server.url) as store, server.client() as client:
        for policy, limit, due in (
            ("allkeys-lru", "100mb", ["allkeys-lru"]),
            ("volatile-ttl", "100mb", ["volatile-ttl"]),
            ("noeviction", "100mb", []),
            ("allkeys-lru", "0", []),
        ):
            client.config_set("maxmemory-policy", policy)
            client.config_set("maxmemory", limit)
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                store.check()
            assert [word for word in due if word in str(caught[0].message)] == due
            assert len(caught) == len(due)


def _remove(place, store, key) -> None:
    """Remove a conversation as expiry or eviction do: the list alone."""
    name = store._layout.names(key).conversation
    for server in getattr(place, "masters", [place]):
        with server.client() as client, contextlib.suppress(redis.exceptions.MovedError):
            client.delete(name)


def _leftovers(place, prefix) -> list[bytes]:
    found = []
    for server in getattr(place, "masters", [place]):
        with server.client() as client:
            found += list(client.scan_iter(f"{prefix}*", count=1000))
    return found
