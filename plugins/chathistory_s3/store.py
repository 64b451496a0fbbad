"""What the store does, in terms of the rest of the package."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Self, cast

from chathistory.checks import class_name
from chathistory.errors import ConfigError, InvalidInput
from chathistory.storage.open_guard import OpenGuard
from chathistory.storage.recovery import FoundRecords
from chathistory.storage.store import (
    Cursor,
    Damaged,
    Head,
    HistoryStore,
    Key,
    Leftovers,
    Page,
    ReadResult,
    Record,
    Revision,
    Traits,
    check_append,
    check_position,
    check_range,
)
from chathistory.storage.url import Option, StoreURL
from chathistory_s3.bucket import Bucket
from chathistory_s3.connection import OPTIONS, TIMEOUT, Connection, check_client, extra_of, place_of, prefix_of
from chathistory_s3.heads import Heads
from chathistory_s3.layout import BUCKET, Layout
from chathistory_s3.leftovers import remove_leftovers
from chathistory_s3.listing import page
from chathistory_s3.probe import probed
from chathistory_s3.reading import read
from chathistory_s3.recovering import find_records, read_found, restore_head
from chathistory_s3.sweep import GRACE, Swept, sweep
from chathistory_s3.walking import damaged_keys, keys, scan_keys
from chathistory_s3.writing import Writer

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

__all__ = ["ExactS3Store", "S3Store"]

_LARGEST = 256 * 1024 * 1024
_NOT_REACHED = ("old object versions", "replicas of the bucket", "backups of the bucket")


class S3Store(HistoryStore):
    """Conversations in a bucket, below a prefix. Its listing is in order wherever an hour has up to 100 of a scope.

    client: boto3's, of your own making; it is not closed. The other arguments are the options of a URL.
    """

    traits = Traits(
        durable=True,
        shared=True,
        recency="bucket",
        largest_record=_LARGEST,
        largest_batch=_LARGEST,
        not_reached=_NOT_REACHED,
    )
    options: ClassVar[Mapping[str, Option]] = OPTIONS
    _width: ClassVar[int] = BUCKET

    def __init__(
        self,
        client: S3Client | Connection,
        *,
        bucket: str,
        prefix: str = "",
        sse: str | None = None,
        kms_key: str | None = None,
        storage_class: str | None = None,
        timeout: float = TIMEOUT,
    ) -> None:
        own = isinstance(client, Connection)
        if not own:
            check_client(client)
        if not isinstance(bucket, str):
            raise ConfigError(f"bucket: must be the name of a bucket, not {class_name(bucket)}")
        connect = client.client if isinstance(client, Connection) else lambda: client
        extra = extra_of(sse, kms_key, storage_class)
        self._open_guard = OpenGuard()
        self._bucket = Bucket(connect, bucket, extra=extra, patience=timeout, owned=own)
        self._layout = Layout(prefix_of(prefix))
        self._heads = Heads(self._bucket, self._layout)
        self._writer = Writer(self._bucket, self._layout, self._heads, self._width)
        self._probing = threading.Lock()
        self._probed = False

    @classmethod
    def from_url(cls, url: StoreURL) -> Self:
        bucket, prefix = place_of(url)
        given = {name: url.options.get(name) for name in OPTIONS}
        kind = ExactS3Store if given.pop("recency") == "exact" else cls
        timeout = given.pop("timeout") or TIMEOUT
        extra = {name: given.pop(name) for name in ("sse", "kms_key", "storage_class")}
        connection = Connection(**given, timeout=timeout)
        return cast("Self", kind(connection, bucket=bucket, prefix=prefix, timeout=timeout, **extra))

    def append(
        self, key: Key, bodies: Sequence[str], *, after: Head | None, revision: Revision, first: int = 0
    ) -> Head:
        self._open_guard.check()
        batch = check_append(bodies, revision, self.traits, first=first)
        self._probe()
        return self._writer.append(key, batch, after=after, revision=revision, first=first)

    def read(self, key: Key, *, start: int = 0, stop: int | None = None) -> ReadResult | None:
        self._open_guard.check()
        check_range(start, stop)
        return read(self._bucket, self._layout, self._heads, key, start=start, stop=stop)

    def heads(self, scope: str, *, after: Cursor | None = None, limit: int = 20) -> Page[Head]:
        self._open_guard.check()
        if limit < 1:
            raise InvalidInput("a page has at least one item")
        exact = self.traits.recency == "exact"
        return page(self._bucket, self._layout, self._heads, scope, after=after, limit=limit, exact=exact)

    def keys(self, scope: str | None = None) -> Iterator[Key]:
        self._open_guard.check()
        return keys(self._bucket, self._layout, self._heads, scope)

    def damaged_keys(self, scope: str | None = None) -> Iterator[Damaged]:
        self._open_guard.check()
        return damaged_keys(self._bucket, self._layout, self._heads, scope)

    def scan_keys(self, scope: str | None = None) -> Iterator[Key]:
        """Yield what `keys` yields, and make the markers anew that were lost, so that `heads` is complete after it."""
        self._open_guard.check()
        return scan_keys(self._bucket, self._layout, self._heads, scope)

    def remove_leftovers(self, scope: str) -> Leftovers:
        """Remove what is stored in a scope beside conversations that can be read; then look whether anything is left.

        Objects that no conversation of this store can have are left where they are, and named.
        """
        self._open_guard.check()
        self._probe()
        return remove_leftovers(self._writer, scope)

    def find_records(self, key: Key) -> FoundRecords | None:
        """Look at what is stored under a key, as `HeadRecovery` says."""
        self._open_guard.check()
        return find_records(self._writer, key)

    def read_found(self, found: FoundRecords, *, start: int, stop: int) -> Sequence[Record]:
        """Return the sound records at positions [start, stop), as `HeadRecovery` says."""
        self._open_guard.check()
        return read_found(self._writer, found, start=start, stop=stop)

    def restore_head(self, found: FoundRecords, head: Head) -> Head:
        """Store a head in the place of a damaged one, as `HeadRecovery` says; not over one of a later version."""
        self._open_guard.check()
        self._probe()
        return restore_head(self._writer, found, head)

    def forget(self, key: Key, *, before: int) -> Head | None:
        self._open_guard.check()
        check_position("before", before)
        self._probe()
        return self._writer.forget(key, before=before)

    def delete(self, key: Key, *, version: str | None = None) -> bool:
        self._open_guard.check()
        self._probe()
        return self._writer.delete(key, version=version)

    def sweep(self, *, now: float | None = None, grace: float = GRACE) -> Swept:
        """Remove what has expired by `now` and what crashes left over more than `grace` seconds before it.

        Times in seconds, `now` since 1970 (None: the time of this machine). To be run now and then; readers and
        writers need not stop. Raises what the other methods raise; what was done until then stays done.
        """
        self._open_guard.check()
        self._probe()
        return sweep(self._writer, now=time.time() if now is None else now, grace=grace)

    def close(self) -> None:
        if self._open_guard.close():
            self._bucket.close()

    def _probe(self) -> None:
        """See, before the first write, whether the service can be trusted with the guard."""
        if self._probed:
            return
        with self._probing:
            if not self._probed:
                self._bucket.service = probed(self._bucket, self._layout)
                self._probed = True


class ExactS3Store(S3Store):
    """The same, for two more requests per append, with every listing in order to the microsecond.

    All who write into one prefix should be of one kind: a conversation is in its exact place once this kind wrote it.
    """

    traits = Traits(
        durable=True,
        shared=True,
        recency="exact",
        largest_record=_LARGEST,
        largest_batch=_LARGEST,
        not_reached=_NOT_REACHED,
    )
    _width: ClassVar[int] = 1
