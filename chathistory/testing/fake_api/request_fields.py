"""The fields of requests: of the body, of messages and of content blocks, with their types.

Taken from the parameter types of SDK 2.12.0. A kind is "string", "dictionary", "list", "boolean", "integer", with
"?" if null is taken as well, or "any".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["BLOCKS", "BODY", "COUNT_BODY", "EDITS", "REQUIRED", "BlockShape", "EditShape", "describe_kind", "fits_kind"]

_KINDS: Mapping[str, type] = {"string": str, "dictionary": dict, "list": list, "boolean": bool, "integer": int}


def fits_kind(kind: str, value: object) -> bool:
    """Return True if a value is of a kind."""
    if kind == "any" or (value is None and kind.endswith("?")):
        return True
    kinds = kind.rstrip("?").split("|")
    return any(isinstance(value, _KINDS[each]) and (each != "integer" or type(value) is int) for each in kinds)


def describe_kind(kind: str) -> str:
    """Return the error text for a value that is not of a kind."""
    return f"Input should be a valid {kind.rstrip('?').replace('|', ' or ')}"


@dataclass(frozen=True, slots=True)
class BlockShape:
    """A block type: where it is allowed, its fields other than `type`, and the prefix of the beta that it needs."""

    within: frozenset[str]
    required: Mapping[str, str]
    optional: Mapping[str, str] = field(default_factory=dict)
    beta: str | None = None

    @property
    def fields(self) -> Mapping[str, str]:
        """All fields other than `type`."""
        return {**self.required, **self.optional}


def _make_shape(
    within: str, required: str, optional: str = "", *, cached: bool = True, beta: str | None = None
) -> BlockShape:
    more = _parse_fields(optional) | ({"cache_control": "dictionary?"} if cached else {})
    return BlockShape(frozenset(within.split()), _parse_fields(required), more, beta)


def _parse_fields(text: str) -> dict[str, str]:
    return dict(pair.split(":") for pair in text.split())


_RESULT = "tool_use_id:string content:dictionary"
BLOCKS: Mapping[str, BlockShape] = {
    "text": _make_shape(
        "user assistant system tool_result search_result document mcp_tool_result", "text:string", "citations:list?"
    ),
    "image": _make_shape("user tool_result document", "source:dictionary", "transformations:dictionary?"),
    "document": _make_shape(
        "user tool_result assistant", "source:dictionary", "title:string? context:string? citations:dictionary?"
    ),
    "search_result": _make_shape("user tool_result", "source:string title:string content:list", "citations:dictionary"),
    "thinking": _make_shape("assistant", "thinking:string signature:string", cached=False),
    "redacted_thinking": _make_shape("assistant", "data:string", cached=False),
    "tool_use": _make_shape(
        "assistant", "id:string name:string input:dictionary", "caller:dictionary toolset_name:string?"
    ),
    "tool_result": _make_shape(
        "user", "tool_use_id:string", "content:string|list is_error:boolean toolset_name:string?"
    ),
    "tool_reference": _make_shape("tool_result tool_search_tool_result", "tool_name:string"),
    "browser_state": _make_shape("tool_result", "tabs:list", "state_changes:list?"),
    "server_tool_use": _make_shape("assistant", "id:string name:string input:dictionary", "caller:dictionary"),
    "web_search_tool_result": _make_shape(
        "assistant", "tool_use_id:string content:list|dictionary", "caller:dictionary"
    ),
    "web_search_result": _make_shape(
        "web_search_tool_result", "url:string title:string encrypted_content:string", "page_age:string?", cached=False
    ),
    "web_fetch_tool_result": _make_shape("assistant", _RESULT, "caller:dictionary"),
    "code_execution_tool_result": _make_shape("assistant", _RESULT),
    "bash_code_execution_tool_result": _make_shape("assistant", _RESULT),
    "text_editor_code_execution_tool_result": _make_shape("assistant", _RESULT),
    "tool_search_tool_result": _make_shape("assistant", _RESULT),
    "container_upload": _make_shape("user assistant", "file_id:string"),
    "advisor_tool_result": _make_shape("assistant", _RESULT, beta="advisor-tool"),
    "mcp_tool_use": _make_shape(
        "assistant", "id:string name:string input:dictionary server_name:string", beta="mcp-client"
    ),
    "mcp_tool_result": _make_shape(
        "assistant user", "tool_use_id:string", "content:string|list is_error:boolean", beta="mcp-client"
    ),
    "mcp_tool_listing": _make_shape("assistant", "mcp_server_name:string tools:list", cached=False, beta="mcp-client"),
    "compaction": _make_shape(
        "assistant user system",
        "",
        "content:string? encrypted_content:string? signature:string? tool_changes:list?",
        beta="compact",
    ),
    "fallback": _make_shape(
        "assistant", "from:dictionary to:dictionary", "trigger:any", cached=False, beta="server-side-fallback"
    ),
    "tool_addition": _make_shape("system", "tool:any", beta="mid-conversation-tool-changes"),
    "tool_removal": _make_shape("system", "tool:any", beta="mid-conversation-tool-changes"),
}
"""All block types, by name. A `document` in an assistant message has a rule of its own, so its shape lets it pass."""

COUNT_BODY: Mapping[str, str] = _parse_fields(
    "model:string messages:list system:string|list tools:list tool_choice:dictionary thinking:dictionary "
    "cache_control:dictionary? output_config:dictionary speed:string?"
)
BODY: Mapping[str, str] = {
    **COUNT_BODY,
    **_parse_fields(
        "max_tokens:integer stream:boolean container:string|dictionary? diagnostics:dictionary? inference_geo:string? "
        "metadata:dictionary service_tier:string stop_sequences:list"
    ),
}
REQUIRED = ("model", "max_tokens", "messages")

BETA_FIELDS: Mapping[str, tuple[str, str | tuple[str, ...]]] = {
    "context_management": ("dictionary?", ("context-management", "compact-2026-01-12")),
    "mcp_servers": ("list", "mcp-client"),
    "fallbacks": ("any", "server-side-fallback"),
    "fallback_credit_token": ("any", "fallback-credit"),
    "billing_policy": ("dictionary?", "user-profiles-billing"),
    "compaction": ("dictionary?", "compact-2026-09-04"),
    "thread": ("any", "message-threads"),
}
"""Fields of the body that need a beta: their kind, and the prefix of the beta (or several prefixes)."""


@dataclass(frozen=True, slots=True)
class EditShape:
    """An edit of `context_management`: the beta that it needs, and the kinds of its fields other than `type`.

    Alternatives are separated by "|"; "input_tokens" and the like mean an amount: {"type": ..., "value": ...}.
    """

    beta: str
    fields: Mapping[str, str]


EDITS: Mapping[str, EditShape] = {
    "clear_thinking_20251015": EditShape("context-management-2025-06-27", {"keep": "thinking_turns|all"}),
    "clear_tool_uses_20250919": EditShape(
        "context-management-2025-06-27",
        _parse_fields(
            "trigger:input_tokens|tool_uses keep:tool_uses clear_at_least:input_tokens|null exclude_tools:names|null "
            "clear_tool_inputs:boolean|names|null"
        ),
    ),
    "compact_20260112": EditShape(
        "compact-2026-01-12",
        _parse_fields("trigger:input_tokens|null instructions:string|null pause_after_compaction:boolean"),
    ),
}
"""All edits, by type."""

SAMPLING = ("temperature", "top_p", "top_k")
"""Fields that version 2026-10-21 of the API removed."""


def body_fields(*, counts_only: bool) -> Mapping[str, Any]:
    """Return the fields of the body that need no beta, and their kinds.

    Args:
        counts_only: Whether the request only counts tokens.

    Returns:
        Kinds by name of the field.
    """
    return COUNT_BODY if counts_only else BODY
