"""Write any answer of the API as JSON text, for answers that cannot be stored as messages.

Nothing here recurses, because a reply may be nested deeper than Python's recursion limit. Nothing is refused: a number
beyond the range of a float is written as 1e999, and a value that is not JSON as its text.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

from chathistory.messages.json_values import is_sdk_object

__all__ = ["sdk_objects_to_dicts", "to_json_text"]


def sdk_objects_to_dicts(value: Any) -> Any:
    """Return a copy of a value in which all objects of the SDK are dicts, with the API's names for their fields.

    Args:
        value: Any value. Times become ISO 8601 text, tuples become lists; other values stay the same.
    """
    holder: list[Any] = [value]
    todo: list[tuple[Any, Any]] = [(holder, 0)]
    while todo:
        parent, key = todo.pop()
        part = parent[key]
        if is_sdk_object(part):  # only fields that were set, under the names that the API has for them
            known, values, chosen = type(part).model_fields, vars(part), part.model_fields_set
            names = {name: known[name].alias or name for name in known if name in chosen and name in values}
            part = parent[key] = {names[name]: values[name] for name in names} | (part.model_extra or {})
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


def to_json_text(value: Any) -> str:
    """Return a value as one line of JSON, in ASCII.

    Args:
        value: Any value, with objects of the SDK in it.
    """
    pieces: list[str] = []
    todo: list[Any] = [sdk_objects_to_dicts(value)]
    while todo:
        part = todo.pop()
        if isinstance(part, _Written):
            pieces.append(part)
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
        elif isinstance(part, float) and not math.isfinite(part):
            pieces.append("null" if math.isnan(part) else "1e999" if part > 0 else "-1e999")
        elif isinstance(part, int) and not isinstance(part, bool):
            pieces.append(str(Decimal(part)))  # Python's str() refuses an int of more than a few thousand digits
        else:
            is_plain = part is None or isinstance(part, str | bool | float)
            pieces.append(json.dumps(part if is_plain else str(part)))
    return "".join(pieces)


class _Written(str):
    """A piece of JSON text that is ready to be joined."""

    __slots__ = ()
