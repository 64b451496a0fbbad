"""Guarantee 1, atomic: a batch is stored completely or not at all, at consecutive positions."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from chathistory.errors import InvalidInput
from chathistory.storage.store import HistoryStore
from chathistory.storage.values import Head, Revision
from chathistory.testing.contract.base_test_class import ContractTest, skip_unless
from chathistory.testing.contract.checked_reads import (
    check_absent,
    check_bodies,
    check_everything,
    check_head,
    read_bodies,
    read_everything,
    read_records,
)
from chathistory.testing.contract.samples import KEY, append_lines, create_conversation, make_lines, make_revision

__all__ = ["Atomic"]

_BAD_BATCHES: dict[str, Any] = {
    "no body": [],
    "no body in a tuple": (),
    "a lone string": "abc",
    "an empty string": "",
    "a line break": ["a", "b\nc", "d"],
    "a line break at the end": ["a", "b", "c\n"],
    "a carriage return": ["a", "b\rc", "d"],
    "a NUL": ["a", "b\0c", "d"],
    "a tab": ["a", "b\tc", "d"],
    "a separator of records": ["a", "b\x1ec", "d"],
    "a lone surrogate": ["a", "b\ud800c", "d"],
    "a swapped pair": ["a", "b\udc00\ud800c", "d"],
    "bytes": ["a", b"b", "d"],
    "None": ["a", None, "d"],
    "a dict": ["a", {"b": 1}, "d"],
    "a bad last body": ["a", "b", "c\0"],
}

_GOOD = Revision("version", 1)
_BAD_STAMPS: dict[str, Revision] = {
    "an empty version": replace(_GOOD, version=""),
    "a version of 33 characters": replace(_GOOD, version="v" * 33),
    "a version beyond ASCII": replace(_GOOD, version="é"),
    "a version with a line break": replace(_GOOD, version="a\nb"),
    "a version with a NUL": replace(_GOOD, version="a\0"),
    "a time before 1970": replace(_GOOD, updated=-1),
    "a payload of two lines": replace(_GOOD, payload="a\nb"),
    "a payload with a NUL": replace(_GOOD, payload="a\0"),
    "a payload with a lone surrogate": replace(_GOOD, payload="\udfff"),
}

_TESTABLE = 64_000_000
"""Bytes that a test may keep in memory; larger limits are tested by the core only."""


class Atomic(ContractTest, guarantee=1):
    """A batch is stored completely or not at all."""

    def test_the_fixture_gives_an_empty_store(self, store: HistoryStore) -> None:
        assert list(store.keys()) == [], "the fixture `store` must yield an empty store; keys() yields something"

    @pytest.mark.parametrize("count", [1, 2, 100])
    def test_append_stores_a_batch_at_consecutive_positions(self, store: HistoryStore, count: int) -> None:
        given = make_revision(payload="info")
        head = store.append(KEY, make_lines(count), after=None, revision=given)
        assert head == Head(KEY, 0, count, given)
        records = read_records(store, KEY)
        assert [record.position for record in records] == list(range(count))
        assert [record.body for record in records] == make_lines(count)

    def test_append_continues_after_the_last_batch(self, store: HistoryStore) -> None:
        head = create_conversation(store, count=2)
        for count in (1, 3, 2):
            grown_head = append_lines(store, head, count)
            assert (grown_head.start, grown_head.end) == (0, head.end + count)
            check_head(store, KEY, grown_head)
            head = grown_head
        check_bodies(store, KEY, make_lines(8))

    def test_append_takes_a_tuple(self, store: HistoryStore) -> None:
        store.append(KEY, tuple(make_lines(2)), after=None, revision=make_revision())
        check_bodies(store, KEY, make_lines(2))

    @pytest.mark.parametrize("bad", _BAD_BATCHES.values(), ids=_BAD_BATCHES)
    def test_a_refused_batch_creates_no_conversation(self, store: HistoryStore, bad: Any) -> None:
        with pytest.raises(InvalidInput):
            store.append(KEY, bad, after=None, revision=make_revision())
        check_everything(store, {})
        check_absent(store, KEY)

    @pytest.mark.parametrize("bad", _BAD_BATCHES.values(), ids=_BAD_BATCHES)
    def test_a_refused_batch_changes_nothing(self, store: HistoryStore, bad: Any) -> None:
        head = create_conversation(store, count=2)
        before = read_everything(store)
        with pytest.raises(InvalidInput):
            store.append(KEY, bad, after=head, revision=make_revision())
        check_everything(store, before)
        assert append_lines(store, head).end == head.end + 1, (
            "append with the head from before the refused append must succeed"
        )

    @pytest.mark.parametrize("bad", _BAD_STAMPS.values(), ids=_BAD_STAMPS)
    def test_a_refused_revision_changes_nothing(self, store: HistoryStore, bad: Revision) -> None:
        with pytest.raises(InvalidInput):
            store.append(KEY, make_lines(1), after=None, revision=bad)
        check_everything(store, {})
        head = create_conversation(store)
        before = read_everything(store)
        with pytest.raises(InvalidInput):
            store.append(KEY, make_lines(1), after=head, revision=bad)
        check_everything(store, before)

    def test_a_negative_first_is_refused(self, store: HistoryStore) -> None:
        with pytest.raises(InvalidInput):
            store.append(KEY, make_lines(1), after=None, revision=make_revision(), first=-1)
        check_everything(store, {})

    def test_a_body_above_the_limit_is_refused(self, store: HistoryStore) -> None:
        limit = store.traits.largest_record
        skip_unless(limit is not None and limit <= _TESTABLE, "no largest_record that a test could exceed")
        assert limit is not None
        self._check_limit(store, [_line_of_bytes(limit)], ["a", _line_of_bytes(limit + 1)])

    def test_a_batch_above_the_limit_is_refused(self, store: HistoryStore) -> None:
        limit = store.traits.largest_batch
        skip_unless(limit is not None and limit <= _TESTABLE, "no largest_batch that a test could exceed")
        assert limit is not None
        one = min(limit, store.traits.largest_record or limit)
        fitting = [_line_of_bytes(one)] * (limit // one) + [_line_of_bytes(limit % one)]
        self._check_limit(store, fitting, [*fitting, "a"])

    def _check_limit(self, store: HistoryStore, fitting: list[str], exceeding: list[str]) -> None:
        with pytest.raises(InvalidInput):
            store.append(KEY, exceeding, after=None, revision=make_revision())
        check_everything(store, {})
        store.append(KEY, fitting, after=None, revision=make_revision())
        assert read_bodies(store, KEY) == fitting, "a batch of exactly the limit was not stored unchanged"

    def test_append_neither_changes_nor_keeps_the_callers_list(self, store: HistoryStore) -> None:
        batch = make_lines(2)
        store.append(KEY, batch, after=None, revision=make_revision())
        assert batch == make_lines(2), "append() changed the list of its caller"
        batch[0] = "changed"
        batch.append("added")
        assert read_bodies(store, KEY) == make_lines(2), (
            "append() kept the caller's list, so a later change of the list changed the store"
        )

    def test_changing_a_read_result_does_not_change_the_store(self, store: HistoryStore) -> None:
        create_conversation(store, count=2)
        run = store.read(KEY)
        assert run is not None
        records: Any = run.records
        with suppress(AttributeError, TypeError):  # an immutable sequence is fine as well
            records.clear()
        assert read_bodies(store, KEY) == make_lines(2), (
            "read() returned an internal list, so clearing it removed records from the store"
        )


def _line_of_bytes(size: int) -> str:
    """Return a line of `size` bytes, with characters of two bytes, since limits count bytes."""
    return "é" * (size // 2) + "x" * (size % 2)
