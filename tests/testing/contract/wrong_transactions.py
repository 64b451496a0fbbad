"""Stores that use a database wrongly: transactions, isolation, replicas."""

from __future__ import annotations

import sqlite3
import time
from contextlib import contextmanager, suppress
from dataclasses import astuple, replace
from threading import Event, RLock

from chathistory_template import OURS, _add_checksum, _read_head, _write_head
from correct_sql_store import RecoveringStore
from wrong_sql_base import PAUSE, SQL, Paused, commit_each_statement
from wrong_stores import caught_by

from chathistory.errors import Conflict
from chathistory.storage.checks import check_append
from chathistory.storage.values import Head

ONE_MOMENT = "test_read_returns_head_and_records_of_one_moment"
DELETED_AT_ONCE = "test_delete_is_never_seen_half_done"
ONE_WINS = ("test_exactly_one_of_many_appends_succeeds", "test_exactly_one_of_many_threads_creates_the_conversation")
AT_ONCE = ("test_every_instance_sees_each_write_at_once", "test_two_instances_see_each_others_writes_at_once")


@caught_by(ONE_MOMENT, DELETED_AT_ONCE)
class ReadCommitted(SQL):
    """Reads the head by one statement and the records by the next, each of its own moment."""

    hidden_by_its_lock = True
    read = commit_each_statement(RecoveringStore.read, writes=False)


@caught_by(ONE_MOMENT)
class CommittedRecordByRecord(SQL):
    """Commits each record of a batch, with its head, by itself."""

    def append(self, key, bodies, *, after, revision, first=0):
        head = after
        with self._one_at_a_time:
            for body in check_append(bodies, revision, self.traits, first=first):
                head = super().append(key, [body], after=head, revision=revision, first=first)
                time.sleep(PAUSE)
        return head


@caught_by(ONE_MOMENT)
class ForgetInSteps(SQL):
    """Deletes the rows, and then moves the start."""

    hidden_by_its_lock = True
    forget = commit_each_statement(RecoveringStore.forget)


@caught_by(DELETED_AT_ONCE)
class DeleteInSteps(SQL):
    """Deletes the records, and then the head."""

    hidden_by_its_lock = True
    delete = commit_each_statement(RecoveringStore.delete)


@caught_by("test_delete_removes_nothing_of_the_next_conversation")
class DeleteHeadFirst(SQL):
    """Deletes the head, and later the records, whosever they are by then."""

    one_writer = False

    def append(self, key, bodies, *, after, revision, first=0):
        if after is None:
            self.run_now(f"DELETE FROM records WHERE {OURS} AND NOT EXISTS (SELECT 1 FROM heads WHERE {OURS})",
                     *astuple(key), *astuple(key))  # fmt: skip
        return super().append(key, bodies, after=after, revision=revision, first=first)

    def delete(self, key, *, version=None):
        with self._transaction(key if version is not None else None) as (db, head):
            if head and version != head.revision.version:
                raise Conflict(key, head)
            gone = bool(db.execute(f"DELETE FROM heads WHERE {OURS}", astuple(key)).rowcount)
        time.sleep(PAUSE)
        self.run_now(f"DELETE FROM records WHERE {OURS}", *astuple(key))
        return gone


@caught_by(ONE_MOMENT, "test_creating_an_existing_conversation_is_a_conflict_during_writes")
class HeadDeletedAndInserted(SQL):
    """Replaces the head as a DELETE and an INSERT."""

    one_writer = False
    append = commit_each_statement(RecoveringStore.append)

    @contextmanager
    def _statements(self, key):
        with super()._statements(key) as (db, head):
            yield DeletesAndInserts(db.db), head


class DeletesAndInserts(Paused):
    def execute(self, sql, values=()):
        if sql.startswith("REPLACE INTO heads"):
            self.db.execute(f"DELETE FROM heads WHERE {OURS}", values[:2])
        return super().execute(sql, values)

    def executemany(self, sql, rows):
        super().executemany(sql.replace("INSERT", "REPLACE"), rows)


@caught_by(ONE_WINS[0])
class HeadAfterItsRecords(SQL):
    """Writes the records, over whatever is there, in one transaction, and the head under its guard in the next."""

    one_writer = False

    def append(self, key, bodies, *, after, revision, first=0):
        batch = check_append(bodies, revision, self.traits, first=first)
        with self._transaction(key) as (db, head):
            self._check(key, head, after)
            start, end = (head.start, head.end) if head else (first, first)
            rows = [_add_checksum(*astuple(key), position, body) for position, body in enumerate(batch, end)]
            db.executemany("REPLACE INTO records VALUES (?, ?, ?, ?, ?)", rows)
        time.sleep(PAUSE)
        with self._transaction(key) as (db, head):
            self._check(key, head, after)
            return _write_head(db, Head(key, head.start if head else start, end + len(batch), revision))

    def _check(self, key, head, after):
        if (head and head.revision.version) != (after and after.revision.version):
            raise Conflict(key, head)


class Unguarded(SQL):
    """Does by two transactions what has to be one; a lock keeps the threads of an instance apart, and nobody else."""

    hidden_by_its_lock = True
    one_writer = False

    def __init__(self, place):
        super().__init__(place)
        self._own = RLock()


@caught_by(*ONE_WINS)
class GuardInATransactionOfItsOwn(Unguarded):
    """Looks at the version in one transaction, and writes in another one."""

    def append(self, key, bodies, *, after, revision, first=0):
        with self._own:
            present = (run := self.read(key, stop=0)) and run.head
            if (present and present.revision.version) != (after and after.revision.version):
                raise Conflict(key, present)
            time.sleep(PAUSE)
            while True:
                try:
                    return super().append(key, bodies, after=present, revision=revision, first=first)
                except Conflict as conflict:
                    present = conflict.head


@caught_by("test_exactly_one_of_an_append_and_a_delete_succeeds")
class DeleteLooksFirst(Unguarded):
    """Looks at the version in one transaction, and deletes in another one."""

    appended = Event()  # by any instance, since somebody looked

    def append(self, key, bodies, *, after, revision, first=0):
        with self._own:
            head = super().append(key, bodies, after=after, revision=revision, first=first)
            self.appended.set()
            return head

    def delete(self, key, *, version=None):
        with self._own:
            self.appended.clear()
            present = (run := self.read(key, stop=0)) and run.head
            if present and version not in (None, present.revision.version):
                raise Conflict(key, present)
            self.appended.wait(25 * PAUSE)  # other threads of this instance wait meanwhile, so it may time out
            return super().delete(key)


@caught_by("test_forget_loses_no_concurrent_append")
class ForgetPutsAnOldHeadBack(Unguarded):
    """Reads the head in one transaction, and writes it, with another start, in the next."""

    def append(self, key, bodies, *, after, revision, first=0):
        with self._own:
            return super().append(key, bodies, after=after, revision=revision, first=first)

    def forget(self, key, *, before):
        with self._own:
            with self._transaction(key) as (_, head):
                pass
            time.sleep(PAUSE)
            with self._transaction() as (db, _):
                start = min(max(before, head.start), head.end) if head else 0
                db.execute(f"DELETE FROM records WHERE {OURS} AND position < ?", (*astuple(key), start))
                return head and _write_head(db, replace(head, start=start))


@caught_by("test_exactly_one_of_many_threads_creates_the_conversation")
class MadeByWhoeverIsLast(Unguarded):
    """Looks whether there is a conversation, and then makes it, over whatever is there by then."""

    def append(self, key, bodies, *, after, revision, first=0):
        with self._own:
            if after is not None or self.read(key, stop=0):
                return super().append(key, bodies, after=after, revision=revision, first=first)
            time.sleep(PAUSE)
            super().delete(key)
            try:
                return super().append(key, bodies, after=None, revision=revision, first=first)
            except Conflict as conflict:
                return conflict.head


@caught_by("test_a_refused_append_is_never_visible")
class DirtyReads(SQL):
    """Shows what another transaction has written, and takes back."""

    def append(self, key, bodies, *, after, revision, first=0):
        try:
            return super().append(key, bodies, after=after, revision=revision, first=first)
        except Conflict as conflict:
            with self._one_at_a_time, suppress(Conflict):
                present = conflict.head
                shown = present and super().append(key, bodies, after=present, revision=revision)
                time.sleep(PAUSE)
                self._take_back(present, shown)
            raise

    def _take_back(self, present, shown):
        if shown is not None:
            with self._transaction() as (db, _):
                db.execute(f"DELETE FROM records WHERE {OURS} AND position >= ?", (*astuple(shown.key), present.end))
                _write_head(db, present)


class Replicated(SQL):
    """Reads from a replica: a copy of the database that an instance makes with its own writes, and at first."""

    _replica = None

    def _copied(self):
        if self._replica is None:
            self._replica = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
            with self._transaction() as (db, _):
                db.commit()  # a backup waits for no reader
                db.backup(self._replica)
                db.execute("BEGIN")
        return self._replica

    @contextmanager
    def _on_the_replica(self, key):
        self._open_guard.check()
        replica = self._copied()
        with self._lock:
            yield replica, _read_head(replica, key) if key else None

    def append(self, key, bodies, *, after, revision, first=0):
        self._replica = None
        return super().append(key, bodies, after=after, revision=revision, first=first)

    def forget(self, key, *, before):
        self._replica = None
        return super().forget(key, before=before)

    def delete(self, key, *, version=None):
        self._replica = None
        return super().delete(key, version=version)


@caught_by(*AT_ONCE)
class StaleReplica(Replicated):
    """Reads everything from a replica without the latest writes of others."""

    def _transaction(self, key=None, begin="BEGIN IMMEDIATE"):
        return super()._transaction(key, begin) if begin != "BEGIN" else self._on_the_replica(key)


@caught_by(*AT_ONCE)
class ListingFromAReplica(Replicated):
    """Lists from a replica without the latest writes."""

    listing = False

    def _transaction(self, key=None, begin="BEGIN IMMEDIATE"):
        return self._on_the_replica(key) if self.listing else super()._transaction(key, begin)

    def heads(self, scope, *, after=None, limit=20):
        self._copied()
        self.listing = True
        try:
            return super().heads(scope, after=after, limit=limit)
        finally:
            self.listing = False


@caught_by(*AT_ONCE)
class SnapshotThatNeverEnds(SQL):
    """Repeatable reads on a connection that never ends its transaction: it always reads what it read first."""

    _reading = None

    def _connect(self):
        db = super()._connect()
        db.execute("PRAGMA journal_mode = WAL")
        return db

    def _transaction(self, key=None, begin="BEGIN IMMEDIATE"):
        return super()._transaction(key, begin) if begin != "BEGIN" else self._in_the_snapshot(key)

    @contextmanager
    def _in_the_snapshot(self, key):
        self._open_guard.check()
        with self._lock:
            if self._reading is None:
                self._reading = self._connect()
                self._reading.execute("BEGIN")
            yield self._reading, _read_head(self._reading, key) if key else None

    def _ended(self):
        if self._reading is not None:
            self._reading.close()
            self._reading = None

    def append(self, key, bodies, *, after, revision, first=0):
        self._ended()
        return super().append(key, bodies, after=after, revision=revision, first=first)

    def forget(self, key, *, before):
        self._ended()
        return super().forget(key, before=before)

    def delete(self, key, *, version=None):
        self._ended()
        return super().delete(key, version=version)

    def close(self):
        super().close()
        self._ended()
