"""Checks of arguments: a store, a function, a number, a text.

Objects are judged by their methods, not by their class. So a tracing proxy or a test's own fake is accepted. An object
that would only fail later (an asynchronous client where a synchronous one is called, a database in place of a store) is
refused at once.
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
_FIELD_NAME = re.compile("[A-Za-z0-9_]{1,40}")  # a field of an API; any other key may be somebody's text
_MAX_WRAPPERS = 20  # functions around a function, at most


def class_name(value: object) -> str:
    """Return the module and class of an object, such as "redis.asyncio.client.Redis", for an error.

    Args:
        value: The object. For a class, the text says that it is the class itself.
    """
    kind = value if isinstance(value, type) else type(value)
    name = f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.")
    return f"the class {name} itself (not an instance of it)" if isinstance(value, type) else name


def key_in_path(key: str) -> str:
    """Return a key of a JSON object as a part of a path, for an error or a report.

    Args:
        key: The key. It is quoted only if it looks like the name of a field; any other key may be somebody's text.
    """
    return f".{key}" if _FIELD_NAME.fullmatch(key) else ".(a field)"


def is_coroutine_function(function: Any) -> bool:
    """Return True if a call of `function` returns a coroutine, as far as that is visible without a call.

    Args:
        function: Any object. `functools.partial`, bound methods, callable objects and functions that were wrapped with
            `functools.wraps` are unwrapped first.
    """
    return any(map(inspect.iscoroutinefunction, unwrap_function(function)))


def unwrap_function(function: Any) -> Iterator[Any]:
    """Yield a function, the function that it wraps, the function that this one wraps, and so on.

    Args:
        function: Any object; at most 20 layers are yielded.
    """
    for _ in range(_MAX_WRAPPERS):
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
    """Check that an object can serve as a `HistoryStore`.

    Args:
        store: The value of the argument.
        name: The name of the argument, for the error.

    Raises:
        InvalidInput: It cannot; the text names its module and class, and how to get a store.
    """
    if isinstance(store, str):
        _refuse_store(name, store, "call chathistory.open_store(url) to open a store by its URL")
    if isinstance(store, type):
        _refuse_store(name, store, "create an instance, or call chathistory.open_store(url)")
    methods = {method: getattr(store, method, None) for method in _STORE_METHODS}
    missing = [method for method, function in methods.items() if not callable(function)]
    recency = getattr(getattr(store, "traits", None), "recency", None)  # some clients have an attribute of every name
    if recency not in ("exact", "bucket") or len(missing) == len(methods):
        _refuse_store(name, store, _HINTS.get(class_name(store).partition(".")[0], _HINT))
    if missing:
        _refuse_store(
            name, store, f"it has no {', '.join(missing)}; subclass chathistory.BaseStore, which has all methods"
        )
    if any(map(is_coroutine_function, methods.values())):
        _refuse_store(name, store, "its methods are coroutine functions; pass a synchronous store, also with asyncio")


_HINT = "call chathistory.open_store(url) to open one"
_HINTS = {
    "redis": "pass chathistory_redis.RedisStore(client), with a redis.Redis as client",
    "pymongo": "pass chathistory_mongodb.MongoStore(client, database=...), with a pymongo.MongoClient as client",
    "botocore": "pass chathistory_s3.S3Store(client, bucket=...), with an S3 client",
    "boto3": "pass chathistory_s3.S3Store(client, bucket=...), with an S3 client",
    "anthropic": "pass the client as the first argument of an engine, and the store as the second",
    "chathistory": "pass its `.history`, or the store that it was created with",
}


def _refuse_store(name: str, value: object, hint: str) -> NoReturn:
    raise InvalidInput(f"{name}: must be a HistoryStore, not {class_name(value)}; {hint}")


def check_position(name: str, value: object) -> None:
    """Check that a value can be a position; no record needs to be there.

    Args:
        name: The name of the argument, for the error.
        value: The value of the argument.

    Raises:
        InvalidInput: It is not an int (True, 1.0 and None are not), or beyond 2**53 - 1 in either direction.
    """
    if type(value) is not int:
        raise InvalidInput(f"{name}: must be an int, not {class_name(value)}")
    if not -_LARGEST <= value <= _LARGEST:
        raise InvalidInput(f"{name}: must be an int from -(2**53 - 1) to 2**53 - 1")


def check_range(start: object, stop: object) -> None:
    """Check that two values can be a range of positions; every store calls this first in `read`.

    Args:
        start: The first position; a negative one counts from the end.
        stop: One above the last position; None for the end.

    Raises:
        InvalidInput: One of them cannot be a position.
    """
    check_position("start", start)
    if stop is not None:
        check_position("stop", stop)


def check_count(name: str, value: object, *, least: int = 0) -> None:
    """Check that a value is an int from `least` to 2**53 - 1.

    Args:
        name: The name of the argument, for the error.
        value: The value of the argument.
        least: The smallest number that is accepted.

    Raises:
        InvalidInput: It is not.
    """
    if type(value) is not int or not least <= value <= _LARGEST:
        actual = f", not {class_name(value)}" if type(value) is not int else ""
        raise InvalidInput(f"{name}: must be an int from {least} to 2**53 - 1{actual}")


def check_text(name: str, value: object) -> None:
    """Check that a value is a str; it may be empty.

    Args:
        name: The name of the argument, for the error.
        value: The value of the argument.

    Raises:
        InvalidInput: It is not.
    """
    check_type(name, value, str, "text")


def check_type(name: str, value: object, expected: type | tuple[type, ...], description: str) -> None:
    """Check that a value is an instance of a class.

    Args:
        name: The name of the argument, for the error.
        value: The value of the argument.
        expected: The class, or several classes.
        description: What the value must be, such as "text", for the error.

    Raises:
        InvalidInput: It is not; the text names its class.
    """
    if not isinstance(value, expected):
        raise InvalidInput(f"{name}: must be {description}, not {class_name(value)}")


def refuse_pickling(value: object, instead: str) -> NoReturn:
    """Raise `TypeError`: an object with connections, locks or threads belongs to its own process.

    Args:
        value: The object that was about to be pickled, or copied by `copy`.
        instead: What to do instead, for the error.

    Raises:
        TypeError: Always.
    """
    raise TypeError(f"{class_name(value)} cannot be pickled or copied: {instead}")
