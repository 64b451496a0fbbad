"""When to cut, and how far: small values that look at numbers and name a position."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

from chathistory.checks import check_count, class_name
from chathistory.errors import InvalidInput, TurnTooLarge
from chathistory.log.clock import MICROSECONDS
from chathistory.trimming.turns import SentTurn

__all__ = [
    "AnyOf",
    "Compaction",
    "KeepAll",
    "LastTurns",
    "Load",
    "MaxAge",
    "Policy",
    "Summarize",
    "TokenBudget",
    "Writer",
    "check_policy",
]


@dataclass(frozen=True, slots=True)
class Load:
    """How much would be sent, with the message that is about to be sent: known without reading any message.

    tokens: about how many. turns: how many. since: the time of the first message sent; now: the present time; both in
    microseconds since 1970 UTC. before: tokens of system prompt and tools, as far as known (0 while `is_due` asks).
    """

    tokens: int
    turns: int
    since: int
    now: int
    before: int = 0


class Policy(Protocol):
    """What decides on a cut. Two methods, so that a turn which needs none reads nothing."""

    def is_due(self, load: Load) -> bool:
        """Whether there is to be a cut."""
        ...

    def start(self, turns: Sequence[SentTurn], load: Load) -> int | None:
        """Return the position from which on messages are sent: that of a turn or of a round of `turns`; None: no cut.

        The last of the turns is the one that is about to begin, if there is one: without rounds, and never cut off.
        """
        ...


def check_policy(name: str, policy: object) -> None:
    """Raise `InvalidInput` for what cannot decide on a cut.

    Args:
        name: The name of the argument, for the error.
        policy: What the caller handed in.
    """
    if isinstance(policy, type) or not (hasattr(policy, "is_due") and hasattr(policy, "start")):
        raise InvalidInput(
            f"{name}: must be a policy, such as chathistory.trimming.TokenBudget(high=..., low=...), "
            f"not {class_name(policy)}"
        )


def _check(name: str, high: float, low: float, least: float = 0) -> None:
    for mark, value in (("high", high), ("low", low)):
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise InvalidInput(f"{name}: {mark} must be a number, not {class_name(value)}")
    if not least <= low <= high:
        raise InvalidInput(f"{name}: {least} <= low <= high is due, not low={low}, high={high}")


@dataclass(frozen=True, slots=True)
class KeepAll:
    """Never cut."""

    def is_due(self, load: Load) -> bool:  # noqa: ARG002
        return False

    def start(self, turns: Sequence[SentTurn], load: Load) -> int | None:  # noqa: ARG002
        return None


@dataclass(frozen=True, slots=True)
class LastTurns:
    """Over `high` turns, cut down to the newest `low`, the one that is about to begin included."""

    high: int
    low: int

    def __post_init__(self) -> None:
        _check("LastTurns", self.high, self.low, 1)
        check_count("LastTurns: low", self.low, least=1)

    def is_due(self, load: Load) -> bool:
        return load.turns > self.high

    def start(self, turns: Sequence[SentTurn], load: Load) -> int | None:  # noqa: ARG002
        return turns[-self.low].position if len(turns) > self.low else None


@dataclass(frozen=True, slots=True)
class MaxAge:
    """Once the oldest message sent is over `high` seconds old, cut down to the turns of the last `low` seconds.

    The last turn stays, however old: the one that is about to begin, if there is one.
    """

    high: float
    low: float

    def __post_init__(self) -> None:
        _check("MaxAge", self.high, self.low)

    def is_due(self, load: Load) -> bool:
        return load.now - load.since > self.high * MICROSECONDS

    def start(self, turns: Sequence[SentTurn], load: Load) -> int | None:
        oldest = load.now - self.low * MICROSECONDS
        return next((turn.position for turn in turns if turn.at >= oldest), turns[-1].position)


@dataclass(frozen=True, slots=True)
class TokenBudget:
    """Over `high` tokens, cut down to as many of the newest turns as fit into `low`, system prompt and tools included.

    The last finished turn stays, as long as it fits into `high`. If it does not, it is cut between its tool rounds, and
    what opens it stays; with `oversized="raise"` nothing is sent, and `TurnTooLarge` is raised.
    """

    high: int
    low: int
    oversized: Literal["rounds", "raise"] = "rounds"

    def __post_init__(self) -> None:
        _check("TokenBudget", self.high, self.low, 1)
        if self.oversized not in ("rounds", "raise"):
            raise InvalidInput("TokenBudget: oversized is 'rounds' or 'raise'")

    def is_due(self, load: Load) -> bool:
        return load.tokens > self.high

    def start(self, turns: Sequence[SentTurn], load: Load) -> int | None:
        used, place = load.before, turns[-1].position
        for index in range(len(turns) - 1, -1, -1):
            turn = turns[index]
            if used + turn.tokens > self.low:
                is_last = all(not later.rounds for later in turns[index + 1 :])  # all that Claude would know of before
                return self._last(turn, used) if is_last else place
            used, place = used + turn.tokens, turn.position
        return place

    def _last(self, turn: SentTurn, used: int) -> int:
        """Return where to begin if nothing but a turn that does not fit into `low` would be left."""
        if used + turn.tokens <= self.high:
            return turn.position
        if self.oversized == "raise":
            raise TurnTooLarge(turn.tokens, self.high)
        used += turn.opening
        place = turn.position
        for each in reversed(turn.rounds[1:]):  # before the first there is nothing to cut
            used += each.tokens
            if used > self.low and place != turn.position:
                break
            place = each.position
        return place


@dataclass(frozen=True, slots=True)
class AnyOf:
    """Cut when any of the policies would, and as far as the one that cuts furthest."""

    policies: tuple[Policy, ...]

    def __init__(self, *policies: Policy) -> None:
        for policy in policies:
            _check_plain("AnyOf", policy)
        object.__setattr__(self, "policies", policies)

    def is_due(self, load: Load) -> bool:
        return any(policy.is_due(load) for policy in self.policies)

    def start(self, turns: Sequence[SentTurn], load: Load) -> int | None:
        places = [policy.start(turns, load) for policy in self.policies if policy.is_due(load)]
        return max((place for place in places if place is not None), default=None)


def _check_plain(name: str, policy: Policy) -> None:
    """Refuse a policy within another that would not hear of it: what stands for the rest is made for the outermost."""
    check_policy(name, policy)
    if isinstance(policy, Summarize | Compaction):
        raise InvalidInput(
            f"{name}: {type(policy).__name__} is the outermost, as in {type(policy).__name__}(AnyOf(...))"
        )


Writer: TypeAlias = Callable[[list[dict[str, Any]]], str | Awaitable[str]]
"""From messages to a text that stands for them."""


@dataclass(frozen=True, slots=True)
class Summarize:
    """Cut where `policy` says, and send what `by` makes of the messages that are cut off in their place.

    by: gets those messages, ready to be sent, and returns text; it may call a model. In an `AsyncChatEngine` it may be
    a coroutine function. For models without compaction of their own; else `Compaction` keeps thinking valid.
    """

    policy: Policy
    by: Writer

    def __post_init__(self) -> None:
        _check_plain("Summarize", self.policy)

    def is_due(self, load: Load) -> bool:
        return self.policy.is_due(load)

    def start(self, turns: Sequence[SentTurn], load: Load) -> int | None:
        return self.policy.start(turns, load)


@dataclass(frozen=True, slots=True)
class Compaction:
    """Cut where `policy` says, and let the API sum up what is cut off, in a block that it signs.

    Thinking behind it stays valid. A beta of the API (`compact-2026-09-04`); the request for it is a call of its own,
    with the model, system prompt and tools of the conversation.
    """

    policy: Policy

    def __post_init__(self) -> None:
        _check_plain("Compaction", self.policy)

    def is_due(self, load: Load) -> bool:
        return self.policy.is_due(load)

    def start(self, turns: Sequence[SentTurn], load: Load) -> int | None:
        return self.policy.start(turns, load)
