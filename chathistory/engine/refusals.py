"""Classify what the API refused, and find where it is stored.

An error that is blamed on the conversation has one of four kinds. Only `turn` leaves content out of later requests:

    turn       a message of this turn, after the last reply: it is not sent again
    earlier    a message before this turn, which the API accepted once
    size       the request as a whole: too many bytes, tokens, images or pages
    container  a container of the code execution tool that the API no longer knows

All other errors (model, tools, system prompt, parameters, betas, credit, permissions, load, network), and errors that
cannot be classified, mark nothing: the turn can be resumed.

`api_errors` finds the cause of an error; this module finds where it is stored, and what happens to the turn.
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
from chathistory.log.entry import Entry, select_messages
from chathistory.log.events import MessageAdded, TurnOpened, TurnRefusedByAPI
from chathistory.log.message_sizes import estimate_tokens
from chathistory.log.omissions import ContentLocation, Refusal, RefusalKind
from chathistory.messages.content import Message, blocks_of
from chathistory.view import build_active_view
from chathistory.view.item import ADDED

__all__ = ["ContentLocation", "Refusal", "RefusalKind", "describe_refusal", "find_refusal", "make_turn_refused_event"]

# What happens to the turn.


def make_turn_refused_event(refusal: Refusal, active: ActiveEntries, turn: str) -> TurnRefusedByAPI:
    """Return the event that closes a refused turn.

    Args:
        refusal: What the API refused.
        active: The active entries that were sent.
        turn: The id of the turn.

    Returns:
        An event with the places that are not sent again, and their estimated size in tokens.
    """
    request = SentRequest.of(active, turn)
    # Of a message with results, only the refused blocks are omitted; otherwise all messages of this turn.
    omitted: list[ContentLocation] = []
    for place in refusal.locations:
        blocks = request.blocks(place.position)
        if not any(block["type"] == "tool_result" for block in blocks):
            for position, entry in request.entries.items():  # this turn's messages after the last reply
                is_own = position >= request.turn_start and entry.event.message["role"] == "user"
                if is_own and not _has_results(request, position):
                    omitted.append(ContentLocation(position))
        elif place.block is not None:
            omitted.append(ContentLocation(place.position, place.block))
        else:
            omitted += [ContentLocation(place.position, index) for index in range(len(blocks))]
    places, tokens = tuple(dict.fromkeys(omitted)), 0
    for place in places:
        blocks = request.blocks(place.position)
        tokens += estimate_tokens({"content": blocks if place.block is None else [blocks[place.block]]})
    return TurnRefusedByAPI(locations=places, tokens=tokens, problem=refusal.problem, refusal=refusal)


def _has_results(request: SentRequest, position: int) -> bool:
    return any(block["type"] == "tool_result" for block in request.blocks(position))


def describe_refusal(refusal: Refusal, id: str, *, goes_on: bool) -> list[str]:
    """Return the notes for the error of a refused turn: what is saved, and what to do next.

    Args:
        refusal: What the API refused.
        id: The conversation's id.
        goes_on: Whether the turn can continue, because an error is sent in place of a refused tool result.

    Returns:
        Two sentences.
    """
    where = " or ".join(map(str, refusal.locations)) if not refusal.certain else "; ".join(map(str, refusal.locations))
    saved = f"the message is saved in {id!r}"
    if refusal.kind == "turn" and goes_on:
        return [
            f"{saved}; the API refused {where}: {refusal.problem}",
            "`resume(id)` continues with an error in its place, `resume(id, force=True)` sends it again",
        ]
    if refusal.kind == "turn":
        return [
            f"{saved}, but is not sent again; the API refused {where}: {refusal.problem}",
            "`send` another message, or call `resume(id, force=True)` to send it again",
        ]
    if refusal.kind == "size":
        ways = "`conversation.trim(...)`, `engine.compact(id)` or `conversation.leave_out(position)`"
        return [
            f"{saved}; {refusal.problem}; the largest blocks: {where}",
            f"shorten the conversation with {ways}; then `resume(id)` sends the message",
        ]
    return [
        f"{saved}; the API refused an earlier message, {where}: {refusal.problem}",
        "`conversation.leave_out()` leaves that out; then `resume(id)` sends the message",
    ]


# Where the refused block is stored.


@dataclass(frozen=True, slots=True)
class SentRequest:
    """The messages of a request, and where they are stored.

    Attributes:
        messages: The messages that were sent.
        positions: The position of each of them.
        entries: The stored messages by position, without the summary that a cut puts before them.
        first_new: The index in `messages` of the first one after the last reply.
        turn_start: The position of the first message of this turn after the last reply.
    """

    messages: Sequence[Message]
    positions: Sequence[int]
    entries: Mapping[int, Entry[MessageAdded]]
    first_new: int
    turn_start: int

    @classmethod
    def of(cls, active: ActiveEntries, turn: str) -> SentRequest:
        """Reconstruct the request that a turn sent.

        The turn has stored messages with its id, or was reopened for a message that is stored already.

        Args:
            active: The active entries that were sent.
            turn: The id of the turn.

        Returns:
            The request.
        """
        view = build_active_view(active)
        roles = [message["role"] for message in view.messages]
        since_reply = next((n for n, role in enumerate(reversed(roles)) if role == "assistant"), len(roles))
        first_new = len(roles) - since_reply
        entries = {entry.position: entry for entry in select_messages(active.entries)}
        reply = max((each.position for each in entries.values() if _role_of(each) == "assistant"), default=-1)
        own = [each.position for each in entries.values() if each.turn == turn]
        own += [
            each.event.question_position
            for each in active.entries
            if each.turn == turn and isinstance(each.event, TurnOpened) and each.event.question_position is not None
        ]
        turn_start = min((position for position in own if position > reply), default=active.head.end)
        return cls(view.messages, view.report.kept, entries, first_new, turn_start)

    def blocks(self, position: int) -> list[dict[str, Any]]:
        """Return the stored content blocks of a message.

        Args:
            position: The position of the message.

        Returns:
            Its blocks; [] if no message is stored at this position.
        """
        entry = self.entries.get(position)
        return blocks_of(entry.event.message) if entry else []


def _role_of(entry: Entry[MessageAdded]) -> str:
    return str(entry.event.message["role"])


_MAX_NAMED_BLOCKS = 3  # how many of the largest blocks are named if a request is too large


def find_refusal(error: BaseException, active: ActiveEntries | None, turn: str) -> Refusal | None:
    """Return what an API error refuses of a conversation.

    Args:
        error: An exception of the SDK.
        active: The active entries that were sent; None: the conversation does not exist.
        turn: The id of the turn that sent them; "" if no turn is being sent.

    Returns:
        The refusal; None if the error is not of one of the four kinds.
    """
    cause = find_cause(error)
    if cause is None or active is None:
        return None
    request = SentRequest.of(active, turn)
    if cause.about == "container":
        return Refusal("container", cause.why, status=cause.status)
    if cause.about == "size":
        sizes = [
            (len(json.dumps(block)), ContentLocation(position, index))
            for position in dict.fromkeys(request.positions)
            for index, block in enumerate(request.blocks(position))
        ]
        largest = [place for _, place in sorted(sizes, key=lambda each: -each[0])[:_MAX_NAMED_BLOCKS]]
        return Refusal("size", cause.why, locations=tuple(largest), certain=False, status=cause.status)
    if cause.paths:
        return _refusal_at_paths(request, cause)
    return _refusal_by_block_type(request, cause)


def _refusal_at_paths(request: SentRequest, cause: Cause) -> Refusal | None:
    paths = [path for text in cause.paths if (path := _parse_path(request.messages, text))]
    located = [(path, place) for path in paths if (place := _find_stored_place(request, path))]
    if not located:
        return None
    # Only what is after the last reply is new: the API accepted everything before it. Results count as part of this
    # turn whoever stored them.
    is_of_turn = all(
        path.message >= request.first_new
        and (place.position >= request.turn_start or _has_results(request, place.position))
        for path, place in located
    )
    kind: RefusalKind = "turn" if is_of_turn and len(located) == len(paths) else "earlier"
    return Refusal(kind, cause.why, cause.paths[0], tuple(place for _, place in located), status=cause.status)


@dataclass(frozen=True, slots=True)
class _BlockPath:
    """A place in a request.

    Attributes:
        message: The index of the message.
        block: The index of the content block; None: the whole message.
        inner: The index of a block within the content of that block; None: the whole block.
    """

    message: int
    block: int | None = None
    inner: int | None = None


def _parse_path(messages: Sequence[Message], path: str) -> _BlockPath | None:
    """Return the place in the request to which a path of the API refers; None if there is no such message.

    The API merges consecutive messages of the same role. A path that does not fit the messages as they were sent is
    read as a path in the merged ones.
    """
    message, *blocks = (int(number) for number in re.findall(r"(?:messages|content)[.\[](\d+)", path))
    if message >= len(messages):
        return None
    block, inner = [*blocks, None, None][:2]
    if block is None or block < len(blocks_of(messages[message])):
        return _BlockPath(message, block, inner)
    runs: list[list[tuple[int, int]]] = []  # for each run of messages of one role: (message, block) of its blocks
    for number, each in enumerate(messages):
        if number == 0 or messages[number - 1]["role"] != each["role"]:
            runs.append([])
        runs[-1] += [(number, index) for index in range(len(blocks_of(each)))]
    if message < len(runs) and block < len(runs[message]):
        return _BlockPath(*runs[message][block], inner)
    return _BlockPath(message)


def _find_stored_place(request: SentRequest, path: _BlockPath) -> ContentLocation | None:
    """Return where a place of the request is stored; None if the view added it."""
    position = request.positions[path.message]
    entry = request.entries.get(position)
    if position == ADDED:
        return None
    if entry is None or path.block is None:  # the summary of a cut is stored as it is sent
        return ContentLocation(position, path.block)
    wanted = blocks_of(request.messages[path.message])[path.block]
    entries = [request.entries[each] for each in sorted(request.entries)]
    own_index, candidates = entries.index(entry), [entry]
    for others in (entries[own_index + 1 :], entries[:own_index][::-1]):  # the view moves results, but not past a reply
        candidates += itertools.takewhile(lambda other: _role_of(other) != "assistant", others)
    for candidate in candidates:
        index = _index_of(wanted, candidate, path.block)
        if index is not None:
            inner = path.inner if wanted["type"] == "tool_result" else None
            return ContentLocation(candidate.position, index, inner)
    return ContentLocation(position)


_KEYS = ("tool_use_id", "id", "signature", "data", "source", "text", "file_id", "content", "input", "thinking")


def _index_of(wanted: Mapping[str, Any], entry: Entry[MessageAdded], hint: int) -> int | None:
    """Return the index of the stored block that was sent as `wanted`; the view may have changed the block."""
    blocks = blocks_of(entry.event.message)
    same = [index for index, block in enumerate(blocks) if block["type"] == wanted["type"]]
    for name in _KEYS:
        if name in wanted:
            alike = [index for index in same if blocks[index].get(name) == wanted[name]]
            if alike:
                return min(alike, key=lambda index: abs(index - hint))
    return same[0] if len(same) == 1 else (hint if hint in same else None)


def _refusal_by_block_type(request: SentRequest, cause: Cause) -> Refusal | None:
    """Return the refusal for an error without a path: the blocks of its types, if possible only blocks of this turn."""
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
    kind: RefusalKind = "turn" if own and all(place in new for place in places) else "earlier"
    return Refusal(
        kind, cause.why, None, tuple(places), certain=len(places) == 1 or bool(cause.files), status=cause.status
    )


def _iter_matching_places(request: SentRequest, cause: Cause) -> Iterator[ContentLocation]:
    """Yield the places of all blocks that an error without a path can be about."""
    for position in dict.fromkeys(request.positions):
        for index, block in enumerate(request.blocks(position)):
            if _is_matching_block(block, cause):
                yield ContentLocation(position, index)
            elif block["type"] == "tool_result" and isinstance(block.get("content"), list):
                yield from (
                    ContentLocation(position, index, inner)
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
