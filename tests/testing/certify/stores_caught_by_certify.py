"""Stores on a real disk with one mistake each, which only real processes show, and hooks for the template."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections import defaultdict
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from chathistory_template import TemplateStore, _add_checksum, _write_head

from chathistory import Head, hookimpl
from chathistory.errors import Conflict, CorruptRecord, StoreUnavailable
from chathistory.testing import CertifyHooks

WRONG: dict[str, type[TemplateStore]] = {}
CAUGHT: dict[str, tuple[int, str, str]] = {}
"""By scheme: the guarantee, the test that must catch the mistake, and a part of its message."""


def caught_by(number, test, words):
    def keep(cls):
        scheme = cls.__name__.lower()
        WRONG[scheme], CAUGHT[scheme] = cls, (number, test, words)
        return cls

    return keep


@caught_by(4, "test_a_killed_writer_loses_no_append_and_leaves_no_partial_batch", "")
class Late(TemplateStore):
    """Works in memory, and saves when it is closed."""

    def _connect(self):
        db = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        with closing(super()._connect()) as disk:
            disk.backup(db)
        return db

    def close(self):
        if self._db is not None:
            with closing(super()._connect()) as disk:
                self._db.backup(disk)
        super().close()


@caught_by(4, "test_a_killed_writer_loses_no_append_and_leaves_no_partial_batch", "complete and in order")
class ByHalves(TemplateStore):
    """Stores each body of a batch separately, so a killed writer leaves a part of the batch."""

    def append(self, key, bodies, *, after, revision, first=0):
        head = after
        for body in bodies:
            head = super().append(key, [body], after=head, revision=revision, first=first)
            time.sleep(0.02)
        return head


@caught_by(6, "test_an_append_and_a_tail_read_cost_the_same_in_a_large_conversation", "10000 records")
class Rewriting(TemplateStore):
    """Reads the whole conversation with every append."""

    def append(self, key, bodies, *, after, revision, first=0):
        start, seen = 0, ""
        while run := self.read(key, start=start):
            seen = "".join([seen, *(record.body for record in run.records)])
            start += len(run.records)
            if start >= run.head.end:
                break
        return super().append(key, bodies, after=after, revision=revision, first=first)


LOCKS = defaultdict(threading.RLock)
"""Locks by path: they separate the threads of one process, but not two processes."""


@contextmanager
def _after(lock, transaction):
    with lock, transaction as seen:
        yield seen


@caught_by(7, "test_read_returns_one_moment_while_another_process_writes", "")
class ReadsInSteps(TemplateStore):
    """Reads the head and the records at two moments; other threads of the process wait until it has both."""

    def _transaction(self, key=None, begin="BEGIN IMMEDIATE"):
        return _after(LOCKS[self._path], super()._transaction(key, begin))

    def read(self, key, *, start=0, stop=None):
        with LOCKS[self._path]:
            first = super().read(key, stop=0)
            if first is None:
                return None
            time.sleep(0.002)
            low = max(start if start >= 0 else first.head.end + start, first.head.start)
            run = super().read(key, start=low, stop=first.head.end if stop is None else min(stop, first.head.end))
            return run and replace(first, records=run.records)


@caught_by(9, "test_delete_by_another_process_is_never_seen_half_done", "")
class DeletesInSteps(TemplateStore):
    """Removes the records and then the head; others of the same process wait until both are done."""

    def _transaction(self, key=None, begin="BEGIN IMMEDIATE"):
        return _after(LOCKS[self._path], super()._transaction(key, begin))

    def delete(self, key, *, version=None):
        with LOCKS[self._path]:
            with self._transaction(key if version is not None else None) as (db, head):
                if head and version != head.revision.version:
                    raise Conflict(key, head)
                db.execute("DELETE FROM records WHERE (scope, id) = (?, ?)", (key.scope, key.id))
            time.sleep(0.01)
            return super().delete(key)


@caught_by(9, "test_the_next_forget_removes_what_a_killed_one_left", "is still stored")
class ForgetsTheStartFirst(TemplateStore):
    """Moves the start first and removes the records later: a killed process leaves records that are never removed."""

    def forget(self, key, *, before):
        with self._transaction(key) as (db, head):
            new = head and _write_head(db, replace(head, start=min(max(before, head.start), head.end)))
        time.sleep(0.01)
        for position in range(head.start, new.start) if head else ():
            with self._transaction() as (db, _):
                db.execute("DELETE FROM records WHERE (scope, id, position) = (?, ?, ?)", (key.scope, key.id, position))
        return new


@caught_by(4, "test_a_killed_writer_loses_no_append_and_leaves_no_partial_batch", "")
class HeadLater(TemplateStore):
    """Writes the records in one transaction and the head in the next: a crash in between blocks the next writer."""

    def append(self, key, bodies, *, after, revision, first=0):
        with self._transaction(key) as (db, head):
            if (head and head.revision.version) != (after and after.revision.version):
                raise Conflict(key, head)
            start, end = (head.start, head.end) if head else (first, first)
            rows = [_add_checksum(key.scope, key.id, position, body) for position, body in enumerate(bodies, end)]
            db.executemany("INSERT INTO records VALUES (?, ?, ?, ?, ?)", rows)
        time.sleep(0.05)
        with self._transaction() as (db, _):
            return _write_head(db, Head(key, start, end + len(bodies), revision))


@caught_by(10, "test_four_processes_lose_no_append", "after a head that was not the current one")
class Racing(TemplateStore):
    """Compares the version in one transaction and appends in another: two processes both succeed."""

    def append(self, key, bodies, *, after, revision, first=0):
        run = self.read(key, stop=0)
        present = run and run.head
        if (present and present.revision.version) != (after and after.revision.version):
            raise Conflict(key, present)
        time.sleep(0.05)
        while True:
            try:
                return super().append(key, bodies, after=present, revision=revision, first=first)
            except Conflict as conflict:
                present = conflict.head


@caught_by(3, "test_no_message_is_lost_or_doubled_when_answers_are_lost[after it was stored]", "stored twice")
class Eager(TemplateStore):
    """Accepts a repeated append after an outdated head: what the core repeats is stored twice."""

    def append(self, key, bodies, *, after, revision, first=0):
        try:
            return super().append(key, bodies, after=after, revision=revision, first=first)
        except Conflict as conflict:
            if conflict.head is None or conflict.head.revision.version != revision.version:
                raise
            again = replace(revision, version=revision.version[::-1])
            return super().append(key, bodies, after=conflict.head, revision=again)


@caught_by(8, "test_existing_conversations_are_untouched", "which is stored")
class Sweeping(TemplateStore):
    """Deletes the conversations of this id in all scopes."""

    def delete(self, key, *, version=None):
        done = super().delete(key, version=version)
        with self._transaction() as (db, _):
            db.execute("DELETE FROM heads WHERE id = ?", (key.id,))
        return done


@caught_by(3, "test_an_append_without_an_answer_can_be_repeated", "but the append was stored")
class Liar(TemplateStore):
    """Reports "not stored" for an append that was stored before its answer was lost."""

    outcome: ClassVar = "not stored"


@caught_by(7, "test_a_damaged_record_raises_corrupt_record[0]", "DID NOT RAISE")
class Skipping(TemplateStore):
    """Skips records that it cannot read."""

    def read(self, key, *, start=0, stop=None):
        try:
            return super().read(key, start=start, stop=stop)
        except CorruptRecord as error:
            return self.read(key, start=error.position + 1, stop=stop)


@hookimpl
def chathistory_store(scheme):
    return WRONG.get(scheme)


@contextmanager
def _answers_lost(store):
    """Carry out an append, and then fail like a broken connection."""
    append = store.append

    def losing(*args, **options):
        append(*args, **options)
        raise StoreUnavailable(
            "the connection broke", outcome=getattr(store, "outcome", "unknown")
        ) from ConnectionResetError()

    store.append = losing
    try:
        yield
    finally:
        del store.append


def _damaged(store, key, position):
    _executed(store, "UPDATE records SET body = '[' || body", "(scope, id, position) = (?, ?, ?)", key, position)


def _damaged_head(store, key):
    _executed(store, "UPDATE heads SET high = high + 1", "(scope, id) = (?, ?)", key)


def _executed(store, sql, where, key, *values):
    with closing(sqlite3.connect(store._path)) as db, db:
        db.execute(f"{sql} WHERE {where}", (key.scope, key.id, *values))


def _remains(text):
    return [str(path) for path in Path().glob("history.db*") if text.encode() in path.read_bytes()]


hooks = CertifyHooks(
    lose_answer=_answers_lost,
    damage=_damaged,
    damage_head=_damaged_head,
    lose_index=lambda store, key: None,
    remains=_remains,
    crash=lambda: None,
)
