"""What belongs together and in which order: tool calls and their results, system messages, the first message.

An assistant turn that calls tools must be answered in the very next user turn, by one result for each call, before
anything else. A crash between the two, or a user who types on instead, leaves a log that the API would refuse for ever.
Here the missing results are added as errors, results without a call are left out, and the order is mended.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Iterable, Sequence

from chathistory.view.item import ADDED, Block, Item, Notes

__all__ = ["missing_results", "paired"]

INTERRUPTED = "This tool call was interrupted: there is no result."
_SERVER_USES = frozenset({"server_tool_use", "mcp_tool_use"})


def paired(items: Iterable[Item], notes: Notes) -> list[Item]:
    """Return the items as the API wants them; turns that are as they should be stay as they are."""
    draft = _Draft(notes)
    for assistant, run in itertools.groupby(items, key=_is_reply):
        if assistant:
            draft.add_replies(list(run))
        else:
            draft.add_others(list(run))
    if _calls(draft.done):
        draft.add_others([])
    return draft.done


def _is_reply(item: Item) -> bool:
    return bool(item.message["role"] == "assistant")


class _Draft:
    """The view so far, and which calls it has: of the client's tools all, of the server's also those still open."""

    def __init__(self, notes: Notes) -> None:
        self.done: list[Item] = []
        self._notes = notes
        self._calls: set[str] = set()
        self._uses: set[str] = set()
        self._open: set[str] = set()

    def add_replies(self, run: Sequence[Item]) -> None:
        self._uses &= self._open  # a result belongs into the turn of its call, unless that is still open
        if self.done or _stands_for_all_before(run[0]):
            self.done += _filtered(run, self._fits, self._notes)
        else:
            _note_all(run, self._notes, "left out: a conversation begins with a user message")

    def add_others(self, run: list[Item]) -> None:
        """Add messages of the user, and of the system among them."""
        if self._open and not all(block["type"] == "tool_result" for item in run for block in item.blocks):
            self._drop_open()
        while self.done and not _is_reply(self.done[-1]):
            run.insert(0, self.done.pop())  # nothing was left of the reply between them
        calls = _calls(self.done)
        self.done += run if not calls and all(map(_is_plain, run)) else _answers(calls, self.done, run, self._notes)

    def _fits(self, block: Block) -> bool:
        """Whether a block of a reply may stand where it does, behind all that was added before."""
        if block["type"] == "tool_use":
            fresh = block["id"] not in self._calls
            self._calls.add(block["id"])
            return fresh
        if block["type"] in _SERVER_USES:
            self._uses.add(block["id"])
            self._open.add(block["id"])
        elif _server_result(block):
            self._open.discard(block["tool_use_id"])
            return block["tool_use_id"] in self._uses
        return True

    def _drop_open(self) -> None:
        """Leave out the server's calls that can get no result any more, because the user spoke on."""
        opened, self._open = self._open, set()
        self._uses -= opened
        keep = lambda block: block["type"] not in _SERVER_USES or block["id"] not in opened  # noqa: E731
        self.done = _filtered(self.done, keep, self._notes)


def _stands_for_all_before(item: Item) -> bool:
    """Whether a reply may be the first message: it begins with a compaction of what was said before."""
    return bool(item.blocks[0]["type"] == "compaction")


def _is_plain(item: Item) -> bool:
    """Whether this is a user's message that may follow anything but calls."""
    content = item.message["content"]
    said = isinstance(content, str) or all(block["type"] != "tool_result" for block in content)
    return said and bool(item.message["role"] == "user")


def _calls(done: Sequence[Item]) -> dict[str, Block]:
    """Return the tool calls of the assistant turn that is last, by id."""
    turn = itertools.takewhile(_is_reply, reversed(done))
    blocks = [block for item in reversed(list(turn)) for block in item.blocks]
    return {block["id"]: block for block in blocks if block["type"] == "tool_use"}


def _answers(calls: dict[str, Block], done: Sequence[Item], run: Sequence[Item], notes: Notes) -> list[Item]:
    """Return what follows an assistant turn: the results of its calls first, then the user's words, then system."""
    users = [item for item in run if item.role == "user"]
    systems = [item for item in run if item.role != "user"]
    if not _in_order(calls, users):
        users = _ordered(calls, users, notes)
    if calls:
        users = [_with_toolsets(calls, item, notes) for item in users]
    if users:
        if systems and (
            run[0].role != "user"
            or any(one.role != "user" and other.role == "user" for one, other in itertools.pairwise(run))
        ):
            _note_all(systems, notes, "moved: a system message follows the user's turn")
        return [*users, *systems]
    if done and _server_result(done[-1].blocks[-1]):
        return systems
    _note_all(systems, notes, "left out: a system message that follows no user turn")
    return []


def _in_order(calls: dict[str, Block], users: Sequence[Item]) -> bool:
    first = [block["type"] == "tool_result" and block.get("tool_use_id") for block in users[0].blocks] if users else []
    results = sum(block["type"] == "tool_result" for item in users for block in item.blocks)
    return results == len(calls) and set(first[: len(calls)]) == set(calls)


def _ordered(calls: dict[str, Block], users: Sequence[Item], notes: Notes) -> list[Item]:
    results: dict[str, Block] = {}
    rest = [item.with_content(_taken(item, calls, results, notes)) for item in users]
    missing = missing_results(block for name, block in calls.items() if name not in results)
    answers = [*results.values(), *missing]
    if not answers:
        return [item for item in rest if item.message["content"]]
    place = users[0] if users else Item(ADDED, {"role": "user"})
    notes.repair(place.position, f"tool results put in order, {len(missing)} of {len(answers)} added as errors")
    words = rest[0].blocks if users else []
    return [place.with_content([*answers, *words]), *(item for item in rest[1:] if item.message["content"])]


def _taken(item: Item, calls: dict[str, Block], results: dict[str, Block], notes: Notes) -> str | list[Block]:
    """Move the results of a message into `results`; return what is left of its content."""
    if isinstance(item.message["content"], str):
        return item.message["content"]
    left = []
    for block in item.blocks:
        name = block.get("tool_use_id")
        if block["type"] != "tool_result":
            left.append(block)
        elif name in calls and name not in results:
            results[name] = block
        else:
            notes.repair(item.position, "left out: a tool result without its call")
    return left


def _with_toolsets(calls: dict[str, Block], item: Item, notes: Notes) -> Item:
    """Return a message whose results name the toolset of their calls, as the API wants it."""
    content = item.message["content"]
    if isinstance(content, str):
        return item
    blocks = [_with_toolset(calls, block) for block in content]
    if all(map(operator.is_, blocks, content)):
        return item
    notes.adjust(item.position, "a tool result names the toolset of its call")
    return item.with_content(blocks)


def _with_toolset(calls: dict[str, Block], block: Block) -> Block:
    call = calls.get(block["tool_use_id"]) if block["type"] == "tool_result" else None
    wanted = call.get("toolset_name") if call else None
    if call is None or block.get("toolset_name") == wanted:
        return block
    rest = {name: value for name, value in block.items() if name != "toolset_name"}
    return rest | {"toolset_name": wanted} if wanted else rest


def missing_results(calls: Iterable[Block]) -> list[Block]:
    """Return a result for each tool call that has none: an error that says so."""
    return [
        {"type": "tool_result", "tool_use_id": call["id"], "content": INTERRUPTED, "is_error": True}
        | ({"toolset_name": call["toolset_name"]} if call.get("toolset_name") else {})
        for call in calls
    ]


def _server_result(block: Block) -> bool:
    return block["type"].endswith("_tool_result") and "tool_use_id" in block


def _filtered(run: Sequence[Item], keep: Callable[[Block], bool], notes: Notes) -> list[Item]:
    kept = []
    for item in run:
        blocks = [block for block in item.blocks if keep(block)]
        if len(blocks) == len(item.blocks):
            kept.append(item)
            continue
        notes.repair(item.position, "left out: a tool's call or result that does not fit where it stands")
        kept += [item.with_content(blocks)] if blocks else []
    return kept


def _note_all(items: Iterable[Item], notes: Notes, what: str) -> None:
    for item in items:
        notes.repair(item.position, what)
