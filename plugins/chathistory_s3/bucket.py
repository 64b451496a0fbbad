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
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from botocore.exceptions import BotoCoreError, ClientError

from chathistory.errors import StoreClosed, StoreRejected
from chathistory_s3.faults import Beyond, Fault, Missing, Overtaken, fault_of, raised

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

__all__ = ["Bucket", "Listed", "Service"]

T = TypeVar("T")

PARALLEL = 64
"""Requests that one call has under way at once, at most."""

_PAUSES = (0.05, 0.1, 0.2, 0.4, 0.8)  # seconds before the next try, give or take a half
_UNREACHABLE = 2  # tries, where nobody answers the door
_BATCH = 1000  # objects that one DeleteObjects, or one page of a listing, has at most


class Listed(NamedTuple):
    """An object as a listing has it; `modified` in seconds since 1970."""

    object: str
    size: int
    modified: float


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

    def get(self, name: str, *, offset: int = 0, size: int | None = None) -> tuple[bytes, str]:
        """Return the bytes of an object, or `size` of them from `offset` on, and its ETag. Raises `Missing`."""
        part: dict[str, Any] = {} if size is None else {"Range": f"bytes={offset}-{offset + size - 1}"}

        def call() -> tuple[bytes, str]:
            response = self._client().get_object(Bucket=self.name, Key=name, **part)
            with response["Body"] as body:
                return body.read(), response["ETag"]

        try:
            return self._tried("reading", call)
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
            return self._client().put_object(Bucket=self.name, Key=name, Body=data, **condition, **self._extra)["ETag"]

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
            if len(part) == 1:
                self.remove(part[0])
            else:
                self._remove_batch(part)

    def _remove_batch(self, names: Sequence[str]) -> None:
        def call() -> None:
            listed: Any = {"Objects": [{"Key": name} for name in names], "Quiet": True}
            failed = self._client().delete_objects(Bucket=self.name, Delete=listed).get("Errors")
            if failed:  # one by one its reason is told as an answer
                self.remove(str(failed[0].get("Key", "")))
                raise ClientError({"Error": {"Code": "InternalError", "Message": ""}}, "DeleteObjects")

        self._tried("removing", call, writes=True)

    def listed(self, prefix: str, *, after: str = "") -> Iterator[Listed]:
        """Yield the objects whose names begin with `prefix` and come behind `after`, in the order of their names."""
        while True:
            page = self._listed(prefix, after)
            for entry in page.get("Contents", []):
                yield Listed(entry["Key"], entry["Size"], entry["LastModified"].timestamp())
                after = entry["Key"]
            if not page.get("IsTruncated"):
                return

    def _listed(self, prefix: str, after: str) -> Mapping[str, Any]:
        start: dict[str, Any] = {"StartAfter": after} if after else {}

        def call() -> Mapping[str, Any]:
            return self._client().list_objects_v2(Bucket=self.name, Prefix=prefix, MaxKeys=_BATCH, **start)

        try:
            return self._tried("listing", call)
        except Missing as missing:  # an unknown path of the service, not of ours
            msg = "listing was refused: the service does not know the bucket"
            raise StoreRejected(msg) from missing.__cause__

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
            msg = "this store was closed by another thread"
            raise StoreClosed(msg) from error
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
            return self._made

    def _quoted(self, etag: str) -> str:
        return etag if self.service.quotes else etag.strip('"')

    def _tried(self, doing: str, call: Callable[[], T], *, writes: bool = False) -> T:
        late = time.monotonic() + self._patience
        uncertain = False
        for tries, pause in enumerate((*_PAUSES, None), 1):
            try:
                return call()
            except (BotoCoreError, ClientError, ValueError, OSError) as error:
                fault = fault_of(error)
                if fault.kind == "missing":
                    raise Missing from error
                if fault.kind == "beyond":
                    raise Beyond from error
                if fault.kind == "overtaken":
                    raise Overtaken(uncertain=uncertain) from error
                uncertain = uncertain or (writes and fault.kind == "broken")
                if pause is None or _is_final(fault, tries) or time.monotonic() > late:
                    raise raised(doing, fault, uncertain=uncertain) from error
            time.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311  # spreads tries, guards nothing
        raise AssertionError  # pragma: no cover  # the last round returns or raises


def _is_final(fault: Fault, tries: int) -> bool:
    return fault.kind == "rejected" or (fault.kind == "unreachable" and tries >= _UNREACHABLE)
