"""The client dies, or loses its connection, before and after each command of each operation.

The stored conversation is then entirely the old one, or entirely the new one; the next caller can continue; and when it
is deleted in the end, nothing of it remains.
"""

import functools

import pytest
from mongodb_disconnecting_proxy import Proxy
from mongodb_samples import BIG, KEY, body, fill_store, read_all, retry_until_available, revision

from chathistory import open_store
from chathistory.errors import StoreUnavailable
from chathistory.log.commit import commit

pytestmark = pytest.mark.wide

LARGE = 3_000_000  # a body in two pieces
SECOND = revision()


def _nothing(store):
    return None


def _append(count, size, store, head, *, through=None):
    first = head.end if head else 0
    bodies = [body(first + at, size) for at in range(count)]
    given = SECOND
    return (through or _plain)(store, KEY, bodies, after=head, revision=given)


def _plain(store, key, bodies, **words):
    return store.append(key, bodies, **words)


def _forget(before, store, head):
    return store.forget(KEY, before=before)


def _delete(store, head):
    return store.delete(KEY)


APPENDS = {
    "a first line": (_nothing, functools.partial(_append, 1, 100)),
    "a first batch that is large": (_nothing, functools.partial(_append, 30, BIG)),
    "a first body of many megabytes": (_nothing, functools.partial(_append, 1, LARGE)),
    "a line": (functools.partial(fill_store, count=2), functools.partial(_append, 2, 100)),
    "a line when the tail is full": (functools.partial(fill_store, count=7), functools.partial(_append, 2, 100)),
    "a batch that is large": (functools.partial(fill_store, count=2), functools.partial(_append, 30, BIG)),
    "the ninth time that a tail is full": (
        functools.partial(fill_store, count=7 + 8 * 5),
        functools.partial(_append, 1, BIG),
    ),
}
REMOVALS = {
    "forget in the tail": (functools.partial(fill_store, count=3), functools.partial(_forget, 2)),
    "forget within a segment": (functools.partial(fill_store, count=20), functools.partial(_forget, 3)),
    "forget all": (functools.partial(fill_store, count=20), functools.partial(_forget, 99)),
    "delete": (functools.partial(fill_store, count=20), _delete),
}


@pytest.fixture
def proxy(member):
    proxy = Proxy(member.port)
    yield proxy
    proxy.close()


def through(proxy, url, *, patience=60_000, **options):
    """Open a store behind the proxy. patience: milliseconds that it waits for a server that is not there."""
    database = url.rpartition("/")[2]
    address = f"mongodb://127.0.0.1:{proxy.port}/{database}?directConnection=true&serverMonitoringMode=poll"
    return open_store(address, serverSelectionTimeoutMS=patience, heartbeatFrequencyMS=60_000, **options)


def _commands(proxy, url, prepare, act):
    """Return the number of commands of an operation without faults, and the content before and after it."""
    with open_store(url) as store:
        head = prepare(store)
        before = read_all(store)
    with through(proxy, url) as store:
        store._server.prepare_collections()
        proxy.pass_all()
        act(store, head)
        count = len(proxy.commands)
    with open_store(url) as store:
        after = read_all(store)
        store.delete(KEY)
    return count, _bodies(before), _bodies(after)


def _bodies(found):
    return None if found is None else (found[0].start, found[0].end, found[1])


def _died(proxy, url, prepare, act, *, cut, after):
    """Do it again and die at one command. Returns the head from before."""
    with open_store(url) as store:
        head = prepare(store)
    with through(proxy, url, patience=300, retryWrites=False, retryReads=False) as store:
        retry_until_available(store._server.prepare_collections)
        proxy.arm(cut, after=after, stay_dead=True)
        with pytest.raises(StoreUnavailable):  # which anyone who cut a command must get to see
            act(store, head)
        proxy.pass_all()
    return head


@pytest.mark.parametrize("name", [*APPENDS, *REMOVALS])
def test_a_client_that_dies_leaves_all_or_nothing(name, proxy, url, database):
    prepare, act = {**APPENDS, **REMOVALS}[name]
    count, old, new = _commands(proxy, url, prepare, act)
    for cut in range(1, count + 1):
        for after in (False, True):
            head = _died(proxy, url, prepare, act, cut=cut, after=after)
            with open_store(url) as store:
                assert _bodies(read_all(store)) in (old, new), f"after a cut at command {cut} of {count}"
                if name in REMOVALS:
                    act(store, head)
                    assert _bodies(read_all(store)) == new
                    _nothing_below(database, store)
                else:
                    act(store, head, through=commit)
                    assert _bodies(read_all(store)) == new
                goes_on(store)
                store.delete(KEY)
            assert _leftovers(database) == 0, f"after a cut at command {cut} of {count}"


def goes_on(store):
    """The next writer just goes on, whatever is there."""
    found = read_all(store)
    head = fill_store(store, 9, head=found[0] if found else None)
    assert read_all(store)[1][-9:] == [body(at) for at in range(head.end - 9, head.end)]


def _nothing_below(database, store):
    found = store.read(KEY, stop=0)
    if found is not None:
        lowest = [segment["first"] for segment in database.chathistory_segments.find()]
        assert all(first >= found.head.start for first in lowest)


def _leftovers(database):
    return database.chathistory_conversations.count_documents({}) + database.chathistory_segments.count_documents({})


@pytest.mark.parametrize("name", APPENDS)
def test_a_cut_connection_stores_nothing_twice_and_loses_nothing(name, proxy, url):
    prepare, act = APPENDS[name]
    count, _, new = _commands(proxy, url, prepare, act)
    for cut in range(1, count + 1):
        for after in (False, True):
            retry = (cut + after) % 2 == 0  # each with and without: of every two neighbouring commands
            with open_store(url) as store:
                head = prepare(store)
            with through(proxy, url, retryWrites=retry, retryReads=retry) as store:
                store._server.prepare_collections()
                proxy.arm(cut, after=after, stay_dead=False)
                stored = act(store, head, through=_certainly)
                assert stored.end == new[1]
            with open_store(url) as store:
                assert _bodies(read_all(store)) == new, f"after a cut at command {cut} of {count}"
                store.delete(KEY)


def _certainly(store, key, bodies, **words):
    """What the core does, as often as the connection is lost when it looks what became of it."""
    for _ in range(3):
        try:
            return commit(store, key, bodies, **words)
        except StoreUnavailable as error:
            lost = error
    raise lost
