"""Errors and failures of servers: each becomes the right typed error, in time, and quotes nothing."""

from __future__ import annotations

import contextlib
import select
import signal
import socket
from collections import Counter
from functools import partial

import pytest
import redis
from fault_proxy import FaultProxy
from redis.crc import key_slot
from redis_servers import DEBIAN, OLDEST, VALKEY, Pair, Server, ended, until

from chathistory import Key, open_store
from chathistory.errors import CorruptRecord, StoreError, StoreRejected, StoreUnavailable, UnsupportedRecord
from chathistory.testing.contract.checked_reads import read_bodies, read_head
from chathistory.testing.contract.every_method import CALLS, catch_error, check_no_message_text
from chathistory.testing.contract.samples import (
    FAR,
    KEY,
    MARKER,
    append_lines,
    create_conversation,
    make_lines,
    make_revision,
)

OLDER = [pytest.param(version, marks=pytest.mark.stress) for version in (OLDEST, DEBIAN)]
VERSIONS = [pytest.param(VALKEY, id="Valkey"), *OLDER]


def check_error(call, kind: type[StoreError]) -> StoreError:
    """Return what a call raises, having checked its type, its cause, and that it quotes nothing."""
    error = catch_error(call)
    assert type(error) is kind, repr(error)
    assert isinstance(error, CorruptRecord) or error.__cause__ is not None
    check_no_message_text(error)
    return error


SAID = {
    "-LOADING Redis is loading the dataset in memory": "loading its data",
    "-BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.": "busy",
    "-CLUSTERDOWN Hash slot not served": "cluster is down",
    "-CLUSTERDOWN The cluster is down": "cluster is down",
    "-MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.": "lost its primary",
    "-NOREPLICAS Not enough good replicas to write.": "too few replicas",
    "-READONLY You can't write against a read only replica.": "is a replica",
    "-TRYAGAIN Multiple keys request during rehashing of slot": "being moved",
    "-ERR Error running script (call to f_0): @user_script:1: -READONLY You can't write": "is a replica",
}
REFUSED = {
    "-MOVED 3999 127.0.0.1:6381": "redis[+]cluster",
    "-ASK 3999 127.0.0.1:6381": "redis[+]cluster",
    "-NOAUTH Authentication required.": "user or password",
    "-WRONGPASS invalid username-password pair or user is disabled.": "user or password",
    "-NOPERM this user has no permissions to run the 'evalsha' command": "may not",
    "-OOM command not allowed when used memory > 'maxmemory'.": "no memory",
    "-MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist": "disk",
    "-ERR Error running script (call to f_0): @user_script:1: -OOM command not allowed": "no memory",
    f"-ERR unknown command 'EVALSHA', with args beginning with: '{MARKER}' '2' ": "unknown command",
    "-ERR something that nobody has heard of": "nobody has heard of",
}


@pytest.fixture
def saying(valkey, prefix):
    """Yield a function that gives the error of an append to a server that says something else."""
    with FaultProxy(valkey.port) as proxy, open_store(proxy.url, prefix=prefix) as store:

        def says(words: str, kind: type[StoreError], name: str) -> StoreError:
            proxy.instead = lambda request: f"{words}\r\n".encode() if b"EVAL" in request else None
            return check_error(partial(CALLS[name], store), kind)

        yield says


@pytest.mark.parametrize(("words", "due"), SAID.items())
def test_what_passes_is_unavailable_and_nothing_was_stored(saying, words, due):
    for name in ("append", "read", "heads"):
        error = saying(words, StoreUnavailable, name)
        assert due in str(error)
        assert error.outcome == "not stored"


@pytest.mark.parametrize(("words", "due"), REFUSED.items())
def test_what_is_refused_is_rejected(saying, words, due):
    for name in ("append", "read", "heads"):
        assert due.replace("[+]", "+") in str(saying(words, StoreRejected, name))


def test_scripts_that_the_server_has_forgotten_are_sent_again(store, valkey):
    head = create_conversation(store, count=2)
    with valkey.client() as client:
        for look in (
            lambda: append_lines(store, head),
            lambda: read_bodies(store, KEY),
            lambda: store.heads(KEY.scope),
        ):
            client.script_flush()
            look()
        client.script_flush()
        assert list(store.keys()) == [KEY]
        client.script_flush()
        store.forget(KEY, before=1)
        client.script_flush()
        store.check()
        assert read_bodies(store, KEY) == make_lines(3)[1:]
        client.script_flush()
        assert store.delete(KEY) is True


@pytest.mark.parametrize("binary", VERSIONS)
def test_a_server_without_memory_refuses_and_still_reads_forgets_and_deletes(binary):
    with Server(binary=binary) as server, open_store(server.url) as store, server.client() as client:
        head = create_conversation(store, count=50)
        client.config_set("maxmemory", "1")
        append = partial(store.append, KEY, [MARKER * 1000], after=head, revision=make_revision(payload=MARKER))
        assert "memory" in str(check_error(append, StoreRejected))
        check_error(lambda: create_conversation(store, Key("new", "new")), StoreRejected)
        assert read_head(store, KEY) == head
        assert list(store.keys()) == [KEY], "a refused append left something"
        assert store.forget(KEY, before=10).start == 10
        assert read_bodies(store, KEY) == make_lines(40, first=10)
        assert store.delete(KEY) is True
        assert client.dbsize() == 0
        client.config_set("maxmemory", "0")
        assert create_conversation(store).end == 1


@pytest.mark.parametrize("binary", VERSIONS)
def test_a_replica_is_read_and_takes_no_writes(binary):
    with ended(Pair(binary=binary)) as pair:
        master, replica = pair.master, pair.replica
        with open_store(master.url) as store, open_store(replica.url) as second:
            head = create_conversation(store, count=3)
            until(lambda: second.read(KEY) is not None, what="the copy")
            assert read_bodies(second, KEY) == make_lines(3)
            assert list(second.heads(KEY.scope).items) == [head]
            for call in (
                partial(append_lines, second, head),
                partial(second.delete, KEY),
                partial(second.forget, KEY, before=1),
            ):
                assert check_error(call, StoreUnavailable).outcome == "not stored"
            assert read_bodies(store, KEY) == make_lines(3)


def test_a_user_without_rights(valkey, prefix):
    with valkey.client() as client, open_store(valkey.url, prefix=prefix) as store:
        head = create_conversation(store)
        client.execute_command(
            "ACL", "SETUSER", "reader", "on", ">secret", "~*", "+@read", "+@scripting", "+@connection"
        )
        client.execute_command("ACL", "SETUSER", "other", "on", ">secret", "~other:*", "+@all")
        client.execute_command("ACL", "SETUSER", "lame", "on", ">secret", "~*", "+@all", "-lset")
        address = valkey.url.replace("//", "//{}:secret@")
        with open_store(address.format("reader"), prefix=prefix) as reader:
            assert read_bodies(reader, KEY) == make_lines(1)
            assert list(reader.heads(KEY.scope).items) == [head]
            check_error(lambda: append_lines(reader, head), StoreRejected)
            check_error(lambda: create_conversation(reader, Key("new", "new")), StoreRejected)
            check_error(lambda: reader.delete(KEY), StoreRejected)
            assert "LSET" in str(catch_error(reader.check))
        with open_store(address.format("other"), prefix=prefix) as other:
            for name, call in CALLS.items():
                assert isinstance(catch_error(partial(call, other)), StoreRejected), name
        with open_store(address.format("lame"), prefix=prefix) as lame, pytest.raises(StoreRejected, match="LSET"):
            lame.check()
        with open_store(address.format("nobody"), prefix=prefix) as nobody:
            assert "secret" not in str(check_error(partial(nobody.read, KEY), StoreRejected))
        for lacking in ("lset", "rpush", "zadd", "pexpire"):
            client.execute_command("ACL", "SETUSER", lacking, "on", ">secret", "~*", "+@all", f"-{lacking}")
            with open_store(address.format(lacking), prefix=prefix) as lame, pytest.raises(StoreRejected):
                lame.append(KEY, make_lines(2), after=head, revision=make_revision(expires=FAR))
        assert read_bodies(store, KEY) == make_lines(1), "half an append was done"
        assert list(store.keys()) == [KEY]


@pytest.fixture
def sent_to(monkeypatch):
    """Count what is sent to each port, and the connections that are begun."""
    counts: Counter[int] = Counter()
    for name in ("send_packed_command", "_connect"):

        def count(connection, *args, real=getattr(redis.Connection, name), **kwargs):  # noqa: B008
            counts[connection.port] += 1
            return real(connection, *args, **kwargs)

        monkeypatch.setattr(redis.Connection, name, count)
    return counts


def test_a_server_that_hangs_is_noticed(valkey, store, prefix, sent_to):
    """Each call waits once, for as long as `socket_timeout` says."""
    create_conversation(store)
    with FaultProxy(valkey.port) as proxy, open_store(proxy.url, prefix=prefix, socket_timeout=0.1) as hasty:
        until(lambda: catch_error(partial(hasty.read, KEY)) is None, what="an answer in time")
        proxy.hang = True
        for call in CALLS.values():
            sent_to.clear()
            assert check_error(partial(call, hasty), StoreUnavailable).outcome == "unknown"
            assert sent_to[proxy.port] <= 3, "it was tried again: a new connection sends its first words, then the call"
        proxy.hang = False
    assert read_bodies(store, KEY)[0] == make_lines(1)[0]


def test_a_cluster_node_that_hangs_is_noticed(cluster, prefix, sent_to):
    with open_store(cluster.url, prefix=prefix) as store:
        keys = [Key("default", f"c{number}") for number in range(6)]
        for key in keys:
            create_conversation(store, key)
        stopped = cluster.masters[1]
        there = {key for key in keys if cluster.owner(key_slot(store._layout.names(key).conversation)) is stopped}
        assert there
        with open_store(cluster.url, prefix=prefix, socket_timeout=0.3) as hasty:
            until(lambda: not any(catch_error(partial(hasty.read, key)) for key in keys), what="answers in time")
            stopped.stop(signal.SIGSTOP)
            try:
                for key in keys:
                    sent_to.clear()
                    error = catch_error(partial(hasty.read, key))
                    assert isinstance(error, (StoreUnavailable, type(None)))
                    assert error is not None or key not in there
                    assert sent_to[stopped.port] <= 9
                for call in (partial(hasty.heads, "default"), lambda: list(hasty.keys())):
                    sent_to.clear()
                    assert isinstance(catch_error(call), StoreUnavailable)
                    assert sent_to[stopped.port] <= 9
            finally:
                stopped.stop(signal.SIGCONT)
            until(lambda: not any(catch_error(partial(hasty.read, key)) for key in keys), what="recovery")
        until(lambda: all(map(cluster.agrees, cluster.masters)), what="agreement")


def test_a_server_that_takes_no_connection_is_noticed(prefix, sent_to):
    with contextlib.ExitStack() as connections, socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        waiting = [connections.enter_context(socket.socket()) for _ in range(4)]
        for one in waiting:
            one.settimeout(0)
            one.connect_ex(full.getsockname())
        assert select.select([], waiting, [], 60)[1], "one is connected, for which there is room"
        port = full.getsockname()[1]
        with open_store(f"redis://127.0.0.1:{port}", prefix=prefix, socket_connect_timeout=0.3) as store:
            error = check_error(lambda: create_conversation(store), StoreUnavailable)
        assert (error.outcome, sent_to[port]) == ("not stored", 1)


@pytest.mark.parametrize(
    "command", [("SET", b"text"), ("HSET", b"field", b"value"), ("RPUSH", b"no head"), ("RPUSH", b"")]
)
def test_a_key_of_ours_that_holds_something_else_is_damage_and_stays(store, valkey, prefix, command):
    head = create_conversation(store)
    name = f"{prefix}{{0}}:{KEY.scope}:{KEY.id}"
    with valkey.client() as client:
        assert client.delete(name) == 1
        client.execute_command(command[0], name, *command[1:])
        before = client.dump(name)
        calls = [
            partial(append_lines, store, head),
            partial(create_conversation, store),
            partial(store.read, KEY),
            partial(store.read, KEY, start=-2),
            partial(store.read, KEY, stop=0),
            partial(store.forget, KEY, before=1),
            partial(store.delete, KEY, version="x"),
        ]
        for call in calls:
            assert check_error(call, CorruptRecord).position is None
        page = store.heads(KEY.scope)
        assert (page.items, [each.key for each in page.damaged]) == ([], [KEY])
        assert client.dump(name) == before, "damage was overwritten"
        assert store.delete(KEY) is True, "who deletes whatever is there may"
        assert list(store.keys()) == list(client.scan_iter(f"{prefix}*")) == []


@pytest.mark.parametrize("change", [("LTRIM", 1, -1), ("RPUSH", "more"), ("RPOP",), ("LSET", -1, "1\nhead")])
def test_a_list_that_is_not_as_its_head_says_is_damage(store, valkey, prefix, change):
    head = create_conversation(store, count=3)
    with valkey.client() as client:
        client.execute_command(change[0], f"{prefix}{{0}}:{KEY.scope}:{KEY.id}", *change[1:])
    calls = (partial(store.read, KEY), partial(store.read, KEY, start=-3), partial(store.forget, KEY, before=1))
    for call in (partial(append_lines, store, head), *calls):
        check_error(call, CorruptRecord)


def test_a_head_of_a_later_version_is_unsupported(store, valkey, prefix):
    head = create_conversation(store, count=3)
    with valkey.client() as client:
        client.lset(f"{prefix}{{0}}:{KEY.scope}:{KEY.id}", -1, b"2\n0\n3\nv\n1\n\n")
    for call in (partial(append_lines, store, head), partial(store.read, KEY), partial(store.read, KEY, start=-2)):
        error = catch_error(call)
        assert isinstance(error, UnsupportedRecord)
        assert error.version == 2
    assert isinstance(store.heads(KEY.scope).damaged[0].error, UnsupportedRecord)


def test_a_body_that_is_not_text_is_damage_at_its_position(store, valkey, prefix):
    create_conversation(store, count=3)
    with valkey.client() as client:
        client.lset(f"{prefix}{{0}}:{KEY.scope}:{KEY.id}", 1, b"\xff")
    error = check_error(partial(store.read, KEY), CorruptRecord)
    assert error.position == 1
    assert [record.position for record in store.read(KEY, start=2).records] == [2]


def test_an_index_of_another_type_harms_the_listing_alone(store, valkey, prefix):
    index = f"{prefix}{{0}}:{KEY.scope}"
    head = create_conversation(store)
    with valkey.client() as client:
        client.delete(index)
        client.set(index, "text")
        head = append_lines(store, head)
        other = create_conversation(store, Key(KEY.scope, "other"))
        assert read_bodies(store, KEY) == make_lines(2)
        page = store.heads(KEY.scope)
        assert (page.items, [(each.key, each.where) for each in page.damaged]) == ([], [(None, index)])
        assert list(store.keys()) == []
        assert [each.where for each in store.damaged_keys(KEY.scope)] == [index]
        assert sorted(store.scan_keys()) == [KEY, other.key]
        assert client.get(index) == b"text", "what somebody put there is theirs to remove"
        client.delete(index)
    assert sorted(store.scan_keys()) == sorted(store.keys()) == [KEY, other.key]
    assert {item.key for item in store.heads(KEY.scope).items} == {KEY, other.key}


def test_a_plain_url_to_a_cluster_names_the_right_one(cluster, prefix):
    errors = []
    for server in cluster.masters:
        with open_store(server.url, prefix=prefix) as store:
            errors.append(catch_error(partial(store.read, KEY)))
    assert any("redis+cluster:" in str(error) and isinstance(error, StoreRejected) for error in errors)
