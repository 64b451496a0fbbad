"""Guarantees 2 and 3: who has not seen the present version is refused, and a repeated append never doubles."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import pytest

from chathistory.errors import Conflict, InvalidInput
from chathistory.storage.store import HistoryStore
from chathistory.storage.values import Head, Key, Revision
from chathistory.testing.contract.base import Contract
from chathistory.testing.contract.queries import bodies_of, contents, head_of, records_of
from chathistory.testing.contract.samples import EPOCH, KEY, created, grown, line, lines, revision

__all__ = ["Guarded"]


def _refused(store: HistoryStore, after: Head | None, *, given: Revision | None = None) -> None:
    """Append after a head that is not the present one; check the Conflict, and that nothing changed."""
    before = contents(store)
    present = head_of(store, KEY)
    with pytest.raises(Conflict) as caught:
        store.append(KEY, ["late"], after=after, revision=given or revision())
    assert caught.value.key == KEY
    assert caught.value.head == present, "a Conflict carries the present head"
    assert contents(store) == before, "a refused append changed something"


class Guarded(Contract, guarantee=2):
    """An append by anyone who has not seen the present version is a Conflict, and nothing changes."""

    def test_making_a_conversation_twice(self, store: HistoryStore) -> None:
        created(store)
        _refused(store, None)

    def test_making_a_conversation_whose_records_are_all_forgotten(self, store: HistoryStore) -> None:
        store.forget(KEY, before=created(store, count=3).end)
        _refused(store, None)

    def test_appending_to_what_never_was(self, store: HistoryStore) -> None:
        _refused(store, Head(KEY, 0, 0, revision()))
        _refused(store, Head(KEY, 0, 3, revision()))

    def test_stale_after_an_append(self, store: HistoryStore) -> None:
        head = created(store)
        second = grown(store, head)
        third = grown(store, second)
        _refused(store, head)
        _refused(store, second)
        assert grown(store, third).end == third.end + 1

    def test_stale_after_an_append_and_a_forget(self, store: HistoryStore) -> None:
        head = created(store, count=2)
        store.forget(KEY, before=grown(store, head, 2).end)
        _refused(store, head)

    def test_stale_after_a_forget_back_to_the_same_count(self, store: HistoryStore) -> None:
        head = created(store, count=2)
        grown(store, head, 2)
        store.forget(KEY, before=2)
        _refused(store, head)

    def test_stale_after_a_delete(self, store: HistoryStore) -> None:
        head = created(store)
        store.delete(KEY)
        _refused(store, head)
        assert store.read(KEY) is None, "a late append brought a deleted conversation back"

    def test_stale_after_a_delete_and_a_new_conversation(self, store: HistoryStore) -> None:
        head = created(store, count=2)
        store.delete(KEY)
        again = created(store, count=2)
        assert (again.start, again.end) == (head.start, head.end)
        _refused(store, head)

    def test_stale_after_a_delete_and_the_same_again(self, store: HistoryStore) -> None:
        heads = []
        for _ in range(2):
            store.delete(KEY)
            heads.append(store.append(KEY, lines(2), after=None, revision=revision(updated=EPOCH)))
        _refused(store, heads[0])

    def test_the_version_decides_not_the_numbers(self, store: HistoryStore) -> None:
        old = created(store)
        present = grown(store, old)
        _refused(store, replace(present, revision=old.revision))
        _refused(store, replace(present, revision=replace(present.revision, version="other")))

    def test_the_head_of_another_conversation(self, store: HistoryStore) -> None:
        other = created(store, Key(KEY.scope, "other"))
        _refused(store, other)
        created(store)
        _refused(store, other)

    def test_a_forget_between_disturbs_no_writer(self, store: HistoryStore) -> None:
        head = created(store, count=4)
        store.forget(KEY, before=3)
        new = grown(store, head)
        assert (new.start, new.end) == (3, 5), "what was forgotten meanwhile stays forgotten"
        assert head_of(store, KEY) == new
        assert bodies_of(store, KEY) == lines(2, first=3)

    @pytest.mark.parametrize("end", [0, 2, 9])
    def test_a_head_made_by_hand_makes_no_gap(self, store: HistoryStore, end: int) -> None:
        head = created(store, count=4)
        with suppress(Conflict, InvalidInput):  # both are safe: to refuse, and to go by the end that is stored
            store.append(KEY, [line(4)], after=replace(head, end=end), revision=revision())
        bodies = bodies_of(store, KEY)
        assert bodies == lines(len(bodies)), "the numbers of a head made by hand were believed"
        assert bodies[:4] == lines(4)

    @pytest.mark.parametrize("versions", [("1", "01"), ("1", "1.0"), ("a", "A"), ("x", "x "), ("a", "ab")])
    def test_versions_are_told_apart_to_the_character(self, store: HistoryStore, versions: tuple[str, str]) -> None:
        head = store.append(KEY, lines(1), after=None, revision=Revision(versions[0], EPOCH))
        _refused(store, replace(head, revision=replace(head.revision, version=versions[1])))
        assert head_of(store, KEY) == head

    @pytest.mark.parametrize("version", ["!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}", "~", " ", "0", "null", "*", "x" * 32])
    def test_a_version_is_any_printable_text(self, store: HistoryStore, version: str) -> None:
        head = store.append(KEY, lines(1), after=None, revision=Revision(version, EPOCH))
        assert head.revision.version == version
        read = head_of(store, KEY)
        assert read is not None
        assert read.revision.version == version
        assert grown(store, read).end == read.end + 1


class Numbered(Contract, guarantee=2):
    """No gaps, and positions move only forward."""

    @pytest.mark.parametrize("first", [0, 1, 7, 2**40])
    def test_a_conversation_begins_at_first(self, store: HistoryStore, first: int) -> None:
        head = created(store, count=3, first=first)
        assert (head.start, head.end) == (first, first + 3)
        assert head_of(store, KEY) == head
        head = grown(store, head, 2)
        assert [record.position for record in records_of(store, KEY)] == list(range(first, first + 5))
        assert [record.position for record in records_of(store, KEY, start=-1)] == [first + 4]
        assert store.forget(KEY, before=first + 1) == replace(head, start=first + 1)

    def test_first_counts_only_for_a_new_conversation(self, store: HistoryStore) -> None:
        head = created(store, count=2)
        new = store.append(KEY, [line(2)], after=head, revision=revision(), first=50)
        assert (new.start, new.end) == (0, 3)
        assert bodies_of(store, KEY) == lines(3)

    def test_the_end_never_goes_back(self, store: HistoryStore) -> None:
        head = created(store, count=3)
        for end in (3, 4, 5):
            emptied = store.forget(KEY, before=head.end)
            assert emptied is not None
            assert emptied == replace(head, start=end, end=end)
            assert head_of(store, KEY) == emptied, "the end was lost with the records"
            head = grown(store, emptied)
            assert (head.start, head.end) == (end, end + 1)
            assert [record.position for record in records_of(store, KEY)] == [end]


class RetrySafe(Contract, guarantee=3):
    """After a lost acknowledgement the same append repeated can never double it."""

    @pytest.mark.parametrize("begin", [lambda _: None, created, lambda store: grown(store, created(store))])
    def test_a_repeated_append_is_a_conflict_that_tells(
        self, store: HistoryStore, begin: Callable[[HistoryStore], Head | None]
    ) -> None:
        head = begin(store)
        given = revision(payload="once")
        store.append(KEY, ["a", "b"], after=head, revision=given)
        for _ in range(2):
            _refused(store, head, given=given)
        with pytest.raises(Conflict) as caught:
            store.append(KEY, ["a", "b"], after=head, revision=given)
        assert caught.value.head is not None
        assert caught.value.head.revision == given, "the present version tells the writer that it was stored"
        assert bodies_of(store, KEY)[-3:].count("a") == 1, "a repeated append was stored twice"

    def test_equal_texts_are_two_records(self, store: HistoryStore) -> None:
        head = store.append(KEY, ["yes", "yes"], after=None, revision=revision())
        head = store.append(KEY, ["yes"], after=head, revision=revision())
        store.append(KEY, ["yes"], after=head, revision=revision())
        assert bodies_of(store, KEY) == ["yes"] * 4
