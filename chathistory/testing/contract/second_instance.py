"""Guarantees 4 and 10 for a second instance: it sees the same data, at once or after the first one is closed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from chathistory.errors import Conflict
from chathistory.storage.store import HistoryStore
from chathistory.testing.contract.base_test_class import ContractTest, skip_unless
from chathistory.testing.contract.checked_reads import (
    check_absent,
    check_bodies,
    check_everything,
    check_head,
    list_heads,
    read_bodies,
    read_everything,
    read_head,
)
from chathistory.testing.contract.samples import (
    EXACT,
    FAR,
    KEY,
    append_lines,
    create_conversation,
    make_lines,
    make_revision,
)
from chathistory.testing.guarantees import LISTING, belongs_to

__all__ = ["DurableData", "SharedInstances"]


def _write_sample(store: HistoryStore) -> None:
    """Write what a second instance must find: difficult texts, a forgotten start, a full revision."""
    store.append(
        KEY, list(EXACT.values()), after=None, revision=make_revision(expires=FAR, payload=EXACT["emoji"]), first=3
    )
    store.forget(KEY, before=5)
    for name in ("one", "two"):
        append_lines(store, create_conversation(store, replace(KEY, id=name), 2))
    store.delete(replace(KEY, id="two"))


class DurableData(ContractTest, guarantee=4):
    """What was acknowledged is stored after the instance is closed, if `traits.durable`."""

    def test_everything_is_stored_after_close_and_reopen(self, store: HistoryStore) -> None:
        skip_unless(store.traits.durable, "not durable")
        _write_sample(store)
        before, order = read_everything(store), list_heads(store, KEY.scope)
        store.close()
        with self.reopen(store) as other:
            check_everything(other, before)
            assert list_heads(other, KEY.scope) == order

    def test_an_old_head_is_a_conflict_after_reopen(self, store: HistoryStore) -> None:
        skip_unless(store.traits.durable, "not durable")
        old = create_conversation(store)
        head = append_lines(store, old)
        store.close()
        with self.reopen(store) as other:
            with pytest.raises(Conflict) as caught:
                append_lines(other, old)
            assert caught.value.head == head
            assert append_lines(other, head).end == head.end + 1
            check_bodies(other, KEY, make_lines(3))

    def test_what_was_removed_stays_removed_after_reopen(self, store: HistoryStore) -> None:
        skip_unless(store.traits.durable, "not durable")
        create_conversation(store, count=3)
        store.forget(KEY, before=3)
        create_conversation(store, replace(KEY, id="gone"))
        store.delete(replace(KEY, id="gone"))
        store.close()
        with self.reopen(store) as other:
            assert list(other.keys()) == [KEY]
            check_bodies(other, KEY, [])
            head = read_head(other, KEY)
            assert head is not None
            assert (head.start, head.end) == (3, 3)


class SharedInstances(ContractTest, guarantee=10):
    """Two open instances see the same conversations, if `traits.shared`."""

    def test_two_instances_see_each_others_writes_at_once(self, store: HistoryStore) -> None:
        skip_unless(store.traits.shared, "not shared")
        with self.reopen(store) as other:
            _write_sample(store)
            check_everything(other, read_everything(store))
            head = read_head(other, KEY)
            assert head is not None
            head = other.append(KEY, ["of the other"], after=head, revision=make_revision())
            check_head(store, KEY, head)
            assert read_bodies(store, KEY)[-1] == "of the other"
            other.forget(KEY, before=head.end)
            check_bodies(store, KEY, [])
            other.delete(KEY)
            check_absent(store, KEY)
            check_everything(store, read_everything(other))

    @belongs_to(2)
    def test_two_instances_guard_against_each_other(self, store: HistoryStore) -> None:
        skip_unless(store.traits.shared, "not shared")
        with self.reopen(store) as other:
            head = create_conversation(store)
            present = append_lines(other, head)
            with pytest.raises(Conflict) as caught:
                append_lines(store, head)
            assert caught.value.head == present
            with pytest.raises(Conflict):
                store.delete(KEY, version=head.revision.version)
            assert read_head(store, KEY) == read_head(other, KEY) == present

    @belongs_to(LISTING)
    def test_a_cursor_works_in_another_instance(self, store: HistoryStore) -> None:
        skip_unless(store.traits.shared, "not shared")
        heads = [create_conversation(store, replace(KEY, id=f"c{at}")) for at in range(6)]
        with self.reopen(store) as other:
            page = store.heads(KEY.scope, limit=4)
            again = store.heads(KEY.scope, after=page.next, limit=1)
            assert other.heads(KEY.scope, after=page.next, limit=1).items == again.items
        assert {head.key for head in again.items} < {head.key for head in heads} - {head.key for head in page.items}

    def test_closing_one_instance_leaves_the_other_open(self, store: HistoryStore) -> None:
        skip_unless(store.traits.shared, "not shared")
        head = create_conversation(store)
        self.reopen(store).close()
        check_head(store, KEY, head)
        assert append_lines(store, head).end == head.end + 1
