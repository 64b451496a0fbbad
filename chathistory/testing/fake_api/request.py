"""A request as the rules see it: its headers, its body, its blocks one by one, and its turns.

A `PlacedBlock` is a content block and its position. A `MergedTurn` is what the API makes of consecutive messages of one
role: they are merged before tool calls are paired with their results.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from typing import TYPE_CHECKING, Any

from chathistory.testing.fake_api.issued_blocks import IssuedBlocks
from chathistory.testing.fake_api.models import Models

if TYPE_CHECKING:
    from chathistory.testing.fake_api.replies import Failure
    from chathistory.testing.fake_api.signed_thinking import ThinkingSigner

__all__ = [
    "COUNT_TOKENS",
    "MESSAGES",
    "SMALLEST_TRIGGER",
    "UNREADABLE",
    "ApiRequest",
    "FakeSettings",
    "Limits",
    "MergedTurn",
    "PlacedBlock",
]

MESSAGES = "/v1/messages"
COUNT_TOKENS = "/v1/messages/count_tokens"
UNREADABLE = object()
"""The body of a request that is not JSON."""
LARGEST = 32 * 1024 * 1024
"""The largest size of a request, in bytes."""
SMALLEST_TRIGGER = 50_000
"""The smallest trigger of a compaction that the API allows, in input tokens."""


@dataclass(frozen=True, slots=True)
class PlacedBlock:
    """A content block and its position in the request.

    Attributes:
        path: Its path in error texts, such as "messages.0.content.1".
        message: The number of its message; None for the system prompt.
        within: The role of the message, or the type of the outer block.
        block: The block; any JSON value, since it may be malformed.
    """

    path: str
    message: int | None
    within: str
    block: Any

    @property
    def type(self) -> Any:
        """The block's type; None if it has none."""
        return self.block.get("type") if isinstance(self.block, dict) else None

    @property
    def summarizes(self) -> bool:
        """Whether this is a `compaction` block with a summary; one without is a failed compaction."""
        return self.type == "compaction" and bool(self.block.get("content"))

    @property
    def is_signed(self) -> bool:
        """Whether it has a signature: a compaction on demand has one, a compaction at a threshold has none."""
        return bool(self.block.get("signature"))

    @property
    def cuts(self) -> bool:
        """Whether it is a summary that was made at a threshold, so that nothing before it counts."""
        return self.summarizes and not self.is_signed


@dataclass(frozen=True, slots=True)
class MergedTurn:
    """Consecutive messages of one role, merged. `last` is the number of the last message."""

    role: str
    last: int
    places: tuple[PlacedBlock, ...]

    def of(self, *types: str) -> list[PlacedBlock]:
        """Return the blocks of these types."""
        return [place for place in self.places if place.type in types]


@dataclass(frozen=True, slots=True)
class Limits:
    """Size limits; smaller ones than the API's are easier to reach in a test.

    Args:
        request: Largest request, in bytes.
        image: Largest image, in bytes of base64.
        context: Largest prompt, in tokens; None: the context of the model.
    """

    request: int = LARGEST
    image: int = 10 * 1024 * 1024
    context: int | None = None


@dataclass(frozen=True, slots=True)
class FakeSettings:
    """The settings of a fake, for its rules; see `FakeMessagesAPI`.

    Attributes:
        models: The served models.
        strict_first_role: Whether conversations must begin with the user.
        thinking: Checks thinking blocks; None: signatures are not checked.
        smallest_trigger: Smallest trigger of a compaction, in tokens.
        limits: Size limits.
        gone: Ids of files and containers that no longer exist.
        account: The account that thinking is bound to.
        refuse: Refuses further requests.
        issued: The blocks of all replies so far.
    """

    models: Models
    strict_first_role: bool
    thinking: ThinkingSigner | None
    smallest_trigger: int = SMALLEST_TRIGGER
    limits: Limits = field(default_factory=Limits)
    gone: AbstractSet[str] = frozenset()
    account: str = ""
    refuse: Callable[[dict[str, Any]], Failure | None] | None = None
    issued: IssuedBlocks = field(default_factory=IssuedBlocks)


@dataclass(frozen=True)  # without slots, for cached properties
class ApiRequest:
    """A request to the API. `headers` have lower-case names; `body` is the parsed JSON, or `UNREADABLE`."""

    path: str
    headers: Mapping[str, str]
    raw: bytes = field(repr=False)
    setting: FakeSettings
    body: Any = field(repr=False, default=UNREADABLE)
    once: dict[str, Any] = field(repr=False, compare=False, default_factory=dict)
    """A cache for results of the checks."""

    @classmethod
    def read(cls, path: str, headers: Mapping[str, str], raw: bytes, setting: FakeSettings) -> ApiRequest:
        """Return a request with its body parsed; NaN and infinities are not JSON.

        Args:
            path: The path of the URL.
            headers: The headers, in any case.
            raw: The body.
            setting: The settings of the fake.

        Returns:
            The request.
        """
        return cls(path, {name.lower(): text for name, text in headers.items()}, raw, setting, _parse_body(raw))

    @property
    def counts_only(self) -> bool:
        """Whether the request only counts tokens."""
        return self.path == COUNT_TOKENS

    @property
    def version(self) -> str:
        """The `anthropic-version` header, or an empty string."""
        return self.headers.get("anthropic-version", "")

    @property
    def betas(self) -> tuple[str, ...]:
        """The values of the `anthropic-beta` header."""
        return tuple(filter(None, (part.strip() for part in self.headers.get("anthropic-beta", "").split(","))))

    def has_beta(self, prefix: str | tuple[str, ...]) -> bool:
        """Return True if the beta header has a value with this prefix (or one of these prefixes)."""
        return any(beta.startswith(prefix) for beta in self.betas)

    @property
    def compacts(self) -> bool:
        """Whether a summary is requested instead of a reply. Token counts ignore this."""
        return self.body.get("compaction") is not None and not self.counts_only

    @property
    def edits(self) -> list[dict[str, Any]]:
        """The edits of `context_management`, of a request with checked fields."""
        return list((self.body.get("context_management") or {}).get("edits") or ())

    @cached_property
    def messages(self) -> list[tuple[int, dict[str, Any]]]:
        """The messages that are objects, with their numbers."""
        messages = self.body.get("messages") if isinstance(self.body, dict) else None
        numbered = enumerate(messages if isinstance(messages, list) else ())
        return [(number, message) for number, message in numbered if isinstance(message, dict)]

    @cached_property
    def outer_places(self) -> list[PlacedBlock]:
        """The blocks of `system` and of the messages, without inner blocks."""
        system = self.body.get("system") if isinstance(self.body, dict) else None
        placed = list(_places_in("system", None, "system", system))
        for number, message in self.messages:
            placed += message_places(number, message)
        return placed

    @cached_property
    def places(self) -> list[PlacedBlock]:
        """All blocks in the order of the prompt: `system`, then messages; inner blocks after their outer one."""
        return [place for outer in self.outer_places for place in (outer, *_inner_places(outer))]

    @cached_property
    def known_places(self) -> list[PlacedBlock]:
        """All blocks but those of earlier replies, which are accepted whatever they are."""
        given = self.setting.issued
        outer = (place for place in self.outer_places if not (place.within == "assistant" and given.has(place.block)))
        return [place for each in outer for place in (each, *_inner_places(each))]

    @cached_property
    def live_places(self) -> list[PlacedBlock]:
        """The outer blocks that count: a summary made at a threshold replaces all messages before it."""
        if not self._is_cut:
            return self.outer_places
        cut = max(number for number, place in enumerate(self.outer_places) if place.cuts)
        prompt = [place for place in self.outer_places[:cut] if place.message is None]
        return prompt + self.outer_places[cut:]

    @cached_property
    def _is_cut(self) -> bool:
        return any(place.cuts for place in self.outer_places)

    @cached_property
    def turns(self) -> list[MergedTurn]:
        """The turns that count, of a request with checked fields."""
        said: dict[int, list[PlacedBlock]] = {}
        for place in self.live_places:
            if place.message is not None:
                said.setdefault(place.message, []).append(place)
        first = next(iter(said), 0) if self._is_cut else 0
        live = [(number, message) for number, message in self.messages if number >= first]
        turns = []
        for role, run in groupby(live, key=lambda item: item[1]["role"]):
            members = [number for number, _ in run]
            places = tuple(place for number in members for place in said.get(number, ()))
            turns.append(MergedTurn(role, members[-1], places))
        return turns


def message_places(number: int, message: dict[str, Any]) -> Iterable[PlacedBlock]:
    """Return the blocks of a message; a string is one text block, as for the API."""
    return _places_in(f"messages.{number}.content", number, message.get("role"), message.get("content"))


def _places_in(path: str, number: int | None, within: Any, content: Any) -> Iterator[PlacedBlock]:
    if isinstance(content, str):
        yield PlacedBlock(path, number, within, {"type": "text", "text": content})
    for place, block in enumerate(content if isinstance(content, list) else ()):
        yield PlacedBlock(f"{path}.{place}", number, within, block)


def _inner_places(outer: PlacedBlock) -> Iterator[PlacedBlock]:
    content = outer.block.get("content") if isinstance(outer.block, dict) else None
    if outer.type == "document" and isinstance(source := outer.block.get("source"), dict):
        content = source.get("content")
    for number, block in enumerate(content if isinstance(content, list) else ()):
        place = PlacedBlock(f"{outer.path}.{outer.type}.content.{number}", outer.message, str(outer.type), block)
        yield place
        yield from _inner_places(place)


def _parse_body(raw: bytes) -> Any:
    try:
        return json.loads(raw.decode(), parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return UNREADABLE


def _refuse_constant(name: str) -> None:
    raise ValueError(name)
