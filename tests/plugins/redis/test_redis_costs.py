"""The cost of a call: round trips and bytes; the same for a long conversation as for a short one."""

from __future__ import annotations

import contextlib
import json
from collections import Counter

import pytest
from fault_proxy import FaultProxy

from chathistory import History, Key, open_store
from chathistory.errors import StoreUnavailable
from chathistory.testing.contract.samples import KEY, append_lines, create_conversation, make_revision

INFO = json.dumps({"title": "A question about foxes", "usage": {"input_tokens": 1234, "output_tokens": 567}})
BODIES = [json.dumps({"v": 1, "text": "The quick brown fox. " * 20, "number": number}) for number in range(2)]


@pytest.fixture
def proxy(valkey):
    with FaultProxy(valkey.port) as proxy:
        yield proxy


@pytest.fixture
def far(proxy, prefix):
    with open_store(proxy.url, prefix=prefix) as store:
        store.check()  # the connection is made
        store.read(KEY)
        assert not store.heads(KEY.scope).items
        assert not list(store.keys())  # the server knows the scripts, whichever test is the first
        yield store


def trips(proxy: FaultProxy, call) -> int:
    proxy.forget()
    call()
    return proxy.trips


def test_each_call_is_one_round_trip(far, proxy):
    for number in range(30):
        head = create_conversation(far, Key(KEY.scope, f"c{number}"), 30)
    calls = {
        "append": lambda: append_lines(far, head, 3),
        "create": lambda: create_conversation(far),
        "tail": lambda: far.read(KEY, start=-20),
        "page": lambda: far.heads(KEY.scope),
        "forget": lambda: far.forget(KEY, before=1),
        "delete": lambda: far.delete(KEY),
        "check": far.check,
    }
    for call in (*calls.values(), lambda: list(far.keys())):  # the server knows the scripts
        call()
    head = append_lines(far, far.read(head.key, stop=0).head)
    assert {name: trips(proxy, call) for name, call in calls.items()} == dict.fromkeys(calls, 1)
    assert trips(proxy, lambda: list(far.keys())) == 2, "scopes, and ids of one scope"


def test_a_turn_is_one_round_trip_and_two_in_a_fresh_process(far, proxy, valkey, prefix):
    chat = History(far).conversation("chat")
    for number in range(10):
        chat.append({"role": "user", "content": f"message {number}"})
    assert trips(proxy, lambda: chat.append({"role": "user", "content": "warm"})) == 1
    with open_store(proxy.url, prefix=prefix) as fresh:
        fresh.check()  # a connection, which begins with a few words of redis-py's own
        again = History(fresh).conversation("chat")

        def turn():
            assert len(again.messages()) > 0
            again.append({"role": "user", "content": "fresh"})

        assert trips(proxy, turn) == 2


@pytest.mark.parametrize("name", ["support/42", "0a7d1c9e-5b44-4f4e-9f53-0f2a4bb1c3d9"])
def test_a_turn_sends_at_most_300_bytes_more_than_it_stores(proxy, valkey, name):
    with open_store(proxy.url) as store:  # the prefix that is used unless another is given
        key = Key("default", name)
        given = make_revision(payload=INFO, expires=4_102_444_800_123_457)
        head = store.append(key, BODIES, after=None, revision=given)
        proxy.forget()
        store.append(key, BODIES, after=head, revision=make_revision(payload=INFO, expires=4_102_444_800_123_457))
        payload = sum(map(len, [*BODIES, INFO, key.scope, key.id]))
        assert proxy.sent - payload <= 300
        store.delete(key)


def test_a_long_conversation_costs_what_a_short_one_costs(far, proxy, valkey):
    def cost(key, count):
        head = create_conversation(far, key, 10)
        while head.end < count:
            head = append_lines(far, head, 5000)
        grown_head = append_lines(far, head, 1)
        seen = []
        with valkey.client() as client:
            for _ in range(5):
                client.config_resetstat()
                proxy.forget()
                for _ in range(50):
                    grown_head = far.append(key, ["x"], after=grown_head, revision=make_revision())
                    far.read(key, start=-20)
                    far.heads(key.scope, limit=1)
                seen.append(client.info("commandstats")["cmdstat_evalsha"]["usec_per_call"])
        return proxy.sent + proxy.received, min(seen)  # the least: the machine has others to serve

    short, fast = cost(Key("short", "c"), 10)
    long, slow = cost(Key("long", "c"), 100_000)
    assert long <= short * 1.1
    assert slow <= fast * 2.5, "the server works longer for a long conversation"


def test_a_page_of_many_costs_what_a_page_of_few_costs(far, proxy):
    for number in range(2000):
        create_conversation(far, Key("many", f"c{number:04d}"))
    for number in range(25):
        create_conversation(far, Key("few", f"c{number:04d}"))
    costs = {}
    for scope in ("many", "few"):
        proxy.forget()
        assert len(far.heads(scope).items) == 20
        costs[scope] = (proxy.trips, proxy.received)
    assert costs["many"] == pytest.approx(costs["few"], rel=0.1)


def test_a_page_in_a_cluster_is_one_round_trip_to_each_master(cluster, prefix):
    with open_store(cluster.url, prefix=prefix) as store:
        for number in range(60):
            create_conversation(store, Key("default", f"c{number:04d}"))
        store.heads("default")
        before = [_calls(server) for server in cluster.masters]
        page = store.heads("default")
        calls_per_master = [_calls(server) - calls for server, calls in zip(cluster.masters, before, strict=True)]
    assert [head.key.id for head in page.items] == [f"c{number:04d}" for number in range(59, 39, -1)]
    assert sum(calls_per_master) == 16, "one script for each of the 16 indexes, which are sent together"


SENT = ("evalsha", "eval", "lrange", "cluster", "command", "client", "hello", "ping", "asking")
"""Commands that no script of ours runs, but for LRANGE."""


def test_each_call_in_a_cluster_is_one_command(cluster, prefix):
    calls = {
        "append": (lambda store, head: append_lines(store, head, 3), {"evalsha": 1}),
        "tail": (lambda store, _: store.read(KEY, start=-20), {"lrange": 1}),
        "read": (lambda store, _: store.read(KEY, stop=2), {"evalsha": 1, "lrange": 1}),
        "forget": (lambda store, _: store.forget(KEY, before=1), {"evalsha": 1}),
        "delete": (lambda store, _: store.delete(KEY), {"evalsha": 1}),
    }
    with contextlib.ExitStack() as opened:
        store = opened.enter_context(open_store(cluster.url, prefix=prefix))
        clients = [opened.enter_context(server.client()) for server in cluster.masters]
        for is_warm in (False, True):  # the second time the servers know the scripts
            head = create_conversation(store, count=3)
            for name, (call, due) in calls.items():
                before = sent_commands(clients)
                call(store, head)
                assert sent_commands(clients) - before == due or not is_warm, name


def sent_commands(clients) -> Counter[str]:
    """Return how often each command came to servers."""
    counts: Counter[str] = Counter()
    for client in clients:
        for name, facts in client.info("commandstats").items():
            command = name.removeprefix("cmdstat_").partition("|")[0]
            counts[command] += facts["calls"] if command in SENT else 0
    return counts


@pytest.mark.parametrize("option", [{"wait": 1}, {"wait_fsync": True}])
def test_an_append_waits_in_the_same_round_trip(proxy, prefix, option):
    with open_store(proxy.url, prefix=prefix, wait_timeout=0.01, **option) as store:
        for _ in range(2):  # the server knows the script the second time
            proxy.forget()
            with pytest.raises(StoreUnavailable):
                create_conversation(store)
            store.delete(KEY)
        proxy.forget()
        with pytest.raises(StoreUnavailable):
            create_conversation(store)
        assert proxy.trips == 1


def _calls(server) -> int:
    with server.client() as client:
        return client.info("commandstats").get("cmdstat_evalsha", {"calls": 0})["calls"]


def test_a_slice_ends_early_to_bound_memory(store):
    body = "x" * 1_000_000
    store.append(KEY, [body] * 20, after=None, revision=make_revision())
    part = store.read(KEY)
    assert 4 <= len(part.records) <= 8
    assert [record.position for record in part.records] == list(range(len(part.records)))
    assert len(store.read(KEY, start=-3).records) == 3


@pytest.mark.parametrize("size", [100, 600, 4_500, 9_000, 50_000])
def test_memory_is_at_most_a_quarter_more_than_the_payload(store, valkey, prefix, size):
    head = None
    for _ in range(100):
        head = store.append(KEY, ["x" * size] * 4, after=head, revision=make_revision())
    with valkey.client() as client:
        used = client.memory_usage(f"{prefix}{{0}}:{KEY.scope}:{KEY.id}", samples=0)
    assert used <= 400 * size * 1.25
