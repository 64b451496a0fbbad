"""Filters and pages of a listing: the same on every backend, also while others write."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from sample_conversations import said, user

from chathistory import History, open_store
from chathistory.errors import InvalidInput

pytestmark = pytest.mark.wide

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
BACKENDS = ("memory", "file", "redis", "mongodb", "s3")
COUNT = 130  # more than a bucket of the s3 store puts in order
FILTERS = {
    "all": ({}, lambda row: True),
    "tag": ({"tag": "third"}, lambda row: "third" in row.tags),
    "tags": ({"tag": ["third", "fifth"]}, lambda row: {"third", "fifth"} <= set(row.tags)),
    "title": ({"title": "ÄPFEL"}, lambda row: "äpfel" in (row.title or row.preview or "").casefold()),
    "preview": ({"title": "number 7"}, lambda row: row.title is None and "number 7" in row.preview),
    "metadata": ({"metadata": {"n": 4}}, lambda row: row.metadata.get("n") == 4),
    "nested": ({"metadata": {"o": {"b": 1, "a": [None]}}}, lambda row: "o" in row.metadata),
    "model": ({"model": "claude-b"}, lambda row: row.model == "claude-b"),
    "two": ({"tag": "third", "model": "claude-b"}, lambda row: "third" in row.tags and row.model == "claude-b"),
    "none": ({"tag": "no such tag"}, lambda row: False),
}


@pytest.fixture(scope="module", params=BACKENDS)
def history(request, module_url_of):
    """A history that the tests only read."""
    with open_store(module_url_of(request.param)) as store:
        yield fill_store(store)


def fill_store(store):
    history = History(store)
    for number in range(COUNT):
        chat = history.conversation(f"c{number}")
        chat.append([user(f"This is number {number}"), said("x") | {"model": f"claude-{'ab'[number % 2]}"}])
        tags = [name for name, size in (("third", 3), ("fifth", 5)) if number % size == 0]
        if tags:
            nested = {"o": {"a": [None], "b": 1}} if number % 4 == 0 else {}
            chat.annotate(tags=tags, title="Äpfel" if number % 10 == 0 else None, metadata={"n": number % 7} | nested)
    return history


def walked(history, limit, between=None, **wanted):
    rows, after, sizes = [], None, []
    while True:
        page = history.list(limit=limit, after=after, **wanted)
        sizes.append(len(page.items))
        rows += page.items
        after = page.next
        if after is None:
            return rows, sizes
        if between:
            between()


def test_a_listing_returns_what_its_filters_ask_for(history):
    everything, _ = walked(history, 1000)
    exact = history.store.traits.recency == "exact"
    assert len(everything) == COUNT
    for name in FILTERS if exact else ("all", "tag", "nested"):  # where a page reads each head by a request of its own
        wanted, fits = FILTERS[name]
        due = [row for row in everything if fits(row)]
        assert name == "none" or due
        for limit in (1, 200) if 0 < len(due) < 12 else (13, 200):
            rows, sizes = walked(history, limit, **wanted)
            assert (rows if exact else sorted(rows, key=repr)) == (due if exact else sorted(due, key=repr)), name
            assert max(sizes) <= limit
            assert all(size == limit for size in sizes[:-1]), "with fewer than are looked at, a page is full"


def test_a_listing_filters_by_time(history):
    everything, _ = walked(history, 1000)
    by_time = sorted(everything, key=lambda row: row.updated, reverse=True)
    new, old = by_time[30].updated, by_time[90].updated
    for wanted, due in (
        ({"since": new}, by_time[:31]),
        ({"until": new}, by_time[31:]),
        ({"since": old, "until": new}, by_time[31:91]),
        ({"since": old, "until": new, "tag": "third"}, [row for row in by_time[31:91] if "third" in row.tags]),
        ({"since": by_time[0].updated + timedelta(seconds=1)}, []),
        ({"since": new.astimezone(datetime.now().astimezone().tzinfo)}, by_time[:31]),
    ):
        rows, _ = walked(history, 20, **wanted)
        assert sorted(row.id for row in rows) == sorted(row.id for row in due)


def test_what_others_do_not_write_comes_exactly_once(store):
    history = fill_store(store)
    for wanted in ({}, {"tag": "third"}, {"model": "claude-a"}):
        everything, _ = walked(history, 1000, **wanted)
        written = iter(range(COUNT))

        def between(written=written):
            for _ in range(3):
                number = next(written)
                history.conversation(f"c{number}").append(user("more"))
                history.conversation(f"new {number}").append(user("new"))

        rows, _ = walked(history, 9, between, **wanted)
        touched = {f"c{number}" for number in range(next(written))}
        still = [row.id for row in rows if row.id not in touched and row.id.startswith("c")]
        due = [row.id for row in everything if row.id not in touched and row.id.startswith("c")]
        assert sorted(still) == sorted(due)
        assert len(set(still)) == len(still)


def test_rows_tell_all_without_reading_messages(history, monkeypatch):
    monkeypatch.setattr(type(history.store), "read", None)
    row = next(row for row in walked(history, 50)[0] if row.id == "c0")
    assert (row.messages, row.records, row.tokens, row.usage) == (2, 3, 5, {"input_tokens": 3, "output_tokens": 2})
    assert (row.title, row.preview, row.tags) == ("Äpfel", "This is number 0", ("third", "fifth"))


def test_a_time_without_a_zone_is_refused(history):
    for name in ("since", "until"):
        with pytest.raises(InvalidInput, match=f"{name}: must be a timezone-aware datetime"):
            history.list(**{name: datetime(2026, 1, 1)})  # noqa: DTZ001
