"""From what a caller hands in to plain JSON values of our own: nothing is altered, what JSON cannot hold is refused.

`json.dumps` alone would turn the key 1 into "1", a NaN into something no other reader takes, and an object of the SDK
into an exception that names no field.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from typing import Any

from chathistory.errors import InvalidInput

__all__ = ["plain"]

DEEPEST = 200


def plain(value: Any, path: str = "message", depth: int = 0) -> Any:
    """Return a deep copy of `value` made of dict, list, str, int, float, bool and None.

    Objects of the Anthropic SDK become their dicts, as received; a tuple becomes a list. Raises `InvalidInput` that
    names the field, such as "message.content[2].input.size".
    """
    if value is None or value is True or value is False:
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, (int, float)):
        return _number(value, path)
    if depth == DEEPEST:
        msg = f"{path[:80]}...: nested more than {DEEPEST} levels deep"
        raise InvalidInput(msg)
    if isinstance(value, Mapping):
        return {_key(key, path): plain(item, f"{path}.{key}", depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item, f"{path}[{index}]", depth + 1) for index, item in enumerate(value)]
    if callable(getattr(value, "to_dict", None)):
        return plain(value.to_dict(mode="json", warnings=False), path, depth + 1)
    msg = f"{path}: a {type(value).__name__} cannot be stored as JSON"
    raise InvalidInput(msg)


def _number(value: float, path: str) -> float:
    if isinstance(value, float) and not math.isfinite(value):
        msg = f"{path}: NaN and infinities are not JSON"
        raise InvalidInput(msg)
    limit = sys.get_int_max_str_digits()
    if isinstance(value, int) and limit and value.bit_length() > limit * 3:  # 3 bits a digit errs on the safe side
        msg = f"{path}: an integer of more than {limit * 9 // 10} digits cannot be read back"
        raise InvalidInput(msg)
    return value


def _key(key: Any, path: str) -> str:
    if isinstance(key, str):
        return str(key)
    msg = f"{path}: the keys of a JSON object are text, not {type(key).__name__}"
    raise InvalidInput(msg)
