"""The store: the hooks that `BaseStore` calls, by means of the rest of the package."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from chathistory.checks import class_name
from chathistory.errors import ConfigError
from chathistory.storage.abilities import FoundRecords
from chathistory.storage.base_store import BaseStore
from chathistory.storage.url import Option, StoreURL
from chathistory.storage.values import Cursor, Damaged, Head, Key, Leftovers, Page, ReadResult, Record, Revision, Traits
from chathistory_s3.bucket import Bucket
from chathistory_s3.heads import Heads
from chathistory_s3.listing import list_damaged_keys, list_keys, list_page, scan_keys
from chathistory_s3.names import HOUR, ObjectNames
from chathistory_s3.probe import probe_service
from chathistory_s3.read import read_range
from chathistory_s3.recovery import find_records, read_found, restore_head
from chathistory_s3.sweep import GRACE, S3SweepReport, remove_leftovers, sweep
from chathistory_s3.urls import (
    OPTIONS,
    TIMEOUT,
    S3ClientSettings,
    check_client,
    normalize_prefix,
    split_location,
    write_options,
)
from chathistory_s3.write import S3Writer

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

__all__ = ["S3Store"]

_LARGEST = 256 * 1024 * 1024


class S3Store(BaseStore):
    """Conversations in a bucket, below a prefix.

    With `recency="bucket"`, a listing is in exact order for each hour with up to 100 conversations of a scope. With
    "exact" it is in order to the microsecond, for two more requests per append. All writers below one prefix should use
    the same setting: a conversation gets its exact place only when it is written with "exact".
    """

    traits = Traits(
        durable=True,
        shared=True,
        recency="bucket",
        largest_record=_LARGEST,
        largest_batch=_LARGEST,
        not_reached=("old object versions", "replicas of the bucket", "backups of the bucket"),
    )
    options: ClassVar[Mapping[str, Option]] = OPTIONS

    def __init__(
        self,
        client: S3Client | S3ClientSettings,
        *,
        bucket: str,
        prefix: str = "",
        sse: str | None = None,
        kms_key: str | None = None,
        storage_class: str | None = None,
        recency: Literal["bucket", "exact"] = "bucket",
        timeout: float = TIMEOUT,
    ) -> None:
        """Open a store, without any request.

        Args:
            client: A `boto3.client("s3")`, which `close` does not close; or the settings to create a client with.
            bucket: The name of the bucket.
            prefix: The beginning of the names of all objects.
            sse: The encryption of every object, "AES256" or "aws:kms"; None for the bucket's default.
            kms_key: The key for `sse="aws:kms"`.
            storage_class: The storage class of every object; None for the service's default.
            recency: The order of listings, "bucket" or "exact"; see above.
            timeout: Seconds after which a failed request is not repeated.

        Raises:
            ConfigError: An argument is invalid.
        """
        super().__init__()
        if not isinstance(client, S3ClientSettings):
            check_client(client)
        if not isinstance(bucket, str):
            raise ConfigError(f"bucket: must be the name of a bucket, not {class_name(bucket)}")
        if recency not in {"bucket", "exact"}:
            raise ConfigError('recency: must be "bucket" or "exact"')
        self.traits = replace(self.traits, recency=recency)
        self._bucket = Bucket(
            client.create_client if isinstance(client, S3ClientSettings) else lambda: client,
            bucket,
            write_options=write_options(sse, kms_key, storage_class),
            timeout=timeout,
            owns_client=isinstance(client, S3ClientSettings),
        )
        self._names = ObjectNames(normalize_prefix(prefix))
        self._heads = Heads(self._bucket, self._names)
        self._writer = S3Writer(self._heads, 1 if recency == "exact" else HOUR)
        self._probe_lock = threading.Lock()
        self._is_probed = False

    @classmethod
    def from_url(cls, url: StoreURL) -> Self:
        bucket, prefix = split_location(url)
        given = {name: value for name in OPTIONS if (value := url.options.get(name)) is not None}
        own = {name: given.pop(name) for name in ("sse", "kms_key", "storage_class", "recency") if name in given}
        timeout = given.setdefault("timeout", TIMEOUT)
        return cls(S3ClientSettings(**given), bucket=bucket, prefix=prefix, timeout=timeout, **own)

    def _append_records(
        self, key: Key, bodies: list[str], *, after: Head | None, revision: Revision, first: int
    ) -> Head:
        self._ensure_probed()
        return self._writer.append(key, bodies, after=after, revision=revision, first=first)

    def _read_range(self, key: Key, start: int, stop: int | None) -> ReadResult | None:
        return read_range(self._heads, key, start, stop)

    def _list_page(self, scope: str, *, after: Cursor | None, limit: int) -> Page[Head]:
        return list_page(self._heads, scope, after=after, limit=limit, exact=self.traits.recency == "exact")

    def _list_keys(self, scope: str | None) -> Iterator[Key]:
        return list_keys(self._heads, scope)

    def _list_damaged_keys(self, scope: str | None) -> Iterator[Damaged]:
        return list_damaged_keys(self._heads, scope)

    def _scan_keys(self, scope: str | None) -> Iterator[Key]:
        """Yield all keys, and create lost markers again, so that `heads` is complete after it."""
        return scan_keys(self._heads, scope)

    def _forget_records(self, key: Key, before: int) -> Head | None:
        self._ensure_probed()
        return self._writer.forget(key, before)

    def _delete(self, key: Key, version: str | None) -> bool:
        self._ensure_probed()
        return self._writer.delete(key, version)

    def _remove_leftovers(self, scope: str) -> Leftovers:
        """Remove leftovers of a scope; objects with a name that this store does not use are reported, not removed."""
        self._ensure_probed()
        return remove_leftovers(self._writer, scope)

    def _close(self) -> None:
        self._bucket.close()

    def find_records(self, key: Key) -> FoundRecords | None:
        """Return the range of sound records under a key, as `HeadRecovery` describes.

        Args:
            key: The conversation.

        Returns:
            None if nothing is stored under the key.
        """
        self._check_open()
        return find_records(self._writer, key)

    def read_found(self, found: FoundRecords, *, start: int, stop: int) -> Sequence[Record]:
        """Return the sound records of the positions [start, stop), as `HeadRecovery` describes.

        Args:
            found: The result of `find_records`.
            start: The first position.
            stop: The position after the last one.
        """
        self._check_open()
        return read_found(self._writer, found, start=start, stop=stop)

    def restore_head(self, found: FoundRecords, head: Head) -> Head:
        """Replace a damaged head with a new one, as `HeadRecovery` describes; never a head of a later version.

        Args:
            found: The result of `find_records`.
            head: The new head.

        Returns:
            The new head.

        Raises:
            Conflict: The head's object has changed since `find_records`.
            UnsupportedRecord: A later version wrote the head.
        """
        self._check_open()
        self._ensure_probed()
        return restore_head(self._writer, found, head)

    def sweep(self, *, now: float | None = None, grace: float = GRACE) -> S3SweepReport:
        """Remove expired conversations, and leftovers of crashes.

        Run it regularly, for example daily; readers and writers need not stop.

        Args:
            now: The time to compare with, in seconds since 1970 UTC; None for the time of this machine.
            grace: The age of leftovers to remove, in seconds before `now`.

        Returns:
            How many objects of each kind were removed.

        Raises:
            StoreError: A request failed; what was removed before that stays removed.
        """
        self._check_open()
        self._ensure_probed()
        return sweep(self._writer, now=time.time() if now is None else now, grace=grace)

    def _ensure_probed(self) -> None:
        """Before the first write, check that the service supports conditional writes."""
        if self._is_probed:
            return
        with self._probe_lock:
            if not self._is_probed:
                self._bucket.service = probe_service(self._bucket, self._names)
                self._is_probed = True
