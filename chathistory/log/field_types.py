"""The types of the fields of events: what each must be where it is stored, and the values that some of them are.

The annotations are evaluated here (there is no `from __future__ import annotations`): `stored_fields` reads them.
"""

from dataclasses import dataclass, field
from enum import Enum
from typing import Annotated, Any, Final, TypeAlias

from chathistory.log.places import Omission, Place, Refusal, is_place
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
    stored_keys,
    under_key,
)

__all__ = [
    "KEEP",
    "NO_RESPONSE",
    "Bool",
    "CallMarks",
    "Count",
    "Json",
    "Keep",
    "KeyIsThere",
    "LeaseEnd",
    "LeaseEndOrNone",
    "Object",
    "ObjectOrNone",
    "Omissions",
    "Path",
    "Places",
    "Position",
    "PositionOrNone",
    "Positions",
    "ProcessOrNone",
    "RefusalOrNone",
    "Response",
    "Span",
    "StoredResponse",
    "Text",
    "TextMap",
    "TextOrNone",
    "ViewStart",
    "ViewStartOrNone",
    "is_call_marks",
]

Span: TypeAlias = tuple[int, int]
"""Positions [start, stop)."""


class Keep(Enum):
    """The value of an annotation's field that is not set by it."""

    KEEP = "keep"


KEEP: Final = Keep.KEEP


@dataclass(frozen=True, slots=True)
class Response:
    """What a response of the API told beside its role and content, as it came."""

    values: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def id(self) -> str | None:
        """The id that the API gave it."""
        id = self.values.get("id")
        return id if isinstance(id, str) else None

    @property
    def model(self) -> str | None:
        """The model that answered."""
        return self.values.get("model")

    @property
    def stop_reason(self) -> str | None:
        """Why it ended."""
        return self.values.get("stop_reason")

    @property
    def usage(self) -> dict[str, Any]:
        """Counts of tokens, by the API's names; {} if it tells none."""
        return self.values.get("usage") or {}

    @property
    def container(self) -> dict[str, Any]:
        """The container of the code execution tool that it used; {} if it used none."""
        container = self.values.get("container")
        return container if isinstance(container, dict) else {}

    @property
    def is_whole(self) -> bool:
        """Whether it has all that a response of the API has."""
        return self.id is not None and self.model is not None and isinstance(self.values.get("usage"), dict)

    @staticmethod
    def is_valid(value: Any) -> bool:
        """Whether a JSON value can be read as one."""
        return (
            isinstance(value, dict)
            and is_object_or_none(value.get("usage"))
            and is_text_or_none(value.get("model"))
            and is_text_or_none(value.get("stop_reason"))
        )


NO_RESPONSE: Final = Response()


@dataclass(frozen=True, slots=True)
class ViewStart:
    """From where on messages are sent.

    Attributes:
        view_start: The position of the first.
        cut_position: That of the event that said so, whose message is sent first; None: no cut did.
        hidden_turns: How many turns stand before it.
        view_since: The time of the first message that is sent (microseconds since 1970 UTC).
    """

    view_start: Annotated[int, Form(is_number)] = field(default=0, metadata=under_key("begin"))
    cut_position: Annotated[int | None, Form(is_number_or_none)] = field(default=None, metadata=under_key("cut"))
    hidden_turns: Annotated[int, Form(is_count)] = field(default=0, metadata=under_key("hidden"))
    view_since: Annotated[int, Form(is_number)] = field(default=0, metadata=under_key("since"))

    def to_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        start = {"begin": self.view_start, "cut": self.cut_position}
        return start | {"hidden": self.hidden_turns, "since": self.view_since}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "ViewStart":
        """Return what `to_dict` gave."""
        return cls(values["begin"], values["cut"], values["hidden"], values["since"])

    @staticmethod
    def is_valid(value: Any) -> bool:
        """Whether a JSON value is what `to_dict` gives."""
        is_whole = isinstance(value, dict) and value.keys() == stored_keys(ViewStart)
        return is_whole and not isinstance(load_fields(ViewStart, value), WrongField)


def is_call_mark(text: str) -> bool:
    """Whether a text names a tool call by its place: "position.index"."""
    position, dot, index = text.partition(".")
    is_short = max(len(position), len(index)) <= _LONGEST_INDEX
    return bool(dot) and is_short and all(part.isascii() and part.isdigit() for part in (position, index))


_LONGEST_INDEX = 18


def is_call_marks(value: Any) -> bool:
    """Whether a JSON value is a list of names of tool calls."""
    return is_list_of_text(value) and all(map(is_call_mark, value))


def _is_lease_end(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_path(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(span, list) and len(span) == len(("start", "stop")) and all(map(is_number, span)) for span in value
    )


def _is_list_of_numbers(value: Any) -> bool:
    return isinstance(value, list) and all(map(is_number, value))


def _is_list_of_places(value: Any) -> bool:
    return isinstance(value, list) and all(map(is_place, value))


def _is_list_of_omissions(value: Any) -> bool:
    return isinstance(value, list) and all(map(Omission.is_valid, value))


def _is_process(value: Any) -> bool:
    return Process.from_dict(value) is not None


def _is_anything(_value: Any) -> bool:
    return True


def _is_refusal_or_none(value: Any) -> bool:
    return value is None or Refusal.is_valid(value)


# The types of fields: what is stored must be what the form says.

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
Path: TypeAlias = Annotated[
    tuple[Span, ...],
    Form(_is_path, lambda path: tuple((start, stop) for start, stop in path), lambda path: [[*span] for span in path]),
]
Positions: TypeAlias = Annotated[tuple[int, ...], Form(_is_list_of_numbers, tuple, list)]
Places: TypeAlias = Annotated[
    tuple[Place, ...],
    Form(
        _is_list_of_places,
        lambda places: tuple(Place(*place) for place in places),
        lambda places: [place.to_list() for place in places],
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
CallMarks: TypeAlias = Annotated[
    tuple[str, ...], Form(is_list_of_text, lambda marks: tuple(marks) if is_call_marks(marks) else (), list)
]
RefusalOrNone: TypeAlias = Annotated[
    Refusal | None,
    Form(_is_refusal_or_none, lambda value: value and Refusal.from_dict(value), lambda refusal: refusal.to_dict()),
]
ViewStartOrNone: TypeAlias = Annotated[
    ViewStart | None, Form(ViewStart.is_valid, ViewStart.from_dict, ViewStart.to_dict)
]
KeyIsThere: TypeAlias = Annotated[bool, Form(_is_anything, lambda _: True, lambda _: None)]
