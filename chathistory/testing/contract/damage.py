"""Guarantee 12, damage stays in place: a damaged record or head affects nothing else.

The hooks `damage_record` and `damage_head` do the damage. Then the suite reads through a second instance if there can
be one, since the first may still have the record in memory.
"""

from __future__ import annotations

import random
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise

import pytest

from chathistory.errors import Conflict, CorruptRecord, UnsupportedRecord
from chathistory.storage.store import HistoryStore
from chathistory.storage.values import Damaged, Head, Key
from chathistory.testing.contract.base_test_class import ContractTest
from chathistory.testing.contract.checked_reads import (
    check_absent,
    check_bodies,
    check_head,
    check_heads,
    list_heads,
    read_pages,
    read_records,
)
from chathistory.testing.contract.every_method import check_no_message_text
from chathistory.testing.contract.samples import (
    KEY,
    MARKER,
    append_lines,
    create_conversation,
    make_lines,
    make_revision,
)

__all__ = ["DamagedHeads", "DamagedRecords", "check_readable_except", "create_in_batches"]

_SHAPES = {"ones": (1, 12), "pairs": (2, 12), "threes": (3, 600), "three hundreds": (300, 900)}
"""Size of the batches, and number of records. A repair reads some hundred records at a time."""

_SEEDS = range(4)


def create_in_batches(store: HistoryStore, key: Key, sizes: list[int]) -> Head:
    """Create a conversation by appends of these sizes; return its head."""
    head = create_conversation(store, key, sizes[0])
    for size in sizes[1:]:
        head = append_lines(store, head, size)
    return head


def check_readable_except(store: HistoryStore, head: Head, damaged: set[int]) -> None:
    """Check that all other positions are readable, and that a read of a damaged one names it."""
    key = head.key
    edges = [head.start - 1, *sorted(damaged), head.end]
    for before, after in pairwise(edges):
        _check_sound(store, key, before + 1, after)
        check_head(store, key, head)
    for position in damaged:
        for stop in (position + 1, head.end, None):
            _check_damage_named(store, key, position, stop)
    for start in {head.start, *(max(head.start, position - 2) for position in damaged)}:
        _check_walk(store, head, start, damaged)


def _check_sound(store: HistoryStore, key: Key, start: int, stop: int) -> None:
    """Check that a range without a damaged record is readable, completely and at both ends."""
    for low, high in {(start, stop), (start, min(start + 1, stop)), (max(start, stop - 1), stop)}:
        try:
            records = read_records(store, key, start=low, stop=high)
        except CorruptRecord as error:
            raise AssertionError(
                f"read() of [{low}, {high}) raised CorruptRecord, but no record of it is damaged: {error.reason}"
            ) from error
        seen = [record.body for record in records]
        assert seen == make_lines(high - low, first=low), f"read() changed or left out records of [{low}, {high})"


def _check_damage_named(store: HistoryStore, key: Key, position: int, stop: int | None) -> None:
    with pytest.raises(CorruptRecord) as caught:
        store.read(key, start=position, stop=stop)
    assert caught.value.position == position, (
        f"record {position} is damaged; the CorruptRecord of a range that begins with it names {caught.value.position}"
    )
    assert caught.value.key == key


def _check_walk(store: HistoryStore, head: Head, start: int, damaged: set[int]) -> None:
    """Read from `start` until the first damaged record is named."""
    first = min((position for position in damaged if position >= start), default=head.end)
    at: int | None = start
    while at is not None and at < head.end:
        at = _read_next(store, head.key, at, first)


def _read_next(store: HistoryStore, key: Key, at: int, first: int) -> int | None:
    """Return where the next read begins, or None if the read named `first` as damaged."""
    try:
        run = store.read(key, start=at)
    except CorruptRecord as error:
        reported = error.position
    else:
        assert run is not None
        assert run.records, f"read(start={at}) returned no records"
        seen = [(record.position, record.body) for record in run.records]
        expected = list(enumerate(make_lines(len(seen), first=at), at))
        assert seen == expected, f"read(start={at}) changed or left out records"
        assert at + len(seen) <= first, f"read() returned record {first}, which is damaged"
        return at + len(seen)
    assert reported == first, f"read(start={at}) names record {reported} as damaged; the first damaged one is {first}"
    return None


class DamagedRecords(ContractTest, guarantee=12):
    """A range without a damaged record is readable, whatever is damaged elsewhere in the conversation."""

    @pytest.mark.parametrize(("batch", "count"), _SHAPES.values(), ids=_SHAPES)
    def test_a_range_without_a_damaged_record_is_readable(self, store: HistoryStore, batch: int, count: int) -> None:
        places = sorted({0, 1, batch - 1, batch, count // 2, count - batch, count - 1})
        heads = {}
        for place in places:
            heads[place] = create_in_batches(store, Key(KEY.scope, f"damaged at {place}"), [batch] * (count // batch))
            self.damage_record(store, heads[place].key, place)
        with self._second_instance(store) as other:
            for place, head in heads.items():
                check_readable_except(other, head, {place})

    @pytest.mark.parametrize("seed", _SEEDS)
    def test_ranges_between_several_damaged_records_are_readable(self, store: HistoryStore, seed: int) -> None:
        chance = random.Random(seed)  # noqa: S311  # the same batches in every run
        head = create_in_batches(store, KEY, [chance.choice((1, 2, 3, 5, 17)) for _ in range(chance.randint(1, 9))])
        damaged = set(chance.sample(range(head.end), min(chance.randint(2, 5), head.end)))
        for position in damaged:
            self.damage_record(store, KEY, position)
        with self._second_instance(store) as other:
            check_readable_except(other, head, damaged)

    def test_a_damaged_record_is_named_after_a_forget_and_a_higher_first(self, store: HistoryStore) -> None:
        head = append_lines(store, create_conversation(store, count=6, first=10), 6)
        store.forget(KEY, before=12)
        self.damage_record(store, KEY, 14)
        with self._second_instance(store) as other:
            check_readable_except(other, replace(head, start=12), {14})

    @pytest.mark.parametrize("place", [0, 3, 5])
    def test_append_continues_after_a_damaged_record(self, store: HistoryStore, place: int) -> None:
        head = append_lines(store, create_conversation(store, count=3), 3)
        self.damage_record(store, KEY, place)
        with self._second_instance(store) as other:
            head = append_lines(other, append_lines(other, head, 2))
        with self._second_instance(store) as other:
            check_readable_except(other, head, {place})

    @pytest.mark.parametrize("place", [0, 3, 5])
    def test_forget_removes_a_damaged_record_and_keeps_the_others(self, store: HistoryStore, place: int) -> None:
        head = append_lines(store, create_conversation(store, count=3), 3)
        self.damage_record(store, KEY, place)
        with self._second_instance(store) as other:
            assert other.forget(KEY, before=place) == replace(head, start=place)
            check_readable_except(other, replace(head, start=place), {place})
            assert other.forget(KEY, before=place + 1) == replace(head, start=place + 1)
            check_bodies(other, KEY, make_lines(5 - place, first=place + 1))

    @pytest.mark.parametrize("place", [0, 5])
    def test_a_conversation_with_a_damaged_record_is_listed_and_can_be_deleted(
        self, store: HistoryStore, place: int
    ) -> None:
        head = append_lines(store, create_conversation(store, count=3), 3)
        self.damage_record(store, KEY, place)
        with self._second_instance(store) as other:
            check_heads(other, list_heads(other, KEY.scope), [head])
            assert list(other.heads(KEY.scope).damaged) == [], (
                "heads() reports a conversation as damaged, but its head is readable"
            )
            assert list(other.keys()) == list(other.scan_keys()) == [KEY]
            assert other.delete(KEY, version=head.revision.version) is True, (
                "delete() must return True: the conversation existed"
            )
            check_absent(other, KEY)
            check_bodies(other, create_conversation(other, count=2).key, make_lines(2))

    def test_a_damaged_record_does_not_affect_other_conversations(self, store: HistoryStore) -> None:
        key = replace(KEY, id="other")
        create_conversation(store, count=3)
        head = create_conversation(store, key, 3)
        self.damage_record(store, KEY, 1)
        with self._second_instance(store) as other:
            check_bodies(other, key, make_lines(3))
            assert append_lines(other, head).end == 4  # noqa: PLR2004

    def test_the_error_of_a_damaged_record_shows_no_message_text(self, store: HistoryStore) -> None:
        store.append(KEY, [MARKER], after=None, revision=make_revision(payload=MARKER))
        self.damage_record(store, KEY, 0)
        with self._second_instance(store) as other, pytest.raises(CorruptRecord) as caught:
            other.read(KEY)
        check_no_message_text(caught.value)


class DamagedHeads(ContractTest, guarantee=12):
    """A walk over many conversations reports those with unreadable heads, and continues."""

    def _create_and_damage(self, store: HistoryStore, damaged: set[int]) -> tuple[list[Head], set[Key]]:
        """Create twelve conversations, damage some heads; return the sound heads, newest first, and damaged keys."""
        heads = [create_conversation(store, Key(KEY.scope, f"c{at:02d}"), 2) for at in range(12)][::-1]
        for at in damaged:
            self.damage_head(store, heads[at].key)
        return [head for at, head in enumerate(heads) if at not in damaged], {heads[at].key for at in damaged}

    @pytest.mark.parametrize("limit", [1, 3, 100])
    @pytest.mark.parametrize("damaged", [{0}, {5}, {11}, {0, 1, 2, 3}, {2, 7, 11}, set(range(12))], ids=str)
    def test_heads_lists_the_conversations_after_damaged_heads(
        self, store: HistoryStore, damaged: set[int], limit: int
    ) -> None:
        heads, keys = self._create_and_damage(store, damaged)
        with self._second_instance(store) as other:
            walked = list(read_pages(other, KEY.scope, limit))
        rows = [head for page in walked for head in page.items]
        if store.traits.recency == "exact":
            assert rows == heads
            assert all(len(page.items) == limit for page in walked[:-1]), (
                "a page before the last one is not full: damaged heads must not count towards the limit"
            )
        assert Counter(rows) == Counter(heads), "heads() leaves out a readable head, or lists it twice"
        self._check_reported([each for page in walked for each in page.damaged], keys)

    def _check_reported(self, seen: list[Damaged], keys: set[Key]) -> None:
        """Check that exactly these keys are reported as damaged."""
        for each in seen:
            assert isinstance(each, Damaged)
            assert each.where, "Damaged.where is empty; it must name a place in the storage"
            assert isinstance(each.error, CorruptRecord | UnsupportedRecord)
            assert each.key in {*keys, None}, f"heads() reports {each.key} as damaged, but it is not"
        nameless = {each.where for each in seen if each.key is None}
        named = {each.key for each in seen} - {None}
        assert len(named) + len(nameless) == len(keys), (
            f"{len(keys)} heads are damaged; reported were {named}, and without a key {nameless}"
        )

    @pytest.mark.parametrize("damaged", [{0}, {5, 6}, set(range(12))], ids=str)
    def test_keys_and_scan_keys_are_complete_despite_damaged_heads(
        self, store: HistoryStore, damaged: set[int]
    ) -> None:
        heads, keys = self._create_and_damage(store, damaged)
        bystander = create_conversation(store, Key("bystander", "c"))
        with self._second_instance(store) as other:
            for walk in (other.keys, other.scan_keys):
                for scope in (KEY.scope, None):
                    reported = list(walk(scope))
                    nameless = list(other.damaged_keys(scope))
                    assert max(Counter(reported).values(), default=1) == 1, "a key was yielded twice"
                    sound = {head.key for head in heads} | ({bystander.key} if scope is None else set())
                    assert set(reported) >= sound, "a readable conversation is missing"
                    assert set(reported) <= sound | keys
                    assert len(reported) + len(nameless) == len(sound) + len(keys), (
                        "a damaged conversation is neither yielded as a key nor reported by damaged_keys()"
                    )
                    assert all(each.key is None and each.where for each in nameless)
            assert list(other.keys("bystander")) == [bystander.key]

    def test_a_call_on_a_damaged_head_raises_corrupt_record(self, store: HistoryStore) -> None:
        head = append_lines(store, create_conversation(store, count=2))
        self.damage_head(store, KEY)
        with self._second_instance(store) as other:
            for call in (
                lambda: other.read(KEY),
                lambda: other.read(KEY, start=-1),
                lambda: other.read(KEY, stop=0),
                lambda: other.append(KEY, ["late"], after=head, revision=make_revision()),
                lambda: other.forget(KEY, before=1),
            ):
                with pytest.raises((CorruptRecord, UnsupportedRecord)) as caught:
                    call()
                assert getattr(caught.value, "key", None) == KEY

    def test_a_damaged_head_is_not_overwritten(self, store: HistoryStore) -> None:
        head = create_conversation(store, count=2)
        self.damage_head(store, KEY)
        with self._second_instance(store) as other:
            for refused in (None, head, replace(head, revision=make_revision())):
                with pytest.raises((CorruptRecord, UnsupportedRecord, Conflict)):
                    other.append(KEY, ["late"], after=refused, revision=make_revision())
            with pytest.raises((CorruptRecord, UnsupportedRecord, Conflict)):
                other.delete(KEY, version="x")
            with pytest.raises((CorruptRecord, UnsupportedRecord)):
                other.read(KEY)

    def test_a_conversation_with_a_damaged_head_can_be_deleted_and_created_again(self, store: HistoryStore) -> None:
        heads, keys = self._create_and_damage(store, {3})
        [key] = keys
        with self._second_instance(store) as other:
            assert other.delete(key) is True, "delete() must return True: the conversation existed"
            check_absent(other, key)
            assert other.delete(key) is False, "delete() must return False: there is no such conversation"
            assert Counter(list_heads(other, KEY.scope)) == Counter(heads)
            assert list(other.heads(KEY.scope, limit=100).damaged) == []
            assert sorted(other.scan_keys(KEY.scope)) == sorted(head.key for head in heads)
            head = create_conversation(other, key, 4)
            check_head(other, key, head)
            check_bodies(other, key, make_lines(4))

    def test_a_damaged_head_does_not_affect_other_conversations(self, store: HistoryStore) -> None:
        heads, _ = self._create_and_damage(store, {0, 4})
        with self._second_instance(store) as other:
            for head in heads:
                check_bodies(other, head.key, make_lines(2))
                assert append_lines(other, head).end == 3  # noqa: PLR2004
                other.forget(head.key, before=1)
            assert len(list_heads(other, KEY.scope)) == len(heads)
            for head in heads:
                assert other.delete(head.key) is True, "delete() must return True: the conversation existed"
            check_heads(other, list_heads(other, KEY.scope), [])

    def test_a_damaged_head_does_not_affect_another_scope(self, store: HistoryStore) -> None:
        self._create_and_damage(store, {0})
        head = create_conversation(store, Key("bystander", "c"))
        with self._second_instance(store) as other:
            page = other.heads("bystander")
            assert list(page.items) == [head]
            assert all(each.key is None for each in page.damaged), "heads() reports a damaged head of another scope"

    def test_reports_of_a_damaged_head_show_no_message_text(self, store: HistoryStore) -> None:
        store.append(KEY, [MARKER], after=None, revision=make_revision(payload=MARKER))
        self.damage_head(store, KEY)
        with self._second_instance(store) as other:
            with pytest.raises((CorruptRecord, UnsupportedRecord)) as caught:
                other.read(KEY)
            check_no_message_text(caught.value)
            reported = [*other.heads(KEY.scope).damaged, *other.damaged_keys(KEY.scope)]
            assert reported
            for each in reported:
                check_no_message_text(each.error)
                assert MARKER not in f"{each.where} {each!r}"

    def test_a_sound_store_reports_no_damage(self, store: HistoryStore) -> None:
        create_conversation(store, count=3)
        store.forget(KEY, before=3)
        assert list(store.heads(KEY.scope).damaged) == []
        for scope in (KEY.scope, "unknown", None):
            assert list(store.damaged_keys(scope)) == []

    def test_reading_a_damaged_head_changes_nothing(self, store: HistoryStore) -> None:
        self._create_and_damage(store, {2})
        with self._second_instance(store) as other:
            once = [*list_heads(other, KEY.scope)], sorted(other.keys()), len(list(other.damaged_keys()))
            with suppress(CorruptRecord, UnsupportedRecord):
                other.read(Key(KEY.scope, "c09"))
            assert ([*list_heads(other, KEY.scope)], sorted(other.keys()), len(list(other.damaged_keys()))) == once
