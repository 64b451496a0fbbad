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
from typing import Any

from chathistory.log.entry import Entry, messages_among
from chathistory.messages.content import Message
from chathistory.messages.fit_blocks import CALLS
from chathistory.view.item import Block, Item, Notes, item_of

__all__ = [
    "doubled_calls",
    "given_ids",
    "named",
    "with_given_ids",
]

_PREFIX = {"tool_use": "toolu", "server_tool_use": "srvtoolu", "mcp_tool_use": "mcptoolu"}
_OURS = re.compile("(?:toolu|srvtoolu|mcptoolu)_p[0-9]+_[0-9]+")
_LONGEST = 64
"""Characters of an id: the API documents no limit, Bedrock takes so many."""
_TAKEN = re.compile(f"[a-zA-Z0-9_-]{{1,{_LONGEST}}}")
_TAKEN_OF_SERVER = re.compile(f"srvtoolu_[a-zA-Z0-9_]{{1,{_LONGEST}}}")


def named(items: Sequence[Item], renamed: Iterable[str], notes: Notes) -> list[Item]:
    """Return the items with the ids that are sent.

    renamed: marks ("position.index") of calls that are sent under another id although theirs is free.
    """
    naming = _Naming(renamed)
    sent = []
    for item in items:
        sent.append(naming.passed(item))
        if naming.changed:
            notes.adjust(item.position, "a tool call, or its result, is sent under an id that the API takes")
    return sent


def doubled_calls(entries: Iterable[Entry], renamed: Iterable[str]) -> list[str]:
    """Return the marks of the calls whose id came before among the entries, or that are in `renamed` already."""
    naming = _Naming(renamed)
    for entry in messages_among(entries):
        naming.passed(item_of(entry))
    return naming.doubled


def given_ids(entries: Iterable[Entry], renamed: Iterable[str]) -> dict[str, str]:
    """Return what the ids of calls are in the log, by those under which they are sent, where these differ."""
    naming = _Naming(renamed)
    for entry in messages_among(entries):
        naming.passed(item_of(entry))
    return naming.given


def with_given_ids(message: Message, given: Mapping[str, str]) -> tuple[Message, dict[str, str]]:
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
        field = "id" if block["type"] in CALLS else "tool_use_id"
        sent = block.get(field)
        if isinstance(sent, str) and (sent in changed or _OURS.fullmatch(sent)):
            sent_ids[str(index)] = sent
            block = block | {field: given.get(sent, sent)}  # noqa: PLW2901
        blocks.append(block)
    return message | {"content": blocks}, sent_ids


class _Names:
    """Which calls a result may mean: of the server's tools, or of the client's."""

    def __init__(self) -> None:
        self._calls: dict[str, tuple[int, list[str], list[str]]] = {}

    def add(self, position: int, given: str, sent: str) -> None:
        """Take down a call of the message at a position."""
        found = self._calls.get(given)
        if found is None or found[0] != position:
            found = self._calls[given] = (position, [], [])
        found[1].append(sent)

    def of_result(self, name: str) -> str:
        """Return the id under which the call of a result is sent: of several in one message, in their order."""
        found = self._calls.get(name)
        if found is None:
            return name  # an id that was sent, or that of no call
        _, calls, answered = found
        sent = calls[min(len(answered), len(calls) - 1)]
        answered.append(sent)
        return sent


class _Naming:
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
        self._ours, self._servers = _Names(), _Names()

    def passed(self, item: Item) -> Item:
        """Return a message with the ids that are sent."""
        self.changed = False
        content = item.message["content"]
        if isinstance(content, str):
            return item
        blocks = [self._block(item, index, block) for index, block in enumerate(content)]
        return item.with_content(blocks) if self.changed else item

    def _block(self, item: Item, index: int, block: Block) -> Block:
        kind = block["type"]
        if kind in CALLS and item.role == "assistant" and isinstance(block.get("id"), str):
            return self._call(item, index, block)
        if kind.endswith("tool_result") and isinstance(block.get("tool_use_id"), str):
            names = self._ours if kind == "tool_result" else self._servers
            sent = (item.sent_ids or {}).get(str(index)) or names.of_result(block["tool_use_id"])
            return self._replaced(block, "tool_use_id", sent)
        return block

    def _call(self, item: Item, index: int, block: Block) -> Block:
        kind: str = block["type"]
        given: str = block["id"]
        sent: str = (item.sent_ids or {}).get(str(index), given)
        mark = f"{item.position}.{index}"
        if sent in self._used or mark in self._renamed:
            self.doubled.append(mark)
            sent = _id_of_place(kind, item.position, index)
        elif sent is given and (not _is_taken(kind, given) or _OURS.fullmatch(given)):
            sent = _id_of_place(kind, item.position, index)
        self._used.add(sent)
        (self._ours if kind == "tool_use" else self._servers).add(item.position, given, sent)
        if sent != given:
            self.given[sent] = given
        return self._replaced(block, "id", sent)

    def _replaced(self, block: Block, field: str, sent: Any) -> Block:
        if block[field] == sent:
            return block
        self.changed = True
        return block | {field: sent}


def _id_of_place(kind: str, position: int, index: int) -> str:
    return f"{_PREFIX[kind]}_p{max(position, 0)}_{index}"


def _is_taken(kind: str, name: str) -> bool:
    return (_TAKEN_OF_SERVER if kind == "server_tool_use" else _TAKEN).fullmatch(name) is not None
