"""Asking the API whether a conversation can be sent, and where it cannot: by counting tokens, which costs nothing.

Counting validates a request as sending does. If the API names the place, that is it. Else the place is found by
bisection: first the shortest beginning of the conversation that is refused, then the block within what that adds. Each
question is one request, and there are about as many as the conversation has doublings.

The questions are the same for both engines: a generator yields the messages to ask about, and is sent the error, or
None if they are accepted.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import replace
from typing import TypeAlias

from chathistory.engine.api_errors import named, why_of
from chathistory.engine.refusals import Place, Refusal, find_refusal
from chathistory.log.active_path import ActiveEntries
from chathistory.log.entry import Entry, is_message_entry, messages_among
from chathistory.log.events import ContentOmitted, MessageAdded
from chathistory.messages.content import Message, blocks_of
from chathistory.view import view_of

__all__ = ["Answer", "Questions", "is_refusal", "questions"]

Answer: TypeAlias = "Exception | None"
Questions: TypeAlias = "Generator[list[Message], Answer, Refusal | None]"

_REFUSALS = frozenset({400, 404, 413, 422})
_SPOKEN = {"role": "user", "content": "."}


def is_refusal(error: BaseException) -> bool:
    """Whether an error says that the API does not accept the request, and not that it was not reached or allowed."""
    return getattr(error, "status_code", None) in _REFUSALS


def questions(sent: ActiveEntries) -> Questions:
    """Ask about the conversation; return what is refused of it, None: nothing is."""
    whole = _spoken(sent)
    error = yield view_of(whole).messages
    if error is None:
        return None
    refusal = find_refusal(error, whole, "")
    if refusal is not None and (refusal.sort == "size" or (refusal.places and refusal.certain)):
        return _earlier(refusal)
    alone = yield [_SPOKEN]
    if alone is not None:
        return None  # it is not the messages: the caller has the error
    refused = yield from _shortest_refused(whole)
    place = yield from _place_in(refused, error)
    return place


def _earlier(refusal: Refusal) -> Refusal:
    """Return a refusal as one of what is stored: there is no turn that is being sent."""
    return replace(refusal, sort="earlier") if refusal.sort == "turn" else refusal


def _spoken(sent: ActiveEntries) -> ActiveEntries:
    """Return what would be sent with the next message: a request must not end with a reply."""
    return replace(sent, entries=[*sent.entries, Entry(MessageAdded(_SPOKEN), position=sent.head.end)])


def _shortest_refused(sent: ActiveEntries) -> Generator[list[Message], Answer, list[ActiveEntries]]:
    """Return the longest beginning that is accepted and the next longer one, which is not."""
    beginnings = _beginnings(sent)
    low, high = -1, len(beginnings) - 1  # the last one is refused; of none, nothing is
    while high - low > 1:
        middle = (low + high) // 2
        error = yield view_of(beginnings[middle]).messages
        low, high = (middle, high) if error is None else (low, middle)
    accepted = beginnings[low] if low >= 0 else replace(sent, entries=[], cut=None)
    return [accepted, beginnings[high]]


def _beginnings(sent: ActiveEntries) -> list[ActiveEntries]:
    """Return the beginnings of a conversation that end with a user's message before a reply, shortest first."""
    entries = messages_among(sent.entries)
    ends = [
        entry.position
        for entry, behind in zip(entries, [*entries[1:], None], strict=True)
        if not _is_reply(entry) and (behind is None or _is_reply(behind))
    ]
    return [replace(sent, entries=[each for each in sent.entries if _belongs(each, end)]) for end in ends]


def _belongs(entry: Entry, end: int) -> bool:
    """Whether an entry belongs to a beginning: what is said up to there, and all that changes what is sent of it."""
    return not is_message_entry(entry) or entry.position <= end


def _is_reply(entry: Entry[MessageAdded]) -> bool:
    return bool(entry.event.message["role"] == "assistant")


def _place_in(pair: Sequence[ActiveEntries], error: Exception) -> Generator[list[Message], Answer, Refusal | None]:
    """Return the refusal of the block that the second of two beginnings adds, by leaving out halves of them."""
    accepted, refused = pair
    known = {entry.position for entry in messages_among(accepted.entries)}
    places = [
        Place(entry.position, index)
        for entry in messages_among(refused.entries)
        if entry.position not in known and entry.position < refused.head.end
        for index in range(len(blocks_of(entry.event.message)))
    ]
    lead = refused.cut.event.message if refused.cut else None
    if refused.cut and lead and not known:
        places = [Place(refused.cut.position, index) for index in range(len(blocks_of(lead)))] + places
    gone: list[Place] = []
    while len(places) > 1:
        half = places[: len(places) // 2]
        without = yield _without(refused, [*gone, *half])
        if without is None:
            places = half
        else:  # what is wrong in this half, too, is found the next time
            gone, places = [*gone, *half], places[len(half) :]
    if not places:
        return None
    told = named(error)
    why = told.why if told else why_of(error)
    return Refusal("earlier", why, None, tuple(places), certain=True, status=getattr(error, "status_code", None))


def _without(sent: ActiveEntries, places: Sequence[Place]) -> list[Message]:
    """Return the messages as they would be sent if something were left out."""
    omitted = tuple(Place(place.position, place.block) for place in places)
    event = ContentOmitted(places=omitted, tokens=0, invalidates_thinking=False, all_thinking=False)
    left_out: Entry = Entry(event, position=sent.head.end + 1)
    messages = view_of(replace(sent, entries=[*sent.entries, left_out])).messages
    return messages if messages and messages[-1]["role"] != "assistant" else [*messages, _SPOKEN]
