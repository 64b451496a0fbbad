"""Stores on a real disk with one mistake each, which only running processes show; and those of the template's hooks."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import ClassVar

from chathistory_template import TemplateStore

from chathistory import hookimpl
from chathistory.errors import Conflict, CorruptRecord, StoreUnavailable
from chathistory.testing import CertifyHooks

WRONG: dict[str, type[TemplateStore]] = {}
CAUGHT: dict[str, tuple[int, str, str]] = {}
"""By scheme: the guarantee, the test that has to catch it, and words of what is seen."""


def caught_by(number, test, words):
    def keep(cls):
        scheme = cls.__name__.lower()
        WRONG[scheme], CAUGHT[scheme] = cls, (number, test, words)
        return cls

    return keep


@caught_by(4, "test_a_killed_writer_loses_nothing_and_leaves_nothing_by_halves", "")
class Late(TemplateStore):
    """Works in memory, and saves with every fifth append and at the end."""

    appends = 0

    def _connected(self):
        db = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        with closing(super()._connected()) as disk:
            disk.backup(db)
        return db

    def _save(self):
        with closing(super()._connected()) as disk:
            self._db.backup(disk)

    def append(self, key, bodies, *, after, stamp, first=0):
        head = super().append(key, bodies, after=after, stamp=stamp, first=first)
        self.appends += 1
        if self.appends % 5 == 0:
            self._save()
        return head


@caught_by(4, "test_a_killed_writer_loses_nothing_and_leaves_nothing_by_halves", "whole and in order")
class ByHalves(TemplateStore):
    """Stores each body of a batch by itself, so a killed writer leaves some of them."""

    def append(self, key, bodies, *, after, stamp, first=0):
        head = after
        for body in bodies:
            head = super().append(key, [body], after=head, stamp=stamp, first=first)
            time.sleep(0.02)
        return head


@caught_by(6, "test_an_append_and_a_tail_read_cost_the_same_in_a_large_conversation", "10000 records")
class Rewriting(TemplateStore):
    """Reads all that is there with every append."""

    def append(self, key, bodies, *, after, stamp, first=0):
        start, seen = 0, ""
        while run := self.read(key, start=start):
            seen = "".join([seen, *(record.body for record in run.records)])
            start += len(run.records)
            if start >= run.head.end:
                break
        return super().append(key, bodies, after=after, stamp=stamp, first=first)


@caught_by(10, "test_four_processes_lose_nothing", "after a head that was not present")
class Racing(TemplateStore):
    """Looks at the version in one transaction and appends in another: two processes both win."""

    def append(self, key, bodies, *, after, stamp, first=0):
        run = self.read(key, stop=0)
        present = run and run.head
        if (present and present.stamp.version) != (after and after.stamp.version):
            raise Conflict(key, present)
        time.sleep(0.05)
        while True:
            try:
                return super().append(key, bodies, after=present, stamp=stamp, first=first)
            except Conflict as conflict:
                present = conflict.head


@caught_by(3, "test_a_conversation_loses_and_doubles_nothing[after it was stored]", "is there twice")
class Eager(TemplateStore):
    """Takes an append whose head is not the present one if its end is: what the core repeats is stored twice."""

    def append(self, key, bodies, *, after, stamp, first=0):
        try:
            return super().append(key, bodies, after=after, stamp=stamp, first=first)
        except Conflict as conflict:
            if conflict.head is None or conflict.head.stamp.version != stamp.version:
                raise
            again = replace(stamp, version=stamp.version[::-1])
            return super().append(key, bodies, after=conflict.head, stamp=again)


@caught_by(8, "test_zz_what_was_there_before_is_untouched", "is absent")
class Sweeping(TemplateStore):
    """Deletes the conversations of this id in all scopes."""

    def delete(self, key, *, version=None):
        done = super().delete(key, version=version)
        with self._transaction() as (db, _):
            db.execute("DELETE FROM heads WHERE id = ?", (key.id,))
        return done


@caught_by(3, "test_an_append_whose_answer_never_comes", "and it was")
class Liar(TemplateStore):
    """Says "not stored" of an append whose answer is lost after it was stored."""

    outcome: ClassVar = "not stored"


@caught_by(7, "test_a_damaged_record_is_corrupt_and_not_absent[0]", "DID NOT RAISE")
class Skipping(TemplateStore):
    """Leaves out what it cannot read."""

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
    """Carry out what is asked for, and then fail as a connection does."""
    append = store.append

    def losing(*args, **options):
        append(*args, **options)
        msg = "the connection broke"
        raise StoreUnavailable(msg, outcome=getattr(store, "outcome", "unknown")) from ConnectionResetError()

    store.append = losing
    try:
        yield
    finally:
        del store.append


def _damaged(store, key, position):
    with sqlite3.connect(store._path) as db:
        where = "WHERE (scope, id, position) = (?, ?, ?)"
        db.execute(f"UPDATE records SET body = replace(body, '{{', '[') {where}", (key.scope, key.id, position))
    db.close()


hooks = CertifyHooks(lose_answer=_answers_lost, damage=_damaged, crash=lambda: None)
