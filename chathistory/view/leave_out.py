"""Leaving out of the view what the API refused, or what somebody left out by hand.

A tool result must not just go, for the call would then have no result: what is sent in its place says that it was
refused, so that the tool loop goes on. So too for words that stood in place of results: without them the next reply
would follow the calls at once, and the API would take both for one reply.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence

from chathistory.log.omissions import is_whole
from chathistory.log.places import Omission
from chathistory.view.item import ADDED, Block, Item
from chathistory.view.pairing import missing_results

__all__ = ["without_omitted"]


def without_omitted(items: Iterable[Item], omissions: Mapping[int, Sequence[Omission]]) -> list[Item]:
    """Return the items without what is not sent of them."""
    items, kept = list(items), list[Item]()
    is_cut = False  # whether something was left out right behind the last item that is kept
    for number, item in enumerate(items):
        here = omissions.get(item.position, ())
        blocks = [] if is_whole(here) else _blocks(item, here, _answered(items[number + 1 :], omissions))
        if here and not blocks:
            is_cut = True
            continue
        if is_cut and item.role == "assistant":
            kept += _closing(kept)
        kept.append(item.with_content(blocks) if here else item)
        is_cut = False
    return kept


def _closing(kept: Sequence[Item]) -> list[Item]:
    """Return a message with results for the calls of the replies that are last; [] if they have none."""
    replies = itertools.takewhile(lambda item: item.role == "assistant", reversed(kept))
    calls = [block for item in reversed(list(replies)) for block in item.blocks if block["type"] == "tool_use"]
    return [Item(ADDED, {"role": "user", "content": missing_results(calls)})] if calls else []


def _answered(items: Sequence[Item], omissions: Mapping[int, Sequence[Omission]]) -> set[str]:
    """Return the ids of the calls that got another result later, before the next reply."""
    behind = itertools.takewhile(lambda item: item.role != "assistant", items)
    return {
        block["tool_use_id"]
        for item in behind
        for index, block in enumerate(item.blocks)
        if block["type"] == "tool_result"
        and index not in {each.place.block for each in omissions.get(item.position, ())}
    }


def _blocks(item: Item, omissions: Sequence[Omission], answered: set[str]) -> list[Block]:
    blocks = []
    for index, block in enumerate(item.blocks):
        here = [each for each in omissions if each.place.block == index]
        if not here:
            blocks.append(block)
        elif block.get("tool_use_id") in answered:
            continue
        elif block["type"] == "tool_result" and all(each.place.inner is not None for each in here):
            blocks.append(_without_inner(block, here))
        elif block["type"] == "tool_result":
            blocks.append(_refused_result(block, here[0].why))
    return blocks


def _without_inner(result: Block, omissions: Sequence[Omission]) -> Block:
    gone = {each.place.inner for each in omissions}
    content = result.get("content")
    left = [part for index, part in enumerate(content) if index not in gone] if isinstance(content, list) else []
    return result | {"content": left} if left else _refused_result(result, omissions[0].why)


def _refused_result(result: Block, why: str) -> Block:
    """Return what is sent in place of a result: an error that says so."""
    words = f"This result was not accepted: {why or 'it was left out'}."
    kept = {name: result[name] for name in ("type", "tool_use_id", "toolset_name") if name in result}
    return kept | {"content": words, "is_error": True}
