"""The base of wrong stores on a database: pauses between statements, in which other writers run."""

from __future__ import annotations

import functools
import threading
import time
from contextlib import contextmanager, nullcontext

from chathistory_template import _read_head
from correct_sql_store import RecoveringStore

PAUSE = 0.002
"""Seconds in which other writers run. Each race has dozens of rounds; a longer pause makes a failure more certain."""


class SQL(RecoveringStore):
    """The base class of the wrong stores on a database, which is correct itself.

    Attributes:
        one_writer: Whether writers with single statements wait for each other, as with an advisory lock.
        hidden_by_its_lock: Whether the mistake does not show with a single instance and any number of threads.
    """

    one_writer = True
    hidden_by_its_lock = False
    _writers: dict = {}  # noqa: RUF012

    def __init__(self, place):
        super().__init__(place)
        self._stepping = threading.local()
        self._one_at_a_time = self._writers.setdefault(place, threading.RLock()) if self.one_writer else nullcontext()

    def append(self, key, bodies, *, after, revision, first=0):
        with self._one_at_a_time:
            return super().append(key, bodies, after=after, revision=revision, first=first)

    def forget(self, key, *, before):
        with self._one_at_a_time:
            return super().forget(key, before=before)

    def delete(self, key, *, version=None):
        with self._one_at_a_time:
            return super().delete(key, version=version)

    def _transaction(self, key=None, begin="BEGIN IMMEDIATE"):
        stepping = getattr(self._stepping, "on", False)
        return self._statements(key) if stepping else super()._transaction(key, begin)

    @contextmanager
    def _statements(self, key):
        """Commit each statement separately; keep the lock of the instance all the time."""
        self._open_guard.check()
        with self._lock:
            db = self._db = self._db or self._connect()
            yield Paused(db), _read_head(db, key) if key else None

    def run_now(self, sql, *values):
        """Run one statement in its own transaction."""
        with self._transaction() as (db, _):
            return db.execute(sql, values).fetchall()


class Paused:
    """A connection that commits each statement separately, with a pause before each."""

    def __init__(self, db):
        self.db = db

    def execute(self, sql, values=()):
        time.sleep(PAUSE)
        return self.db.execute(sql, values)

    def executemany(self, sql, rows):
        for row in rows:
            self.db.execute(sql, row)


def commit_each_statement(method, *, writes=True):
    """Let a method of the store commit each of its statements separately."""

    @functools.wraps(method)
    def stepped(self, *args, **options):
        with self._one_at_a_time if writes else nullcontext():
            self._stepping.on = True
            try:
                return method(self, *args, **options)
            finally:
                self._stepping.on = False

    return stepped
