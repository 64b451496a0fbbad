"""Replies that are cut or cannot be read: only typed errors, and nothing is lost."""

from __future__ import annotations

import random
import struct

import pytest
from bson import encode
from mongodb_disconnecting_proxy import Proxy
from mongodb_samples import KEY, fill_store, read_all
from mongodb_servers import standalone

from chathistory import open_store
from chathistory.errors import ChatHistoryError, StoreRejected
from chathistory.testing.contract.every_method import CALLS, catch_error, check_no_message_text
from chathistory.testing.contract.samples import MARKER
from tests.campaigns.broken_connections import run

pytestmark = pytest.mark.wide

MORE = {
    "scan_keys": lambda store: list(store.scan_keys()),
    "damaged_keys": lambda store: list(store.damaged_keys()),
    "remove_leftovers": lambda store: store.remove_leftovers("nobody"),
    "find_records": lambda store: store.find_records(KEY),
    "sweep": lambda store: store.sweep(before=1),
}
EVERY = CALLS | MORE


def test_a_read_or_write_that_fails(url):
    outcomes = run("mongodb", url, count=200, seed=7)
    struck = {name: number for name, number in outcomes.items() if name != "nothing failed"}
    assert sum(struck.values()) > 80
    kinds = {name.split(": ")[1] for name in struck}
    assert kinds <= {"returned", "StoreUnavailable", "StoreRejected", "CorruptRecord", "Conflict"}


@pytest.fixture
def proxy(member):
    proxy = Proxy(member.port)
    yield proxy
    proxy.close()


def through(proxy, url):
    database = url.rpartition("/")[2]
    options = {
        "directConnection": True,
        "retryReads": False,
        "retryWrites": False,
        "serverSelectionTimeoutMS": 60_000,
        "socketTimeoutMS": 60_000,
        "serverMonitoringMode": "poll",  # a stream of the server is given up only after half a second
        "heartbeatFrequencyMS": 60_000,
    }
    return open_store(f"mongodb://127.0.0.1:{proxy.port}/{database}", **options)


def message(document: bytes) -> bytes:
    """Return an OP_MSG with such a body."""
    return struct.pack("<iiiiIB", 21 + len(document), 0, 0, 2013, 0, 0) + document


SHORT = encode({"ok": 1.0})
GARBAGE = {
    "nothing in it": message(SHORT),
    "no cursor": message(encode({"ok": 1.0, "cursor": None})),
    "a cursor of numbers": message(encode({"ok": 1.0, "cursor": {"firstBatch": [1, 2], "id": 0, "ns": "a.b"}})),
    "a cursor of text": message(encode({"ok": 1.0, "cursor": {"firstBatch": MARKER, "id": 0, "ns": "a.b"}})),
    "a count of text": message(encode({"ok": 1.0, "n": MARKER, "nModified": MARKER, "value": MARKER})),
    "documents without fields": message(encode({"ok": 1.0, "cursor": {"firstBatch": [{}], "id": 0, "ns": "a.b"}})),
    "a value of a number": message(encode({"ok": 1.0, "value": 7, "n": 1, "values": 3})),
    "a refusal without a code": message(encode({"ok": 0.0, "errmsg": MARKER})),
    "a refusal with odd fields": message(encode({"ok": 0.0, "code": "x", "errmsg": 5, "errorLabels": 7})),
    "no document": message(b"\x00\x00\x00\x00"),
    "a document that is cut": message(SHORT[:-4]),
    "a document that is too long": message(struct.pack("<i", 10**6) + SHORT[4:]),
    "an odd type": message(SHORT[:4] + b"\x7e" + SHORT[5:]),
    "another protocol": b"HTTP/1.1 400 Bad Request\r\n\r\n" + MARKER.encode() * 4,
    "a negative length": struct.pack("<iiii", -5, 0, 0, 2013) + SHORT,
    "an odd operation": struct.pack("<iiii", 16 + len(SHORT), 0, 0, 77) + SHORT,
}


@pytest.mark.parametrize("answer", GARBAGE.values(), ids=GARBAGE)
def test_an_answer_that_is_none(proxy, store, url, answer):
    fill_store(store, 9)
    with through(proxy, url) as far:
        far._server.prepare_collections()
        for name, call in EVERY.items():
            proxy.garbage = answer
            error = catch_error(lambda call=call: call(far))
            proxy.garbage = None
            assert error is None or isinstance(error, ChatHistoryError), f"{name}: {error!r}"
            if error is not None:
                check_no_message_text(error)
        assert far.read(KEY, start=-1) is None or len(far.read(KEY, start=-1).records) == 1


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.stress) for seed in (1, 2, 3))])
def test_an_answer_that_breaks_off(proxy, store, url, seed):
    chance = random.Random(seed)
    fill_store(store, 20)
    with through(proxy, url) as far:
        far._server.prepare_collections()
        for name, call in EVERY.items():
            for place in (0, 40, chance.randrange(100_000)):
                if read_all(store) is None:
                    fill_store(store, 20)
                proxy.shorten = place
                error = catch_error(lambda call=call: call(far))
                proxy.shorten = None
                assert error is None or isinstance(error, ChatHistoryError), f"{name} at {place}: {error!r}"
                if error is not None:
                    check_no_message_text(error)


def test_a_server_that_differs_is_refused(store, monkeypatch):
    store.check()
    monkeypatch.setattr("pymongo.collection.Collection.insert_one", lambda *_: None)
    with pytest.raises(StoreRejected, match="one _id"):
        store.check()


def test_trying_out_a_server_leaves_nothing_behind(store, database):
    store.check()
    names = ("chathistory_conversations", "chathistory_segments")
    assert [database[name].count_documents({}) for name in names] == [0, 0]
    assert store.remove_leftovers("default").complete is True


def test_a_server_that_is_alone_passes_the_same_trial():
    """It repeats no write by itself; the guard rests on none of that."""
    with standalone() as server, open_store(f"mongodb://{server.address}/alone") as store:
        store.check()
        assert fill_store(store, 20).end == 20
        assert list(store.scan_keys()) == [KEY]
        store.delete(KEY)
        assert store.remove_leftovers(KEY.scope).complete is True
