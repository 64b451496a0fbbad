"""What went wrong, translated at this one spot: boto3's errors into ours.

A client library's error becomes the `__cause__`. Before that it loses what may hold a credential or a body: the
request that it carries about, and all of the answer but its code, message and number.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    ProxyConnectionError,
    SSLError,
)

from chathistory.errors import StoreError, StoreRejected, StoreUnavailable

__all__ = ["Beyond", "Fault", "Missing", "Overtaken", "fault_of", "raised"]

Kind: TypeAlias = Literal["missing", "beyond", "overtaken", "busy", "unreachable", "broken", "rejected"]


class Missing(Exception):  # not an error: an answer
    """There is no such object."""


class Beyond(Exception):  # not an error: an answer
    """The object is there, but has no byte of the range that was asked for."""


class Overtaken(Exception):  # not an error: an answer
    """The condition of a write does not hold; `uncertain`: maybe because an earlier try of ours was done after all."""

    def __init__(self, *, uncertain: bool) -> None:
        self.uncertain = uncertain
        super().__init__("the object has changed")


@dataclass(frozen=True, slots=True)
class Fault:
    """An error of boto3's, sorted.

    busy: nothing was done, try again; unreachable: the same, but it will hardly help; broken: nobody knows what was
    done; the others are answers.
    """

    kind: Kind
    words: str


_MISSING = {"NoSuchKey", "404", "NotFound"}
_BEYOND = {"InvalidRange", "416"}
_OVERTAKEN = {"PreconditionFailed", "412"}
_BUSY = {"SlowDown", "ConditionalRequestConflict", "OperationAborted", "TooManyRequests", "Throttling", "409", "429"}
_BROKEN = {"RequestTimeout", "InternalError", "ServiceUnavailable", "InternalServerError", "BadDigest"}
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
}


def fault_of(error: Exception) -> Fault:
    """Sort an error that boto3 raised, and take out of it what must not be passed on."""
    if isinstance(error, ClientError):
        return _answer(error)
    _stripped(error)
    if isinstance(error, (EndpointConnectionError, ConnectTimeoutError, ProxyConnectionError, SSLError)):
        return Fault("unreachable", "the service cannot be reached")
    if isinstance(error, BotoCoreError) and not _is_transport(error):
        return Fault("rejected", f"boto3 refuses: {type(error).__name__}")
    return Fault("broken", f"the connection failed: {type(error).__name__}")


def _answer(error: ClientError) -> Fault:
    response: Any = error.response
    code = str(response.get("Error", {}).get("Code", ""))
    status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    kept: Any = {
        "Error": {"Code": code, "Message": response.get("Error", {}).get("Message", "")},
        "ResponseMetadata": {"HTTPStatusCode": status},
    }
    error.response = kept
    words = f"the service answers {code or status}"
    if code in _MISSING:
        return Fault("missing", words)
    if code in _BEYOND:
        return Fault("beyond", words)
    if code in _OVERTAKEN:
        return Fault("overtaken", words)
    if code in _BUSY or status in {409, 429}:
        return Fault("busy", words)
    if code in _BROKEN or status >= 500:  # noqa: PLR2004
        return Fault("broken", words)
    return Fault("rejected", f"{words}, {_WORDS[code]}" if code in _WORDS else words)


def _is_transport(error: BotoCoreError) -> bool:
    """Tell whether it came from the wire: those carry a request, an endpoint or the error of the HTTP library."""
    return type(error).__name__ in _TRANSPORT


_TRANSPORT = {
    "ConnectionClosedError",
    "ConnectionError",
    "FlexibleChecksumError",
    "HTTPClientError",
    "IncompleteReadError",
    "ReadTimeoutError",
    "ResponseParserError",
    "ResponseStreamingError",
}


def _stripped(error: BaseException | None) -> None:
    while error is not None:
        kwargs = getattr(error, "kwargs", None)
        if isinstance(kwargs, dict):
            for name in ("request", "response"):
                kwargs.pop(name, None)
        error = error.__cause__ or error.__context__


def raised(doing: str, fault: Fault, *, uncertain: bool) -> StoreError:
    """Return our error for a fault that no further try mends; `uncertain`: something may have been written."""
    if fault.kind == "rejected":
        return StoreRejected(f"{doing} was refused: {fault.words}")
    return StoreUnavailable(f"{doing} failed: {fault.words}", outcome="unknown" if uncertain else "not stored")
