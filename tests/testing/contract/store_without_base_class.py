"""A correct store without a base class: it only has the public methods of `HistoryStore`."""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from types import NoneType

from chathistory.checks import check_type
from chathistory.errors import Conflict, InvalidInput, StoreClosed
from chathistory.storage.checks import check_append, check_position, check_range, check_version
from chathistory.storage.values import Head, Key, Leftovers, Page, ReadResult, Record, Traits


class DuckStore:
    """Keeps a dict of heads and one of bodies; its cursors are hexadecimal.

    It accepts no new attributes and is not hashable, since users of stores must rely on neither.
    """

    __slots__ = ("_bodies", "_heads", "_lock", "_open", "_process", "ttl")
    __hash__ = None

    traits = Traits(durable=False, shared=False)

    def __init__(self):
        self._heads, self._bodies, self._lock = {}, {}, threading.Lock()
        self._open, self._process, self.ttl = True, None, None

    def __eq__(self, other):
        return self is other

    def _check(self):
        if not self._open or self._process not in (None, os.getpid()):
            raise StoreClosed("this store is closed, or was used before a fork()")
        self._process = os.getpid()

    def append(self, key, bodies, *, after, revision, first=0):
        self._check()
        check_type("key", key, Key, "a Key")
        batch = check_append(bodies, revision, self.traits, first=first)
        with self._lock:
            check_version(key, self._heads.get(key), after)
            old = self._heads.get(key) or Head(key, first, first, revision)
            self._bodies |= {(key, position): body for position, body in enumerate(batch, old.end)}
            self._heads[key] = replace(old, end=old.end + len(batch), revision=revision)
            return self._heads[key]

    def read(self, key, *, start=0, stop=None):
        self._check()
        check_type("key", key, Key, "a Key")
        check_range(start, stop)
        with self._lock:
            head = self._heads.get(key)
            if head is None:
                return None
            return ReadResult(head, [Record(at, self._bodies[key, at]) for at in head.narrow(start, stop)])

    def heads(self, scope, *, after=None, limit=20):
        self._check()
        check_type("scope", scope, (str, NoneType), "text")
        check_position("limit", limit)
        if limit < 1:
            raise InvalidInput("limit must be at least 1")
        last = None if after is None else _place(after)
        with self._lock:
            heads = [head for key, head in self._heads.items() if key.scope == scope]
        rows = sorted(heads, key=lambda head: head.sort_key, reverse=True)
        rows = [head for head in rows if last is None or head.sort_key < last]
        return Page(rows[:limit], _cursor(rows[limit - 1]) if len(rows) > limit else None)

    def keys(self, scope=None):
        self._check()
        check_type("scope", scope, (str, NoneType), "text")
        with self._lock:
            return iter([key for key in self._heads if scope in (None, key.scope)])

    def scan_keys(self, scope=None):
        return self.keys(scope)

    def damaged_keys(self, scope=None):
        self._check()
        check_type("scope", scope, (str, NoneType), "text")
        return iter(())

    def is_index_complete(self):
        self._check()
        return True

    def forget(self, key, *, before):
        self._check()
        check_type("key", key, Key, "a Key")
        check_position("before", before)
        with self._lock:
            old = self._heads.get(key)
            if old is None:
                return None
            self._heads[key] = old.drop_below(before)
            for position in range(old.start, self._heads[key].start):
                del self._bodies[key, position]
            return self._heads[key]

    def delete(self, key, *, version=None):
        self._check()
        check_type("key", key, Key, "a Key")
        with self._lock:
            head = self._heads.get(key)
            if head is None:
                return False
            if version not in (None, head.revision.version):
                raise Conflict(key, head)
            del self._heads[key]
            for position in range(head.start, head.end):
                del self._bodies[key, position]
            return True

    def remove_leftovers(self, scope):
        check_type("scope", scope, (str, NoneType), "text")
        left = [key.id for key in self.keys(scope)]
        return Leftovers(0, tuple(left), not left)

    def check(self):
        self._check()

    def close(self):
        self._open = False

    def get_recovery(self):
        return None

    def get_storage_notes(self):
        return None

    def get_sweeping(self):
        return None

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.close()

    def find_text(self, text):
        """Return where a text is in the dicts."""
        found = [str(key) for key, head in self._heads.items() if text in head.revision.payload]
        return found + [f"{key} {at}" for (key, at), body in self._bodies.items() if text in body]


def _cursor(head):
    return f"{head.revision.updated:x}.{head.key.id.encode().hex()}"


def _place(cursor):
    updated, dot, id = cursor.partition(".")
    try:
        place = int(updated, 16), bytes.fromhex(id).decode()
    except ValueError:
        place = None
    if not (dot and place and id):
        raise InvalidInput("this is not a cursor that a page of this listing gave")
    return place
