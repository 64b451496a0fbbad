"""Frozen dataclasses as JSON objects and back: each field says what its stored value must be.

Events, and the parts of a conversation's state, are stored this way. Stored JSON is untrusted: it may come from a
store, an export file or another program. A checksum shows that a line was not altered, not that this library wrote it.
So every value is checked when it is read, and again before it is written.

    hidden_turns: Count

A field is stored under its own name. Its annotation holds a `Form`, which says what the value must be; a field without
a `Form` is not stored. A field without a default must be present. A field that has its default is not written. Names
that the class does not have are ignored, because a later version may have written them.
"""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable, Collection, KeysView, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from chathistory.storage.values import LARGEST_NUMBER

__all__ = [
    "Form",
    "WrongField",
    "dump_fields",
    "find_wrong_field",
    "is_bool",
    "is_count",
    "is_list_of_text",
    "is_map_of_text",
    "is_number",
    "is_number_or_none",
    "is_object",
    "is_object_or_none",
    "is_text",
    "is_text_or_none",
    "load_fields",
    "select_unknown",
    "stored_names",
]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Form:
    """What the stored value of a field must be, and how to convert it. It is part of an `Annotated` type.

    Attributes:
        is_valid: Returns True if a JSON value is allowed.
        load: Converts an allowed JSON value to the value of the field; None: they are the same.
        dump: Converts the value of the field to a JSON value; None: they are the same.
    """

    is_valid: Callable[[Any], bool]
    load: Callable[[Any], Any] | None = None
    dump: Callable[[Any], Any] | None = None


@dataclass(frozen=True, slots=True)
class WrongField:
    """The name of a stored field that is missing, or has a wrong type or value.

    Functions return it instead of raising it: an exception would keep the text of the line in its context.
    """

    name: str


@dataclass(frozen=True, slots=True)
class _StoredField:
    name: str
    default: Any
    is_valid: Callable[[Any], bool]
    load: Callable[[Any], Any] | None
    dump: Callable[[Any], Any] | None


@dataclass(frozen=True, slots=True)
class _Layout:
    """The stored fields of a dataclass.

    Attributes:
        by_name: All of them, by name.
        required: Those without a default.
        get_values: Returns the values of all of them for an instance, in the order of `by_name`.
    """

    by_name: dict[str, _StoredField]
    required: tuple[_StoredField, ...]
    get_values: Callable[[Any], tuple[Any, ...]]


_layouts: dict[type, _Layout] = {}


def _find_layout(cls: type) -> _Layout:
    """Return the stored fields of a dataclass, found once for each class."""
    if (layout := _layouts.get(cls)) is not None:
        return layout
    by_name = {}
    for field in dataclasses.fields(cls):
        form = next(iter(getattr(field.type, "__metadata__", ())), None)
        if isinstance(form, Form):
            make_default = field.default_factory
            default = field.default if make_default is dataclasses.MISSING else make_default()
            by_name[field.name] = _StoredField(field.name, default, form.is_valid, form.load, form.dump)
    required = tuple(field for field in by_name.values() if field.default is dataclasses.MISSING)
    get = operator.attrgetter(*by_name)
    _layouts[cls] = _Layout(by_name, required, get if len(by_name) > 1 else lambda value: (get(value),))
    return _layouts[cls]


def stored_names(cls: type) -> KeysView[str]:
    """Return the names of the stored fields of a dataclass."""
    return _find_layout(cls).by_name.keys()


def select_unknown(values: Mapping[str, Any], known: Collection[str]) -> dict[str, Any]:
    """Return the fields of a JSON object that this version does not know, so that they can be stored again.

    Args:
        values: The JSON object.
        known: The names that this version knows.
    """
    return {name: value for name, value in values.items() if name not in known}


def load_fields(cls: type[T], values: Mapping[str, Any], **others: Any) -> T | WrongField:
    """Return the instance of a dataclass that a JSON object holds.

    Args:
        cls: The dataclass.
        values: The JSON object; names that the class does not have are ignored.
        others: Values of fields that are stored elsewhere.

    Returns:
        The instance, or the first field that is missing or wrong.
    """
    layout = _find_layout(cls)
    for name, value in values.items():
        if (field := layout.by_name.get(name)) is not None:
            if not field.is_valid(value):
                return WrongField(name)
            others[name] = value if field.load is None else field.load(value)
    for field in layout.required:
        if field.name not in others:
            return WrongField(field.name)
    return cls(**others)


def find_wrong_field(cls: type, values: Mapping[str, Any]) -> WrongField | None:
    """Return the first field that `load_fields` would refuse; None: it would refuse none.

    Args:
        cls: The dataclass.
        values: The JSON object.
    """
    layout = _find_layout(cls)
    for name, value in values.items():
        field = layout.by_name.get(name)
        if field is not None and not field.is_valid(value):
            return WrongField(name)
    return next((WrongField(field.name) for field in layout.required if field.name not in values), None)


def dump_fields(instance: Any) -> dict[str, Any]:
    """Return the JSON object to store for an instance, without the fields that have their default.

    Args:
        instance: An instance of a dataclass.
    """
    values = {}
    layout = _find_layout(type(instance))
    for field, value in zip(layout.by_name.values(), layout.get_values(instance), strict=True):
        if value is not field.default and value != field.default:
            values[field.name] = value if field.dump is None else field.dump(value)
    return values


# Checks of JSON values.


def is_number(value: object) -> bool:
    """Return True for a position, a time or a count that every store keeps exactly."""
    return type(value) is int and 0 <= value <= LARGEST_NUMBER


def is_number_or_none(value: object) -> bool:
    """Return True for what `is_number` accepts, and for null."""
    return value is None or is_number(value)


def is_count(value: object) -> bool:
    """Return True for a count. It may be negative: a count that was estimated too low does no harm."""
    return type(value) is int and -LARGEST_NUMBER <= value <= LARGEST_NUMBER


def is_bool(value: object) -> bool:
    """Return True for true and false."""
    return isinstance(value, bool)


def is_text(value: object) -> bool:
    """Return True for a string."""
    return isinstance(value, str)


def is_text_or_none(value: object) -> bool:
    """Return True for a string, and for null."""
    return value is None or isinstance(value, str)


def is_object(value: object) -> bool:
    """Return True for an object."""
    return isinstance(value, dict)


def is_object_or_none(value: object) -> bool:
    """Return True for an object, and for null."""
    return value is None or isinstance(value, dict)


def is_list_of_text(value: object) -> bool:
    """Return True for an array of strings."""
    return isinstance(value, list) and all(isinstance(part, str) for part in value)


def is_map_of_text(value: object) -> bool:
    """Return True for an object with strings as values."""
    return isinstance(value, dict) and all(isinstance(part, str) for part in value.values())
