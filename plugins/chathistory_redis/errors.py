"""Translate errors of redis-py, and replies that cannot be parsed, into errors of chathistory.

A server's error begins with a code word; within a script, older servers put it further back. Only one error of a server
or of redis-py quotes arguments, the error for an unknown command; the arguments are cut off here.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from contextlib import contextmanager
from typing import Literal

from redis import exceptions as redis_errors
from redis.sentinel import MasterNotFoundError

from chathistory.errors import ChatHistoryError, StoreError, StoreRejected, StoreUnavailable

__all__ = ["code_of", "translate_errors"]

_REJECTED = {
    "ASK": "the server belongs to a Redis Cluster; open it as redis+cluster:",
    "CROSSSLOT": "the server belongs to a Redis Cluster; open it as redis+cluster:",
    "MISCONF": "the server cannot save to its disk, so it refuses writes",
    "MOVED": "the server belongs to a Redis Cluster; open it as redis+cluster:",
    "NOAUTH": "the server refuses the user or password",
    "NOPERM": "the user may not use this command; store.check() names the commands to allow",
    "OOM": "the server has no memory left (maxmemory)",
    "WRONGPASS": "the server refuses the user or password",
    "WRONGTYPE": "a key below this prefix has a wrong type; `chathistory doctor` names it",
}
_UNAVAILABLE = {
    "BUSY": "the server is busy with another script",
    "CLUSTERDOWN": "the cluster is down",
    "LOADING": "the server is loading its data",
    "MASTERDOWN": "the server has lost its primary",
    "NOREPLICAS": "the server has too few replicas to take writes",
    "READONLY": "the server is a replica, which accepts no writes",
    "TRYAGAIN": "the slot is being moved to another server",
}
_CODES = re.compile(rf"(?<![A-Za-z])({'|'.join([*_REJECTED, *_UNAVAILABLE])})\b")
_CLASSES: dict[type[Exception], str] = {  # redis-py cuts the code off the text of these
    redis_errors.AuthenticationError: "NOAUTH",
    redis_errors.AuthorizationError: "NOPERM",
    redis_errors.BusyLoadingError: "LOADING",
    redis_errors.ClusterCrossSlotError: "CROSSSLOT",
    redis_errors.MasterDownError: "MASTERDOWN",
    redis_errors.ClusterDownError: "CLUSTERDOWN",
    redis_errors.MovedError: "MOVED",
    redis_errors.AskError: "ASK",
    redis_errors.NoPermissionError: "NOPERM",
    redis_errors.OutOfMemoryError: "OOM",
    redis_errors.ReadOnlyError: "READONLY",
    redis_errors.TryAgainError: "TRYAGAIN",
}
_QUOTES = re.compile(r",? with args beginning with.*", re.DOTALL)
_NOT_SENT = re.compile(r"\bconnecting to\b|No connection available|Too many connections|max number of clients")
_UNREADABLE = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)


@contextmanager
def translate_errors(operation: str, *, once: bool = True, sent: bool = True) -> Generator[None]:
    """Translate the errors of a body that calls redis-py, or parses a reply.

    Args:
        operation: The word for the call in messages, such as "append".
        once: Whether the client sends a command at most once. Then nothing is stored if the last try did not reach the
            server.
        sent: Whether the body may send the operation; False if it only connects.

    Raises:
        StoreRejected: The server refuses the operation, and will refuse it again.
        StoreUnavailable: The server could not be reached, or cannot do it now; `outcome` is "not stored" or "unknown".
    """
    outcome: Literal["unknown", "not stored"] = "unknown" if sent else "not stored"
    try:
        yield
    except ChatHistoryError:
        raise
    except OSError as error:
        raise StoreUnavailable(
            f"{operation} failed: {type(error).__name__} on the connection", outcome=outcome
        ) from error
    except redis_errors.RedisClusterException as error:
        raise StoreUnavailable(f"{operation} failed: {error}", outcome=outcome) from error
    except (redis_errors.InvalidResponse, *_UNREADABLE) as error:
        error.args = ()  # they quote the reply
        if isinstance(error, UnicodeDecodeError):
            error.object = b""
        if isinstance(error, UnicodeEncodeError):
            error.object = ""
        raise StoreUnavailable(
            f"{operation} failed: the reply of the server cannot be read ({type(error).__name__})", outcome=outcome
        ) from error
    except redis_errors.RedisError as error:
        raise _to_store_error(operation, error, once=once, sent=sent) from error


def _to_store_error(operation: str, error: redis_errors.RedisError, *, once: bool, sent: bool) -> StoreError:
    """Return the chathistory error for a refusal of the server, or for a connection without a reply."""
    error.args = tuple(_QUOTES.sub("", arg) if isinstance(arg, str) else arg for arg in error.args)
    code = code_of(error)
    if once and "TTL exhausted" in str(error):  # the Cluster answered TRYAGAIN too often
        code = "TRYAGAIN"
    if code in _UNAVAILABLE:
        return StoreUnavailable(f"{operation} failed: {_UNAVAILABLE[code]}", outcome="not stored")
    if code in _REJECTED:
        return StoreRejected(f"{operation} was refused: {_REJECTED[code]}")
    if isinstance(error, redis_errors.ResponseError):
        return StoreRejected(f"{operation} was refused by the server: {error}")
    not_sent = isinstance(error, MasterNotFoundError) or _NOT_SENT.search(str(error))
    is_certain = not sent or (once and not_sent)
    return StoreUnavailable(f"{operation} failed: {error}", outcome="not stored" if is_certain else "unknown")


def code_of(error: Exception) -> str | None:
    """Return the code word of a server's error; None if it has none of the known ones."""
    for kind, code in _CLASSES.items():
        if isinstance(error, kind):
            return code
    found = _CODES.search(str(error))
    return found[1] if found else None
