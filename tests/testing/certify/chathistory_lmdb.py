"""Conversations in LMDB: `lmdb:./history.lmdb`. Somebody else's backend, written from `docs/writing-a-backend.md`.

By scope and id, of which keys hold a hash (LMDB's are short): the head (`h`), its place in the listing (`l`), what that
place is (`p`), and each record (`r`). Heads and records begin with their checksum.
"""

import hashlib
import json
import os
import zlib
from contextlib import contextmanager
from dataclasses import astuple, replace
from itertools import takewhile
from threading import Lock
from typing import ClassVar
from weakref import WeakValueDictionary

import lmdb

from chathistory import BaseStore, Damaged, Head, Key, Option, ReadResult, Record, Revision, Traits, hookimpl
from chathistory.errors import Conflict, CorruptRecord, StoreRejected, StoreUnavailable
from chathistory.storage.checks import check_version


class LMDBStore(BaseStore):
    traits = Traits(durable=True, shared=True)
    options: ClassVar = {"size": Option(int, 2**33, "bytes that the file may grow to")}
    _open: ClassVar = WeakValueDictionary()  # LMDB must not open a file twice in one process
    _lock: ClassVar = Lock()

    def __init__(self, path, size=2**33):
        super().__init__()
        self._path, self._size, self._env = os.path.realpath(path), size, None

    @classmethod
    def from_url(cls, url):
        return cls(url.path, url.options["size"])

    def _append_records(self, key, bodies, *, after, revision, first):
        with self._transaction(write=True) as txn:
            old = _head(txn, key)
            check_version(key, old, after)
            new = old or Head(key, first, first, revision)
            for position, body in enumerate(bodies, new.end):
                txn.put(_record(key, position), _summed(body.encode()))
            return _put(txn, replace(new, end=new.end + len(bodies), revision=revision))

    def _read_range(self, key, start, stop):
        with self._transaction() as txn:
            if (head := _head(txn, key)) is None:
                return None
            wanted = head.narrow(start, stop)[:100]
            bodies = list(
                takewhile(lambda body: body is not None, (_sound(txn.get(_record(key, at))) for at in wanted))
            )
        if wanted and not bodies:
            raise CorruptRecord(key, wanted.start, "it is missing, or its checksum is wrong")
        return ReadResult(head, list(map(Record, wanted, map(bytes.decode, bodies))))

    def _list_heads(self, scope, *, below, count):
        start = _listed(scope, *below) + b"\0" if below else b""
        return self._read_heads(b"l" + _hash(scope), start, count)

    def _list_keys(self, scope):
        rows = self._read_heads(b"h" + (_hash(scope) if scope else b""))
        return [row.key for row in rows if isinstance(row, Head)]

    def _list_damaged_keys(self, scope):
        rows = self._read_heads(b"h" + (_hash(scope) if scope else b""))
        return [row for row in rows if isinstance(row, Damaged)]

    def _read_heads(self, prefix, start=b"", count=-1):
        """Return heads, `count` at most (-1: all), and the damaged ones among them."""
        rows = []
        with self._transaction() as txn:
            cursor = txn.cursor()
            cursor.set_range(start or prefix)
            for at, value in takewhile(lambda pair: pair[0].startswith(prefix), cursor):
                try:
                    rows.append(_made(txn.get(value) if prefix[:1] == b"l" else value))
                    count -= 1
                except CorruptRecord as error:
                    rows.append(Damaged(None, at.hex(), error))
                if count == 0:
                    break
        return rows

    def _forget_records(self, key, before):
        with self._transaction(write=True) as txn:
            return (head := _head(txn, key)) and _cut(txn, head, head.drop_below(before))

    def _delete(self, key, version):
        with self._transaction(write=True) as txn:
            if version is not None and (head := _head(txn, key)) and version != head.revision.version:
                raise Conflict(key, head)
            return _removed(txn, _hash(*astuple(key)))

    def _remove_leftovers(self, scope):
        damaged = self._list_damaged_keys(scope)
        with self._transaction(write=True) as txn:
            for each in damaged:
                _removed(txn, bytes.fromhex(each.where)[1:])
        return replace(super()._remove_leftovers(scope), removed=len(damaged))

    def _close(self):
        self._env = None  # the last of its users closes it

    @contextmanager
    def _transaction(self, *, write=False):
        try:
            with self._opened().begin(write=write) as txn:
                yield txn
        except (lmdb.Error, OSError) as error:
            kind = StoreRejected if isinstance(error, lmdb.MapFullError) else StoreUnavailable
            raise kind(f"LMDB failed: {type(error).__name__}") from error

    def _opened(self):
        with self._lock:
            here = os.getpid(), self._path
            for owner in [owner for owner in self._open if owner[0] != here[0]]:
                self._open.pop(owner).close()  # LMDB opens a file once: a forked child lets go of what its parent has
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


def _summed(data):
    return zlib.crc32(data).to_bytes(4, "big") + data


def _sound(value):
    """Return the data of a value; None if that is missing or damaged."""
    return value[4:] if value and value == _summed(value[4:]) else None


def _head(txn, key):
    value = txn.get(b"h" + _hash(*astuple(key)))
    return _made(value, key) if value is not None else None


def _made(value, key=None):
    if (data := _sound(value)) is None:
        raise CorruptRecord(key, None, "its checksum is wrong")
    key, start, end, revision = json.loads(data)
    return Head(Key(*key), start, end, Revision(*revision))


def _put(txn, head):
    here = _hash(*astuple(head.key))
    place = _listed(head.key.scope, head.revision.updated, head.key.id)
    txn.delete(txn.get(b"p" + here) or b" ")
    txn.put(b"p" + here, place)
    txn.put(place, b"h" + here)
    txn.put(b"h" + here, _summed(json.dumps(astuple(head)).encode()))
    return head


def _removed(txn, here):
    cursor = txn.cursor()
    while cursor.set_range(b"r" + here) and cursor.key().startswith(b"r" + here):
        cursor.delete()
    txn.delete(txn.pop(b"p" + here) or b" ")
    return txn.delete(b"h" + here)


def _cut(txn, old, new):
    for position in range(old.start, new.start):
        txn.delete(_record(old.key, position))
    return _put(txn, new)


@hookimpl
def chathistory_store(scheme):
    return LMDBStore if scheme == "lmdb" else None
