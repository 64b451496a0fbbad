"""What of a single message the API takes back: everything, but for a few things that it gives or once took.

Left out are empty text blocks and messages without content (Claude can return both; sent back they are a 400), cache
markers (at most four per request, so they belong to a request and not to a message), keys that only responses or other
dumps have, and what the API version 2026-10-21 refuses in old messages. Lone surrogates, which no request can carry,
become U+FFFD.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Iterable, Iterator
from typing import Any

from chathistory.content import WITH_BLOCKS
from chathistory.view.item import Block, Item, Note

__all__ = ["bound_thoughts", "cleaned", "without_thinking"]

_SURROGATE = re.compile("[\ud800-\udfff]")
_THINKING = frozenset({"thinking", "redacted_thinking"})
_NOT_SENT = frozenset({"cache_control", "parsed_output"})
_NOT_NULL = frozenset({"caller", "toolset_name"})  # `model_dump` adds these as nulls; a request may not have them so


def cleaned(items: Iterable[Item], note: Note) -> Iterator[Item]:
    """Yield the items with what can be sent again; one of which nothing is left is noted and left out."""
    for item in items:
        content = _content(_encodable(item, note), note)
        if content:
            yield item.with_content(content)
        else:
            note(item.position, "left out: the message has no content that may be sent again")


def without_thinking(items: Iterable[Item], below: int) -> Iterator[Item]:
    """Yield the items, those below a position without thinking blocks."""
    for item in items:
        if bound_thoughts(item, below):
            yield item.with_content([block for block in item.blocks if block["type"] not in _THINKING])
        else:
            yield item


def bound_thoughts(item: Item, below: int) -> int:
    """Return how many blocks of thinking an item has, if it stands below a position; else 0."""
    return sum(block["type"] in _THINKING for block in item.blocks) if item.position < below else 0


def _encodable(item: Item, note: Note) -> Item:
    if not item.surrogates:
        return item
    content = _replaced(item.message["content"])
    if content != item.message["content"]:
        note(item.position, "lone surrogates replaced by U+FFFD")
    return item.with_content(content)


def _replaced(value: Any) -> Any:
    if isinstance(value, str):
        return _SURROGATE.sub("\ufffd", value)
    if isinstance(value, list):
        return [_replaced(part) for part in value]
    if isinstance(value, dict):
        return {_replaced(name): _replaced(part) for name, part in value.items()}
    return value


def _content(item: Item, note: Note) -> str | list[Block]:
    content = item.message["content"]
    if isinstance(content, str):
        return content if content.strip() else ""
    return _blocks(_since_fallback(content, item, note), item, note)


def _since_fallback(blocks: list[Block], item: Item, note: Note) -> list[Block]:
    """Leave out what the API drops before the last `fallback` block: another model took over there."""
    last = max([index for index, block in enumerate(blocks) if block["type"] == "fallback"], default=0)
    if not last:
        return blocks
    results = {block.get("tool_use_id") for block in blocks}
    before = [block for block in blocks[:last] if not _of_one_model(block, results)]
    if len(before) < last:
        note(item.position, "left out: what stood before a fallback to another model")
    return [*before, *blocks[last:]]


def _of_one_model(block: Block, results: set[Any]) -> bool:
    kind = block["type"]
    return kind in _THINKING or kind == "tool_use" or (kind == "server_tool_use" and block["id"] not in results)


def _blocks(blocks: list[Block], item: Item, note: Note) -> list[Block]:
    """Return the blocks that may be sent again: the very list, if that is all of them as they are."""
    kept = [clean for block in blocks if (clean := _kept(block, item, note)) is not None]
    unchanged = len(kept) == len(blocks) and all(map(operator.is_, kept, blocks))
    return blocks if unchanged else kept


def _kept(block: Block, item: Item, note: Note) -> Block | None:
    kind = block["type"]
    if kind == "text" and not (block.get("text") or "").strip():
        note(item.position, "left out: an empty text block")
    elif kind == "thinking" and not block.get("signature"):
        note(item.position, "left out: thinking without a signature")
    elif kind == "document" and item.role == "assistant":
        note(item.position, "left out: a document in an assistant message")
    else:
        return _block(block, item, note)
    return None


def _block(block: Block, item: Item, note: Note) -> Block:
    if not _NOT_SENT.isdisjoint(block) or any(name in block and block[name] is None for name in _NOT_NULL):
        block = {name: value for name, value in block.items() if not _unsendable(name, value)}
    if item.role == "user" and block["type"] == "text" and block.get("citations"):
        note(item.position, "left out: citations in a user message")
        block = {name: value for name, value in block.items() if name != "citations"}
    if block["type"] in WITH_BLOCKS and isinstance(block.get("content"), list):
        blocks = _blocks(block["content"], item, note)
        block = block if blocks is block["content"] else block | {"content": blocks}
    return block


def _unsendable(name: str, value: Any) -> bool:
    return name in _NOT_SENT or (name in _NOT_NULL and value is None)
