"""Lost replies: nothing is lost or stored twice, and the error has the right outcome."""

from __future__ import annotations

import pytest
from fault_proxy import FaultProxy

from chathistory import History, Key, open_store
from chathistory.errors import Conflict, StoreUnavailable
from chathistory.testing.contract.checked_reads import read_bodies
from chathistory.testing.contract.every_method import CALLS
from chathistory.testing.contract.samples import KEY, append_lines, create_conversation, make_lines, make_revision


@pytest.fixture
def proxy(valkey):
    with FaultProxy(valkey.port) as proxy:
        yield proxy


@pytest.fixture
def far(proxy, prefix):
    with open_store(proxy.url, prefix=prefix) as store:
        yield store


def is_script(request: bytes) -> bool:
    return any(word in request for word in (b"EVALSHA", b"EVAL\r\n", b"LRANGE"))


def test_each_of_150_appends_is_there_once_though_30_answers_were_lost(far, store, proxy):
    chat = History(far).conversation("lossy")
    chat.append({"role": "user", "content": "before"})
    requests = []

    def every_sixth(request: bytes) -> bool:
        requests.append(request)
        return len(requests) % 6 == 1

    proxy.lose = lambda request: is_script(request) and every_sixth(request)
    for number in range(150):
        chat.append({"role": "user", "content": f"message {number}"})
    proxy.lose = lambda _: False
    assert proxy.lost == 30
    entries = list(History(store).conversation("lossy").entries())
    assert [entry.message["content"] for entry in entries[1:]] == [f"message {number}" for number in range(150)]


def test_an_append_whose_answer_was_lost_is_a_conflict_with_itself(far, proxy):
    head = create_conversation(far)
    proxy.lose = is_script
    given = make_revision()
    with pytest.raises(StoreUnavailable) as caught:
        far.append(KEY, ["once"], after=head, revision=given)
    assert caught.value.outcome == "unknown"
    proxy.lose = lambda _: False
    with pytest.raises(Conflict) as repeated:
        far.append(KEY, ["once"], after=head, revision=given)
    assert repeated.value.head.revision == given
    assert read_bodies(far, KEY) == [*make_lines(1), "once"]


@pytest.mark.parametrize("name", CALLS)
def test_a_lost_answer_is_unavailable_and_the_next_call_works(far, proxy, name):
    head = create_conversation(far)
    proxy.lose = is_script
    with pytest.raises(StoreUnavailable) as caught:
        CALLS[name](far)
    assert caught.value.outcome == "unknown"
    assert proxy.lost == 1, "the client repeated the call by itself"
    proxy.lose = lambda _: False
    if name not in {"delete", "forget"}:
        assert read_bodies(far, KEY) == make_lines(1)
        assert append_lines(far, head).end == 2


def test_what_was_not_sent_is_not_stored(valkey, prefix):
    with FaultProxy(valkey.port) as proxy, open_store(proxy.url, prefix=prefix) as store:
        proxy.end()
        with pytest.raises(StoreUnavailable) as caught:
            create_conversation(store)
    assert caught.value.outcome == "not stored"


def test_connections_that_the_server_has_cut_do_no_harm(store, valkey):
    head = create_conversation(store)
    with valkey.client() as client:
        for connection in client.client_list():
            if connection["cmd"] != "client|list":
                client.client_kill_filter(_id=connection["id"])
    assert read_bodies(store, KEY) == make_lines(1)
    assert append_lines(store, head).end == 2


def test_lost_answers_in_a_cluster(cluster, prefix):
    """The client follows its nodes by their own addresses, so the answers are lost by killing its connections."""
    with open_store(cluster.url, prefix=prefix) as store:
        chats = [History(store).conversation(f"chat {number}") for number in range(9)]
        for turn in range(5):
            for server in cluster.masters:
                with server.client() as client:
                    client.client_kill_filter(_type="normal", skipme=True)
            for chat in chats:
                chat.append({"role": "user", "content": f"turn {turn}"})
        for chat in chats:
            assert [entry.message["content"] for entry in chat.entries()] == [f"turn {turn}" for turn in range(5)]
        assert sorted(store.keys()) == [Key("default", f"chat {number}") for number in range(9)]
