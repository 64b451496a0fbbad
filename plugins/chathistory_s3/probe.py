"""Whether a service can be trusted with the guard: it is tried, once per store, before the first write.

A service that ignores conditions would let two writers overwrite each other in silence, one that makes an object where
If-Match finds none would bring back what was deleted, and one that stores other bytes than it was sent would damage
everything. Such a service is refused. On the way it is found out whether `If-Match` wants its ETag quoted (one server
line does not understand quotes), and whether `DELETE` honours it; where it does not, a small tombstone stays for each
deleted conversation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from botocore.exceptions import ClientError

from chathistory.errors import StoreRejected, StoreUnavailable
from chathistory_s3.bucket import Bucket, Service
from chathistory_s3.errors import ObjectMissing, PreconditionFailed
from chathistory_s3.names import ObjectNames, new_token

__all__ = ["probe_service"]

_TRIES = 3
_ADVICE = "Use AWS S3, or a service with conditional writes"
_IGNORED = f"the service ignores the condition of a PUT with {{}}: writers would overwrite each other. {_ADVICE}"
_OTHER_ETAG = '"00000000000000000000000000000000"'


def probe_service(bucket: Bucket, names: ObjectNames) -> Service:
    """Return what the service can do. Raises `StoreRejected` if the guard cannot rest on it."""
    for _ in range(_TRIES):
        bucket.service, name = Service(), names.probes() + new_token()
        try:
            etag = bucket.create(name, b"1")
        except PreconditionFailed as lost:
            if lost.uncertain:
                continue  # of our own first try, whose answer was lost
            raise StoreRejected(
                f"the service refuses a PUT with If-None-Match although there is no such object. {_ADVICE}"
            ) from lost.__cause__
        except StoreRejected as refusal:  # it may be for another reason too
            raise StoreRejected(
                f"{refusal}. The first write of a store is a PUT with If-None-Match. {_ADVICE}"
            ) from refusal.__cause__
        try:
            _probe_put(bucket, name, etag)
        except StoreRejected:
            if not _object_exists(bucket, name):  # somebody removed it: it proves nothing
                continue
            bucket.delete(name)
            raise
        return replace(bucket.service, conditional_delete=_probe_delete(bucket, name))
    raise StoreUnavailable(
        f"the service gave no certain answer to any of {_TRIES} looks at what it can do", outcome="not stored"
    )


def _probe_put(bucket: Bucket, name: str, first: str) -> None:
    """Try the conditions of PUT on objects that are there and that are not. Raises `StoreRejected`."""
    if not _is_refused(lambda: bucket.create(name, b"2")):
        raise StoreRejected(_IGNORED.format("If-None-Match: *"))
    if not _is_refused(lambda: bucket.replace(name, b"3", etag=_OTHER_ETAG)):
        raise StoreRejected(_IGNORED.format("If-Match"))
    second = _try_replace(bucket, name, first)
    if second is None:
        bucket.service = replace(bucket.service, quotes_etags=False)
        second = _try_replace(bucket, name, first)
    if second is None:
        raise StoreRejected(
            "the service refuses a PUT with If-Match and the right ETag, so nothing could ever be appended"
        )
    if not _is_refused(lambda: bucket.replace(name, b"5", etag=first)):
        raise StoreRejected(_IGNORED.format("If-Match and the ETag of an older state"))
    data, etag = bucket.get(name)
    if data != b"4":
        raise StoreRejected(
            "the service stores other bytes than it is sent. If the client is your own, give it "
            'Config(request_checksum_calculation="when_required")'
        )
    if etag.strip('"') != second.strip('"'):
        raise StoreRejected("the service reports another ETag for a read than for the write: no append would succeed")
    absent = f"{name}-absent"
    if not _is_refused(lambda: bucket.replace(absent, b"6", etag=second)):
        bucket.delete(absent)
        raise StoreRejected(
            f"the service makes an object where If-Match finds none, so what was deleted could come back. {_ADVICE}"
        )


def _try_replace(bucket: Bucket, name: str, etag: str) -> str | None:
    """Return the new ETag; None: it was refused."""
    try:
        return bucket.replace(name, b"4", etag=etag)
    except PreconditionFailed as lost:
        if not lost.uncertain:
            return None
        data, present = bucket.get(name)  # its answer was lost, perhaps
        return present if data == b"4" else None
    except ObjectMissing:
        return None


def _object_exists(bucket: Bucket, name: str) -> bool:
    try:
        bucket.get(name)
    except ObjectMissing:
        return False
    return True


def _is_refused(write: Callable[[], object]) -> bool:
    try:
        write()
    except (PreconditionFailed, ObjectMissing):
        return True
    except StoreUnavailable as error:  # the same answer to each of several tries, and nobody else writes
        if isinstance(error.__cause__, ClientError) and "409" in str(error.__cause__.response.get("ResponseMetadata")):
            raise StoreRejected(
                f"the service answers 409 to a PUT whose condition does not hold, and not 412. {_ADVICE}"
            ) from error.__cause__
        raise
    return False


def _probe_delete(bucket: Bucket, name: str) -> bool:
    """Remove the object, and tell whether DELETE honours If-Match: not with a wrong ETag, and with the right one."""
    try:
        if not _is_refused(lambda: bucket.delete(name, etag=_OTHER_ETAG)):
            return False
        _, etag = bucket.get(name)
        bucket.delete(name, etag=etag)
        if not _object_exists(bucket, name):
            return True
    except ObjectMissing:
        return False
    except (StoreRejected, PreconditionFailed):  # 501: it says that it does not know; or it never takes an ETag
        pass
    bucket.delete(name)
    return False
