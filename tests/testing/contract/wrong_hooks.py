"""Stores with a mistake in a hook of `BaseStore`: the mistakes that an author can still make."""

from __future__ import annotations

from dataclasses import replace

from wrong_sql_base import SQL
from wrong_stores import Wrong, caught_by

from chathistory.storage.values import Damaged, Head, ReadResult

PAGES = "test_pages_list_each_conversation_once_and_end"


@caught_by(
    PAGES, "test_heads_and_keys_list_250_conversations", "test_pages_list_unwritten_conversations_once_during_writes"
)
class BelowIsIgnored(Wrong):
    """Starts every page with the newest head."""

    def _list_heads(self, scope, *, below, count):
        return super()._list_heads(scope, below=None, count=count)


@caught_by(PAGES)
class BelowIsIncluded(Wrong):
    """Lists the last head of a page again on the next one."""

    def _list_heads(self, scope, *, below, count):
        return super()._list_heads(scope, below=below and below._replace(id=below.id + "\0"), count=count)


@caught_by(PAGES, "test_heads_and_keys_list_250_conversations", "test_a_page_has_at_most_20_heads_by_default")
class OneHeadTooFew(Wrong):
    """Returns only as many heads as a page has, so `BaseStore` does not know that there are more."""

    def _list_heads(self, scope, *, below, count):
        return super()._list_heads(scope, below=below, count=count - 1)


@caught_by("test_heads_lists_the_conversations_after_damaged_heads")
class DamagedOnesCount(SQL):
    """Counts damaged heads, so a page with one of them may be the last."""

    def _list_heads(self, scope, *, below, count):
        return super()._list_heads(scope, below=below, count=count)[:count]


@caught_by("test_heads_lists_the_conversations_after_damaged_heads")
class DamagedOnesAtTheEnd(SQL):
    """Lists damaged heads after the others: they are missing on all pages but the last."""

    def _list_heads(self, scope, *, below, count):
        rows = super()._list_heads(scope, below=below, count=count)
        heads = [row for row in rows if isinstance(row, Head)]
        return heads if len(heads) == count else heads + [row for row in rows if isinstance(row, Damaged)]


@caught_by("test_read_returns_the_start_of_every_range", "test_read_returns_any_range_of_many_records")
class RangeIsNotNarrowed(Wrong):
    """Does not use `head.narrow`: a negative start begins at the first record."""

    def _read_range(self, key, start, stop):
        return super()._read_range(key, max(start, 0), stop)


@caught_by("test_read_returns_the_start_of_every_range")
class PositionsFromZero(Wrong):
    """Numbers the records of a range from the first that was ever stored in it."""

    def _read_range(self, key, start, stop):
        found = super()._read_range(key, start, stop)
        first = found and found.head.start
        return found and ReadResult(
            found.head, [replace(each, position=each.position - first) for each in found.records]
        )


@caught_by("test_a_new_conversation_starts_at_first")
class FirstIsIgnored(Wrong):
    """Numbers every new conversation from 0."""

    def _append_records(self, key, bodies, *, after, revision, first):
        return super()._append_records(key, bodies, after=after, revision=revision, first=0)


@caught_by(
    "test_forget_removes_the_records_below_and_keeps_the_others", "test_forget_from_the_end_on_removes_all_records"
)
class ForgetReturnsWhatWas(Wrong):
    """Returns the head as it was before the forget."""

    def _forget_records(self, key, before):
        head = self.present_head(key)
        super()._forget_records(key, before)
        return head


@caught_by("test_delete_with_another_version_is_a_conflict")
class VersionIsIgnored(Wrong):
    """Ignores the version."""

    def _delete(self, key, version):
        return super()._delete(key, None)


@caught_by("test_recovery_methods_of_a_closed_store_raise_store_closed")
class RecoversWhenClosed(SQL):
    """Does not check that it is open in the methods of an ability, where no base class does it."""

    def __init__(self, place):
        super().__init__(place)
        self._place = place

    def find_records(self, key):
        with SQL(self._place) as other:
            return other.find_records(key)
