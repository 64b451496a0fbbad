"""A correct store on a real database: the template with HeadRecovery."""

from __future__ import annotations

import zlib
from contextlib import closing
from dataclasses import astuple

from chathistory_template import OURS, TemplateStore, _add_checksum, _head_from_row, _write_head

from chathistory.errors import Conflict, CorruptRecord
from chathistory.storage.abilities import FoundRecords
from chathistory.storage.values import Record


class SQLStore(TemplateStore):
    """Its place is a folder; what the hooks of the contract do, they do by SQL or to the files."""

    def __init__(self, place):
        super().__init__(place / "history.db", 60)

    @classmethod
    def unreachable(cls, place):
        (place / "a-file").write_text("where a folder should be")
        return cls(place / "a-file")

    @classmethod
    def remains(cls, place, text):
        files = [path for path in place.rglob("*") if path.is_file()]
        return [path.name for path in files if text.encode() in path.read_bytes()]

    @classmethod
    def damage_record(cls, place, key, position):
        cls.execute(place, f"UPDATE records SET body = '[' || body WHERE {OURS} AND position = ?", key, position)

    @classmethod
    def damage_head(cls, place, key):
        cls.execute(place, f"UPDATE heads SET high = high + 1 WHERE {OURS}", key)

    @classmethod
    def lose_index(cls, place, key):
        pass

    @classmethod
    def execute(cls, place, sql, key, *values):
        with cls(place) as store, closing(store._connect()) as db, db:
            db.execute(sql, (*astuple(key), *values))


class RecoveringStore(SQLStore):
    """A store that can give a conversation a new head."""

    def find_records(self, key):
        with self._transaction(begin="BEGIN") as (db, _):
            row = self._row(db, key)
            rows = db.execute(f"SELECT * FROM records WHERE {OURS} ORDER BY position", astuple(key)).fetchall()
        if row is None and not rows:
            return None
        start = row[2] if row and not _problem(row) else min((found[2] for found in rows), default=0)
        end = max((found[2] + 1 for found in rows if found == _add_checksum(*found[:-1])), default=start)
        return FoundRecords(key, _token(row), start, end, _problem(row))

    def read_found(self, found, *, start, stop):
        sql = f"SELECT * FROM records WHERE {OURS} AND position >= ? AND position < ? ORDER BY position"
        with self._transaction(begin="BEGIN") as (db, _):
            rows = db.execute(sql, (*astuple(found.key), start, stop)).fetchall()
        return [Record(row[2], row[3]) for row in rows if row == _add_checksum(*row[:-1])]

    def restore_head(self, found, head):
        with self._transaction() as (db, _):
            row = self._row(db, found.key)
            if _token(row) != found.token:
                raise Conflict(found.key, None if row is None or _problem(row) else _head_from_row(row))
            outside = f"DELETE FROM records WHERE {OURS} AND NOT (position >= ? AND position < ?)"
            db.execute(outside, (*astuple(head.key), head.start, head.end))
            return _write_head(db, head)

    def _row(self, db, key):
        return db.execute(f"SELECT * FROM heads WHERE {OURS}", astuple(key)).fetchone()


def _token(row):
    return "" if row is None else str(zlib.crc32(repr(row).encode()))


def _problem(row):
    try:
        return "it is missing" if row is None else _head_from_row(row) and None
    except CorruptRecord as error:
        return error.reason
