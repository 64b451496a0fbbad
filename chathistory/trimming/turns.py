"""A conversation as a policy sees it: turns, the rounds within them, and how large each is.

A turn begins with the user's own message. Within it, Claude may call tools: a round is a reply with the results that
answer it. Both are places where a cut leaves whole pairs on either side.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from chathistory.log.clock import to_datetime
from chathistory.log.entry import Entry
from chathistory.log.events import MessageAdded
from chathistory.log.message_sizes import context_of, estimated
from chathistory.log.turn_boundaries import opens_turn

__all__ = ["Round", "SentTurn", "SizedTurns", "split_into_turns"]


@dataclass(frozen=True, slots=True)
class Round:
    """A reply and the tool results that answer it.

    Attributes:
        position: Of the reply.
        tokens: Of both.
    """

    position: int
    tokens: int


@dataclass(frozen=True, slots=True)
class SentTurn:
    """A turn that is sent so far.

    Attributes:
        position: Of the message that opens it.
        at: When that message was stored, in UTC.
        tokens: Of all its messages, as far as usage tells, else estimated.
        opening: Tokens of the message that opens it.
        rounds: At which a cut may fall within it, the first reply included; what opens the turn is then sent all the
            same.
    """

    position: int
    at: datetime
    tokens: int
    opening_tokens: int
    rounds: tuple[Round, ...] = ()


@dataclass(frozen=True, slots=True)
class SizedTurns:
    """The turns that are sent, and the tokens that stand before all of them: system prompt and tools; None: unknown."""

    turns: list[SentTurn]
    preamble_tokens: int | None


def split_into_turns(messages: Sequence[Entry[MessageAdded]], *, cache_valid_from: int = 0) -> SizedTurns:
    """Return the turns in some messages.

    Args:
        messages: In order.
        cache_valid_from: The position at which what stands before others was changed last. What replies before it tell
            includes what is no longer sent: the tokens before all are unknown until the first reply behind it.
    """
    sizes, before = _token_sizes(messages, cache_valid_from)
    turns: list[SentTurn] = []
    for entry, size, fits in zip(messages, sizes, _find_round_starts(messages), strict=True):
        if opens_turn(entry.event.message):
            turns.append(SentTurn(entry.position, to_datetime(entry.time_us), size, size))
        elif turns:
            turn, rounds = turns[-1], turns[-1].rounds
            if fits:
                rounds = (*rounds, Round(entry.position, size))
            elif rounds:
                rounds = (*rounds[:-1], replace(rounds[-1], tokens=rounds[-1].tokens + size))
            turns[-1] = replace(turn, tokens=turn.tokens + size, rounds=rounds)
    return SizedTurns(turns, before)


def _find_round_starts(messages: Sequence[Entry[MessageAdded]]) -> Iterator[bool]:
    """Yield of each message whether it is a reply before which a turn may be cut: nothing is open at that point.

    A reply that paused is gone on with by the next one, and a server's tool may answer there.
    """
    uses: set[str] = set()
    previous = ""
    for entry in messages:
        message = entry.event.message
        yield message["role"] == "assistant" and previous == "user" and not uses
        previous = message["role"]
        for block in message["content"] if isinstance(message["content"], list) else ():
            if block["type"] in ("server_tool_use", "mcp_tool_use"):
                uses.add(block["id"])
            else:
                uses.discard(block.get("tool_use_id", ""))


def _token_sizes(messages: Sequence[Entry[MessageAdded]], cache_valid_from: int) -> tuple[list[int], int | None]:
    """Return the tokens of each message, and those of what stands before the first.

    The usage of a reply tells the size of all up to it, so what lies between two replies is known, too.
    """
    sizes = [estimated(entry.event.message) for entry in messages]
    before: int | None = None
    last, told = -1, None  # the last message whose context was told, and how much that was
    for index, entry in enumerate(messages):
        usage = entry.event.response.usage
        total = context_of(usage)
        if total is None:
            continue
        sizes[index] = usage.get("output_tokens", 0)
        is_new = entry.position > cache_valid_from
        if is_new and before is None:
            before = max(0, total - sum(sizes[: index + 1]))
        elif told is not None and total - sizes[index] >= told:
            told_between, between = total - sizes[index] - told, sizes[last + 1 : index]
            if between:  # scaled, so that their sum is what was told
                scaled = [size * told_between // sum(between) for size in between[:-1]]
                sizes[last + 1 : index] = [*scaled, told_between - sum(scaled)]
        last, told = index, total
    return sizes, before
