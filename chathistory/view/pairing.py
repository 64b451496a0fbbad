"""Pairing and order: tool calls and their results, system messages, the first message.

An assistant turn that calls tools must be answered in the next user turn, with one result for each call, before other
content. A crash between the two, or a user who writes something else, leaves a log that the API would always refuse. So
missing results are added as errors, results without a call are left out, and the order is corrected.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Iterable, Sequence

from chathistory.view.item import ADDED, Block, Item, Notes

__all__ = ["make_missing_results", "pair_calls"]

INTERRUPTED = "This tool call was interrupted: there is no result."
_SERVER_USES = frozenset({"server_tool_use", "mcp_tool_use"})


def pair_calls(items: Iterable[Item], notes: Notes) -> list[Item]:
    """Return the items with pairs and order as the API requires them; correct turns stay unchanged.

    Args:
        items: The items.
        notes: Where to note what is left out, moved or added.
    """
    pairing = _Pairing(notes)
    for is_reply, run in itertools.groupby(items, key=lambda item: item.message["role"] == "assistant"):
        if is_reply:
            pairing.add_replies(list(run))
        else:
            pairing.add_others(list(run))
    if _find_last_calls(pairing.done):
        pairing.add_others([])
    return pairing.done


class _Pairing:
    """The items that were added so far, and the tool calls in them.

    Attributes:
        done: The items.
    """

    def __init__(self, notes: Notes) -> None:
        self.done: list[Item] = []
        self._notes = notes
        self._calls: set[str] = set()  # ids of all calls of the client's tools
        self._server_calls: set[str] = set()  # ids of calls of server tools that can get a result in this turn
        self._open: set[str] = set()  # ids of calls of server tools without a result

    def add_replies(self, run: Sequence[Item]) -> None:
        """Add consecutive replies.

        Args:
            run: The replies.
        """
        self._server_calls &= self._open  # a result belongs to the turn of its call, unless the call is still open
        if self.done or run[0].blocks[0]["type"] == "compaction":  # a compaction replaces all messages before it
            self.done += _filter_blocks(run, self._register_block, self._notes)
        else:
            _note_all(run, self._notes, "left out: a conversation begins with a user message")

    def _register_block(self, block: Block) -> bool:
        """Record the call or result in a block; return False if the API would refuse the block here."""
        kind = block["type"]
        if kind == "tool_use":
            is_new = block["id"] not in self._calls
            self._calls.add(block["id"])
            return is_new
        if kind in _SERVER_USES:
            self._server_calls.add(block["id"])
            self._open.add(block["id"])
        elif kind != "text" and _is_server_result(block):
            self._open.discard(block["tool_use_id"])
            return block["tool_use_id"] in self._server_calls
        return True

    def add_others(self, run: list[Item]) -> None:
        """Add consecutive messages of the user and the system: results of calls first, then text, then the system's.

        Args:
            run: The messages.
        """
        if self._open and not all(block["type"] == "tool_result" for item in run for block in item.blocks):
            unanswered, self._open = self._open, set()  # they cannot get a result: the user has continued
            self._server_calls -= unanswered
            keep = lambda block: block["type"] not in _SERVER_USES or block["id"] not in unanswered  # noqa: E731
            self.done = _filter_blocks(self.done, keep, self._notes)
        while self.done and not self.done[-1].is_reply:
            run.insert(0, self.done.pop())  # the reply between them was left out as a whole
        calls = _find_last_calls(self.done)
        if not calls and not any(item.message["role"] != "user" or _count_results(item) for item in run):
            self.done += run
            return
        users, systems = [item for item in run if item.role == "user"], [item for item in run if item.role != "user"]
        first_blocks = users[0].blocks[: len(calls)] if users else []
        starts_with_all_results = {
            block["type"] == "tool_result" and block.get("tool_use_id") for block in first_blocks
        } == calls.keys()
        if not starts_with_all_results or sum(map(_count_results, users)) != len(calls):
            users = _put_results_first(calls, users, self._notes)
        if calls:
            users = [_set_toolset_names(calls, item, self._notes) for item in users]
        if users:
            are_users = [item.role == "user" for item in run]
            if systems and (not are_users[0] or (False, True) in itertools.pairwise(are_users)):
                _note_all(systems, self._notes, "moved: a system message follows the user's turn")
        elif not (self.done and _is_server_result(self.done[-1].blocks[-1])):
            _note_all(systems, self._notes, "left out: a system message that follows no user turn")
            systems = []
        self.done += [*users, *systems]


def _count_results(item: Item) -> int:
    """Return the number of results of client tools in a message."""
    content = item.message["content"]
    return 0 if isinstance(content, str) else sum(block["type"] == "tool_result" for block in content)


def _find_last_calls(done: Sequence[Item]) -> dict[str, Block]:
    """Return the tool calls of the last assistant turn, by id."""
    turn = itertools.takewhile(lambda item: item.is_reply, reversed(done))
    contents = [content for item in turn if not isinstance(content := item.message["content"], str)]
    return {block["id"]: block for content in reversed(contents) for block in content if block["type"] == "tool_use"}


def _put_results_first(calls: dict[str, Block], users: Sequence[Item], notes: Notes) -> list[Item]:
    """Return the user's messages with one result for each call before other content; missing results are added."""
    results: dict[str, Block] = {}
    rest = []
    for item in users:
        content = item.message["content"]
        if not isinstance(content, str):
            content = []
            for block in item.blocks:
                call_id = block.get("tool_use_id")
                if block["type"] != "tool_result":
                    content.append(block)
                elif call_id in calls and call_id not in results:
                    results[call_id] = block
                else:
                    notes.repair(item.position, "left out: a tool result without its call")
        rest.append(item.with_content(content))
    missing = make_missing_results(block for call_id, block in calls.items() if call_id not in results)
    answers = [*results.values(), *missing]
    if not answers:
        return [item for item in rest if item.message["content"]]
    first = users[0] if users else Item(ADDED, {"role": "user"})
    notes.repair(first.position, f"tool results put in order, {len(missing)} of {len(answers)} added as errors")
    other_blocks = rest[0].blocks if users else []
    return [first.with_content([*answers, *other_blocks]), *(item for item in rest[1:] if item.message["content"])]


def _set_toolset_names(calls: dict[str, Block], item: Item, notes: Notes) -> Item:
    """Return a message with the toolset name of the call in each tool result, as the API requires."""
    content = item.message["content"]
    if isinstance(content, str):
        return item
    blocks = []
    for block in content:
        call = calls.get(block["tool_use_id"]) if block["type"] == "tool_result" else None
        wanted = call.get("toolset_name") if call else None
        if call is not None and block.get("toolset_name") != wanted:
            rest = {name: value for name, value in block.items() if name != "toolset_name"}
            block = rest | {"toolset_name": wanted} if wanted else rest  # noqa: PLW2901
        blocks.append(block)
    if all(map(operator.is_, blocks, content)):
        return item
    notes.adjust(item.position, "a tool result names the toolset of its call")
    return item.with_content(blocks)


def make_missing_results(calls: Iterable[Block]) -> list[Block]:
    """Return a result for each tool call: an error that says that there is no result.

    Args:
        calls: The tool calls.
    """
    return [
        {"type": "tool_result", "tool_use_id": call["id"], "content": INTERRUPTED, "is_error": True}
        | ({"toolset_name": call["toolset_name"]} if call.get("toolset_name") else {})
        for call in calls
    ]


def _is_server_result(block: Block) -> bool:
    return block["type"].endswith("_tool_result") and "tool_use_id" in block


def _filter_blocks(run: Sequence[Item], keep: Callable[[Block], bool], notes: Notes) -> list[Item]:
    """Return the items with the blocks for which `keep` returns True; plain text is always kept."""
    kept = []
    for item in run:
        content = item.message["content"]
        blocks = content if isinstance(content, str) else [block for block in content if keep(block)]
        if len(blocks) == len(content):
            kept.append(item)
            continue
        notes.repair(item.position, "left out: a tool call or tool result that cannot be sent at this position")
        kept += [item.with_content(blocks)] if blocks else []
    return kept


def _note_all(items: Iterable[Item], notes: Notes, description: str) -> None:
    for item in items:
        notes.repair(item.position, description)
