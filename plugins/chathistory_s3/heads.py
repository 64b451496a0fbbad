"""The current head of a conversation, and a cache of the heads that this process read or wrote last.

A write is conditional on the ETag of the object that the writer has read or written. The heads of a few conversations
are cached, so an append to one of them needs no read first. If a cached head is out of date, the service refuses the
write.

A call for one conversation raises the error of a damaged head. A walk gets it as a value, and continues.
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
MAX_CACHED_HEADS = 64
"""The most heads in the cache (at most about 150 kB each)."""

H = TypeVar("H", bound="S3StoredHead | None")

_PEEK_SIZE = 8192  # bytes that nearly always include the head


@dataclass(frozen=True, slots=True)
class S3StoredHead:
    """The content of a conversation's object, and its ETag."""

    content: HeadContent | Tombstone
    etag: str

    @property
    def living(self) -> HeadContent | None:
        """The content of the conversation; None if it was deleted."""
        return self.content if isinstance(self.content, HeadContent) else None


class Heads:
    """Reads, caches and conditionally writes the objects of the conversations."""

    def __init__(self, bucket: Bucket, names: ObjectNames) -> None:
        self.bucket = bucket
        self.names = names
        self._lock = threading.Lock()
        self._cache: OrderedDict[Key, S3StoredHead] = OrderedDict()

    def get_cached(self, key: Key) -> S3StoredHead | None:
        """Return the cached head, which may be out of date; None if it is not cached."""
        with self._lock:
            return self._cache.get(key)

    def load(self, key: Key) -> S3StoredHead | None:
        """Read the object of a conversation; None if it does not exist.

        Args:
            key: The conversation.

        Raises:
            CorruptRecord: The head is damaged.
            UnsupportedRecord: A later version wrote it.
        """
        try:
            data, etag = self.bucket.get(self.names.head(key))
        except ObjectMissing:
            return self._update_cache(key, None)
        except ObjectUnavailable as unavailable:
            raise _unavailable_error(key) from unavailable.__cause__
        return self._update_cache(key, S3StoredHead(self.decode(data, self.names.head(key), key), etag))

    def decode(self, data: bytes, name: str, key: Key | None, *, with_tail: bool = True) -> HeadContent | Tombstone:
        """Decode the object with a name; raise an error if its head is damaged. See also `decode_prefix`.

        Args:
            data: The bytes of the object.
            name: The name of the object.
            key: The conversation, for errors; None if unknown.
            with_tail: Whether `data` includes the records.

        Raises:
            CorruptRecord: The head is damaged, or of another conversation.
            UnsupportedRecord: A later version wrote it.
        """
        content = decode_head(data, key, with_tail=with_tail)
        if isinstance(content, HeadContent) and self.names.head(content.head.key) != name:
            raise CorruptRecord(key, None, OTHER_CONVERSATION)
        return content

    def peek(self, name: str, scope: str | None = None) -> S3StoredHead | Damaged | None:
        """Read the head in the object with a name, without its records; None if it does not exist.

        Args:
            name: The name of the object.
            scope: As in `ObjectNames.key_of`.
        """
        try:
            data, etag = self.bucket.get(name, size=_PEEK_SIZE)
            if len(data) == _PEEK_SIZE and b"\n" not in data:
                data, etag = self.bucket.get(name)
        except ObjectMissing:
            return None
        except ObjectUnavailable as unavailable:
            error = _unavailable_error(self.names.key_of(name, scope))
            error.__cause__ = unavailable.__cause__
            return Damaged(error.key, name, error)
        return self.decode_prefix(name, data, etag, scope)

    def peek_all(self, names: Iterable[str], scope: str | None = None) -> list[S3StoredHead | Damaged | None]:
        """Return the results of `peek` for several objects, read in parallel.

        Args:
            names: The names of the objects.
            scope: As in `ObjectNames.key_of`.

        Returns:
            The results, in the order of the names.
        """
        return self.bucket.run_parallel([partial(self.peek, name, scope) for name in names])

    def decode_prefix(self, name: str, data: bytes, etag: str, scope: str | None = None) -> S3StoredHead | Damaged:
        """Decode the beginning of the object with a name, without its records; return damage as a value.

        Args:
            name: The name of the object.
            data: Its first bytes.
            etag: Its ETag.
            scope: As in `ObjectNames.key_of`.
        """
        key = self.names.key_of(name, scope) or find_key(data, lambda key: self.names.head(key) == name)
        try:
            return S3StoredHead(self.decode(data, name, key, with_tail=False), etag)
        except (CorruptRecord, UnsupportedRecord) as error:
            return Damaged(key, name, error)

    def put(self, key: Key, content: HeadContent | Tombstone, *, over: S3StoredHead | None) -> S3StoredHead:
        """Create or replace the object of a conversation.

        Args:
            key: The conversation.
            content: The new content.
            over: The object to replace, as it was read; None to create it.

        Returns:
            The new content with its ETag.

        Raises:
            PreconditionFailed: The object has changed, or exists.
        """
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
                if len(self._cache) > MAX_CACHED_HEADS:
                    self._cache.popitem(last=False)
        return stored


def _unavailable_error(key: Key | None) -> CorruptRecord:
    return CorruptRecord(key, None, "the service does not return the object; it may be archived, or its key disabled")
