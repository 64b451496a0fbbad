"""References to tools: the API refuses one to a tool that the request does not define.

Which tools those are is a matter of the request, and not of the log; so this is the last step, and optional.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from chathistory.messages.content import Message, blocks_of
from chathistory.messages.json_values import definition_of
from chathistory.view.item import Block

__all__ = ["tool_names", "with_defined_tools"]


def tool_names(tools: Iterable[Any]) -> frozenset[str] | None:
    """Return the names of tools; None: only the server knows the names of some (a toolset, an MCP server).

    Args:
        tools: Names, definitions as the API takes them, or tools of the SDK's runner.
    """
    names = set()
    for tool in tools:
        definition = definition_of(tool)
        name = definition.get("name") if isinstance(definition, Mapping) else definition
        if not isinstance(name, str):
            return None
        names.add(name)
    return frozenset(names)


def with_defined_tools(messages: list[Message], names: frozenset[str]) -> list[Message]:
    """Return the messages without references to tools that have none of these names; the same list if there are none.

    What a system message adds in the middle of a conversation counts as defined.
    """
    added = [block["tool"] for message in messages for block in _additions(message)]
    more = tool_names(tool.get("definition", tool) for tool in added)
    if more is None:
        return messages
    defined = names | more
    changed = [_defined(message, defined) for message in messages]
    return changed if any(new is not old for new, old in zip(changed, messages, strict=True)) else messages


def _additions(message: Message) -> Iterable[Block]:
    return [block for block in blocks_of(message) if block["type"] == "tool_addition"] if _is_system(message) else []


def _is_system(message: Message) -> bool:
    return bool(message["role"] == "system")


def _defined(message: Message, names: frozenset[str]) -> Message:
    content = message["content"]
    if isinstance(content, str) or _is_system(message):
        return message
    blocks = [_block(block, names) for block in content]
    return (
        message | {"content": blocks}
        if any(new is not old for new, old in zip(blocks, content, strict=True))
        else message
    )


def _block(block: Block, names: frozenset[str]) -> Block:
    content = block.get("content")
    if block["type"] == "tool_result" and isinstance(content, list):
        left = _left(content, names)
        if left is content:
            return block
        return block | {"content": left} if left else {name: part for name, part in block.items() if name != "content"}
    if block["type"] == "tool_search_tool_result" and isinstance(content, dict):
        references = content.get("tool_references")
        known = _left(references, names) if isinstance(references, list) else references
        return block if known is references else block | {"content": content | {"tool_references": known}}
    return block


def _left(parts: list[Any], names: frozenset[str]) -> list[Any]:
    """Return what is left of a list without references to other tools; the very list if that is all of it."""
    left = [part for part in parts if part.get("type") != "tool_reference" or part.get("tool_name") in names]
    return parts if len(left) == len(parts) else left
