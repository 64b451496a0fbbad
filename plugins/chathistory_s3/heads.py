"""The present head of a conversation, and the one that this process has seen last.

The guard of a write is the ETag of the object that the writer read or wrote. So what was seen last is kept for some
conversations: an append that goes on from there needs no look before it. If it is out of date, the service says so.

A call that names a conversation gets the error of a damaged head. A walk gets it as a value, and goes on.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass

from chathistory.errors import CorruptRecord, UnsupportedRecord
from chathistory.storage.store import Damaged, Key
from chathistory_s3.bucket import Bucket
from chathistory_s3.content import Content, Grave, decoded, encoded, is_whole, told_key
from chathistory_s3.faults import Missing, Overtaken, Withheld
from chathistory_s3.layout import Layout

__all__ = ["ANOTHER", "Found", "Heads"]

ANOTHER = "the object holds another conversation"
KEPT = 64
"""Conversations whose last seen head (up to about 150 kB) is kept."""

_GLANCE = 8192  # bytes that nearly always have the head, without the records


@dataclass(frozen=True, slots=True)
class Found:
    """An object, and the ETag that guards it."""

    content: Content | Grave
    etag: str


class Heads:
    """The objects of the conversations."""

    def __init__(self, bucket: Bucket, layout: Layout) -> None:
        self._bucket = bucket
        self._layout = layout
        self._lock = threading.Lock()
        self._seen: OrderedDict[Key, Found] = OrderedDict()

    def seen(self, key: Key) -> Found | None:
        """Return what was seen last, which may be out of date; None: it is not kept."""
        with self._lock:
            return self._seen.get(key)

    def look(self, key: Key) -> Found | None:
        """Return what is there now; None: nothing is. Raises `CorruptRecord` or `UnsupportedRecord`."""
        name = self._layout.head(key)
        try:
            data, etag = self._bucket.get(name)
        except Missing:
            return self._keep(key, None)
        except Withheld as withheld:
            raise _withheld(key, withheld) from withheld.__cause__
        return self._keep(key, Found(self.checked(data, key), etag))

    def checked(self, data: bytes, key: Key) -> Content | Grave:
        """Return what the bytes of the object of a conversation say. Raises `CorruptRecord` or `UnsupportedRecord`."""
        return self._checked(decoded(data, key), self._layout.head(key), key)

    def glance(self, name: str, scope: str | None = None) -> Found | Damaged | None:
        """Return the object of that name without its records; None: there is none. `scope` as in `Layout.key_of`."""
        try:
            data, etag = self._bucket.get(name, size=_GLANCE)
            if len(data) == _GLANCE and not is_whole(data):
                data, etag = self._bucket.get(name)
        except Missing:
            return None
        except Withheld as withheld:
            key = self._layout.key_of(name, scope)
            return Damaged(key, name, _withheld(key, withheld))
        return self.parsed(name, data, etag, scope)

    def parsed(self, name: str, data: bytes, etag: str, scope: str | None = None) -> Found | Damaged:
        """Return what the beginning of the object of that name says, without its records."""
        key = self._layout.key_of(name, scope) or told_key(data, lambda told: self._layout.head(told) == name)
        try:
            return Found(self._checked(decoded(data, key, with_tail=False), name, key), etag)
        except (CorruptRecord, UnsupportedRecord) as error:
            return Damaged(key, name, error)

    def raw(self, name: str) -> tuple[bytes, str] | None:
        """Return the bytes of the object of that name and its ETag; b"" if it is not given out; None: there is none."""
        try:
            return self._bucket.get(name)
        except Missing:
            return None
        except Withheld:
            return next(((b"", entry.etag) for entry in self._bucket.listed(name) if entry.object == name), None)

    def _checked(self, content: Content | Grave, name: str, key: Key | None) -> Content | Grave:
        if isinstance(content, Content) and self._layout.head(content.head.key) != name:
            raise CorruptRecord(key, None, ANOTHER)
        return content

    def put(self, key: Key, content: Content | Grave, *, over: Found | None) -> Found:
        """Put `content` in the place of what was found there. Raises `Overtaken` if that has changed."""
        name, data = self._layout.head(key), encoded(content)
        self._keep(key, None)
        try:
            etag = self._bucket.create(name, data) if over is None else self._bucket.replace(name, data, etag=over.etag)
        except Missing as missing:
            raise Overtaken(uncertain=False) from missing.__cause__
        found = Found(content, etag)
        self._keep(key, found)
        return found

    def _keep(self, key: Key, found: Found | None) -> Found | None:
        with self._lock:
            self._seen.pop(key, None)
            if found is not None:
                self._seen[key] = found
                if len(self._seen) > KEPT:
                    self._seen.popitem(last=False)
        return found


def _withheld(key: Key | None, withheld: Withheld) -> CorruptRecord:
    error = CorruptRecord(key, None, "the service does not give the object out")
    error.__cause__ = withheld.__cause__
    return error
