"""What went wrong, translated at this one spot: pymongo's errors and damaged documents into ours.

A server's refusal may quote what it refused: a validator's the document, a unique index' the value. So the cause that
goes along is pymongo's error without the server's words, and ours is raised when the original is no longer handled.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar

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

from chathistory.errors import (
    ChatHistoryError,
    CorruptRecord,
    StoreClosed,
    StoreRejected,
    StoreUnavailable,
    UnsupportedRecord,
)
from chathistory.storage.store import Key

__all__ = ["Damage", "Refused", "translated"]

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")

_WORDS = {
    2: "a value or a hint is wrong for this server",
    13: "the user may not do that",
    18: "the user or the password is wrong",
    64: "not enough members acknowledged the write in time",
    79: "the server knows no write concern of this name",
    100: "the deployment has not as many members as the write concern asks for",
    121: "a validator of the collection refuses the document",
    8000: "the user or the password is wrong",
    10334: "the document is too large",
    11000: "a unique index that is not this store's refuses the document",
    11601: "the operation was interrupted",
    14031: "the disk is full",
    17419: "the document is too large",
    17420: "the document is too large",
}
_PASSING = frozenset(
    {
        *(6, 7, 24, 43, 46, 50, 63, 64, 89, 91, 112, 133, 134, 150, 175, 189, 202, 234, 237, 251, 262, 276, 290, 314),
        *(317, 358, 384, 9001, 10058, 10107, 11600, 11601, 11602, 13388, 13435, 13436),
    }
)
"""Codes of what may go by itself: no primary, a failover, time-outs, interruptions, write conflicts, moved chunks."""


_GARBLED = (ArithmeticError, AttributeError, LookupError, OSError, RecursionError, TypeError, ValueError, struct.error)
"""What comes out of a driver that reads a broken answer."""


class Damage(Exception):  # named like the errors it becomes
    """What is stored is not what was written, or not by this version.

    position: where, None: at the head itself. key: whose, if found out. version: the format, if it is a later one.
    stop: one above the last position that is missing together with `position`; None: not known.
    """

    def __init__(
        self,
        position: int | None,
        reason: str,
        key: Key | None = None,
        *,
        version: int | None = None,
        stop: int | None = None,
    ) -> None:
        self.key = key
        self.position = position
        self.reason = reason
        self.version = version
        self.stop = stop
        super().__init__(reason)

    def error(self, key: Key | None = None) -> ChatHistoryError:
        """Return what a call raises that names the conversation; `key` where the damage does not know whose it is."""
        whose = self.key or key
        if self.version is not None and whose is not None:
            return UnsupportedRecord(whose, self.position or 0, self.version)
        return CorruptRecord(whose, self.position, self.reason, stop=self.stop)


class Refused(Exception):
    """The store itself found that it cannot work with this database; the text says what mends it."""


def translated(
    doing: str,
) -> Callable[[Callable[Concatenate[S, Key, P], R]], Callable[Concatenate[S, Key, P], R]]:
    """Decorate what works on the conversation of its first argument; `doing` is the word for it, e.g. "append"."""

    def decorated(call: Callable[Concatenate[S, Key, P], R]) -> Callable[Concatenate[S, Key, P], R]:
        @wraps(call)
        def guarded(self: S, key: Key, /, *args: P.args, **kwargs: P.kwargs) -> R:
            _ = key.scope, key.id  # what is wrong with an argument is not the driver's fault
            try:
                return call(self, key, *args, **kwargs)
            except ChatHistoryError:
                raise
            except (Damage, Refused, PyMongoError, BSONError, *_GARBLED) as error:
                ours, cause = _translation(doing, key, error)
            raise ours from cause  # not above: the original would be its context

        return guarded

    return decorated


def _translation(doing: str, key: Key, error: Exception) -> tuple[ChatHistoryError, Exception | None]:
    """Return our error and the cause that it may show."""
    if isinstance(error, Damage):
        return error.error(key), None
    if isinstance(error, Refused):
        cause = error.__cause__
        return StoreRejected(f"{doing} was refused: {error}"), _quiet(cause) if isinstance(cause, Exception) else None
    if isinstance(error, OperationFailure):
        return _answered(doing, error), _quiet(error)
    if isinstance(error, BSONError) and not isinstance(error, DocumentTooLarge):
        return CorruptRecord(key, None, "the document cannot be decoded"), _quiet(error)
    if isinstance(error, _GARBLED):
        msg = f"{doing} failed: what came from the server is not an answer ({type(error).__name__})"
        return StoreUnavailable(msg, outcome="unknown"), _quiet(error)
    return _unanswered(doing, error), _quiet(error)


def _answered(doing: str, error: OperationFailure) -> ChatHistoryError:
    """Name what the server said. A failed write concern comes after the write: it may well be stored."""
    code = _code(error)
    if isinstance(error, WriteConcernError | ExecutionTimeout) or code in _PASSING:
        return StoreUnavailable(f"{doing} failed: {_reason(code)}", outcome="unknown")
    return StoreRejected(f"{doing} was refused: {_reason(code)}")


def _unanswered(doing: str, error: Exception) -> ChatHistoryError:
    if isinstance(error, DocumentTooLarge):
        return StoreRejected(f"{doing} was refused: {_WORDS[10334]}")
    if isinstance(error, InvalidOperation):
        return StoreClosed("the client of this store is closed")
    if isinstance(error, ConfigurationError):
        words = "the name server does not know the service, or server, options and pymongo do not fit together"
        return StoreUnavailable(f"{doing} failed: {words}", outcome="not stored")
    if isinstance(error, ServerSelectionTimeoutError | WaitQueueTimeoutError):
        return StoreUnavailable(f"{doing} failed: no server could be reached", outcome="not stored")
    return StoreUnavailable(f"{doing} failed: the connection broke", outcome="unknown")


def _code(error: OperationFailure) -> int:
    """Return the server's code; of a bulk write the code of what went wrong first."""
    if isinstance(error, BulkWriteError) and error.details:
        wrong = [*error.details.get("writeErrors", []), *error.details.get("writeConcernErrors", [])]
        return int(wrong[0].get("code", 0)) if wrong else 0
    return error.code or 0


def _reason(code: int) -> str:
    return f"{_WORDS.get(code, 'the server says no')} (code {code})"


def _quiet(error: Exception) -> Exception:
    """Return the error without the server's words, and without what it held of a document."""
    if isinstance(error, BulkWriteError):
        return OperationFailure(_reason(_code(error)), _code(error))
    if isinstance(error, OperationFailure):
        return type(error)(_reason(_code(error)), error.code)
    if isinstance(error, NotPrimaryError):
        return type(error)("this server is not the primary, or is shutting down")
    if isinstance(error, ConnectionFailure):
        return type(error)(str(error))  # hosts and time-outs; not what was under way
    if isinstance(error, PyMongoError | BSONError):
        return type(error)("its words are left out, for they may quote a document")
    return RuntimeError(f"{type(error).__name__} in the driver; its words are left out, for they may quote a document")
