"""Policies: values that decide from a few numbers when to cut, and return the position of the cut."""

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
    """The size of what would be sent, with the message that is about to be sent; known without reading any message.

    Attributes:
        tokens: The estimated number of tokens.
        turns: The number of turns.
        oldest_at: The time of the first message that is sent, in UTC.
        now: The present time, in UTC.
        preamble_tokens: The tokens of system prompt and tools, as far as known; 0 in a call of `should_cut`.
    """

    tokens: int
    turns: int
    oldest_at: datetime
    now: datetime
    preamble_tokens: int = 0


class Policy(Protocol):
    """Decides on a cut. There are two methods, so that nothing is read for a turn that needs no cut."""

    def should_cut(self, context: TrimContext) -> bool:
        """Return True if the conversation must be cut.

        Args:
            context: The size of what would be sent.
        """
        ...

    def find_start(self, turns: Sequence[SentTurn], context: TrimContext) -> int | None:
        """Return the position from which on messages are sent.

        Args:
            turns: The turns that would be sent, in order. If a message is about to be sent, the last turn is the one
                that it opens: it has no rounds, and is never cut off.
            context: The size of what would be sent.

        Returns:
            The position of one of `turns`, or of one of their rounds; None for no cut.
        """
        ...


def check_policy(name: str, policy: object) -> None:
    """Check that an object can be a policy.

    Args:
        name: The name of the argument, for the error.
        policy: The value of the argument.

    Raises:
        InvalidInput: It is a class, or has no `should_cut` and `find_start`.
    """
    if isinstance(policy, type) or not (hasattr(policy, "should_cut") and hasattr(policy, "find_start")):
        raise InvalidInput(
            f"{name}: must be a policy, such as chathistory.trimming.TokenBudget(high=..., low=...), "
            f"not {class_name(policy)}"
        )


def _check_thresholds(name: str, high: float, low: float) -> None:
    for threshold, value in (("high", high), ("low", low)):
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise InvalidInput(f"{name}: {threshold} must be a number, not {class_name(value)}")
    if not 1 <= low <= high:
        raise InvalidInput(f"{name}: low must be at least 1 and at most high, not low={low}, high={high}")


@dataclass(frozen=True, slots=True)
class KeepAll:
    """Never cut; the same as no policy."""

    def should_cut(self, context: TrimContext) -> bool:  # noqa: ARG002
        return False

    def find_start(self, turns: Sequence[SentTurn], context: TrimContext) -> int | None:  # noqa: ARG002
        return None


@dataclass(frozen=True, slots=True)
class LastTurns:
    """Above `high` turns, cut down to the newest `low` turns, including the one that is about to begin.

    Attributes:
        high: The number of turns above which to cut.
        low: The number of turns to keep; from 1 to `high`.

    Raises:
        InvalidInput: The numbers are not in this order.
    """

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
    """Once the oldest message that is sent is older than `high`, cut down to the turns of the last `low`.

    The last turn stays, however old it is: the one that is about to begin, if there is one.

    Attributes:
        high: The age above which to cut.
        low: The age up to which turns are kept; at most `high`.
    """

    high: timedelta
    low: timedelta

    def __init__(self, high: timedelta | float | str, low: timedelta | float | str) -> None:
        """Create the policy.

        Args:
            high: The age above which to cut: a `timedelta`, text such as "7d", or a number of seconds.
            low: The age up to which turns are kept, in the same forms.

        Raises:
            InvalidInput: One of them is not a duration, or `low` is more than `high`.
        """
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
    """Above `high` tokens, cut down to as many of the newest turns as fit into `low`, with system prompt and tools.

    The last finished turn stays if it fits into `high`. If it does not, `oversized` decides.

    Attributes:
        high: The number of tokens above which to cut.
        low: The number of tokens to cut down to; from 1 to `high`.
        oversized: For a last turn that does not fit into `high`. "rounds": cut between its rounds of tool calls, and
            keep the message that opens it. "raise": send nothing, and raise `TurnTooLarge`.

    Raises:
        InvalidInput: The numbers are not in this order, or `oversized` is something else.
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
        used, position = context.preamble_tokens, turns[-1].position
        for index in range(len(turns) - 1, -1, -1):
            turn = turns[index]
            if used + turn.tokens > self.low:
                is_last = all(not later.rounds for later in turns[index + 1 :])  # no later turn has a reply
                return self._find_start_in_last_turn(turn, used) if is_last else position
            used, position = used + turn.tokens, turn.position
        return position

    def _find_start_in_last_turn(self, turn: SentTurn, used: int) -> int:
        """Return where to cut if only this turn, which does not fit into `low`, would remain."""
        if used + turn.tokens <= self.high:
            return turn.position
        if self.oversized == "raise":
            raise TurnTooLarge(turn.tokens, self.high)
        used += turn.first_message_tokens
        position = turn.position
        for each in reversed(turn.rounds[1:]):  # there is nothing to cut before the first round
            used += each.tokens
            if used > self.low and position != turn.position:
                break
            position = each.position
        return position


@dataclass(frozen=True, slots=True)
class AnyOf:
    """Cut when one of several policies would cut, as far as the one that cuts furthest.

    Attributes:
        policies: The policies.
    """

    policies: tuple[Policy, ...]

    def __init__(self, *policies: Policy) -> None:
        """Create the policy.

        Args:
            *policies: The policies, without `Summarize` and `Compaction`, which must wrap this one.

        Raises:
            InvalidInput: One of them is not such a policy.
        """
        for policy in policies:
            _check_inner_policy("AnyOf", policy)
        object.__setattr__(self, "policies", policies)

    def should_cut(self, context: TrimContext) -> bool:
        return any(policy.should_cut(context) for policy in self.policies)

    def find_start(self, turns: Sequence[SentTurn], context: TrimContext) -> int | None:
        starts = [policy.find_start(turns, context) for policy in self.policies if policy.should_cut(context)]
        return max((start for start in starts if start is not None), default=None)


def _check_inner_policy(name: str, policy: Policy) -> None:
    """Refuse `Summarize` and `Compaction` within another policy: a summary is made only for the outermost policy."""
    check_policy(name, policy)
    if isinstance(policy, Summarize | Compaction):
        raise InvalidInput(
            f"{name}: {type(policy).__name__} must wrap the other policies, as in {type(policy).__name__}(AnyOf(...))"
        )


SummaryWriter: TypeAlias = Callable[[list[dict[str, Any]]], str | Awaitable[str]]
"""A function that gets messages and returns a summary of them; it may be a coroutine function."""


@dataclass(frozen=True, slots=True)
class Summarize:
    """Cut where a policy says, and send a summary in place of the messages that are cut off.

    Use it for models without compaction; with the others, `Compaction` keeps thinking valid.

    Attributes:
        policy: Decides when and where to cut.
        by: Gets the messages that are cut off, ready to be sent, and returns a summary as text. It may call a model. In
            an `AsyncChatEngine` it may be a coroutine function.

    Raises:
        InvalidInput: `policy` is not a policy, or is itself a `Summarize` or `Compaction`.
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
    """Cut where a policy says, and let the API summarize the messages that are cut off, in a block that it signs.

    Thinking after the cut stays valid. This needs a beta of the API (`compact-2026-09-04`). The summary is made by a
    separate request, with the model, system prompt and tools of the conversation.

    Attributes:
        policy: Decides when and where to cut.

    Raises:
        InvalidInput: `policy` is not a policy, or is itself a `Summarize` or `Compaction`.
    """

    policy: Policy

    def __post_init__(self) -> None:
        _check_inner_policy("Compaction", self.policy)

    def should_cut(self, context: TrimContext) -> bool:
        return self.policy.should_cut(context)

    def find_start(self, turns: Sequence[SentTurn], context: TrimContext) -> int | None:
        return self.policy.find_start(turns, context)
