"""Checks of the fields and types of messages and content blocks."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from chathistory.testing.fake_api import request_fields
from chathistory.testing.fake_api.request import ApiRequest, PlacedBlock

__all__ = [
    "message_not_object",
    "missing_block_field",
    "missing_message_field",
    "no_content",
    "no_messages",
    "null_field",
    "tool_id",
    "tool_name",
    "unknown_block",
    "unknown_block_field",
    "unknown_message_field",
    "unknown_role",
    "unknown_tool_name",
    "wrong_block_field",
    "wrong_system_field",
]

Found = Iterator[dict[str, Any]]
_ROLES = ("user", "assistant", "system")
_SYSTEM_BETAS = {
    "clear_at": "mid-conversation-system-clear-at",
    "output_config": "mid-conversation-output-config",
}
_CLEAR_AT = ("next_user_message", "never")
_EFFORTS = ("low", "medium", "high", "xhigh", "max")
_ID = re.compile(r"[a-zA-Z0-9_-]+")
_SERVER_ID = re.compile(r"srvtoolu_[a-zA-Z0-9_]+")
_LONGEST_NAME = 200
_SERVER_TOOLS = {
    "web_search",
    "web_fetch",
    "code_execution",
    "bash_code_execution",
    "text_editor_code_execution",
    "tool_search_tool_regex",
    "tool_search_tool_bm25",
    "advisor",
}


def no_messages(request: ApiRequest) -> Found:
    """The list of messages is empty; a request for a summary gets another error."""
    if not request.body["messages"] and not request.compacts:
        yield {}


def message_not_object(request: ApiRequest) -> Found:
    """A message is not an object."""
    for number, message in enumerate(request.body["messages"]):
        if not isinstance(message, dict):
            yield {"path": f"messages.{number}"}


def missing_message_field(request: ApiRequest) -> Found:
    """A message lacks its role or its content."""
    for number, message in request.messages:
        for name in ("role", "content"):
            if name not in message and not (name == "content" and "output_config" in message):
                yield {"path": f"messages.{number}.{name}"}


def unknown_role(request: ApiRequest) -> Found:
    """A role is not user, assistant or system."""
    for number, message in request.messages:
        if message["role"] not in _ROLES:
            yield {"path": f"messages.{number}.role"}


def unknown_message_field(request: ApiRequest) -> Found:
    """A message has an unknown field, or a field of a beta without its header."""
    for number, message in request.messages:
        for name in message.keys() - {"role", "content"}:
            beta = _SYSTEM_BETAS.get(name) if message["role"] == "system" else None
            if beta is None or not request.has_beta(beta):
                yield {"path": f"messages.{number}.{name}"}
        config = message.get("output_config")
        for name in config.keys() - {"effort"} if isinstance(config, dict) else ():
            yield {"path": f"messages.{number}.output_config.{name}"}


def wrong_system_field(request: ApiRequest) -> Found:
    """A field of a system message has the wrong value."""
    for number, message in request.messages:
        path, clear_at, config = f"messages.{number}", message.get("clear_at"), message.get("output_config")
        if clear_at is not None and clear_at not in _CLEAR_AT:
            yield {"path": f"{path}.clear_at", "wanted": _expected_one_of(_CLEAR_AT)}
        if not isinstance(config, dict | None):
            yield {"path": f"{path}.output_config", "wanted": "Input should be a valid dictionary"}
        elif config and config.get("effort") is not None and config["effort"] not in _EFFORTS:
            yield {"path": f"{path}.output_config.effort", "wanted": _expected_one_of(_EFFORTS)}


def _expected_one_of(words: Sequence[str]) -> str:
    *first, last = (f"'{word}'" for word in words)
    return f"Input should be {', '.join(first)} or {last}"


def no_content(request: ApiRequest) -> Found:
    """The content of a message is neither a string nor a list."""
    for number, message in request.messages:
        if not isinstance(message.get("content", ""), str | list):
            yield {"path": f"messages.{number}.content"}


def unknown_block(request: ApiRequest) -> Found:
    """A block has no type, a type that is not allowed there, or the type of a beta without its header."""
    for place in request.known_places:
        shape = request_fields.BLOCKS.get(place.type) if isinstance(place.type, str) else None
        if shape is None or place.within not in shape.within or not _may_use(request, shape):
            yield {"path": place.path, "type": place.type, "expected": _expected_tags(request, place.within)}


def _may_use(request: ApiRequest, shape: request_fields.BlockShape) -> bool:
    return shape.beta is None or request.has_beta(shape.beta)


def _expected_tags(request: ApiRequest, within: str) -> str:
    fitting = (
        name for name, shape in request_fields.BLOCKS.items() if within in shape.within and _may_use(request, shape)
    )
    return ", ".join(f"'{name}'" for name in fitting)


def missing_block_field(request: ApiRequest) -> Found:
    """A block lacks a required field."""
    for place in request.known_places:
        for name in request_fields.BLOCKS[place.type].required:
            if name not in place.block:
                yield {"path": f"{place.path}.{place.type}.{name}"}


def unknown_block_field(request: ApiRequest) -> Found:
    """A block has a field that its type does not have in requests."""
    for place in request.known_places:
        for name in place.block:
            if name != "type" and name not in request_fields.BLOCKS[place.type].fields:
                yield {"path": f"{place.path}.{place.type}.{name}"}


def null_field(request: ApiRequest) -> Found:
    """An optional field of a block is null, but must not be."""
    for place, name, kind in _present_fields(request):
        if place.block[name] is None and not request_fields.fits_kind(kind, None):
            yield {"path": f"{place.path}.{place.type}.{name}", "wanted": request_fields.describe_kind(kind)}


def wrong_block_field(request: ApiRequest) -> Found:
    """A field of a block has the wrong type."""
    for place, name, kind in _present_fields(request):
        if not request_fields.fits_kind(kind, place.block[name]):
            yield {"path": f"{place.path}.{place.type}.{name}", "wanted": request_fields.describe_kind(kind)}


def _present_fields(request: ApiRequest) -> Iterator[tuple[PlacedBlock, str, str]]:
    for place in request.known_places:
        for name, kind in request_fields.BLOCKS[place.type].fields.items():
            if name in place.block:
                yield place, name, kind


def tool_id(request: ApiRequest) -> Found:
    """A tool call id has characters other than letters, digits, `_` and `-`, or is not a server tool's id."""
    for place in request.places:
        ids = _SERVER_ID if place.type == "server_tool_use" else _ID
        for name in ("id", "tool_use_id"):
            if not ids.fullmatch(str(place.block.get(name, "srvtoolu_fine"))):
                yield {"path": f"{place.path}.{place.type}.{name}", "pattern": f"^{ids.pattern}$"}


def tool_name(request: ApiRequest) -> Found:
    """The name of a called tool is empty, or longer than 200 characters."""
    for place in request.places:
        if place.type == "tool_use" and not 0 < len(place.block["name"]) <= _LONGEST_NAME:
            few = "at least 1 character" if not place.block["name"] else f"at most {_LONGEST_NAME} characters"
            yield {"path": f"{place.path}.tool_use.name", "wanted": f"String should have {few}"}


def unknown_tool_name(request: ApiRequest) -> Found:
    """A `server_tool_use` names a tool that the server does not have."""
    for place in request.places:
        if place.type == "server_tool_use" and place.block["name"] not in _SERVER_TOOLS:
            yield {"path": f"{place.path}.server_tool_use.name"}
