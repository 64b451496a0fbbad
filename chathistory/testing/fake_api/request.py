"""A request as the rules look at it: its headers, its body, its blocks one by one, and its turns.

A *place* is a content block and where it stands. A *turn* is what the API makes of consecutive messages of one role:
they are merged before tool calls are paired with their results.
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
"""The body of a request that is no JSON."""
LARGEST = 32 * 1024 * 1024
"""The bytes that a request may have."""
SMALLEST_TRIGGER = 50_000
"""How many input tokens the API demands of the trigger of a compaction."""


@dataclass(frozen=True, slots=True)
class PlacedBlock:
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

    @property
    def summarizes(self) -> bool:
        """Whether this is a `compaction` block with a summary; one without is a compaction that failed, and no more."""
        return self.type == "compaction" and bool(self.block.get("content"))

    @property
    def is_signed(self) -> bool:
        """Whether it carries a signature: a compaction on demand does, one at a threshold does not."""
        return bool(self.block.get("signature"))

    @property
    def cuts(self) -> bool:
        """Whether nothing before it counts: it is a summary that was made at a threshold."""
        return self.summarizes and not self.is_signed


@dataclass(frozen=True, slots=True)
class MergedTurn:
    """Consecutive messages of one role, and their blocks as one run. `last` is the number of the last of them."""

    role: str
    last: int
    places: tuple[PlacedBlock, ...]

    def of(self, *types: str) -> list[PlacedBlock]:
        """Return the blocks of these types."""
        return [place for place in self.places if place.type in types]


@dataclass(frozen=True, slots=True)
class Limits:
    """How large things may be: bytes of a request, bytes of an image in base64, tokens of a prompt (None: the model's).

    The API's own numbers are hard to reach in a test.
    """

    request: int = LARGEST
    image: int = 10 * 1024 * 1024
    context: int | None = None


@dataclass(frozen=True, slots=True)
class FakeSettings:
    """What a fake was told to serve and to mind.

    thinking None: signatures are not looked at. gone: the ids of files and containers that there are no longer.
    account: the account that thinking is bound to. refuse: what else is refused. given: the blocks that it gave out.
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


@dataclass(frozen=True)  # without slots: what many rules look at is worked out once
class ApiRequest:
    """A request to the API. `headers` have lower-case names; `body` is the JSON, or `UNREADABLE`."""

    path: str
    headers: Mapping[str, str]
    raw: bytes = field(repr=False)
    setting: FakeSettings
    body: Any = field(repr=False, default=UNREADABLE)
    once: dict[str, Any] = field(repr=False, compare=False, default_factory=dict)
    """What is worked out once by others than this class."""

    @classmethod
    def read(cls, path: str, headers: Mapping[str, str], raw: bytes, setting: FakeSettings) -> ApiRequest:
        """Return the request, its body parsed if it is JSON (without NaN and infinities)."""
        return cls(path, {name.lower(): text for name, text in headers.items()}, raw, setting, _parse_body(raw))

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

    def has_beta(self, prefix: str | tuple[str, ...]) -> bool:
        """Tell whether a beta is asked for whose name begins so (or in one of these ways)."""
        return any(beta.startswith(prefix) for beta in self.betas)

    @property
    def compacts(self) -> bool:
        """Whether a summary is wanted and no reply. Counting tokens ignores the wish."""
        return self.body.get("compaction") is not None and not self.counts_only

    @property
    def edits(self) -> list[dict[str, Any]]:
        """The edits of `context_management`. For requests whose shape has been checked."""
        return list((self.body.get("context_management") or {}).get("edits") or ())

    @cached_property
    def messages(self) -> list[tuple[int, dict[str, Any]]]:
        """The messages that are objects, with their numbers."""
        messages = self.body.get("messages") if isinstance(self.body, dict) else None
        numbered = enumerate(messages if isinstance(messages, list) else ())
        return [(number, message) for number, message in numbered if isinstance(message, dict)]

    @cached_property
    def outer_places(self) -> list[PlacedBlock]:
        """The blocks of `system` and of the messages, without the blocks inside of them."""
        system = self.body.get("system") if isinstance(self.body, dict) else None
        placed = list(_places_in("system", None, "system", system))
        for number, message in self.messages:
            placed += message_places(number, message)
        return placed

    @cached_property
    def places(self) -> list[PlacedBlock]:
        """All blocks in the order of the prompt: those of `system`, those of the messages; inner after outer."""
        return [place for outer in self.outer_places for place in (outer, *_inner_places(outer))]

    @cached_property
    def known_places(self) -> list[PlacedBlock]:
        """All blocks but those that were given out, which are taken back whatever they are."""
        given = self.setting.issued
        outer = (place for place in self.outer_places if not (place.within == "assistant" and given.has(place.block)))
        return [place for each in outer for place in (each, *_inner_places(each))]

    @cached_property
    def live_places(self) -> list[PlacedBlock]:
        """The outer blocks that count: a summary that was made at a threshold replaces all messages before it."""
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
        """The turns that count. For requests whose shape has been checked."""
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
    """Return the blocks of a message; text alone is one text block, as the API takes it."""
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
