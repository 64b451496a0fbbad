"""References to tools: the API refuses a reference to a tool that the request does not define.

The tools belong to the request and not to the log, so this is the last step of the view, and optional.
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
    """Return the names of tools; None if only the server knows some of them (a toolset, an MCP server).

    Args:
        tools: Names, definitions in the API's form, or tools of the SDK's tool runner.
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
    """Return the messages without references to tools that are not defined.

    Tools that a system message adds during the conversation count as defined.

    Args:
        messages: The messages, ready to be sent.
        names: The names of the request's tools.

    Returns:
        The messages; the same list if nothing was left out.
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
    """Return an object without references to undefined tools in one of its lists; the same object if unchanged."""
    parts = holder.get(field)
    if not isinstance(parts, list):
        return holder
    left = [part for part in parts if part.get("type") != "tool_reference" or part.get("tool_name") in names]
    return holder if len(left) == len(parts) else holder | {field: left}
