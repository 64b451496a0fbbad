"""Conversations in LMDB: `lmdb:./history.lmdb`. Somebody else's backend, written from `docs/writing-a-backend.md`.

By scope and id, of which keys hold a hash (LMDB's are short): the head (`h`), its place in the listing (`l`), and each
record (`r`).
"""

import hashlib
import json
import os
from contextlib import contextmanager
from dataclasses import astuple, replace
from itertools import islice, takewhile
from threading import Lock
from typing import ClassVar
from weakref import WeakValueDictionary

import lmdb

from chathistory import Head, HistoryStore, Key, Option, Page, Record, Slice, Stamp, Traits, hookimpl
from chathistory.cursor import decode_cursor, encode_cursor
from chathistory.errors import Conflict, CorruptRecord, InvalidInput, StoreRejected, StoreUnavailable
from chathistory.lifeline import Lifeline
from chathistory.store import check_append


class LMDBStore(HistoryStore):
    traits: ClassVar = Traits(durable=True, shared=True)
    options: ClassVar = {"size": Option(int, 2**33, "bytes that the file may grow to")}
    _open: ClassVar = WeakValueDictionary()  # LMDB must not open a file twice in one process
    _lock: ClassVar = Lock()

    def __init__(self, path, size=2**33):
        self._path, self._size, self._env, self._lifeline = os.path.realpath(path), size, None, Lifeline()

    @classmethod
    def from_url(cls, url):
        return cls(url.path, url.options["size"])

    def append(self, key, bodies, *, after, stamp, first=0):
        batch = check_append(bodies, stamp, self.traits, first=first)
        with self._transaction(write=True) as txn:
            old = _head(txn, key)
            if (old and old.stamp.version) != (after and after.stamp.version):
                raise Conflict(key, old)
            new = old or Head(key, first, first, stamp)
            for position, body in enumerate(batch, new.end):
                txn.put(_record(key, position), body.encode())
            return _put(txn, replace(new, end=new.end + len(batch), stamp=stamp), old)

    def read(self, key, *, start=0, stop=None):
        with self._transaction() as txn:
            if (head := _head(txn, key)) is None:
                return None
            low = max(start if start >= 0 else head.end + start, head.start)
            due = range(low, min(head.end if stop is None else stop, head.end, low + 100))
            bodies = [txn.get(_record(key, position)) for position in due]
        if None in bodies:
            raise CorruptRecord(key, due[bodies.index(None)], "it is missing")
        return Slice(head, [Record(position, body.decode()) for position, body in zip(due, bodies, strict=True)])

    def heads(self, scope, *, after=None, limit=20):
        if limit < 1:
            raise InvalidInput("a page has at least one item")
        place = _listed(scope, *decode_cursor(after)) + b"\0" if after is not None else b""
        with self._transaction() as txn:
            found = [_made(txn.get(at)) for at in islice(_values(txn, b"l" + _hash(scope), place), limit + 1)]
        return Page(found[:limit], encode_cursor(found[limit - 1]) if len(found) > limit else None)

    def keys(self, scope=None):
        with self._transaction() as txn:
            return iter([_made(value).key for value in _values(txn, b"h" + (_hash(scope) if scope else b""))])

    def forget(self, key, *, before):
        with self._transaction(write=True) as txn:
            return (head := _head(txn, key)) and _cut(txn, head, min(max(before, head.start), head.end))

    def delete(self, key, *, version=None):
        with self._transaction(write=True) as txn:
            if (head := _head(txn, key)) is None:
                return False
            if version not in (None, head.stamp.version):
                raise Conflict(key, head)
            _cut(txn, head, head.end)
            txn.delete(_listed(key.scope, head.stamp.updated, key.id))
            return txn.delete(b"h" + _hash(*astuple(key)))

    def close(self):
        if self._lifeline.cut():
            self._env = None  # the last of its users closes it

    @contextmanager
    def _transaction(self, *, write=False):
        self._lifeline.check()
        try:
            with self._opened().begin(write=write) as txn:
                yield txn
        except (lmdb.Error, OSError) as error:
            kind = StoreRejected if isinstance(error, lmdb.MapFullError) else StoreUnavailable
            raise kind(f"LMDB failed: {type(error).__name__}") from error

    def _opened(self):
        with self._lock:
            here = os.getpid(), self._path
            self._env = self._env or self._open.get(here) or lmdb.open(self._path, self._size, subdir=False, mode=0o600)
            return self._open.setdefault(here, self._env)


def _hash(*texts):
    return b"".join(hashlib.sha256(text.encode()).digest()[:16] for text in texts)


def _record(key, position):
    return b"r" + _hash(*astuple(key)) + position.to_bytes(8, "big")


def _listed(scope, updated, id):
    """The newest first, then by id, the last first; of an id that is longer than LMDB's keys, by its beginning."""
    order = updated.to_bytes(8, "big") + id.encode()[:440] + b"\0"
    return b"l" + _hash(scope) + bytes(255 - byte for byte in order) + _hash(id)


def _values(txn, prefix, start=b""):
    cursor = txn.cursor()
    cursor.set_range(start or prefix)
    return (value for _, value in takewhile(lambda pair: pair[0].startswith(prefix), cursor))


def _head(txn, key):
    value = txn.get(b"h" + _hash(*astuple(key)))
    return value and _made(value)


def _made(value):
    key, start, end, stamp = json.loads(value)
    return Head(Key(*key), start, end, Stamp(*stamp))


def _put(txn, head, old):
    key, place = head.key, b"h" + _hash(*astuple(head.key))
    txn.delete(_listed(key.scope, (old or head).stamp.updated, key.id))
    txn.put(_listed(key.scope, head.stamp.updated, key.id), place)
    txn.put(place, json.dumps(astuple(head)).encode())
    return head


def _cut(txn, head, start):
    for position in range(head.start, start):
        txn.delete(_record(head.key, position))
    return _put(txn, replace(head, start=start), head)


@hookimpl
def chathistory_store(scheme):
    return LMDBStore if scheme == "lmdb" else None
