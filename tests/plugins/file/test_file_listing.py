"""The exact order of a listing: with ties, after a crash, with dates of others, during writes."""

import os
import random

import pytest
from file_samples import SECOND, fill_store, path_of, revision

from chathistory import Key
from chathistory.errors import InvalidInput


def _walk(store, limit, scope="default"):
    heads, after = [], None
    while True:
        page = store.heads(scope, after=after, limit=limit)
        assert 0 < len(page.items) <= limit
        heads += page.items
        if page.next is None:
            return heads
        after = page.next


def _made(store, dates):
    heads = []
    for number, updated in enumerate(dates):
        heads.append(store.append(Key("default", f"c{number}"), ["{}"], after=None, revision=revision(updated)))
    return sorted(heads, key=lambda head: (head.revision.updated, head.key.id), reverse=True)


def test_two_thousand_with_ties(store, no_sync):
    dice = random.Random(1)
    heads = _made(store, [SECOND + dice.randrange(300) for _ in range(2_000)])
    assert _walk(store, 77) == heads
    assert store.heads("default").items == heads[:20]
    assert {head.key for head in heads} == set(store.keys())


@pytest.mark.parametrize("limit", [1, 3, 50])
def test_all_of_one_moment(store, no_sync, limit):
    heads = _made(store, [SECOND] * 40)
    assert _walk(store, limit) == heads


@pytest.mark.parametrize("limit", [1, 4, 100])
def test_after_a_crash_between_write_and_date(store, no_sync, limit):
    """The file then has the kernel's own date, with a fraction of a microsecond."""
    heads = _made(store, [SECOND * number for number in range(30)])
    for number in (3, 17, 29):
        os.utime(path_of(store, Key("default", f"c{number}")), ns=(1_760_000_000_123_456_789,) * 2)
    assert _walk(store, limit) == heads


@pytest.mark.parametrize("limit", [5, 100])
def test_dates_that_a_file_system_cut_to_seconds(store, no_sync, limit):
    heads = _made(store, [SECOND * 100 + number * 7001 for number in range(300)])
    for head in heads:
        os.utime(path_of(store, head.key), ns=(head.revision.updated // SECOND * 10**9,) * 2)
    assert _walk(store, limit) == heads


def test_one_wrong_date_on_the_page_is_enough_to_mistrust_all(store, no_sync):
    heads = _made(store, [11 * SECOND, 12 * SECOND, 14 * SECOND, 15 * SECOND])
    for number, seconds in ((2, 13), (3, 10)):
        os.utime(path_of(store, Key("default", f"c{number}")), ns=(seconds * 10**9,) * 2)
    assert store.heads("default", limit=1).items == heads[:1]


def test_a_date_in_the_future_does_not_change_the_listing(store, no_sync):
    heads = _made(store, [SECOND * number for number in range(50)])
    os.utime(path_of(store, Key("default", "c7")), ns=(9_000_000_000_000_000_000,) * 2)
    assert store.heads("default", limit=10).items == heads[:10]


def test_far_apart_in_time(store):
    heads = _made(store, [0, 1, 1_760_000_000_000_000, 4_000_000_000_000_000])
    assert _walk(store, 2) == heads


def test_what_is_written_during_the_walk_does_not_disturb_the_others(store):
    heads = _made(store, [SECOND * number for number in range(30)])
    page, seen = store.heads("default", limit=10), []
    while True:
        seen += [head.key for head in page.items]
        if page.next is None:
            break
        moved = store.read(Key("default", "c5")).head
        store.append(moved.key, ["{}"], after=moved, revision=revision(moved.revision.updated + 10**9))
        page = store.heads("default", after=page.next, limit=10)
    still = [head.key for head in heads if head.key.id != "c5"]
    assert [key for key in seen if key.id != "c5"] == still


def test_an_append_between_scan_and_look_is_no_wrong_date(store, monkeypatch, no_sync):
    heads = _made(store, [SECOND * number for number in range(60)])
    newest, real, scans = heads[0], os.scandir, []

    class Entries:
        def __init__(self, path):
            self.entries = list(real(path))
            for entry in self.entries:
                entry.stat(follow_symlinks=False)
            scans.append(path)
            store.append(newest.key, ["{}"], after=newest, revision=revision(newest.revision.updated + 5))

        def __enter__(self):
            return iter(self.entries)

        def __exit__(self, *_):
            return None

    looked = []
    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", Entries)
        patch.setattr(os, "pread", lambda *args, pread=os.pread: looked.append(args) or pread(*args))
        page = store.heads("default", limit=5)
    assert [head.key for head in page.items] == [head.key for head in heads[:5]]
    assert len(looked) < 12


def test_a_conversation_without_records_is_listed(store):
    head = fill_store(store, ["1"])
    store.forget(head.key, before=1)
    assert [(one.start, one.end) for one in store.heads("default").items] == [(1, 1)]


def test_a_page_has_at_least_one_item(store):
    with pytest.raises(InvalidInput):
        store.heads("default", limit=0)
