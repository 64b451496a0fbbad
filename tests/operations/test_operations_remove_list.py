"""Prune, erase and delete: what is removed and what is kept; filters of the listing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from chathistory_memory import MemoryStore
from entry_factory import make_entry
from faulty_stores import DamagedStore, chat_on, numbered, texts, user

from chathistory import Damaged, DeletedConversation, History, Key, Page, Revision
from chathistory.errors import ConversationExists, CorruptRecord, InvalidInput
from chathistory.log import clock
from chathistory.operations import listing, remove_conversations

DAY = timedelta(days=1)


@pytest.fixture
def aged(store, monkeypatch):
    """Ten conversations, created ten to one days ago; the even ones were continued half a day later."""
    today = clock.now()
    for number in range(10):
        for step in range(1 + (number % 2 == 0)):
            time = today - (10 - number) * 86_400_000_000 + step * 43_200_000_000
            monkeypatch.setattr("chathistory.log.conversation_log.now", lambda time=time: time)
            chat_on(store, f"c{number}").log.append([make_entry("message", message=user(str(step)), time_us=time)])
    monkeypatch.undo()
    return History(store)


def list_ids(history):
    return sorted(row.id for row in history.list(limit=50).items)


@pytest.mark.parametrize(
    ("limits", "removed_numbers"),
    [
        ({}, []),
        ({"ttl": 5 * DAY - DAY / 4}, [0, 1, 2, 3, 4, 5]),
        ({"age": 5 * DAY}, [0, 1, 2, 3, 4, 5]),
        ({"age": 20 * DAY, "ttl": 20 * DAY, "count": 20}, []),
        ({"age": "20d", "ttl": 20 * 86_400, "count": 20}, []),
        ({"age": "120h"}, [0, 1, 2, 3, 4, 5]),
        ({"count": 3}, [0, 1, 2, 3, 4, 5, 6]),
        ({"count": 0}, list(range(10))),
        ({"ttl": 3 * DAY + DAY / 4, "count": 5}, [0, 1, 2, 3, 4, 5, 6]),
        ({"ttl": 4 * DAY + DAY / 4, "count": 3}, [0, 1, 2, 3, 4, 5, 6]),
    ],
    ids=str,
)
def test_which_conversations_are_pruned(aged, limits, removed_numbers):
    before = list_ids(aged)
    plan = aged.prune(**limits)
    assert plan.dry_run
    assert list_ids(aged) == before
    reported = []
    done = aged.prune(**limits, dry_run=False, progress=reported.append)
    assert done.removed == plan.removed == tuple(reported)
    assert (done.kept, done.dry_run, done.spared) == (10 - len(done.removed), False, ())
    assert {row.id for row in done.removed} | set(list_ids(aged)) == set(before)
    assert sorted(row.id for row in done.removed) == [f"c{number}" for number in removed_numbers]
    assert [row.updated for row in done.removed] == sorted((row.updated for row in done.removed), reverse=True)


def test_the_reason_for_each_removal(aged):
    done = aged.prune(age=8 * DAY, ttl=4 * DAY, count=3)
    assert {row.id: row.reason for row in done.removed if row.id in ("c0", "c5", "c6")} == {
        "c0": "ttl",
        "c5": "ttl",
        "c6": "count",
    }
    assert {row.id: row.reason for row in aged.prune(age=8 * DAY + DAY / 2).removed} == {"c0": "age", "c1": "age"}
    row = aged.prune(count=9).removed[0]
    assert (row.scope, row.messages, row.records) == ("default", 2, 2)


def test_expired_conversations_are_always_pruned_and_do_not_count(store):
    history = History(store)
    store.ttl = -1
    chat_on(store, "old").append(user("x"))
    store.ttl = None
    chat_on(store, "new").append(user("x"))
    chat_on(store, "newer").append(user("x"))
    assert [(row.id, row.reason) for row in history.prune(count=2, dry_run=False).removed] == [("old", "expired")]
    assert sorted(key.id for key in list(store.keys())) == ["new", "newer"]


@pytest.mark.parametrize("limits", [{"age": -DAY}, {"ttl": -DAY}, {"count": -1}, {"ttl": "soon"}, {"count": "3"}])
def test_invalid_limits_are_refused(store, limits):
    with pytest.raises(InvalidInput, match=f"{next(iter(limits))}: must be"):
        History(store).prune(**limits)


def test_a_conversation_that_is_written_meanwhile_is_kept(store, monkeypatch):
    history = History(store)
    for name in "abc":
        chat_on(store, name).append(user("x"))
    chat = chat_on(store, "b")

    def append_to_next(row):
        if row.id == "c":
            chat.append(user("more"))

    done = history.prune(count=0, dry_run=False, progress=append_to_next)
    assert ([row.id for row in done.removed], done.spared, done.kept) == (["c", "a"], ("b",), 1)
    assert texts(chat.messages()) == ["x", "more"]
    chat_on(store, "c").append(user("again"))
    assert texts(chat_on(store, "c").messages()) == ["again"]


def test_a_conversation_that_is_listed_twice_is_counted_once(store, monkeypatch):
    monkeypatch.setattr(remove_conversations, "_PAGE", 3)
    for number in range(10):
        chat_on(store, f"c{number}").append(user("x"))
    chat = chat_on(store, "c0")
    heads = MemoryStore.heads

    def moving(self, *args, **more):
        page = heads(self, *args, **more)
        if page.next is None:
            return Page([*page.items, heads(self, "default", limit=1).items[0]], None)
        return page

    monkeypatch.setattr(MemoryStore, "heads", moving)
    done = History(store).prune(count=4)
    assert (done.kept, len(done.removed)) == (4, 6)
    assert chat.state().totals.messages == 1


@pytest.mark.parametrize("full_scan", [False, True])
def test_prune_keeps_and_names_damaged_conversations(store, full_scan):
    key = Key("default", "bad")
    store.append(key, ["{}"], after=None, revision=Revision("v", 5, None, "nonsense"))
    chat_on(store, "good").append(user("x"))
    history = History(store)
    done = history.prune(age=DAY, ttl=DAY, count=0, dry_run=False, full_scan=full_scan)
    assert [row.id for row in done.removed] == ["good"]
    assert [(each.key, each.where) for each in done.damaged] == [(key, "bad")]
    assert (done.kept, done.complete) == (0, True)
    assert history.delete("bad") == DeletedConversation("bad", "default")


def test_a_full_scan_keeps_and_names_conversations_whose_head_cannot_be_read():
    store = DamagedStore()
    for name in ("bad", "good"):
        chat_on(store, name).append(user("x"))
    key = Key("default", "bad")
    store.damage_head(key)
    stray = Damaged(None, "stray", CorruptRecord(None, None, "it is no conversation"))
    store.lost.append(stray)
    done = History(store).prune(count=0, dry_run=False, full_scan=True)
    assert [row.id for row in done.removed] == ["good"]
    assert [(each.key, each.where, each.error.reason) for each in done.damaged] == [
        (key, "bad", "it is hurt"),
        (None, "stray", "it is no conversation"),
    ]
    assert set(store.keys()) == {key}


# Erase.


def test_erase_removes_all_of_a_scope_and_nothing_else(store):
    history = History(store)
    for name in ("a", "b"):
        numbered(history.conversation(name, scope="ada"), 4)
        numbered(history.conversation(name, scope="adam"), 4)
    history.conversation("b", scope="ada").set_title("x")
    store.ttl = -1
    history.conversation("old", scope="ada").append(user("x"))
    store.ttl = None
    store.append(Key("ada", "bad"), ["{}"], after=None, revision=Revision("v", 5, None, "nonsense"))
    chat = history.conversation("a", scope="ada")
    assert len(chat.messages()) == 4
    reported = []
    before = datetime.now(UTC)
    done = history.erase("ada", progress=reported.append)
    removed = {each.id: (each.messages, each.records) for each in done.removed}
    assert removed == {"a": (4, 4), "b": (4, 5), "old": (1, 1), "bad": (None, None)}
    assert (done.scope, done.messages, done.records, done.left, tuple(reported)) == ("ada", 9, 10, (), done.removed)
    assert before <= done.at <= datetime.now(UTC)
    assert {key.scope for key in list(store.keys())} == {"adam"}
    assert chat.messages() == []
    assert history.erase("ada").removed == ()
    with pytest.raises(InvalidInput):
        history.erase(None)


def test_erase_removes_damaged_conversations(store, monkeypatch):
    chat_on(store, "bad").append(user("x"))
    read = type(store).read

    def raise_for_bad(self, key, **more):
        if key.id == "bad":
            raise CorruptRecord(key, None, "for a test")
        return read(self, key, **more)

    monkeypatch.setattr(type(store), "read", raise_for_bad)
    assert History(store).erase("default").removed == (DeletedConversation("bad", "default"),)
    assert list(store.keys()) == []


def test_erase_does_not_report_what_others_deleted_first(store, monkeypatch):
    chat_on(store, "a").append(user("x"))
    chat_on(store, "b").append(user("x"))
    delete = MemoryStore.delete

    def delete_other_first(self, key, *, version=None):
        delete(self, Key("default", "b"))
        return delete(self, key, version=version)

    monkeypatch.setattr(MemoryStore, "delete", delete_other_first)
    assert [row.id for row in History(store).erase("default").removed] == ["a"]


def test_erase_reports_a_conversation_that_is_created_again_meanwhile(store, monkeypatch):
    chat_on(store, "a").append(user("x"))
    delete = MemoryStore.delete

    def delete_and_create(self, key, *, version=None):
        was_deleted = delete(self, key, version=version)
        MemoryStore.append(self, key, ["{}"], after=None, revision=Revision("v", 5))
        return was_deleted

    monkeypatch.setattr(MemoryStore, "delete", delete_and_create)
    done = History(store).erase("default")
    assert (len(done.removed), done.left) == (1, ("a",))


def test_delete_removes_an_expired_conversation_and_returns_none(store):
    store.ttl = -1
    chat_on(store, "a").append(user("x"))
    assert History(store).delete("a") is None
    assert list(store.keys()) == []


# Filters of the listing.


def test_a_page_with_a_filter_looks_at_a_limited_number(store, monkeypatch):
    monkeypatch.setattr(listing, "SCAN_LIMIT", 50)
    for number in range(130):
        chat_on(store, f"c{number}").append(user("x"))
    chat_on(store, "c3").set_tags(["t"])
    for number in range(130):
        if number != 3:
            chat_on(store, f"c{number}").append(user("x"))
    page_sizes = []
    heads = MemoryStore.heads

    def count_heads(self, scope, *, after=None, limit=20):
        page = heads(self, scope, after=after, limit=limit)
        page_sizes.append(len(page.items))
        return page

    monkeypatch.setattr(MemoryStore, "heads", count_heads)
    pages, after, sizes = [], None, []
    while True:
        page_sizes.clear()
        page = History(store).list(tag="t", limit=5, after=after)
        pages.append([row.id for row in page.items])
        sizes.append(sum(page_sizes))
        after = page.next
        if after is None:
            break
    assert pages == [[], [], ["c3"]]
    assert sizes == [50, 50, 30]
    page_sizes.clear()
    assert len(History(store).list(limit=60).items) == 60
    assert page_sizes == [60]


@pytest.mark.parametrize("limit", [1, 2, 3, 5])
def test_a_page_with_too_many_matches_is_read_again(store, monkeypatch, limit):
    for number in range(40):
        chat_on(store, f"c{number}").set_tags(["t"])
    calls = []
    heads = MemoryStore.heads
    monkeypatch.setattr(MemoryStore, "heads", lambda self, *args, **more: calls.append(1) or heads(self, *args, **more))
    pages, after = [], None
    while not pages or after:
        page = History(store).list(tag="t", limit=limit, after=after)
        pages.append([row.id for row in page.items])
        after = page.next
    assert [name for page in pages for name in page] == [f"c{number}" for number in reversed(range(40))]
    assert all(len(page) == limit for page in pages[:-1])
    assert len(calls) <= len(pages) + 1
    chat_on(store, "c38").set_tags([])
    chat_on(store, "c39").set_tags(["u"])
    calls.clear()
    assert len(History(store).list(tag="t", limit=limit).items) == limit
    assert len(calls) == 3


def test_a_listing_since_a_time_ends_early_where_the_order_is_exact(store, monkeypatch):
    for number in range(100):
        chat_on(store, f"c{number}").append(user("x"))
    since = History(store).list(limit=1).items[0].updated
    calls = []
    heads = MemoryStore.heads
    monkeypatch.setattr(MemoryStore, "heads", lambda self, *args, **more: calls.append(1) or heads(self, *args, **more))
    page = History(store).list(since=since, limit=20)
    assert ([row.id for row in page.items], page.next, len(calls)) == (["c99"], None, 1)


def test_expired_conversations_are_skipped_and_the_page_is_full(store):
    for number in range(10):
        store.ttl = -1 if number % 2 else None
        chat_on(store, f"c{number}").append(user("x"))
    store.ttl = None
    page = History(store).list(limit=3)
    assert ([row.id for row in page.items], page.next is None) == (["c8", "c6", "c4"], False)
    page = History(store).list(limit=3, after=page.next)
    assert ([row.id for row in page.items], page.next) == (["c2", "c0"], None)


@pytest.mark.parametrize("name", ["since", "until"])
def test_a_listing_needs_a_time_with_a_timezone(store, name):
    with pytest.raises(InvalidInput, match=f"{name}: must be a timezone-aware datetime, .*, not a naive one"):
        History(store).list(**{name: datetime(2026, 1, 1)})  # noqa: DTZ001 - it is about naive times


def test_metadata_is_compared_as_json(store):
    chat = chat_on(store)
    chat.set_metadata({"a": 1, "b": True, "c": None, "d": {"y": [1.0], "x": 2}})
    history = History(store)
    for metadata in ({"a": 1}, {"b": True}, {"c": None}, {"d": {"x": 2, "y": [1.0]}}, {"a": 1, "c": None}):
        assert len(history.list(metadata=metadata).items) == 1
    for metadata in ({"a": 1.0}, {"a": True}, {"b": 1}, {"e": None}, {"d": {"x": 2}}, {"a": 1, "b": None}):
        assert history.list(metadata=metadata).items == []
    with pytest.raises(InvalidInput, match="metadata"):
        history.list(metadata={"a": object()})


def test_a_fork_that_fails_does_not_change_the_listing(store):
    numbered(chat_on(store), 2)
    with pytest.raises(ConversationExists):
        chat_on(store).fork("c")
    assert [row.id for row in History(store).list().items] == ["c"]
