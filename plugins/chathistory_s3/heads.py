"""The present head of a conversation, and the one that this process has seen last.

The guard of a write is the ETag of the object that the writer read or wrote. So what was seen last is kept for some
conversations: an append that goes on from there needs no look before it. If it is out of date, the service says so.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass

from chathistory.store import Key
from chathistory_s3.bucket import Bucket
from chathistory_s3.content import GRAVE, Content, Grave, decoded, encoded, is_whole
from chathistory_s3.faults import Missing, Overtaken
from chathistory_s3.layout import Layout

__all__ = ["Found", "Heads"]

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
        """Return what is there now; None: nothing is."""
        try:
            data, etag = self._bucket.get(self._layout.head(key))
        except Missing:
            return self._keep(key, None)
        return self._keep(key, Found(decoded(data, key), etag))

    def glance(self, name: str) -> Content | Grave | None:
        """Return the object of that name without its records; None: there is none. Raises `CorruptRecord`."""
        try:
            data, _ = self._bucket.get(name, size=_GLANCE)
            if len(data) == _GLANCE and not is_whole(data):
                data, _ = self._bucket.get(name)
        except Missing:
            return None
        return decoded(data, None, with_tail=False, whose=self._layout.key_of(name))

    def grave(self, name: str) -> tuple[Grave, str] | None:
        """Return the grave in the object of that name, and its ETag; None: there is none. Raises `CorruptRecord`."""
        try:
            data, etag = self._bucket.get(name, size=GRAVE)
        except Missing:
            return None
        whose = self._layout.key_of(name)
        content = decoded(data, None, with_tail=False, whose=whose) if len(data) < GRAVE else None
        return (content, etag) if isinstance(content, Grave) else None

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
