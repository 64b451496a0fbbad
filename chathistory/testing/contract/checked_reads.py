"""How the suite looks at a store: each look checks on its way what the contract says of every answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeAlias

from chathistory.storage.store import HistoryStore
from chathistory.storage.values import Head, Key, Page, ReadResult, Record

__all__ = [
    "Contents",
    "check_heads",
    "check_read_result",
    "list_heads",
    "read_bodies",
    "read_everything",
    "read_head",
    "read_pages",
    "read_records",
]

Contents: TypeAlias = dict[Key, tuple[Head, str, dict[int, str]]]
"""Of each conversation: its head, its info, and its bodies by position (which `repr` of a record would hide)."""

_MOST_PAGES = 10_000


def expected_range(head: Head, start: int, stop: int | None) -> range:
    """Return the positions that a read of [start, stop) is about, by the words of `HistoryStore.read`."""
    low = max(start if start >= 0 else head.end + start, head.start)
    high = head.end if stop is None else min(stop, head.end)
    return range(low, max(low, high))


def check_read_result(run: ReadResult, start: int = 0, stop: int | None = None) -> None:
    """Check that a run begins where it must, has no gap, stays in its range, and is not empty unless that is."""
    expected = expected_range(run.head, start, stop)
    seen = [record.position for record in run.records]
    asked = f"read(start={start}, stop={stop}) of records {run.head.start} to {run.head.end}"
    assert seen == list(expected)[: len(seen)], (
        f"{asked} gave the positions {seen}; a run from the start of {expected} is expected"
    )
    assert seen or not expected, f"{asked} gave nothing; {expected} is not empty"


def read_records(store: HistoryStore, key: Key, *, start: int = 0, stop: int | None = None) -> list[Record]:
    """Read a range to its end, also where the store gives it in several runs."""
    run = store.read(key, start=start, stop=stop)
    assert run is not None, f"{key} is absent"
    assert run.head.key == key, f"{run.head.key} was read, not {key}"
    check_read_result(run, start, stop)
    expected = expected_range(run.head, start, stop)
    records = list(run.records)
    while len(records) < len(expected):
        at = expected.start + len(records)
        run = store.read(key, start=at, stop=expected.stop)
        assert run is not None, f"{key} vanished between two reads"
        check_read_result(run, at, expected.stop)
        records += run.records
    return records


def read_bodies(store: HistoryStore, key: Key) -> list[str]:
    """Return all bodies of a conversation."""
    return [record.body for record in read_records(store, key)]


def read_head(store: HistoryStore, key: Key) -> Head | None:
    """Return the head of a conversation, None if there is none."""
    run = store.read(key, stop=0)
    return None if run is None else run.head


def read_everything(store: HistoryStore) -> Contents:
    """Return all that a store holds, as every way of looking agrees on it."""
    found: Contents = {}
    for key in list(store.keys()):
        head = read_head(store, key)
        assert head is not None, f"keys() names {key}, read() finds it absent"
        found[key] = head, head.revision.payload, {record.position: record.body for record in read_records(store, key)}
    for scope in {key.scope for key in found}:
        heads = sorted((head for key, (head, _, _) in found.items() if key.scope == scope), key=_by_id)
        assert sorted(list_heads(store, scope), key=_by_id) == heads, "heads() and read() disagree"
    return found


def _by_id(head: Head) -> str:
    return head.key.id


def read_pages(store: HistoryStore, scope: str, limit: int) -> Iterator[Page[Head]]:
    """Walk a listing; more conversations may be written between two pages."""
    cursor = None
    for _ in range(_MOST_PAGES):
        page = store.heads(scope, after=cursor, limit=limit)
        assert len(page.items) <= limit, f"a page of at most {limit} heads has {len(page.items)}"
        assert page.next is None or page.items, "an empty page says that another one follows"
        yield page
        cursor = page.next
        if cursor is None:
            return
    raise AssertionError(f"the listing of {scope!r} does not end after {_MOST_PAGES} pages")


def list_heads(store: HistoryStore, scope: str, *, limit: int = 100) -> list[Head]:
    """Return the whole listing of a scope."""
    return [head for page in read_pages(store, scope, limit) for head in page.items]


def check_heads(store: HistoryStore, seen: Sequence[Head], expected: Sequence[Head]) -> None:
    """Check a listing: the heads, and their order as far as the store promises one."""
    names, expected_names = ([head.key.id for head in heads] for heads in (seen, expected))
    if store.traits.recency == "exact":
        assert names == expected_names, f"listed are {names}; expected are {expected_names}"
    assert sorted(names) == sorted(expected_names), f"listed are {names}; expected are, in any order, {expected_names}"
    for head, other in zip(sorted(seen, key=_by_id), sorted(expected, key=_by_id), strict=True):
        assert head == other, f"{head} is listed; {other} is the present head"
