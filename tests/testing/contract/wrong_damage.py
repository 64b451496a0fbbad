"""Stores that handle damage wrongly: walks that end, sound records that are lost, heads that are overwritten."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import astuple, replace

from chathistory_template import OURS, _write_head
from wrong_sql_base import SQL
from wrong_stores import caught_by

from chathistory.errors import CorruptRecord
from chathistory.storage.values import Head, Page, ReadResult, Record

READABLE = "test_a_range_without_a_damaged_record_is_readable"
SEVERAL = "test_ranges_between_several_damaged_records_are_readable"
WALK = "test_heads_lists_the_conversations_after_damaged_heads"
KEYS = "test_keys_and_scan_keys_are_complete_despite_damaged_heads"
NAMED = "test_a_call_on_a_damaged_head_raises_corrupt_record"
RESTORED = "test_restore_head_makes_a_damaged_conversation_readable"


@caught_by(READABLE, SEVERAL)
class BatchesAreOne(SQL):
    """Has a checksum for a whole batch: of four records all are damaged, or none."""

    def read(self, key, *, start=0, stop=None):
        run = super().read(key, start=start, stop=stop)
        if run and run.records:
            first = run.records[0].position
            self._whole(key, first, max(first // 4 * 4, run.head.start), run.head.end)
        return run

    def _whole(self, key, first, start, end):
        with suppress(CorruptRecord):
            if len(super().read(key, start=start, stop=min(start + 4, end)).records) == min(4, end - start):
                return
        raise CorruptRecord(key, first, "the checksum of its batch is wrong")


@caught_by(READABLE, SEVERAL, "test_a_damaged_record_is_named_after_a_forget_and_a_higher_first")
class AllOrNothing(SQL):
    """Reads a conversation from its beginning, and stops at the first that is damaged."""

    def read(self, key, *, start=0, stop=None):
        run = super().read(key, start=start, stop=stop)
        at = run.head.start if run else 0
        while run and at < min(start, run.head.end):
            at += len(super().read(key, start=at).records)
        return run


@caught_by(READABLE, SEVERAL)
class DamageIsLeftOut(SQL):
    """Continues after a record that it cannot read."""

    def read(self, key, *, start=0, stop=None):
        try:
            return super().read(key, start=start, stop=stop)
        except CorruptRecord as error:
            if error.position is None:
                raise
            return super().read(key, start=error.position + 1, stop=stop)


@caught_by(READABLE, SEVERAL)
class DamageIsGivenOut(SQL):
    """Has no checksums."""

    def read(self, key, *, start=0, stop=None):
        run = super().read(key, stop=0)
        if run is None:
            return None
        low = max(start if start >= 0 else run.head.end + start, run.head.start)
        high = min(run.head.end if stop is None else stop, run.head.end)
        rows = self.run_now(f"SELECT position, body FROM records WHERE {OURS} AND position >= ? AND position < ?",
                        *astuple(key), low, high)  # fmt: skip
        return ReadResult(run.head, [Record(*row) for row in sorted(rows)])


@caught_by(READABLE, SEVERAL)
class DamageWithoutAPosition(SQL):
    """Does not say where."""

    def read(self, key, *, start=0, stop=None):
        try:
            return super().read(key, start=start, stop=stop)
        except CorruptRecord as error:
            raise CorruptRecord(key, None, error.reason) from error


@caught_by("test_append_continues_after_a_damaged_record")
class NobodyWritesAfterDamage(SQL):
    """Checks the last record before it appends."""

    def append(self, key, bodies, *, after, revision, first=0):
        if after:
            self.read(key, start=-1)
        return super().append(key, bodies, after=after, revision=revision, first=first)


@caught_by("test_forget_removes_a_damaged_record_and_keeps_the_others")
class ForgetReadsWhatItRemoves(SQL):
    """Copies the records to keep, and reads those to remove."""

    def forget(self, key, *, before):
        run = self.read(key)
        while run and run.records and run.records[-1].position < before:
            run = self.read(key, start=run.records[-1].position + 1)
        return super().forget(key, before=before)


@caught_by(WALK)
class OneEndsTheWalk(SQL):
    """Raises the error of one damaged conversation in a listing of all."""

    def heads(self, scope, *, after=None, limit=20):
        page = super().heads(scope, after=after, limit=limit)
        if page.damaged:
            raise page.damaged[0].error
        return page


@caught_by(WALK, "test_reports_of_a_damaged_head_show_no_message_text")
class DamagedHeadsAreLeftOut(SQL):
    """Lists what it can, and does not speak of the others."""

    def heads(self, scope, *, after=None, limit=20):
        return replace(super().heads(scope, after=after, limit=limit), damaged=())


@caught_by(WALK)
class DamagedHeadsTakeAPlace(SQL):
    """Counts damaged ones towards the limit."""

    def heads(self, scope, *, after=None, limit=20):
        page = super().heads(scope, after=after, limit=limit)
        if not page.damaged or len(page.items) < 2:
            return page
        short = super().heads(scope, after=after, limit=len(page.items) - 1)
        return Page(short.items, short.next, page.damaged)


@caught_by(WALK)
class PageEndsAtDamage(SQL):
    """Ends the listing with the page that has a damaged one."""

    def heads(self, scope, *, after=None, limit=20):
        page = super().heads(scope, after=after, limit=limit)
        return replace(page, next=None) if page.damaged else page


@caught_by(KEYS)
class DamagedKeysAreLeftOut(SQL):
    """Names the keys of heads that it can read."""

    def keys(self, scope=None):
        rows = self._read_heads("scope = ifnull(?, scope)", scope)
        return iter([row.key for row in rows if isinstance(row, Head)])


@caught_by(NAMED, "test_a_damaged_head_is_not_overwritten")
class DamagedIsAbsent(SQL):
    """Takes a head that it cannot read for none."""

    def read(self, key, *, start=0, stop=None):
        try:
            return super().read(key, start=start, stop=stop)
        except CorruptRecord as error:
            if error.position is not None:
                raise
            return None

    def append(self, key, bodies, *, after, revision, first=0):
        if after is None and self.read(key) is None:
            self.delete(key)
        return super().append(key, bodies, after=after, revision=revision, first=first)


@caught_by(
    "test_a_conversation_with_a_damaged_head_can_be_deleted_and_created_again",
    "test_no_text_remains_of_a_damaged_head_after_an_erasure",
)
class DamagedStaysForEver(SQL):
    """Looks at the head before it deletes."""

    def delete(self, key, *, version=None):
        self.read(key, stop=0)
        return super().delete(key, version=version)


@caught_by(
    "test_restore_head_succeeds_once_for_the_same_records", "test_restore_head_does_not_overwrite_a_later_append"
)
class RestoresUnguarded(SQL):
    """Puts the new head over whatever is there."""

    def restore_head(self, found, head):
        with self._transaction() as (db, _):
            return _write_head(db, head)


@caught_by(
    "test_restore_head_succeeds_once_for_the_same_records", "test_restore_head_does_not_overwrite_a_new_conversation"
)
class GuardedByTheProblem(SQL):
    """Takes any head that is there for the one that was found."""

    def find_records(self, key):
        found = super().find_records(key)
        return found and replace(found, token="there")

    def restore_head(self, found, head):
        present = super().find_records(head.key)
        return super().restore_head(present or found, head)


@caught_by("test_restore_head_works_with_damaged_records")
class RestoresUpToTheDamage(SQL):
    """Finds the records up to the first that is damaged."""

    def read_found(self, found, *, start, stop):
        records = super().read_found(found, start=start, stop=stop)
        return [record for at, record in enumerate(records, start) if record.position == at]


@caught_by(RESTORED)
class RestoresTheLastBatch(SQL):
    """Finds the newest records only."""

    def find_records(self, key):
        found = super().find_records(key)
        return found and replace(found, start=max(found.start, found.end - 2))


@caught_by("test_restore_head_brings_no_forgotten_record_back")
class ForgottenIsFound(SQL):
    """Finds records from 0 on, including forgotten ones."""

    def find_records(self, key):
        found = super().find_records(key)
        return found and replace(found, start=0)


@caught_by("test_restore_head_does_not_bring_back_a_deleted_conversation")
class DeletedIsRestored(SQL):
    """Restores a conversation that was deleted meanwhile."""

    def restore_head(self, found, head):
        if super().find_records(head.key) is None:
            with self._transaction() as (db, _):
                return _write_head(db, head)
        return super().restore_head(found, head)
