"""What Claude is sent: a pure function from the entries of a log to messages that the API accepts.

The log stays as it is, exactly what was sent and received. The API refuses some of that when it is sent again, and a
crash can leave half of what belongs together, so the view leaves out, orders and completes; `Report` tells what it did.
The same entries always give the same messages, and entries that follow do not change those before a reply: request k+1
extends request k, on which the prompt cache and the signatures of thinking blocks depend.

Sources: the pages on the Messages API, tool use, extended thinking, stop reasons and errors at platform.claude.com.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from chathistory.content import Message
from chathistory.log.entry import Entry
from chathistory.view.cleaning import cleaned, without_thinking
from chathistory.view.item import Item, Note, item_of
from chathistory.view.pairing import paired

__all__ = ["Repair", "Report", "View", "view"]


@dataclass(frozen=True, slots=True)
class Repair:
    """One thing that the view did about what is stored at `position` (-1: at the end), in words that quote nothing."""

    position: int
    what: str


@dataclass(frozen=True, slots=True)
class Report:
    """How the messages of a view came about.

    kept: the position of each message, in order; -1 for one that the view added. dropped: positions of messages that
    it leaves out. repairs: what it did to make the rest acceptable.
    """

    kept: tuple[int, ...] = ()
    dropped: tuple[int, ...] = ()
    repairs: tuple[Repair, ...] = ()


@dataclass(frozen=True, slots=True)
class View:
    """Messages, ready to send, and the report on them."""

    messages: list[Message] = field(default_factory=list, repr=False)
    report: Report = Report()


def view(entries: Iterable[Entry], *, thinking_from: int = 0) -> View:
    """Return what is sent of the entries that the view goes through, in order; no entries: no messages.

    Thinking below position `thinking_from` is left out: its signature is bound to messages that are not sent any more.
    """
    repairs: list[Repair] = []

    def note(position: int, what: str) -> None:
        repairs.append(Repair(position, what))

    items = [item_of(entry) for entry in entries if entry.kind == "message"]
    fit = without_thinking(_without_refused(items, note), thinking_from, note)
    sent = paired(cleaned(fit, note), note)
    kept = tuple(item.position for item in sent)
    left = {item.position for item in items}.difference(kept)
    return View([item.message for item in sent], Report(kept, tuple(sorted(left)), tuple(repairs)))


def _without_refused(items: Sequence[Item], note: Note) -> list[Item]:
    """Leave out each refused reply with the turn that it answers: sent again, it would be refused again."""
    kept: list[Item] = []
    for item in items:
        if item.stop_reason != "refusal":
            kept.append(item)
            continue
        note(item.position, "left out: the reply was refused, and with it its turn")
        while kept and not _is_whole(kept[-1]) and not _opens_turn(kept.pop()):
            pass
    return kept


def _is_whole(item: Item) -> bool:
    """Whether this is a reply that ends a turn: neither a tool's call nor a pause is left open."""
    paused = item.stop_reason == "pause_turn" or any(block["type"] == "tool_use" for block in item.blocks)
    return item.role == "assistant" and not paused


def _opens_turn(item: Item) -> bool:
    """Whether this is the user's own message: not a tool result, which belongs to the turn before."""
    return item.role == "user" and all(block["type"] != "tool_result" for block in item.blocks)
