"""Leaves content out of what is sent: what the API refused, or what a caller names by its position."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from chathistory.errors import ConversationNotFound, InvalidInput
from chathistory.log.active_path import ActiveEntries, load_active
from chathistory.log.conversation_log import ConversationLog
from chathistory.log.entry import Entry, is_message_entry, select_messages
from chathistory.log.events import ContentOmitted, MessageAdded, ThinkingPolicy, TurnAbandoned, TurnRefusedByAPI
from chathistory.log.lease import check_no_open_turn
from chathistory.log.message_sizes import estimate_tokens
from chathistory.log.omissions import ContentLocation, Refusal
from chathistory.log.state import ConversationHead
from chathistory.log.turn_boundaries import find_open_reply, opens_turn
from chathistory.messages.content import Message, blocks_of
from chathistory.view import ViewRepair
from chathistory.view.clean_message import count_thinking_blocks
from chathistory.view.leave_out import find_omissions, omits_whole_message

__all__ = ["leave_out", "list_refused", "make_entries_omitting_refused", "make_omission_entries", "update_last_refusal"]

_THINKING = "thinking that the API does not accept"
_OPEN_THINKING = "thinking of the open turn that is not as the API gave it"  # both as in `engine/api_errors.py`
_THINKING_TYPES = ("thinking", "redacted_thinking")


def leave_out(log: ConversationLog, position: int | None, *, block: int | None, thinking: bool) -> ConversationHead:
    """Store that something is not sent from now on, and return the new head.

    Args:
        log: The log of the conversation.
        position: The position of the message that is left out; None, without `thinking`: what the API refused last.
        block: The index of the content block that is left out; None: the whole message.
        thinking: Leave out all thinking so far.

    Raises:
        ConversationNotFound: There is no such conversation.
        InvalidInput: See `Conversation.leave_out`.
        TurnInProgress: A turn is open.
        Conflict: Another writer changed the conversation meanwhile.
    """
    with log.lock:
        active = load_active(log)
        if active is None:
            raise ConversationNotFound(log.key)
        check_no_open_turn(log.key, active.state)
        if position is None and not thinking:
            return log.append(make_entries_omitting_refused(active))
        locations = []
        if position is not None:
            message = _get_sent_messages(active).get(position)
            if message is None:
                raise InvalidInput(
                    f"position: must be the position of a message that is sent, not {position}; "
                    "`last_entries` and `chathistory show` give the positions"
                )
            last = len(blocks_of(message)) - 1
            if block is not None and not 0 <= block <= last:
                raise InvalidInput(f"block: must be between 0 and {last} for the message at position {position}")
            locations = [ContentLocation(position, block)]
        _check_open_thinking(active, locations, thinking=thinking)
        return log.append(make_omission_entries(active, locations, thinking=thinking))


def _check_open_thinking(active: ActiveEntries, locations: Sequence[ContentLocation], *, thinking: bool) -> None:
    """Raise `InvalidInput` if thinking would be left out that the API requires in the next request.

    The reply that it belongs to may be left out as a whole.
    """
    reply = find_open_reply(reversed(active.entries))
    if reply is None or reply.position < active.state.view.thinking_valid_from:
        return
    named = [location for location in locations if location.position == reply.position and location.block is not None]
    concerned = [ContentLocation(reply.position)] if thinking else named
    blocks = [block for location in concerned for block in _list_blocks(active, location)]
    if any(block["type"] in _THINKING_TYPES for block in blocks):
        raise InvalidInput(
            f"{'thinking' if thinking else 'block'}: the API requires the thinking of the reply at position "
            f"{reply.position} until its turn is complete; leave it out after Claude has answered the tool results, "
            "or leave out the whole message"
        )


def _get_sent_messages(active: ActiveEntries) -> dict[int, Message]:
    """Return the messages of the view as they are stored, by position, with the message of the newest cut."""
    cut_message = {active.cut.position: active.cut.event.message} if active.cut and active.cut.event.message else {}
    return cut_message | {entry.position: entry.event.message for entry in select_messages(active.entries)}


def _list_blocks(active: ActiveEntries, location: ContentLocation) -> list[dict[str, Any]]:
    """Return the stored blocks of a location: all blocks of its message, or one; [] if there is no such location."""
    message = _get_sent_messages(active).get(location.position)
    blocks = blocks_of(message) if message else []
    return blocks if location.block is None else blocks[location.block : location.block + 1]


# What the API refused last.


def update_last_refusal(last: Entry | None, entry: Entry) -> Entry | None:
    """Return the entry with the newest refusal of something earlier than its own turn, after one more entry is read.

    A refusal is settled once a reply was stored or something was left out.

    Args:
        last: The entry with the newest unsettled refusal so far, or None.
        entry: The next entry of the conversation.

    Returns:
        The entry with the newest unsettled refusal, or None.
    """
    if isinstance(entry.event, ContentOmitted):
        return None
    if is_message_entry(entry):
        return None if entry.event.message["role"] == "assistant" else last
    refusal = _get_refusal(entry)
    return entry if refusal and refusal.kind == "earlier" else last


def _get_refusal(entry: Entry) -> Refusal | None:
    return entry.event.refusal if isinstance(entry.event, TurnAbandoned | TurnRefusedByAPI) else None


def _find_refusal(entries: Iterable[Entry]) -> Refusal | None:
    """Return the newest unsettled refusal of something earlier than its own turn, or None."""
    last: Entry | None = None
    for entry in entries:
        last = update_last_refusal(last, entry)
    return _get_refusal(last) if last else None


def list_refused(entries: Iterable[Entry]) -> tuple[ViewRepair, ...]:
    """Return what the API refused in the last request, other than its new turn.

    Args:
        entries: The entries of the conversation, in order.

    Returns:
        A repair for each refused location; () if nothing was refused, or if it is not certain what was.
    """
    refusal = _find_refusal(entries)
    if refusal is None or not refusal.certain:
        return ()
    text = "left out: the API refused {}when it was sent last: {}"
    return tuple(
        ViewRepair(
            location.position,
            text.format("it " if location.block is None else f"block {location.block} ", refusal.problem),
        )
        for location in refusal.locations
    )


def make_entries_omitting_refused(active: ActiveEntries) -> list[Entry]:
    """Return the entries that leave out what the API refused last.

    Args:
        active: The active entries of the conversation.

    Raises:
        InvalidInput: The API refused nothing since the last reply, or it is not certain what it refused.
    """
    refusal = _find_refusal(active.entries)
    if refusal is None:
        raise InvalidInput(
            "position: must be given, because the API has refused nothing of this conversation since the last reply; "
            "name the message to leave out by its position, which `last_entries` and `chathistory show` give"
        )
    if not refusal.certain:
        words = (f"position={p.position}" + ("" if p.block is None else f" block={p.block}") for p in refusal.locations)
        raise InvalidInput(
            f"position: must be given, because the API refused one of: {'; '.join(words)}; "
            "`engine.check(id)` finds out which"
        )
    if refusal.problem == _OPEN_THINKING:
        return make_omission_entries(active, _list_open_turn_locations(active), thinking=False, why=refusal.problem)
    is_thinking = refusal.problem == _THINKING and all(
        # for a location without a block, the API named only the message
        location.block is None or all(block["type"] in _THINKING_TYPES for block in _list_blocks(active, location))
        for location in refusal.locations
    )
    return make_omission_entries(
        active, [] if is_thinking else refusal.locations, thinking=is_thinking, why=refusal.problem
    )


def _list_open_turn_locations(active: ActiveEntries) -> list[ContentLocation]:
    """Return the replies after the last question, and the messages that hold nothing but tool results for them.

    The API requires the thinking of a reply together with the results of its tool calls. If that thinking cannot be
    sent, the replies and results are left out, so that the question is sent again. If the reply before the question
    has tool calls, these are left out as well: the question took the place of their results.
    """
    omissions = find_omissions(active.entries)
    messages = [
        (at, m) for at, m in _get_sent_messages(active).items() if not omits_whole_message(omissions.get(at, ()))
    ]
    last = max((number for number, (_, message) in enumerate(messages) if opens_turn(message)), default=-1)
    locations = [
        ContentLocation(at)
        for at, message in messages[last + 1 :]
        if message["role"] == "assistant" or all(block["type"] == "tool_result" for block in blocks_of(message))
    ]
    earlier = next(((at, m) for at, m in reversed(messages[: last + 1]) if m["role"] == "assistant"), None)
    if earlier:
        position, message = earlier
        calls = enumerate(blocks_of(message))
        locations += [ContentLocation(position, index) for index, block in calls if block["type"] == "tool_use"]
    return locations


def make_omission_entries(
    active: ActiveEntries, locations: Sequence[ContentLocation], *, thinking: bool, why: str = ""
) -> list[Entry]:
    """Return the entries after which `locations` are not sent.

    The thinking of a reply is bound to everything before it. So if something before a reply is left out, the thinking
    of that reply is not sent either. If the API requires it, because a tool call waits for its result, the API is
    asked to drop it itself.

    Args:
        active: The active entries of the conversation.
        locations: What to leave out: messages, or single blocks.
        thinking: Leave out all thinking so far, too.
        why: The reason that is stored, without message text.
    """
    replies = [position for position, message in _get_sent_messages(active).items() if message["role"] == "assistant"]
    first = min((location.position for location in locations), default=active.head.end)
    is_cut_message = active.cut is not None and first == active.cut.position
    invalidates = is_cut_message or any(position > first for position in replies)
    event = ContentOmitted(
        locations=tuple(locations),
        tokens=sum(estimate_tokens({"content": _list_blocks(active, location)}) for location in locations),
        problem=why,
        invalidates_thinking=invalidates,
        omits_all_thinking=thinking,
    )
    reply: Entry[MessageAdded] | None = find_open_reply(reversed(active.entries))
    is_thinking_required = reply is not None and count_thinking_blocks(reply.event.message) > 0
    if invalidates and not thinking and not active.state.view.drop_stale_thinking and is_thinking_required:
        return [Entry(ThinkingPolicy(drop_stale_thinking=True)), Entry(event)]
    return [Entry(event)]
