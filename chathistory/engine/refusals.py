"""What the API refused, and where that is stored: the sorting of its errors.

Only errors that name a cause within the conversation change what is sent. Four sorts:

    turn       a message of this turn, behind the last reply: it is not sent again
    earlier    something that stood before this turn's message, and was accepted once
    size       the request as a whole: too many bytes, tokens, images or pages
    container  a container of the code execution tool that the API does not know any longer

Everything else (model, tools, system prompt, parameters, betas, credit, permissions, load, network) is none of these:
nothing is marked then, and the turn can be resumed. So is what cannot be told apart.

What an error says is told in `api_errors`; here it is found where that is stored, and what becomes of the turn.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from chathistory.engine.api_errors import Cause, find_cause
from chathistory.log.active_path import ActiveEntries
from chathistory.log.entry import Entry, messages_among
from chathistory.log.events import MessageAdded, TurnOpened, TurnRefused
from chathistory.log.message_sizes import estimated
from chathistory.log.places import Place, Refusal, RefusalSort
from chathistory.messages.content import Message, blocks_of
from chathistory.view import view_of
from chathistory.view.item import ADDED

__all__ = ["Place", "Refusal", "RefusalSort", "describe_refusal", "find_refusal", "refuse_turn"]

# What becomes of the turn.


def refuse_turn(refusal: Refusal, active: ActiveEntries, turn: str) -> TurnRefused:
    """Return the event that closes a refused turn: which places are not sent again, and what they took."""
    request = SentRequest.of(active, turn)
    omitted: list[Place] = []  # of a message with results what was refused, else all that this turn said
    for place in refusal.places:
        blocks = request.blocks(place.position)
        if not any(block["type"] == "tool_result" for block in blocks):
            for position, entry in request.entries.items():  # this turn's own words behind the last reply
                is_own = position >= request.turn_start and entry.event.message["role"] == "user"
                if is_own and not _has_results(request, position):
                    omitted.append(Place(position))
        elif place.block is not None:
            omitted.append(Place(place.position, place.block))
        else:
            omitted += [Place(place.position, index) for index in range(len(blocks))]
    places, tokens = tuple(dict.fromkeys(omitted)), 0
    for place in places:
        blocks = request.blocks(place.position)
        tokens += estimated({"content": blocks if place.block is None else [blocks[place.block]]})
    return TurnRefused(places=places, tokens=tokens, why=refusal.why, refusal=refusal)


def _has_results(request: SentRequest, position: int) -> bool:
    return any(block["type"] == "tool_result" for block in request.blocks(position))


def describe_refusal(refusal: Refusal, id: str, *, goes_on: bool) -> list[str]:
    """Return what to say of a refusal: what is saved, and what to do. goes_on: an error stands for what was refused."""
    where = " or ".join(map(str, refusal.places)) if not refusal.certain else "; ".join(map(str, refusal.places))
    saved = f"the message is saved in {id!r}"
    if refusal.sort == "turn" and goes_on:
        return [
            f"{saved}; the API refused {where}: {refusal.why}",
            "`resume(id)` goes on with an error in its place, `resume(id, force=True)` sends it again",
        ]
    if refusal.sort == "turn":
        return [
            f"{saved}, and not sent again; the API refused {where}: {refusal.why}",
            "`send` something else, or `resume(id, force=True)` to send it again",
        ]
    if refusal.sort == "size":
        ways = "`conversation.trim(...)`, `engine.compact(id)` or `conversation.leave_out(position)`"
        return [
            f"{saved}; {refusal.why}; the largest that is sent: {where}",
            f"shorten it by {ways}, then `resume(id)` sends the message",
        ]
    return [
        f"{saved}; the API refused what stood before it, {where}: {refusal.why}",
        "`conversation.leave_out()` leaves that out, then `resume(id)` sends the message",
    ]


# Where that is stored.


@dataclass(frozen=True, slots=True)
class SentRequest:
    """What was sent, and where it is stored.

    messages: what was sent; kept: the position of each. entries: the stored messages by position, without what a cut
    put before them. behind: the number of the first message behind the last reply. first: the position of the first
    message of this turn behind the last reply.
    """

    messages: Sequence[Message]
    positions: Sequence[int]
    entries: Mapping[int, Entry[MessageAdded]]
    first_new: int
    turn_start: int

    @classmethod
    def of(cls, active: ActiveEntries, turn: str) -> SentRequest:
        """Return the request of a turn: its id may be that of its messages, or it was begun again for a stored one."""
        view = view_of(active)
        roles = [message["role"] for message in view.messages]
        behind = len(roles) - next((n for n, role in enumerate(reversed(roles)) if role == "assistant"), len(roles))
        entries = {entry.position: entry for entry in messages_among(active.entries)}
        reply = max((each.position for each in entries.values() if _role_of(each) == "assistant"), default=-1)
        own = [each.position for each in entries.values() if each.turn == turn]
        own += [
            each.event.question
            for each in active.entries
            if each.turn == turn and isinstance(each.event, TurnOpened) and each.event.question is not None
        ]
        first = min((position for position in own if position > reply), default=active.head.end)
        return cls(view.messages, view.report.kept, entries, behind, first)

    def blocks(self, position: int) -> list[dict[str, Any]]:
        """Return the stored content blocks of a message; [] if there is none."""
        entry = self.entries.get(position)
        return blocks_of(entry.event.message) if entry else []


def _role_of(entry: Entry[MessageAdded]) -> str:
    return str(entry.event.message["role"])


_LARGEST_NAMED = 3  # places that are named of a request that is too large


def find_refusal(error: BaseException, active: ActiveEntries | None, turn: str) -> Refusal | None:
    """Return what an error refuses of what the conversation sends; None: it is not of the sorts that are told apart."""
    cause = find_cause(error)
    if cause is None or active is None:
        return None
    request = SentRequest.of(active, turn)
    if cause.about == "container":
        return Refusal("container", cause.why, status=cause.status)
    if cause.about == "size":
        sizes = [
            (len(json.dumps(block)), Place(position, index))
            for position in dict.fromkeys(request.positions)
            for index, block in enumerate(request.blocks(position))
        ]
        largest = [place for _, place in sorted(sizes, key=lambda each: -each[0])[:_LARGEST_NAMED]]
        return Refusal("size", cause.why, places=tuple(largest), certain=False, status=cause.status)
    if cause.paths:
        return _refusal_at_paths(request, cause)
    return _refusal_by_block_type(request, cause)


def _refusal_at_paths(request: SentRequest, cause: Cause) -> Refusal | None:
    spots = [spot for path in cause.paths if (spot := _parse_path(request.messages, path))]
    found = [(spot, place) for spot in spots if (place := _find_stored_place(request, spot))]
    if not found:
        return None
    # behind the last reply, so that all that stands before it was accepted; results belong to the reply that called
    # for them, whoever stored them
    is_of_turn = all(
        spot.message >= request.first_new
        and (place.position >= request.turn_start or _has_results(request, place.position))
        for spot, place in found
    )
    sort: RefusalSort = "turn" if is_of_turn and len(found) == len(spots) else "earlier"
    return Refusal(sort, cause.why, cause.paths[0], tuple(place for _, place in found), status=cause.status)


@dataclass(frozen=True, slots=True)
class _BlockPath:
    """A place in what was sent: numbers of the message, its block, and a block within that."""

    message: int
    block: int | None = None
    inner: int | None = None


def _parse_path(messages: Sequence[Message], path: str) -> _BlockPath | None:
    """Return the place that a path of the API's leads to; None: there is no such message.

    The API merges messages of one role that follow each other; where a path does not fit, it counts the merged ones.
    """
    message, *blocks = (int(number) for number in re.findall(r"(?:messages|content)[.\[](\d+)", path))
    if message >= len(messages):
        return None
    block, inner = [*blocks, None, None][:2]
    if block is None or block < len(blocks_of(messages[message])):
        return _BlockPath(message, block, inner)
    runs: list[list[tuple[int, int]]] = []  # for each run of messages of one role, the places of its blocks
    for number, each in enumerate(messages):
        if number == 0 or messages[number - 1]["role"] != each["role"]:
            runs.append([])
        runs[-1] += [(number, index) for index in range(len(blocks_of(each)))]
    if message < len(runs) and block < len(runs[message]):
        return _BlockPath(*runs[message][block], inner)
    return _BlockPath(message)


def _find_stored_place(request: SentRequest, spot: _BlockPath) -> Place | None:
    """Return where a place of the request is stored; None: it was not stored, but added."""
    position = request.positions[spot.message]
    entry = request.entries.get(position)
    if position == ADDED:
        return None
    if entry is None or spot.block is None:  # what a cut put before the rest is stored as it is sent
        return Place(position, spot.block)
    wanted = blocks_of(request.messages[spot.message])[spot.block]
    entries = [request.entries[each] for each in sorted(request.entries)]
    here, candidates = entries.index(entry), [entry]
    for others in (entries[here + 1 :], entries[:here][::-1]):  # results may have been moved, but not past a reply
        candidates += itertools.takewhile(lambda other: _role_of(other) != "assistant", others)
    for candidate in candidates:
        index = _index_of(wanted, candidate, spot.block)
        if index is not None:
            inner = spot.inner if wanted["type"] == "tool_result" else None
            return Place(candidate.position, index, inner)
    return Place(position)


_KEYS = ("tool_use_id", "id", "signature", "data", "source", "text", "file_id", "content", "input", "thinking")


def _index_of(wanted: Mapping[str, Any], entry: Entry[MessageAdded], hint: int) -> int | None:
    """Return the index of the stored block that was sent as `wanted`: it may have been changed on the way."""
    blocks = blocks_of(entry.event.message)
    same = [index for index, block in enumerate(blocks) if block["type"] == wanted["type"]]
    for name in _KEYS:
        if name in wanted:
            alike = [index for index in same if blocks[index].get(name) == wanted[name]]
            if alike:
                return min(alike, key=lambda index: abs(index - hint))
    return same[0] if len(same) == 1 else (hint if hint in same else None)


def _refusal_by_block_type(request: SentRequest, cause: Cause) -> Refusal | None:
    """Return the refusal of a kind of block that is not named: those that came since the last reply are new."""
    places = list(_iter_matching_places(request, cause))
    reply = max((each.position for each in request.entries.values() if _role_of(each) == "assistant"), default=-1)
    new = [place for place in places if place.position > reply]
    if new and not cause.files:
        places = new
    if not places:
        return None
    own = all(
        place.position >= request.turn_start
        or request.blocks(place.position)[place.block or 0]["type"] == "tool_result"
        for place in places
    )
    sort: RefusalSort = "turn" if own and all(place in new for place in places) else "earlier"
    return Refusal(
        sort, cause.why, None, tuple(places), certain=len(places) == 1 or bool(cause.files), status=cause.status
    )


def _iter_matching_places(request: SentRequest, cause: Cause) -> Iterator[Place]:
    """Yield the places of all blocks that an error without a path may be about."""
    for position in dict.fromkeys(request.positions):
        for index, block in enumerate(request.blocks(position)):
            if _is_matching_block(block, cause):
                yield Place(position, index)
            elif block["type"] == "tool_result" and isinstance(block.get("content"), list):
                yield from (
                    Place(position, index, inner)
                    for inner, part in enumerate(block["content"])
                    if _is_matching_block(part, cause)
                )


def _is_matching_block(block: Any, cause: Cause) -> bool:
    if not isinstance(block, dict):
        return False
    if "file" not in cause.types:
        return block.get("type") in cause.types
    source = block.get("source")
    id = block.get("file_id") or (source.get("file_id") if isinstance(source, dict) else None)
    return isinstance(id, str) and (not cause.files or id in cause.files)
