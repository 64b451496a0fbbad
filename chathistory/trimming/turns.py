"""Split a conversation into the turns and rounds that a policy decides on, with the size of each.

A turn begins with a message of the user. Within it, Claude may call tools: a round is a reply with the tool results
that answer it. A cut at the beginning of a turn or of a round separates no tool call from its result.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from chathistory.log.clock import to_datetime
from chathistory.log.entry import Entry
from chathistory.log.events import MessageAdded
from chathistory.log.message_sizes import count_context_tokens, estimate_tokens
from chathistory.log.turn_boundaries import opens_turn

__all__ = ["Round", "SentTurn", "SizedTurns", "split_into_turns"]


@dataclass(frozen=True, slots=True)
class Round:
    """A reply and the tool results that answer it.

    Attributes:
        position: The position of the reply.
        tokens: The tokens of the reply and the results.
    """

    position: int
    tokens: int


@dataclass(frozen=True, slots=True)
class SentTurn:
    """A turn that is sent at present.

    Attributes:
        position: The position of the message that opens it.
        at: The time at which that message was stored, in UTC.
        tokens: The tokens of all its messages: reported by the API where a reply has its usage, otherwise estimated.
        first_message_tokens: The tokens of the message that opens it.
        rounds: The rounds at which a cut may fall within the turn; the first one begins with the first reply. After
            such a cut, the message that opens the turn is still sent.
    """

    position: int
    at: datetime
    tokens: int
    first_message_tokens: int
    rounds: tuple[Round, ...] = ()


@dataclass(frozen=True, slots=True)
class SizedTurns:
    """The turns that are sent, with their sizes.

    Attributes:
        turns: The turns, in order.
        preamble_tokens: The tokens before all messages, which are system prompt and tools; None if unknown.
    """

    turns: list[SentTurn]
    preamble_tokens: int | None


def split_into_turns(messages: Sequence[Entry[MessageAdded]], *, cache_valid_from: int = 0) -> SizedTurns:
    """Split messages into turns.

    Args:
        messages: The messages that are sent, in order.
        cache_valid_from: The position at which the beginning of the request last changed, for example by a cut. The
            usage of replies before it includes messages that are no longer sent, so only replies after it show how many
            tokens system prompt and tools have.
    """
    sizes, preamble_tokens = _token_sizes(messages, cache_valid_from)
    turns: list[SentTurn] = []
    for entry, size, starts_round in zip(messages, sizes, _find_round_starts(messages), strict=True):
        if opens_turn(entry.event.message):
            turns.append(SentTurn(entry.position, to_datetime(entry.time_us), size, size))
        elif turns:
            turn, rounds = turns[-1], turns[-1].rounds
            if starts_round:
                rounds = (*rounds, Round(entry.position, size))
            elif rounds:
                rounds = (*rounds[:-1], replace(rounds[-1], tokens=rounds[-1].tokens + size))
            turns[-1] = replace(turn, tokens=turn.tokens + size, rounds=rounds)
    return SizedTurns(turns, preamble_tokens)


def _find_round_starts(messages: Sequence[Entry[MessageAdded]]) -> Iterator[bool]:
    """Yield for each message whether a turn may be cut before it: it is a reply, and no call is open at that point.

    A paused reply is continued by the next one, and the result of a server's tool may be in that one.
    """
    open_calls: set[str] = set()
    previous = ""
    for entry in messages:
        message = entry.event.message
        yield message["role"] == "assistant" and previous == "user" and not open_calls
        previous = message["role"]
        for block in message["content"] if isinstance(message["content"], list) else ():
            if block["type"] in ("server_tool_use", "mcp_tool_use"):
                open_calls.add(block["id"])
            else:
                open_calls.discard(block.get("tool_use_id", ""))


def _token_sizes(messages: Sequence[Entry[MessageAdded]], cache_valid_from: int) -> tuple[list[int], int | None]:
    """Return the tokens of each message, and the tokens before the first one (None if unknown).

    The usage of a reply gives the size of everything up to it. So the size of messages between two replies is known.
    """
    sizes = [estimate_tokens(entry.event.message) for entry in messages]
    preamble_tokens: int | None = None
    last, last_total = -1, None  # the last reply with a usage, and the size of everything up to it
    for index, entry in enumerate(messages):
        usage = entry.event.response.usage
        total = count_context_tokens(usage)
        if total is None:
            continue
        sizes[index] = usage.get("output_tokens", 0)
        is_after_change = entry.position > cache_valid_from
        if is_after_change and preamble_tokens is None:
            preamble_tokens = max(0, total - sum(sizes[: index + 1]))
        elif last_total is not None and total - sizes[index] >= last_total:
            total_between, between = total - sizes[index] - last_total, sizes[last + 1 : index]
            if between:  # scale the estimates, so that their sum is the reported size
                scaled = [size * total_between // sum(between) for size in between[:-1]]
                sizes[last + 1 : index] = [*scaled, total_between - sum(scaled)]
        last, last_total = index, total
    return sizes, preamble_tokens
