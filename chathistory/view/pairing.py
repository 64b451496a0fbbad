"""What belongs together and in which order: tool calls and their results, system messages, the first message.

An assistant turn that calls tools must be answered in the very next user turn, by one result for each call, before
anything else. A crash between the two, or a user who types on instead, leaves a log that the API would refuse for ever.
Here the missing results are added as errors, results without a call are left out, and the order is mended.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence

from chathistory.view.item import ADDED, Block, Item, Note

__all__ = ["missing_results", "paired"]

INTERRUPTED = "This tool call was interrupted: there is no result."
_SERVER_USES = frozenset({"server_tool_use", "mcp_tool_use"})


def paired(items: Iterable[Item], note: Note) -> list[Item]:
    """Return the items as the API wants them; turns that are as they should be stay as they are."""
    draft = _Draft(note)
    for assistant, run in itertools.groupby(items, key=lambda item: item.role == "assistant"):
        if assistant:
            draft.add_replies(list(run))
        else:
            draft.add_others(list(run))
    if _calls(draft.done):
        draft.add_others([])
    return draft.done


class _Draft:
    """The view so far, and which calls it has: of the client's tools all, of the server's also those still open."""

    def __init__(self, note: Note) -> None:
        self.done: list[Item] = []
        self._note = note
        self._calls: set[str] = set()
        self._uses: set[str] = set()
        self._open: set[str] = set()

    def add_replies(self, run: Sequence[Item]) -> None:
        if self.done or _stands_for_all_before(run[0]):
            self.done += _filtered(run, self._fits, self._note)
        else:
            _note_all(run, self._note, "left out: a conversation begins with a user message")

    def add_others(self, run: list[Item]) -> None:
        """Add messages of the user, and of the system among them."""
        if self._open and not all(block["type"] == "tool_result" for item in run for block in item.blocks):
            self._drop_open()
        while self.done and self.done[-1].role != "assistant":
            run.insert(0, self.done.pop())  # nothing was left of the reply between them
        self.done += _answers(self.done, run, self._note)

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
        self.done = _filtered(self.done, keep, self._note)


def _stands_for_all_before(item: Item) -> bool:
    """Whether a reply may be the first message: it begins with a compaction of what was said before."""
    return bool(item.blocks[0]["type"] == "compaction")


def _calls(done: Sequence[Item]) -> dict[str, Block]:
    """Return the tool calls of the assistant turn that is last, by id."""
    turn = itertools.takewhile(lambda item: item.role == "assistant", reversed(done))
    blocks = [block for item in reversed(list(turn)) for block in item.blocks]
    return {block["id"]: block for block in blocks if block["type"] == "tool_use"}


def _answers(done: Sequence[Item], run: Sequence[Item], note: Note) -> list[Item]:
    """Return what follows an assistant turn: the results of its calls first, then the user's words, then system."""
    calls = _calls(done)
    users = [item for item in run if item.role == "user"]
    systems = [item for item in run if item.role != "user"]
    if not _in_order(calls, users):
        users = _ordered(calls, users, note)
    if users:
        if [*users, *systems] != list(run):
            _note_all(systems, note, "moved: a system message follows the user's turn")
        return [*users, *systems]
    if done and _server_result(done[-1].blocks[-1]):
        return systems
    _note_all(systems, note, "left out: a system message that follows no user turn")
    return []


def _in_order(calls: dict[str, Block], users: Sequence[Item]) -> bool:
    first = [block["type"] == "tool_result" and block.get("tool_use_id") for block in users[0].blocks] if users else []
    results = sum(block["type"] == "tool_result" for item in users for block in item.blocks)
    return results == len(calls) and set(first[: len(calls)]) == set(calls)


def _ordered(calls: dict[str, Block], users: Sequence[Item], note: Note) -> list[Item]:
    results: dict[str, Block] = {}
    rest = [item.with_content(_taken(item, calls, results, note)) for item in users]
    missing = missing_results(block for name, block in calls.items() if name not in results)
    answers = [*results.values(), *missing]
    if not answers:
        return [item for item in rest if item.message["content"]]
    place = users[0] if users else Item(ADDED, {"role": "user"})
    note(place.position, f"tool results put in order, {len(missing)} of {len(answers)} added as errors")
    words = rest[0].blocks if users else []
    return [place.with_content([*answers, *words]), *(item for item in rest[1:] if item.message["content"])]


def _taken(item: Item, calls: dict[str, Block], results: dict[str, Block], note: Note) -> str | list[Block]:
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
            note(item.position, "left out: a tool result without its call")
    return left


def missing_results(calls: Iterable[Block]) -> list[Block]:
    """Return a result for each tool call that has none: an error that says so."""
    return [
        {"type": "tool_result", "tool_use_id": call["id"], "content": INTERRUPTED, "is_error": True}
        | ({"toolset_name": call["toolset_name"]} if call.get("toolset_name") else {})
        for call in calls
    ]


def _server_result(block: Block) -> bool:
    return block["type"].endswith("_tool_result") and "tool_use_id" in block


def _filtered(run: Sequence[Item], keep: Callable[[Block], bool], note: Note) -> list[Item]:
    kept = []
    for item in run:
        blocks = [block for block in item.blocks if keep(block)]
        if len(blocks) == len(item.blocks):
            kept.append(item)
            continue
        note(item.position, "left out: a tool's call or result that does not fit where it stands")
        kept += [item.with_content(blocks)] if blocks else []
    return kept


def _note_all(items: Iterable[Item], note: Note, what: str) -> None:
    for item in items:
        note(item.position, what)
