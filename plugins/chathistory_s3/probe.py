"""Checks once per store, before the first write, that the service supports conditional writes.

A service that ignores conditions would let two writers overwrite each other unnoticed. One that creates an object
although `If-Match` finds no object would bring back deleted conversations. One that stores other bytes than it receives
would damage everything. Such services are refused. The probe also finds out whether `If-Match` takes an ETag with
quotes (one line of servers does not), and whether DELETE supports it; if not, a small tombstone stays for each deleted
conversation.
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
_IGNORED = f"the service ignores the condition of a PUT with {{}}, so writers would overwrite each other. {_ADVICE}"
_OTHER_ETAG = '"00000000000000000000000000000000"'


def probe_service(bucket: Bucket, names: ObjectNames) -> Service:
    """Try the service, and return what it supports.

    Args:
        bucket: The bucket; its `service` is changed.
        names: The names of the objects.

    Raises:
        StoreRejected: The service does not support conditional writes as the store needs them.
        StoreUnavailable: The service gave no clear result.
    """
    for _ in range(_TRIES):
        bucket.service, name = Service(), names.probes() + new_token()
        try:
            etag = bucket.create(name, b"1")
        except PreconditionFailed as lost:
            if lost.uncertain:
                continue  # it may be our own first try, and its response was lost
            raise StoreRejected(
                f"the service refuses a PUT with If-None-Match although the object does not exist. {_ADVICE}"
            ) from lost.__cause__
        except StoreRejected as refusal:  # there may be another reason
            raise StoreRejected(
                f"{refusal}. If permissions and bucket are right, the service lacks PUT with If-None-Match. {_ADVICE}"
            ) from refusal.__cause__
        try:
            _probe_put(bucket, name, etag)
        except StoreRejected:
            if not _object_exists(bucket, name):  # somebody removed it, so the result means nothing
                continue
            bucket.delete(name)
            raise
        return replace(bucket.service, conditional_delete=_probe_delete(bucket, name))
    raise StoreUnavailable(
        f"whether the service supports conditional writes could not be determined in {_TRIES} tries; try again later",
        outcome="not stored",
    )


def _probe_put(bucket: Bucket, name: str, first: str) -> None:
    """Try the conditions of PUT with an object that exists and one that does not. Raises `StoreRejected`."""
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
            f"the service refuses a PUT with If-Match and the right ETag, so no append could succeed. {_ADVICE}"
        )
    if not _is_refused(lambda: bucket.replace(name, b"5", etag=first)):
        raise StoreRejected(_IGNORED.format("If-Match and the ETag of an older state"))
    data, etag = bucket.get(name)
    if data != b"4":
        raise StoreRejected(
            "the service changes the bytes that it stores. If you pass your own client, create it with "
            f'botocore.config.Config(request_checksum_calculation="when_required"); else: {_ADVICE}'
        )
    if etag.strip('"') != second.strip('"'):
        raise StoreRejected(
            f"the service reports one ETag for a write and another for a read, so no append could succeed. {_ADVICE}"
        )
    absent = f"{name}-absent"
    if not _is_refused(lambda: bucket.replace(absent, b"6", etag=second)):
        bucket.delete(absent)
        raise StoreRejected(
            "the service creates an object although If-Match finds no object, so deleted conversations could return. "
            f"{_ADVICE}"
        )


def _try_replace(bucket: Bucket, name: str, etag: str) -> str | None:
    """Replace the object, and return the new ETag; None if that was refused."""
    try:
        return bucket.replace(name, b"4", etag=etag)
    except PreconditionFailed as lost:
        if not lost.uncertain:
            return None
        data, current = bucket.get(name)  # perhaps it was done, and its response was lost
        return current if data == b"4" else None
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
    except StoreUnavailable as error:  # several tries failed in the same way, and nobody else writes
        if isinstance(error.__cause__, ClientError) and "409" in str(error.__cause__.response.get("ResponseMetadata")):
            raise StoreRejected(
                f"the service answers 409 instead of 412 to a PUT with a condition that does not hold. {_ADVICE}"
            ) from error.__cause__
        raise
    return False


def _probe_delete(bucket: Bucket, name: str) -> bool:
    """Remove the object; return True if DELETE refuses a wrong ETag in `If-Match` and accepts the right one."""
    try:
        if not _is_refused(lambda: bucket.delete(name, etag=_OTHER_ETAG)):
            return False
        _, etag = bucket.get(name)
        bucket.delete(name, etag=etag)
        if not _object_exists(bucket, name):
            return True
    except ObjectMissing:
        return False
    except (StoreRejected, PreconditionFailed):  # it answers 501 (not implemented), or never accepts an ETag
        pass
    bucket.delete(name)
    return False
