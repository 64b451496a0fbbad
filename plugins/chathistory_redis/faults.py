"""What went wrong, translated at this one spot: redis-py's errors into ours.

A server's error begins with a word for what it is; within a script, older servers put it further back. No error of a
server or of redis-py quotes what was sent, but one: that of an unknown command, which is cut short here.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from contextlib import contextmanager

from redis import exceptions as redis_errors
from redis.sentinel import MasterNotFoundError

from chathistory.errors import ChatHistoryError, StoreError, StoreRejected, StoreUnavailable

__all__ = ["Unsettled", "code_of", "faults", "reading"]

_REJECTED = {
    "ASK": "the server is one of a Redis Cluster; open it as redis+cluster:",
    "CROSSSLOT": "the server is one of a Redis Cluster; open it as redis+cluster:",
    "MISCONF": "the server cannot save to its disk, and refuses writes",
    "MOVED": "the server is one of a Redis Cluster; open it as redis+cluster:",
    "NOAUTH": "the server refuses user or password",
    "NOPERM": "the user may not do this",
    "OOM": "the server has no memory left (maxmemory)",
    "WRONGPASS": "the server refuses user or password",
    "WRONGTYPE": "a key below this prefix holds something else",
}
_UNAVAILABLE = {
    "BUSY": "the server is busy with a script",
    "CLUSTERDOWN": "the cluster is down",
    "LOADING": "the server is loading its data",
    "MASTERDOWN": "the server has lost its master",
    "NOREPLICAS": "the server has too few replicas to take writes",
    "READONLY": "the server is a replica, which takes no writes",
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


class Unsettled(Exception):  # it is no error yet: `faults` makes it one
    """A write was done, but fewer servers have it than were asked for. The cause, if any, is the server's refusal."""


@contextmanager
def faults(doing: str, *, once: bool, asked: bool = True) -> Generator[None]:
    """Translate what the body raises; `doing` is the word for it, e.g. "append".

    once: the client sends a command at most once, so that where the last try did not reach the server, none did.
    asked: whether the body sends what is to be done; else it only makes ready for that.
    """
    try:
        yield
    except Unsettled as unsettled:
        raise StoreUnavailable(
            f"{doing} was done, but is not as safe as was asked for: {unsettled}", outcome="unknown"
        ) from (unsettled.__cause__ or unsettled)
    except redis_errors.InvalidResponse as error:
        raise _garbled(doing, error, asked=asked) from error
    except redis_errors.ResponseError as error:
        raise _refused(doing, error) from error
    except redis_errors.RedisError as error:
        raise _lost(doing, error, once=once, asked=asked) from error
    except redis_errors.RedisClusterException as error:
        raise StoreUnavailable(f"{doing} failed: {error}", outcome="unknown" if asked else "not stored") from error
    except OSError as error:
        raise StoreUnavailable(
            f"{doing} failed: {type(error).__name__} on the connection", outcome="unknown" if asked else "not stored"
        ) from error
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise _garbled(doing, error, asked=asked) from error


@contextmanager
def reading(doing: str) -> Generator[None]:
    """Translate what goes wrong where a reply is taken apart: one that the script cannot have given."""
    try:
        yield
    except ChatHistoryError:
        raise
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise _garbled(doing, error, asked=True) from error


def code_of(error: Exception) -> str | None:
    """Return the word for what the server says, None for one that is not known here."""
    for kind, code in _CLASSES.items():
        if isinstance(error, kind):
            return code
    found = _CODES.search(str(error))
    return found[1] if found else None


def _refused(doing: str, error: redis_errors.ResponseError) -> StoreError:
    error.args = tuple(_QUOTES.sub("", arg) if isinstance(arg, str) else arg for arg in error.args)
    return _named(doing, error) or StoreRejected(f"{doing} was refused by the server: {error}")


def _lost(doing: str, error: redis_errors.RedisError, *, once: bool, asked: bool) -> StoreError:
    named = _named(doing, error)
    if named is not None:
        return named
    if once and "TTL exhausted" in str(error):  # the client of a Cluster was asked to try again, too often
        return StoreUnavailable(f"{doing} failed: {_UNAVAILABLE['TRYAGAIN']}", outcome="not stored")
    not_sent = isinstance(error, MasterNotFoundError) or bool(_NOT_SENT.search(str(error)))
    sure = not asked or (once and not_sent)
    return StoreUnavailable(f"{doing} failed: {error}", outcome="not stored" if sure else "unknown")


def _garbled(doing: str, error: Exception, *, asked: bool) -> StoreError:
    """Return the error for an answer that redis-py cannot read. Its words go: they quote the answer."""
    error.args = ()
    if isinstance(error, UnicodeDecodeError):
        error.object = b""
    if isinstance(error, UnicodeEncodeError):
        error.object = ""
    msg = f"{doing} failed: what came from the server is not an answer ({type(error).__name__})"
    return StoreUnavailable(msg, outcome="unknown" if asked else "not stored")


def _named(doing: str, error: Exception) -> StoreError | None:
    code = code_of(error)
    if code in _UNAVAILABLE:
        return StoreUnavailable(f"{doing} failed: {_UNAVAILABLE[code]}", outcome="not stored")
    if code in _REJECTED:
        return StoreRejected(f"{doing} was refused: {_REJECTED[code]}")
    return None
