"""Checks of what callers hand in: a store, a client, a number, a text.

Objects are judged by what they can do, not by class. So a tracing proxy or a test's own fake is accepted, and an object
that would only fail later (an asynchronous client where a synchronous one is called, a database in place of a store) is
refused when it is handed in.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Iterator
from typing import Any, NoReturn

from chathistory.errors import InvalidInput

__all__ = [
    "check_count",
    "check_position",
    "check_range",
    "check_store",
    "check_text",
    "check_type",
    "class_name",
    "is_coroutine_function",
    "key_in_path",
    "refuse_pickling",
]

_STORE_METHODS = (
    "append",
    "read",
    "heads",
    "keys",
    "damaged_keys",
    "scan_keys",
    "is_index_complete",
    "forget",
    "delete",
    "remove_leftovers",
    "check",
    "close",
    "get_recovery",
    "get_storage_notes",
    "get_sweeping",
)
_LARGEST = 2**53 - 1  # as `store.LARGEST_NUMBER`
_NAME = re.compile("[A-Za-z0-9_]{1,40}")  # of a field, as an API has them; other keys are somebody's text
_WRAPPERS = 20  # functions around a function, at most


def class_name(value: object) -> str:
    """Return the module and class of an object, such as "redis.asyncio.client.Redis"; of a class, that it is one."""
    kind = value if isinstance(value, type) else type(value)
    name = f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.")
    return f"the class {name} itself (not an instance of it)" if isinstance(value, type) else name


def key_in_path(key: str) -> str:
    """Return a key of an object for the path in an error or a report: as it is only if it looks like a field's name."""
    return f".{key}" if _NAME.fullmatch(key) else ".(a field)"


def is_coroutine_function(function: Any) -> bool:
    """Whether a call gives a coroutine, as far as that shows without calling.

    Looks through `functools.partial`, bound methods, callable objects and what `functools.wraps` wrapped.
    """
    return any(map(inspect.iscoroutinefunction, unwrap_function(function)))


def unwrap_function(function: Any) -> Iterator[Any]:
    """Yield a function, and the one inside of it, and so on."""
    for _ in range(_WRAPPERS):
        yield function
        inner = _inner_function(function)
        if inner is None or inner is function:
            return
        function = inner


def _inner_function(function: Any) -> Any:
    if isinstance(function, functools.partial | functools.partialmethod):
        return function.func
    if inspect.ismethod(function):
        return function.__func__
    wrapped = inspect.getattr_static(function, "__wrapped__", None)
    if wrapped is not None:
        return getattr(function, "__wrapped__", None)
    if inspect.isroutine(function) or isinstance(function, type):
        return None
    return inspect.getattr_static(type(function), "__call__", None)


def check_store(store: Any, name: str = "store") -> None:
    """Raise `InvalidInput` if an object cannot serve as a `HistoryStore`, naming its module and class.

    Args:
        store: What the caller handed in.
        name: The name of the argument, for the error.
    """
    if isinstance(store, str):
        _refuse_store(name, store, "chathistory.open_store(...) makes a store of a URL")
    if isinstance(store, type):
        _refuse_store(name, store, "make an instance, or use chathistory.open_store(...)")
    methods = {method: getattr(store, method, None) for method in _STORE_METHODS}
    missing = [method for method, function in methods.items() if not callable(function)]
    recency = getattr(getattr(store, "traits", None), "recency", None)  # some clients have an attribute of every name
    if recency not in ("exact", "bucket") or len(missing) == len(methods):
        _refuse_store(name, store, _HINTS.get(class_name(store).partition(".")[0], _HINT))
    if missing:
        _refuse_store(
            name, store, f"it has no {', '.join(missing)}; chathistory.BaseStore has all methods that are needed"
        )
    if any(map(is_coroutine_function, methods.values())):
        _refuse_store(name, store, "its methods are coroutine functions; use a synchronous store, also with asyncio")


_HINT = "chathistory.open_store(...) makes one"
_HINTS = {
    "redis": "chathistory_redis.RedisStore(client) makes one of a redis.Redis",
    "pymongo": "chathistory_mongodb.MongoStore(client, database=...) makes one of a pymongo.MongoClient",
    "botocore": "chathistory_s3.S3Store(client, bucket=...) makes one of an S3 client",
    "boto3": "chathistory_s3.S3Store(client, bucket=...) makes one of an S3 client",
    "anthropic": "the client is the first argument of an engine, the store the second",
    "chathistory": "use its `.history`, or the store that it was made of",
}


def _refuse_store(name: str, value: object, hint: str) -> NoReturn:
    raise InvalidInput(f"{name}: must be a HistoryStore, not {class_name(value)}; {hint}")


def check_position(name: str, value: object) -> None:
    """Raise `InvalidInput` for what cannot be a position, such as True, 1.0 or None; it may be one that is not there.

    Args:
        name: The name of the argument, for the error.
        value: What the caller handed in.
    """
    if type(value) is not int:
        raise InvalidInput(f"{name}: must be a whole number, not {class_name(value)}")
    if not -_LARGEST <= value <= _LARGEST:
        raise InvalidInput(f"{name}: must be a whole number from -(2**53 - 1) to 2**53 - 1")


def check_range(start: object, stop: object) -> None:
    """Raise `InvalidInput` for what cannot be a range of positions: every store calls this first in `read`.

    Args:
        start: The first position; a negative one counts from the end.
        stop: One above the last; None: the end.
    """
    check_position("start", start)
    if stop is not None:
        check_position("stop", stop)


def check_count(name: str, value: object, *, least: int = 0) -> None:
    """Raise `InvalidInput` for what is no whole number from `least` to 2**53 - 1.

    Args:
        name: The name of the argument, for the error.
        value: What the caller handed in.
        least: The smallest number that is taken.
    """
    if type(value) is not int or not least <= value <= _LARGEST:
        told = f", not {class_name(value)}" if type(value) is not int else ""
        raise InvalidInput(f"{name}: must be a whole number from {least} to 2**53 - 1{told}")


def check_text(name: str, value: object) -> None:
    """Raise `InvalidInput` for what is no text; it may be empty.

    Args:
        name: The name of the argument, for the error.
        value: What the caller handed in.
    """
    check_type(name, value, str, "text")


def check_type(name: str, value: object, expected: type | tuple[type, ...], description: str) -> None:
    """Raise `InvalidInput` for what is no instance of a class.

    Args:
        name: The name of the argument, for the error.
        value: What the caller handed in.
        expected: The class, or several classes.
        description: What the value must be, such as "text", for the error.
    """
    if not isinstance(value, expected):
        raise InvalidInput(f"{name}: must be {description}, not {class_name(value)}")


def refuse_pickling(value: object, instead: str) -> NoReturn:
    """Raise `TypeError`: what has connections, locks or threads belongs to its own process.

    Args:
        value: What was about to be pickled, or copied by `copy`.
        instead: What to do in its place.
    """
    raise TypeError(f"{class_name(value)} cannot be pickled or copied: {instead}")
