"""Leaving out by hand: what the API refuses of a conversation, or what somebody wants it to go on without."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from chathistory.errors import ConversationNotFound, InvalidInput
from chathistory.log.active_path import ActiveEntries, on_path
from chathistory.log.conversation_log import ConversationLog
from chathistory.log.entry import Entry
from chathistory.log.lease import check_free
from chathistory.log.message_sizes import estimated
from chathistory.log.omissions import Omission, is_whole, omissions_in
from chathistory.log.reducers import open_reply, opens_turn
from chathistory.messages.content import blocks_of
from chathistory.storage.store import Head
from chathistory.view import ViewRepair
from chathistory.view.clean_message import thoughts

__all__ = ["left_out", "next_refusal", "omission_entries", "refusal_entries", "refused_places"]

_THINKING = "thinking that the API does not accept"
_OPEN_THINKING = "thinking of the open turn that is not as the API gave it"


def left_out(log: ConversationLog, position: int | None, *, block: int | None, thinking: bool) -> Head:
    """Store that something is not sent from now on; see `Conversation.leave_out`."""
    with log.lock:
        sent = on_path(log)
        if sent is None:
            raise ConversationNotFound(log.key)
        check_free(log.key, sent.summary)
        if position is None and not thinking:
            return log.append(refusal_entries(sent))
        places = [] if position is None else [_checked(sent, position, block)]
        _check_open_thinking(sent, places, thinking=thinking)
        return log.append(omission_entries(sent, places, thinking=thinking))


def _checked(sent: ActiveEntries, position: int, block: int | None) -> Omission:
    """Return the place if there is a message, and in it such a block. Raises `InvalidInput`."""
    message = next((each.message for each in _there(sent) if each.position == position), None)
    if message is None:
        raise InvalidInput(f"position: must be that of a message that is sent, not {position}")
    if block is not None and not 0 <= block < len(blocks_of(message)):
        raise InvalidInput(
            f"block: must be between 0 and {len(blocks_of(message)) - 1} for the message at position {position}"
        )
    return Omission(position, block)


def _check_open_thinking(sent: ActiveEntries, places: Sequence[Omission], *, thinking: bool) -> None:
    """Raise `InvalidInput` if thinking would be left out that the API wants back with the next request.

    The reply that it belongs to may be left out as a whole.
    """
    reply = open_reply(reversed(sent.entries))
    if reply is None or reply.position < sent.summary.thinking_from:
        return
    named = [place for place in places if place.position == reply.position and not is_whole([place])]
    found = (
        _blocks(sent, Omission(reply.position)) if thinking else [b for place in named for b in _blocks(sent, place)]
    )
    if any(block["type"] in ("thinking", "redacted_thinking") for block in found):
        raise InvalidInput(
            f"{'thinking' if thinking else 'block'}: the API wants the thinking of the reply at position "
            f"{reply.position} back until its turn is complete; leave it out when Claude has answered the results of "
            "its tools, or leave out that message as a whole"
        )


def _there(sent: ActiveEntries) -> list[Entry]:
    """Return the messages of the view, with what a cut put before them."""
    lead = [sent.cut] if sent.cut and sent.cut.message else []
    return [*lead, *(entry for entry in sent.entries if entry.kind == "message")]


def _open_refusal(entries: Sequence[Entry]) -> Entry | None:
    """Return the entry that tells of the last refusal for something that stood before, unless that is over.

    It is over once a reply came, or something was left out.
    """
    found: Entry | None = None
    for entry in entries:
        found = next_refusal(found, entry)
    return found


def next_refusal(found: Entry | None, entry: Entry) -> Entry | None:
    """Return the entry that tells of the last refusal, after one more entry; `found`: before it."""
    if entry.kind == "omitted" or (entry.kind == "message" and (entry.message or {}).get("role") == "assistant"):
        return None
    return entry if entry.data.get("refusal", {}).get("sort") == "earlier" else found


def refused_places(sent: ActiveEntries) -> tuple[ViewRepair, ...]:
    """Return what the API refused of what stood before, when it was sent last; () if that is not known for certain."""
    found = _open_refusal(sent.entries)
    if found is None or not found.data["refusal"]["certain"]:
        return ()
    refusal = found.data["refusal"]
    what = "left out: the API refused {}when it was sent last: {}"
    return tuple(
        ViewRepair(position, what.format("it " if block is None else f"block {block} ", refusal["why"]))
        for position, block, _ in refusal["places"]
    )


def refusal_entries(sent: ActiveEntries) -> list[Entry]:
    """Return the entries that leave out what the API refused last. Raises `InvalidInput` if it refused nothing."""
    found = _open_refusal(sent.entries)
    if found is None:
        raise InvalidInput("position: must be given; the API refused nothing of this conversation since the last reply")
    refusal = found.data["refusal"]
    if not refusal["certain"]:
        told = "; ".join(_words(place) for place in refusal["places"])
        raise InvalidInput(
            f"position: must be given, for what the API refused is one of: {told}; `engine.check(id)` finds which"
        )
    if refusal["why"] == _OPEN_THINKING:
        return omission_entries(sent, _open_round(sent), thinking=False, why=refusal["why"])
    places = [Omission(*place) for place in refusal["places"]]
    thinking = refusal["why"] == _THINKING and all(_is_thinking(sent, place) for place in places)
    return omission_entries(sent, [] if thinking else places, thinking=thinking, why=refusal["why"])


def _open_round(sent: ActiveEntries) -> list[Omission]:
    """Return the replies behind the last question, and the messages that hold nothing but results for them.

    The API wants the thinking of a reply back when the results of its calls are sent. Where it cannot have that, the
    question is asked again; of a reply before it whose calls got words in place of results, the calls are left out.
    """
    entries = [entry for entry in _there(sent) if not is_whole(omissions_in(sent.entries).get(entry.position, ()))]
    last = max((n for n, entry in enumerate(entries) if opens_turn(entry.message or {})), default=-1)
    behind = [entry for entry in entries[last + 1 :] if _is_reply(entry) or _is_results(entry)]
    earlier = next((entry for entry in reversed(entries[: last + 1]) if _is_reply(entry)), None)
    calls = enumerate(blocks_of(earlier.message) if earlier and earlier.message else [])
    places = [Omission(entry.position) for entry in behind]
    if earlier:
        places += [Omission(earlier.position, index) for index, block in calls if block["type"] == "tool_use"]
    return places


def _is_reply(entry: Entry) -> bool:
    return (entry.message or {}).get("role") == "assistant"


def _is_results(entry: Entry) -> bool:
    return all(block["type"] == "tool_result" for block in blocks_of(entry.message or {"content": "."}))


def _words(place: Sequence[int | None]) -> str:
    return f"position={place[0]}" + ("" if place[1] is None else f" block={place[1]}")


def _is_thinking(sent: ActiveEntries, place: Omission) -> bool:
    """Whether a place is thinking; one of which the API names only the message is taken for that."""
    blocks = _blocks(sent, place)
    return place.block is None or all(block["type"] in ("thinking", "redacted_thinking") for block in blocks)


def _blocks(sent: ActiveEntries, place: Omission) -> list[dict[str, Any]]:
    """Return the stored blocks of a place: all of its message, or one; [] if there is no such place."""
    entry = next((each for each in _there(sent) if each.position == place.position), None)
    blocks = blocks_of(entry.message) if entry and entry.message else []
    return blocks if place.block is None else blocks[place.block : place.block + 1]


def omission_entries(sent: ActiveEntries, places: Sequence[Omission], *, thinking: bool, why: str = "") -> list[Entry]:
    """Return the entries after which `places`, or with `thinking` all thinking so far, is not sent.

    What is left out from before a reply changes what the thinking of that reply is bound to, so that is not sent
    either. If the API wants it back, for a tool's result is due, it is asked to drop it itself.
    """
    replies = [entry for entry in _there(sent) if entry.message and entry.message["role"] == "assistant"]
    first = min((place.position for place in places), default=sent.head.end)
    is_lead = sent.cut is not None and first == sent.cut.position
    unbinds = is_lead or any(entry.position > first for entry in replies)
    data = {
        "places": [place.place for place in places],
        "why": why,
        "tokens": sum(_tokens(sent, place) for place in places),
        "unbinds": unbinds,
        "thinking": thinking,
    }
    open_one = open_reply(reversed(sent.entries))
    due = unbinds and not thinking and not sent.summary.drop_block and open_one is not None and thoughts(open_one) > 0
    choice = [Entry("choice", data={"drop_block": True})] if due else []
    return [*choice, Entry("omitted", data=data)]


def _tokens(sent: ActiveEntries, place: Omission) -> int:
    return estimated({"content": _blocks(sent, place)})
