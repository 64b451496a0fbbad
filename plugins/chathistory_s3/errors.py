"""What went wrong, translated in this one place: boto3's errors into ours.

A client library's error becomes the `__cause__`. Before that it loses what may hold a credential or a body: the
request that it carries, and all of the answer but its code, message and status.

boto3 lets errors of the libraries below it through: of urllib3, http.client and ssl, when a connection breaks within
the body of an answer. So whatever a request raises comes here.
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


class ObjectMissing(Exception):  # not an error: an answer
    """There is no such object."""


class RangeBeyondEnd(Exception):  # not an error: an answer
    """The object is there, but has no byte of the range that was asked for."""


class ObjectUnavailable(Exception):  # not an error: an answer
    """The object is there, but the service does not return it: it was archived, or encrypted with a lost key."""


class PreconditionFailed(Exception):  # not an error: an answer
    """The condition of a write does not hold; `uncertain`: an earlier try of the same write may have been done."""

    def __init__(self, *, uncertain: bool) -> None:
        self.uncertain = uncertain
        super().__init__("the object has changed")


class IncompleteAnswer(Exception):
    """An answer lacks what every answer of its kind has: it was cut, or did not come from the service."""


def refuse_unavailable(name: str, unavailable: ObjectUnavailable) -> StoreRejected:
    """Return the error for an object that may come back, where it would be lost if it were taken for damaged."""
    error = StoreRejected(f"the service does not return {name}, which may be in an archive: bring it back first")
    error.__cause__ = unavailable.__cause__
    return error


@dataclass(frozen=True, slots=True)
class RequestFault:
    """An error of a request, sorted.

    busy: nothing was done, try again; unreachable: the same, but it will hardly help; broken: nobody knows what was
    done; the others are answers.
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
    "AccessDenied": "the credentials do not permit it",
    "InvalidAccessKeyId": "the credentials are not known to the service",
    "SignatureDoesNotMatch": "the credentials are wrong",
    "ExpiredToken": "the credentials have expired",
    "TokenRefreshRequired": "the credentials have expired",
    "RequestTimeTooSkewed": "the clock of this machine is wrong",
    "RequestExpired": "the clock of this machine is wrong",
    "PermanentRedirect": "the bucket is in another region",
    "AuthorizationHeaderMalformed": "the bucket is in another region",
    "EntityTooLarge": "it is too large for the service",
    "QuotaExceeded": "there is no space left",
    "NotImplemented": "it does not know this kind of request",
}
_UNREACHABLE = (EndpointConnectionError, ConnectTimeoutError, ProxyConnectionError, SSLError)
_TRANSPORT = (HTTPClientError, IncompleteReadError, FlexibleChecksumError, BotoConnectionError)
_NOT_IMPLEMENTED = 501


def classify_error(error: Exception, *, is_read: bool = False) -> RequestFault:
    """Sort an error that a request raised, and remove from it what must not be passed on; `is_read`: of a GET."""
    if isinstance(error, ClientError):
        return _classify_answer(error, is_read=is_read)
    _remove_secrets(error)
    if isinstance(error, _UNREACHABLE):
        return RequestFault("unreachable", "the service cannot be reached")
    if isinstance(error, BotoCoreError) and not isinstance(error, _TRANSPORT):
        return RequestFault("rejected", f"boto3 refuses: {type(error).__name__}")
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
    # A 404 without a code that had a body was cut: it may as well mean the bucket.
    is_cut = code == "404" and headers.get("content-length") != "0" and "transfer-encoding" not in headers
    kind = _KINDS.get(code, "busy" if status in {409, 429} else "rejected")
    if is_cut or code in _BROKEN or (status >= 500 and status != _NOT_IMPLEMENTED and kind != "busy"):  # noqa: PLR2004
        return RequestFault("broken", words)
    return RequestFault(kind, words)


def _remove_secrets(error: BaseException) -> None:
    """Remove requests, answers and parts of bodies from an error and all that it was raised from."""
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
            # the words of the base class are those of the error within it, whatever it quotes
            each.args = ("the HTTP client failed",) if type(each) is HTTPClientError else each.args
        elif isinstance(each, IncompleteRead) and isinstance(each.partial, bytes):  # urllib3's has a number there
            each.partial, each.args = b"", ()
        elif isinstance(each, UnicodeDecodeError):
            each.object = b""
        elif isinstance(each, JSONDecodeError):
            each.doc = ""
        elif isinstance(each, ResponseParserError):
            each.args = ("the answer cannot be parsed",)
        rest += [one for one in (each.__cause__, each.__context__, *each.args) if isinstance(one, BaseException)]
        rest += [one for one in (kwargs or {}).values() if isinstance(one, BaseException)]


def store_error(operation: str, fault: RequestFault, *, uncertain: bool) -> StoreError:
    """Return our error for a fault that no further try mends; `uncertain`: something may have been written."""
    if fault.kind == "rejected":
        return StoreRejected(f"{operation} was refused: {fault.words}")
    return StoreUnavailable(f"{operation} failed: {fault.words}", outcome="unknown" if uncertain else "not stored")
