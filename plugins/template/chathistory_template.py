"""Conversations in a SQLite database: `template:./history.db`. A complete backend, made to be copied."""

import sqlite3
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple
from pathlib import Path
from threading import Lock
from typing import Any, ClassVar, Self

from chathistory import (
    BaseStore,
    Damaged,
    Head,
    HistoryStore,
    Key,
    Option,
    ReadResult,
    Record,
    Revision,
    StoreURL,
    Traits,
    hookimpl,
)
from chathistory.errors import ConfigError, Conflict, CorruptRecord, InvalidInput, StoreRejected, StoreUnavailable
from chathistory.storage.checks import check_version
from chathistory.storage.url import parse_seconds
from chathistory.storage.values import SortKey

SCHEMA = """
    PRAGMA synchronous = FULL;  -- committed data are on the disk
    PRAGMA secure_delete = ON;  -- forgotten data are overwritten; a write-ahead log would keep them for a while
    CREATE TABLE IF NOT EXISTS heads (
        scope, id, low, high, version, updated INTEGER NOT NULL, expires, info, sum, PRIMARY KEY (scope, id));
    CREATE INDEX IF NOT EXISTS newest ON heads (scope, updated, id);
    CREATE TABLE IF NOT EXISTS records (scope, id, position, body, sum, PRIMARY KEY (scope, id, position));"""
OURS = "(scope, id) = (?, ?)"


class TemplateStore(BaseStore):
    """One file, one connection, one lock; instances are kept apart by SQLite's own locks."""

    traits = Traits(durable=True, shared=True)
    options: ClassVar = {"timeout": Option(parse_seconds, 60.0, "seconds to wait for another writer")}

    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__()
        self._path, self._timeout, self._lock = path, timeout, Lock()
        self._db: sqlite3.Connection | None = None

    @classmethod
    def from_url(cls, url: StoreURL) -> Self:
        if not url.path:
            raise ConfigError("template: needs the path of a file, such as template:./history.db")
        return cls(Path(url.path), url.options["timeout"])

    def _append_records(
        self, key: Key, bodies: list[str], *, after: Head | None, revision: Revision, first: int
    ) -> Head:
        with self._transaction(key) as (db, head):
            check_version(key, head, after)
            start, end = (head.start, head.end) if head else (first, first)
            rows = [_add_checksum(*astuple(key), position, body) for position, body in enumerate(bodies, end)]
            db.executemany("INSERT INTO records VALUES (?, ?, ?, ?, ?)", rows)
            return _write_head(db, Head(key, start, end + len(bodies), revision))

    def _read_range(self, key: Key, start: int, stop: int | None) -> ReadResult | None:
        with self._transaction(key, "BEGIN") as (db, head):
            if head is None:
                return None
            wanted = head.narrow(start, stop)[:1000]  # not all at once
            sql = f"SELECT * FROM records WHERE {OURS} AND position >= ? AND position < ? ORDER BY position"
            rows = db.execute(sql, (*astuple(key), wanted.start, wanted.stop)).fetchall()
        sound = [row for row in rows if row == _add_checksum(*row[:-1])]
        records = [Record(row[2], row[3]) for position, row in zip(wanted, sound, strict=False) if row[2] == position]
        if wanted and not records:
            raise CorruptRecord(key, wanted.start, "it is missing, or its checksum is wrong")
        return ReadResult(head, records)

    def _list_heads(self, scope: str, *, below: SortKey | None, count: int) -> list[Head | Damaged]:
        where = "scope = ? AND (updated, id) < (?, ?)" if below else "scope = ?"
        return self._read_heads(where, scope, *(below or ()), count=count)

    def _list_keys(self, scope: str | None) -> list[Key]:
        return [row.key for row in self._read_heads("scope = ifnull(?, scope)", scope) if row.key]

    def _list_damaged_keys(self, scope: str | None) -> list[Damaged]:
        rows = self._read_heads("scope = ifnull(?, scope)", scope)
        return [row for row in rows if isinstance(row, Damaged) and row.key is None]

    def _forget_records(self, key: Key, before: int) -> Head | None:
        with self._transaction(key) as (db, head):
            if head is None:
                return None
            new = head.drop_below(before)
            db.execute(f"DELETE FROM records WHERE {OURS} AND position < ?", (*astuple(key), new.start))
            return _write_head(db, new)

    def _delete(self, key: Key, version: str | None) -> bool:
        with self._transaction(key if version is not None else None) as (db, head):  # a damaged one can be deleted, too
            if head and version != head.revision.version:
                raise Conflict(key, head)
            db.execute(f"DELETE FROM records WHERE {OURS}", astuple(key))
            return bool(db.execute(f"DELETE FROM heads WHERE {OURS}", astuple(key)).rowcount)

    def _close(self) -> None:
        if self._db:
            with self._lock:
                self._db.close()

    def _read_heads(self, where: str, *values: object, count: int = -1) -> list[Head | Damaged]:
        """Return the newest heads, `count` at most (-1: all), with the damaged ones among them."""
        found: list[Head | Damaged] = []
        with self._transaction(begin="BEGIN") as (db, _):
            rows = db.execute(f"SELECT *, rowid FROM heads WHERE {where} ORDER BY updated DESC, id DESC", values)
            while count != 0 and (row := rows.fetchone()):
                try:
                    found.append(_head_from_row(row))
                    count -= 1
                except CorruptRecord as error:
                    found.append(Damaged(_key_from_row(row), f"row {row[-1]} of heads", error))
        return found

    @contextmanager
    def _transaction(self, key: Key | None = None, begin: str = "BEGIN IMMEDIATE") -> Iterator[tuple[Any, Head | None]]:
        """Yield the connection and the present head; all that SQLite raises becomes ours here."""
        outcome: Any = "not stored"
        try:
            with self._lock:
                self._check_open()  # it may have been closed while this thread waited
                db = self._db = self._db or self._connect()
                db.execute(begin)
                with db:  # commits, or rolls back
                    yield db, _read_head(db, key) if key else None
                    outcome = "unknown"  # from here on: the commit
        except (sqlite3.Error, OSError) as error:
            if getattr(error, "sqlite_errorcode", None) in {sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY}:
                raise StoreRejected(f"SQLite refused: {error}") from error
            raise StoreUnavailable(f"SQLite failed: {error}", outcome=outcome) from error

    def _connect(self) -> sqlite3.Connection:
        self._path.touch(mode=0o600)  # nobody else's to read
        db = sqlite3.connect(self._path, self._timeout, isolation_level=None, check_same_thread=False)
        db.text_factory = lambda raw: raw.decode(errors="surrogateescape")  # no valid key, and no sum
        db.executescript(SCHEMA)
        return db


def _add_checksum(*values: Any) -> tuple[Any, ...]:
    """Return the values of a row with their checksum."""
    return *values, zlib.crc32(repr(values).encode())


def _key_from_row(row: tuple[Any, ...]) -> Key | None:
    """Return the key of a row; None if that is damaged."""
    try:
        return Key(row[0], row[1])
    except InvalidInput:
        return None


def _head_from_row(row: tuple[Any, ...]) -> Head:
    key = _key_from_row(row)
    if key is None or row[:9] != _add_checksum(*row[:8]):
        raise CorruptRecord(key, None, "its checksum is wrong")
    return Head(key, row[2], row[3], Revision(*row[4:8]))


def _read_head(db: sqlite3.Connection, key: Key) -> Head | None:
    return next(map(_head_from_row, db.execute(f"SELECT * FROM heads WHERE {OURS}", astuple(key))), None)


def _write_head(db: sqlite3.Connection, head: Head) -> Head:
    row = _add_checksum(*astuple(head.key), head.start, head.end, *astuple(head.revision))
    db.execute("REPLACE INTO heads VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
    return head


@hookimpl
def chathistory_store(scheme: str) -> type[HistoryStore] | None:
    """Serve `template:`."""
    return TemplateStore if scheme == "template" else None
