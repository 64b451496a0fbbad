"""Places within a conversation: what the API refused, and what is not sent.

A place is a message, a block of it, or a block inside of that one, which is then the result of a tool. Its indexes are
those of what is stored. On disk it is `[position, block, inner]`, where block and inner are indexes or null.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, cast

from chathistory.log.stored_fields import is_bool, is_number, is_number_or_none, is_text, is_text_or_none

__all__ = ["Omission", "Place", "Refusal", "RefusalSort", "is_place"]

_PARTS = 3

RefusalSort: TypeAlias = Literal["turn", "earlier", "size", "container"]
"""What the API refused: something of this turn, of an earlier one, the size of all, or the container."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where something is stored.

    Attributes:
        position: Of the message.
        block: The index of its content block; None: the whole message.
        inner: The index of a block inside of that one; None: the whole block.
    """

    position: int
    block: int | None = None
    inner: int | None = None

    def __str__(self) -> str:
        parts = [f"record {self.position}", "" if self.block is None else f"block {self.block}"]
        return ", ".join(filter(None, [*parts, "" if self.inner is None else f"block {self.inner} within it"]))

    def to_list(self) -> list[int | None]:
        """Return it for JSON."""
        return [self.position, self.block, self.inner]


def is_place(value: Any) -> bool:
    """Whether a JSON value names a place."""
    if not (isinstance(value, list) and len(value) == _PARTS):
        return False
    return is_number(value[0]) and is_number_or_none(value[1]) and is_number_or_none(value[2])


@dataclass(frozen=True, slots=True)
class Omission:
    """A place of which nothing is sent.

    Attributes:
        place: What is left out.
        why: What the API said of it, in words of this library; "": somebody asked for it.
        turn: The turn that was refused; None: it was left out by hand.
    """

    place: Place
    why: str = ""
    turn: str | None = None

    def to_list(self) -> list[Any]:
        """Return it for JSON."""
        return [self.place.to_list(), self.why, self.turn]

    @classmethod
    def from_list(cls, value: list[Any]) -> Omission:
        """Return what `to_list` gave."""
        place, why, turn = value
        return cls(Place(*place), why, turn)

    @staticmethod
    def is_valid(value: Any) -> bool:
        """Whether a JSON value is what `to_list` gives."""
        if not (isinstance(value, list) and len(value) == _PARTS):
            return False
        return is_place(value[0]) and is_text(value[1]) and is_text_or_none(value[2])


@dataclass(frozen=True, slots=True)
class Refusal:
    """What the API refused of a request; `error.refusal` of the SDK's error that an engine passes on.

    Attributes:
        sort: What was refused: "turn", a message of this turn, behind the last reply; "earlier", something that stood
            before it and was accepted once; "size", the request as a whole; "container", one of the code execution
            tool that the API does not know any longer.
        why: What is wrong, in words that quote nothing of the conversation.
        path: The place as the API named it, such as "messages.4.content.1"; None: it named none.
        places: Where that is stored; for "size" the largest things that are sent, the largest first.
        certain: Whether it is known that it is these places; else it is one of them.
        status: The HTTP status.
    """

    sort: RefusalSort
    why: str
    path: str | None = None
    places: tuple[Place, ...] = ()
    certain: bool = True
    status: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        places = [place.to_list() for place in self.places]
        values = {"sort": self.sort, "why": self.why, "path": self.path, "places": places, "certain": self.certain}
        return values | {"status": self.status}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Refusal:
        """Return what `to_dict` gave."""
        places = tuple(Place(*place) for place in values["places"])
        sort = cast("RefusalSort", values["sort"])
        return cls(sort, values["why"], values.get("path"), places, values["certain"], values.get("status"))

    @staticmethod
    def is_valid(value: Any) -> bool:
        """Whether a JSON value is what `to_dict` gives."""
        return (
            isinstance(value, dict)
            and is_text(value.get("sort"))
            and is_text(value.get("why"))
            and is_bool(value.get("certain"))
            and isinstance(value.get("places"), list)
            and all(map(is_place, value["places"]))
        )
