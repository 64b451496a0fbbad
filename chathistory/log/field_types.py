"""The types of event fields: what their stored values must be, and the classes of those that are objects.

This module has no `from __future__ import annotations`: `stored_fields` reads the evaluated annotations.
"""

from dataclasses import asdict, dataclass, field
from enum import Enum
from typing import Annotated, Any, Final, TypeAlias

from chathistory.log.omissions import ContentLocation, Omission, Refusal, is_location
from chathistory.log.process import Process
from chathistory.log.stored_fields import (
    Form,
    WrongField,
    is_bool,
    is_count,
    is_list_of_text,
    is_map_of_text,
    is_number,
    is_number_or_none,
    is_object,
    is_object_or_none,
    is_text,
    is_text_or_none,
    load_fields,
    stored_names,
)

__all__ = [
    "KEEP",
    "NO_RESPONSE",
    "ActivePath",
    "Bool",
    "CallRefs",
    "Count",
    "Json",
    "Keep",
    "LeaseEnd",
    "LeaseEndOrNone",
    "Locations",
    "Object",
    "ObjectOrNone",
    "Omissions",
    "Position",
    "PositionOrNone",
    "PositionRange",
    "Positions",
    "ProcessOrNone",
    "RefusalOrNone",
    "Response",
    "StoredResponse",
    "Text",
    "TextMap",
    "TextOrNone",
    "ViewStart",
    "ViewStartOrNone",
    "is_call_refs",
]

PositionRange: TypeAlias = tuple[int, int]
"""Positions from start up to, but not including, stop."""


class Keep(Enum):
    """The value of a field that an `Annotation` leaves unchanged."""

    KEEP = "keep"


KEEP: Final = Keep.KEEP


@dataclass(frozen=True, slots=True)
class Response:
    """The fields of an API response, as they arrived, without role and content.

    Attributes:
        values: The fields by the API's names; {} if the message is not a response.
    """

    values: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def id(self) -> str | None:
        """The id of the message, as the API set it."""
        id = self.values.get("id")
        return id if isinstance(id, str) else None

    @property
    def model(self) -> str | None:
        """The model that wrote the reply."""
        return self.values.get("model")

    @property
    def stop_reason(self) -> str | None:
        """Why the reply ended."""
        return self.values.get("stop_reason")

    @property
    def usage(self) -> dict[str, Any]:
        """Token counts under the API's names; {} if the response has none."""
        return self.values.get("usage") or {}

    @property
    def container(self) -> dict[str, Any]:
        """The container that the code execution tool used; {} if it used no container."""
        container = self.values.get("container")
        return container if isinstance(container, dict) else {}

    @property
    def is_whole(self) -> bool:
        """Whether it has every field that marks a complete API response."""
        return self.id is not None and self.model is not None and isinstance(self.values.get("usage"), dict)

    @staticmethod
    def is_valid(value: Any) -> bool:
        """Return True if a JSON value can be the values of a response.

        Args:
            value: The JSON value.
        """
        return (
            isinstance(value, dict)
            and is_object_or_none(value.get("usage"))
            and is_text_or_none(value.get("model"))
            and is_text_or_none(value.get("stop_reason"))
        )


NO_RESPONSE: Final = Response()


@dataclass(frozen=True, slots=True)
class ViewStart:
    """Where the part of a conversation that is sent begins.

    Attributes:
        view_start: The position of the first message that is sent.
        cut_position: The position of the cut that set it; the cut's message is sent first. None: no cut set it.
        hidden_turns: How many turns precede it.
        view_since: The time of the first message that is sent (microseconds since 1970 UTC).
    """

    view_start: Annotated[int, Form(is_number)] = 0
    cut_position: Annotated[int | None, Form(is_number_or_none)] = None
    hidden_turns: Annotated[int, Form(is_count)] = 0
    view_since: Annotated[int, Form(is_number)] = 0

    def to_dict(self) -> dict[str, Any]:
        """Return the four values as a JSON object."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "ViewStart":
        """Return the instance that `to_dict` returned as a JSON object.

        Args:
            values: The JSON object, checked with `is_valid`.
        """
        return cls(**{name: values[name] for name in stored_names(cls)})

    @staticmethod
    def is_valid(value: Any) -> bool:
        """Return True if `from_dict` can read a JSON value.

        Args:
            value: The JSON value.
        """
        is_whole = isinstance(value, dict) and value.keys() >= stored_names(ViewStart)
        return is_whole and not isinstance(load_fields(ViewStart, value), WrongField)


def is_call_ref(text: str) -> bool:
    """Return True if a text refers to a tool call as "position.index": a message, and a block of it.

    Args:
        text: Any text.
    """
    position, dot, index = text.partition(".")
    is_short = max(len(position), len(index)) <= _LONGEST_INDEX
    return bool(dot) and is_short and all(part.isascii() and part.isdigit() for part in (position, index))


_LONGEST_INDEX = 18


def is_call_refs(value: Any) -> bool:
    """Return True if a JSON value is an array of texts that `is_call_ref` accepts."""
    return is_list_of_text(value) and all(map(is_call_ref, value))


def _is_lease_end(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_path(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(part, list) and len(part) == len(("start", "stop")) and all(map(is_number, part)) for part in value
    )


def _is_list_of_numbers(value: Any) -> bool:
    return isinstance(value, list) and all(map(is_number, value))


def _is_list_of_locations(value: Any) -> bool:
    return isinstance(value, list) and all(map(is_location, value))


def _is_list_of_omissions(value: Any) -> bool:
    return isinstance(value, list) and all(map(Omission.is_valid, value))


def _is_process(value: Any) -> bool:
    return Process.from_dict(value) is not None


def _is_anything(_value: Any) -> bool:
    return True


def _is_refusal_or_none(value: Any) -> bool:
    return value is None or Refusal.is_valid(value)


# The types of fields. The form of each says what its stored value must be.

Json: TypeAlias = Annotated[Any, Form(_is_anything)]
Object: TypeAlias = Annotated[dict[str, Any], Form(is_object)]
ObjectOrNone: TypeAlias = Annotated[dict[str, Any] | None, Form(is_object_or_none)]
Bool: TypeAlias = Annotated[bool, Form(is_bool)]
Text: TypeAlias = Annotated[str, Form(is_text)]
TextOrNone: TypeAlias = Annotated[str | None, Form(is_text_or_none)]
TextMap: TypeAlias = Annotated[dict[str, str], Form(is_map_of_text)]
Position: TypeAlias = Annotated[int, Form(is_number)]
PositionOrNone: TypeAlias = Annotated[int | None, Form(is_number_or_none)]
Count: TypeAlias = Annotated[int, Form(is_count)]
LeaseEnd: TypeAlias = Annotated[int, Form(_is_lease_end)]
LeaseEndOrNone: TypeAlias = Annotated[int | None, Form(_is_lease_end)]
ProcessOrNone: TypeAlias = Annotated[Process | None, Form(_is_process, Process.from_dict, Process.to_dict)]
StoredResponse: TypeAlias = Annotated[Response, Form(Response.is_valid, Response, lambda response: response.values)]
ActivePath: TypeAlias = Annotated[
    tuple[PositionRange, ...],
    Form(_is_path, lambda path: tuple((start, stop) for start, stop in path), lambda path: [[*part] for part in path]),
]
Positions: TypeAlias = Annotated[tuple[int, ...], Form(_is_list_of_numbers, tuple, list)]
Locations: TypeAlias = Annotated[
    tuple[ContentLocation, ...],
    Form(
        _is_list_of_locations,
        lambda values: tuple(ContentLocation(*value) for value in values),
        lambda locations: [location.to_list() for location in locations],
    ),
]
Omissions: TypeAlias = Annotated[
    tuple[Omission, ...],
    Form(
        _is_list_of_omissions,
        lambda omissions: tuple(map(Omission.from_list, omissions)),
        lambda omissions: [omission.to_list() for omission in omissions],
    ),
]
CallRefs: TypeAlias = Annotated[
    tuple[str, ...], Form(is_list_of_text, lambda refs: tuple(refs) if is_call_refs(refs) else (), list)
]
RefusalOrNone: TypeAlias = Annotated[
    Refusal | None,
    Form(_is_refusal_or_none, lambda value: value and Refusal.from_dict(value), lambda refusal: refusal.to_dict()),
]
ViewStartOrNone: TypeAlias = Annotated[
    ViewStart | None, Form(ViewStart.is_valid, ViewStart.from_dict, ViewStart.to_dict)
]
