"""Guarantee 9: forget and delete are complete, say what they did, and nothing comes back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from chathistory.errors import Conflict, InvalidInput
from chathistory.storage.store import HistoryStore
from chathistory.storage.values import Key
from chathistory.testing.contract.base_test_class import ContractTest
from chathistory.testing.contract.checked_reads import list_heads, read_bodies, read_everything, read_head, read_records
from chathistory.testing.contract.samples import (
    KEY,
    append_lines,
    create_conversation,
    make_line,
    make_lines,
    make_revision,
)

__all__ = ["Deleting", "Forgetting"]

_BEYOND = 10**12


class Forgetting(ContractTest, guarantee=9):
    """The records below a position go for good; the end and the revision stay."""

    @pytest.mark.parametrize("before", [1, 2, 3, 4, 5, 6])
    def test_the_records_below_go_and_the_others_stay(self, store: HistoryStore, before: int) -> None:
        head = append_lines(store, create_conversation(store, count=2), 4)
        after = store.forget(KEY, before=before)
        assert after == replace(head, start=before)
        assert read_head(store, KEY) == after
        for start in (0, before - 1, -100):
            records = read_records(store, KEY, start=start)
            assert [(record.position, record.body) for record in records] == [
                (at, make_line(at)) for at in range(before, 6)
            ]

    def test_the_revision_stays(self, store: HistoryStore) -> None:
        given = make_revision(payload="info")
        store.append(KEY, make_lines(3), after=None, revision=given)
        after = store.forget(KEY, before=2)
        assert after is not None
        assert after.revision == given
        assert list_heads(store, KEY.scope) == [after]

    def test_the_writer_of_the_present_version_goes_on(self, store: HistoryStore) -> None:
        create_conversation(store, count=3)
        after = store.forget(KEY, before=2)
        assert after is not None
        assert append_lines(store, after).end == 4  # noqa: PLR2004
        assert read_bodies(store, KEY) == make_lines(2, first=2)

    @pytest.mark.parametrize("before", [-5, 0, 1, 2])
    def test_nothing_below_leaves_all_unchanged(self, store: HistoryStore, before: int) -> None:
        create_conversation(store, count=4)
        head = store.forget(KEY, before=2)
        kept = read_everything(store)
        assert store.forget(KEY, before=before) == head
        assert read_everything(store) == kept

    @pytest.mark.parametrize("before", [3, 4, _BEYOND])
    def test_from_the_end_on_all_records_go(self, store: HistoryStore, before: int) -> None:
        head = create_conversation(store, count=3)
        assert store.forget(KEY, before=before) == replace(head, start=3)
        assert read_bodies(store, KEY) == []
        assert store.forget(KEY, before=before) == replace(head, start=3), "a second time there is nothing to do"
        assert [head.key for head in list_heads(store, KEY.scope)] == [KEY]

    def test_forgetting_an_unknown_conversation_is_none(self, store: HistoryStore) -> None:
        create_conversation(store, Key(KEY.scope, "other"))
        before = read_everything(store)
        assert store.forget(KEY, before=5) is None
        assert read_everything(store) == before, "forget made a conversation"

    @pytest.mark.parametrize("wrong", [True, 1.0, 1.5, "1", b"1", [1], None], ids=repr)
    def test_forgetting_before_what_is_no_whole_number_is_refused(self, store: HistoryStore, wrong: Any) -> None:
        create_conversation(store, count=3)
        before = read_everything(store)
        with pytest.raises(InvalidInput):
            store.forget(KEY, before=wrong)
        assert read_everything(store) == before

    def test_what_is_appended_later_brings_nothing_back(self, store: HistoryStore) -> None:
        head = create_conversation(store, count=30)
        for before in (7, 20, 31, 40):
            store.forget(KEY, before=before)
            head = append_lines(store, head, 5)
            assert read_bodies(store, KEY) == make_lines(
                head.end - min(before, head.end - 5), first=min(before, head.end - 5)
            )

    def test_a_forget_after_many_appends(self, store: HistoryStore) -> None:
        head = create_conversation(store)
        for _ in range(60):
            head = append_lines(store, head)
        store.forget(KEY, before=45)
        assert read_bodies(store, KEY) == make_lines(16, first=45)


class Deleting(ContractTest, guarantee=9):
    """The conversation goes for good, and what follows is a new one."""

    def test_it_is_gone_everywhere(self, store: HistoryStore) -> None:
        head = append_lines(store, create_conversation(store, count=3))
        assert store.delete(KEY) is True
        assert store.read(KEY) is None
        assert list_heads(store, KEY.scope) == []
        assert list(store.keys()) == []
        assert store.forget(KEY, before=head.end) is None
        assert store.delete(KEY) is False

    def test_deleting_an_unknown_conversation_is_false(self, store: HistoryStore) -> None:
        create_conversation(store, Key(KEY.scope, "other"))
        assert store.delete(KEY) is False
        assert store.delete(KEY, version="any") is False
        assert store.delete(Key("other", "other")) is False
        assert len(read_everything(store)) == 1

    def test_with_its_version(self, store: HistoryStore) -> None:
        head = append_lines(store, create_conversation(store))
        assert store.delete(KEY, version=head.revision.version) is True
        assert store.read(KEY) is None
        assert store.delete(KEY, version=head.revision.version) is False

    def test_with_another_version_nothing_changes(self, store: HistoryStore) -> None:
        old = create_conversation(store)
        head = append_lines(store, old)
        before = read_everything(store)
        for version in (old.revision.version, "other", ""):
            with pytest.raises(Conflict) as caught:
                store.delete(KEY, version=version)
            assert caught.value.key == KEY
            assert caught.value.head == head, "a Conflict carries the present head"
            assert read_everything(store) == before

    def test_a_version_of_before_a_new_conversation(self, store: HistoryStore) -> None:
        old = create_conversation(store)
        store.delete(KEY)
        create_conversation(store)
        before = read_everything(store)
        with pytest.raises(Conflict):
            store.delete(KEY, version=old.revision.version)
        assert read_everything(store) == before

    def test_without_records_it_can_still_be_deleted(self, store: HistoryStore) -> None:
        head = create_conversation(store, count=2)
        store.forget(KEY, before=2)
        assert store.delete(KEY, version=head.revision.version) is True
        assert store.read(KEY) is None

    @pytest.mark.parametrize("first", [0, 2, 5, 9])
    def test_a_new_conversation_has_nothing_of_the_old(self, store: HistoryStore, first: int) -> None:
        old = store.append(KEY, ["old"] * 5, after=None, revision=make_revision(payload="old"))
        store.forget(KEY, before=1)
        store.delete(KEY, version=old.revision.version)
        head = create_conversation(store, count=2, first=first)
        assert (head.start, head.end) == (first, first + 2)
        assert read_head(store, KEY) == head
        head = append_lines(store, head, 4)
        records = read_records(store, KEY)
        expected = [(at, make_line(at)) for at in range(first, first + 6)]
        assert [(record.position, record.body) for record in records] == expected

    def test_again_and_again(self, store: HistoryStore) -> None:
        for count in (3, 1, 4):
            head = create_conversation(store, count=count)
            assert read_bodies(store, KEY) == make_lines(count)
            assert list_heads(store, KEY.scope) == [head]
            assert store.delete(KEY) is True
        assert read_everything(store) == {}
