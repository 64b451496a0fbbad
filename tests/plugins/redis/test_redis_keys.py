"""The keys on the server, as docs/format.md describes them; no other key is read or changed."""

from __future__ import annotations

from functools import partial

import pytest
from chathistory_redis.schema import Layout
from hypothesis import given
from hypothesis import strategies as st
from redis.crc import key_slot

from chathistory import History, Key, open_store
from chathistory.errors import Conflict
from chathistory.testing.contract.checked_reads import read_everything
from chathistory.testing.contract.every_method import CALLS, catch_error
from chathistory.testing.contract.samples import KEY, append_lines, create_conversation, make_revision
from chathistory.testing.contract.tricky_names import NAMES

FOREIGN = 10_000
NAME = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=255)
KEYS = st.builds(Key, NAME, NAME)


def test_the_keys_of_a_conversation(store, valkey, prefix):
    head = store.append(KEY, ["one"], after=None, revision=make_revision(payload="info"), first=7)
    create_conversation(store, Key("a:b%", "c:d"))
    with valkey.client() as client:
        names = sorted(name.decode().removeprefix(prefix) for name in client.scan_iter(f"{prefix}*"))
        assert names == ["{0}", "{0}:a%3Ab%25", "{0}:a%3Ab%25:c:d", "{0}:scope", "{0}:scope:conversation"]
        assert client.smembers(f"{prefix}{{0}}") == {b"scope", b"a%3Ab%25"}
        index = client.zrange(f"{prefix}{{0}}:scope", 0, -1, withscores=True)
        assert index == [(b"conversation", float(head.revision.updated))]
        text = f"1\n7\n8\n{head.revision.version}\n{head.revision.updated}\n\ninfo".encode()
        assert client.lrange(f"{prefix}{{0}}:scope:conversation", 0, -1) == [b"one\n7", text]


def test_nothing_is_left_of_what_is_deleted(store, valkey, prefix):
    for key in (KEY, Key(KEY.scope, "other"), Key("another", "one")):
        append_lines(store, create_conversation(store, key))
    for key in list(store.keys()):
        store.delete(key)
    with valkey.client() as client:
        assert list(client.scan_iter(f"{prefix}*")) == []


@pytest.fixture
def confined(valkey, prefix):
    """The URL of a user who may access only the keys of the prefix, and no dangerous commands."""
    with valkey.client() as client:
        user = prefix[:-1]
        client.execute_command("ACL", "SETUSER", user, "on", ">x", f"~{prefix}*", "+@all", "-@dangerous")
        yield valkey.url.replace("//", f"//{user}:x@")
        client.execute_command("ACL", "DELUSER", user)


def test_foreign_keys_are_neither_read_nor_touched(confined, valkey, prefix):
    names = [f"{prefix[:-1]}{number}" for number in range(FOREIGN)]
    with valkey.client() as client:
        client.mset(dict.fromkeys(names, "not ours"))
        with open_store(confined, prefix=prefix) as store:
            create_conversation(store)
            for name, call in CALLS.items():
                error = catch_error(partial(call, store))
                assert error is None or isinstance(error, Conflict), f"{name}: {error}"
            append_lines(store, create_conversation(store), 3)
            assert [head.key for head in store.heads(KEY.scope).items] == list(store.keys()) == [KEY]
            store.delete(KEY)
        assert set(client.mget(names)) == {b"not ours"}
        client.delete(*names)


def test_prefixes_do_not_reach_each_other(valkey, prefix):
    stores = [open_store(valkey.url, prefix=name) for name in (prefix, prefix[:-1], prefix + ":", prefix + "0")]
    for number, store in enumerate(stores):
        create_conversation(store, Key("scope", f"of {number}"))
    for number, store in enumerate(stores):
        assert list(store.keys()) == [Key("scope", f"of {number}")]
    for store in stores:
        store.delete(next(store.keys()))
        store.close()


@given(KEYS, KEYS, st.sampled_from([Layout("p:"), Layout.for_cluster("p:")]))
def test_no_two_conversations_share_a_key(one, other, layout):
    mine, others = layout.names(one), layout.names(other)
    assert (mine.conversation == others.conversation) is (one == other)
    assert (mine.listing == others.listing) <= (one.scope == other.scope)
    assert mine.conversation not in {*others[1:]}
    assert mine.listing != others.scopes


@given(KEYS)
def test_all_keys_of_a_conversation_are_in_one_slot_and_can_be_found(key):
    layout = Layout.for_cluster("chathistory:")
    names = layout.names(key)
    assert len({key_slot(name) for name in names}) == 1
    assert (names.listing, names.scopes) in layout.indexes(key.scope)
    assert names.scopes in set(layout.scopes())
    assert layout.parse_scope(names.listing.removeprefix(names.scopes + b":")) == key.scope


def test_a_large_scope_is_on_all_masters(cluster, prefix):
    with open_store(cluster.url, prefix=prefix) as store:
        for number in range(150):
            create_conversation(store, Key("default", f"conversation {number}"))
        counts = []
        for server in cluster.masters:
            with server.client() as client:
                counts.append(len(list(client.scan_iter(f"{prefix}*:default:*", count=1000))))
        assert sum(counts) == 150
        assert min(counts) >= 15, counts
        for name in NAMES:
            assert Layout.for_cluster("p:").names(Key("default", name)).scopes != b"p:"


def test_a_copy_into_a_cluster_and_an_erasure_there_are_complete(cluster, cluster_client, prefix):
    """Both touch keys on all masters."""
    with open_store("memory:") as source, open_store(cluster.url, prefix=prefix) as store:
        for scope in ("kept", "erased"):
            for number in range(20):
                History(source).conversation(f"c{number}", scope=scope).append({"role": "user", "content": f"{number}"})
        copied = History(source).copy_to(store, all_scopes=True)
        assert (copied.copied, copied.complete) == (40, True)
        assert read_everything(store) == read_everything(source)
        erased = History(store).erase("erased")
        assert (len(erased.removed), erased.left, erased.complete) == (20, (), True)
        assert sorted(store.keys()) == sorted(store.scan_keys()) == sorted(source.keys("kept"))
        names = list(cluster_client.scan_iter(f"{prefix}*", count=1000))
        assert len(names) > 20
        assert not [name for name in names if b"erased" in name]
