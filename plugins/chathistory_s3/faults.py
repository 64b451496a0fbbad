"""What went wrong, translated at this one spot: boto3's errors into ours.

A client library's error becomes the `__cause__`. Before that it loses what may hold a credential or a body: the
request that it carries about, and all of the answer but its code, message and number.

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

__all__ = ["BadAnswer", "Beyond", "Fault", "Missing", "Overtaken", "Withheld", "fault_of", "not_given", "raised"]

Kind: TypeAlias = Literal["missing", "beyond", "withheld", "overtaken", "busy", "unreachable", "broken", "rejected"]


class Missing(Exception):  # not an error: an answer
    """There is no such object."""


class Beyond(Exception):  # not an error: an answer
    """The object is there, but has no byte of the range that was asked for."""


class Withheld(Exception):  # not an error: an answer
    """The object is there, but the service does not give it out: it was archived, or encrypted with a lost key."""


def not_given(name: str, withheld: Withheld) -> StoreRejected:
    """Return what is told where an object would be lost if it were taken for damaged: it may come back."""
    error = StoreRejected(f"the service does not give out {name}, which may be in an archive: bring it back first")
    error.__cause__ = withheld.__cause__
    return error


class BadAnswer(Exception):
    """An answer lacks what every answer of its kind has, so it was cut, or somebody else than the service gave it."""


class Overtaken(Exception):  # not an error: an answer
    """The condition of a write does not hold; `uncertain`: maybe because an earlier try of ours was done after all."""

    def __init__(self, *, uncertain: bool) -> None:
        self.uncertain = uncertain
        super().__init__("the object has changed")


@dataclass(frozen=True, slots=True)
class Fault:
    """An error of a request, sorted.

    busy: nothing was done, try again; unreachable: the same, but it will hardly help; broken: nobody knows what was
    done; the others are answers.
    """

    kind: Kind
    words: str
    code: str = ""


_MISSING = {"NoSuchKey", "404", "NotFound"}
_BEYOND = {"InvalidRange", "416"}
_ARCHIVED = "InvalidObjectState"
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
    "NotImplemented": "it does not know this kind of request",
}


def fault_of(error: Exception, *, reads: bool = False) -> Fault:
    """Sort an error that a request raised, and take out of it what must not be passed on; `reads`: of a GET."""
    if isinstance(error, ClientError):
        return _answer(error, reads=reads)
    _strip(error)
    if isinstance(error, (EndpointConnectionError, ConnectTimeoutError, ProxyConnectionError, SSLError)):
        return Fault("unreachable", "the service cannot be reached")
    if isinstance(error, BotoCoreError) and not isinstance(error, _TRANSPORT):
        return Fault("rejected", f"boto3 refuses: {type(error).__name__}")
    if isinstance(error, BadAnswer):
        return Fault("broken", f"{error}")
    return Fault("broken", f"the connection failed: {type(error).__name__}")


def _answer(error: ClientError, *, reads: bool) -> Fault:
    response: Any = error.response
    code = str(response.get("Error", {}).get("Code", ""))
    metadata = response.get("ResponseMetadata", {})
    status = int(metadata.get("HTTPStatusCode", 0))
    cut = code == "404" and _lacks_body(metadata.get("HTTPHeaders", {}))
    kept: Any = {
        "Error": {"Code": code, "Message": response.get("Error", {}).get("Message", "")},
        "ResponseMetadata": {"HTTPStatusCode": status},
    }
    error.response = kept
    if reads and _is_withheld(code, str(kept["Error"]["Message"])):
        return Fault("withheld", _words(code, status), code)
    return Fault(_kind(code, status, cut=cut), _words(code, status), code)


def _is_withheld(code: str, message: str) -> bool:
    """Tell whether a GET is refused for what the object is: archived, or encrypted with a key that is not to be had."""
    return code == _ARCHIVED or code.startswith("KMS.") or (code == "InvalidRequest" and "ncryption" in message)


def _words(code: str, status: int) -> str:
    words = f"the service answers {code or status}"
    return f"{words}, {_WORDS[code]}" if code in _WORDS else words


def _kind(code: str, status: int, *, cut: bool) -> Kind:
    if cut or code in _BROKEN or (status >= 500 and status != _NOT_IMPLEMENTED and code not in _BUSY):  # noqa: PLR2004
        return "broken"
    for kind, codes in _KINDS.items():
        if code in codes:
            return kind
    return "busy" if status in {409, 429} else "rejected"


_KINDS: Mapping[Kind, set[str]] = {"missing": _MISSING, "beyond": _BEYOND, "overtaken": _OVERTAKEN, "busy": _BUSY}
_NOT_IMPLEMENTED = 501


def _lacks_body(headers: Mapping[str, str]) -> bool:
    """Tell whether a 404 without a code was cut, or is not of the service: it may as well mean the bucket.

    An answer that never had a body says so in its headers.
    """
    return headers.get("content-length") != "0" and "transfer-encoding" not in headers


_TRANSPORT = (HTTPClientError, IncompleteReadError, FlexibleChecksumError, BotoConnectionError)


def _strip(error: BaseException) -> None:
    """Take requests, answers and parts of bodies out of an error and all that it was raised from."""
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


def raised(doing: str, fault: Fault, *, uncertain: bool) -> StoreError:
    """Return our error for a fault that no further try mends; `uncertain`: something may have been written."""
    if fault.kind == "rejected":
        return StoreRejected(f"{doing} was refused: {fault.words}")
    return StoreUnavailable(f"{doing} failed: {fault.words}", outcome="unknown" if uncertain else "not stored")
