"""Requests to one bucket, repeated where that is safe, and several at once where that saves time.

Every request here may be repeated: a conditional write that was done after all is refused the second time, and
`Overtaken.uncertain` says that the refusal may be of that kind.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from botocore.exceptions import FlexibleChecksumError

from chathistory.errors import StoreClosed, StoreRejected
from chathistory_s3.faults import BadAnswer, Beyond, Fault, Missing, Overtaken, Withheld, fault_of, raised

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

__all__ = ["Bucket", "Listed", "Service"]

T = TypeVar("T")

PARALLEL = 64
"""Requests that one call has under way at once, at most."""

_PAUSES = (0.05, 0.1, 0.2, 0.4, 0.8)  # seconds before the next try, give or take a half
_UNREACHABLE = 2  # tries, where nobody answers the door
_BATCH = 1000  # objects that one DeleteObjects, or one page of a listing, has at most
_CHUNK = 1024 * 1024  # bytes of a body that are read at once


class Listed(NamedTuple):
    """An object as a listing has it; `modified` in seconds since 1970."""

    object: str
    size: int
    modified: float
    etag: str


@dataclass(frozen=True, slots=True)
class Service:
    """What was found out about a service: does If-Match want quotes, and does DELETE know it."""

    quotes: bool = True
    deletes: bool = True


class Bucket:
    """A bucket, reached through a client that is made when it is first needed.

    extra: what every PUT says besides (encryption, storage class). patience: seconds after which there is no new try.
    """

    def __init__(
        self, connect: Callable[[], S3Client], name: str, *, extra: Mapping[str, str], patience: float, owned: bool
    ) -> None:
        self.name = name
        self.service = Service()
        self._connect = connect
        self._extra: Mapping[str, Any] = extra
        self._patience = patience
        self._owned = owned
        self._lock = threading.Lock()
        self._made: S3Client | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._one_by_one = False  # DeleteObjects does not work here

    def get(self, name: str, *, offset: int = 0, size: int | None = None) -> tuple[bytes, str]:
        """Return the bytes of an object, or `size` of them from `offset` on, and its ETag.

        Raises `Missing`, and `Withheld` if the service does not give this object out.
        """
        part: dict[str, Any] = {} if size is None else {"Range": f"bytes={offset}-{offset + size - 1}"}
        mismatches = 0

        def call() -> tuple[bytes, str]:
            nonlocal mismatches
            response = self._client().get_object(Bucket=self.name, Key=name, **part)
            chunks: list[bytes] = []
            try:
                _read_body(response, chunks)
            except FlexibleChecksumError:
                mismatches += 1
                if mismatches == 1:  # of the way, perhaps; the second time of what is stored: our own checksums tell
                    raise
            data, whole = b"".join(chunks), response["ResponseMetadata"].get("HTTPStatusCode") == _WHOLE
            if size is not None and whole:  # a service that does not know ranges
                data = data[offset : offset + size]
            return data, _etag_of(response)

        try:
            return self._tried("reading", call, reads=True)
        except Beyond:  # the object is there, and shorter: it has nothing of that range
            return b"", ""

    def put(self, name: str, data: bytes) -> str:
        """Store an object that nothing depends on yet, whatever is there; return its ETag."""
        return self._put(name, data, {}, writes=False)

    def create(self, name: str, data: bytes) -> str:
        """Store an object if there is none, else raise `Overtaken`; return its ETag."""
        return self._put(name, data, {"IfNoneMatch": "*"})

    def replace(self, name: str, data: bytes, *, etag: str) -> str:
        """Store an object in the place of the one with this ETag, else raise `Overtaken`; return its ETag."""
        return self._put(name, data, {"IfMatch": self._quoted(etag)})

    def _put(self, name: str, data: bytes, condition: dict[str, Any], *, writes: bool = True) -> str:
        def call() -> str:
            response = self._client().put_object(Bucket=self.name, Key=name, Body=data, **condition, **self._extra)
            return _etag_of(response)

        return self._tried("writing", call, writes=writes)

    def remove(self, name: str, *, etag: str | None = None) -> None:
        """Remove an object; with `etag`, only the one that has it, else raise `Overtaken`. None there is no error."""
        condition: dict[str, Any] = {} if etag is None else {"IfMatch": self._quoted(etag)}

        def call() -> None:
            self._client().delete_object(Bucket=self.name, Key=name, **condition)

        try:
            self._tried("removing", call, writes=True)
        except Missing:
            return

    def remove_all(self, names: Sequence[str]) -> None:
        """Remove these objects, as far as they are there."""
        for at in range(0, len(names), _BATCH):
            part = names[at : at + _BATCH]
            if len(part) == 1 or self._one_by_one:
                self.together([partial(self.remove, name) for name in part])
            else:
                self._remove_batch(part)

    def _remove_batch(self, names: Sequence[str]) -> None:
        """Remove objects by one request, and one by one what it does not name as removed: that tells the reason."""
        listed: Any = {"Objects": [{"Key": name} for name in names]}

        def call() -> set[str]:
            answer = self._client().delete_objects(Bucket=self.name, Delete=listed)
            return {entry.get("Key", "") for entry in answer.get("Deleted", [])}

        try:
            done = self._tried("removing", call, writes=True)
        except StoreRejected:  # it may want another checksum, or not know the request at all
            self.together([partial(self.remove, name) for name in names])
            self._one_by_one = True
        else:
            self.together([partial(self.remove, name) for name in names if name not in done])

    def listed(self, prefix: str, *, after: str = "") -> Iterator[Listed]:
        """Yield the objects whose names begin with `prefix` and come behind `after`, in the order of their names.

        Raises `StoreRejected` if the service does not list in that order, or gives the same again and again: objects
        would be missing without a word.
        """
        for page in self._pages(prefix, {"StartAfter": after} if after else {}):
            for entry in page.get("Contents", []):
                if entry["Key"] > after:
                    modified = entry.get("LastModified")
                    time_ = modified.timestamp() if modified else _UNKNOWN
                    yield Listed(entry["Key"], entry.get("Size", -1), time_, entry.get("ETag", ""))

    def folders(self, prefix: str) -> Iterator[str]:
        """Yield what stands directly below a prefix: names of objects, and of folders with a slash at the end."""
        for page in self._pages(prefix, {"Delimiter": "/"}):
            yield from (entry["Key"] for entry in page.get("Contents", []))
            yield from (entry["Prefix"] for entry in page.get("CommonPrefixes", []))

    def _pages(self, prefix: str, options: Mapping[str, str]) -> Iterator[Mapping[str, Any]]:
        last, start = "", options
        while True:
            page = self._listed(prefix, start)
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

    def _listed(self, prefix: str, options: Mapping[str, Any]) -> Mapping[str, Any]:
        def call() -> Mapping[str, Any]:
            page = self._client().list_objects_v2(Bucket=self.name, Prefix=prefix, MaxKeys=_BATCH, **options)
            if "IsTruncated" not in page:
                raise BadAnswer(_NO_LISTING)
            return page

        try:
            return self._tried("listing", call)
        except Missing as missing:  # an unknown path of the service, not of ours
            raise StoreRejected("listing was refused: the service does not know the bucket") from missing.__cause__

    def together(self, works: Sequence[Callable[[], T]]) -> list[T]:
        """Return what the works give, in their order, having done some of them at the same time."""
        if len(works) == 1:
            return [works[0]()]
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
            pool, client = self._pool, self._made
        if pool is not None:
            pool.shutdown()
        if client is not None and self._owned:
            client.close()

    def _client(self) -> S3Client:
        with self._lock:
            if self._made is None:
                self._made = self._connect()
                self._made.meta.events.register(_BEFORE_PUT, _send_at_once, unique_id="chathistory-s3-put")
            return self._made

    def _quoted(self, etag: str) -> str:
        return etag if self.service.quotes else etag.strip('"')

    def _tried(self, doing: str, call: Callable[[], T], *, writes: bool = False, reads: bool = False) -> T:
        late = time.monotonic() + self._patience
        uncertain = False
        for tries, pause in enumerate((*_PAUSES, None), 1):
            try:
                return call()
            except Exception as error:  # the libraries below boto3 have errors of many kinds
                fault = fault_of(error, reads=reads)
                if fault.kind in _ANSWERS:
                    raise _ANSWERS[fault.kind] from error
                if fault.kind == "overtaken":
                    raise Overtaken(uncertain=uncertain) from error
                uncertain = uncertain or (writes and fault.kind == "broken")
                if pause is None or _is_final(fault, tries) or time.monotonic() > late:
                    raise raised(doing, fault, uncertain=uncertain) from error
            time.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311  # spreads tries, guards nothing
        raise AssertionError  # pragma: no cover  # the last round returns or raises


_BEFORE_PUT = "request-created.s3.PutObject"


def _send_at_once(request: Any, **_: object) -> None:
    """Send a body without waiting for leave: where a connection breaks then, botocore waits for ever.

    Its `_consume_headers` reads on at the end of what was sent. And it is a round trip less.
    """
    if "Expect" in request.headers:
        del request.headers["Expect"]


_ANSWERS: Mapping[str, type[Exception]] = {"missing": Missing, "beyond": Beyond, "withheld": Withheld}
_WHOLE = 200  # the status of an answer that is not a part
_UNKNOWN = float("inf")  # a time that is never old
_NO_LISTING = "the answer to a listing is empty, or not one"


def _read_body(response: Any, chunks: list[bytes]) -> None:
    """Read a body through boto3's stream, which knows the length that it must have; it is closed in any case."""
    body = response["Body"]
    try:
        headers = response["ResponseMetadata"].get("HTTPHeaders", {})
        if "ContentLength" not in response and "transfer-encoding" not in headers:
            raise BadAnswer("the answer does not tell the length of its body")
        while chunk := body.read(_CHUNK):
            chunks.append(chunk)
    finally:
        body.close()


def _etag_of(response: Any) -> str:
    etag = response.get("ETag")
    if not isinstance(etag, str) or not etag:
        raise BadAnswer("the answer has no ETag")
    if etag.count('"') % 2:  # headers end where the connection does, also within one
        raise BadAnswer("the answer has a part of an ETag")
    return etag


def _is_final(fault: Fault, tries: int) -> bool:
    return fault.kind == "rejected" or (fault.kind == "unreachable" and tries >= _UNREACHABLE)
