"""When to cut, and how far: small values that look at numbers and name a position."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal, Protocol, TypeAlias

from chathistory.checks import check_count, class_name
from chathistory.durations import check_duration
from chathistory.errors import InvalidInput, TurnTooLarge
from chathistory.trimming.turns import SentTurn

__all__ = [
    "AnyOf",
    "Compaction",
    "KeepAll",
    "LastTurns",
    "MaxAge",
    "Policy",
    "Summarize",
    "SummaryWriter",
    "TokenBudget",
    "TrimContext",
    "check_policy",
]


@dataclass(frozen=True, slots=True)
class TrimContext:
    """How much would be sent, with the message that is about to be sent: known without reading any message.

    Attributes:
        tokens: About how many.
        turns: How many.
        since: The time of the first message that is sent, in UTC.
        now: The present time, in UTC.
        before: Tokens of system prompt and tools, as far as they are known; 0 while `should_cut` asks.
    """

    tokens: int
    turns: int
    oldest_at: datetime
    now: datetime
    preamble_tokens: int = 0


class Policy(Protocol):
    """What decides on a cut. Two methods, so that a turn which needs none reads nothing."""

    def should_cut(self, context: TrimContext) -> bool:
        """Whether there is to be a cut."""
        ...

    def find_start(self, turns: Sequence[SentTurn], context: TrimContext) -> int | None:
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
    if isinstance(policy, type) or not (hasattr(policy, "should_cut") and hasattr(policy, "find_start")):
        raise InvalidInput(
            f"{name}: must be a policy, such as chathistory.trimming.TokenBudget(high=..., low=...), "
            f"not {class_name(policy)}"
        )


def _check_thresholds(name: str, high: float, low: float) -> None:
    for mark, value in (("high", high), ("low", low)):
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise InvalidInput(f"{name}: {mark} must be a number, not {class_name(value)}")
    if not 1 <= low <= high:
        raise InvalidInput(f"{name}: low must be at least 1 and at most high, not low={low}, high={high}")


@dataclass(frozen=True, slots=True)
class KeepAll:
    """Never cut."""

    def should_cut(self, context: TrimContext) -> bool:  # noqa: ARG002
        return False

    def find_start(self, turns: Sequence[SentTurn], context: TrimContext) -> int | None:  # noqa: ARG002
        return None


@dataclass(frozen=True, slots=True)
class LastTurns:
    """Over `high` turns, cut down to the newest `low`, the one that is about to begin included."""

    high: int
    low: int

    def __post_init__(self) -> None:
        _check_thresholds("LastTurns", self.high, self.low)
        check_count("LastTurns: low", self.low, least=1)

    def should_cut(self, context: TrimContext) -> bool:
        return context.turns > self.high

    def find_start(self, turns: Sequence[SentTurn], context: TrimContext) -> int | None:  # noqa: ARG002
        return turns[-self.low].position if len(turns) > self.low else None


@dataclass(frozen=True, slots=True)
class MaxAge:
    """Once the oldest message sent is older than `high`, cut down to the turns of the last `low`.

    The last turn stays, however old: the one that is about to begin, if there is one. Both are durations: a
    `timedelta`, text such as "7d", or a number of seconds.
    """

    high: timedelta
    low: timedelta

    def __init__(self, high: timedelta | float | str, low: timedelta | float | str) -> None:
        object.__setattr__(self, "high", check_duration("MaxAge: high", high))
        object.__setattr__(self, "low", check_duration("MaxAge: low", low))
        if self.low > self.high:
            raise InvalidInput(f"MaxAge: low must be at most high, not low={self.low}, high={self.high}")

    def should_cut(self, context: TrimContext) -> bool:
        return context.now - context.oldest_at > self.high

    def find_start(self, turns: Sequence[SentTurn], context: TrimContext) -> int | None:
        return next((turn.position for turn in turns if context.now - turn.at <= self.low), turns[-1].position)


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
        _check_thresholds("TokenBudget", self.high, self.low)
        if self.oversized not in ("rounds", "raise"):
            raise InvalidInput("TokenBudget: oversized must be 'rounds' or 'raise'")

    def should_cut(self, context: TrimContext) -> bool:
        return context.tokens > self.high

    def find_start(self, turns: Sequence[SentTurn], context: TrimContext) -> int | None:
        used, place = context.preamble_tokens, turns[-1].position
        for index in range(len(turns) - 1, -1, -1):
            turn = turns[index]
            if used + turn.tokens > self.low:
                is_last = all(not later.rounds for later in turns[index + 1 :])  # all that Claude would know of before
                return self._find_start_in_last_turn(turn, used) if is_last else place
            used, place = used + turn.tokens, turn.position
        return place

    def _find_start_in_last_turn(self, turn: SentTurn, used: int) -> int:
        """Return where to begin if nothing but a turn that does not fit into `low` would be left."""
        if used + turn.tokens <= self.high:
            return turn.position
        if self.oversized == "raise":
            raise TurnTooLarge(turn.tokens, self.high)
        used += turn.opening_tokens
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
            _check_inner_policy("AnyOf", policy)
        object.__setattr__(self, "policies", policies)

    def should_cut(self, context: TrimContext) -> bool:
        return any(policy.should_cut(context) for policy in self.policies)

    def find_start(self, turns: Sequence[SentTurn], context: TrimContext) -> int | None:
        places = [policy.find_start(turns, context) for policy in self.policies if policy.should_cut(context)]
        return max((place for place in places if place is not None), default=None)


def _check_inner_policy(name: str, policy: Policy) -> None:
    """Refuse a policy within another that would not hear of it: what stands for the rest is made for the outermost."""
    check_policy(name, policy)
    if isinstance(policy, Summarize | Compaction):
        raise InvalidInput(
            f"{name}: {type(policy).__name__} is the outermost, as in {type(policy).__name__}(AnyOf(...))"
        )


SummaryWriter: TypeAlias = Callable[[list[dict[str, Any]]], str | Awaitable[str]]
"""From messages to a text that stands for them."""


@dataclass(frozen=True, slots=True)
class Summarize:
    """Cut where `policy` says, and send what `by` makes of the messages that are cut off in their place.

    by: gets those messages, ready to be sent, and returns text; it may call a model. In an `AsyncChatEngine` it may be
    a coroutine function. For models without compaction of their own; else `Compaction` keeps thinking valid.
    """

    policy: Policy
    by: SummaryWriter

    def __post_init__(self) -> None:
        _check_inner_policy("Summarize", self.policy)

    def should_cut(self, context: TrimContext) -> bool:
        return self.policy.should_cut(context)

    def find_start(self, turns: Sequence[SentTurn], context: TrimContext) -> int | None:
        return self.policy.find_start(turns, context)


@dataclass(frozen=True, slots=True)
class Compaction:
    """Cut where `policy` says, and let the API sum up what is cut off, in a block that it signs.

    Thinking behind it stays valid. A beta of the API (`compact-2026-09-04`); the request for it is a call of its own,
    with the model, system prompt and tools of the conversation.
    """

    policy: Policy

    def __post_init__(self) -> None:
        _check_inner_policy("Compaction", self.policy)

    def should_cut(self, context: TrimContext) -> bool:
        return self.policy.should_cut(context)

    def find_start(self, turns: Sequence[SentTurn], context: TrimContext) -> int | None:
        return self.policy.find_start(turns, context)
