"""The present head of a conversation, and the one that this process has seen last.

The guard of a write is the ETag of the object that the writer read or wrote. So what was seen last is kept for some
conversations: an append that goes on from there needs no look before it. If it is out of date, the service says so.

A call that names a conversation gets the error of a damaged head. A walk gets it as a value, and goes on.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from chathistory.errors import CorruptRecord, UnsupportedRecord
from chathistory.storage.values import Damaged, Key
from chathistory_s3.bucket import Bucket
from chathistory_s3.errors import ObjectMissing, ObjectUnavailable, PreconditionFailed
from chathistory_s3.names import ObjectNames
from chathistory_s3.schema import HeadContent, Tombstone, decode_head, encode_head, find_key

__all__ = ["OTHER_CONVERSATION", "Heads", "S3StoredHead"]

OTHER_CONVERSATION = "the object holds another conversation"
CACHED = 64
"""Conversations whose last seen head (up to about 150 kB) is kept."""

H = TypeVar("H", bound="S3StoredHead | None")

_PEEK = 8192  # bytes that nearly always have the head, without the records


@dataclass(frozen=True, slots=True)
class S3StoredHead:
    """The object of a conversation, and the ETag that guards it."""

    content: HeadContent | Tombstone
    etag: str

    @property
    def living(self) -> HeadContent | None:
        """The conversation; None if it was deleted."""
        return self.content if isinstance(self.content, HeadContent) else None


class Heads:
    """The objects of the conversations."""

    def __init__(self, bucket: Bucket, names: ObjectNames) -> None:
        self.bucket = bucket
        self.names = names
        self._lock = threading.Lock()
        self._cache: OrderedDict[Key, S3StoredHead] = OrderedDict()

    def get_cached(self, key: Key) -> S3StoredHead | None:
        """Return what was seen last, which may be out of date; None: it is not kept."""
        with self._lock:
            return self._cache.get(key)

    def load(self, key: Key) -> S3StoredHead | None:
        """Return what is there now; None: nothing is. Raises `CorruptRecord` or `UnsupportedRecord`."""
        try:
            data, etag = self.bucket.get(self.names.head(key))
        except ObjectMissing:
            return self._update_cache(key, None)
        except ObjectUnavailable as unavailable:
            raise _unavailable_error(key) from unavailable.__cause__
        return self._update_cache(key, S3StoredHead(self.decode(data, self.names.head(key), key), etag))

    def decode(self, data: bytes, name: str, key: Key | None, *, with_tail: bool = True) -> HeadContent | Tombstone:
        """Return what the bytes of the object of that name say. Raises `CorruptRecord` or `UnsupportedRecord`."""
        content = decode_head(data, key, with_tail=with_tail)
        if isinstance(content, HeadContent) and self.names.head(content.head.key) != name:
            raise CorruptRecord(key, None, OTHER_CONVERSATION)
        return content

    def peek(self, name: str, scope: str | None = None) -> S3StoredHead | Damaged | None:
        """Return the object of that name without its records; None: there is none.

        `scope` as in `ObjectNames.key_of`.
        """
        try:
            data, etag = self.bucket.get(name, size=_PEEK)
            if len(data) == _PEEK and b"\n" not in data:
                data, etag = self.bucket.get(name)
        except ObjectMissing:
            return None
        except ObjectUnavailable as unavailable:
            error = _unavailable_error(self.names.key_of(name, scope))
            error.__cause__ = unavailable.__cause__
            return Damaged(error.key, name, error)
        return self.parse(name, data, etag, scope)

    def peek_all(self, names: Iterable[str], scope: str | None = None) -> list[S3StoredHead | Damaged | None]:
        """Return what `peek` returns for each of these names, read side by side."""
        return self.bucket.run_parallel([partial(self.peek, name, scope) for name in names])

    def parse(self, name: str, data: bytes, etag: str, scope: str | None = None) -> S3StoredHead | Damaged:
        """Return what the beginning of the object of that name says, without its records."""
        key = self.names.key_of(name, scope) or find_key(data, lambda told: self.names.head(told) == name)
        try:
            return S3StoredHead(self.decode(data, name, key, with_tail=False), etag)
        except (CorruptRecord, UnsupportedRecord) as error:
            return Damaged(key, name, error)

    def put(self, key: Key, content: HeadContent | Tombstone, *, over: S3StoredHead | None) -> S3StoredHead:
        """Put `content` in the place of what was found there. Raises `PreconditionFailed` if that has changed."""
        name, data = self.names.head(key), encode_head(content)
        self._update_cache(key, None)
        try:
            etag = self.bucket.create(name, data) if over is None else self.bucket.replace(name, data, etag=over.etag)
        except ObjectMissing as missing:
            raise PreconditionFailed(uncertain=False) from missing.__cause__
        return self._update_cache(key, S3StoredHead(content, etag))

    def _update_cache(self, key: Key, stored: H) -> H:
        with self._lock:
            self._cache.pop(key, None)
            if stored is not None:
                self._cache[key] = stored
                if len(self._cache) > CACHED:
                    self._cache.popitem(last=False)
        return stored


def _unavailable_error(key: Key | None) -> CorruptRecord:
    return CorruptRecord(key, None, "the service does not return the object")
