"""Guarantees 4 and 10 for a second instance: it sees the same, at once or after the first one is closed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from chathistory.errors import Conflict
from chathistory.storage.store import HistoryStore
from chathistory.testing.contract.base import Contract, applies
from chathistory.testing.contract.queries import bodies_of, contents, head_of, listed
from chathistory.testing.contract.samples import EXACT, FAR, KEY, created, grown, lines, revision
from chathistory.testing.guarantees import LISTING, belongs_to

__all__ = ["Durable", "Shared"]


def _something(store: HistoryStore) -> None:
    """Write what a second instance has to find: exact texts, a forgotten start, a full revision."""
    store.append(KEY, list(EXACT.values()), after=None, revision=revision(expires=FAR, payload=EXACT["emoji"]), first=3)
    store.forget(KEY, before=5)
    for name in ("one", "two"):
        grown(store, created(store, replace(KEY, id=name), 2))
    store.delete(replace(KEY, id="two"))


class Durable(Contract, guarantee=4):
    """What was acknowledged outlives the instance, to the extent of the traits."""

    def test_all_is_there_after_close_and_reopen(self, store: HistoryStore) -> None:
        applies(store.traits.durable, "not durable")
        _something(store)
        before, order = contents(store), listed(store, KEY.scope)
        store.close()
        with self.reopen(store) as other:
            assert contents(other) == before
            assert listed(other, KEY.scope) == order

    def test_the_guard_holds_after_reopen(self, store: HistoryStore) -> None:
        applies(store.traits.durable, "not durable")
        old = created(store)
        head = grown(store, old)
        store.close()
        with self.reopen(store) as other:
            with pytest.raises(Conflict) as caught:
                grown(other, old)
            assert caught.value.head == head
            assert grown(other, head).end == head.end + 1
            assert bodies_of(other, KEY) == lines(3)

    def test_what_was_removed_stays_removed_after_reopen(self, store: HistoryStore) -> None:
        applies(store.traits.durable, "not durable")
        created(store, count=3)
        store.forget(KEY, before=3)
        created(store, replace(KEY, id="gone"))
        store.delete(replace(KEY, id="gone"))
        store.close()
        with self.reopen(store) as other:
            assert list(other.keys()) == [KEY]
            assert bodies_of(other, KEY) == []
            head = head_of(other, KEY)
            assert head is not None
            assert (head.start, head.end) == (3, 3)


class Shared(Contract, guarantee=10):
    """Two instances that are open at once see the same conversations."""

    def test_each_sees_at_once_what_the_other_does(self, store: HistoryStore) -> None:
        applies(store.traits.shared, "not shared")
        with self.reopen(store) as other:
            _something(store)
            assert contents(other) == contents(store)
            head = head_of(other, KEY)
            assert head is not None
            head = other.append(KEY, ["of the other"], after=head, revision=revision())
            assert head_of(store, KEY) == head
            assert bodies_of(store, KEY)[-1] == "of the other"
            other.forget(KEY, before=head.end)
            assert bodies_of(store, KEY) == []
            other.delete(KEY)
            assert store.read(KEY) is None
            assert contents(store) == contents(other)

    @belongs_to(2)
    def test_each_is_guarded_against_the_other(self, store: HistoryStore) -> None:
        applies(store.traits.shared, "not shared")
        with self.reopen(store) as other:
            head = created(store)
            present = grown(other, head)
            with pytest.raises(Conflict) as caught:
                grown(store, head)
            assert caught.value.head == present
            with pytest.raises(Conflict):
                store.delete(KEY, version=head.revision.version)
            assert head_of(store, KEY) == head_of(other, KEY) == present

    @belongs_to(LISTING)
    def test_a_cursor_of_one_serves_the_other(self, store: HistoryStore) -> None:
        applies(store.traits.shared, "not shared")
        heads = [created(store, replace(KEY, id=f"c{at}")) for at in range(6)]
        with self.reopen(store) as other:
            page = store.heads(KEY.scope, limit=4)
            again = store.heads(KEY.scope, after=page.next, limit=1)
            assert other.heads(KEY.scope, after=page.next, limit=1).items == again.items
        assert {head.key for head in again.items} < {head.key for head in heads} - {head.key for head in page.items}

    def test_closing_one_leaves_the_other_open(self, store: HistoryStore) -> None:
        applies(store.traits.shared, "not shared")
        head = created(store)
        self.reopen(store).close()
        assert head_of(store, KEY) == head
        assert grown(store, head).end == head.end + 1
