"""Guarantee 12 for stores that can restore a head: every sound record is found and kept."""

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
from chathistory.testing.contract.checked_reads import (
    check_absent,
    check_bodies,
    check_everything,
    check_head,
    list_heads,
    read_everything,
)
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
    assert found is not None, f"find_records({key}) returned None; the conversation has records"
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
    assert [record.position for record in records] == positions, (
        "read_found() leaves out a sound record, or returns one that does not exist"
    )
    assert [record.body for record in records] == [make_line(position) for position in positions], (
        "read_found() changed a record"
    )


class RecoveredHeads(ContractTest, guarantee=12):
    """The records of a conversation with a damaged head are found, and a restored head is guarded like an append."""

    @contextmanager
    def _open_recovery(self, store: HistoryStore) -> Iterator[tuple[HistoryStore, HeadRecovery]]:
        """Yield a second instance, and its HeadRecovery."""
        skip_unless(store.get_recovery(), "no HeadRecovery")
        with self._second_instance(store) as other:
            recovery = other.get_recovery()
            assert recovery is not None, "get_recovery() of a second instance returned None"
            yield other, recovery

    def test_find_records_returns_none_for_an_absent_conversation(self, store: HistoryStore) -> None:
        with self._open_recovery(store) as (other, recovery):
            assert recovery.find_records(KEY) is None
            create_conversation(other)
            assert recovery.find_records(replace(KEY, id="other")) is None
            other.delete(KEY)
            assert recovery.find_records(KEY) is None, "find_records() found a deleted conversation"

    def test_recovery_methods_of_a_closed_store_raise_store_closed(self, store: HistoryStore) -> None:
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
                assert isinstance(error, StoreClosed), f"{name} of a closed store gave {error!r}; expected StoreClosed"

    @pytest.mark.parametrize("sizes", _SHAPES.values(), ids=_SHAPES)
    def test_find_records_finds_a_sound_conversation_completely(self, store: HistoryStore, sizes: list[int]) -> None:
        head = create_in_batches(store, KEY, sizes)
        store.forget(KEY, before=2)
        with self._open_recovery(store) as (other, recovery):
            before = read_everything(other)
            found = _find_records(recovery)
            assert (found.start, found.end, found.problem) == (2, head.end, None)
            _check_records(_read_all_found(recovery, found), list(range(2, head.end)))
            for start, stop in ((2, 3), (head.end - 1, head.end), (3, 9), (5, 5)):
                _check_records(list(recovery.read_found(found, start=start, stop=stop)), list(range(start, stop)))
            assert read_everything(other) == before, "find_records() or read_found() changed the store"

    @pytest.mark.parametrize("sizes", _SHAPES.values(), ids=_SHAPES)
    def test_restore_head_makes_a_damaged_conversation_readable(self, store: HistoryStore, sizes: list[int]) -> None:
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
            check_bodies(other, KEY, make_lines(1, first=grown_head.end - 1))

    def _restore_and_check(self, recovery: HeadRecovery, expected: Head, *, damaged: tuple[int, ...] = ()) -> Head:
        """Find the records of a conversation with a damaged head, and restore the head."""
        found = _find_records(recovery)
        assert found.problem, "the head is damaged, but FoundRecords.problem is empty"
        assert (found.start, found.end) == (expected.start, expected.end)
        _check_records(
            _read_all_found(recovery, found), [at for at in range(expected.start, expected.end) if at not in damaged]
        )
        head = Head(KEY, found.start, found.end, make_revision(expires=FAR, payload="restored"))
        assert recovery.restore_head(found, head) == head
        return head

    def test_restore_head_brings_no_forgotten_record_back(self, store: HistoryStore) -> None:
        head = append_lines(store, create_conversation(store, count=4, first=7), 4)
        store.forget(KEY, before=10)
        with self._open_recovery(store) as (other, recovery):
            self.damage_head(store, KEY)
            new = self._restore_and_check(recovery, replace(head, start=10))
            check_readable_except(other, new, set())

    @pytest.mark.parametrize("place", [0, 1, 2, 3, 7, 8])
    def test_restore_head_works_with_damaged_records(self, store: HistoryStore, place: int) -> None:
        head = create_in_batches(store, KEY, [1, 2, 3, 4])
        with self._open_recovery(store) as (other, recovery):
            self.damage_record(store, KEY, place)
            self.damage_head(store, KEY)
            new = self._restore_and_check(recovery, head, damaged=(place,))
            check_readable_except(other, new, {place})
            check_readable_except(other, append_lines(other, new, 2), {place})

    def test_read_found_leaves_out_a_damaged_record(self, store: HistoryStore) -> None:
        head = create_in_batches(store, KEY, [1, 2, 3, 4])
        self.damage_record(store, KEY, 4)
        with self._open_recovery(store) as (_, recovery):
            found = _find_records(recovery)
            assert (found.start, found.end) == (0, head.end)
            _check_records(_read_all_found(recovery, found), [at for at in range(head.end) if at != 4])  # noqa: PLR2004

    def test_restore_head_succeeds_once_for_the_same_records(self, store: HistoryStore) -> None:
        create_in_batches(store, KEY, [1, 2, 3])
        with self._open_recovery(store) as (other, recovery):
            self.damage_head(store, KEY)
            found = _find_records(recovery)
            first, second = (Head(KEY, 0, 6, make_revision(payload=payload)) for payload in ("first", "second"))
            recovery.restore_head(found, first)
            with pytest.raises(Conflict):
                recovery.restore_head(found, second)
            check_head(other, KEY, first)
            check_readable_except(other, first, set())

    def test_restore_head_does_not_overwrite_a_later_append(self, store: HistoryStore) -> None:
        head = create_conversation(store, count=2)
        with self._open_recovery(store) as (other, recovery):
            found = _find_records(recovery)
            present = append_lines(other, head, 2)
            before = read_everything(other)
            with pytest.raises(Conflict) as caught:
                recovery.restore_head(found, replace(head, revision=make_revision()))
            assert caught.value.key == KEY
            check_everything(other, before)
            check_head(other, KEY, present)

    def test_restore_head_does_not_bring_back_a_deleted_conversation(self, store: HistoryStore) -> None:
        create_conversation(store, count=2)
        with self._open_recovery(store) as (other, recovery):
            self.damage_head(store, KEY)
            found = _find_records(recovery)
            assert other.delete(KEY) is True, "delete() must return True: the conversation existed"
            with pytest.raises(Conflict):
                recovery.restore_head(found, Head(KEY, 0, 2, make_revision()))
            check_absent(other, KEY)
            check_everything(other, {})

    def test_restore_head_does_not_overwrite_a_new_conversation(self, store: HistoryStore) -> None:
        create_conversation(store, count=2)
        with self._open_recovery(store) as (other, recovery):
            self.damage_head(store, KEY)
            found = _find_records(recovery)
            other.delete(KEY)
            create_conversation(other, count=3)
            before = read_everything(other)
            with pytest.raises(Conflict):
                recovery.restore_head(found, Head(KEY, 0, 2, make_revision()))
            check_everything(other, before)

    def test_a_restored_conversation_can_be_deleted(self, store: HistoryStore) -> None:
        head = create_in_batches(store, KEY, [2, 3])
        with self._open_recovery(store) as (other, recovery):
            self.damage_head(store, KEY)
            new = self._restore_and_check(recovery, head)
            assert other.delete(KEY, version=new.revision.version) is True, (
                "delete() must return True: the conversation existed"
            )
            check_absent(other, KEY)
            assert recovery.find_records(KEY) is None
            check_bodies(other, create_conversation(other, count=1).key, make_lines(1))

    def test_found_records_show_no_message_text(self, store: HistoryStore) -> None:
        store.append(KEY, [MARKER] * 2, after=None, revision=make_revision(payload=MARKER))
        with self._open_recovery(store) as (_, recovery):
            self.damage_head(store, KEY)
            found = _find_records(recovery)
            records = recovery.read_found(found, start=found.start, stop=found.end)
            assert [record.body for record in records] == [MARKER] * 2
            assert MARKER not in f"{found!r} {records!r}"
