"""Leaving out of the view what the API refused, or what somebody left out by hand: the events that say so, and how.

A rewind or a repair carries along what was said of places before it, and a `TurnOpened` with `restored` takes back what
was refused of its turn.

A tool result must not just go, for the call would then have no result: what is sent in its place says that it was
refused, so that the tool loop goes on. So too for words that stood in place of results: without them the next reply
would follow the calls at once, and the API would take both for one reply.
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
    """Return what an entry says is not sent; [] for most entries."""
    match entry.event:
        case Rewind() | Repair() as event:
            return list(event.omitted)
        case TurnRefusedByAPI() as event:
            return [Omission(place, event.problem, entry.turn) for place in event.locations]
        case ContentOmitted() as event:
            return [Omission(place, event.problem) for place in event.locations]
    return []


def has_omissions(entry: Entry) -> bool:
    """Whether an entry changes what is not sent of messages before it."""
    return bool(list_omissions(entry)) or (isinstance(entry.event, TurnOpened) and entry.event.restores_refused)


def find_omissions(entries: Iterable[Entry]) -> dict[int, list[Omission]]:
    """Return what is not sent of the entries that the view goes through, by position of the message."""
    found: list[Omission] = []
    for entry in entries:
        if isinstance(entry.event, _KINDS):
            found += list_omissions(entry)
            if isinstance(entry.event, TurnOpened) and entry.event.restores_refused:
                found = [each for each in found if each.turn != entry.turn]
    by_position: dict[int, list[Omission]] = {}
    for each in dict.fromkeys(found):
        by_position.setdefault(each.location.position, []).append(each)
    return by_position


def omits_whole_message(omissions: Iterable[Omission]) -> bool:
    """Whether nothing at all is sent of a message."""
    return any(each.location.block is None for each in omissions)


def leave_out_refused(items: Sequence[Item], notes: Notes) -> list[Item]:
    """Leave out each refused reply with the turn that it answers: sent again, it would be refused again."""
    kept: list[Item] = []
    for item in items:
        if item.stop_reason != "refusal":
            kept.append(item)
            continue
        notes.repair(item.position, "left out: the reply was refused, and with it its turn")
        while kept:
            message = kept[-1].message
            if ends_turn(message, kept[-1].stop_reason) or replaces_all_before(message):
                break  # the turn does not reach back to this
            kept.pop()
            if opens_turn(message):
                break
    return kept


def leave_out_omitted(items: Sequence[Item], omissions: Mapping[int, Sequence[Omission]]) -> list[Item]:
    """Return the items without what is not sent of them."""
    kept = list[Item]()
    is_cut = False  # whether something was left out right behind the last item that is kept
    for number, item in enumerate(items):
        here = omissions.get(item.position, ())
        blocks = (
            _keep_blocks(item, here, items[number + 1 :], omissions) if here and not omits_whole_message(here) else []
        )
        if here and not blocks:
            is_cut = True
            continue
        if is_cut and item.is_reply:  # calls of the replies that are last get results
            replies = itertools.takewhile(lambda item: item.is_reply, reversed(kept))
            calls = [
                block for reply in reversed(list(replies)) for block in reply.blocks if block["type"] == "tool_use"
            ]
            if calls:
                kept.append(Item(ADDED, {"role": "user", "content": make_missing_results(calls)}))
        kept.append(item.with_content(blocks) if here else item)
        is_cut = False
    return kept


def _keep_blocks(
    item: Item,
    omissions: Sequence[Omission],
    later: Sequence[Item],
    all_omissions: Mapping[int, Sequence[Omission]],
) -> list[Block]:
    """Return what is left of the blocks of a message, with an error in the place of each result that is not sent.

    A call that got another result later, before the next reply, needs none.
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
            words = f"This result was not accepted: {here[0].problem or 'it was left out'}."
            named = {name: block[name] for name in ("type", "tool_use_id", "toolset_name") if name in block}
            blocks.append(named | {"content": words, "is_error": True})
    return blocks


def describe_omissions(items: Iterable[Item], omissions: Mapping[int, Sequence[Omission]]) -> tuple[ViewRepair, ...]:
    """Return what is not sent of the items, in words for the report."""
    told = []
    for omission in (each for item in items for each in omissions.get(item.position, ())):
        place = omission.location
        what = "the message" if place.block is None else f"block {place.block}"
        inner = "" if place.inner is None else f", block {place.inner} within it"
        told.append(ViewRepair(place.position, f"left out: {what}{inner}; {omission.problem or 'as somebody asked'}"))
    return tuple(told)
