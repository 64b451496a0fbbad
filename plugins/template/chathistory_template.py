"""Conversations in a SQLite database: `template:./history.db`. A complete backend, made to be copied."""

import sqlite3
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, replace
from pathlib import Path
from threading import Lock
from typing import Any, ClassVar, Self

from chathistory import (
    Cursor,
    Damaged,
    Head,
    HistoryStore,
    Key,
    Option,
    Page,
    ReadResult,
    Record,
    Revision,
    StoreURL,
    Traits,
    hookimpl,
)
from chathistory.errors import ConfigError, Conflict, CorruptRecord, InvalidInput, StoreRejected, StoreUnavailable
from chathistory.storage.cursors import decode_cursor, encode_cursor
from chathistory.storage.open_guard import OpenGuard
from chathistory.storage.store import check_append, check_position, check_range
from chathistory.storage.url import seconds

SCHEMA = """
    PRAGMA synchronous = FULL;  -- what is committed is on the disk
    PRAGMA secure_delete = ON;  -- what is forgotten is overwritten; a write-ahead log would keep it for a while
    CREATE TABLE IF NOT EXISTS heads (
        scope, id, low, high, version, updated INTEGER NOT NULL, expires, info, sum, PRIMARY KEY (scope, id));
    CREATE INDEX IF NOT EXISTS newest ON heads (scope, updated, id);
    CREATE TABLE IF NOT EXISTS records (scope, id, position, body, sum, PRIMARY KEY (scope, id, position));"""
OURS = "(scope, id) = (?, ?)"


class TemplateStore(HistoryStore):
    """One file, one connection, one lock; instances are kept apart by SQLite's own locks."""

    traits: ClassVar = Traits(durable=True, shared=True)
    options: ClassVar = {"timeout": Option(seconds, 60.0, "seconds to wait for another writer")}

    def __init__(self, path: Path, timeout: float) -> None:
        self._path, self._timeout, self._lock, self._open_guard = path, timeout, Lock(), OpenGuard()
        self._db: sqlite3.Connection | None = None

    @classmethod
    def from_url(cls, url: StoreURL) -> Self:
        if not url.path:
            raise ConfigError("template: needs the path of a file, such as template:./history.db")
        return cls(Path(url.path), url.options["timeout"])

    def append(
        self, key: Key, bodies: Sequence[str], *, after: Head | None, revision: Revision, first: int = 0
    ) -> Head:
        batch = check_append(bodies, revision, self.traits, first=first)
        with self._transaction(key) as (db, head):
            if (head and head.revision.version) != (after and after.revision.version):
                raise Conflict(key, head)
            start, end = (head.start, head.end) if head else (first, first)
            rows = [_summed(*astuple(key), position, body) for position, body in enumerate(batch, end)]
            db.executemany("INSERT INTO records VALUES (?, ?, ?, ?, ?)", rows)
            return _put(db, Head(key, start, end + len(batch), revision))

    def read(self, key: Key, *, start: int = 0, stop: int | None = None) -> ReadResult | None:
        check_range(start, stop)
        with self._transaction(key, "BEGIN") as (db, head):
            if head is None:
                return None
            low = max(start if start >= 0 else head.end + start, head.start)
            due = range(low, min(head.end if stop is None else stop, head.end, low + 1000))  # not all at once
            sql = f"SELECT * FROM records WHERE {OURS} AND position >= ? AND position < ? ORDER BY position"
            rows = db.execute(sql, (*astuple(key), due.start, due.stop)).fetchall()
        sound = [row for row in rows if row == _summed(*row[:-1])]
        records = [Record(row[2], row[3]) for position, row in zip(due, sound, strict=False) if row[2] == position]
        if due and not records:
            raise CorruptRecord(key, due.start, "it is missing, or its checksum is wrong")
        return ReadResult(head, records)

    def heads(self, scope: str, *, after: Cursor | None = None, limit: int = 20) -> Page[Head]:
        if limit < 1:
            raise InvalidInput("a page has at least one item")
        last = () if after is None else decode_cursor(after)
        where = "scope = ? AND (updated, id) < (?, ?)" if last else "scope = ?"
        heads, damaged = self._walked(where, scope, *last, most=limit + 1)
        return Page(heads[:limit], encode_cursor(heads[limit - 1]) if len(heads) > limit else None, damaged)

    def keys(self, scope: str | None = None) -> Iterator[Key]:
        heads, damaged = self._walked("scope = ifnull(?, scope)", scope)
        return iter([*(head.key for head in heads), *(each.key for each in damaged if each.key)])

    def damaged_keys(self, scope: str | None = None) -> Iterator[Damaged]:
        _, damaged = self._walked("scope = ifnull(?, scope)", scope)
        return (each for each in damaged if each.key is None)

    def forget(self, key: Key, *, before: int) -> Head | None:
        check_position("before", before)
        with self._transaction(key) as (db, head):
            start = min(max(before, head.start), head.end) if head else 0
            db.execute(f"DELETE FROM records WHERE {OURS} AND position < ?", (*astuple(key), start))
            return head and _put(db, replace(head, start=start))

    def delete(self, key: Key, *, version: str | None = None) -> bool:
        with self._transaction(key if version is not None else None) as (db, head):  # a damaged one can be deleted, too
            if head and version != head.revision.version:
                raise Conflict(key, head)
            db.execute(f"DELETE FROM records WHERE {OURS}", astuple(key))
            return bool(db.execute(f"DELETE FROM heads WHERE {OURS}", astuple(key)).rowcount)

    def close(self) -> None:
        if self._open_guard.cut() and self._db:  # in a forked child nothing: the connection is its parent's
            with self._lock:
                self._db.close()

    def _walked(self, where: str, *values: object, most: int = -1) -> tuple[list[Head], list[Damaged]]:
        """Return the newest heads, so many at most, and the damaged ones among them."""
        heads: list[Head] = []
        damaged: list[Damaged] = []
        with self._transaction(begin="BEGIN") as (db, _):
            rows = db.execute(f"SELECT *, rowid FROM heads WHERE {where} ORDER BY updated DESC, id DESC", values)
            while len(heads) != most and (row := rows.fetchone()):
                try:
                    heads.append(_made(row))
                except CorruptRecord as error:
                    damaged.append(Damaged(_key(row), f"row {row[-1]} of heads", error))
        return heads, damaged

    @contextmanager
    def _transaction(self, key: Key | None = None, begin: str = "BEGIN IMMEDIATE") -> Iterator[tuple[Any, Head | None]]:
        """Yield the connection and the present head; all that SQLite raises becomes ours here."""
        self._open_guard.check()
        outcome: Any = "not stored"
        try:
            with self._lock:
                self._open_guard.check()  # it may have been closed while this thread waited
                db = self._db = self._db or self._connected()
                db.execute(begin)
                with db:  # commits, or rolls back
                    yield db, _head(db, key) if key else None
                    outcome = "unknown"  # from here on: the commit
        except (sqlite3.Error, OSError) as error:
            if getattr(error, "sqlite_errorcode", None) in {sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY}:
                raise StoreRejected(f"SQLite refused: {error}") from error
            raise StoreUnavailable(f"SQLite failed: {error}", outcome=outcome) from error

    def _connected(self) -> sqlite3.Connection:
        self._path.touch(mode=0o600)  # nobody else's to read
        db = sqlite3.connect(self._path, self._timeout, isolation_level=None, check_same_thread=False)
        db.text_factory = lambda raw: raw.decode(errors="surrogateescape")  # no valid key, and no sum
        db.executescript(SCHEMA)
        return db


def _summed(*values: Any) -> tuple[Any, ...]:
    """Return the values of a row with their checksum."""
    return *values, zlib.crc32(repr(values).encode())


def _key(row: tuple[Any, ...]) -> Key | None:
    """Return the key of a row; None if that is damaged."""
    try:
        return Key(row[0], row[1])
    except InvalidInput:
        return None


def _made(row: tuple[Any, ...]) -> Head:
    key = _key(row)
    if key is None or row[:9] != _summed(*row[:8]):
        raise CorruptRecord(key, None, "its checksum is wrong")
    return Head(key, row[2], row[3], Revision(*row[4:8]))


def _head(db: sqlite3.Connection, key: Key) -> Head | None:
    return next(map(_made, db.execute(f"SELECT * FROM heads WHERE {OURS}", astuple(key))), None)


def _put(db: sqlite3.Connection, head: Head) -> Head:
    row = _summed(*astuple(head.key), head.start, head.end, *astuple(head.revision))
    db.execute("REPLACE INTO heads VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
    return head


@hookimpl
def chathistory_store(scheme: str) -> type[HistoryStore] | None:
    """Serve `template:`."""
    return TemplateStore if scheme == "template" else None
