"""What replies cost, in tokens, from what is stored beside each of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass, field
from datetime import datetime
from typing import Any

from chathistory.log.clock import to_datetime
from chathistory.log.events import Compaction, MessageAdded, ReplyInterrupted, ReplyOrphaned
from chathistory.log.read_damaged import Lost, Sound

__all__ = ["Tokens", "TurnUsage", "Usage", "sum_usage"]


@dataclass(frozen=True, slots=True)
class Tokens:
    """Counts of tokens.

    Attributes:
        input: Input that was neither read from a cache nor written to one.
        output: Output.
        cache_read: Input that was read from the cache.
        cache_written: Input that was written to it.
    """

    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_written: int = 0

    @classmethod
    def from_usage(cls, usage: Mapping[str, Any]) -> Tokens:
        """Return the counts in the `usage` of a response; what it does not have is 0."""
        names = ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
        return cls(*(count if type(count := usage.get(name)) is int else 0 for name in names))

    def __add__(self, other: Tokens) -> Tokens:
        return Tokens(*map(sum, zip(astuple(self), astuple(other), strict=True)))


@dataclass(frozen=True, slots=True)
class TurnUsage:
    """What a turn cost.

    Attributes:
        turn: Its id.
        position: Of its first reply.
        at: When that came, in UTC.
        model: Of that reply; None: it is not known.
        tokens: Of all its replies.
    """

    turn: str
    position: int
    at: datetime
    model: str | None
    tokens: Tokens


@dataclass(frozen=True, slots=True)
class Usage:
    """What a conversation cost so far: in all, by model, and by turn in the order of the log.

    Every reply counts that is stored, also one that a rewind left out or that came too late: it was paid for. What a
    reply that broke off cost is not known.

    Attributes:
        total: Of all replies, those of `left_out` too.
        models: By model, of all replies that can be read.
        turns: By turn, likewise.
        left_out: Positions of damaged records that a repair has left out; a reply there counts in `total` alone.
    """

    total: Tokens = Tokens()
    models: Mapping[str, Tokens] = field(default_factory=dict)
    turns: tuple[TurnUsage, ...] = ()
    left_out: tuple[int, ...] = ()


_PAID = (MessageAdded, Compaction, ReplyInterrupted, ReplyOrphaned)


def sum_usage(records: Iterable[Sound | Lost], stored: Mapping[str, Any]) -> Usage:
    """Return what the replies among the records of a conversation cost.

    Args:
        records: All of them; those that cannot be read count in the total alone.
        stored: The sums that the conversation's head has, by the API's names: the total if something cannot be read.
    """
    total, models, turns = Tokens(), dict[str, Tokens](), dict[str, TurnUsage]()
    left_out = []
    for each in records:
        if isinstance(each, Lost):
            left_out.append(each.position)
            continue
        entry = each.entry
        event = entry.event
        if not isinstance(event, _PAID) or not event.response.usage:
            continue
        if isinstance(event, MessageAdded) and event.copy_of is not None:  # it was counted as it was before its repair
            continue
        tokens, model = Tokens.from_usage(event.response.usage), event.response.model
        total += tokens
        models[model or ""] = models.get(model or "", Tokens()) + tokens
        turn = entry.turn or entry.id
        before = turns.get(turn, TurnUsage(turn, entry.position, to_datetime(entry.time_us), model, Tokens()))
        turns[turn] = TurnUsage(turn, before.position, before.at, model, before.tokens + tokens)
    return Usage(Tokens.from_usage(stored) if left_out else total, models, tuple(turns.values()), tuple(left_out))
