"""Walks where an index has lost an entry, and where the account may not look through the storage."""

from __future__ import annotations

import io
from typing import ClassVar

import pytest
from chathistory_memory import MemoryStore
from faulty_stores import chat_on, numbered

from chathistory import Damaged, History, Key, Leftovers, Page, Traits
from chathistory.errors import Conflict, CorruptRecord, StoreRejected

LOST = Key("default", "lost")


class Forgetful(MemoryStore):
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


class Bound(Forgetful):
    may_scan = False


def filled(kind):
    store = kind()
    for name in ("a", "b", "lost"):
        numbered(chat_on(store, name), 2)
    return store, History(store)


@pytest.mark.parametrize("kind", [Forgetful, Bound])
def test_what_relies_on_an_index_says_so(kind):
    _, history = filled(kind)
    for report in (history.export_to(io.BytesIO()), history.copy_to(MemoryStore())):
        assert (report.all_found, report.complete, report.failed) == (False, False, {})
    plan = history.prune(count=0)
    assert (len(plan.removed), plan.complete) == (2, False)
    named = history.export_to(io.BytesIO(), ids=["a", "lost"])
    assert (named.conversations, named.complete) == (2, True)


def test_a_full_scan_finds_all():
    _, history = filled(Forgetful)
    target = MemoryStore()
    assert history.export_to(io.BytesIO(), full_scan=True).conversations == 3
    copied = history.copy_to(target, full_scan=True)
    assert (copied.copied, copied.complete, LOST in set(target.keys())) == (3, True, True)
    plan = history.prune(count=1, full_scan=True)
    assert ({row.id for row in plan.removed}, plan.complete) == ({"a", "b"}, True)


def test_a_scan_that_is_not_allowed_is_an_error_where_it_was_asked_for():
    _, history = filled(Bound)
    for call in (
        lambda: history.export_to(io.BytesIO(), full_scan=True),
        lambda: history.copy_to(MemoryStore(), full_scan=True),
        lambda: history.prune(full_scan=True),
    ):
        with pytest.raises(StoreRejected):
            call()


def test_an_erasure_and_a_check_always_scan():
    store, history = filled(Forgetful)
    assert (history.check().checked, history.check().complete) == (3, True)
    done = history.erase("default")
    assert (len(done.removed), done.left, done.complete, done.not_reached) == (3, (), True, ("backups",))
    assert list(store.scan_keys()) == []


def test_what_may_not_be_scanned_is_not_called_complete():
    store, history = filled(Bound)
    assert (history.check().checked, history.check().complete) == (2, False)
    done = history.erase("default")
    assert (len(done.removed), done.complete) == (2, False)
    assert LOST in set(MemoryStore.keys(store))


class WrongIndex(MemoryStore):
    """A store whose listing is damaged: it names nothing, and is told without a key."""

    wrong = Damaged(None, "index", CorruptRecord(None, None, "the listing is no list"))

    def keys(self, scope=None):
        return iter(())

    def scan_keys(self, scope=None):
        return super().keys(scope)

    def heads(self, scope, **page):
        return Page([], None, [self.wrong])

    def damaged_keys(self, scope=None):
        return iter([self.wrong])


def test_what_relies_on_a_damaged_listing_says_so():
    _, history = filled(WrongIndex)
    for report in (history.export_to(io.BytesIO()), history.copy_to(MemoryStore())):
        assert (report.all_found, report.complete, report.damaged) == (False, False, [WrongIndex.wrong])
    plan = history.prune(count=0)
    assert (plan.kept, plan.complete, plan.damaged) == (0, False, (WrongIndex.wrong,))
    assert history.export_to(io.BytesIO(), full_scan=True).all_found
    assert history.copy_to(MemoryStore(), full_scan=True).all_found
    assert history.prune(count=3, full_scan=True).complete
    assert history.export_to(io.BytesIO(), ids=["a"]).complete


class Cluttered(MemoryStore):
    """Has something beside its conversations, of which some cannot be removed."""

    def __init__(self):
        super().__init__()
        self.torn = ["torn 1", "torn 2"]
        self.stuck: list[str] = []

    def damaged_keys(self, scope=None):
        return (Damaged(None, where, CorruptRecord(None, None, "a torn append")) for where in self.torn)

    def remove_leftovers(self, scope):
        removed, self.torn = len(self.torn) - len(self.stuck), self.stuck
        return Leftovers(removed, tuple(self.stuck), not self.stuck)


@pytest.mark.parametrize("stuck", [[], ["torn 2"]])
def test_leftovers_are_removed_and_what_is_left_is_named(stuck):
    store = Cluttered()
    store.stuck = stuck
    numbered(chat_on(store, "a"), 2)
    history = History(store)
    assert [each.where for each in history.check().found] == ["torn 1", "torn 2"]
    report = history.export_to(io.BytesIO())
    assert ([each.where for each in report.damaged], report.complete) == (["torn 1", "torn 2"], False)
    assert [each.where for each in history.copy_to(MemoryStore()).damaged] == ["torn 1", "torn 2"]
    done = history.erase("default")
    assert (done.leftovers, done.left, done.complete) == (2 - len(stuck), tuple(stuck), not stuck)


class Stubborn(MemoryStore):
    """Refuses to delete one conversation."""

    def delete(self, key, *, version=None):
        if key.id == "b":
            raise StoreRejected("it is locked")
        return super().delete(key, version=version)


def test_one_that_cannot_be_removed_does_not_keep_the_others():
    store = Stubborn()
    for name in "abc":
        numbered(chat_on(store, name), 2)
    done = History(store).erase("default")
    assert ({gone.id for gone in done.removed}, done.left, done.complete) == ({"a", "c"}, ("b",), False)


# One conversation.


def test_only_what_was_seen_is_deleted():
    store = MemoryStore()
    chat = chat_on(store)
    numbered(chat, 2)
    history = History(store)
    seen = chat.log.refresh().revision.version
    chat.annotate(title="changed")
    with pytest.raises(Conflict):
        history.delete("c", expected=seen)
    assert chat.info().title == "changed"
    assert history.delete("c", expected=chat.log.refresh().revision.version).messages == 2
    assert history.delete("c", expected=seen) is None
    numbered(chat_on(store, "d"), 2)
    assert history.delete("d").records == 2
