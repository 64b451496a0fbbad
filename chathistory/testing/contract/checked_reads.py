"""Reads of a store that check what the contract requires of every answer, and comparisons with what is expected."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import TypeAlias

from chathistory.storage.store import HistoryStore
from chathistory.storage.values import Head, Key, Page, ReadResult, Record
from chathistory.testing.contract.samples import shorten_text

__all__ = [
    "Contents",
    "check_absent",
    "check_bodies",
    "check_everything",
    "check_head",
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
"""For each conversation: its head, its payload, and its bodies by position (the `repr` of a record hides them)."""

_MOST_PAGES = 10_000


def expected_range(head: Head, start: int, stop: int | None) -> range:
    """Return the positions that `read(start=start, stop=stop)` covers, as `HistoryStore.read` defines them."""
    low = max(start if start >= 0 else head.end + start, head.start)
    high = head.end if stop is None else min(stop, head.end)
    return range(low, max(low, high))


def check_read_result(run: ReadResult, start: int = 0, stop: int | None = None) -> None:
    """Check that a read result starts at the start of its range, has no gap, and is empty only if the range is."""
    expected = expected_range(run.head, start, stop)
    seen = [record.position for record in run.records]
    call = f"read(start={start}, stop={stop}) of records {run.head.start} to {run.head.end}"
    assert seen == list(expected)[: len(seen)], (
        f"{call} returned the positions {seen}; expected a run that begins with {expected.start} and has no gap"
    )
    assert seen or not expected, f"{call} returned no records; expected a run that begins with {expected.start}"


def read_records(store: HistoryStore, key: Key, *, start: int = 0, stop: int | None = None) -> list[Record]:
    """Read a range to its end, with several calls if the store returns it in parts."""
    run = store.read(key, start=start, stop=stop)
    assert run is not None, f"read() returned None for {key}, which is stored"
    assert run.head.key == key, f"read() of {key} returned the head of {run.head.key}"
    check_read_result(run, start, stop)
    expected = expected_range(run.head, start, stop)
    records = list(run.records)
    while len(records) < len(expected):
        at = expected.start + len(records)
        run = store.read(key, start=at, stop=expected.stop)
        assert run is not None, f"read() returned None for {key} after it had returned a part"
        check_read_result(run, at, expected.stop)
        records += run.records
    return records


def read_bodies(store: HistoryStore, key: Key) -> list[str]:
    """Return all bodies of a conversation, oldest first."""
    return [record.body for record in read_records(store, key)]


def read_head(store: HistoryStore, key: Key) -> Head | None:
    """Return the head of a conversation, or None if it is absent."""
    run = store.read(key, stop=0)
    return None if run is None else run.head


def read_everything(store: HistoryStore) -> Contents:
    """Return everything that a store holds; fails if `keys`, `read` and `heads` disagree."""
    found: Contents = {}
    for key in list(store.keys()):
        head = read_head(store, key)
        assert head is not None, f"keys() yields {key}, but read() returns None for it"
        found[key] = head, head.revision.payload, {record.position: record.body for record in read_records(store, key)}
    for scope in {key.scope for key in found}:
        heads = sorted((head for key, (head, _, _) in found.items() if key.scope == scope), key=_by_id)
        assert sorted(list_heads(store, scope), key=_by_id) == heads, (
            f"heads({scope!r}) does not list the heads that read() returns"
        )
    return found


def check_head(store: HistoryStore, key: Key, expected: Head | None) -> None:
    """Check the head that `read` returns."""
    head = read_head(store, key)
    assert head == expected, f"read() of {key} returned the head {head}; expected {expected}"


def check_bodies(store: HistoryStore, key: Key, expected: Sequence[str]) -> None:
    """Check all bodies of a conversation; a failure shows the first difference."""
    bodies = read_bodies(store, key)
    if bodies != list(expected):
        pairs = enumerate(zip_longest(bodies, expected, fillvalue="(nothing)"))
        place, body, other = next((place, body, other) for place, (body, other) in pairs if body != other)
        raise AssertionError(
            f"read() of {key} returned {len(bodies)} bodies, expected {len(expected)}; number {place} is "
            f"{shorten_text(body)}, expected {shorten_text(other)}"
        )


def check_everything(store: HistoryStore, expected: Contents) -> None:
    """Check that the store holds exactly the expected conversations."""
    seen = read_everything(store)
    for key in sorted({*seen, *expected}):
        assert key in seen, f"{key} is gone; it must still be stored, unchanged"
        assert key in expected, f"{key} is stored; it must not be"
        head, other = seen[key][0], expected[key][0]
        assert head == other, f"the head of {key} is {head}; expected {other}"
        assert seen[key] == expected[key], f"the payload or a body of {key} has changed"


def check_absent(store: HistoryStore, key: Key) -> None:
    """Check that `read` finds no conversation."""
    head = read_head(store, key)
    assert head is None, f"{key} must be absent; read() returned the head {head}"


def _by_id(head: Head) -> str:
    return head.key.id


def read_pages(store: HistoryStore, scope: str, limit: int) -> Iterator[Page[Head]]:
    """Yield the pages of a listing; conversations may be written between two pages."""
    cursor = None
    for _ in range(_MOST_PAGES):
        page = store.heads(scope, after=cursor, limit=limit)
        assert len(page.items) <= limit, f"heads(limit={limit}) returned {len(page.items)} heads"
        assert page.next is None or page.items, (
            "heads() returned an empty page with a `next` cursor; the last page must have none"
        )
        yield page
        cursor = page.next
        if cursor is None:
            return
    raise AssertionError(f"heads({scope!r}) still has a `next` cursor after {_MOST_PAGES} pages")


def list_heads(store: HistoryStore, scope: str, *, limit: int = 100) -> list[Head]:
    """Return all heads of a scope, in the order of the listing."""
    return [head for page in read_pages(store, scope, limit) for head in page.items]


def check_heads(store: HistoryStore, seen: Sequence[Head], expected: Sequence[Head]) -> None:
    """Check the heads of a listing, and their order if `traits.recency` is "exact"."""
    names, expected_names = ([head.key.id for head in heads] for heads in (seen, expected))
    if store.traits.recency == "exact":
        assert names == expected_names, f"heads() lists the ids {names}; expected {expected_names}"
    assert sorted(names) == sorted(expected_names), (
        f"heads() lists the ids {names}; expected {expected_names}, in any order"
    )
    for head, other in zip(sorted(seen, key=_by_id), sorted(expected, key=_by_id), strict=True):
        assert head == other, f"heads() lists {head}; the current head is {other}"
