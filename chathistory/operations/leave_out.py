"""Leaving out by hand: what the API refuses of a conversation, or what somebody wants it to go on without."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from chathistory.errors import ConversationNotFound, InvalidInput
from chathistory.log.active_path import ActiveEntries, load_active
from chathistory.log.conversation_log import ConversationLog
from chathistory.log.entry import Entry, is_message_entry, messages_among
from chathistory.log.events import ContentOmitted, MessageAdded, ThinkingPolicy, TurnAbandoned, TurnRefused
from chathistory.log.lease import check_free
from chathistory.log.message_sizes import estimated
from chathistory.log.places import Place, Refusal
from chathistory.log.state import ConversationHead
from chathistory.log.turn_boundaries import find_open_reply, opens_turn
from chathistory.messages.content import Message, blocks_of
from chathistory.view import ViewRepair
from chathistory.view.clean_message import count_thoughts
from chathistory.view.leave_out import find_omissions, is_whole

__all__ = ["leave_out", "list_refused", "make_omission_entries", "make_refusal_entries", "update_last_refusal"]

_THINKING = "thinking that the API does not accept"
_OPEN_THINKING = "thinking of the open turn that is not as the API gave it"
_THINKING_TYPES = ("thinking", "redacted_thinking")


def leave_out(log: ConversationLog, position: int | None, *, block: int | None, thinking: bool) -> ConversationHead:
    """Store that something is not sent from now on; see `Conversation.leave_out`."""
    with log.lock:
        sent = load_active(log)
        if sent is None:
            raise ConversationNotFound(log.key)
        check_free(log.key, sent.state)
        if position is None and not thinking:
            return log.append(make_refusal_entries(sent))
        places = []
        if position is not None:
            message = _get_sent_messages(sent).get(position)
            if message is None:
                raise InvalidInput(f"position: must be that of a message that is sent, not {position}")
            last = len(blocks_of(message)) - 1
            if block is not None and not 0 <= block <= last:
                raise InvalidInput(f"block: must be between 0 and {last} for the message at position {position}")
            places = [Place(position, block)]
        _check_open_thinking(sent, places, thinking=thinking)
        return log.append(make_omission_entries(sent, places, thinking=thinking))


def _check_open_thinking(active: ActiveEntries, places: Sequence[Place], *, thinking: bool) -> None:
    """Raise `InvalidInput` if thinking would be left out that the API wants back with the next request.

    The reply that it belongs to may be left out as a whole.
    """
    reply = find_open_reply(reversed(active.entries))
    if reply is None or reply.position < active.state.view.thinking_valid_from:
        return
    named = [place for place in places if place.position == reply.position and place.block is not None]
    concerned = [Place(reply.position)] if thinking else named
    blocks = [block for place in concerned for block in _list_blocks(active, place)]
    if any(block["type"] in _THINKING_TYPES for block in blocks):
        raise InvalidInput(
            f"{'thinking' if thinking else 'block'}: the API wants the thinking of the reply at position "
            f"{reply.position} back until its turn is complete; leave it out when Claude has answered the results of "
            "its tools, or leave out that message as a whole"
        )


def _get_sent_messages(active: ActiveEntries) -> dict[int, Message]:
    """Return the messages of the view as they are stored, by position, with what a cut put before them."""
    lead = {active.cut.position: active.cut.event.message} if active.cut and active.cut.event.message else {}
    return lead | {entry.position: entry.event.message for entry in messages_among(active.entries)}


def _list_blocks(active: ActiveEntries, place: Place) -> list[dict[str, Any]]:
    """Return the stored blocks of a place: all of its message, or one; [] if there is no such place."""
    message = _get_sent_messages(active).get(place.position)
    blocks = blocks_of(message) if message else []
    return blocks if place.block is None else blocks[place.block : place.block + 1]


# What the API refused last.


def update_last_refusal(last: Entry | None, entry: Entry) -> Entry | None:
    """Return the entry that has the last refusal of something that stood before its turn, after one more entry.

    It is over once a reply came, or something was left out.

    Args:
        last: That entry before this one; None: there was none.
        entry: The next one of the conversation.
    """
    if isinstance(entry.event, ContentOmitted):
        return None
    if is_message_entry(entry):
        return None if entry.event.message["role"] == "assistant" else last
    refusal = _get_refusal(entry)
    return entry if refusal and refusal.sort == "earlier" else last


def _get_refusal(entry: Entry) -> Refusal | None:
    return entry.event.refusal if isinstance(entry.event, TurnAbandoned | TurnRefused) else None


def _find_refusal(entries: Iterable[Entry]) -> Refusal | None:
    """Return the last refusal for something that stood before, unless that is over."""
    found: Entry | None = None
    for entry in entries:
        found = update_last_refusal(found, entry)
    return _get_refusal(found) if found else None


def list_refused(entries: Iterable[Entry]) -> tuple[ViewRepair, ...]:
    """Return what the API refused of what stood before, when it was sent last; () if that is not known for certain."""
    refusal = _find_refusal(entries)
    if refusal is None or not refusal.certain:
        return ()
    what = "left out: the API refused {}when it was sent last: {}"
    return tuple(
        ViewRepair(place.position, what.format("it " if place.block is None else f"block {place.block} ", refusal.why))
        for place in refusal.places
    )


def make_refusal_entries(active: ActiveEntries) -> list[Entry]:
    """Return the entries that leave out what the API refused last. Raises `InvalidInput` if it refused nothing."""
    refusal = _find_refusal(active.entries)
    if refusal is None:
        raise InvalidInput("position: must be given; the API refused nothing of this conversation since the last reply")
    if not refusal.certain:
        words = (f"position={p.position}" + ("" if p.block is None else f" block={p.block}") for p in refusal.places)
        raise InvalidInput(
            f"position: must be given, for what the API refused is one of: {'; '.join(words)}; "
            "`engine.check(id)` finds which"
        )
    if refusal.why == _OPEN_THINKING:
        return make_omission_entries(active, _list_open_round(active), thinking=False, why=refusal.why)
    is_thinking = refusal.why == _THINKING and all(
        # of a place without a block the API named only the message
        place.block is None or all(block["type"] in _THINKING_TYPES for block in _list_blocks(active, place))
        for place in refusal.places
    )
    return make_omission_entries(active, [] if is_thinking else refusal.places, thinking=is_thinking, why=refusal.why)


def _list_open_round(active: ActiveEntries) -> list[Place]:
    """Return the replies behind the last question, and the messages that hold nothing but results for them.

    The API wants the thinking of a reply back when the results of its calls are sent. Where it cannot have that, the
    question is asked again; of a reply before it whose calls got words in place of results, the calls are left out.
    """
    omissions = find_omissions(active.entries)
    messages = [(at, m) for at, m in _get_sent_messages(active).items() if not is_whole(omissions.get(at, ()))]
    last = max((number for number, (_, message) in enumerate(messages) if opens_turn(message)), default=-1)
    places = [
        Place(at)
        for at, message in messages[last + 1 :]
        if message["role"] == "assistant" or all(block["type"] == "tool_result" for block in blocks_of(message))
    ]
    earlier = next(((at, m) for at, m in reversed(messages[: last + 1]) if m["role"] == "assistant"), None)
    if earlier:
        position, message = earlier
        calls = enumerate(blocks_of(message))
        places += [Place(position, index) for index, block in calls if block["type"] == "tool_use"]
    return places


def make_omission_entries(
    active: ActiveEntries, places: Sequence[Place], *, thinking: bool, why: str = ""
) -> list[Entry]:
    """Return the entries after which `places`, or with `thinking` all thinking so far, is not sent.

    What is left out from before a reply changes what the thinking of that reply is bound to, so that is not sent
    either. If the API wants it back, for a tool waits for its result, it is asked to drop it itself.
    """
    replies = [position for position, message in _get_sent_messages(active).items() if message["role"] == "assistant"]
    first = min((place.position for place in places), default=active.head.end)
    is_lead = active.cut is not None and first == active.cut.position
    invalidates = is_lead or any(position > first for position in replies)
    event = ContentOmitted(
        places=tuple(places),
        tokens=sum(estimated({"content": _list_blocks(active, place)}) for place in places),
        why=why,
        invalidates_thinking=invalidates,
        all_thinking=thinking,
    )
    reply: Entry[MessageAdded] | None = find_open_reply(reversed(active.entries))
    is_wanted = reply is not None and count_thoughts(reply.event.message) > 0
    if invalidates and not thinking and not active.state.view.drop_block and is_wanted:
        return [Entry(ThinkingPolicy(drop_block=True)), Entry(event)]
    return [Entry(event)]
