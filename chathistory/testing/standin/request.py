"""A request as the rules look at it: its headers, its body, its blocks one by one, and its turns.

A *place* is a content block and where it stands. A *turn* is what the API makes of consecutive messages of one role:
they are merged before tool calls are paired with their results.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from typing import TYPE_CHECKING, Any

from chathistory.testing.standin.models import Models

if TYPE_CHECKING:
    from chathistory.testing.standin.thinking import Thinking

__all__ = ["COUNT_TOKENS", "MESSAGES", "UNREADABLE", "Place", "Request", "Setting", "Turn"]

MESSAGES = "/v1/messages"
COUNT_TOKENS = "/v1/messages/count_tokens"
UNREADABLE = object()
"""The body of a request that is no JSON."""


@dataclass(frozen=True, slots=True)
class Place:
    """A content block: its path in error texts, its message (None: in the system prompt), and what it stands in.

    within: "user", "assistant" or "system" for a block of a message; the type of the outer block for an inner one.
    """

    path: str
    message: int | None
    within: str
    block: Any

    @property
    def type(self) -> Any:
        """The block's type; None if it has none."""
        return self.block.get("type") if isinstance(self.block, dict) else None


@dataclass(frozen=True, slots=True)
class Turn:
    """Consecutive messages of one role, and their blocks as one run. `last` is the number of the last of them."""

    role: str
    last: int
    places: tuple[Place, ...]

    def of(self, *types: str) -> list[Place]:
        """Return the blocks of these types."""
        return [place for place in self.places if place.type in types]


@dataclass(frozen=True, slots=True)
class Setting:
    """What a stand-in was told to serve and to mind; `thinking` None: signatures are not looked at."""

    models: Models
    strict_first_role: bool
    thinking: Thinking | None


@dataclass(frozen=True)  # without slots: what many rules look at is worked out once
class Request:
    """A request to the API. `headers` have lower-case names; `body` is the JSON, or `UNREADABLE`."""

    path: str
    headers: Mapping[str, str]
    raw: bytes = field(repr=False)
    setting: Setting
    body: Any = field(repr=False, default=UNREADABLE)

    @classmethod
    def read(cls, path: str, headers: Mapping[str, str], raw: bytes, setting: Setting) -> Request:
        """Return the request, its body parsed if it is JSON (without NaN and infinities)."""
        return cls(path, {name.lower(): text for name, text in headers.items()}, raw, setting, _parsed(raw))

    @property
    def counts_only(self) -> bool:
        """Whether tokens are counted and no reply is wanted."""
        return self.path == COUNT_TOKENS

    @property
    def version(self) -> str:
        """The version of the API that is asked for; "" without."""
        return self.headers.get("anthropic-version", "")

    @property
    def betas(self) -> tuple[str, ...]:
        """The values of the `anthropic-beta` header."""
        return tuple(filter(None, (part.strip() for part in self.headers.get("anthropic-beta", "").split(","))))

    def has_beta(self, prefix: str) -> bool:
        """Tell whether a beta is asked for whose name begins so."""
        return any(beta.startswith(prefix) for beta in self.betas)

    @cached_property
    def messages(self) -> list[tuple[int, dict[str, Any]]]:
        """The messages that are objects, with their numbers."""
        messages = self.body.get("messages") if isinstance(self.body, dict) else None
        numbered = enumerate(messages if isinstance(messages, list) else ())
        return [(number, message) for number, message in numbered if isinstance(message, dict)]

    @cached_property
    def outer_places(self) -> list[Place]:
        """The blocks of `system` and of the messages, without the blocks inside of them."""
        system = self.body.get("system") if isinstance(self.body, dict) else None
        placed = list(_placed("system", None, "system", system))
        for number, message in self.messages:
            placed += message_places(number, message)
        return placed

    @cached_property
    def places(self) -> list[Place]:
        """All blocks in the order of the prompt: those of `system`, those of the messages; inner after outer."""
        return [place for outer in self.outer_places for place in (outer, *_inner(outer))]

    @cached_property
    def turns(self) -> list[Turn]:
        """The turns. For requests whose shape has been checked."""
        turns = []
        for role, run in groupby(self.messages, key=lambda item: item[1]["role"]):
            members = list(run)
            places = tuple(place for number, message in members for place in message_places(number, message))
            turns.append(Turn(role, members[-1][0], places))
        return turns


def message_places(number: int, message: dict[str, Any]) -> Iterable[Place]:
    """Return the blocks of a message; text alone is one text block, as the API takes it."""
    return _placed(f"messages.{number}.content", number, message.get("role"), message.get("content"))


def _placed(path: str, number: int | None, within: Any, content: Any) -> Iterator[Place]:
    if isinstance(content, str):
        yield Place(path, number, within, {"type": "text", "text": content})
    for place, block in enumerate(content if isinstance(content, list) else ()):
        yield Place(f"{path}.{place}", number, within, block)


def _inner(outer: Place) -> Iterator[Place]:
    content = outer.block.get("content") if isinstance(outer.block, dict) else None
    if outer.type == "document" and isinstance(source := outer.block.get("source"), dict):
        content = source.get("content")
    for number, block in enumerate(content if isinstance(content, list) else ()):
        place = Place(f"{outer.path}.{outer.type}.content.{number}", outer.message, str(outer.type), block)
        yield place
        yield from _inner(place)


def _parsed(raw: bytes) -> Any:
    try:
        return json.loads(raw.decode(), parse_constant=_refuse)
    except (ValueError, RecursionError):
        return UNREADABLE


def _refuse(name: str) -> None:
    raise ValueError(name)
