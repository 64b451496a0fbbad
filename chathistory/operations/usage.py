"""Sums the tokens that replies used, from the usage that is stored with each of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass, field
from datetime import datetime
from typing import Any

from chathistory.log.clock import to_datetime
from chathistory.log.events import CompactionByAPI, MessageAdded, ReplyInterrupted, ReplyOrphaned
from chathistory.log.read_damaged import LostRecord, ReadableRecord

__all__ = ["Tokens", "TurnUsage", "Usage", "sum_usage"]


@dataclass(frozen=True, slots=True)
class Tokens:
    """Counts of tokens.

    Attributes:
        input: Input tokens that were neither read from the prompt cache nor written to it.
        output: Output tokens.
        cache_read: Input tokens that were read from the cache.
        cache_written: Input tokens that were written to the cache.
    """

    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_written: int = 0

    @classmethod
    def from_usage(cls, usage: Mapping[str, Any]) -> Tokens:
        """Return the counts in the `usage` of a response; a count that is missing or no integer is 0.

        Args:
            usage: The `usage` of a response of the Messages API, as a mapping.
        """
        names = ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
        return cls(*(count if type(count := usage.get(name)) is int else 0 for name in names))

    def __add__(self, other: Tokens) -> Tokens:
        return Tokens(*map(sum, zip(astuple(self), astuple(other), strict=True)))


@dataclass(frozen=True, slots=True)
class TurnUsage:
    """The tokens that a turn used.

    Attributes:
        turn: The id of the turn.
        position: The position of its first reply.
        at: When that reply was stored (UTC).
        model: The model of that reply; None if it is not known.
        tokens: The tokens of all its replies.
    """

    turn: str
    position: int
    at: datetime
    model: str | None
    tokens: Tokens


@dataclass(frozen=True, slots=True)
class Usage:
    """The tokens that a conversation used so far: in total, by model, and by turn in the order of the log.

    Every stored reply counts, also one that a rewind took back or that came too late, because it was paid for. The
    usage of a reply that was interrupted is not known.

    Attributes:
        total: The tokens of all replies, including those at the positions in `left_out`.
        models: The tokens by model, of all replies that can be read.
        turns: The tokens by turn, of all replies that can be read.
        left_out: Positions of damaged records that a repair has left out. A reply at such a position counts in
            `total` only.
    """

    total: Tokens = Tokens()
    models: Mapping[str, Tokens] = field(default_factory=dict)
    turns: tuple[TurnUsage, ...] = ()
    left_out: tuple[int, ...] = ()


_PAID = (MessageAdded, CompactionByAPI, ReplyInterrupted, ReplyOrphaned)


def sum_usage(records: Iterable[ReadableRecord | LostRecord], stored: Mapping[str, Any]) -> Usage:
    """Return the tokens that the replies of a conversation used.

    Args:
        records: All records of the conversation, in order. Replies that cannot be read count in the total only.
        stored: The sums in the head of the conversation, by the names of the API. They are the total if a record
            cannot be read.
    """
    total, models, turns = Tokens(), dict[str, Tokens](), dict[str, TurnUsage]()
    left_out = []
    for each in records:
        if isinstance(each, LostRecord):
            left_out.append(each.position)
            continue
        entry = each.entry
        event = entry.event
        if not isinstance(event, _PAID) or not event.response.usage:
            continue
        if isinstance(event, MessageAdded) and event.copy_of is not None:  # a repair stored it again: count it once
            continue
        tokens, model = Tokens.from_usage(event.response.usage), event.response.model
        total += tokens
        models[model or ""] = models.get(model or "", Tokens()) + tokens
        turn = entry.turn or entry.id
        before = turns.get(turn, TurnUsage(turn, entry.position, to_datetime(entry.time_us), model, Tokens()))
        turns[turn] = TurnUsage(turn, before.position, before.at, model, before.tokens + tokens)
    return Usage(Tokens.from_usage(stored) if left_out else total, models, tuple(turns.values()), tuple(left_out))
