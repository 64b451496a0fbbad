"""Whether a service can be trusted with the guard: it is tried, once per store, before the first write.

A service that ignores conditions would let two writers overwrite each other in silence, one that makes an object where
If-Match finds none would bring back what was deleted, and one that stores other bytes than it was sent would damage
everything. Such a service is refused. On the way it is found out whether `If-Match` wants its ETag quoted (one server
line does not understand quotes), and whether `DELETE` honours it; where it does not, a small grave stays for each
deleted conversation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from botocore.exceptions import ClientError

from chathistory.errors import StoreRejected, StoreUnavailable
from chathistory_s3.bucket import Bucket, Service
from chathistory_s3.faults import Missing, Overtaken
from chathistory_s3.layout import Layout

__all__ = ["probed"]

_TRIES = 3
_ADVICE = "Use AWS S3, or a service with conditional writes"
_IGNORED = f"the service ignores the condition of a PUT with {{}}: writers would overwrite each other. {_ADVICE}"
_NOT_CREATED = f"the service refuses a PUT with If-None-Match although there is no such object. {_ADVICE}"
_REVIVED = f"the service makes an object where If-Match finds none, so what was deleted could come back. {_ADVICE}"
_OTHER_ETAG = "the service tells another ETag when an object is read than when it was written: no append would succeed"
_OTHER_BYTES = (
    "the service stores other bytes than it is sent. If the client is your own, give it "
    'Config(request_checksum_calculation="when_required")'
)
_WRONG_ANSWER = f"the service answers 409 to a PUT whose condition does not hold, and not 412. {_ADVICE}"
_OTHER = '"00000000000000000000000000000000"'


def probed(bucket: Bucket, layout: Layout) -> Service:
    """Return what the service can do. Raises `StoreRejected` if the guard cannot rest on it."""
    for _ in range(_TRIES):
        bucket.service, name = Service(), layout.probe()
        try:
            etag = bucket.create(name, b"1")
        except Overtaken as lost:
            if not lost.uncertain:
                raise StoreRejected(_NOT_CREATED) from lost.__cause__
            continue  # of our own first try, whose answer was lost
        except StoreRejected as refusal:
            raise _not_conditional(refusal) from refusal.__cause__
        try:
            service = _tried(bucket, name, etag)
        except StoreRejected:
            if not _is_there(bucket, name):  # somebody removed it: it proves nothing
                continue
            bucket.remove(name)
            raise
        return replace(service, deletes=_deletes(bucket, name))
    raise StoreUnavailable(
        f"the service gave no certain answer to any of {_TRIES} looks at what it can do", outcome="not stored"
    )


def _not_conditional(refusal: StoreRejected) -> StoreRejected:
    """Return what is told of a refusal of the first conditional PUT, which may be for another reason too."""
    return StoreRejected(f"{refusal}. The first write of a store is a PUT with If-None-Match. {_ADVICE}")


def _tried(bucket: Bucket, name: str, first: str) -> Service:
    """Try the conditions of PUT on objects that are there and that are not. Raises `StoreRejected`."""
    if not _refuses(lambda: bucket.create(name, b"2")):
        raise StoreRejected(_IGNORED.format("If-None-Match: *"))
    if not _refuses(lambda: bucket.replace(name, b"3", etag=_OTHER)):
        raise StoreRejected(_IGNORED.format("If-Match"))
    second = _replaced(bucket, name, first)
    if second is None:
        bucket.service = replace(bucket.service, quotes=False)
        second = _replaced(bucket, name, first)
    if second is None:
        raise StoreRejected(
            "the service refuses a PUT with If-Match and the right ETag, so nothing could ever be appended"
        )
    if not _refuses(lambda: bucket.replace(name, b"5", etag=first)):
        raise StoreRejected(_IGNORED.format("If-Match and the ETag of an older state"))
    _check_read(bucket, name, second)
    absent = f"{name}-absent"
    if not _refuses(lambda: bucket.replace(absent, b"6", etag=second)):
        bucket.remove(absent)
        raise StoreRejected(_REVIVED)
    return bucket.service


def _replaced(bucket: Bucket, name: str, etag: str) -> str | None:
    """Return the new ETag; None: it was refused."""
    try:
        return bucket.replace(name, b"4", etag=etag)
    except Overtaken as lost:
        if not lost.uncertain:
            return None
        data, present = bucket.get(name)  # its answer was lost, perhaps
        return present if data == b"4" else None
    except Missing:
        return None


def _check_read(bucket: Bucket, name: str, etag: str) -> None:
    data, present = bucket.get(name)
    if data != b"4":
        raise StoreRejected(_OTHER_BYTES)
    if present.strip('"') != etag.strip('"'):
        raise StoreRejected(_OTHER_ETAG)


def _is_there(bucket: Bucket, name: str) -> bool:
    try:
        bucket.get(name)
    except Missing:
        return False
    return True


def _refuses(write: Callable[[], object]) -> bool:
    try:
        write()
    except (Overtaken, Missing):
        return True
    except StoreUnavailable as error:  # the same answer to each of several tries, and nobody else writes
        if isinstance(error.__cause__, ClientError) and "409" in str(error.__cause__.response.get("ResponseMetadata")):
            raise StoreRejected(_WRONG_ANSWER) from error.__cause__
        raise
    return False


def _deletes(bucket: Bucket, name: str) -> bool:
    """Remove the object, and tell whether DELETE honours If-Match: not with a wrong ETag, and with the right one."""
    try:
        if not _refuses(lambda: bucket.remove(name, etag=_OTHER)):
            return False
        _, etag = bucket.get(name)
        bucket.remove(name, etag=etag)
        if not _is_there(bucket, name):
            return True
    except Missing:
        return False
    except (StoreRejected, Overtaken):  # 501: it says that it does not know; or it never takes an ETag
        pass
    bucket.remove(name)
    return False
