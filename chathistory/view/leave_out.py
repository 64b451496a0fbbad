"""Leaving content out of the view: what the API refused, and what a user left out.

Events say what is left out. A rewind or a repair repeats the omissions of entries that are no longer active, and a
`TurnOpened` with `restores_refused` cancels the omissions of its turn.

A tool result cannot just be left out, because its call would then have no result. So an error is sent in its place, and
the tool loop continues. The same goes for a message that was sent in place of results: without it, the next reply would
directly follow the calls, and the API would take both for one reply.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence

from chathistory.log.entry import Entry
from chathistory.log.events import ContentOmitted, Repair, Rewind, TurnOpened, TurnRefusedByAPI
from chathistory.log.omissions import Omission
from chathistory.log.turn_boundaries import ends_turn, opens_turn, replaces_all_before
from chathistory.view.item import ADDED, Block, Item, Notes, ViewRepair
from chathistory.view.pairing import make_missing_results

__all__ = [
    "describe_omissions",
    "find_omissions",
    "has_omissions",
    "leave_out_omitted",
    "leave_out_refused",
    "list_omissions",
    "omits_whole_message",
]

_KINDS = (TurnRefusedByAPI, ContentOmitted, Rewind, Repair, TurnOpened)


def list_omissions(entry: Entry) -> list[Omission]:
    """Return the content that an entry leaves out; [] for most entries.

    Args:
        entry: Any entry.
    """
    match entry.event:
        case Rewind() | Repair() as event:
            return list(event.omitted)
        case TurnRefusedByAPI() as event:
            return [Omission(location, event.problem, entry.turn) for location in event.locations]
        case ContentOmitted() as event:
            return [Omission(location, event.problem) for location in event.locations]
    return []


def has_omissions(entry: Entry) -> bool:
    """Return True if an entry leaves out content of messages before it, or sends left-out content again.

    Args:
        entry: Any entry.
    """
    return bool(list_omissions(entry)) or (isinstance(entry.event, TurnOpened) and entry.event.restores_refused)


def find_omissions(entries: Iterable[Entry]) -> dict[int, list[Omission]]:
    """Return the content that is left out, by the position of the message.

    Args:
        entries: The active entries, in order.
    """
    omissions: list[Omission] = []
    for entry in entries:
        if isinstance(entry.event, _KINDS):
            omissions += list_omissions(entry)
            if isinstance(entry.event, TurnOpened) and entry.event.restores_refused:
                omissions = [each for each in omissions if each.turn != entry.turn]
    by_position: dict[int, list[Omission]] = {}
    for each in dict.fromkeys(omissions):
        by_position.setdefault(each.location.position, []).append(each)
    return by_position


def omits_whole_message(omissions: Iterable[Omission]) -> bool:
    """Return True if a whole message is left out.

    Args:
        omissions: The omissions in one message.
    """
    return any(each.location.block is None for each in omissions)


def leave_out_refused(items: Sequence[Item], notes: Notes) -> list[Item]:
    """Return the items without refused replies and the turns that they answer: sent again, they would be refused again.

    Args:
        items: The items.
        notes: Where to note what is left out.
    """
    kept: list[Item] = []
    for item in items:
        if item.stop_reason != "refusal":
            kept.append(item)
            continue
        notes.repair(item.position, "left out: the reply was refused; its turn is left out too")
        while kept:
            message = kept[-1].message
            if ends_turn(message, kept[-1].stop_reason) or replaces_all_before(message):
                break  # this message is not part of the turn
            kept.pop()
            if opens_turn(message):
                break
    return kept


def leave_out_omitted(items: Sequence[Item], omissions: Mapping[int, Sequence[Omission]]) -> list[Item]:
    """Return the items without the content that is left out.

    Args:
        items: The items.
        omissions: What is left out, by the position of the message.
    """
    kept = list[Item]()
    is_gap = False  # whether a message was left out directly after the last item that is kept
    for number, item in enumerate(items):
        here = omissions.get(item.position, ())
        blocks = (
            _keep_blocks(item, here, items[number + 1 :], omissions) if here and not omits_whole_message(here) else []
        )
        if here and not blocks:
            is_gap = True
            continue
        if is_gap and item.is_reply:  # the calls of the replies before the gap get results
            replies = itertools.takewhile(lambda item: item.is_reply, reversed(kept))
            calls = [
                block for reply in reversed(list(replies)) for block in reply.blocks if block["type"] == "tool_use"
            ]
            if calls:
                kept.append(Item(ADDED, {"role": "user", "content": make_missing_results(calls)}))
        kept.append(item.with_content(blocks) if here else item)
        is_gap = False
    return kept


def _keep_blocks(
    item: Item,
    omissions: Sequence[Omission],
    later: Sequence[Item],
    all_omissions: Mapping[int, Sequence[Omission]],
) -> list[Block]:
    """Return the blocks of a message that are sent, with an error in place of each tool result that is left out.

    A call that got another result later, before the next reply, needs no error.
    """
    answered = {
        block["tool_use_id"]
        for other in itertools.takewhile(lambda item: not item.is_reply, later)
        for index, block in enumerate(other.blocks)
        if block["type"] == "tool_result"
        and index not in {each.location.block for each in all_omissions.get(other.position, ())}
    }
    blocks = []
    for index, block in enumerate(item.blocks):
        here = [each for each in omissions if each.location.block == index]
        if not here:
            blocks.append(block)
        elif block["type"] == "tool_result" and block["tool_use_id"] not in answered:
            inner = {each.location.inner for each in here}
            content = block.get("content") if None not in inner else None
            left = (
                [part for index, part in enumerate(content) if index not in inner] if isinstance(content, list) else []
            )
            if left:
                blocks.append(block | {"content": left})
                continue
            text = f"This result was not accepted: {here[0].problem or 'it was left out'}."
            named = {name: block[name] for name in ("type", "tool_use_id", "toolset_name") if name in block}
            blocks.append(named | {"content": text, "is_error": True})
    return blocks


def describe_omissions(items: Iterable[Item], omissions: Mapping[int, Sequence[Omission]]) -> tuple[ViewRepair, ...]:
    """Return descriptions of the content that is left out.

    Args:
        items: The items.
        omissions: What is left out, by the position of the message.
    """
    descriptions = []
    for omission in (each for item in items for each in omissions.get(item.position, ())):
        location = omission.location
        part = "the message" if location.block is None else f"block {location.block}"
        inner = "" if location.inner is None else f", block {location.inner} within it"
        reason = omission.problem or "a user asked for it"
        descriptions.append(ViewRepair(location.position, f"left out: {part}{inner}; {reason}"))
    return tuple(descriptions)
