"""JSON text of anything that the API may have answered, for what cannot be stored as it is.

Nothing here recurses, for a reply may be nested deeper than Python's own functions go, and nothing refuses: numbers
beyond a float are written as they were (1e999), and what is no JSON at all as the text of it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from chathistory.messages.json_values import is_sdk_object

__all__ = ["json_text", "unpacked"]


def unpacked(value: Any) -> Any:
    """Return a value with all objects of the SDK in it as dicts, with the API's names; the rest is as it was."""
    holder: list[Any] = [value]
    todo: list[tuple[Any, Any]] = [(holder, 0)]
    while todo:
        parent, key = todo.pop()
        part = parent[key]
        if is_sdk_object(part):
            part = parent[key] = _fields(part)
        elif isinstance(part, Mapping):
            part = parent[key] = dict(part)
        elif isinstance(part, list | tuple):
            part = parent[key] = list(part)
        elif isinstance(part, datetime):
            parent[key] = part.isoformat().replace("+00:00", "Z")
        if isinstance(part, dict):
            todo += [(part, name) for name in part]
        elif isinstance(part, list):
            todo += [(part, index) for index in range(len(part))]
    return holder[0]


def _fields(value: Any) -> dict[str, Any]:
    """Return what was set of an object of the SDK, by the names that the API has for it."""
    known, more = type(value).model_fields, value.model_extra or {}
    held = vars(value)
    named = {known[name].alias or name: held[name] for name in known if name in value.model_fields_set and name in held}
    return named | more


def json_text(value: Any) -> str:
    """Return one line of JSON, in ASCII."""
    return "".join(_pieces(unpacked(value)))


def _pieces(value: Any) -> Iterator[str]:
    todo: list[Any] = [value]
    while todo:
        part = todo.pop()
        if isinstance(part, _Written):
            yield part
        elif isinstance(part, dict):
            items = [
                piece
                for name, each in part.items()
                for piece in (_Written(","), _Written(f"{json.dumps(str(name))}:"), each)
            ]
            todo += [_Written("}"), *reversed(items[1:]), _Written("{")]
        elif isinstance(part, list):
            items = [piece for each in part for piece in (_Written(","), each)]
            todo += [_Written("]"), *reversed(items[1:]), _Written("[")]
        else:
            yield _scalar(part)


class _Written(str):
    """Text that is written as it is."""

    __slots__ = ()


def _scalar(value: Any) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return "null" if math.isnan(value) else "1e999" if value > 0 else "-1e999"
    if value is None or isinstance(value, str | bool | float):
        return json.dumps(value)
    if isinstance(value, int):
        return _digits(value)
    return json.dumps(str(value))


def _digits(value: int) -> str:
    """Return a number of any size: Python refuses to write one of more than a few thousand digits at once."""
    sign, value = ("-", -value) if value < 0 else ("", value)
    parts = []
    while value >= _MANY:
        value, rest = divmod(value, _MANY)
        parts.append(f"{rest:0{_DIGITS}d}")
    return sign + str(value) + "".join(reversed(parts))


_DIGITS = 1000
_MANY = 10**_DIGITS
