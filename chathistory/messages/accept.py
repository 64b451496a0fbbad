"""Accept a message that a caller passes: a dict, a response of the SDK, or either of them as another program stored it.

A message is stored exactly as it was sent or received. The API refuses keys in a request that do not belong there, so
everything except role and content (the id, usage and stop reason of a response; fields of other programs) is stored
next to the message, not inside it.

Everything that is stored can be sent. So a message is checked once, when it is passed in:

- A *response* (an object of the SDK, or a dict with type "message") is stored as it is, because it was paid for. Parts
  that the API would not take back are left out when it is sent.
- Any other message is refused if it cannot be adjusted to what the API takes; the error gives the path of the field.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from chathistory.checks import class_name
from chathistory.errors import InvalidInput
from chathistory.messages.block_fields import BLOCK_ROLES, FIELDS_OF_SYSTEM, find_block_type
from chathistory.messages.content import ROLES, Message
from chathistory.messages.fit_blocks import Misfit, fit_block, fit_system, is_common_block
from chathistory.messages.foreign_names import FOREIGN_TYPES
from chathistory.messages.json_values import is_sdk_object, to_plain_json

__all__ = ["AcceptedMessage", "accept_message"]

_FIELDS = ("role", "content")
_FOREIGN_CALLS = ("tool_calls", "function_call")
"""Fields in which messages of other APIs have tool calls, which must not be lost."""


@dataclass(frozen=True, slots=True)
class AcceptedMessage:
    """A message that can be stored and sent, and the other fields that the caller passed with it.

    Attributes:
        message: The message: role, content, and the other fields that a request may have.
        response: The other fields of a response of the API; None if the message is not a response.
        request_id: The request id of a response.
        extra: Other fields that the caller passed; they are stored and not sent.
        received: Whether the blocks came from the API, as objects of the SDK, although they are not a whole response.
    """

    message: Message
    response: dict[str, Any] | None = None
    request_id: str | None = None
    unsent_fields: dict[str, Any] | None = None
    received: bool = False


def accept_message(value: Any) -> AcceptedMessage:
    """Check a message, and separate what can be sent from its other fields.

    Args:
        value: A dict with role and content, or an object of the SDK such as the `Message` that `create` returns.

    Raises:
        InvalidInput: A field does not belong to a message, or cannot be stored or sent; the text gives its path.
    """
    values = to_plain_json(value)
    if not isinstance(values, dict):
        raise InvalidInput(
            f"message: must be a dict with role and content, or an object of the SDK, not {class_name(value)}"
        )
    if len(values) == len(_FIELDS) and isinstance(values.get("content"), str) and values.get("role") in ROLES:
        return AcceptedMessage(values)
    is_system, is_reply = values.get("role") == "system", values.get("role") == "assistant"
    # a program may have saved a reply without its type
    is_untyped = isinstance(values.get("model"), str) and isinstance(values.get("usage"), dict) and "type" not in values
    is_response = is_reply and (is_untyped or values.get("type") == "message")
    sendable = (*_FIELDS, *(FIELDS_OF_SYSTEM if is_system else ()))
    order = sendable if is_response else values  # a response gets the order of a request
    message = {name: values[name] for name in order if name in sendable and name in values}
    extra = {name: value for name, value in values.items() if name not in sendable}
    if is_response:
        extra.pop("type", None)
        _check_response(extra)
        _check_content(message)
        request_id = getattr(value, "_request_id", None)
        return AcceptedMessage(message, extra, request_id if isinstance(request_id, str) else None)
    for name in _FOREIGN_CALLS:
        if extra.get(name):
            raise InvalidInput(
                f"message.{name}: is not a field of the Messages API; pass a tool call as a tool_use block in content"
            )
    _check_content(message)
    if is_system:
        _refuse_first("message", fit_system(message, strict=True).misfits)
    if isinstance(message["content"], str):
        return AcceptedMessage(message, unsent_fields=extra or None)
    given_blocks = value.get("content") if isinstance(value, Mapping) else None
    received = list(map(is_sdk_object, given_blocks)) if is_reply and isinstance(given_blocks, list | tuple) else []
    unknown = {False: False, True: False}  # by origin (from the API or not): whether it has a block that is not known
    for index, block in enumerate(message["content"]):
        from_api = index < len(received) and received[index]
        is_known = _check_block(block, message["role"], f"message.content[{index}]", from_api=from_api)
        unknown[from_api] |= not is_known
    return AcceptedMessage(message, unsent_fields=extra or None, received=unknown[True] and not unknown[False])


def _check_response(extra: dict[str, Any]) -> None:
    """Raise `InvalidInput` for fields that a response cannot have."""
    if not isinstance(extra.get("usage"), dict | None):
        raise InvalidInput(f"message.usage: must be a dict, not {class_name(extra['usage'])}")
    for name in ("model", "stop_reason"):
        if not isinstance(extra.get(name), str | None):
            raise InvalidInput(f"message.{name}: must be text, not {class_name(extra[name])}")
    if "stop_reason" in extra and extra["stop_reason"] is None:
        raise InvalidInput(
            "message.stop_reason: must be text; null means that the reply was interrupted. To store the part that "
            "arrived, pass only its role and content"
        )


def _check_content(message: Message) -> None:
    """Raise `InvalidInput` for a role or content that this library could not read again."""
    if message.get("role") not in ROLES:
        raise InvalidInput(f"message.role: must be one of {', '.join(ROLES)}")
    if not isinstance(message.get("content"), str):
        _check_blocks(message.get("content"), "message.content")


def _check_blocks(blocks: Any, path: str) -> None:
    if not isinstance(blocks, list):
        raise InvalidInput(f"{path}: must be text or a list of content blocks, not {class_name(blocks)}")
    for index, block in enumerate(blocks):
        block_path = f"{path}[{index}]"
        if not (isinstance(block, dict) and isinstance(block.get("type"), str)):
            raise InvalidInput(f"{block_path}: must be a content block, a dict with a type")
        for name in _TEXT_FIELDS.get(block["type"], ("tool_use_id",) if block["type"].endswith("_tool_result") else ()):
            if not isinstance(block.get(name), str):
                raise InvalidInput(f"{block_path}.{name}: must be text")
        if block["type"] in _NESTING_TYPES and not isinstance(block.get("content", ""), str | None):
            _check_blocks(block["content"], f"{block_path}.content")


_NESTING_TYPES = frozenset({"tool_result", "search_result"})
"""The types of blocks that may contain content blocks; the API has the same rules for these as for a message."""

_TEXT_FIELDS = {
    "text": ("text",),
    "tool_use": ("id",),
    "tool_result": ("tool_use_id",),
    "server_tool_use": ("id",),
    "mcp_tool_use": ("id",),
}
"""The fields of a block that must be text, by its type."""


def _check_block(block: dict[str, Any], role: str, path: str, *, from_api: bool) -> bool:
    """Return True if the table has the type and all fields of a block.

    A reply may have a block type of a later API. Any other block must fit what the API takes.

    Raises:
        InvalidInput: The block cannot be adjusted to what the API takes.
    """
    kind = block["type"]
    if find_block_type(kind) is None:
        if kind in FOREIGN_TYPES or role != "assistant":
            known = [name for name, roles in BLOCK_ROLES.items() if role in roles]
            raise InvalidInput(
                f"{path}.type: a message with the role {role} cannot have this block; the type must be one of "
                f"{', '.join(known)}"
            )
        return False
    if not from_api and role not in BLOCK_ROLES[kind]:
        raise InvalidInput(
            f"{path}: a {kind} block must be in a message with the role {' or '.join(BLOCK_ROLES[kind].split())}"
        )
    if is_common_block(block):
        return True
    fitted = fit_block(block, role=role, strict=True)
    if fitted.block is None and not from_api:
        _refuse_first(path, fitted.misfits, except_path=_INCOMPLETE.get(kind))
    return not fitted.misfits


_INCOMPLETE = {"thinking": ".signature", "redacted_thinking": ".data"}
"""The fields that thinking of other models, or of half a stream, does not have; it is stored, and not sent."""


def _refuse_first(path: str, misfits: Iterable[Misfit], *, except_path: str | None = None) -> None:
    """Raise `InvalidInput` for the first field that cannot be adjusted, except the one at `except_path`."""
    for misfit in misfits:
        if misfit.effect == "unfit" and misfit.path != except_path:
            raise InvalidInput(f"{path}{misfit.path}: {misfit.problem}")
