"""Translate errors of pymongo into those of `chathistory.errors`.

A server's refusal may quote data: the document that a validator refused, or the value in a unique index. So the cause
of a translated error is pymongo's error without the server's words, and the error is raised outside of the handler,
which would make the original its context.
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
    2: "the server does not accept a value or a hint",
    13: "the user lacks a permission; this store needs the role readWrite",
    18: "the user or the password is wrong",
    64: "not enough members acknowledged the write in time",
    79: "the server has no write concern with this name",
    100: "the write concern asks for more members than the deployment has",
    121: "a validator of the collection refuses the document; remove the validator",
    8000: "the user or the password is wrong",
    10334: _TOO_LARGE,
    11000: "a unique index that this store did not create refuses the document; drop the index",
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
"""Codes of temporary errors: no primary, a failover, time-outs, interruptions, write conflicts, moved chunks."""

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
"""Errors that the driver raises when it reads a broken reply."""

_UNANSWERED: Sequence[tuple[type[Exception], str, Literal["not stored", "unknown"]]] = (
    (
        ConfigurationError,
        "the name server does not know the service, or the options do not fit the server or this version of pymongo",
        "not stored",
    ),
    (ServerSelectionTimeoutError, "no server could be reached", "not stored"),
    (WaitQueueTimeoutError, "no server could be reached", "not stored"),
    (PyMongoError, "the connection broke", "unknown"),
    (Exception, "the server's reply cannot be read", "unknown"),
)
"""Errors without a reply of the server: reason, and whether a write may have happened. The first match applies."""


def translate_errors(operation: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Return a decorator for functions that call pymongo, which translates their errors.

    Args:
        operation: The word for the call in messages, such as "append".
    """

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
            raise ours from cause  # outside of the handler, which would make the original error its context

        return call_translated

    return decorate


def _to_store_error(operation: str, key: Key | None, error: Exception) -> ChatHistoryError:
    if isinstance(error, OperationFailure):
        code = _error_code(error)
        # A write concern fails after the write, so the data may be stored.
        if isinstance(error, WriteConcernError | ExecutionTimeout) or code in _TRANSIENT:
            return StoreUnavailable(f"{operation} failed: {_describe_code(code)}", outcome="unknown")
        return StoreRejected(f"{operation} was refused: {_describe_code(code)}")
    if isinstance(error, DocumentTooLarge):
        return StoreRejected(f"{operation} was refused: {_TOO_LARGE}")
    if isinstance(error, BSONError):
        return CorruptRecord(key, None, "the document cannot be decoded")
    if isinstance(error, InvalidOperation):
        return StoreClosed("the client of this store is closed; open a store with a new client")
    _, reason, outcome = next(row for row in _UNANSWERED if isinstance(error, row[0]))
    return StoreUnavailable(f"{operation} failed: {reason}", outcome=outcome)


def _error_code(error: OperationFailure) -> int:
    """Return the server's code; for a bulk write, the code of its first error."""
    if isinstance(error, BulkWriteError) and error.details:
        wrong = [*error.details.get("writeErrors", []), *error.details.get("writeConcernErrors", [])]
        return int(wrong[0].get("code", 0)) if wrong else 0
    return error.code or 0


def _describe_code(code: int) -> str:
    return f"{_WORDS.get(code, 'the server refused')} (code {code})"


def _without_words(error: Exception) -> Exception:
    """Return the error without the server's words and without parts of a document."""
    if isinstance(error, OperationFailure):
        kind = OperationFailure if isinstance(error, BulkWriteError) else type(error)
        return kind(_describe_code(_error_code(error)), _error_code(error))
    if isinstance(error, NotPrimaryError):
        return type(error)("this server is not the primary, or is shutting down")
    if isinstance(error, ConnectionFailure):
        return type(error)(str(error))  # hosts and time-outs, no part of a document
    words = "message left out, because it may quote a document"
    if isinstance(error, PyMongoError | BSONError):
        return type(error)(words)
    return RuntimeError(f"{type(error).__name__} in the driver; {words}")
