"""Guarantee 9: forget and delete are complete, return what they did, and nothing comes back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from chathistory.errors import Conflict, InvalidInput
from chathistory.storage.store import HistoryStore
from chathistory.storage.values import Key
from chathistory.testing.contract.base_test_class import ContractTest
from chathistory.testing.contract.checked_reads import (
    check_absent,
    check_bodies,
    check_everything,
    check_head,
    check_heads,
    list_heads,
    read_bodies,
    read_everything,
    read_records,
)
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
    """forget removes the records below a position permanently; the end and the revision stay."""

    @pytest.mark.parametrize("before", [1, 2, 3, 4, 5, 6])
    def test_forget_removes_the_records_below_and_keeps_the_others(self, store: HistoryStore, before: int) -> None:
        head = append_lines(store, create_conversation(store, count=2), 4)
        after = store.forget(KEY, before=before)
        assert after == replace(head, start=before)
        check_head(store, KEY, after)
        for start in (0, before - 1, -100):
            records = read_records(store, KEY, start=start)
            assert [(record.position, record.body) for record in records] == [
                (at, make_line(at)) for at in range(before, 6)
            ]

    def test_forget_keeps_the_revision(self, store: HistoryStore) -> None:
        given = make_revision(payload="info")
        store.append(KEY, make_lines(3), after=None, revision=given)
        after = store.forget(KEY, before=2)
        assert after is not None
        assert after.revision == given
        check_heads(store, list_heads(store, KEY.scope), [after])

    def test_append_continues_after_a_forget(self, store: HistoryStore) -> None:
        create_conversation(store, count=3)
        after = store.forget(KEY, before=2)
        assert after is not None
        assert append_lines(store, after).end == 4  # noqa: PLR2004
        check_bodies(store, KEY, make_lines(2, first=2))

    @pytest.mark.parametrize("before", [-5, 0, 1, 2])
    def test_forget_without_records_below_changes_nothing(self, store: HistoryStore, before: int) -> None:
        create_conversation(store, count=4)
        head = store.forget(KEY, before=2)
        kept = read_everything(store)
        assert store.forget(KEY, before=before) == head
        check_everything(store, kept)

    @pytest.mark.parametrize("before", [3, 4, _BEYOND])
    def test_forget_from_the_end_on_removes_all_records(self, store: HistoryStore, before: int) -> None:
        head = create_conversation(store, count=3)
        assert store.forget(KEY, before=before) == replace(head, start=3)
        check_bodies(store, KEY, [])
        assert store.forget(KEY, before=before) == replace(head, start=3), "a second forget must return the same head"
        assert [head.key for head in list_heads(store, KEY.scope)] == [KEY]

    def test_forget_of_an_unknown_conversation_returns_none(self, store: HistoryStore) -> None:
        create_conversation(store, Key(KEY.scope, "other"))
        before = read_everything(store)
        assert store.forget(KEY, before=5) is None, "forget() must return None: there is no such conversation"
        assert read_everything(store) == before, "forget() of an unknown conversation created one"

    @pytest.mark.parametrize("wrong", [True, 1.0, 1.5, "1", b"1", [1], None], ids=repr)
    def test_forget_refuses_a_position_that_is_not_an_int(self, store: HistoryStore, wrong: Any) -> None:
        create_conversation(store, count=3)
        before = read_everything(store)
        with pytest.raises(InvalidInput):
            store.forget(KEY, before=wrong)
        check_everything(store, before)

    def test_appends_after_a_forget_bring_no_record_back(self, store: HistoryStore) -> None:
        head = create_conversation(store, count=30)
        for before in (7, 20, 31, 40):
            store.forget(KEY, before=before)
            head = append_lines(store, head, 5)
            assert read_bodies(store, KEY) == make_lines(
                head.end - min(before, head.end - 5), first=min(before, head.end - 5)
            )

    def test_forget_works_after_many_appends(self, store: HistoryStore) -> None:
        head = create_conversation(store)
        for _ in range(60):
            head = append_lines(store, head)
        store.forget(KEY, before=45)
        check_bodies(store, KEY, make_lines(16, first=45))


class Deleting(ContractTest, guarantee=9):
    """delete removes a conversation permanently; the next one of the same name is new."""

    def test_every_method_finds_a_deleted_conversation_absent(self, store: HistoryStore) -> None:
        head = append_lines(store, create_conversation(store, count=3))
        assert store.delete(KEY) is True, "delete() must return True: the conversation existed"
        check_absent(store, KEY)
        check_heads(store, list_heads(store, KEY.scope), [])
        assert list(store.keys()) == []
        assert store.forget(KEY, before=head.end) is None, "forget() must return None: there is no such conversation"
        assert store.delete(KEY) is False, "delete() must return False: there is no such conversation"

    def test_delete_of_an_unknown_conversation_returns_false(self, store: HistoryStore) -> None:
        create_conversation(store, Key(KEY.scope, "other"))
        assert store.delete(KEY) is False, "delete() must return False: there is no such conversation"
        assert store.delete(KEY, version="any") is False, "delete() must return False: there is no such conversation"
        assert store.delete(Key("other", "other")) is False, "delete() must return False: there is no such conversation"
        assert len(read_everything(store)) == 1

    def test_delete_with_the_current_version_removes_the_conversation(self, store: HistoryStore) -> None:
        head = append_lines(store, create_conversation(store))
        assert store.delete(KEY, version=head.revision.version) is True, (
            "delete() must return True: the conversation existed"
        )
        check_absent(store, KEY)
        assert store.delete(KEY, version=head.revision.version) is False, (
            "delete() must return False: there is no such conversation"
        )

    def test_delete_with_another_version_is_a_conflict(self, store: HistoryStore) -> None:
        old = create_conversation(store)
        head = append_lines(store, old)
        before = read_everything(store)
        for version in (old.revision.version, "other", ""):
            with pytest.raises(Conflict) as caught:
                store.delete(KEY, version=version)
            assert caught.value.key == KEY
            assert caught.value.head == head, "the Conflict must carry the current head"
            check_everything(store, before)

    def test_delete_with_the_version_of_an_earlier_conversation_is_a_conflict(self, store: HistoryStore) -> None:
        old = create_conversation(store)
        store.delete(KEY)
        create_conversation(store)
        before = read_everything(store)
        with pytest.raises(Conflict):
            store.delete(KEY, version=old.revision.version)
        check_everything(store, before)

    def test_delete_removes_a_conversation_without_records(self, store: HistoryStore) -> None:
        head = create_conversation(store, count=2)
        store.forget(KEY, before=2)
        assert store.delete(KEY, version=head.revision.version) is True, (
            "delete() must return True: the conversation existed"
        )
        check_absent(store, KEY)

    @pytest.mark.parametrize("first", [0, 2, 5, 9])
    def test_a_new_conversation_holds_nothing_of_a_deleted_one(self, store: HistoryStore, first: int) -> None:
        old = store.append(KEY, ["old"] * 5, after=None, revision=make_revision(payload="old"))
        store.forget(KEY, before=1)
        store.delete(KEY, version=old.revision.version)
        head = create_conversation(store, count=2, first=first)
        assert (head.start, head.end) == (first, first + 2)
        check_head(store, KEY, head)
        head = append_lines(store, head, 4)
        records = read_records(store, KEY)
        expected = [(at, make_line(at)) for at in range(first, first + 6)]
        assert [(record.position, record.body) for record in records] == expected

    def test_a_conversation_can_be_created_and_deleted_repeatedly(self, store: HistoryStore) -> None:
        for count in (3, 1, 4):
            head = create_conversation(store, count=count)
            check_bodies(store, KEY, make_lines(count))
            check_heads(store, list_heads(store, KEY.scope), [head])
            assert store.delete(KEY) is True, "delete() must return True: the conversation existed"
        check_everything(store, {})
