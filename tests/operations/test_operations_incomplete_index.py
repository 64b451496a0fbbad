"""Reports where an index has lost an entry, and where the account may not scan the storage."""

from __future__ import annotations

import io
from typing import ClassVar

import pytest
from chathistory_memory import MemoryStore
from faulty_stores import chat_on, numbered

from chathistory import Damaged, History, Key, Leftovers, Page, Traits
from chathistory.errors import Conflict, CorruptRecord, StoreRejected

LOST = Key("default", "lost")


class IncompleteIndexStore(MemoryStore):
    """A store whose index has lost an entry, and may lose more."""

    traits = Traits(durable=False, shared=False, not_reached=("backups",))
    may_scan: ClassVar[bool] = True

    def keys(self, scope=None):
        return (key for key in super().keys(scope) if key != LOST)

    def heads(self, scope, **page):
        found = super().heads(scope, **page)
        return Page([head for head in found.items if head.key != LOST], found.next)

    def scan_keys(self, scope=None):
        if not self.may_scan:
            raise StoreRejected("the account may not")
        return super().keys(scope)

    def is_index_complete(self):
        return False

    def remove_leftovers(self, scope):
        if not self.may_scan:
            raise StoreRejected("the account may not")
        return super().remove_leftovers(scope)


class NoScanStore(IncompleteIndexStore):
    may_scan = False


def make_filled_history(kind):
    store = kind()
    for name in ("a", "b", "lost"):
        numbered(chat_on(store, name), 2)
    return store, History(store)


@pytest.mark.parametrize("kind", [IncompleteIndexStore, NoScanStore])
def test_results_from_an_index_are_not_called_complete(kind):
    _, history = make_filled_history(kind)
    for report in (history.export_to(io.BytesIO()), history.copy_to(MemoryStore())):
        assert (report.all_found, report.complete, report.failed) == (False, False, {})
    plan = history.prune(count=0)
    assert (len(plan.removed), plan.complete) == (2, False)
    named = history.export_to(io.BytesIO(), ids=["a", "lost"])
    assert (named.conversations, named.complete) == (2, True)


def test_a_full_scan_finds_all_conversations():
    _, history = make_filled_history(IncompleteIndexStore)
    target = MemoryStore()
    assert history.export_to(io.BytesIO(), full_scan=True).conversations == 3
    copied = history.copy_to(target, full_scan=True)
    assert (copied.copied, copied.complete, LOST in set(target.keys())) == (3, True, True)
    plan = history.prune(count=1, full_scan=True)
    assert ({row.id for row in plan.removed}, plan.complete) == ({"a", "b"}, True)


def test_a_full_scan_without_permission_is_an_error():
    _, history = make_filled_history(NoScanStore)
    for call in (
        lambda: history.export_to(io.BytesIO(), full_scan=True),
        lambda: history.copy_to(MemoryStore(), full_scan=True),
        lambda: history.prune(full_scan=True),
    ):
        with pytest.raises(StoreRejected):
            call()


def test_erase_and_check_always_scan():
    store, history = make_filled_history(IncompleteIndexStore)
    assert (history.check().checked, history.check().complete) == (3, True)
    done = history.erase("default")
    assert (len(done.removed), done.left, done.complete, done.not_reached) == (3, (), True, ("backups",))
    assert list(store.scan_keys()) == []


def test_without_permission_to_scan_nothing_is_called_complete():
    store, history = make_filled_history(NoScanStore)
    assert (history.check().checked, history.check().complete) == (2, False)
    done = history.erase("default")
    assert (len(done.removed), done.complete) == (2, False)
    assert LOST in set(MemoryStore.keys(store))


def test_an_account_that_may_read_neither_storage_nor_index_cannot_erase():
    class Forbidden(NoScanStore):
        def keys(self, scope=None):
            raise StoreRejected("nor this")

    store = Forbidden()
    numbered(chat_on(store, "a"), 2)
    with pytest.raises(StoreRejected, match="nor this"):
        History(store).erase("default")
    assert set(MemoryStore.keys(store)) == {Key("default", "a")}


class DamagedIndexStore(MemoryStore):
    """A store with a damaged listing, which names no conversation and is reported without a key."""

    wrong = Damaged(None, "index", CorruptRecord(None, None, "the listing is no list"))

    def keys(self, scope=None):
        return iter(())

    def scan_keys(self, scope=None):
        return super().keys(scope)

    def heads(self, scope, **page):
        return Page([], None, [self.wrong])

    def damaged_keys(self, scope=None):
        return iter([self.wrong])


def test_results_from_a_damaged_listing_are_not_called_complete():
    _, history = make_filled_history(DamagedIndexStore)
    for report in (history.export_to(io.BytesIO()), history.copy_to(MemoryStore())):
        assert (report.all_found, report.complete, report.damaged) == (False, False, [DamagedIndexStore.wrong])
    plan = history.prune(count=0)
    assert (plan.kept, plan.complete, plan.damaged) == (0, False, (DamagedIndexStore.wrong,))
    assert history.export_to(io.BytesIO(), full_scan=True).all_found
    assert history.copy_to(MemoryStore(), full_scan=True).all_found
    assert history.prune(count=3, full_scan=True).complete
    assert history.export_to(io.BytesIO(), ids=["a"]).complete


class LeftoversStore(MemoryStore):
    """A store with data that belongs to no conversation; some of it cannot be removed."""

    def __init__(self):
        super().__init__()
        self.leftovers = ["piece 1", "piece 2"]
        self.locked: list[str] = []

    def damaged_keys(self, scope=None):
        return (Damaged(None, where, CorruptRecord(None, None, "an interrupted append")) for where in self.leftovers)

    def remove_leftovers(self, scope):
        removed, self.leftovers = len(self.leftovers) - len(self.locked), self.locked
        return Leftovers(removed, tuple(self.locked), not self.locked)


@pytest.mark.parametrize("locked", [[], ["piece 2"]])
def test_leftovers_are_removed_and_the_rest_is_named(locked):
    store = LeftoversStore()
    store.locked = locked
    numbered(chat_on(store, "a"), 2)
    history = History(store)
    assert [each.where for each in history.check().found] == ["piece 1", "piece 2"]
    report = history.export_to(io.BytesIO())
    assert ([each.where for each in report.damaged], report.complete) == (["piece 1", "piece 2"], False)
    assert [each.where for each in history.copy_to(MemoryStore()).damaged] == ["piece 1", "piece 2"]
    done = history.erase("default")
    assert (done.leftovers, done.left, done.complete) == (2 - len(locked), tuple(locked), not locked)


class LockedStore(MemoryStore):
    """Refuses to delete one conversation."""

    def delete(self, key, *, version=None):
        if key.id == "b":
            raise StoreRejected("it is locked")
        return super().delete(key, version=version)


def test_a_conversation_that_cannot_be_removed_does_not_keep_the_others():
    store = LockedStore()
    for name in "abc":
        numbered(chat_on(store, name), 2)
    done = History(store).erase("default")
    assert ({gone.id for gone in done.removed}, done.left, done.complete) == ({"a", "c"}, ("b",), False)


# One conversation.


def test_delete_with_an_expected_version():
    store = MemoryStore()
    chat = chat_on(store)
    numbered(chat, 2)
    history = History(store)
    seen = chat.log.refresh().revision.version
    chat.annotate(title="changed")
    for dry_run in (True, False):
        with pytest.raises(Conflict):
            history.delete("c", expected=seen, dry_run=dry_run)
        assert history.delete("nobody", expected=seen, dry_run=dry_run) is None
    assert chat.info().title == "changed"
    assert history.delete("c", expected=chat.log.refresh().revision.version).messages == 2
    assert history.delete("c", expected=seen) is None
    numbered(chat_on(store, "d"), 2)
    assert history.delete("d").records == 2
