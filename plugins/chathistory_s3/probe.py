"""Whether a service can be trusted with the guard: it is tried, once per store, before the first write.

A service that ignores conditions would let two writers overwrite each other in silence. So it is refused. On the way
it is found out whether `If-Match` wants its ETag quoted (one server line does not understand quotes), and whether
`DELETE` honours it; where it does not, a small grave stays for each deleted conversation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from chathistory.errors import StoreRejected
from chathistory_s3.bucket import Bucket, Service
from chathistory_s3.faults import Missing, Overtaken
from chathistory_s3.layout import Layout

__all__ = ["probed"]

_TRIES = 3
_IGNORED = (
    "the service ignores the condition of a PUT with {}: writers would overwrite each other in silence. "
    "Use AWS S3, or a service with conditional writes"
)
_OTHER = '"00000000000000000000000000000000"'


def probed(bucket: Bucket, layout: Layout) -> Service:
    """Return what the service can do. Raises `StoreRejected` if it does not honour conditional writes."""
    for _ in range(_TRIES):
        name = layout.probe()
        try:
            etag = bucket.create(name, b"1")
        except Overtaken:  # of our own first try, whose answer was lost
            continue
        try:
            return _tried(bucket, name, etag)
        finally:
            bucket.remove(name)
    msg = "the service refuses to create objects with If-None-Match"
    raise StoreRejected(msg)


def _tried(bucket: Bucket, name: str, etag: str) -> Service:
    service = Service()
    if not _refuses(lambda: bucket.create(name, b"2")):
        raise StoreRejected(_IGNORED.format("If-None-Match: *"))
    if not _refuses(lambda: bucket.replace(name, b"3", etag=_OTHER)):
        raise StoreRejected(_IGNORED.format("If-Match"))
    if _refuses(lambda: bucket.replace(name, b"4", etag=etag)):
        bucket.service = service = replace(service, quotes=False)
        if _refuses(lambda: bucket.replace(name, b"4", etag=etag)):
            msg = "the service refuses PUT with If-Match and the right ETag, so nothing could ever be appended"
            raise StoreRejected(msg)
    return replace(service, deletes=_refuses_delete(bucket, name))


def _refuses(write: Callable[[], object]) -> bool:
    try:
        write()
    except (Overtaken, Missing):
        return True
    return False


def _refuses_delete(bucket: Bucket, name: str) -> bool:
    try:
        return _refuses(lambda: bucket.remove(name, etag=_OTHER))
    except StoreRejected:  # 501: it says that it does not know
        return False
