"""What of a single message the API takes back: everything, but for a few things that it gives or once took.

Left out are empty text blocks and messages without content (Claude can return both; sent back they are a 400), blocks
that the API does not take, and what the API version 2026-10-21 refuses in old messages. Fields that no request has,
nulls and cache markers (at most four per request, so they belong to a request and not to a message) are left out of
blocks, wherever they stand. Lone surrogates, which no request can carry, become U+FFFD.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from chathistory.messages.block_fields import BLOCK_ROLES, FIELDS_OF_SYSTEM, type_of_block
from chathistory.messages.content import Message
from chathistory.messages.fit_blocks import Misfit, fit, fit_system, is_plain
from chathistory.messages.foreign_names import FOREIGN_TYPES
from chathistory.view.item import Block, Item, Notes

__all__ = ["bound_thoughts", "cleaned", "count_thoughts", "without_surrogates", "without_thinking"]

_SURROGATE = re.compile("[\ud800-\udfff]")
_THINKING = frozenset({"thinking", "redacted_thinking"})
_FIELDS = ("role", "content")
_ADDED_BY_DUMPS = ("text", "citations")
"""Fields that the SDK's `model_dump` adds as nulls to a block of a type that it does not know."""


def cleaned(items: Iterable[Item], notes: Notes) -> Iterator[Item]:
    """Yield the items with what can be sent again; one of which nothing is left is noted and left out."""
    for item in items:
        content = _content(item, notes)
        if content and item.surrogates:
            content = _encodable(content, item, notes)
        if content:
            yield _bare(item.with_content(content), notes)
        else:
            notes.repair(item.position, "left out: the message has no content that may be sent again")


def _bare(item: Item, notes: Notes) -> Item:
    """Return the item without what stands beside role and content, and those of a system message as they can be sent.

    An earlier version has stored any there.
    """
    message = item.message
    if len(message) == len(_FIELDS):
        return item
    taken = {*_FIELDS, *(FIELDS_OF_SYSTEM if item.role == "system" else ())}
    if not message.keys() <= taken:
        notes.adjust(item.position, "fields beside role and content are left out")
        message = {name: value for name, value in message.items() if name in taken}
    fitted = fit_system(message)
    for misfit in fitted.misfits:
        _note(misfit, f"system{misfit.path}", item.position, notes)
    return item._replace(message=fitted.block or message)


def without_thinking(items: Iterable[Item], below: int) -> Iterator[Item]:
    """Yield the items, those below a position without thinking blocks."""
    for item in items:
        if item.position < below and bound_thoughts(item, below):
            yield item.with_content([block for block in item.blocks if block["type"] not in _THINKING])
        else:
            yield item


def bound_thoughts(item: Item, below: int) -> int:
    """Return how many blocks of thinking an item has, if it stands below a position; else 0."""
    return _count(item.blocks) if item.position < below else 0


def count_thoughts(message: Message) -> int:
    """Return how many blocks of thinking a message has."""
    content = message["content"]
    return _count(content) if isinstance(content, list) else 0


def _count(blocks: Iterable[Block]) -> int:
    return sum(block["type"] in _THINKING for block in blocks)


def _encodable(content: str | list[Block], item: Item, notes: Notes) -> str | list[Block]:
    replaced: str | list[Block] = without_surrogates(content)
    if replaced == content:
        return content
    notes.repair(item.position, "lone surrogates replaced by U+FFFD")
    return replaced


def without_surrogates(value: Any) -> Any:
    """Return a JSON value with U+FFFD in place of lone surrogates, which no request can carry."""
    if isinstance(value, str):
        return _SURROGATE.sub("\ufffd", value)
    if isinstance(value, list):
        return [without_surrogates(part) for part in value]
    if isinstance(value, dict):
        return {without_surrogates(name): without_surrogates(part) for name, part in value.items()}
    return value


def _content(item: Item, notes: Notes) -> str | list[Block]:
    content = item.message["content"]
    if isinstance(content, str):
        return content if content.strip() else ""
    return _blocks(_since_fallback(content, item, notes), item, notes)


def _since_fallback(blocks: list[Block], item: Item, notes: Notes) -> list[Block]:
    """Leave out what the API drops before the last `fallback` block: another model took over there."""
    last = max([index for index, block in enumerate(blocks) if block["type"] == "fallback"], default=0)
    if not last:
        return blocks
    results = {block.get("tool_use_id") for block in blocks}
    before = [block for block in blocks[:last] if not _of_one_model(block, results)]
    if len(before) < last:
        notes.repair(item.position, "left out: what stood before a fallback to another model")
    return [*before, *blocks[last:]]


def _of_one_model(block: Block, results: set[Any]) -> bool:
    kind = block["type"]
    return kind in _THINKING or kind == "tool_use" or (kind == "server_tool_use" and block["id"] not in results)


def _blocks(blocks: list[Block], item: Item, notes: Notes) -> list[Block]:
    """Return the blocks that may be sent again: the very list, if that is all of them as they are."""
    kept = [clean for block in blocks if (clean := _kept(block, item, notes)) is not None]
    unchanged = len(kept) == len(blocks) and all(map(operator.is_, kept, blocks))
    return blocks if unchanged else kept


def _kept(block: Block, item: Item, notes: Notes) -> Block | None:
    reason = _reason_against(block, item)
    if reason is not None:
        notes.repair(item.position, f"left out: {reason}")
        return None
    if type_of_block(block["type"]) is None:
        return _of_later_api(block, item, notes)
    return block if is_plain(block) else _fitted(block, item, notes)


def _reason_against(block: Block, item: Item) -> str | None:
    """Return why a block as a whole is not sent; None: there is no reason."""
    kind, role = block["type"], item.role
    if kind in _EMPTY and _EMPTY[kind](block):
        return _EMPTY_WORDS[kind]
    if kind == "document" and role == "assistant":
        return "a document in an assistant message"
    if kind not in BLOCK_ROLES:
        return None if item.received and kind not in FOREIGN_TYPES else "a block of a type that the API does not have"
    misplaced = role not in BLOCK_ROLES[kind] and not item.received
    return f"a {kind} block in a message with the role {role}" if misplaced else None


def _is_blank(text: Any) -> bool:
    return text is None or (isinstance(text, str) and not text.strip())


_EMPTY: Mapping[str, Callable[[Block], bool]] = {
    "text": lambda block: _is_blank(block.get("text")),
    "thinking": lambda block: not block.get("signature"),
    "redacted_thinking": lambda block: not block.get("data"),
    "compaction": lambda block: block.get("content") == "",
}
"""What a block lacks of what makes it one: replies may have such, and half of a stream; sent back they are a 400."""

_EMPTY_WORDS = {
    "text": "an empty text block",
    "thinking": "thinking without a signature",
    "redacted_thinking": "redacted thinking without its data",
    "compaction": "a compaction with an empty summary",
}


def _of_later_api(block: Block, item: Item, notes: Notes) -> Block:
    """Return a block that the API gave and this version does not know: as it came."""
    extra = [name for name in _ADDED_BY_DUMPS if name in block and block[name] is None]
    extra += ["cache_control"] if "cache_control" in block else []
    if not extra:
        return block
    notes.adjust(item.position, "fields that the API does not take are left out of a block")
    return {name: value for name, value in block.items() if name not in extra}


def _fitted(block: Block, item: Item, notes: Notes) -> Block | None:
    fitted = fit(block, role=item.role, received=item.received)
    for misfit in fitted.misfits:
        path = f"{block['type']}{misfit.path}"
        if misfit.effect == "unfit":
            notes.repair(item.position, f"left out: a block, for {path} {misfit.what}")
            break
        _note(misfit, path, item.position, notes)
    return fitted.block


def _note(misfit: Misfit, path: str, position: int, notes: Notes) -> None:
    if misfit.effect == "form":
        notes.adjust(position, f"{path} {misfit.what}")
    else:
        notes.repair(position, misfit.what if misfit.what.startswith("left out") else f"{path} {misfit.what}")
