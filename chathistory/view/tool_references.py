"""References to tools: the API refuses one to a tool that the request does not define.

Which tools those are is a matter of the request, and not of the log; so this is the last step, and optional.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from typing import Any

from chathistory.messages.content import Message, blocks_of
from chathistory.messages.json_values import to_tool_definition
from chathistory.view.item import Block

__all__ = ["drop_undefined_references", "list_tool_names"]


def list_tool_names(tools: Iterable[Any]) -> frozenset[str] | None:
    """Return the names of tools; None: only the server knows the names of some (a toolset, an MCP server).

    Args:
        tools: Names, definitions as the API takes them, or tools of the SDK's runner.
    """
    names = set()
    for tool in tools:
        definition = to_tool_definition(tool)
        name = definition.get("name") if isinstance(definition, Mapping) else definition
        if not isinstance(name, str):
            return None
        names.add(name)
    return frozenset(names)


def drop_undefined_references(messages: list[Message], names: frozenset[str]) -> list[Message]:
    """Return the messages without references to tools that have none of these names; the same list if there are none.

    What a system message adds in the middle of a conversation counts as defined.
    """
    additions = [block for message in messages if message["role"] == "system" for block in blocks_of(message)]
    added = [block["tool"] for block in additions if block["type"] == "tool_addition"]
    more = list_tool_names(tool.get("definition", tool) for tool in added)
    if more is None:
        return messages
    defined, changed = names | more, []
    for message in messages:
        content = message["content"]
        if not isinstance(content, str) and message["role"] != "system":
            blocks = []
            for block in content:
                left = block
                if block["type"] == "tool_result":
                    left = _leave_out_references(block, "content", defined)
                    if left is not block and not left["content"]:
                        del left["content"]
                elif block["type"] == "tool_search_tool_result" and isinstance(found := block.get("content"), dict):
                    known = _leave_out_references(found, "tool_references", defined)
                    left = block if known is found else block | {"content": known}
                blocks.append(left)
            message = message if all(map(operator.is_, blocks, content)) else message | {"content": blocks}  # noqa: PLW2901
        changed.append(message)
    return messages if all(map(operator.is_, changed, messages)) else changed


def _leave_out_references(holder: Block, field: str, names: frozenset[str]) -> Block:
    """Return an object whose list in a field has no references to other tools; the very object if it had none."""
    parts = holder.get(field)
    if not isinstance(parts, list):
        return holder
    left = [part for part in parts if part.get("type") != "tool_reference" or part.get("tool_name") in names]
    return holder if len(left) == len(parts) else holder | {field: left}
