"""What the fields of a stored entry must be: checked when its line is read, so that no reader meets another type.

A line comes from outside: from a store, an export, another program. Its checksum says that it was not altered, and not
that this library wrote it. What is about to be written is held to the same, where a list may still be a tuple. Fields
that nothing reads are not checked; kinds that are not known here neither.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from chathistory.storage.store import LARGEST_NUMBER

__all__ = ["find_wrong_field"]

Check = Callable[[Any], bool]

_LONGEST_ID = 255
_PAIR, _TRIPLE = 2, 3
_ROLES = frozenset({"user", "assistant", "system"})
_WITH_BLOCKS = frozenset({"tool_result", "search_result"})


def find_wrong_field(values: Mapping[str, Any]) -> str | None:
    """Return the name of the first field of an entry's line that has a wrong type or value; None: all are right.

    Args:
        values: The JSON object of the line, of this version's format.
    """
    wrong = _find_wrong(values, _COMMON, _COMMON_OPTIONAL)
    if wrong is not None:
        return wrong
    kind, data, message = values["kind"], values.get("data") or {}, values.get("message")
    is_message = _is_partial_message if kind in _PARTIAL else _is_message
    if (message is not None or kind == "message") and not is_message(message):
        return "message"
    wrong = _find_wrong(data, *_OF_KIND.get(kind, _OF_ANY_KIND))
    return f"data.{wrong}" if wrong else None


def _find_wrong(values: Mapping[str, Any], required: Mapping[str, Check], optional: Mapping[str, Check]) -> str | None:
    for name, is_valid in required.items():
        if not is_valid(values.get(name, _MISSING)):
            return name
    for name, value in values.items():
        may_be = optional.get(name)
        if may_be is not None and not may_be(value):
            return name
    return None


_MISSING = object()
_LISTS = (list, tuple)


def _is_number(value: Any) -> bool:
    return type(value) is int and 0 <= value <= LARGEST_NUMBER


def _is_count(value: Any) -> bool:
    """Whether a value is a count; one that was reckoned too low, and so is negative, does no harm."""
    return type(value) is int and -LARGEST_NUMBER <= value <= LARGEST_NUMBER


def _is_number_or_none(value: Any) -> bool:
    return value is None or _is_number(value)


def _is_text_or_none(value: Any) -> bool:
    return value is None or isinstance(value, str)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def _is_object_or_none(value: Any) -> bool:
    return value is None or isinstance(value, dict)


def _is_whole(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool)


def _is_id(value: Any) -> bool:
    return isinstance(value, str) and 1 <= len(value) <= _LONGEST_ID


def _is_list_of_text(value: Any) -> bool:
    return isinstance(value, _LISTS) and all(isinstance(part, str) for part in value)


def _is_map_of_text(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(part, str) for part in value.values())


def _is_list_of_numbers(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_number, value))


def _is_path(value: Any) -> bool:
    """Whether a value is a list of spans: pairs of positions, each with something in it."""
    return isinstance(value, _LISTS) and all(
        isinstance(span, _LISTS) and len(span) == _PAIR and all(map(_is_number, span)) for span in value
    )


def _is_place(value: Any) -> bool:
    """Whether a value names a message, a block of it, or a block within that: a position and two indexes or nulls."""
    return (
        isinstance(value, list)
        and len(value) == _TRIPLE
        and _is_number(value[0])
        and _is_number_or_none(value[1])
        and _is_number_or_none(value[2])
    )


def _is_list_of_places(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_place, value))


def _is_omitted(value: Any) -> bool:
    """Whether a value is a list of places with the reason for each and the turn that it was refused in, if any."""
    return isinstance(value, list) and all(
        isinstance(each, list)
        and len(each) == _TRIPLE
        and _is_place(each[0])
        and isinstance(each[1], str)
        and _is_text_or_none(each[2])
        for each in value
    )


def _is_refusal(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and isinstance(value.get("sort"), str)
        and isinstance(value.get("why"), str)
        and isinstance(value.get("certain"), bool)
        and _is_list_of_places(value.get("places"))
    )


def _is_view(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and value.keys() == {"begin", "cut", "hidden", "since"}
        and _is_number(value["begin"])
        and _is_number_or_none(value["cut"])
        and _is_count(value["hidden"])
        and _is_number(value["since"])
    )


def _is_response(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and _is_object_or_none(value.get("usage"))
        and _is_text_or_none(value.get("model"))
        and _is_text_or_none(value.get("stop_reason"))
    )


def _is_message(value: Any) -> bool:
    if not (isinstance(value, dict) and isinstance(value.get("role"), str) and value["role"] in _ROLES):
        return False
    content = value.get("content")
    return isinstance(content, str) or _are_blocks(content)


def _are_blocks(blocks: Any) -> bool:
    return isinstance(blocks, list) and all(map(_is_block, blocks))


def _is_block(block: Any) -> bool:
    if not (isinstance(block, dict) and isinstance(block.get("type"), str)):
        return False
    kind = block["type"]
    if kind == "text" and not _is_text_or_none(block.get("text")):
        return False
    if kind.endswith("tool_use") and not isinstance(block.get("id"), str):
        return False
    if kind.endswith("tool_result") and not isinstance(block.get("tool_use_id"), str):
        return False
    if kind in _WITH_BLOCKS and not _is_text_or_none(block.get("content")):
        return _are_blocks(block["content"])
    return True


def _is_partial_message(value: Any) -> bool:
    """Whether a value is a message for people to read; blocks of it may have been broken off."""
    if not (isinstance(value, dict) and isinstance(value.get("role"), str)):
        return False
    content = value.get("content")
    if isinstance(content, str):
        return True
    return isinstance(content, list) and all(
        isinstance(block, dict) and isinstance(block.get("type"), str) for block in content
    )


_PARTIAL = frozenset({"interrupted", "orphaned"})
_COMMON: Mapping[str, Check] = {
    "kind": lambda value: isinstance(value, str),
    "id": _is_id,
    "at": _is_number,
}
_COMMON_OPTIONAL: Mapping[str, Check] = {
    "turn": _is_text_or_none,
    "data": _is_object_or_none,
}
_OPTIONAL: dict[str, Check] = {
    "response": _is_response,
    "until": _is_whole,
    "path": _is_path,
    "again": _is_number,
    "question": _is_number,
    "places": _is_list_of_places,
    "omitted": _is_omitted,
    "refusal": _is_refusal,
    "forgot_container": _is_text,
    "sent_ids": _is_map_of_text,
    "renamed": _is_list_of_text,
    "refused_results": _is_list_of_text,
    "why": _is_text,
}
"""What may stand in the data of any kind."""

_COUNTS: Mapping[str, Check] = {"messages": _is_count, "turns": _is_count, "tokens": _is_count, "path": _is_path}
_CUT: Mapping[str, Check] = {
    "from": _is_number,
    "hidden": _is_count,
    "since": _is_number,
    "tokens": _is_count,
    "before": _is_count,
}
_CUT_OPTIONAL: Mapping[str, Check] = _OPTIONAL | {"turns": _is_text_or_none}
_OF_ANY_KIND: tuple[Mapping[str, Check], Mapping[str, Check]] = ({}, _OPTIONAL)
_OF_KIND: Mapping[str, tuple[Mapping[str, Check], Mapping[str, Check]]] = {
    "annotation": ({}, _OPTIONAL | {"title": _is_text_or_none, "tags": _is_list_of_text, "metadata": _is_object}),
    "rewind": (_COUNTS, _OPTIONAL | {"view": _is_view}),
    "snapshot": (
        {
            **_COUNTS,
            "hidden": _is_count,
            "sent": _is_bool,
            "cut": _is_number_or_none,
            "summary": _is_object,
        },
        _OPTIONAL,
    ),
    "setup": ({"fingerprints": _is_map_of_text}, _OPTIONAL),
    "cut": (_CUT, _CUT_OPTIONAL),
    "compaction": (_CUT, _CUT_OPTIONAL),
    "choice": ({"drop_block": _is_bool}, _OPTIONAL),
    "mend": (
        {**_COUNTS, "hidden": _is_count, "cut": _is_number_or_none, "lost": _is_list_of_numbers},
        _OPTIONAL,
    ),
    "opened": ({"until": _is_whole}, _OPTIONAL),
    "renewed": ({"until": _is_whole, "lease": _is_text}, _OPTIONAL),
    "refused": ({"places": _is_list_of_places, "tokens": _is_count}, _OPTIONAL),
    "omitted": (
        {"places": _is_list_of_places, "tokens": _is_count, "unbinds": _is_bool, "thinking": _is_bool},
        _OPTIONAL,
    ),
    "forked": ({"summary": _is_object}, _OPTIONAL),
}
"""What the data of each kind must have, and what each of its fields must be if it is there."""
