"""Under which id each tool call is sent, with its results.

The API takes ids of letters, digits, "_" and "-", and each only once in a request. Gateways and other programs give ids
that it refuses ("functions.look:0", "call_1|fc_2"), and the same ones again in every reply ("call_1"). Such a call is
sent under an id that says where it stands in the log, and so are its results. The log keeps the id that was given, and
the caller goes on using it.

- An id that the API refuses, or that looks like one of ours, is replaced wherever it stands.
- Of an id that comes again, the first keeps it. As long as nothing is cut off, what follows changes nothing of this; a
  cut that hides the first writes down which of the others are to stay replaced (`ViewState.renamed`).
- A result belongs to the last message before it with a call of its id.
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
_LONGEST = 64
"""Characters of an id: the API documents no limit, Bedrock takes so many."""
_VALID_ID = re.compile(f"[a-zA-Z0-9_-]{{1,{_LONGEST}}}")
_VALID_SERVER_ID = re.compile(f"srvtoolu_[a-zA-Z0-9_]{{1,{_LONGEST}}}")


def replace_ids(items: Sequence[Item], renamed: Iterable[str], notes: Notes) -> list[Item]:
    """Return the items with the ids that are sent.

    renamed: marks ("position.index") of calls that are sent under another id although theirs is free.
    """
    ids = _CallIds(renamed)
    sent = []
    for item in items:
        sent.append(ids.replace_ids(item))
        if ids.changed:
            notes.adjust(item.position, "a tool call, or its result, is sent under an id that the API takes")
    return sent


def find_duplicate_calls(entries: Iterable[Entry], renamed: Iterable[str], *, start: int) -> tuple[str, ...]:
    """Return the marks of calls from position `start` on that stay replaced when what stands before it is not sent.

    Those are the calls whose id came before among the entries, or that are in `renamed` already.
    """
    doubled = _name_calls(entries, renamed).doubled
    return tuple(mark for mark in doubled if int(mark.partition(".")[0]) >= start)


def map_sent_to_given_ids(entries: Iterable[Entry], renamed: Iterable[str]) -> dict[str, str]:
    """Return what the ids of calls are in the log, by those under which they are sent, where these differ."""
    return _name_calls(entries, renamed).given


def _name_calls(entries: Iterable[Entry], renamed: Iterable[str]) -> _CallIds:
    """Return the walk through the messages among the entries, at its end."""
    ids = _CallIds(renamed)
    for entry in select_messages(entries):
        ids.replace_ids(item_from_entry(entry))
    return ids


def restore_given_ids(message: Message, given: Mapping[str, str]) -> tuple[Message, dict[str, str]]:
    """Return a message as it is sent with the ids that the calls have in the log, and those that are sent.

    Args:
        message: The message.
        given: What `given_ids` returned.

    Returns:
        The message to be stored, and its `sent_ids`: by the index of the block.
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
    """A walk through messages in their order.

    changed: whether an id was replaced in the message that was passed last. given: the ids of all calls so far that
    were replaced, by the new ones. doubled: the marks of all calls so far whose id was not free.
    """

    def __init__(self, renamed: Iterable[str]) -> None:
        self.doubled: list[str] = []
        self.changed = False
        self.given: dict[str, str] = {}
        self._renamed = frozenset(renamed)
        self._used: set[str] = set()
        self._calls: dict[tuple[str, bool], _SameId] = {}  # by id, those of the client's tools apart from the server's

    def replace_ids(self, item: Item) -> Item:
        """Return a message with the ids that are sent."""
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
                if not sent:  # that of its call: of several in one message, in their order
                    same = self._calls.get((block[field], kind == "tool_result"))
                    sent = same.next_sent_id() if same else block[field]  # an id that was sent, or that of no call
            if field and block[field] != sent:
                self.changed = True
                block = block | {field: sent}  # noqa: PLW2901
            blocks.append(block)
        return item.with_content(blocks) if self.changed else item

    def assign_id(self, item: Item, index: int, block: Block) -> str:
        """Return the id under which a call is sent."""
        kind: str = block["type"]
        given: str = block["id"]
        sent = item.sent_ids.get(str(index), given) if item.sent_ids else given
        mark = f"{item.position}.{index}"
        is_doubled = sent in self._used or mark in self._renamed
        taken = _VALID_SERVER_ID if kind == "server_tool_use" else _VALID_ID
        if is_doubled:
            self.doubled.append(mark)
        if is_doubled or (sent is given and (not taken.fullmatch(given) or _OWN_ID.fullmatch(given))):
            sent = f"{_PREFIX[kind]}_p{max(item.position, 0)}_{index}"
        self._used.add(sent)
        key = (given, kind == "tool_use")
        if (same := self._calls.get(key)) is None or same.position != item.position:
            same = self._calls[key] = _SameId(item.position)
        same.sent.append(sent)
        if sent != given:
            self.given[sent] = given
        return sent


@dataclass(slots=True)
class _SameId:
    """The calls of one message that were given the same id: under which they are sent, and how many have results."""

    position: int
    sent: list[str] = dataclass_field(default_factory=list)
    answered: int = 0

    def next_sent_id(self) -> str:
        """Return under which of them the next result is sent; the last one takes all that come too many."""
        self.answered += 1
        return self.sent[min(self.answered, len(self.sent)) - 1]
