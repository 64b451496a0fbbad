"""Ask the API whether a conversation can be sent, and find the block that it refuses, by counting tokens.

Counting is free of charge and validates a request as sending does. If the API names the place, that is the result. Else
a binary search finds it: first the shortest beginning of the conversation that is refused, then the block within the
messages that this beginning adds. The number of requests grows with the logarithm of the conversation's length.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import replace
from typing import Any, TypeAlias, TypeVar

from chathistory.engine.api_errors import describe_cause, find_cause
from chathistory.engine.refusals import ContentLocation, Refusal, find_refusal
from chathistory.log.active_path import ActiveEntries
from chathistory.log.entry import Entry, is_message_entry, select_messages
from chathistory.log.events import ContentOmitted, MessageAdded
from chathistory.messages.content import Message, blocks_of
from chathistory.view import build_active_view

__all__ = ["find_refused_place"]

R = TypeVar("R")
Call: TypeAlias = "Callable[[], Any]"
Flow: TypeAlias = "Generator[Call, Any, R]"

_REFUSAL_STATUSES = frozenset({400, 404, 413, 422})
_DUMMY_MESSAGE = {"role": "user", "content": "."}


def find_refused_place(active: ActiveEntries, count: Callable[[list[Message]], Call]) -> Flow[Refusal | None]:
    """Ask the API about a conversation, and return what it refuses.

    Args:
        active: The active entries of the conversation.
        count: Returns the call that counts the tokens of the given messages.

    Returns:
        A flow (see `engine.flows`) that returns the refusal; None if the API accepts everything.

    Raises:
        Exception: The SDK's error, if the API was not reached, or would refuse the request with any messages.
    """

    def ask(messages: list[Message]) -> Flow[Exception | None]:
        try:
            yield count(messages)
        except Exception as error:
            if (
                getattr(error, "status_code", None) not in _REFUSAL_STATUSES
            ):  # the API was not reached, or access was denied
                raise
            return error
        return None

    # a request must not end with a reply, so a short message is added
    checked = replace(active, entries=[*active.entries, Entry(MessageAdded(_DUMMY_MESSAGE), position=active.head.end)])
    error = yield from ask(build_active_view(checked).messages)
    if error is None:
        return None
    refusal = find_refusal(error, checked, "")
    if refusal is not None and (refusal.kind == "size" or (refusal.locations and refusal.certain)):
        return replace(refusal, kind="earlier") if refusal.kind == "turn" else refusal  # no turn is being sent here
    if (yield from ask([_DUMMY_MESSAGE])) is None:
        accepted, refused = yield from _find_shortest_refused(checked, ask)
        places = yield from _find_refused_blocks(accepted, refused, ask)
        if places:
            cause = find_cause(error)
            why, status = cause.why if cause else describe_cause(error), getattr(error, "status_code", None)
            return Refusal("earlier", why, None, tuple(places), certain=True, status=status)
    raise error


Ask: TypeAlias = "Callable[[list[Message]], Flow[Exception | None]]"


def _find_shortest_refused(active: ActiveEntries, ask: Ask) -> Flow[tuple[ActiveEntries, ActiveEntries]]:
    """Return the longest beginning that is accepted, and the next longer one, which is refused.

    A beginning ends with a user's message before a reply. It has all messages up to there, and all entries that change
    how they are sent.
    """
    messages = select_messages(active.entries)
    ends = [
        entry.position
        for entry, following in zip(messages, [*messages[1:], None], strict=True)
        if not _is_reply(entry) and (following is None or _is_reply(following))
    ]
    beginnings = [
        replace(active, entries=[each for each in active.entries if not is_message_entry(each) or each.position <= end])
        for end in ends
    ]
    low, high = -1, len(beginnings) - 1  # the last one is refused; an empty one (-1) is accepted
    while high - low > 1:
        middle = (low + high) // 2
        error = yield from ask(build_active_view(beginnings[middle]).messages)
        low, high = (middle, high) if error is None else (low, middle)
    accepted = beginnings[low] if low >= 0 else replace(active, entries=[], cut=None)
    return accepted, beginnings[high]


def _is_reply(entry: Entry[MessageAdded]) -> bool:
    return bool(entry.event.message["role"] == "assistant")


def _find_refused_blocks(accepted: ActiveEntries, refused: ActiveEntries, ask: Ask) -> Flow[list[ContentLocation]]:
    """Return the refused block among those that one beginning adds to another, by leaving out halves; [] if none."""
    known = {entry.position for entry in select_messages(accepted.entries)}
    places = [
        ContentLocation(entry.position, index)
        for entry in select_messages(refused.entries)
        if entry.position not in known and entry.position < refused.head.end
        for index in range(len(blocks_of(entry.event.message)))
    ]
    if refused.cut and refused.cut.event.message and not known:
        count_of_cut = len(blocks_of(refused.cut.event.message))
        places = [ContentLocation(refused.cut.position, index) for index in range(count_of_cut)] + places
    dropped: list[ContentLocation] = []
    while len(places) > 1:
        half = places[: len(places) // 2]
        omitted = ContentOmitted(
            locations=(*dropped, *half), tokens=0, invalidates_thinking=False, omits_all_thinking=False
        )
        left_out: Entry = Entry(omitted, position=refused.head.end + 1)
        messages = build_active_view(replace(refused, entries=[*refused.entries, left_out])).messages
        if not messages or messages[-1]["role"] == "assistant":
            messages = [*messages, _DUMMY_MESSAGE]
        if (yield from ask(messages)) is None:
            places = half
        else:  # if this half has a refused block, too, the next check finds it
            dropped, places = [*dropped, *half], places[len(half) :]
    return places
