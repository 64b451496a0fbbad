"""Checks of the settings of compaction and context editing, before the messages are checked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from chathistory.testing.fake_api import request_fields
from chathistory.testing.fake_api.compaction import COMPACT
from chathistory.testing.fake_api.request import ApiRequest

__all__ = [
    "budget_left",
    "compaction_malformed",
    "compaction_without_beta",
    "edit_malformed",
    "edit_of_beta",
    "edit_unknown",
    "incompatible_settings",
    "thinking_cleared_late",
    "thinking_off",
    "trigger_too_small",
]

Found = Iterator[dict[str, Any]]
ON_DEMAND = "compact-2026-09-04"
_LONGEST = 16_384


def compaction_without_beta(request: ApiRequest) -> Found:
    """A summary is requested without its beta header."""
    if "compaction" in request.body and not request.has_beta(ON_DEMAND):
        yield {}


def compaction_malformed(request: ApiRequest) -> Found:
    """`compaction` has another type than "summarize", unknown fields, or instructions that are too long."""
    given = request.body.get("compaction") or {"type": "summarize"}
    if given.get("type") != "summarize":
        yield {"path": "compaction.type", "wanted": "Input should be 'summarize'"}
    for name in given.keys() - {"type", "instructions"}:
        yield {"path": f"compaction.{name}", "wanted": "Extra inputs are not permitted"}
    words = given.get("instructions")
    if not isinstance(words, str | None) or len(words or "") > _LONGEST:
        yield {"path": "compaction.instructions", "wanted": f"String should have at most {_LONGEST} characters"}


def incompatible_settings(request: ApiRequest) -> Found:
    """A summary is requested together with edits or with settings for replies."""
    if not request.compacts:
        return
    choice = request.body.get("tool_choice", {}).get("type")
    unwanted = {
        "context_management": request.body.get("context_management"),
        "stop_sequences": request.body.get("stop_sequences"),
        "output_config.format": request.body.get("output_config", {}).get("format"),
        "tool_choice": choice in ("any", "tool"),
    }
    yield from ({"name": name} for name, value in unwanted.items() if value)


def budget_left(request: ApiRequest) -> Found:
    """`output_config.task_budget.remaining` is sent with a compaction or its block."""
    budget = request.body.get("output_config", {}).get("task_budget")
    left = isinstance(budget, dict) and budget.get("remaining") is not None
    if left and (request.compacts or any(place.summarizes for place in request.outer_places)):
        yield {}


def _numbered_edits(request: ApiRequest) -> Iterator[tuple[str, Any]]:
    given = request.body.get("context_management") or {}
    edits = given.get("edits")
    yield from ((f"context_management.edits.{number}", edit) for number, edit in enumerate(edits or ()))


def edit_unknown(request: ApiRequest) -> Found:
    """`context_management` has other fields than a list of edits, or an edit of an unknown type."""
    given = request.body.get("context_management") or {}
    for name in given.keys() - {"edits"}:
        yield {"path": f"context_management.{name}", "wanted": "Extra inputs are not permitted"}
    listed = isinstance(given.get("edits", []), list)
    if not listed:
        yield {"path": "context_management.edits", "wanted": "Input should be a valid list"}
    for path, edit in _numbered_edits(request) if listed else ():
        type_ = edit.get("type") if isinstance(edit, dict) else None
        if not isinstance(type_, str) or type_ not in request_fields.EDITS:
            yield {"path": path, "wanted": _unknown_edit_text(type_)}


def _unknown_edit_text(type_: object) -> str:
    expected = ", ".join(f"'{name}'" for name in request_fields.EDITS)
    return f"Input tag {type_!r} found using 'type' does not match any of the expected tags: {expected}"


def edit_of_beta(request: ApiRequest) -> Found:
    """An edit is sent without its beta header."""
    for path, edit in _numbered_edits(request):
        if not request.has_beta(request_fields.EDITS[edit["type"]].beta):
            yield {"path": path, "type": edit["type"]}


def edit_malformed(request: ApiRequest) -> Found:
    """An edit has an unknown field, or a field of the wrong type."""
    for path, edit in _numbered_edits(request):
        fields = request_fields.EDITS[edit["type"]].fields
        for name, value in edit.items():
            if name == "type":
                continue
            if name not in fields:
                yield {"path": f"{path}.{edit['type']}.{name}", "wanted": "Extra inputs are not permitted"}
            elif not _fits_kinds(fields[name], value):
                yield {"path": f"{path}.{edit['type']}.{name}", "wanted": f"Input should be {fields[name]}"}


def _fits_kinds(kind: str, value: object) -> bool:
    """Return True if a value fits one of the alternatives of a kind; "input_tokens" means an amount of them."""
    return any(_is_kind(each, value) for each in kind.split("|"))


def _is_kind(kind: str, value: object) -> bool:
    match kind:
        case "null":
            return value is None
        case "boolean" | "string":
            return isinstance(value, bool if kind == "boolean" else str)
        case "names":
            return isinstance(value, list) and all(isinstance(name, str) for name in value)
        case "all":
            return value in ("all", {"type": "all"})
        case _:
            return _is_amount(kind, value)


def _is_amount(kind: str, value: object) -> bool:
    if not isinstance(value, Mapping) or set(value) != {"type", "value"} or value["type"] != kind:
        return False
    least = 1 if kind == "thinking_turns" else 0
    return type(value["value"]) is int and value["value"] >= least


def trigger_too_small(request: ApiRequest) -> Found:
    """The trigger of a compaction is smaller than the API allows."""
    least = request.setting.smallest_trigger
    for path, edit in _numbered_edits(request):
        if edit["type"] == COMPACT and (edit.get("trigger") or {}).get("value", least) < least:
            yield {"path": path, "least": least}


def thinking_cleared_late(request: ApiRequest) -> Found:
    """`clear_thinking_20251015` is not the first edit."""
    for path, edit in _numbered_edits(request):
        if edit["type"] == "clear_thinking_20251015" and not path.endswith(".0"):
            yield {}


def thinking_off(request: ApiRequest) -> Found:
    """Thinking is cleared in a request that switches thinking off."""
    off = request.body.get("thinking", {}).get("type") == "disabled"
    if off and any(edit["type"] == "clear_thinking_20251015" for _, edit in _numbered_edits(request)):
        yield {}
