"""Stores with a mistake in append, forget or delete."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import replace

from wrong_stores import Wrong, caught_by

from chathistory.errors import Conflict, InvalidInput
from chathistory.storage.checks import check_append
from chathistory.storage.values import Head, ReadResult


@caught_by("test_a_refused_batch_changes_nothing", "test_a_refused_batch_creates_no_conversation")
class HalfABatch(Wrong):
    def append(self, key, bodies, *, after, revision, first=0):
        try:
            return super().append(key, bodies, after=after, revision=revision, first=first)
        except InvalidInput:
            with suppress(InvalidInput):
                super().append(key, list(bodies)[:1], after=after, revision=revision, first=first)
            raise


@caught_by("test_batches_of_many_writers_are_stored_once_and_not_interleaved")
class OthersInsideABatch(Wrong):
    def append(self, key, bodies, *, after, revision, first=0):
        one, *others = check_append(bodies, revision, self.traits, first=first)
        head = super().append(key, [one], after=after, revision=revision, first=first)
        for body in others:
            time.sleep(0)
            with self._data.lock:
                found = self._find_conversation(key)
                found.bodies.append(body)
                head = found.head = replace(found.head, end=found.head.end + 1)
        return head


@caught_by(
    "test_creating_an_existing_conversation_is_a_conflict",
    "test_an_old_head_is_a_conflict_after_an_append",
    "test_two_instances_guard_against_each_other",
    "test_an_old_head_is_a_conflict_after_reopen",
    "test_a_repeated_append_is_a_conflict_with_its_version",
)
class NoGuard(Wrong):
    def append(self, key, bodies, *, after, revision, first=0):
        return super().append(key, bodies, after=self.present_head(key), revision=revision, first=first)


class Believing(Wrong):
    """Accepts more than the present version."""

    def believes(self, after, present):
        raise AssertionError

    def append(self, key, bodies, *, after, revision, first=0):
        present = self.present_head(key)
        if after and present and self.believes(after, present):
            after = present
        return super().append(key, bodies, after=after, revision=revision, first=first)


@caught_by("test_an_old_head_is_a_conflict_after_an_append_and_a_forget")
class StaleAfterForgettingAll(Believing):
    def believes(self, after, present):
        return present.start == present.end


@caught_by("test_an_old_head_is_a_conflict_although_the_count_is_the_same")
class GuardedByCount(Believing):
    def believes(self, after, present):
        return after.end - after.start == present.end - present.start and present.start > 0


@caught_by(
    "test_an_old_head_is_a_conflict_after_a_delete_and_a_new_conversation", "test_the_version_decides_not_the_positions"
)
class GuardedByNumber(Believing):
    def believes(self, after, present):
        return after.end == present.end


@caught_by("test_an_old_head_is_a_conflict_after_a_delete_and_the_same_append")
class GuardedByTime(Believing):
    def believes(self, after, present):
        return after.revision.updated == present.revision.updated


@caught_by("test_versions_are_compared_character_by_character")
class GuardedByFoldedVersion(Believing):
    def believes(self, after, present):
        return after.revision.version.strip().casefold() == present.revision.version.strip().casefold()


@caught_by("test_an_old_head_is_a_conflict_after_a_delete", "test_append_to_an_unknown_conversation_is_a_conflict")
class Resurrecting(Wrong):
    def append(self, key, bodies, *, after, revision, first=0):
        if after and self.present_head(key) is None:
            return super().append(key, bodies, after=None, revision=revision, first=after.end)
        return super().append(key, bodies, after=after, revision=revision, first=first)


@caught_by("test_append_succeeds_after_a_forget_by_another")
class StartOfTheWriter(Wrong):
    def append(self, key, bodies, *, after, revision, first=0):
        head = super().append(key, bodies, after=after, revision=revision, first=first)
        return self.put_head(replace(head, start=after.start)) if after else head


@caught_by("test_a_head_with_a_wrong_end_makes_no_gap")
class EndOfTheWriter(Wrong):
    def append(self, key, bodies, *, after, revision, first=0):
        head = super().append(key, bodies, after=after, revision=revision, first=first)
        return self.put_head(replace(head, end=after.end + len(bodies))) if after else head


@caught_by("test_a_repeated_append_is_a_conflict_with_its_version")
class RepeatedInSilence(Wrong):
    def append(self, key, bodies, *, after, revision, first=0):
        present = self.present_head(key)
        if present and present.revision == revision:
            return present
        return super().append(key, bodies, after=after, revision=revision, first=first)


@caught_by("test_equal_bodies_are_stored_as_separate_records")
class EqualTextsOnce(Wrong):
    def append(self, key, bodies, *, after, revision, first=0):
        unique = list(dict.fromkeys(bodies)) if isinstance(bodies, list) and len(bodies) == 2 else bodies
        return super().append(key, unique, after=after, revision=revision, first=first)


@caught_by(
    "test_an_old_head_is_a_conflict_after_an_append",
    "test_exactly_one_of_many_appends_succeeds",
    "test_delete_with_another_version_is_a_conflict",
)
class ConflictWithoutHead(Wrong):
    def append(self, key, bodies, *, after, revision, first=0):
        try:
            return super().append(key, bodies, after=after, revision=revision, first=first)
        except Conflict:
            raise Conflict(key, None) from None

    def delete(self, key, *, version=None):
        try:
            return super().delete(key, version=version)
        except Conflict:
            raise Conflict(key, None) from None


@caught_by("test_exactly_one_of_many_appends_succeeds", "test_exactly_one_of_many_threads_creates_the_conversation")
class NotThreadSafe(Wrong):
    def append(self, key, bodies, *, after, revision, first=0):
        present = self.present_head(key)
        if (present and present.revision.version) == (after and after.revision.version):
            time.sleep(0.001)  # between the look and the leap
            after = self.present_head(key)
        return super().append(key, bodies, after=after, revision=revision, first=first)


@caught_by("test_exactly_one_of_many_deletes_succeeds")
class TwoDeletesWin(Wrong):
    def delete(self, key, *, version=None):
        found = self.present_head(key) is not None
        time.sleep(0.001)
        return super().delete(key, version=version) or found


@caught_by("test_forget_loses_no_concurrent_append")
class ForgetLosesAppends(Wrong):
    def forget(self, key, *, before):
        with self._data.lock:
            old = self._find_conversation(key)
            kept = old and (old.head, list(old.bodies))
        time.sleep(0.0005)
        if kept:
            with self._data.lock:
                found = self._find_conversation(key)
                found.head, found.bodies = kept
        return super().forget(key, before=before)


@caught_by("test_a_new_conversation_starts_at_first", "test_a_new_conversation_holds_nothing_of_a_deleted_one")
class FirstIgnored(Wrong):
    def append(self, key, bodies, *, after, revision, first=0):
        return super().append(key, bodies, after=after, revision=revision)


@caught_by("test_first_is_ignored_for_an_existing_conversation")
class FirstAlways(Wrong):
    def append(self, key, bodies, *, after, revision, first=0):
        head = super().append(key, bodies, after=after, revision=revision, first=first)
        return self.put_head(replace(head, start=first, end=first + head.end)) if after and first else head


@caught_by("test_the_end_never_decreases")
class EndRestarts(Wrong):
    def forget(self, key, *, before):
        head = super().forget(key, before=before)
        return self.put_head(replace(head, start=0, end=0)) if head and head.start == head.end else head


@caught_by("test_forget_from_the_end_on_removes_all_records")
class ForgetBeyondTheEnd(Wrong):
    def forget(self, key, *, before):
        head = super().forget(key, before=before)
        return self.put_head(replace(head, start=before, end=before)) if head and before > head.end else head


@caught_by("test_forget_keeps_the_revision", "test_append_succeeds_after_a_forget_by_another")
class ForgetChangesVersion(Wrong):
    def forget(self, key, *, before):
        old, head = self.present_head(key), super().forget(key, before=before)
        return self.put_head(replace(head, revision=replace(head.revision, version="new"))) if head != old else head


@caught_by("test_forget_removes_the_records_below_and_keeps_the_others")
class ForgetKeepsBodies(Wrong):
    def forget(self, key, *, before):
        run = self.read(key)
        self.kept = list(run.records) if run else []
        return super().forget(key, before=before)

    def read(self, key, *, start=0, stop=None):
        run = super().read(key, start=start, stop=stop)
        low = [record for record in getattr(self, "kept", []) if run and start <= record.position < run.head.start]
        return ReadResult(run.head, low + run.records) if run else None


@caught_by("test_forget_without_records_below_changes_nothing")
class ForgetGoesBack(Wrong):
    def forget(self, key, *, before):
        head = super().forget(key, before=before)
        return self.put_head(replace(head, start=before)) if head and 0 <= before < head.start else head


@caught_by("test_forget_of_an_unknown_conversation_returns_none")
class ForgetMakes(Wrong):
    def forget(self, key, *, before):
        head = super().forget(key, before=before)
        return head or Head(key, before, before, next(iter(self.all_heads(key.scope))).revision)


@caught_by(
    "test_delete_with_another_version_is_a_conflict",
    "test_delete_with_the_version_of_an_earlier_conversation_is_a_conflict",
)
class DeleteIgnoresVersion(Wrong):
    def delete(self, key, *, version=None):
        return super().delete(key)


@caught_by("test_delete_with_another_version_is_a_conflict")
class EmptyVersionIsNone(Wrong):
    def delete(self, key, *, version=None):
        return super().delete(key, version=version or None)


@caught_by(
    "test_delete_of_an_unknown_conversation_returns_false", "test_every_method_finds_a_deleted_conversation_absent"
)
class DeleteAlwaysTrue(Wrong):
    def delete(self, key, *, version=None):
        super().delete(key, version=version)
        return True


@caught_by("test_a_new_conversation_holds_nothing_of_a_deleted_one")
class OldRecordsComeBack(Wrong):
    def delete(self, key, *, version=None):
        run = self.read(key)
        self.old = [record.body for record in run.records] if run else []
        return super().delete(key, version=version)

    def append(self, key, bodies, *, after, revision, first=0):
        old = [] if after else self.__dict__.pop("old", [])
        return super().append(key, [*old, *bodies] if old else bodies, after=after, revision=revision, first=first)
