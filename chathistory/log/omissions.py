"""Content that is not sent: what the API refused, and what was left out later.

A `ContentLocation` points to stored content: to a message, to one of its content blocks, or to a block inside a tool
result. Its indexes refer to the stored message. It is stored as `[position, block, inner]`; block and inner are
indexes or null.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, cast

from chathistory.log.stored_fields import is_bool, is_number, is_number_or_none, is_text, is_text_or_none

__all__ = ["ContentLocation", "Omission", "Refusal", "RefusalKind", "is_location"]

_PARTS = 3

RefusalKind: TypeAlias = Literal["turn", "earlier", "size", "container"]
"""What the API refused: content of this turn, content of an earlier turn, the size of the request, or the container."""


@dataclass(frozen=True, slots=True)
class ContentLocation:
    """Where content is stored: a message, a block of it, or a block inside that block.

    Attributes:
        position: The position of the message.
        block: The index of the content block; None: the whole message.
        inner: The index of a block inside that block; None: the whole block.
    """

    position: int
    block: int | None = None
    inner: int | None = None

    def __str__(self) -> str:
        parts = [f"record {self.position}", "" if self.block is None else f"block {self.block}"]
        return ", ".join(filter(None, [*parts, "" if self.inner is None else f"block {self.inner} within it"]))

    def to_list(self) -> list[int | None]:
        """Return the location as a JSON value."""
        return [self.position, self.block, self.inner]


def is_location(value: Any) -> bool:
    """Return True if a JSON value is a location as `ContentLocation.to_list` returns it."""
    if not (isinstance(value, list) and len(value) == _PARTS):
        return False
    return is_number(value[0]) and is_number_or_none(value[1]) and is_number_or_none(value[2])


@dataclass(frozen=True, slots=True)
class Omission:
    """Content that is left out of requests.

    Attributes:
        location: The content.
        problem: What is wrong with it, in words of this library; "": a user asked to leave it out.
        turn: The id of the turn that the API refused; None: a user left the content out.
    """

    location: ContentLocation
    problem: str = ""
    turn: str | None = None

    def to_list(self) -> list[Any]:
        """Return the omission as a JSON value."""
        return [self.location.to_list(), self.problem, self.turn]

    @classmethod
    def from_list(cls, value: list[Any]) -> Omission:
        """Return the omission that `to_list` returned as a JSON value.

        Args:
            value: The JSON value, checked with `is_valid`.
        """
        location, problem, turn = value
        return cls(ContentLocation(*location), problem, turn)

    @staticmethod
    def is_valid(value: Any) -> bool:
        """Return True if `from_list` can read a JSON value.

        Args:
            value: The JSON value.
        """
        if not (isinstance(value, list) and len(value) == _PARTS):
            return False
        return is_location(value[0]) and is_text(value[1]) and is_text_or_none(value[2])


@dataclass(frozen=True, slots=True)
class Refusal:
    """What the API refused in a request. An engine sets it on the SDK's error, as `error.refusal`.

    Attributes:
        kind: "turn": content of this turn, after the last reply. "earlier": content before it, which the API had
            accepted. "size": the request as a whole. "container": a container of the code execution tool that the API
            no longer knows.
        problem: What is wrong, in words that quote nothing of the conversation.
        path: Where the problem is in the request, as the API said it, for example "messages.4.content.1"; None: it did
            not say.
        locations: Where that content is stored. For "size": the largest parts of the request, largest first.
        certain: True if all `locations` are refused; False if the refused one is among them.
        status: The HTTP status; None: unknown.
    """

    kind: RefusalKind
    problem: str
    path: str | None = None
    locations: tuple[ContentLocation, ...] = ()
    certain: bool = True
    status: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the refusal as a JSON object, by the names of its attributes."""
        locations = [location.to_list() for location in self.locations]
        values = {"kind": self.kind, "problem": self.problem, "path": self.path, "locations": locations}
        return values | {"certain": self.certain, "status": self.status}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Refusal:
        """Return the refusal that `to_dict` returned as a JSON object.

        Args:
            values: The JSON object, checked with `is_valid`.
        """
        locations = tuple(ContentLocation(*location) for location in values["locations"])
        kind = cast("RefusalKind", values["kind"])
        return cls(kind, values["problem"], values.get("path"), locations, values["certain"], values.get("status"))

    @staticmethod
    def is_valid(value: Any) -> bool:
        """Return True if `from_dict` can read a JSON value.

        Args:
            value: The JSON value.
        """
        return (
            isinstance(value, dict)
            and is_text(value.get("kind"))
            and is_text(value.get("problem"))
            and is_bool(value.get("certain"))
            and isinstance(value.get("locations"), list)
            and all(map(is_location, value["locations"]))
        )
