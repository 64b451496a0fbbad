"""The base class of backends: one public call is one call of a hook, with valid arguments."""

from __future__ import annotations

import os

import pytest
from chathistory_memory import MemoryStore

from chathistory import BaseStore, Damaged, Head, HistoryStore, Key, Leftovers, Page, Revision, Traits, open_store
from chathistory.errors import Conflict, CorruptRecord, InvalidInput, StoreClosed
from chathistory.storage.checks import check_version
from chathistory.storage.cursors import decode_cursor
from chathistory.storage.values import LARGEST_NUMBER, SortKey

KEY = Key("scope", "id")
HEAD = Head(KEY, 3, 7, Revision("v", 5))


def head(updated, id="id"):
    return Head(Key("scope", id), 0, 1, Revision("v", updated))


def damaged(id):
    key = Key("scope", id)
    return Damaged(key, id, CorruptRecord(key, None, "it is damaged"))


class RecordingStore(BaseStore):
    """Records the calls of hooks and their arguments, and returns the value of `returns` for the hook."""

    traits = Traits(durable=False, shared=False, largest_record=10)

    def __init__(self, **returns):
        super().__init__()
        self.calls = []
        self.returns = returns

    @classmethod
    def from_url(cls, url):
        return cls()

    def _record_call(self, name, *args):
        self.calls.append((name, *args))
        return self.returns.get(name)

    def _append_records(self, key, bodies, *, after, revision, first):
        return self._record_call("append", key, bodies, after, revision, first)

    def _read_range(self, key, start, stop):
        return self._record_call("read", key, start, stop)

    def _list_heads(self, scope, *, below, count):
        return self._record_call("heads", scope, below, count) or []

    def _list_keys(self, scope):
        return self._record_call("keys", scope) or []

    def _forget_records(self, key, before):
        return self._record_call("forget", key, before)

    def _delete(self, key, version):
        return self._record_call("delete", key, version)

    def _close(self):
        self._record_call("close")


class RecordingStoreWithAllHooks(RecordingStore):
    """Has the optional hooks, too."""

    def _list_damaged_keys(self, scope):
        return self._record_call("damaged_keys", scope) or []

    def _scan_keys(self, scope):
        return self._record_call("scan_keys", scope) or []

    def _is_index_complete(self):
        return self._record_call("is_index_complete")

    def _remove_leftovers(self, scope):
        return self._record_call("remove_leftovers", scope)

    def _check(self):
        self._record_call("check")


REVISION = Revision("w", 6)
CALLS = {
    "append": (
        lambda store: store.append(KEY, ("a", "b"), after=HEAD, revision=REVISION),
        ("append", KEY, ["a", "b"], HEAD, REVISION, 0),
    ),
    "append, to create": (
        lambda store: store.append(KEY, ["a"], after=None, revision=REVISION, first=4),
        ("append", KEY, ["a"], None, REVISION, 4),
    ),
    "read": (lambda store: store.read(KEY), ("read", KEY, 0, None)),
    "read a range": (lambda store: store.read(KEY, start=-2, stop=9), ("read", KEY, -2, 9)),
    "heads": (lambda store: store.heads("scope", limit=5), ("heads", "scope", None, 6)),
    "keys": (lambda store: list(store.keys()), ("keys", None)),
    "keys of a scope": (lambda store: list(store.keys("scope")), ("keys", "scope")),
    "damaged keys": (lambda store: list(store.damaged_keys("scope")), ("damaged_keys", "scope")),
    "scan keys": (lambda store: list(store.scan_keys("scope")), ("scan_keys", "scope")),
    "is index complete": (lambda store: store.is_index_complete(), ("is_index_complete",)),
    "forget": (lambda store: store.forget(KEY, before=5), ("forget", KEY, 5)),
    "forget below nothing": (lambda store: store.forget(KEY, before=-5), ("forget", KEY, 0)),
    "delete": (lambda store: store.delete(KEY), ("delete", KEY, None)),
    "delete a version": (lambda store: store.delete(KEY, version="v"), ("delete", KEY, "v")),
    "remove leftovers": (lambda store: store.remove_leftovers("scope"), ("remove_leftovers", "scope")),
    "check": (lambda store: store.check(), ("check",)),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_call_is_one_call_of_its_hook(name):
    call, expected = CALLS[name]
    result = object()
    store = RecordingStoreWithAllHooks(**{expected[0]: [] if "keys" in name or name == "heads" else result})
    returned = call(store)
    assert store.calls == [expected]
    assert returned == {"heads": Page([], None, []), "check": None}.get(name, [] if "keys" in name else result)


@pytest.mark.parametrize("name", CALLS)
def test_a_closed_store_calls_no_hook(name):
    store = RecordingStoreWithAllHooks()
    store.close()
    store.close()
    with pytest.raises(StoreClosed):
        CALLS[name][0](store)
    assert store.calls == [("close",)]


REFUSED = {
    "no body": lambda store: store.append(KEY, [], after=None, revision=REVISION),
    "a body of two lines": lambda store: store.append(KEY, ["a\nb"], after=None, revision=REVISION),
    "too large for its traits": lambda store: store.append(KEY, ["a" * 11], after=None, revision=REVISION),
    "a position too far": lambda store: store.append(KEY, ["a"], after=None, revision=REVISION, first=LARGEST_NUMBER),
    "a position too far after a head": lambda store: store.append(
        KEY, ["a"], after=Head(KEY, 0, LARGEST_NUMBER, REVISION), revision=REVISION
    ),
    "a start that is not a number": lambda store: store.read(KEY, start=True),
    "a stop that is not a number": lambda store: store.read(KEY, stop=1.0),
    "a position that is not a number": lambda store: store.forget(KEY, before="1"),
    "a page of nothing": lambda store: store.heads("scope", limit=0),
    "a limit that is not a number": lambda store: store.heads("scope", limit=None),
    "a cursor that is not valid": lambda store: store.heads("scope", after="?"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_wrong_argument_reaches_no_hook(name):
    store = RecordingStoreWithAllHooks()
    with pytest.raises(InvalidInput):
        REFUSED[name](store)
    assert store.calls == []


def test_a_store_that_was_used_before_a_fork_refuses_calls_in_the_child(monkeypatch):
    store = RecordingStore()
    store.read(KEY)
    with monkeypatch.context() as child:
        child.setattr(os, "getpid", lambda: -1)
        with pytest.raises(StoreClosed, match=r"this store was used before a fork\(\)"):
            store.read(KEY)
    store.read(KEY)
    assert [name for name, *_ in store.calls] == ["read", "read"]


def test_the_traits_of_an_instance_decide():
    store = RecordingStore()
    store.traits = Traits(durable=False, shared=False)
    store.append(KEY, ["a" * 11], after=None, revision=REVISION)
    assert RecordingStore.traits.largest_record == 10


def test_a_page_has_a_cursor_if_more_heads_follow():
    heads = [head(9), head(8), head(7)]
    store = RecordingStore(heads=heads)
    assert store.heads("scope", limit=3) == Page(heads, None, [])
    page = store.heads("scope", limit=2)
    assert (page.items, page.damaged) == (heads[:2], [])
    assert decode_cursor(page.next) == SortKey(8, "id")
    store.heads("scope", after=page.next, limit=2)
    assert [call[3] for call in store.calls] == [4, 3, 3], "one head more than on a page"
    assert store.calls[-1][2] == SortKey(8, "id")


def test_damaged_heads_are_on_a_page_and_do_not_count():
    rows = [damaged("a"), head(9), damaged("b"), head(8), damaged("c")]
    page = RecordingStore(heads=iter(rows)).heads("scope", limit=2)
    assert page == Page([rows[1], rows[3]], None, [rows[0], rows[2], rows[4]])
    page = RecordingStore(heads=rows).heads("scope", limit=1)
    assert (page.items, page.damaged) == ([rows[1]], [rows[0], rows[2], rows[4]])
    assert decode_cursor(page.next) == SortKey(9, "id")


def test_a_store_with_its_own_cursors_gets_and_returns_them_unchanged():
    class PagedStore(RecordingStore):
        def _list_page(self, scope, *, after, limit):
            return self._record_call("page", scope, after, limit)

    store = PagedStore(page=Page([], "own cursor"))
    assert store.heads("scope", after="anything", limit=3) is store.returns["page"]
    store.check()
    assert store.calls == [("page", "scope", "anything", 3), ("page", "default", None, 1)]


def test_a_class_without_a_listing_says_what_to_override():
    class StoreWithoutListing(MemoryStore):
        _list_heads = BaseStore._list_heads

    with pytest.raises(TypeError, match=r"StoreWithoutListing must override _list_heads or _list_page"):
        StoreWithoutListing().heads("scope")


def test_the_defaults_of_optional_hooks():
    store = RecordingStore(keys=[KEY])
    assert list(store.scan_keys("scope")) == [KEY]
    assert list(store.damaged_keys()) == []
    assert store.is_index_complete() is True
    assert store.remove_leftovers("scope") == Leftovers(0, ("id",), complete=False)
    store.check()
    assert store.calls == [("keys", "scope"), ("keys", "scope"), ("heads", "default", None, 2)]
    assert (store.get_recovery(), store.get_storage_notes(), store.get_sweeping()) == (None, None, None)


@pytest.mark.parametrize("name", ["keys", "scan_keys", "damaged_keys"])
def test_a_walk_ends_when_the_store_is_closed(name):
    store = RecordingStoreWithAllHooks(**{name: ["one", "two"]})
    walk = getattr(store, name)()
    assert next(walk) == "one"
    store.close()
    with pytest.raises(StoreClosed):
        next(walk)


def test_a_store_that_has_the_methods_of_an_ability_has_the_ability():
    class Able(MemoryStore):
        def list_notes(self, key):
            return []

        def sweep(self):
            raise NotImplementedError

    store = Able()
    assert (store.get_storage_notes(), store.get_sweeping(), store.get_recovery()) == (store, store, None)


@pytest.mark.parametrize(
    ("start", "stop", "expected"),
    [
        (0, None, range(3, 7)),
        (5, None, range(5, 7)),
        (-2, None, range(5, 7)),
        (-9, 5, range(3, 5)),
        (4, 4, range(4, 4)),
        (6, 4, range(6, 6)),
        (9, None, range(9, 9)),
        (0, 99, range(3, 7)),
        (0, 2, range(3, 3)),
        (0, -1, range(3, 3)),
    ],
)
def test_a_range_is_narrowed_to_kept_positions(start, stop, expected):
    narrowed = HEAD.narrow(start, stop)
    assert (narrowed.start, narrowed.stop) == (expected.start, expected.stop)


@pytest.mark.parametrize(("position", "start"), [(0, 3), (3, 3), (5, 5), (7, 7), (99, 7)])
def test_a_head_without_its_first_records(position, start):
    assert HEAD.drop_below(position) == Head(KEY, start, 7, HEAD.revision)


def test_a_version_is_compared_with_the_one_that_the_writer_has_seen():
    other = Head(KEY, 3, 7, Revision("w", 5))
    check_version(KEY, None, None)
    check_version(KEY, HEAD, Head(KEY, 0, 99, HEAD.revision))
    for stored, seen in ((HEAD, None), (None, HEAD), (HEAD, other)):
        with pytest.raises(Conflict) as caught:
            check_version(KEY, stored, seen)
        assert caught.value.head is stored


def test_the_memory_store_is_a_base_store():
    with open_store("memory:") as store:
        assert isinstance(store, BaseStore)
        assert isinstance(store, HistoryStore)
