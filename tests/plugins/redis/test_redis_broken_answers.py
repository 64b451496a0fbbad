"""Replies that are cut at any byte, or cannot be read: only typed errors, and nothing is lost."""

from __future__ import annotations

from functools import partial

import pytest
from fault_proxy import FaultProxy

from chathistory import open_store
from chathistory.errors import ChatHistoryError, StoreUnavailable
from chathistory.testing.contract.every_method import CALLS, catch_error, check_no_message_text
from chathistory.testing.contract.samples import KEY, MARKER, create_conversation, make_revision
from tests.campaigns.broken_connections import run

pytestmark = pytest.mark.wide

MORE = {
    "scan_keys": lambda store: list(store.scan_keys()),
    "damaged_keys": lambda store: list(store.damaged_keys()),
    "remove_leftovers": lambda store: store.remove_leftovers("nobody"),
    "is_index_complete": lambda store: store.is_index_complete(),
    "find_records": lambda store: store.get_recovery().find_records(KEY),
}
EVERY = CALLS | MORE
LARGE = MARKER * 20_000


@pytest.mark.parametrize(
    ("where", "count"),
    [
        ("valkey", 150),
        ("cluster", 50),
        pytest.param("valkey", 400, marks=pytest.mark.stress),
        pytest.param("cluster", 200, marks=pytest.mark.stress),
    ],
)
def test_a_read_or_write_that_fails(request, where, count, prefix):
    place = request.getfixturevalue(where)
    outcomes = run("redis", f"{place.url}?prefix={prefix}", count=count, seed=count)
    struck = {name: number for name, number in outcomes.items() if name != "nothing failed"}
    assert sum(struck.values()) > count / 3
    kinds = {name.split(": ")[1] for name in struck}
    assert kinds <= {"returned", "StoreUnavailable", "StoreRejected", "CorruptRecord", "Conflict"}


@pytest.mark.parametrize("name", EVERY)
def test_an_answer_that_breaks_off(valkey, store, prefix, name):
    """After some bytes of it the connection ends."""
    for place in (1, 2, 7, 50, 5000, 200_000):
        store.delete(KEY)
        store.append(KEY, [LARGE, LARGE], after=None, revision=make_revision(payload=MARKER))
        with FaultProxy(valkey.port) as proxy, open_store(proxy.url, prefix=prefix) as far:
            far.read(KEY, stop=0)
            proxy.shorten = lambda _, place=place: place
            error = catch_error(partial(EVERY[name], far))
            assert error is None or isinstance(error, ChatHistoryError), repr(error)
            if error is not None:
                check_no_message_text(error)
            proxy.shorten = lambda _: None
            assert len(far.read(KEY).records) == 2 if name in {"read", "scan_keys"} else True


GARBAGE = {
    "a wrong type": b"!abc\r\n",
    "text": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "no number": b":abc\r\n",
    "no length": b"$xyz\r\n",
    "no count": b"*nine\r\n",
    "a negative count": b"*-7\r\n",
    "nothing": b"$-1\r\n",
    "an empty list": b"*0\r\n",
    "nested": b"*1\r\n" * 5000 + b":1\r\n",
    "message text": MARKER.encode() + b"\r\n",
    "a number of message text": b":" + MARKER.encode() + b"\r\n",
    "no UTF-8": b"+\xff\xfe\r\n",
    "an error without words": b"-\r\n",
    "an error without UTF-8": b"-\xff\xfe\r\n",
    "another number": b":77\r\n",
    "a list of numbers": b"*3\r\n:1\r\n:2\r\n:3\r\n",
    "a list of nothing": b"*3\r\n$-1\r\n$-1\r\n$-1\r\n",
}


@pytest.mark.parametrize("answer", GARBAGE.values(), ids=GARBAGE)
def test_an_answer_that_is_none(valkey, store, prefix, answer):
    create_conversation(store)
    with FaultProxy(valkey.port) as proxy, open_store(proxy.url, prefix=prefix) as far:
        far.read(KEY)
        for name, call in EVERY.items():
            proxy.instead = lambda _: answer
            error = catch_error(partial(call, far))
            assert error is None or isinstance(error, ChatHistoryError), f"{name}: {error!r}"
            if error is not None:
                check_no_message_text(error)
            proxy.instead = lambda _: None
            assert len(far.read(KEY).records) == 1, "the connection was used again"


def test_a_walk_whose_answers_are_all_lost_ends(valkey, prefix):
    with FaultProxy(valkey.port) as proxy, open_store(proxy.url, prefix=prefix) as far:
        create_conversation(far)
        proxy.lose = lambda request: b"SCAN" in request
        assert isinstance(catch_error(lambda: list(far.scan_keys())), StoreUnavailable)
        proxy.lose = lambda _: False
        assert list(far.scan_keys()) == [KEY]
