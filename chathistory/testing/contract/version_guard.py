"""Guarantees 2 and 3: an append after an outdated head is refused, and a repeated append is stored once."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import pytest

from chathistory.errors import Conflict, InvalidInput
from chathistory.storage.store import HistoryStore
from chathistory.storage.values import Head, Key, Revision
from chathistory.testing.contract.base_test_class import ContractTest
from chathistory.testing.contract.checked_reads import (
    check_bodies,
    check_head,
    read_bodies,
    read_everything,
    read_head,
    read_records,
)
from chathistory.testing.contract.samples import (
    EPOCH,
    KEY,
    append_lines,
    create_conversation,
    make_line,
    make_lines,
    make_revision,
)

__all__ = ["VersionGuard"]


def _check_refused(store: HistoryStore, after: Head | None, *, given: Revision | None = None) -> None:
    """Append after an outdated head; check the Conflict, and that nothing changed."""
    before = read_everything(store)
    present = read_head(store, KEY)
    with pytest.raises(Conflict) as caught:
        store.append(KEY, ["late"], after=after, revision=given or make_revision())
    assert caught.value.key == KEY
    assert caught.value.head == present, "the Conflict must carry the current head"
    assert read_everything(store) == before, "a refused append changed the store"


class VersionGuard(ContractTest, guarantee=2):
    """An append after a head that is not the current one is a Conflict, and nothing changes."""

    def test_creating_an_existing_conversation_is_a_conflict(self, store: HistoryStore) -> None:
        create_conversation(store)
        _check_refused(store, None)

    def test_creating_a_conversation_without_records_again_is_a_conflict(self, store: HistoryStore) -> None:
        store.forget(KEY, before=create_conversation(store, count=3).end)
        _check_refused(store, None)

    def test_append_to_an_unknown_conversation_is_a_conflict(self, store: HistoryStore) -> None:
        _check_refused(store, Head(KEY, 0, 0, make_revision()))
        _check_refused(store, Head(KEY, 0, 3, make_revision()))

    def test_an_old_head_is_a_conflict_after_an_append(self, store: HistoryStore) -> None:
        head = create_conversation(store)
        second = append_lines(store, head)
        third = append_lines(store, second)
        _check_refused(store, head)
        _check_refused(store, second)
        assert append_lines(store, third).end == third.end + 1

    def test_an_old_head_is_a_conflict_after_an_append_and_a_forget(self, store: HistoryStore) -> None:
        head = create_conversation(store, count=2)
        store.forget(KEY, before=append_lines(store, head, 2).end)
        _check_refused(store, head)

    def test_an_old_head_is_a_conflict_although_the_count_is_the_same(self, store: HistoryStore) -> None:
        head = create_conversation(store, count=2)
        append_lines(store, head, 2)
        store.forget(KEY, before=2)
        _check_refused(store, head)

    def test_an_old_head_is_a_conflict_after_a_delete(self, store: HistoryStore) -> None:
        head = create_conversation(store)
        store.delete(KEY)
        _check_refused(store, head)
        assert store.read(KEY) is None, "an append after the head of a deleted conversation created it again"

    def test_an_old_head_is_a_conflict_after_a_delete_and_a_new_conversation(self, store: HistoryStore) -> None:
        head = create_conversation(store, count=2)
        store.delete(KEY)
        again = create_conversation(store, count=2)
        assert (again.start, again.end) == (head.start, head.end)
        _check_refused(store, head)

    def test_an_old_head_is_a_conflict_after_a_delete_and_the_same_append(self, store: HistoryStore) -> None:
        heads = []
        for _ in range(2):
            store.delete(KEY)
            heads.append(store.append(KEY, make_lines(2), after=None, revision=make_revision(updated=EPOCH)))
        _check_refused(store, heads[0])

    def test_the_version_decides_not_the_positions(self, store: HistoryStore) -> None:
        old = create_conversation(store)
        present = append_lines(store, old)
        _check_refused(store, replace(present, revision=old.revision))
        _check_refused(store, replace(present, revision=replace(present.revision, version="other")))

    def test_the_head_of_another_conversation_is_a_conflict(self, store: HistoryStore) -> None:
        other = create_conversation(store, Key(KEY.scope, "other"))
        _check_refused(store, other)
        create_conversation(store)
        _check_refused(store, other)

    def test_append_succeeds_after_a_forget_by_another(self, store: HistoryStore) -> None:
        head = create_conversation(store, count=4)
        store.forget(KEY, before=3)
        new = append_lines(store, head)
        assert (new.start, new.end) == (3, 5), "the start must stay where the forget moved it"
        check_head(store, KEY, new)
        check_bodies(store, KEY, make_lines(2, first=3))

    @pytest.mark.parametrize("end", [0, 2, 9])
    def test_a_head_with_a_wrong_end_makes_no_gap(self, store: HistoryStore, end: int) -> None:
        head = create_conversation(store, count=4)
        with suppress(Conflict, InvalidInput):  # both are safe: refusing, and using the stored end
            store.append(KEY, [make_line(4)], after=replace(head, end=end), revision=make_revision())
        bodies = read_bodies(store, KEY)
        assert bodies == make_lines(len(bodies)), (
            "append() used the positions of the caller's head; it must use the stored ones"
        )
        assert bodies[:4] == make_lines(4)

    @pytest.mark.parametrize("versions", [("1", "01"), ("1", "1.0"), ("a", "A"), ("x", "x "), ("a", "ab")])
    def test_versions_are_compared_character_by_character(self, store: HistoryStore, versions: tuple[str, str]) -> None:
        head = store.append(KEY, make_lines(1), after=None, revision=Revision(versions[0], EPOCH))
        _check_refused(store, replace(head, revision=replace(head.revision, version=versions[1])))
        check_head(store, KEY, head)

    @pytest.mark.parametrize("version", ["!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}", "~", " ", "0", "null", "*", "x" * 32])
    def test_a_version_may_be_any_printable_text(self, store: HistoryStore, version: str) -> None:
        head = store.append(KEY, make_lines(1), after=None, revision=Revision(version, EPOCH))
        assert head.revision.version == version
        read = read_head(store, KEY)
        assert read is not None
        assert read.revision.version == version
        assert append_lines(store, read).end == read.end + 1


class PositionNumbers(ContractTest, guarantee=2):
    """Positions have no gaps and only increase."""

    @pytest.mark.parametrize("first", [0, 1, 7, 2**40])
    def test_a_new_conversation_starts_at_first(self, store: HistoryStore, first: int) -> None:
        head = create_conversation(store, count=3, first=first)
        assert (head.start, head.end) == (first, first + 3)
        check_head(store, KEY, head)
        head = append_lines(store, head, 2)
        assert [record.position for record in read_records(store, KEY)] == list(range(first, first + 5))
        assert [record.position for record in read_records(store, KEY, start=-1)] == [first + 4]
        assert store.forget(KEY, before=first + 1) == replace(head, start=first + 1)

    def test_first_is_ignored_for_an_existing_conversation(self, store: HistoryStore) -> None:
        head = create_conversation(store, count=2)
        new = store.append(KEY, [make_line(2)], after=head, revision=make_revision(), first=50)
        assert (new.start, new.end) == (0, 3)
        check_bodies(store, KEY, make_lines(3))

    def test_the_end_never_decreases(self, store: HistoryStore) -> None:
        head = create_conversation(store, count=3)
        for end in (3, 4, 5):
            emptied = store.forget(KEY, before=head.end)
            assert emptied is not None
            assert emptied == replace(head, start=end, end=end)
            assert read_head(store, KEY) == emptied, "the end changed when all records were forgotten"
            head = append_lines(store, emptied)
            assert (head.start, head.end) == (end, end + 1)
            assert [record.position for record in read_records(store, KEY)] == [end]


class RetrySafe(ContractTest, guarantee=3):
    """After a lost acknowledgement, a repeated append is not stored twice."""

    @pytest.mark.parametrize(
        "begin", [lambda _: None, create_conversation, lambda store: append_lines(store, create_conversation(store))]
    )
    def test_a_repeated_append_is_a_conflict_with_its_version(
        self, store: HistoryStore, begin: Callable[[HistoryStore], Head | None]
    ) -> None:
        head = begin(store)
        given = make_revision(payload="once")
        store.append(KEY, ["a", "b"], after=head, revision=given)
        for _ in range(2):
            _check_refused(store, head, given=given)
        with pytest.raises(Conflict) as caught:
            store.append(KEY, ["a", "b"], after=head, revision=given)
        assert caught.value.head is not None
        assert caught.value.head.revision == given, (
            "the head of the Conflict must have the version of the repeated append"
        )
        assert read_bodies(store, KEY)[-3:].count("a") == 1, "a repeated append was stored twice"

    def test_equal_bodies_are_stored_as_separate_records(self, store: HistoryStore) -> None:
        head = store.append(KEY, ["yes", "yes"], after=None, revision=make_revision())
        head = store.append(KEY, ["yes"], after=head, revision=make_revision())
        store.append(KEY, ["yes"], after=head, revision=make_revision())
        check_bodies(store, KEY, ["yes"] * 4)
