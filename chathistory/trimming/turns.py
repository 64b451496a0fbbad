"""A conversation as a policy sees it: turns, the rounds within them, and how large each is.

A turn begins with the user's own message. Within it, Claude may call tools: a round is a reply with the results that
answer it. Both are places where a cut leaves whole pairs on either side.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from chathistory.log.entry import Entry
from chathistory.log.message_sizes import context_of, estimated
from chathistory.log.reducers import opens_turn

__all__ = ["Round", "SentTurn", "outlined"]


@dataclass(frozen=True, slots=True)
class Round:
    """A reply and the tool results that answer it: the position of the reply, and the tokens of both."""

    position: int
    tokens: int


@dataclass(frozen=True, slots=True)
class SentTurn:
    """A turn that is sent so far: the position and time (microseconds, UTC) of the message that opens it.

    tokens: of all its messages, as far as usage tells, else estimated. opening: those of the message that opens it.
    rounds: at which a cut may fall within it, the first reply included; what opens the turn is then sent all the same.
    """

    position: int
    at: int
    tokens: int
    opening: int
    rounds: tuple[Round, ...] = ()


def outlined(entries: Iterable[Entry], *, prefix: int = 0) -> tuple[list[SentTurn], int | None]:
    """Return the turns in the messages of `entries`, and the tokens that stand before all: system prompt and tools.

    prefix: the position at which what stood before others was changed last; what replies before it tell includes what
    is not sent any more, so of the tokens before all nothing is known (None) until the first reply behind it.
    """
    messages = [entry for entry in entries if entry.kind == "message"]
    sizes, before = _weighed(messages, prefix)
    turns: list[SentTurn] = []
    for entry, size, fits in zip(messages, sizes, _boundaries(messages), strict=True):
        if entry.message and opens_turn(entry.message):
            turns.append(SentTurn(entry.position, entry.at, size, size))
        elif turns:
            turns[-1] = _grown(turns[-1], entry, size, fits=fits)
    return turns, before


def _grown(turn: SentTurn, entry: Entry, size: int, *, fits: bool) -> SentTurn:
    rounds = turn.rounds
    if fits:
        rounds = (*rounds, Round(entry.position, size))
    elif rounds:
        rounds = (*rounds[:-1], replace(rounds[-1], tokens=rounds[-1].tokens + size))
    return replace(turn, tokens=turn.tokens + size, rounds=rounds)


def _boundaries(messages: Sequence[Entry]) -> Iterator[bool]:
    """Yield of each message whether it is a reply before which a turn may be cut: nothing is open at that point.

    A reply that paused is gone on with by the next one, and a server's tool may answer there.
    """
    uses: set[str] = set()
    previous = ""
    for entry in messages:
        message = entry.message or {}
        yield message["role"] == "assistant" and previous == "user" and not uses
        previous = message["role"]
        for block in message["content"] if isinstance(message["content"], list) else ():
            if block["type"] in ("server_tool_use", "mcp_tool_use"):
                uses.add(block["id"])
            else:
                uses.discard(block.get("tool_use_id", ""))


def _weighed(messages: Sequence[Entry], prefix: int) -> tuple[list[int], int | None]:
    """Return the tokens of each message, and those of what stands before the first.

    The usage of a reply tells the size of all up to it, so what lies between two replies is known, too.
    """
    sizes = [estimated(entry.message or {}) for entry in messages]
    before: int | None = None
    last, told = -1, None  # the last message whose context was told, and how much that was
    for index, entry in enumerate(messages):
        usage = entry.data.get("response", {}).get("usage")
        total = context_of(usage)
        if total is None:
            continue
        sizes[index] = usage.get("output_tokens", 0)
        is_new = entry.position > prefix
        if is_new and before is None:
            before = max(0, total - sum(sizes[: index + 1]))
        elif told is not None and total - sizes[index] >= told:
            sizes[last + 1 : index] = _spread(sizes[last + 1 : index], total - sizes[index] - told)
        last, told = index, total
    return sizes, before


def _spread(sizes: Sequence[int], total: int) -> list[int]:
    """Return the sizes scaled so that their sum is `total`."""
    if not sizes:
        return []
    whole = sum(sizes)
    scaled = [size * total // whole for size in sizes]
    return [*scaled[:-1], total - sum(scaled[:-1])]
