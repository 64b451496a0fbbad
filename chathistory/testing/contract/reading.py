"""Guarantees 2 and 7 for a reader: any range, no gaps, and None only for an absent conversation."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from chathistory.errors import InvalidInput
from chathistory.storage.store import HistoryStore
from chathistory.storage.values import Head, Key
from chathistory.testing.contract.base_test_class import ContractTest
from chathistory.testing.contract.checked_reads import check_absent, check_read_result, expected_range, read_records
from chathistory.testing.contract.samples import (
    KEY,
    append_lines,
    check_same_text,
    create_conversation,
    make_line,
    make_revision,
)

__all__ = ["Reading"]

_STARTS = (*range(-9, 12), -(10**12), 10**12)
_STOPS = (None, *range(-2, 12), 10**12)
_HEAVY = 250_000


def _create_six_records(store: HistoryStore, first: int, before: int) -> Head:
    """Create a conversation of six records in three batches, and forget those below `before`; return the head."""
    head = append_lines(store, append_lines(store, create_conversation(store, count=1, first=first), 2), 3)
    return store.forget(KEY, before=before) or head


class Reading(ContractTest, guarantee=7):
    """read returns any range of the records, and the head of the same moment."""

    @pytest.mark.parametrize(("first", "before"), [(0, 0), (0, 2), (0, 5), (0, 6), (3, 0), (3, 5)])
    def test_read_returns_the_start_of_every_range(self, store: HistoryStore, first: int, before: int) -> None:
        head = _create_six_records(store, first, before)
        for start in _STARTS:
            for stop in _STOPS:
                run = store.read(KEY, start=start, stop=stop)
                call = f"read(start={start}, stop={stop}) of records {head.start} to {head.end}"
                assert run is not None, f"{call} returned None; the conversation exists"
                assert run.head == head, call
                check_read_result(run, start, stop)
                assert [record.body for record in run.records] == [make_line(record.position) for record in run.records]

    @pytest.mark.parametrize(("first", "before"), [(0, 0), (3, 5)])
    def test_repeated_reads_reach_the_end_of_every_range(self, store: HistoryStore, first: int, before: int) -> None:
        head = _create_six_records(store, first, before)
        for start in _STARTS:
            expected = expected_range(head, start, None)
            assert [record.position for record in read_records(store, KEY, start=start)] == list(expected)

    def test_read_returns_any_range_of_many_records(self, store: HistoryStore) -> None:
        head = create_conversation(store, count=60)
        for _ in range(6):
            head = append_lines(store, head, 40)
        for start, stop in ((0, None), (59, 61), (99, 141), (-1, None), (-45, None), (-300, 2), (150, 250)):
            expected = expected_range(head, start, stop)
            records = read_records(store, KEY, start=start, stop=stop)
            assert [(record.position, record.body) for record in records] == [(at, make_line(at)) for at in expected]

    def test_read_leaves_no_gap_in_much_text(self, store: HistoryStore) -> None:
        size = min(_HEAVY, (store.traits.largest_record or _HEAVY) - 10)
        heavy = [f"{at:02d}{'x' * size}" for at in range(24)]
        head = None
        for text in heavy:
            head = store.append(KEY, [text], after=head, revision=make_revision())
        for start in (0, 5, -20, -1):
            for record in read_records(store, KEY, start=start):
                check_same_text(record.body, heavy[record.position], f"record {record.position}")

    def test_read_of_an_unknown_conversation_returns_none(self, store: HistoryStore) -> None:
        check_absent(store, KEY)
        create_conversation(store)
        for key in (Key(KEY.scope, "other"), Key("other", KEY.id)):
            check_absent(store, key)
            assert store.read(key, start=-5, stop=3) is None

    @pytest.mark.parametrize("wrong", [True, 1.0, 1.5, "1", b"1", [1]], ids=repr)
    def test_read_refuses_a_range_that_is_not_of_ints(self, store: HistoryStore, wrong: Any) -> None:
        create_conversation(store, count=3)
        for call in ({"start": wrong}, {"start": wrong, "stop": 2}, {"stop": wrong}):
            with pytest.raises(InvalidInput):
                store.read(KEY, **call)

    def test_read_finds_a_conversation_without_records(self, store: HistoryStore) -> None:
        head = create_conversation(store, count=3)
        store.forget(KEY, before=3)
        for start, stop in ((0, None), (-1, None), (3, None), (0, 0)):
            run = store.read(KEY, start=start, stop=stop)
            assert run is not None, "read() returned None; a conversation without records still exists"
            assert run.head == replace(head, start=3)
            assert list(run.records) == []

    def test_reading_changes_nothing(self, store: HistoryStore) -> None:
        head = create_conversation(store, count=3)
        for _ in range(3):
            run = store.read(KEY, start=1)
            assert run is not None
            assert run.head == head
        assert append_lines(store, head).end == 4  # noqa: PLR2004
