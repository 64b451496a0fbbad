"""Frozen dataclasses as JSON values and back: each field says under which name it is stored, and what it must be.

Events and the parts of a conversation's state are stored in this way. A line comes from outside: from a store, an
export, another program. Its checksum says that it was not altered, and not that this library wrote it, so each value is
checked when it is read; what is about to be written is held to the same. Names that a class does not know are passed
over: a later version may have written them.

    hidden_turns: Count = field(metadata=under_key("hidden"))

The type says what the value must be; a field without a default must be there.
"""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable, KeysView, Mapping
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
    "stored_keys",
    "under_key",
]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Form:
    """What a stored value must be, and how it differs from the value of the field; stands in an `Annotated` type.

    Attributes:
        is_valid: Whether a JSON value is one of these.
        load: Makes the value of the field from the JSON value; None: it is the same.
        dump: Makes the JSON value from the value of the field; None: it is the same.
    """

    is_valid: Callable[[Any], bool]
    load: Callable[[Any], Any] | None = None
    dump: Callable[[Any], Any] | None = None


@dataclass(frozen=True, slots=True)
class WrongField:
    """The name of a stored field that is missing, or has a wrong type or value.

    It is returned and not raised: an error that is raised would carry the text of the line in its context.
    """

    name: str


@dataclass(frozen=True, slots=True)
class _StoredField:
    name: str
    key: str
    default: Any
    is_valid: Callable[[Any], bool]
    load: Callable[[Any], Any] | None
    dump: Callable[[Any], Any] | None


@dataclass(frozen=True, slots=True)
class _Layout:
    """The fields of a class that are stored, by their stored names.

    required: those that have no default. read: returns the values of all fields of an instance, in their order.
    """

    by_key: dict[str, _StoredField]
    required: tuple[_StoredField, ...]
    read: Callable[[Any], tuple[Any, ...]]


def under_key(key: str) -> dict[str, str]:
    """Return the metadata of a dataclass field that is stored under another name than its own."""
    return {"key": key}


_layouts: dict[type, _Layout] = {}


def _layout_of(cls: type) -> _Layout:
    """Return the fields of a dataclass that are stored; those without a `Form` are not."""
    if (known := _layouts.get(cls)) is not None:
        return known
    found = {}
    for field in dataclasses.fields(cls):
        form = next(iter(getattr(field.type, "__metadata__", ())), None)
        if isinstance(form, Form):
            make = field.default_factory
            default = field.default if make is dataclasses.MISSING else make()
            key = field.metadata.get("key", field.name)
            found[key] = _StoredField(field.name, key, default, form.is_valid, form.load, form.dump)
    required = tuple(field for field in found.values() if field.default is dataclasses.MISSING)
    names = [field.name for field in found.values()]
    read = operator.attrgetter(*names)
    _layouts[cls] = _Layout(found, required, read if len(names) > 1 else lambda value: (read(value),))
    return _layouts[cls]


def stored_keys(cls: type) -> KeysView[str]:
    """Return the names under which the fields of a class are stored."""
    return _layout_of(cls).by_key.keys()


def load_fields(cls: type[T], values: Mapping[str, Any], **given: Any) -> T | WrongField:
    """Return the instance that was stored.

    Args:
        cls: The dataclass.
        values: A JSON object that holds its fields, and perhaps others.
        given: Values of fields that are not stored in it.
    """
    layout = _layout_of(cls)
    for key, value in values.items():
        if (field := layout.by_key.get(key)) is not None:
            if not field.is_valid(value):
                return WrongField(key)
            given[field.name] = value if field.load is None else field.load(value)
    for field in layout.required:
        if field.name not in given:
            return WrongField(field.key)
    return cls(**given)


def find_wrong_field(cls: type, values: Mapping[str, Any]) -> WrongField | None:
    """Return the first field that `load_fields` would not read; None: it reads all."""
    layout = _layout_of(cls)
    for key, value in values.items():
        field = layout.by_key.get(key)
        if field is not None and not field.is_valid(value):
            return WrongField(key)
    return next((WrongField(field.key) for field in layout.required if field.key not in values), None)


def dump_fields(value: Any) -> dict[str, Any]:
    """Return what is stored of a dataclass: a JSON object, without the fields that have their defaults."""
    values = {}
    layout = _layout_of(type(value))
    for field, part in zip(layout.by_key.values(), layout.read(value), strict=True):
        if part is not field.default and part != field.default:
            values[field.key] = part if field.dump is None else field.dump(part)
    return values


# What values must be.


def is_number(value: object) -> bool:
    """Whether a value is a position, a time or a count that every store keeps exactly."""
    return type(value) is int and 0 <= value <= LARGEST_NUMBER


def is_number_or_none(value: object) -> bool:
    """Whether a value is such a number, or null."""
    return value is None or is_number(value)


def is_count(value: object) -> bool:
    """Whether a value is a count; one that was reckoned too low, and so is negative, does no harm."""
    return type(value) is int and -LARGEST_NUMBER <= value <= LARGEST_NUMBER


def is_bool(value: object) -> bool:
    """Whether a value is true or false."""
    return isinstance(value, bool)


def is_text(value: object) -> bool:
    """Whether a value is text."""
    return isinstance(value, str)


def is_text_or_none(value: object) -> bool:
    """Whether a value is text, or null."""
    return value is None or isinstance(value, str)


def is_object(value: object) -> bool:
    """Whether a value is a JSON object."""
    return isinstance(value, dict)


def is_object_or_none(value: object) -> bool:
    """Whether a value is a JSON object, or null."""
    return value is None or isinstance(value, dict)


def is_list_of_text(value: object) -> bool:
    """Whether a value is a list of texts."""
    return isinstance(value, list) and all(isinstance(part, str) for part in value)


def is_map_of_text(value: object) -> bool:
    """Whether a value is a JSON object with texts as values."""
    return isinstance(value, dict) and all(isinstance(part, str) for part in value.values())
