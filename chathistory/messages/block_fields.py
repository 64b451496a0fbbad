"""Look up the fields of content blocks in the table of `block_types`."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass

from chathistory.messages.block_types import TYPES

__all__ = ["BLOCK_ROLES", "FIELDS_OF_SYSTEM", "Field", "find_block_type", "find_fields"]

BLOCK_ROLES: Mapping[str, str] = {
    "text": "user assistant system",
    "image": "user",
    "document": "user assistant",
    "search_result": "user",
    "tool_result": "user",
    "thinking": "assistant",
    "redacted_thinking": "assistant",
    "tool_use": "assistant",
    "server_tool_use": "assistant",
    "web_search_tool_result": "assistant",
    "web_fetch_tool_result": "assistant",
    "code_execution_tool_result": "assistant",
    "bash_code_execution_tool_result": "assistant",
    "text_editor_code_execution_tool_result": "assistant",
    "tool_search_tool_result": "assistant",
    "advisor_tool_result": "assistant",
    "mcp_tool_use": "assistant",
    "mcp_tool_result": "user assistant",
    "mcp_tool_listing": "assistant",
    "fallback": "assistant",
    "container_upload": "user assistant",
    "compaction": "user assistant system",
    "tool_addition": "system",
    "tool_removal": "system",
}
"""The types of blocks that a message may have, and the roles of the messages that may have them.

The SDK's types allow more than the API does. A `document` in an assistant message was allowed before version 2026-10-21
of the API: it is stored, but not sent.
"""

_TOKEN = re.compile(r"\[[^]]*\]|\S+")
_SCALARS = frozenset({"str", "int", "float", "bool", "null", "any", "dict"})


@dataclass(frozen=True, slots=True)
class Field:
    """The values that a field may have.

    Attributes:
        required: Whether the field must be present.
        scalars: The kinds of plain values that it may be: str, int, float, bool, null, any, dict.
        literals: The texts that it may be, if only certain texts are allowed.
        types: The names in the table of the objects that it may be.
        items: The values that may be in the list; None if the field is not a list.
    """

    required: bool
    scalars: frozenset[str]
    literals: tuple[str, ...]
    types: tuple[str, ...]
    items: Field | None

    @property
    def requirement(self) -> str:
        """A description of the allowed values, for an error: "must be ..."."""
        if self.literals:
            return f"must be {' or '.join(self.literals)}"
        names = {"str": "text", "int": "an integer", "float": "a number", "bool": "true or false", "null": "null"}
        wanted = [name for kind, name in names.items() if kind in self.scalars]
        wanted += ["a list"] if self.items else []
        wanted += ["an object"] if self.types or "dict" in self.scalars else []
        return f"must be {' or '.join(wanted)}"


def _parse_field(alternatives: str) -> Field:
    tokens = _TOKEN.findall(alternatives)
    lists = [token[1:-1] for token in tokens if token.startswith("[")]
    return Field(
        required="!" in tokens,
        scalars=_SCALARS.intersection(tokens),
        literals=tuple(token.strip("'") for token in tokens if token.startswith("'")),
        types=tuple(token for token in tokens if token in TYPES),
        items=_parse_field(lists[0]) if lists else None,
    )


FIELDS_OF_SYSTEM: Mapping[str, Field] = {
    "clear_at": _parse_field("'next_user_message' 'never'"),
    "output_config": _parse_field("SystemMessageOutputConfig"),
}
"""Fields of a system message in addition to role and content; each needs a beta of the API. Null means absent."""


@functools.cache
def find_fields(name: str) -> Mapping[str, Field]:
    """Return the fields of a type of the table.

    Args:
        name: The name of the type, such as "ToolUseBlock".
    """
    return {field: _parse_field(alternatives) for field, alternatives in TYPES[name].items()}


_TYPES_OF_BLOCKS = {
    fields["type"].strip("! ").strip("'"): name
    for name, fields in TYPES.items()
    if name.endswith("Block") and "type" in fields
}


def find_block_type(block: str) -> str | None:
    """Return the name in the table of a type of block that a message may have.

    Args:
        block: The `type` of the block, such as "tool_use".

    Returns:
        The name, such as "ToolUseBlock"; None if the type is not known.
    """
    return _TYPES_OF_BLOCKS[block] if block in BLOCK_ROLES else None
