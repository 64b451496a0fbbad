"""The ids under which tool calls and their results are sent.

The API accepts ids of letters, digits, "_" and "-", and each id only once in a request. Gateways and other programs use
ids that it refuses ("functions.look:0", "call_1|fc_2"), and repeat ids in every reply ("call_1"). Such a call, and its
results, are sent under an id that is made from the position of the call. The log keeps the given id, and callers
continue to use it.

- An id that the API refuses, or that looks like one of ours, is always replaced.
- If an id is repeated, the first call keeps it. Later entries do not change that. A cut that hides the first call
  stores which of the others stay replaced (`ViewState.renamed_calls`).
- A result belongs to the last message before it that has a call with its id.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import field as dataclass_field

from chathistory.log.entry import Entry, select_messages
from chathistory.messages.content import Message
from chathistory.messages.fit_blocks import TOOL_CALL_TYPES
from chathistory.view.item import Block, Item, Notes, item_from_entry

__all__ = [
    "find_duplicate_calls",
    "map_sent_to_given_ids",
    "replace_ids",
    "restore_given_ids",
]

_PREFIX = {"tool_use": "toolu", "server_tool_use": "srvtoolu", "mcp_tool_use": "mcptoolu"}
_OWN_ID = re.compile("(?:toolu|srvtoolu|mcptoolu)_p[0-9]+_[0-9]+")
_LONGEST_ID = 64
"""Characters of an id. The API documents no limit; this is the limit of Bedrock."""
_VALID_ID = re.compile(f"[a-zA-Z0-9_-]{{1,{_LONGEST_ID}}}")
_VALID_SERVER_ID = re.compile(f"srvtoolu_[a-zA-Z0-9_]{{1,{_LONGEST_ID}}}")


def replace_ids(items: Sequence[Item], renamed: Iterable[str], notes: Notes) -> list[Item]:
    """Return the items with the ids that are sent.

    Args:
        items: The items, in order.
        renamed: Calls ("position.index") that are sent under another id although theirs is free.
        notes: Where to note each message that is sent with other ids.
    """
    ids = _CallIds(renamed)
    sent = []
    for item in items:
        sent.append(ids.replace_ids(item))
        if ids.changed:
            notes.adjust(item.position, "a tool call, or its result, is sent under an id that the API accepts")
    return sent


def find_duplicate_calls(entries: Iterable[Entry], renamed: Iterable[str], *, start: int) -> tuple[str, ...]:
    """Return the calls that stay renamed when messages before a position are no longer sent.

    These are the calls with an id that an earlier call has, and the calls that were renamed already.

    Args:
        entries: The active entries, in order.
        renamed: The calls that are renamed at present.
        start: The position of the first message that will be sent.

    Returns:
        The calls from `start` on, as "position.index".
    """
    duplicates = _assign_ids(entries, renamed).duplicates
    return tuple(call for call in duplicates if int(call.partition(".")[0]) >= start)


def map_sent_to_given_ids(entries: Iterable[Entry], renamed: Iterable[str]) -> dict[str, str]:
    """Return the stored ids of calls by the ids under which they are sent, where these differ.

    Args:
        entries: The active entries, in order.
        renamed: The calls that are renamed at present.
    """
    return _assign_ids(entries, renamed).given


def _assign_ids(entries: Iterable[Entry], renamed: Iterable[str]) -> _CallIds:
    """Return the ids of all calls in the entries."""
    ids = _CallIds(renamed)
    for entry in select_messages(entries):
        ids.replace_ids(item_from_entry(entry))
    return ids


def restore_given_ids(message: Message, given: Mapping[str, str]) -> tuple[Message, dict[str, str]]:
    """Return a message of the view with the stored ids of its calls.

    Args:
        message: The message as it is sent.
        given: The stored ids, as `map_sent_to_given_ids` returns them.

    Returns:
        The message to store, and its `sent_ids` by the index of the block.
    """
    if isinstance(message["content"], str):
        return message, {}
    changed = {*given, *given.values()}
    sent_ids: dict[str, str] = {}
    blocks = []
    for index, block in enumerate(message["content"]):
        field = "id" if block["type"] in TOOL_CALL_TYPES else "tool_use_id"
        sent = block.get(field)
        if isinstance(sent, str) and (sent in changed or _OWN_ID.fullmatch(sent)):
            sent_ids[str(index)] = sent
            block = block | {field: given.get(sent, sent)}  # noqa: PLW2901
        blocks.append(block)
    return message | {"content": blocks}, sent_ids


class _CallIds:
    """Assigns ids to the calls of messages, in order.

    Args:
        renamed: Calls ("position.index") that are sent under another id although theirs is free.

    Attributes:
        duplicates: All calls so far with an id that was not free, as "position.index".
        changed: Whether an id was replaced in the last message.
        given: The stored ids of all calls so far that were replaced, by the new ids.
    """

    def __init__(self, renamed: Iterable[str]) -> None:
        self.duplicates: list[str] = []
        self.changed = False
        self.given: dict[str, str] = {}
        self._renamed = frozenset(renamed)
        self._used: set[str] = set()
        self._calls: dict[tuple[str, bool], _CallsWithSameId] = {}  # by id, and by whether it is a client tool

    def replace_ids(self, item: Item) -> Item:
        """Return the next message with the ids that are sent.

        Args:
            item: The message.
        """
        self.changed = False
        content = item.message["content"]
        if isinstance(content, str):
            return item
        blocks = []
        for index, block in enumerate(content):
            kind = block["type"]
            if kind == "text":
                blocks.append(block)
                continue
            field, sent = "", None
            if kind in TOOL_CALL_TYPES and item.is_reply and isinstance(block.get("id"), str):
                field, sent = "id", self.assign_id(item, index, block)
            elif kind.endswith("tool_result") and isinstance(block.get("tool_use_id"), str):
                field, sent = "tool_use_id", (item.sent_ids or {}).get(str(index))
                if not sent:  # the id of its call; of several calls with one id, the results come in the same order
                    same = self._calls.get((block[field], kind == "tool_result"))
                    sent = same.next_sent_id() if same else block[field]  # an id that was sent, or one without a call
            if field and block[field] != sent:
                self.changed = True
                block = block | {field: sent}  # noqa: PLW2901
            blocks.append(block)
        return item.with_content(blocks) if self.changed else item

    def assign_id(self, item: Item, index: int, block: Block) -> str:
        """Return the id under which a call is sent.

        Args:
            item: The message.
            index: The index of the call's block.
            block: The block.
        """
        kind: str = block["type"]
        given: str = block["id"]
        sent = item.sent_ids.get(str(index), given) if item.sent_ids else given
        call = f"{item.position}.{index}"
        is_duplicate = sent in self._used or call in self._renamed
        valid = _VALID_SERVER_ID if kind == "server_tool_use" else _VALID_ID
        if is_duplicate:
            self.duplicates.append(call)
        if is_duplicate or (sent is given and (not valid.fullmatch(given) or _OWN_ID.fullmatch(given))):
            sent = f"{_PREFIX[kind]}_p{max(item.position, 0)}_{index}"
        self._used.add(sent)
        key = (given, kind == "tool_use")
        if (same := self._calls.get(key)) is None or same.position != item.position:
            same = self._calls[key] = _CallsWithSameId(item.position)
        same.sent.append(sent)
        if sent != given:
            self.given[sent] = given
        return sent


@dataclass(slots=True)
class _CallsWithSameId:
    """The calls of one message that have the same stored id.

    Attributes:
        position: The position of the message.
        sent: The ids under which they are sent, in order.
        answered: How many results they have so far.
    """

    position: int
    sent: list[str] = dataclass_field(default_factory=list)
    answered: int = 0

    def next_sent_id(self) -> str:
        """Return the id under which the next result is sent. Results beyond the last call get the id of that call."""
        self.answered += 1
        return self.sent[min(self.answered, len(self.sent)) - 1]
