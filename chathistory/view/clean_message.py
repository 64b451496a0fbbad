"""Cleaning single messages: the API accepts everything that it returned, except for a few things.

Left out are empty text blocks and messages without content (Claude can return both; the API answers 400 when they are
sent back), blocks that the API does not accept, and what the API version 2026-10-21 refuses in old messages. Fields
that no request has, nulls, and cache markers (at most four per request, so they belong to a request and not to a
message) are left out of blocks, at any depth. Lone surrogates, which no request can carry, become U+FFFD.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from chathistory.messages.block_fields import BLOCK_ROLES, FIELDS_OF_SYSTEM, find_block_type
from chathistory.messages.content import Message
from chathistory.messages.fit_blocks import Misfit, fit_block, fit_system, is_common_block
from chathistory.messages.foreign_names import FOREIGN_TYPES
from chathistory.view.item import Block, Item, Notes

__all__ = ["clean_items", "count_thinking_blocks", "replace_surrogates"]

_SURROGATE = re.compile("[\ud800-\udfff]")
_THINKING = frozenset({"thinking", "redacted_thinking"})
_OF_ONE_MODEL = frozenset({*_THINKING, "tool_use"})
_FIELDS = ("role", "content")
_ADDED_BY_DUMPS = ("text", "citations")
"""Fields that the SDK's `model_dump` adds as nulls to a block of an unknown type."""


def clean_items(items: Iterable[Item], notes: Notes, *, thinking_from: int = 0) -> Iterator[Item]:
    """Yield the items with the content that can be sent again. An item without such content is noted and left out.

    Args:
        items: The items.
        notes: Where to note what is left out or changed.
        thinking_from: Thinking in messages below this position is left out.
    """
    for item in items:
        content = item.message["content"]
        if isinstance(content, str):
            content = content if content.strip() else ""
        else:
            if item.position < thinking_from:
                content = [block for block in content if block["type"] not in _THINKING]
            content = _clean_blocks(content, item, notes)
        if content and item.surrogates and (replaced := replace_surrogates(content)) != content:
            notes.repair(item.position, "lone surrogates replaced by U+FFFD")
            content = replaced
        if not content:
            notes.repair(item.position, "left out: the message has no content that can be sent again")
            continue
        if content is not item.message["content"]:
            item = item.with_content(content)  # noqa: PLW2901
        message = item.message
        if len(message) > len(_FIELDS):  # other programs can have stored fields other than role and content
            accepted = {*_FIELDS, *(FIELDS_OF_SYSTEM if item.role == "system" else ())}
            if not message.keys() <= accepted:
                notes.adjust(item.position, "fields other than role and content are left out")
                message = {name: value for name, value in message.items() if name in accepted}
            fitted = fit_system(message)
            for misfit in fitted.misfits:
                _note_misfit(misfit, f"system{misfit.path}", item.position, notes)
            item = item._replace(message=fitted.block or message)  # noqa: PLW2901
        yield item


def _clean_blocks(blocks: list[Block], item: Item, notes: Notes) -> list[Block]:
    """Return the blocks that can be sent again; the list of the item itself if that is all of them, unchanged."""
    last = max([index for index, block in enumerate(blocks) if block["type"] == "fallback"], default=0)
    if last:  # the API drops the blocks before it: another model took over there
        results = {block.get("tool_use_id") for block in blocks}
        before = [
            block
            for block in blocks[:last]
            if block["type"] not in _OF_ONE_MODEL and (block["type"] != "server_tool_use" or block["id"] in results)
        ]
        if len(before) < last:
            notes.repair(item.position, "left out: blocks before a fallback to another model")
        blocks = [*before, *blocks[last:]]
    role, given, kept, is_changed = item.message["role"], item.message["content"], [], False
    for block in blocks:
        if role in BLOCK_ROLES.get(block["type"], "") and is_common_block(block):
            kept.append(block)
        elif (clean := _clean_block(block, item, notes)) is not None:
            is_changed = is_changed or clean is not block
            kept.append(clean)
    return given if not is_changed and len(kept) == len(given) else kept


def _clean_block(block: Block, item: Item, notes: Notes) -> Block | None:
    """Return a block in the form that can be sent; the same object if it is unchanged; None: it cannot be sent."""
    kind, role, position, reason = block["type"], item.role, item.position, None
    if kind in _EMPTY and _EMPTY[kind](block):
        reason = _EMPTY_NAMES[kind]
    elif kind == "document" and role == "assistant":
        reason = "a document in an assistant message"
    elif kind in FOREIGN_TYPES or not (item.received or kind in BLOCK_ROLES):
        reason = "a block of a type that the API does not have"
    elif not item.received and role not in BLOCK_ROLES[kind]:
        reason = f"a {kind} block in a message with the role {role}"
    if reason is not None:
        notes.repair(position, f"left out: {reason}")
        return None
    if find_block_type(kind) is None:  # the API returned a type that is unknown here: it is sent back unchanged
        extra = [name for name in _ADDED_BY_DUMPS if name in block and block[name] is None]
        extra += ["cache_control"] if "cache_control" in block else []
        if not extra:
            return block
        notes.adjust(position, "fields that the API does not accept are left out of a block")
        return {name: value for name, value in block.items() if name not in extra}
    fitted = fit_block(block, role=role, received=item.received)
    for misfit in fitted.misfits:
        path = f"{kind}{misfit.path}"
        if misfit.effect == "unfit":
            notes.repair(position, f"left out: a block, because {path} {misfit.problem}")
            break
        _note_misfit(misfit, path, position, notes)
    return fitted.block


_EMPTY: Mapping[str, Callable[[Block], bool]] = {
    "text": lambda block: isinstance(text := block.get("text", ""), str | None) and not (text or "").strip(),
    "thinking": lambda block: not block.get("signature"),
    "redacted_thinking": lambda block: not block.get("data"),
    "compaction": lambda block: block.get("content") == "",
}
"""Whether a block is empty, by type. Replies and interrupted streams have such blocks; the API answers 400 to them."""

_EMPTY_NAMES = {
    "text": "an empty text block",
    "thinking": "thinking without a signature",
    "redacted_thinking": "redacted thinking without its data",
    "compaction": "a compaction with an empty summary",
}


def _note_misfit(misfit: Misfit, path: str, position: int, notes: Notes) -> None:
    if misfit.effect == "form":
        notes.adjust(position, f"{path} {misfit.problem}")
    else:
        notes.repair(position, misfit.problem if misfit.problem.startswith("left out") else f"{path} {misfit.problem}")


def count_thinking_blocks(message: Message) -> int:
    """Return the number of thinking blocks in a message.

    Args:
        message: The message.
    """
    content = message["content"]
    return 0 if isinstance(content, str) else sum(block["type"] in _THINKING for block in content)


def replace_surrogates(value: Any) -> Any:
    """Return a JSON value with U+FFFD in place of lone surrogates, which no request can carry.

    Args:
        value: Any JSON value.
    """
    if isinstance(value, str):
        return _SURROGATE.sub("\ufffd", value)
    if isinstance(value, list):
        return [replace_surrogates(part) for part in value]
    if isinstance(value, dict):
        return {replace_surrogates(name): replace_surrogates(part) for name, part in value.items()}
    return value
