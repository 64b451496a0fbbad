"""Guarantee 12, for stores that can give a conversation a new head: whatever is sound is found, and kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import pytest

from chathistory.errors import Conflict, StoreClosed
from chathistory.storage.abilities import FoundRecords, HeadRecovery
from chathistory.storage.store import HistoryStore
from chathistory.storage.values import Head, Key, Record
from chathistory.testing.contract.base_test_class import ContractTest, skip_unless
from chathistory.testing.contract.checked_reads import list_heads, read_bodies, read_everything, read_head
from chathistory.testing.contract.damage import check_readable_except, create_in_batches
from chathistory.testing.contract.every_method import catch_error
from chathistory.testing.contract.samples import (
    FAR,
    KEY,
    MARKER,
    append_lines,
    create_conversation,
    make_line,
    make_lines,
    make_revision,
)

__all__ = ["RecoveredHeads"]

_SHAPES = {"ones": [1] * 12, "pairs": [2] * 6, "threes": [3] * 4, "three hundreds": [300] * 3, "mixed": [5, 1, 300, 2]}
_PART = 256


def _find_records(store: HeadRecovery, key: Key = KEY) -> FoundRecords:
    found = store.find_records(key)
    assert found is not None, f"nothing of {key} was found"
    assert found.key == key
    assert found.token.isascii()
    assert found.start <= found.end
    return found


def _read_all_found(store: HeadRecovery, found: FoundRecords) -> list[Record]:
    records: list[Record] = []
    for start in range(found.start, found.end, _PART):
        records += store.read_found(found, start=start, stop=min(start + _PART, found.end))
    return records


def _check_records(records: list[Record], positions: list[int]) -> None:
    assert [record.position for record in records] == positions, "a sound record was not found, or one that is none"
    assert [record.body for record in records] == [make_line(position) for position in positions], (
        "a record was altered"
    )


class RecoveredHeads(ContractTest, guarantee=12):
    """What a damaged head leaves is found by its records, and a new head is guarded like an append."""

    @contextmanager
    def _open_recovery(self, store: HistoryStore) -> Iterator[tuple[HistoryStore, HeadRecovery]]:
        """Give another instance, as the store that it is and as one that recovers heads."""
        skip_unless(store.get_recovery(), "no HeadRecovery")
        with self._second_instance(store) as other:
            recovery = other.get_recovery()
            assert recovery is not None, "another instance of the store cannot recover heads"
            yield other, recovery

    def test_nothing_is_found_where_nothing_is(self, store: HistoryStore) -> None:
        with self._open_recovery(store) as (other, recovery):
            assert recovery.find_records(KEY) is None
            create_conversation(other)
            assert recovery.find_records(replace(KEY, id="other")) is None
            other.delete(KEY)
            assert recovery.find_records(KEY) is None, "something of a deleted conversation was found"

    def test_a_closed_store_recovers_nothing(self, store: HistoryStore) -> None:
        head = create_conversation(store)
        with self._open_recovery(store) as (other, recovery):
            found = _find_records(recovery)
            other.close()
            calls: dict[str, Callable[[], object]] = {
                "find_records": partial(recovery.find_records, KEY),
                "read_found": partial(recovery.read_found, found, start=0, stop=1),
                "restore_head": partial(recovery.restore_head, found, head),
            }
            for name, call in calls.items():
                error = catch_error(call)
                assert isinstance(error, StoreClosed), f"{name} of a closed store: {error!r}"

    @pytest.mark.parametrize("sizes", _SHAPES.values(), ids=_SHAPES)
    def test_a_sound_conversation_is_found_whole(self, store: HistoryStore, sizes: list[int]) -> None:
        head = create_in_batches(store, KEY, sizes)
        store.forget(KEY, before=2)
        with self._open_recovery(store) as (other, recovery):
            before = read_everything(other)
            found = _find_records(recovery)
            assert (found.start, found.end, found.problem) == (2, head.end, None)
            _check_records(_read_all_found(recovery, found), list(range(2, head.end)))
            for start, stop in ((2, 3), (head.end - 1, head.end), (3, 9), (5, 5)):
                _check_records(list(recovery.read_found(found, start=start, stop=stop)), list(range(start, stop)))
            assert read_everything(other) == before, "looking changed something"

    @pytest.mark.parametrize("sizes", _SHAPES.values(), ids=_SHAPES)
    def test_a_head_is_restored_from_its_records(self, store: HistoryStore, sizes: list[int]) -> None:
        head = create_in_batches(store, KEY, sizes)
        other_head = create_conversation(store, replace(KEY, id="other"), 2)
        with self._open_recovery(store) as (other, recovery):
            self.damage_head(store, KEY)
            new = self._restore_and_check(recovery, head)
            check_readable_except(other, new, set())
            assert sorted(list_heads(other, KEY.scope), key=lambda each: each.key) == [new, other_head]
            assert list(other.heads(KEY.scope).damaged) == []
            assert sorted(other.keys()) == sorted(other.scan_keys()) == [KEY, other_head.key]
            grown_head = append_lines(other, new, 3)
        with self._second_instance(store) as other:
            check_readable_except(other, grown_head, set())
            other.forget(KEY, before=grown_head.end - 1)
            assert read_bodies(other, KEY) == make_lines(1, first=grown_head.end - 1)

    def _restore_and_check(self, recovery: HeadRecovery, expected: Head, *, damaged: tuple[int, ...] = ()) -> Head:
        """Find the records of a conversation whose head is damaged, and give it a new head."""
        found = _find_records(recovery)
        assert found.problem, "the head is damaged, and no problem was named"
        assert (found.start, found.end) == (expected.start, expected.end)
        _check_records(
            _read_all_found(recovery, found), [at for at in range(expected.start, expected.end) if at not in damaged]
        )
        head = Head(KEY, found.start, found.end, make_revision(expires=FAR, payload="folded anew"))
        assert recovery.restore_head(found, head) == head
        return head

    def test_what_was_forgotten_does_not_come_back(self, store: HistoryStore) -> None:
        head = append_lines(store, create_conversation(store, count=4, first=7), 4)
        store.forget(KEY, before=10)
        with self._open_recovery(store) as (other, recovery):
            self.damage_head(store, KEY)
            new = self._restore_and_check(recovery, replace(head, start=10))
            check_readable_except(other, new, set())

    @pytest.mark.parametrize("place", [0, 1, 2, 3, 7, 8])
    def test_with_damaged_records_as_well(self, store: HistoryStore, place: int) -> None:
        head = create_in_batches(store, KEY, [1, 2, 3, 4])
        with self._open_recovery(store) as (other, recovery):
            self.damage_record(store, KEY, place)
            self.damage_head(store, KEY)
            new = self._restore_and_check(recovery, head, damaged=(place,))
            check_readable_except(other, new, {place})
            check_readable_except(other, append_lines(other, new, 2), {place})

    def test_a_damaged_record_alone_is_left_out(self, store: HistoryStore) -> None:
        head = create_in_batches(store, KEY, [1, 2, 3, 4])
        self.damage_record(store, KEY, 4)
        with self._open_recovery(store) as (_, recovery):
            found = _find_records(recovery)
            assert (found.start, found.end) == (0, head.end)
            _check_records(_read_all_found(recovery, found), [at for at in range(head.end) if at != 4])  # noqa: PLR2004

    def test_a_new_head_is_guarded_by_what_was_found(self, store: HistoryStore) -> None:
        create_in_batches(store, KEY, [1, 2, 3])
        with self._open_recovery(store) as (other, recovery):
            self.damage_head(store, KEY)
            found = _find_records(recovery)
            first, second = (Head(KEY, 0, 6, make_revision(payload=payload)) for payload in ("first", "second"))
            recovery.restore_head(found, first)
            with pytest.raises(Conflict):
                recovery.restore_head(found, second)
            assert read_head(other, KEY) == first
            check_readable_except(other, first, set())

    def test_a_writer_who_came_meanwhile_is_not_overwritten(self, store: HistoryStore) -> None:
        head = create_conversation(store, count=2)
        with self._open_recovery(store) as (other, recovery):
            found = _find_records(recovery)
            present = append_lines(other, head, 2)
            before = read_everything(other)
            with pytest.raises(Conflict) as caught:
                recovery.restore_head(found, replace(head, revision=make_revision()))
            assert caught.value.key == KEY
            assert read_everything(other) == before
            assert read_head(other, KEY) == present

    def test_a_deleted_conversation_is_not_brought_back(self, store: HistoryStore) -> None:
        create_conversation(store, count=2)
        with self._open_recovery(store) as (other, recovery):
            self.damage_head(store, KEY)
            found = _find_records(recovery)
            assert other.delete(KEY) is True
            with pytest.raises(Conflict):
                recovery.restore_head(found, Head(KEY, 0, 2, make_revision()))
            assert other.read(KEY) is None
            assert read_everything(other) == {}

    def test_what_is_made_anew_meanwhile_is_not_overwritten(self, store: HistoryStore) -> None:
        create_conversation(store, count=2)
        with self._open_recovery(store) as (other, recovery):
            self.damage_head(store, KEY)
            found = _find_records(recovery)
            other.delete(KEY)
            create_conversation(other, count=3)
            before = read_everything(other)
            with pytest.raises(Conflict):
                recovery.restore_head(found, Head(KEY, 0, 2, make_revision()))
            assert read_everything(other) == before

    def test_a_restored_conversation_can_be_deleted(self, store: HistoryStore) -> None:
        head = create_in_batches(store, KEY, [2, 3])
        with self._open_recovery(store) as (other, recovery):
            self.damage_head(store, KEY)
            new = self._restore_and_check(recovery, head)
            assert other.delete(KEY, version=new.revision.version) is True
            assert other.read(KEY) is None
            assert recovery.find_records(KEY) is None
            assert read_bodies(other, create_conversation(other, count=1).key) == make_lines(1)

    def test_what_is_found_shows_no_message_text(self, store: HistoryStore) -> None:
        store.append(KEY, [MARKER] * 2, after=None, revision=make_revision(payload=MARKER))
        with self._open_recovery(store) as (_, recovery):
            self.damage_head(store, KEY)
            found = _find_records(recovery)
            records = recovery.read_found(found, start=found.start, stop=found.end)
            assert [record.body for record in records] == [MARKER] * 2
            assert MARKER not in f"{found!r} {records!r}"
