"""Copy a caller's values to plain JSON values. Nothing is altered; a value that JSON cannot hold is refused.

`json.dumps` alone would turn the key 1 into "1" and a NaN into text that no other reader accepts, and for an object of
the SDK it would raise an exception that names no field.
"""

from __future__ import annotations

import binascii
import inspect
import json
import math
import os
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from chathistory.checks import key_in_path
from chathistory.errors import InvalidInput

__all__ = ["DECODER", "is_sdk_object", "is_storable", "iter_levels", "to_plain_json", "to_tool_definition"]

DEEPEST = 200  # levels of nesting


class _RefusedError(Exception):
    """A value cannot be stored. The path is collected while it is raised, so that the usual case builds no path."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        self.path: list[str] = []


def to_plain_json(value: Any, name: str = "message") -> Any:
    """Return a deep copy of a value, made of dict, list, str, int, float, bool and None.

    Args:
        value: The value. An object of the Anthropic SDK becomes a dict with the fields that were received; a tuple
            becomes a list; a path or an open file as the `data` of a base64 source is read and encoded.
        name: The name of the argument, for the error.

    Raises:
        InvalidInput: JSON cannot hold the value, or it is nested more than 200 levels deep. The text gives the path of
            the field, such as "message.content[2].input.size".
    """
    try:
        return _copy_value(value, DEEPEST)
    except _RefusedError as refused:
        path = "".join(reversed(refused.path[-8:]))
        msg = f"{name}{path}: {refused.reason}"
    except Exception as error:  # noqa: BLE001 - objects of others can raise anything when they are read
        msg = f"{name}: cannot be read: {type(error).__name__}"
    raise InvalidInput(msg)  # not in the handler: the error of an object may quote its content


def _copy_value(value: Any, depth: int) -> Any:
    kind = type(value)
    if kind is str or kind is bool or value is None:
        return value
    if kind is int or kind is float:
        return _check_number(value)
    if depth == 0:
        raise _RefusedError(f"must be nested at most {DEEPEST} levels deep")
    items: list[Any] = []
    name: Any = None
    try:
        if isinstance(value, (list, tuple)):
            for part in value:
                items.append(_copy_value(part, depth - 1))  # noqa: PERF401  # the length is the index of a refused item
            return items
        if kind is dict or isinstance(value, Mapping):  # the check for a Mapping is slow
            copy: dict[str, Any] = {}
            for name, part in value.items():
                if not isinstance(name, str):
                    raise _RefusedError(f"the keys of a dict must be text, not {type(name).__name__}")  # noqa: TRY301  # with its path
                is_file = name == "data" and type(part) is not str and value.get("type") == "base64"
                copy[name if type(name) is str else str.__str__(name)] = (
                    _encode_file(part, depth - 1) if is_file else _copy_value(part, depth - 1)
                )
            return copy
    except _RefusedError as refused:
        of_object = key_in_path(name) if isinstance(name, str) else ""
        refused.path.append(f"[{len(items)}]" if isinstance(value, (list, tuple)) else of_object)
        raise
    return _convert_rare_type(value, depth - 1)


def _encode_file(value: Any, depth: int) -> Any:
    """Return the content of a path, or of a file that is open for reading, as base64; other values are copied."""
    content: Any
    try:
        if isinstance(value, os.PathLike):
            with open(value, "rb") as file:  # noqa: PTH123  # pathlib costs every program that imports us
                content = file.read()
        elif callable(read := getattr(value, "read", None)):
            content = read()
        else:
            return _copy_value(value, depth)
    except (OSError, ValueError) as error:
        reason = f"the file cannot be read: {type(error).__name__}"
        raise _RefusedError(reason) from None
    if inspect.iscoroutine(content):
        content.close()  # else Python warns that the coroutine was never awaited
    if not isinstance(content, bytes | bytearray | memoryview):
        reason = 'a file must be opened for reading bytes, with mode "rb"'
        raise _RefusedError(reason)
    return binascii.b2a_base64(content, newline=False).decode()


def _convert_rare_type(value: Any, depth: int) -> Any:
    """Convert values of rare types: subclasses of the plain ones, and objects of the SDK."""
    if isinstance(value, str):
        return str.__str__(value)  # not str(): a member of an enumeration would return its name
    if isinstance(value, int):
        return _check_number(int(value))
    if isinstance(value, float):
        return _check_number(float(value))
    if is_sdk_object(value):
        _check_numbers(_call_to_dict(value, mode="python", warnings=False), depth)  # in JSON mode a NaN becomes a null
        return _copy_value(_call_to_dict(value, mode="json", warnings=False), depth)
    raise _RefusedError(f"a value of type {type(value).__name__} cannot be stored as JSON")


def _call_to_dict(value: Any, **options: Any) -> dict[str, Any]:
    """Return the result of an object's `to_dict`, which may be any code."""
    try:
        fields = value.to_dict(**options)
    except Exception as error:  # noqa: BLE001 - it may be any code
        reason = f"the to_dict of a {type(value).__name__} raised {type(error).__name__}"
    else:
        if isinstance(fields, dict):
            return fields
        reason = f"the to_dict of a {type(value).__name__} must return a dict, not {type(fields).__name__}"
    raise _RefusedError(reason)


def to_tool_definition(tool: Any, name: str = "tools") -> Any:
    """Return the definition of a tool for a request.

    Args:
        tool: The definition itself, or an object with a `to_dict`, such as a tool of the SDK's runner.
        name: The name of the argument, for the error.

    Raises:
        InvalidInput: `to_dict` raises an error, or returns something that is not a dict.
    """
    if not hasattr(tool, "to_dict"):
        return tool
    try:
        return _call_to_dict(tool)
    except _RefusedError as refused:
        msg = f"{name}: {refused.reason}"
    raise InvalidInput(msg)


def is_sdk_object(value: Any) -> bool:
    """Return True if a value is an object of the Anthropic SDK; it is recognised without importing the SDK.

    Args:
        value: Any value.
    """
    return hasattr(kind := type(value), "model_fields_set") and hasattr(kind, "to_dict")


def _check_numbers(value: Any, depth: int) -> None:
    if depth == 0:
        raise _RefusedError(f"must be nested at most {DEEPEST} levels deep")
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, part in parts:
        try:
            _check_number(part) if isinstance(part, float) else _check_numbers(part, depth - 1)
        except _RefusedError as refused:
            refused.path.append(key_in_path(str(name)) if isinstance(value, dict) else f"[{name}]")
            raise


def _check_number(value: float) -> float:
    if isinstance(value, float):
        if not math.isfinite(value):
            raise _RefusedError("NaN and infinities cannot be stored as JSON; use a finite number or None")
        return value
    limit = sys.get_int_max_str_digits()
    if limit and value.bit_length() > limit * 3:  # 3 bits for each digit: a little less than it may have
        raise _RefusedError(
            f"an int must have at most {limit * 9 // 10} digits, to be readable again; store it as text"
        )
    return value


def is_storable(value: Any) -> bool:
    """Return True if a value that was read from JSON can be written as JSON again.

    Args:
        value: The value. It must not be nested more than 200 levels deep, or hold a number that is too large.
    """
    for depth, level in enumerate(iter_levels(value)):
        if depth > DEEPEST:
            return False
        try:
            for each in level:
                if isinstance(each, int | float):
                    _check_number(each)
        except _RefusedError:
            return False
    return True


def iter_levels(value: Any) -> Iterator[list[Any]]:
    """Yield the levels of a JSON value: the value, then all its items, then all items of these, and so on.

    Args:
        value: The value.
    """
    level = [value]
    while level:
        yield level
        holders = [each for each in level if isinstance(each, dict | list)]
        level = [part for each in holders for part in (each.values() if isinstance(each, dict) else each)]


def _parse_finite_float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError  # JSON text such as 1e999, which could not be written again
    return value


def _refuse_constant(_name: str) -> float:
    raise ValueError  # NaN and infinities are not JSON


DECODER = json.JSONDecoder(parse_float=_parse_finite_float, parse_constant=_refuse_constant)
"""Decodes JSON from outside; refuses numbers that cannot be written again. Raises `ValueError`, `RecursionError`."""
