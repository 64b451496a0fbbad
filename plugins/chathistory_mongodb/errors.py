"""Errors of pymongo, translated into those of `chathistory.errors`.

A server's refusal may quote what it refused: a validator's the document, a unique index' the value. So the cause that
goes along is pymongo's error without the server's words, and ours is raised when the original is no longer handled.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Literal, ParamSpec, TypeVar

from bson.errors import BSONError
from pymongo.errors import (
    BulkWriteError,
    ConfigurationError,
    ConnectionFailure,
    DocumentTooLarge,
    ExecutionTimeout,
    InvalidOperation,
    NotPrimaryError,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
    WaitQueueTimeoutError,
    WriteConcernError,
)

from chathistory.errors import ChatHistoryError, CorruptRecord, StoreClosed, StoreRejected, StoreUnavailable
from chathistory.storage.values import Key

__all__ = ["translate_errors"]

P = ParamSpec("P")
R = TypeVar("R")

_TOO_LARGE = "the document is too large"
_WORDS = {
    2: "a value or a hint is wrong for this server",
    13: "the user may not do that; the role readWrite is enough for this store",
    18: "the user or the password is wrong",
    64: "not enough members acknowledged the write in time",
    79: "the server knows no write concern of this name",
    100: "the deployment has not as many members as the write concern asks for",
    121: "a validator of the collection refuses the document",
    8000: "the user or the password is wrong",
    10334: _TOO_LARGE,
    11000: "a unique index that is not this store's refuses the document",
    11601: "the operation was interrupted",
    14031: "the disk is full",
    17419: _TOO_LARGE,
    17420: _TOO_LARGE,
}
_TRANSIENT = frozenset(
    {
        *(6, 7, 24, 43, 46, 50, 63, 64, 89, 91, 112, 133, 134, 150, 175, 189, 202, 234, 237, 251, 262, 276, 290, 314),
        *(317, 358, 384, 9001, 10058, 10107, 11600, 11601, 11602, 13388, 13435, 13436),
    }
)
"""Codes of what may go by itself: no primary, a failover, time-outs, interruptions, write conflicts, moved chunks."""

_UNREADABLE = (
    ArithmeticError,
    AttributeError,
    LookupError,
    OSError,
    RecursionError,
    TypeError,
    ValueError,
    struct.error,
)
"""What a driver raises that reads a broken answer."""

_UNANSWERED: Sequence[tuple[type[Exception], str, Literal["not stored", "unknown"]]] = (
    (
        ConfigurationError,
        "the name server does not know the service, or server, options and pymongo do not fit together",
        "not stored",
    ),
    (ServerSelectionTimeoutError, "no server could be reached", "not stored"),
    (WaitQueueTimeoutError, "no server could be reached", "not stored"),
    (PyMongoError, "the connection broke", "unknown"),
    (Exception, "the server's answer cannot be read", "unknown"),
)
"""What came instead of an answer, and whether a write may have happened; the first that fits."""


def translate_errors(operation: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorate a call that uses pymongo; `operation` is the word for it in messages, such as "append"."""

    def decorate(call: Callable[P, R]) -> Callable[P, R]:
        @wraps(call)
        def call_translated(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                return call(*args, **kwargs)
            except ChatHistoryError:
                raise
            except (PyMongoError, BSONError, *_UNREADABLE) as error:
                key = next((each for each in args if isinstance(each, Key)), None)
                ours, cause = _to_store_error(operation, key, error), _without_words(error)
            raise ours from cause  # not in the handler: the original would be its context

        return call_translated

    return decorate


def _to_store_error(operation: str, key: Key | None, error: Exception) -> ChatHistoryError:
    if isinstance(error, OperationFailure):
        code = _error_code(error)
        # A failed write concern comes after the write: it may well be stored.
        if isinstance(error, WriteConcernError | ExecutionTimeout) or code in _TRANSIENT:
            return StoreUnavailable(f"{operation} failed: {_describe_code(code)}", outcome="unknown")
        return StoreRejected(f"{operation} was refused: {_describe_code(code)}")
    if isinstance(error, DocumentTooLarge):
        return StoreRejected(f"{operation} was refused: {_TOO_LARGE}")
    if isinstance(error, BSONError):
        return CorruptRecord(key, None, "the document cannot be decoded")
    if isinstance(error, InvalidOperation):
        return StoreClosed("the client of this store is closed")
    _, reason, outcome = next(row for row in _UNANSWERED if isinstance(error, row[0]))
    return StoreUnavailable(f"{operation} failed: {reason}", outcome=outcome)


def _error_code(error: OperationFailure) -> int:
    """Return the server's code; of a bulk write the code of what went wrong first."""
    if isinstance(error, BulkWriteError) and error.details:
        wrong = [*error.details.get("writeErrors", []), *error.details.get("writeConcernErrors", [])]
        return int(wrong[0].get("code", 0)) if wrong else 0
    return error.code or 0


def _describe_code(code: int) -> str:
    return f"{_WORDS.get(code, 'the server refused')} (code {code})"


def _without_words(error: Exception) -> Exception:
    """Return the error without the server's words, and without what it held of a document."""
    if isinstance(error, OperationFailure):
        kind = OperationFailure if isinstance(error, BulkWriteError) else type(error)
        return kind(_describe_code(_error_code(error)), _error_code(error))
    if isinstance(error, NotPrimaryError):
        return type(error)("this server is not the primary, or is shutting down")
    if isinstance(error, ConnectionFailure):
        return type(error)(str(error))  # hosts and time-outs; nothing of a document
    words = "its words are left out, for they may quote a document"
    if isinstance(error, PyMongoError | BSONError):
        return type(error)(words)
    return RuntimeError(f"{type(error).__name__} in the driver; {words}")
