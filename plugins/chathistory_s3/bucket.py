"""Requests to one bucket, repeated where that is safe, and several at once where that saves time.

Every request here may be repeated: a conditional write that was done after all is refused the second time, and
`PreconditionFailed.uncertain` says that the refusal may be of that kind.
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
"""Requests that one call has under way at once, at most."""

_PAUSES = (0.05, 0.1, 0.2, 0.4, 0.8)  # seconds before the next try, give or take a half
_TRIES_UNREACHABLE = 2
_PAGE = 1000  # objects that one DeleteObjects, or one page of a listing, has at most
_BATCH = 256  # objects of a listing that are looked at together
_CHUNK = 1024 * 1024  # bytes of a body that are read at once
_OK = 200  # the status of an answer that is a whole object and not a part
_ANSWERS: Mapping[str, type[Exception]] = {
    "missing": ObjectMissing, "beyond end": RangeBeyondEnd, "unavailable": ObjectUnavailable
}  # fmt: skip


class ListedObject(NamedTuple):
    """An object as a listing has it; `modified` in seconds since 1970, infinite if the service does not say."""

    name: str
    size: int
    modified: float
    etag: str


@dataclass(frozen=True, slots=True)
class Service:
    """What was found out about a service: does If-Match take quotes, and does DELETE honour it."""

    quotes_etags: bool = True
    conditional_delete: bool = True


class Bucket:
    """A bucket, reached through a client that is made when it is first needed.

    write_options: what every PUT says besides (encryption, storage class). timeout: seconds after which there is no new
    try. owns_client: whether `close` closes the client.
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
        """Return the bytes of an object, or `size` of them from `offset` on, and its ETag.

        Raises `ObjectMissing`, and `ObjectUnavailable` if the service does not return this object.
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
                if mismatches == 1:  # of the way, perhaps; the second time of what is stored: our own checksums tell
                    raise
            data = b"".join(chunks)
            if size is not None and response["ResponseMetadata"].get("HTTPStatusCode") == _OK:
                data = data[offset : offset + size]  # the service does not know ranges
            return data, _get_etag(response)

        try:
            return self._send_request("reading", call, is_read=True)
        except RangeBeyondEnd:  # the object is there, and shorter: it has nothing of that range
            return b"", ""

    def put(self, name: str, data: bytes) -> str:
        """Store an object that nothing depends on yet, whatever is there; return its ETag."""
        return self._put_object(name, data, {}, is_write=False)

    def create(self, name: str, data: bytes) -> str:
        """Store an object if there is none, else raise `PreconditionFailed`; return its ETag."""
        return self._put_object(name, data, {"IfNoneMatch": "*"})

    def replace(self, name: str, data: bytes, *, etag: str) -> str:
        """Store an object in the place of the one with this ETag, else raise `PreconditionFailed`; return its ETag."""
        return self._put_object(name, data, {"IfMatch": self._quote_etag(etag)})

    def _put_object(self, name: str, data: bytes, condition: dict[str, Any], *, is_write: bool = True) -> str:
        def call() -> str:
            response = self.get_client().put_object(
                Bucket=self.name, Key=name, Body=data, **condition, **self._write_options
            )
            return _get_etag(response)

        return self._send_request("writing", call, is_write=is_write)

    def delete(self, name: str, *, etag: str | None = None) -> None:
        """Remove an object if it is there; with `etag`, only the one that has it, else raise `PreconditionFailed`."""
        condition: dict[str, Any] = {} if etag is None else {"IfMatch": self._quote_etag(etag)}

        def call() -> None:
            self.get_client().delete_object(Bucket=self.name, Key=name, **condition)

        try:
            self._send_request("removing", call, is_write=True)
        except ObjectMissing:
            return

    def delete_all(self, names: Sequence[str]) -> None:
        """Remove these objects, as far as they are there: by DeleteObjects, and singly what it does not confirm."""
        for at in range(0, len(names), _PAGE):
            left = list(names[at : at + _PAGE])
            refused = False
            if len(left) > 1 and not self._deletes_singly:
                request: Any = {"Objects": [{"Key": name} for name in left]}
                try:
                    answer = self._send_request("removing", partial(self._delete_objects, request), is_write=True)
                    left = [name for name in left if name not in answer]
                except StoreRejected:  # it may want another checksum, or not know the request at all
                    refused = True
            self.run_parallel([partial(self.delete, name) for name in left])
            self._deletes_singly = self._deletes_singly or refused

    def _delete_objects(self, request: Any) -> set[str]:
        answer = self.get_client().delete_objects(Bucket=self.name, Delete=request)
        return {entry.get("Key", "") for entry in answer.get("Deleted", [])}

    def list_objects(self, prefix: str, *, after: str = "") -> Iterator[ListedObject]:
        """Yield the objects whose names begin with `prefix` and come behind `after`, in the order of their names.

        Raises `StoreRejected` if the service does not list in that order, or gives the same again and again: objects
        would be missing in silence.
        """
        for page in self._list_pages(prefix, {"StartAfter": after} if after else {}):
            for entry in page.get("Contents", []):
                if entry["Key"] > after:
                    modified = entry.get("LastModified")
                    seconds = modified.timestamp() if modified else float("inf")
                    yield ListedObject(entry["Key"], entry.get("Size", -1), seconds, entry.get("ETag", ""))

    def list_batches(self, prefix: str) -> Iterator[list[ListedObject]]:
        """Yield what `list_objects` yields, in lists of a size that can be looked at together."""
        entries = self.list_objects(prefix)
        while batch := list(islice(entries, _BATCH)):
            yield batch

    def list_children(self, prefix: str) -> Iterator[str]:
        """Yield what stands directly below a prefix: names of objects, and of folders with a slash at the end."""
        for page in self._list_pages(prefix, {"Delimiter": "/"}):
            yield from (entry["Key"] for entry in page.get("Contents", []))
            yield from (entry["Prefix"] for entry in page.get("CommonPrefixes", []))

    def _list_pages(self, prefix: str, options: Mapping[str, str]) -> Iterator[Mapping[str, Any]]:
        last, start = "", options
        while True:
            try:
                page = self._send_request("listing", partial(self._list_page, prefix, start))
            except ObjectMissing as missing:  # an unknown path of the service, not of ours
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
                raise StoreRejected("listing was refused: the service says that there is more, and not where")
            start = {**options, "ContinuationToken": token} if token else {**options, "StartAfter": last}

    def _list_page(self, prefix: str, options: Mapping[str, Any]) -> Mapping[str, Any]:
        page = self.get_client().list_objects_v2(Bucket=self.name, Prefix=prefix, MaxKeys=_PAGE, **options)
        if "IsTruncated" not in page:
            raise IncompleteAnswer("the answer to a listing is empty, or not one")
        return page

    def run_parallel(self, works: Sequence[Callable[[], T]]) -> list[T]:
        """Return what the works return, in their order, having done some of them at the same time."""
        if len(works) <= 1:
            return [work() for work in works]
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(PARALLEL, thread_name_prefix="chathistory-s3")
            pool = self._pool
        try:
            futures = [pool.submit(work) for work in works]
        except RuntimeError as error:
            raise StoreClosed("this store was closed by another thread") from error
        try:
            return [future.result() for future in futures]
        finally:
            for future in futures:
                future.cancel()  # after an error nobody waits for the rest

    def close(self) -> None:
        """End the threads, and the client if it was made here."""
        with self._lock:
            pool, client = self._pool, self._client
        if pool is not None:
            pool.shutdown()
        if client is not None and self._owns_client:
            client.close()

    def get_client(self) -> S3Client:
        """Return the client, made at the first call."""
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
        """Do a request, again after a pause if it failed and may be repeated; raise our error or an answer."""
        deadline = time.monotonic() + self._timeout
        uncertain = False
        for tries, pause in enumerate((*_PAUSES, None), 1):
            try:
                return call()
            except Exception as error:  # the libraries below boto3 have errors of many kinds
                fault = classify_error(error, is_read=is_read)
                if fault.kind in _ANSWERS:
                    raise _ANSWERS[fault.kind] from error
                if fault.kind == "precondition":
                    raise PreconditionFailed(uncertain=uncertain) from error
                uncertain = uncertain or (is_write and fault.kind == "broken")
                is_final = fault.kind == "rejected" or (fault.kind == "unreachable" and tries >= _TRIES_UNREACHABLE)
                if pause is None or is_final or time.monotonic() > deadline:
                    raise store_error(operation, fault, uncertain=uncertain) from error
            time.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311  # spreads tries, guards nothing
        raise AssertionError  # pragma: no cover  # the last round returns or raises


def _remove_expect(request: Any, **_: object) -> None:
    """Send a body without waiting for leave: where a connection breaks then, botocore waits for ever.

    Its `_consume_headers` reads on at the end of what was sent. And it is a round trip less.
    """
    if "Expect" in request.headers:
        del request.headers["Expect"]


def _read_body(response: Any, chunks: list[bytes]) -> None:
    """Read a body through boto3's stream, which knows the length that it must have; it is closed in any case."""
    body = response["Body"]
    try:
        headers = response["ResponseMetadata"].get("HTTPHeaders", {})
        if "ContentLength" not in response and "transfer-encoding" not in headers:
            raise IncompleteAnswer("the answer does not tell the length of its body")
        while chunk := body.read(_CHUNK):
            chunks.append(chunk)
    finally:
        body.close()


def _get_etag(response: Any) -> str:
    etag = response.get("ETag")
    if not isinstance(etag, str) or not etag:
        raise IncompleteAnswer("the answer has no ETag")
    if etag.count('"') % 2:  # headers end where the connection does, also within one
        raise IncompleteAnswer("the answer has a part of an ETag")
    return etag
