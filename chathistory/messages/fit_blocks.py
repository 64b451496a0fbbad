"""Adjust a content block to what the Messages API takes, by the table of fields.

The same code serves a message that is passed in and a message that is sent. A block that cannot be adjusted is refused
when it is passed in, with the path of the field. A block that can be adjusted is stored unchanged, and adjusted each
time it is sent. So a later version with a larger table sends more of what is stored.
"""

from __future__ import annotations

import binascii
import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from typing import Any, Literal, TypeAlias

from chathistory.checks import key_in_path
from chathistory.messages.block_fields import FIELDS_OF_SYSTEM, Field, find_block_type, find_fields
from chathistory.messages.foreign_names import is_api_field
from chathistory.messages.json_values import DECODER, iter_levels

__all__ = ["TOOL_CALL_TYPES", "Fitted", "Misfit", "fit_block", "fit_system", "is_common_block"]

Block: TypeAlias = dict[str, Any]
Effect: TypeAlias = Literal["form", "content", "unfit"]

TOOL_CALL_TYPES = frozenset({"tool_use", "server_tool_use", "mcp_tool_use"})
"""The types of blocks that call a tool."""

LONGEST_NAME = 200
"""The most characters that the API takes for the name of a called tool."""

_DEEPEST = 190  # levels of an object that was given as text; with its message around it stays below 200
_LEFT_OUT = object()
_WITHOUT_BLANKS = frozenset({"ToolResultBlock", "SearchResultBlock", "ContentBlockSource"})


@dataclass(frozen=True, slots=True)
class Misfit:
    """A field of a block that the API does not take, and what is done about it.

    Attributes:
        path: The path of the field within the block, such as ".source.data".
        problem: What is expected there, or what was done; it quotes nothing of the block.
        effect: "form": the model still reads the same. "content": something is left out or replaced. "unfit": the block
            cannot be sent.
    """

    path: str
    problem: str
    effect: Effect


@dataclass(frozen=True, slots=True)
class Fitted:
    """A block that was adjusted.

    Attributes:
        block: The block to send: the given object itself if it needs no adjustment; None if it cannot be sent.
        misfits: The fields that did not fit.
    """

    block: Block | None
    misfits: tuple[Misfit, ...] = ()


def fit_block(block: Block, *, role: str, received: bool = False, strict: bool = False) -> Fitted:
    """Adjust a block to what the API takes.

    Args:
        block: The block; the table must have its type.
        role: The role of its message.
        received: Whether the block came from the API, which takes back what it returned: fields that the table does not
            know are kept.
        strict: Whether an optional field that cannot be adjusted makes the block unfit, instead of being left out, and
            whether attached data are checked.
    """
    name = find_block_type(block["type"])
    assert name is not None  # noqa: S101  # the caller looks it up first
    fitter = _Fitter(received=received, strict=strict, cites=role == "assistant")
    fitted: Block = fitter.fit_object(block, name, "")
    if any(misfit.effect == "unfit" for misfit in fitter.misfits):
        return Fitted(None, tuple(fitter.misfits))
    return Fitted(fitted if fitter.misfits else block, tuple(fitter.misfits))


def fit_system(message: Block, *, strict: bool = False) -> Fitted:
    """Adjust the fields of a system message other than role and content to what the API takes.

    Args:
        message: The message.
        strict: As for `fit_block`.
    """
    fitter = _Fitter(received=False, strict=strict, cites=False)
    fitted = {}
    for name, value in message.items():
        field = FIELDS_OF_SYSTEM.get(name)
        sendable = fitter.fit_field(value, field, f".{name}", "SystemMessage", name) if field else value
        if sendable is not _LEFT_OUT:
            fitted[name] = sendable
    return Fitted(fitted if fitter.misfits else message, tuple(fitter.misfits))


def is_common_block(block: Block) -> bool:
    """Return True if a block is one of the usual ones, fits, and is not blank: a fast check that most blocks pass.

    Args:
        block: The block.

    Returns:
        False if the block needs the full check.
    """
    kind = block["type"]
    if kind not in _USUAL:
        return False
    not_blank, required, types = _USUAL[kind]
    for name in required:
        if name not in block:
            return False
    for name, value in block.items():
        if type(value) not in types.get(name, ()):
            return False
    return bool(block[not_blank].strip()) and (kind != "tool_use" or len(block["name"]) <= LONGEST_NAME)


_TEXT, _FLAG, _NOTHING = (str,), (bool,), (type(None),)
_USUAL: Mapping[str, tuple[str, tuple[str, ...], Mapping[str, tuple[type, ...]]]] = {
    "text": ("text", ("text",), {"type": _TEXT, "text": _TEXT, "citations": _NOTHING}),
    "tool_use": (
        "name",
        ("id", "name", "input"),
        {"type": _TEXT, "id": _TEXT, "name": _TEXT, "input": (dict,), "toolset_name": _TEXT},
    ),
    "tool_result": (
        "tool_use_id",
        ("tool_use_id",),
        {"type": _TEXT, "tool_use_id": _TEXT, "content": _TEXT, "is_error": _FLAG},
    ),
    "thinking": ("signature", ("thinking", "signature"), {"type": _TEXT, "thinking": _TEXT, "signature": _TEXT}),
    "redacted_thinking": ("data", ("data",), {"type": _TEXT, "data": _TEXT}),
}
"""For each usual block: the field that must not be blank, the required fields, and the types of all fields."""


@dataclass(slots=True)
class _Fitter:
    """Walks through one block, and collects its misfits.

    Attributes:
        received: Whether the block came from the API.
        strict: See `fit_block`.
        cites: Whether its texts may have citations.
        misfits: The fields that did not fit.
    """

    received: bool
    strict: bool
    cites: bool
    misfits: list[Misfit] = dataclass_field(default_factory=list)

    def fit_object(self, value: Block, name: str, path: str) -> Block:
        """Return an object as it can be sent.

        Args:
            value: The object.
            name: The name of its type in the table.
            path: The path of the object within the block.
        """
        fields, fitted = find_fields(name), Block()
        for key, part in value.items():
            if (field := fields.get(key)) is not None:
                sendable = self.fit_field(part, field, f"{path}.{key}", name, key)
            elif self.received and is_api_field(key, part):
                sendable = part
            else:
                sendable = self._leave_field_out(f"{path}{key_in_path(key)}", "is not a field of the API", "form")
            if sendable is not _LEFT_OUT:
                fitted[key] = sendable
        for key in (key for key, field in fields.items() if field.required and key not in value):
            if key == "input" and name in _CALLS_IN_TABLE:
                self._add_misfit(f"{path}.input", "is missing, and sent as {}", "form")
                fitted["input"] = {}
            elif name == "ThinkingBlock" and key == "thinking":
                self._add_misfit(f"{path}.thinking", "is missing, and sent as empty text", "form")
                fitted["thinking"] = ""
            else:
                self._add_misfit(f"{path}.{key}", "is required", "form" if self.received else "unfit")
        return fitted

    def fit_field(self, value: Any, field: Field, path: str, name: str, key: str) -> Any:
        """Return the value of a field as it can be sent; an optional field is left out rather than the whole block.

        Args:
            value: The value.
            field: What the table says of the field.
            path: The path of the field within the block.
            name: The name in the table of the type that has the field.
            key: The name of the field.
        """
        before = len(self.misfits)
        fitted = self._fit_known(value, field, path, name, key)
        new = self.misfits[before:]
        if self.strict or field.required or all(misfit.effect != "unfit" for misfit in new):
            return fitted
        self.misfits[before:] = [
            Misfit(path, f"left out: {misfit.path[1:]} {misfit.problem}", "content") for misfit in new[:1]
        ]
        return _LEFT_OUT

    def _fit_known(self, value: Any, field: Field, path: str, name: str, key: str) -> Any:
        """Return the value of a field as it can be sent, by the rules for certain fields, otherwise by the table."""
        is_call = name in _CALLS_IN_TABLE
        if key == "cache_control":
            return self._leave_field_out(path, "belongs to one request only", "form")
        if key == "citations" and name == "TextBlock" and value and not self.cites:
            return self._leave_field_out(path, "left out: citations in a user message", "content")
        if is_call and key == "input":
            return self.fit_input(value, path)
        if (
            is_call and key == "name" and isinstance(value, str) and not field.literals
        ):  # literals: the names of the server's tools
            return self.fit_name(value, path)
        if value is None and (key == "toolset_name" or not {"null", "any"} & field.scalars):
            if path != ".thinking":
                return (
                    self._refuse_value(None, field, path)
                    if field.required
                    else self._leave_field_out(path, "is null", "form")
                )
            self._add_misfit(path, "is null, and sent as empty text", "form")
            value = ""
        if self.strict and key == "data" and name.startswith("Base64") and isinstance(value, str):
            self.check_data(value, path)
        return self._fit_value(value, field, path, blank=name not in _WITHOUT_BLANKS)

    def _fit_value(self, value: Any, field: Field, path: str, *, blank: bool = True) -> Any:
        """Return a value as it can be sent; with `blank`, blank texts are allowed in a list."""
        scalars = field.scalars
        if "any" in scalars or not scalars.isdisjoint(_SCALARS_OF.get(type(value), ())) or value in field.literals:
            return value
        if isinstance(value, dict):
            for name in field.types:
                if not (words := _type_words(name)) or value.get("type") in words:
                    return self.fit_object(value, name, path)
        if not (isinstance(value, list) and field.items):
            return self._refuse_value(value, field, path)
        fitted = []
        for index, part in enumerate(value):
            is_text = not blank and isinstance(part, dict) and part.get("type") == "text"
            if is_text and not str(part.get("text") or "").strip():
                self._add_misfit(f"{path}[{index}]", "left out: an empty text block", "content")
            else:
                fitted.append(self._fit_value(part, field.items, f"{path}[{index}]"))
        return fitted

    def _refuse_value(self, value: Any, field: Field, path: str) -> Any:
        """Record that a value does not fit; a value from the API is kept, because the API is newer than the table."""
        if self.received:
            return value
        if isinstance(value, dict) and field.types:
            known = [word for name in field.types for word in _type_words(name)]
            path, expected = f"{path}.type", f"must be {' or '.join(known)}"
        else:
            expected = field.requirement
        self._add_misfit(path, expected, "unfit")
        return value

    def _leave_field_out(self, path: str, problem: str, effect: Effect) -> Any:
        self._add_misfit(path, problem, effect)
        return _LEFT_OUT

    def fit_input(self, value: Any, path: str) -> Any:
        """Return the input of a tool call as it can be sent: an object, not the JSON text of one.

        Args:
            value: The input.
            path: Its path within the block.
        """
        if isinstance(value, dict):
            return value
        if value is None or value == "":
            self._add_misfit(path, "is empty, and sent as {}", "form")
            return {}
        parsed = None
        with contextlib.suppress(ValueError, RecursionError):
            parsed = DECODER.decode(value) if isinstance(value, str) else None
        if isinstance(parsed, dict) and all(depth <= _DEEPEST for depth, _ in enumerate(iter_levels(parsed))):
            self._add_misfit(path, "is JSON as text, and sent as an object", "form")
            return parsed
        if not self.received:
            self._add_misfit(
                path, f"must be an object, or the JSON text of one, nested at most {_DEEPEST} levels deep", "unfit"
            )
            return value
        self._add_misfit(path, "is not an object, and sent as text within one", "content")
        # the form that the API's page on fine-grained tool streaming recommends for invalid input
        return {"INVALID_JSON": value if isinstance(value, str) else json.dumps(value)}

    def fit_name(self, value: str, path: str) -> str:
        """Return the name of a called tool as it can be sent.

        Args:
            value: The name.
            path: Its path within the block.
        """
        if 0 < len(value) <= LONGEST_NAME:
            return value
        if value:
            self._add_misfit(path, f"is cut to {LONGEST_NAME} characters", "content")
            return value[:LONGEST_NAME]
        self._add_misfit(path, "must not be empty", "content" if self.received else "unfit")
        return "unknown_tool"

    def check_data(self, value: str, path: str) -> None:
        """Record attached data that are not base64, or empty.

        Args:
            value: The data.
            path: Their path within the block.
        """
        try:
            decoded = binascii.a2b_base64(value, strict_mode=True)
        except ValueError:
            self._add_misfit(path, "must be base64, without line breaks and without a data: prefix", "unfit")
            return
        if not decoded:
            self._add_misfit(path, "must not be empty", "unfit")

    def _add_misfit(self, path: str, problem: str, effect: Effect) -> None:
        self.misfits.append(Misfit(path, problem, effect))


_CALLS_IN_TABLE = frozenset({"ToolUseBlock", "ServerToolUseBlock", "MCPToolUseBlock"})
_SCALARS_OF: Mapping[type, tuple[str, ...]] = {
    str: ("str",),
    bool: ("bool",),
    int: ("int", "float"),
    float: ("float",),
    type(None): ("null",),
    dict: ("dict",),
}
"""The kinds of plain values, as the table names them, by Python type."""


def _type_words(name: str) -> tuple[str, ...]:
    field = find_fields(name).get("type")
    return field.literals if field else ()
