"""Stores that leave rows of forgotten or deleted conversations, or lose conversations in an index."""

from __future__ import annotations

from dataclasses import astuple, replace

from chathistory_template import OURS, _write_head
from wrong_sql_base import SQL
from wrong_stores import caught_by

from chathistory.storage.values import Head, Leftovers

FORGOTTEN = "test_no_text_remains_after_forget"
DELETED = "test_no_text_remains_after_delete"
REFUSED = "test_no_text_remains_of_refused_appends_after_an_erasure"
LOST = "test_scan_keys_finds_conversations_missing_from_the_index"


class Tables(SQL):
    """Has a table more."""

    tables = ""

    def _connect(self):
        db = super()._connect()
        db.executescript(self.tables)
        return db


@caught_by(FORGOTTEN, "test_no_text_remains_of_a_partly_forgotten_batch")
class ForgetMovesTheStart(SQL):
    """Moves the start, and leaves the rows."""

    def forget(self, key, *, before):
        with self._transaction(key) as (db, head):
            return head and _write_head(db, replace(head, start=min(max(before, head.start), head.end)))


@caught_by(DELETED, "test_no_text_remains_of_an_earlier_conversation_of_the_same_name")
class DeletedRowsAreMarked(Tables):
    """Moves deleted rows to another table, like a soft delete."""

    tables = """CREATE TABLE IF NOT EXISTS bin (scope, id, position, body, sum);"""

    def delete(self, key, *, version=None):
        self.run_now(f"INSERT INTO bin SELECT * FROM records WHERE {OURS}", *astuple(key))
        return super().delete(key, version=version)


@caught_by(DELETED)
class DeletedHeadsAreMarked(Tables):
    """Keeps the heads of deleted conversations, with their payload."""

    tables = (
        """CREATE TABLE IF NOT EXISTS deleted_heads (scope, id, low, high, version, updated, expires, info, sum);"""
    )

    def delete(self, key, *, version=None):
        self.run_now(f"INSERT INTO deleted_heads SELECT * FROM heads WHERE {OURS}", *astuple(key))
        return super().delete(key, version=version)


@caught_by(DELETED, FORGOTTEN)
class AuditTrail(Tables):
    """Writes each record to a second table, which nobody empties."""

    tables = """CREATE TABLE IF NOT EXISTS audit (scope, id, body);"""

    def append(self, key, bodies, *, after, revision, first=0):
        head = super().append(key, bodies, after=after, revision=revision, first=first)
        for body in bodies:
            self.run_now("INSERT INTO audit VALUES (?, ?, ?)", *astuple(key), body)
        return head


@caught_by(DELETED, FORGOTTEN)
class FreedPagesKeepTheirText(SQL):
    """Leaves freed pages of its files as they are."""

    def _connect(self):
        db = super()._connect()
        db.execute("PRAGMA secure_delete = OFF")
        return db


@caught_by(DELETED, FORGOTTEN)
class LogKeepsItsText(SQL):
    """Leaves in its write-ahead log what its files no longer have."""

    def _connect(self):
        db = super()._connect()
        db.execute("PRAGMA journal_mode = WAL")
        return db


@caught_by(REFUSED)
class StagedRowsStay(Tables):
    """Stages each batch before it checks the version, and leaves refused ones."""

    tables = """CREATE TABLE IF NOT EXISTS staged (scope, id, version, body);"""

    def append(self, key, bodies, *, after, revision, first=0):
        for body in bodies:
            self.run_now("INSERT INTO staged VALUES (?, ?, ?, ?)", *astuple(key), revision.version, body)
        head = super().append(key, bodies, after=after, revision=revision, first=first)
        self.run_now("DELETE FROM staged WHERE version = ?", revision.version)
        return head


class Indexed(Tables):
    """Lists by an index that is a table of its own; it can lose an entry."""

    tables = """CREATE TABLE IF NOT EXISTS places (scope, id, PRIMARY KEY (scope, id));"""

    def append(self, key, bodies, *, after, revision, first=0):
        head = super().append(key, bodies, after=after, revision=revision, first=first)
        self.run_now("REPLACE INTO places VALUES (?, ?)", *astuple(key))
        return head

    def _read_heads(self, where, *values, count=-1):
        return super()._read_heads(f"{where} AND (scope, id) IN places", *values, count=count)

    @classmethod
    def lose_index(cls, place, key):
        cls.execute(place, f"DELETE FROM places WHERE {OURS}", key)


@caught_by(LOST, "test_no_text_remains_outside_the_index_after_an_erasure")
class IndexIsAllThereIs(Indexed):
    """Scans by the index, too."""

    def is_index_complete(self):
        return False


@caught_by(LOST)
class IndexIsTrusted(Indexed):
    """Scans the storage, but says that its index is complete."""

    def scan_keys(self, scope=None):
        rows = super(Indexed, self)._read_heads("scope = ifnull(?, scope)", scope)
        return iter([row.key for row in rows if isinstance(row, Head)])


@caught_by("test_scan_keys_finds_the_same_as_keys")
class ScanByRecords(SQL):
    """Finds conversations by their records: one without any is not found."""

    def scan_keys(self, scope=None):
        named = set(super().scan_keys(scope))
        rows = self.run_now("SELECT DISTINCT scope, id FROM records")
        return iter([key for key in named if astuple(key) in rows])


@caught_by("test_scan_keys_finds_the_same_as_keys", "test_scan_keys_returns_every_name_unchanged")
class ScanByPrefix(SQL):
    """Finds the conversations of all scopes that begin with these letters."""

    def scan_keys(self, scope=None):
        return iter([key for key in super().scan_keys() if key.scope.startswith(scope or "")])


@caught_by("test_remove_leftovers_keeps_readable_conversations")
class NothingIsEverLeft(SQL):
    """Says that nothing is left, whatever there is."""

    def remove_leftovers(self, scope):
        return Leftovers(0, (), complete=True)


@caught_by("test_remove_leftovers_keeps_readable_conversations")
class LeftoversAreEverything(SQL):
    """Removes what can be read, too."""

    def remove_leftovers(self, scope):
        removed = sum(self.delete(key) for key in list(self.keys(scope)))
        return Leftovers(removed, (), complete=True)


@caught_by(
    REFUSED,
    "test_remove_leftovers_of_an_empty_scope_reports_complete",
    "test_remove_leftovers_keeps_readable_conversations",
)
class LeftoversOfAllScopes(SQL):
    """Removes data of other scopes."""

    def remove_leftovers(self, scope):
        for key in list(self.keys()):
            if key.scope != scope:
                self.delete(key)
        return super().remove_leftovers(scope)


@caught_by("test_keys_yields_unchanged_conversations_once_during_writes")
class KeysByOffset(SQL):
    """Pages through the keys by counting."""

    def keys(self, scope=None):
        offset = 0
        while rows := sorted(super().keys(scope))[offset : offset + 5]:
            yield from rows
            offset += 5
