"""Requests to one bucket, repeated where that is safe, and in parallel where that saves time.

Every request here may be repeated. A conditional write that was done although its response was lost is refused the
second time; then `PreconditionFailed.uncertain` is True.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice, pairwise
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from botocore.exceptions import FlexibleChecksumError

from chathistory.errors import StoreClosed, StoreRejected
from chathistory_s3.errors import (
    IncompleteAnswer,
    ObjectMissing,
    ObjectUnavailable,
    PreconditionFailed,
    RangeBeyondEnd,
    classify_error,
    store_error,
)

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

__all__ = ["Bucket", "ListedObject", "Service"]

T = TypeVar("T")

PARALLEL = 64
"""The most requests that one call has in progress at once."""

_PAUSES = (0.05, 0.1, 0.2, 0.4, 0.8)  # seconds before the next try, plus or minus a half
_TRIES_UNREACHABLE = 2
_PAGE = 1000  # the most objects of one DeleteObjects, or of one page of a listing
_BATCH = 256  # objects of a listing that are examined together
_CHUNK = 1024 * 1024  # bytes of a body to read at once
_OK = 200  # the status of a response with a whole object instead of a part
_ANSWERS: Mapping[str, type[Exception]] = {
    "missing": ObjectMissing, "beyond end": RangeBeyondEnd, "unavailable": ObjectUnavailable
}  # fmt: skip


class ListedObject(NamedTuple):
    """An object in a listing.

    Attributes:
        name: The name of the object.
        size: Its size in bytes; -1 if the service does not report it.
        modified: The time of its last change in seconds since 1970; infinite if the service does not report it.
        etag: Its ETag; "" if the service does not report it.
    """

    name: str
    size: int
    modified: float
    etag: str


@dataclass(frozen=True, slots=True)
class Service:
    """What the probe found out about a service.

    Attributes:
        quotes_etags: `If-Match` takes an ETag with its quotes.
        conditional_delete: DELETE supports `If-Match`.
    """

    quotes_etags: bool = True
    conditional_delete: bool = True


class Bucket:
    """A bucket, with a client that is created at the first use.

    Args:
        connect: Returns the client.
        name: The name of the bucket.
        write_options: Additional arguments of every PUT (encryption, storage class).
        timeout: Seconds after which a request is not repeated.
        owns_client: Whether `close` closes the client.
    """

    def __init__(
        self,
        connect: Callable[[], S3Client],
        name: str,
        *,
        write_options: Mapping[str, str],
        timeout: float,
        owns_client: bool,
    ) -> None:
        self.name = name
        self.service = Service()
        self._connect = connect
        self._write_options: Mapping[str, Any] = write_options
        self._timeout = timeout
        self._owns_client = owns_client
        self._lock = threading.Lock()
        self._client: S3Client | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._deletes_singly = False  # DeleteObjects does not work here

    def get(self, name: str, *, offset: int = 0, size: int | None = None) -> tuple[bytes, str]:
        """Return the bytes of an object and its ETag.

        Args:
            name: The name of the object.
            offset: The offset of the first byte.
            size: The most bytes to return; None for the whole object.

        Returns:
            The bytes and the ETag; (b"", "") if the object ends before `offset`.

        Raises:
            ObjectMissing: There is no such object.
            ObjectUnavailable: The service does not return the object, for example because it is archived.
            StoreError: The request failed.
        """
        part: dict[str, Any] = {} if size is None else {"Range": f"bytes={offset}-{offset + size - 1}"}
        mismatches = 0

        def call() -> tuple[bytes, str]:
            nonlocal mismatches
            response = self.get_client().get_object(Bucket=self.name, Key=name, **part)
            chunks: list[bytes] = []
            try:
                _read_body(response, chunks)
            except FlexibleChecksumError:
                mismatches += 1
                if (
                    mismatches == 1
                ):  # perhaps damaged on the way; at the second time use the bytes: lines have checksums
                    raise
            data = b"".join(chunks)
            if size is not None and response["ResponseMetadata"].get("HTTPStatusCode") == _OK:
                data = data[offset : offset + size]  # the service does not support ranges
            return data, _get_etag(response)

        try:
            return self._send_request("reading", call, is_read=True)
        except RangeBeyondEnd:  # the object exists but is shorter
            return b"", ""

    def put(self, name: str, data: bytes) -> str:
        """Store an object unconditionally; return its ETag.

        Args:
            name: The name of the object.
            data: Its bytes.

        Raises:
            StoreError: The request failed.
        """
        return self._put_object(name, data, {}, is_write=False)

    def create(self, name: str, data: bytes) -> str:
        """Create an object and return its ETag.

        Args:
            name: The name of the object.
            data: Its bytes.

        Raises:
            PreconditionFailed: The object exists.
            StoreError: The request failed.
        """
        return self._put_object(name, data, {"IfNoneMatch": "*"})

    def replace(self, name: str, data: bytes, *, etag: str) -> str:
        """Replace the object if it has this ETag; return its new ETag.

        Args:
            name: The name of the object.
            data: The new bytes.
            etag: The ETag that it must have.

        Raises:
            PreconditionFailed: The object has another ETag.
            ObjectMissing: There is no such object.
            StoreError: The request failed.
        """
        return self._put_object(name, data, {"IfMatch": self._quote_etag(etag)})

    def _put_object(self, name: str, data: bytes, condition: dict[str, Any], *, is_write: bool = True) -> str:
        def call() -> str:
            response = self.get_client().put_object(
                Bucket=self.name, Key=name, Body=data, **condition, **self._write_options
            )
            return _get_etag(response)

        return self._send_request("writing", call, is_write=is_write)

    def delete(self, name: str, *, etag: str | None = None) -> None:
        """Remove an object if it exists.

        Args:
            name: The name of the object.
            etag: The ETag that it must have; None for any.

        Raises:
            PreconditionFailed: The object has another ETag.
            StoreError: The request failed.
        """
        condition: dict[str, Any] = {} if etag is None else {"IfMatch": self._quote_etag(etag)}

        def call() -> None:
            self.get_client().delete_object(Bucket=self.name, Key=name, **condition)

        try:
            self._send_request("removing", call, is_write=True)
        except ObjectMissing:
            return

    def delete_all(self, names: Sequence[str]) -> None:
        """Remove the objects that exist, with DeleteObjects; one by one if that does not confirm them."""
        for at in range(0, len(names), _PAGE):
            left = list(names[at : at + _PAGE])
            refused = False
            if len(left) > 1 and not self._deletes_singly:
                request: Any = {"Objects": [{"Key": name} for name in left]}
                try:
                    answer = self._send_request("removing", partial(self._delete_objects, request), is_write=True)
                    left = [name for name in left if name not in answer]
                except StoreRejected:  # the service may need another checksum, or not support the request
                    refused = True
            self.run_parallel([partial(self.delete, name) for name in left])
            self._deletes_singly = self._deletes_singly or refused

    def _delete_objects(self, request: Any) -> set[str]:
        answer = self.get_client().delete_objects(Bucket=self.name, Delete=request)
        return {entry.get("Key", "") for entry in answer.get("Deleted", [])}

    def list_objects(self, prefix: str, *, after: str = "") -> Iterator[ListedObject]:
        """Yield objects in the order of their names.

        Args:
            prefix: The beginning of their names.
            after: Only names that sort after this one.

        Raises:
            StoreRejected: The service does not list in that order, or repeats a page, so that objects could be missing
                unnoticed.
        """
        for page in self._list_pages(prefix, {"StartAfter": after} if after else {}):
            for entry in page.get("Contents", []):
                if entry["Key"] > after:
                    modified = entry.get("LastModified")
                    seconds = modified.timestamp() if modified else float("inf")
                    yield ListedObject(entry["Key"], entry.get("Size", -1), seconds, entry.get("ETag", ""))

    def list_batches(self, prefix: str) -> Iterator[list[ListedObject]]:
        """Yield the objects of `list_objects` in lists of up to 256."""
        entries = self.list_objects(prefix)
        while batch := list(islice(entries, _BATCH)):
            yield batch

    def list_children(self, prefix: str) -> Iterator[str]:
        """Yield the names directly below a prefix: of objects, and of folders with a slash at the end."""
        for page in self._list_pages(prefix, {"Delimiter": "/"}):
            yield from (entry["Key"] for entry in page.get("Contents", []))
            yield from (entry["Prefix"] for entry in page.get("CommonPrefixes", []))

    def _list_pages(self, prefix: str, options: Mapping[str, str]) -> Iterator[Mapping[str, Any]]:
        last, start = "", options
        while True:
            try:
                page = self._send_request("listing", partial(self._list_page, prefix, start))
            except ObjectMissing as missing:  # a 404 for a listing means that the path of the bucket is unknown
                raise StoreRejected("listing was refused: the service does not know the bucket") from missing.__cause__
            names = [entry["Key"] for entry in page.get("Contents", [])]
            if any(later.encode() <= earlier.encode() for earlier, later in pairwise([last, *names])):
                raise StoreRejected(
                    "listing was refused: the service must list objects in the order of their names, each once"
                )
            yield page
            if not page.get("IsTruncated"):
                return
            last, token = (names[-1] if names else last), page.get("NextContinuationToken")
            if not (names or token):
                raise StoreRejected(
                    "listing was refused: the service says that the listing continues, but gives no token for it"
                )
            start = {**options, "ContinuationToken": token} if token else {**options, "StartAfter": last}

    def _list_page(self, prefix: str, options: Mapping[str, Any]) -> Mapping[str, Any]:
        page = self.get_client().list_objects_v2(Bucket=self.name, Prefix=prefix, MaxKeys=_PAGE, **options)
        if "IsTruncated" not in page:
            raise IncompleteAnswer("the response is not a listing; a proxy may have changed it")
        return page

    def run_parallel(self, works: Sequence[Callable[[], T]]) -> list[T]:
        """Run functions in parallel, up to 64 at a time; return their results in order.

        Args:
            works: The functions, without arguments.

        Raises:
            StoreClosed: Another thread closed the store.
        """
        if len(works) <= 1:
            return [work() for work in works]
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(PARALLEL, thread_name_prefix="chathistory-s3")
            pool = self._pool
        try:
            futures = [pool.submit(work) for work in works]
        except RuntimeError as error:
            raise StoreClosed("another thread closed this store; open a new one") from error
        try:
            return [future.result() for future in futures]
        finally:
            for future in futures:
                future.cancel()  # after an error, the rest is not needed

    def close(self) -> None:
        """Stop the threads, and close the client if this object created it."""
        with self._lock:
            pool, client = self._pool, self._client
        if pool is not None:
            pool.shutdown()
        if client is not None and self._owns_client:
            client.close()

    def get_client(self) -> S3Client:
        """Return the client; creates it at the first call."""
        with self._lock:
            if self._client is None:
                self._client = self._connect()
                self._client.meta.events.register(
                    "request-created.s3.PutObject", _remove_expect, unique_id="chathistory-s3-put"
                )
            return self._client

    def _quote_etag(self, etag: str) -> str:
        return etag if self.service.quotes_etags else etag.strip('"')

    def _send_request(
        self, operation: str, call: Callable[[], T], *, is_write: bool = False, is_read: bool = False
    ) -> T:
        """Make a request, and repeat it after a pause if it failed and may succeed; raise a translated error."""
        deadline = time.monotonic() + self._timeout
        uncertain = False
        for tries, pause in enumerate((*_PAUSES, None), 1):
            try:
                return call()
            except Exception as error:  # the libraries below boto3 raise errors of many classes
                fault = classify_error(error, is_read=is_read)
                if fault.kind in _ANSWERS:
                    raise _ANSWERS[fault.kind] from error
                if fault.kind == "precondition":
                    raise PreconditionFailed(uncertain=uncertain) from error
                uncertain = uncertain or (is_write and fault.kind == "broken")
                is_final = fault.kind == "rejected" or (fault.kind == "unreachable" and tries >= _TRIES_UNREACHABLE)
                if pause is None or is_final or time.monotonic() > deadline:
                    raise store_error(operation, fault, uncertain=uncertain) from error
            time.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311  # spreads the tries; not for security
        raise AssertionError  # pragma: no cover  # the last try returns or raises


def _remove_expect(request: Any, **_: object) -> None:
    """Send a body without `Expect: 100-continue`: if the connection breaks then, botocore waits without a limit.

    Its `_consume_headers` reads on at the end of the data. It also saves a round trip.
    """
    if "Expect" in request.headers:
        del request.headers["Expect"]


def _read_body(response: Any, chunks: list[bytes]) -> None:
    """Read a body through boto3's stream, which checks its length; the stream is closed in any case."""
    body = response["Body"]
    try:
        headers = response["ResponseMetadata"].get("HTTPHeaders", {})
        if "ContentLength" not in response and "transfer-encoding" not in headers:
            raise IncompleteAnswer("the response does not state the length of its body; a proxy may have changed it")
        while chunk := body.read(_CHUNK):
            chunks.append(chunk)
    finally:
        body.close()


def _get_etag(response: Any) -> str:
    etag = response.get("ETag")
    if not isinstance(etag, str) or not etag:
        raise IncompleteAnswer("the response has no ETag; a proxy may have changed it")
    if etag.count('"') % 2:  # if the connection breaks within a header, its value is cut
        raise IncompleteAnswer("the ETag in the response is cut off; the connection may have failed")
    return etag
