"""Translate boto3's errors into those of `chathistory.errors`.

The client library's error becomes the `__cause__`. Before that, everything that may hold a credential or a body is
removed from it: the request, and all of the response except its code, message and status.

boto3 passes on errors of the libraries below it (urllib3, http.client, ssl) if a connection breaks within the body of a
response. So every error of a request comes here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from http.client import IncompleteRead
from json import JSONDecodeError
from typing import Any, Literal, TypeAlias

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    FlexibleChecksumError,
    HTTPClientError,
    IncompleteReadError,
    ProxyConnectionError,
    SSLError,
)
from botocore.exceptions import ConnectionError as BotoConnectionError
from botocore.parsers import ResponseParserError

from chathistory.errors import StoreError, StoreRejected, StoreUnavailable

__all__ = [
    "IncompleteAnswer",
    "ObjectMissing",
    "ObjectUnavailable",
    "PreconditionFailed",
    "RangeBeyondEnd",
    "RequestFault",
    "classify_error",
    "refuse_unavailable",
    "store_error",
]

Kind: TypeAlias = Literal[
    "missing", "beyond end", "unavailable", "precondition", "busy", "unreachable", "broken", "rejected"
]


class ObjectMissing(Exception):  # a response, not a failure
    """There is no such object."""


class RangeBeyondEnd(Exception):  # a response, not a failure
    """The object exists, but has no byte in the requested range."""


class ObjectUnavailable(Exception):  # a response, not a failure
    """The object exists, but the service does not return it: it is archived, or encrypted with a lost key."""


class PreconditionFailed(Exception):  # a response, not a failure
    """The condition of a write does not hold.

    Attributes:
        uncertain: An earlier try of the same write may have been done, so that the object has changed for this reason.
    """

    def __init__(self, *, uncertain: bool) -> None:
        self.uncertain = uncertain
        super().__init__("the object has changed")


class IncompleteAnswer(Exception):
    """A response lacks a required part: it was cut, or did not come from the service."""


def refuse_unavailable(name: str, unavailable: ObjectUnavailable) -> StoreRejected:
    """Return the error for an object that may become readable again, and would be lost if it counted as damaged.

    Args:
        name: The name of the object.
        unavailable: The response of the service.
    """
    error = StoreRejected(f"the service does not return {name}; if the object is archived, restore it first")
    error.__cause__ = unavailable.__cause__
    return error


@dataclass(frozen=True, slots=True)
class RequestFault:
    """A classified error of a request.

    Attributes:
        kind: "busy": nothing was done, and a repetition may succeed; "unreachable": nothing was done, and a repetition
            will hardly succeed; "broken": the outcome is unknown; "rejected": the service or boto3 refuses the request;
            the others are responses.
        words: The description for messages.
    """

    kind: Kind
    words: str


_BROKEN = {"RequestTimeout", "InternalError", "ServiceUnavailable", "InternalServerError", "BadDigest"}
_KINDS: Mapping[str, Kind] = {
    **dict.fromkeys(("NoSuchKey", "404", "NotFound"), "missing"),
    **dict.fromkeys(("InvalidRange", "416"), "beyond end"),
    **dict.fromkeys(("PreconditionFailed", "412"), "precondition"),
    **dict.fromkeys(("SlowDown", "ConditionalRequestConflict", "OperationAborted", "TooManyRequests"), "busy"),
    **dict.fromkeys(("Throttling", "409", "429"), "busy"),
}
_WORDS = {
    "NoSuchBucket": "there is no such bucket",
    "AccessDenied": "the credentials do not permit it; they need s3:GetObject, PutObject, DeleteObject and ListBucket",
    "InvalidAccessKeyId": "the service does not know the credentials",
    "SignatureDoesNotMatch": "the credentials are wrong",
    "ExpiredToken": "the credentials have expired",
    "TokenRefreshRequired": "the credentials have expired",
    "RequestTimeTooSkewed": "the clock of this machine is wrong",
    "RequestExpired": "the clock of this machine is wrong",
    "PermanentRedirect": "the bucket is in another region",
    "AuthorizationHeaderMalformed": "the bucket is in another region",
    "EntityTooLarge": "the object is too large for the service",
    "QuotaExceeded": "there is no space left",
    "NotImplemented": "it does not support this kind of request",
}
_UNREACHABLE = (EndpointConnectionError, ConnectTimeoutError, ProxyConnectionError, SSLError)
_TRANSPORT = (HTTPClientError, IncompleteReadError, FlexibleChecksumError, BotoConnectionError)
_NOT_IMPLEMENTED = 501


def classify_error(error: Exception, *, is_read: bool = False) -> RequestFault:
    """Classify an error of a request, and remove everything secret from it.

    Args:
        error: The error, which is changed.
        is_read: Whether the request was a GET.
    """
    if isinstance(error, ClientError):
        return _classify_answer(error, is_read=is_read)
    _remove_secrets(error)
    if isinstance(error, _UNREACHABLE):
        return RequestFault("unreachable", "the service cannot be reached")
    if isinstance(error, BotoCoreError) and not isinstance(error, _TRANSPORT):
        return RequestFault("rejected", f"boto3 refuses the request: {type(error).__name__}")
    if isinstance(error, IncompleteAnswer):
        return RequestFault("broken", f"{error}")
    return RequestFault("broken", f"the connection failed: {type(error).__name__}")


def _classify_answer(error: ClientError, *, is_read: bool) -> RequestFault:
    response: Any = error.response
    code = str(response.get("Error", {}).get("Code", ""))
    message = str(response.get("Error", {}).get("Message", ""))
    metadata = response.get("ResponseMetadata", {})
    status, headers = int(metadata.get("HTTPStatusCode", 0)), metadata.get("HTTPHeaders", {})
    kept: Any = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}
    error.response = kept
    words = f"the service answers {code or status}" + (f", {_WORDS[code]}" if code in _WORDS else "")
    if is_read and (
        code == "InvalidObjectState" or code.startswith("KMS.") or (code == "InvalidRequest" and "ncryption" in message)
    ):
        return RequestFault("unavailable", words)
    # A 404 that had a body but no code was cut: it may concern the bucket.
    is_cut = code == "404" and headers.get("content-length") != "0" and "transfer-encoding" not in headers
    kind = _KINDS.get(code, "busy" if status in {409, 429} else "rejected")
    if is_cut or code in _BROKEN or (status >= 500 and status != _NOT_IMPLEMENTED and kind != "busy"):  # noqa: PLR2004
        return RequestFault("broken", words)
    return RequestFault(kind, words)


def _remove_secrets(error: BaseException) -> None:
    """Remove requests, responses and parts of bodies from an error, its causes and contexts."""
    rest, done = [error], set[int]()
    while rest:
        each = rest.pop()
        if id(each) in done:
            continue
        done.add(id(each))
        kwargs = getattr(each, "kwargs", None)
        if isinstance(kwargs, dict):
            for name in ("request", "response"):
                kwargs.pop(name, None)
        if isinstance(each, HTTPClientError):
            vars(each).update(request=None, response=None)
            # the base class has the text of the error within it, which may quote anything
            each.args = ("the HTTP client failed",) if type(each) is HTTPClientError else each.args
        elif isinstance(each, IncompleteRead) and isinstance(each.partial, bytes):  # urllib3's has a number there
            each.partial, each.args = b"", ()
        elif isinstance(each, UnicodeDecodeError):
            each.object = b""
        elif isinstance(each, JSONDecodeError):
            each.doc = ""
        elif isinstance(each, ResponseParserError):
            each.args = ("the response cannot be parsed",)
        rest += [one for one in (each.__cause__, each.__context__, *each.args) if isinstance(one, BaseException)]
        rest += [one for one in (kwargs or {}).values() if isinstance(one, BaseException)]


def store_error(operation: str, fault: RequestFault, *, uncertain: bool) -> StoreError:
    """Return the chathistory error for a fault after the last try.

    Args:
        operation: The word for the call.
        fault: The fault.
        uncertain: Whether something may have been written.
    """
    if fault.kind == "rejected":
        return StoreRejected(f"{operation} was refused: {fault.words}")
    return StoreUnavailable(f"{operation} failed: {fault.words}", outcome="unknown" if uncertain else "not stored")
