"""Messages as they are handed in: a dict to send, a response of the SDK, or either as stored elsewhere.

Stored is exactly what was sent and received. What stands beside role and content (a response's id, usage and stop
reason; what other programs add) is kept beside the message, never inside it: the API refuses keys that do not belong
into a request.

What is stored can be sent. So a message is looked at once, when it enters:

- A *response* (an object of the SDK, or a dict with type "message") is taken as it came, for it was paid for; what the
  API would not take back is left out when it is sent.
- Any other message is refused, with the path of the field, if it cannot be made to fit what the API takes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from chathistory.errors import InvalidInput
from chathistory.messages.block_fields import BLOCK_ROLES, FIELDS_OF_SYSTEM, find_block_type
from chathistory.messages.content import ROLES, Message
from chathistory.messages.fit_blocks import Misfit, fit_block, fit_system, is_common_block
from chathistory.messages.foreign_names import FOREIGN_TYPES
from chathistory.messages.json_values import is_sdk_object, to_plain_json

__all__ = ["AcceptedMessage", "accept_message"]

_FIELDS = ("role", "content")
_WITH_CONTENT = ("tool_calls", "function_call")
"""Fields in which messages of other APIs have a part of what was said."""


@dataclass(frozen=True, slots=True)
class AcceptedMessage:
    """A message that can be stored and sent, and what was handed in beside its role and content.

    Attributes:
        message: Its role and content, and what else the API takes beside these.
        response: The other fields of a response of the API; None: it is none.
        request_id: Of a response.
        beside: Other fields that were handed in, and are not sent.
        received: Whether objects of the SDK came from the API, though they are no whole response.
    """

    message: Message
    response: dict[str, Any] | None = None
    request_id: str | None = None
    extra: dict[str, Any] | None = None
    received: bool = False


def accept_message(value: Any) -> AcceptedMessage:
    """Check a message and separate role and content from what belongs beside them.

    Args:
        value: A dict with role and content, or an object of the SDK such as the `Message` that `create` returns.

    Raises:
        InvalidInput: A field is not one of a message, or cannot be stored or sent; the error names its path.
    """
    values = to_plain_json(value)
    if not isinstance(values, dict):
        raise InvalidInput("a message is a dict with role and content, or an object of the SDK")
    if len(values) == len(_FIELDS) and isinstance(values.get("content"), str) and values.get("role") in ROLES:
        return AcceptedMessage(values)
    is_system, is_reply = values.get("role") == "system", values.get("role") == "assistant"
    # a program may have saved a reply without its type
    is_whole = isinstance(values.get("model"), str) and isinstance(values.get("usage"), dict) and "type" not in values
    is_response = is_reply and (is_whole or values.get("type") == "message")
    taken = (*_FIELDS, *(FIELDS_OF_SYSTEM if is_system else ()))
    order = taken if is_response else values  # the SDK's
    message = {name: values[name] for name in order if name in taken and name in values}
    beside = {name: value for name, value in values.items() if name not in taken}
    if is_response:
        beside.pop("type", None)
        _check_response(beside)
        _check_content(message)
        request_id = getattr(value, "_request_id", None)
        return AcceptedMessage(message, beside, request_id if isinstance(request_id, str) else None)
    for name in _WITH_CONTENT:
        if beside.get(name):
            raise InvalidInput(
                f"message.{name}: is not a field of the Messages API; a tool call must be a tool_use block in content"
            )
    _check_content(message)
    if is_system:
        _refuse_first("message", fit_system(message, strict=True).misfits)
    if isinstance(message["content"], str):
        return AcceptedMessage(message, extra=beside or None)
    given_blocks = value.get("content") if isinstance(value, Mapping) else None
    received = list(map(is_sdk_object, given_blocks)) if is_reply and isinstance(given_blocks, list | tuple) else []
    unknown = {False: False, True: False}  # whether something is, of what was made by hand, and of what the API gave
    for index, block in enumerate(message["content"]):
        from_api = index < len(received) and received[index]
        is_known = _check_block(block, message["role"], f"message.content[{index}]", from_api=from_api)
        unknown[from_api] |= not is_known
    return AcceptedMessage(message, extra=beside or None, received=unknown[True] and not unknown[False])


def _check_response(beside: dict[str, Any]) -> None:
    """Raise `InvalidInput` for what a response cannot tell beside role and content."""
    if not isinstance(beside.get("usage"), dict | None):
        raise InvalidInput("message.usage: must be a dict")
    for name in ("model", "stop_reason"):
        if not isinstance(beside.get(name), str | None):
            raise InvalidInput(f"message.{name}: must be text")
    if "stop_reason" in beside and beside["stop_reason"] is None:
        raise InvalidInput(
            "message.stop_reason: must be text; null means that the reply is not complete: its stream broke off"
        )


def _check_content(message: Message) -> None:
    """Raise `InvalidInput` for what nothing here could read again."""
    if message.get("role") not in ROLES:
        raise InvalidInput(f"message.role: must be one of {', '.join(ROLES)}")
    if not isinstance(message.get("content"), str):
        _check_blocks(message.get("content"), "message.content")


def _check_blocks(blocks: Any, path: str) -> None:
    if not isinstance(blocks, list):
        raise InvalidInput(f"{path}: must be text or a list of content blocks")
    for index, block in enumerate(blocks):
        place = f"{path}[{index}]"
        if not (isinstance(block, dict) and isinstance(block.get("type"), str)):
            raise InvalidInput(f"{place}: must be a content block, which is a dict with a type")
        for name in _NAMED.get(block["type"], ("tool_use_id",) if block["type"].endswith("_tool_result") else ()):
            if not isinstance(block.get(name), str):
                raise InvalidInput(f"{place}.{name}: must be text")
        if block["type"] in _WITH_BLOCKS and not isinstance(block.get("content", ""), str | None):
            _check_blocks(block["content"], f"{place}.content")


_WITH_BLOCKS = frozenset({"tool_result", "search_result"})
"""The types of blocks whose content may be content blocks that the API holds to the rules of a message's."""

_NAMED = {
    "text": ("text",),
    "tool_use": ("id",),
    "tool_result": ("tool_use_id",),
    "server_tool_use": ("id",),
    "mcp_tool_use": ("id",),
}
"""The fields of a block that have to be text, by its type."""


def _check_block(block: dict[str, Any], role: str, path: str, *, from_api: bool) -> bool:
    """Return whether the table has the type and all fields of a block.

    Raises `InvalidInput` for one that cannot be made to fit what the API takes; a reply may hold a type of a later API.
    """
    kind = block["type"]
    if find_block_type(kind) is None:
        if kind in FOREIGN_TYPES or role != "assistant":
            known = [name for name, roles in BLOCK_ROLES.items() if role in roles]
            raise InvalidInput(
                f"{path}.type: is not a content block of a message with the role {role}; it must be {', '.join(known)}"
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
        _refuse_first(path, fitted.misfits, but=_INCOMPLETE.get(kind))
    return not fitted.misfits


_INCOMPLETE = {"thinking": ".signature", "redacted_thinking": ".data"}
"""What thinking of other models, or of half a stream, lacks; it is stored, and not sent."""


def _refuse_first(path: str, misfits: Iterable[Misfit], *, but: str | None = None) -> None:
    """Raise `InvalidInput` for the first field that cannot be made to fit; but: what may stay as it is."""
    for misfit in misfits:
        if misfit.effect == "unfit" and misfit.path != but:
            raise InvalidInput(f"{path}{misfit.path}: {misfit.problem}")
