"""What Claude is sent: a pure function from the entries of a log to messages that the API accepts.

The log stays as it is, exactly what was sent and received. The API refuses some of that when it is sent again, and a
crash can leave half of what belongs together, so the view leaves out, orders and completes; `Report` tells what it did.
The same entries always give the same messages, and entries that follow do not change those before a reply: request k+1
extends request k, on which the prompt cache and the signatures of thinking blocks depend.

Sources: the pages on the Messages API, tool use, extended thinking, stop reasons and errors at platform.claude.com.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from chathistory.content import Message
from chathistory.log.entry import Entry
from chathistory.log.fold import opens_turn, stands_for_all_before
from chathistory.log.omissions import Omission, omissions_in
from chathistory.log.size import context_of
from chathistory.log.spans import Sent
from chathistory.log.summary import Summary
from chathistory.view.cleaning import bound_thoughts, cleaned, without_thinking
from chathistory.view.item import Item, Note, item_of
from chathistory.view.omitting import without_omitted
from chathistory.view.pairing import paired

__all__ = ["Repair", "Report", "View", "view", "view_of"]


@dataclass(frozen=True, slots=True)
class Repair:
    """One thing that the view did about what is stored at `position` (-1: at the end), in words that quote nothing."""

    position: int
    what: str


@dataclass(frozen=True, slots=True)
class Report:
    """How the messages of a view came about.

    kept: the position of each message, in order; -1 for one that the view added. begin: no message that stands before
    this position is sent, for it was cut; 0: none was. dropped: positions from there on of messages that are left out.
    tokens: of what is sent, without system prompt and tools where no reply tells them. exact: all of that is told by
    the last reply's usage; False: some or all of it is estimated. prefix_changed: no reply came since what stands
    before others changed (a cut, another system prompt), so nothing of it is cached. thinking_stripped: how many blocks
    of thinking are left out, for they are bound to what is not sent any more. repairs: what was done to make the rest
    acceptable. omitted: what is left out because the API refused it, or because somebody asked for that.
    """

    kept: tuple[int, ...] = ()
    dropped: tuple[int, ...] = ()
    repairs: tuple[Repair, ...] = ()
    begin: int = 0
    tokens: int = 0
    exact: bool = True
    prefix_changed: bool = False
    thinking_stripped: int = 0
    omitted: tuple[Repair, ...] = ()


@dataclass(frozen=True, slots=True)
class View:
    """Messages, ready to send, and the report on them."""

    messages: list[Message] = field(default_factory=list, repr=False)
    report: Report = Report()


def view_of(sent: Sent | None) -> View:
    """Return the view of what `on_path` found; None: of a conversation that is absent."""
    return view(sent.entries, state=sent.summary, cut=sent.cut) if sent else View()


def view(entries: Iterable[Entry], *, state: Summary | None = None, cut: Entry | None = None) -> View:
    """Return what is sent of the entries that the view goes through, in order; no entries: no messages.

    state: of the conversation; None: nothing was cut, all thinking may be sent. cut: the entry that said from which
    position on messages are sent; its own message is the first.
    """
    state = state or Summary(born="", created=0)
    repairs: list[Repair] = []

    def note(position: int, what: str) -> None:
        repairs.append(Repair(position, what))

    entries = list(entries)
    omissions = omissions_in(entries)
    items = [item_of(entry) for entry in entries if entry.kind == "message"]
    lead = [item_of(cut)] if cut and cut.message else []
    there = [*lead, *items]
    omitted = tuple(_told(each) for item in there for each in omissions.get(item.position, ()))
    whole = _without_refused(without_omitted(there, omissions) if omissions else there, note)
    sent = paired(cleaned(without_thinking(whole, state.thinking_from), note), note)
    report = _report(items, sent, state)
    stripped = sum(bound_thoughts(item, state.thinking_from) for item in whole) if state.thinking_from else 0
    return View(
        [item.message for item in sent],
        replace(report, repairs=tuple(repairs), thinking_stripped=stripped, omitted=omitted),
    )


def _told(omission: Omission) -> Repair:
    what = "the message" if omission.block is None else f"block {omission.block}"
    inner = "" if omission.inner is None else f", block {omission.inner} within it"
    return Repair(omission.position, f"left out: {what}{inner}; {omission.why or 'as somebody asked'}")


def _report(items: Sequence[Item], sent: Sequence[Item], state: Summary) -> Report:
    kept = tuple(item.position for item in sent)
    left = {item.position for item in items}.difference(kept)
    last = max((item.position for item in sent if item.role == "assistant"), default=-1)
    told = bool(items) and context_of(items[-1].usage) is not None
    return Report(
        kept,
        tuple(sorted(left)),
        begin=state.begin,
        tokens=state.context,
        exact=not sent or (told and items[-1].position == last > state.prefix),
        prefix_changed=-1 < last < state.prefix,
    )


def _without_refused(items: Sequence[Item], note: Note) -> list[Item]:
    """Leave out each refused reply with the turn that it answers: sent again, it would be refused again."""
    kept: list[Item] = []
    for item in items:
        if item.stop_reason != "refusal":
            kept.append(item)
            continue
        note(item.position, "left out: the reply was refused, and with it its turn")
        while kept and not _ends_before(kept[-1]) and not opens_turn(kept.pop().message):
            pass
    return kept


def _ends_before(item: Item) -> bool:
    """Whether a refused turn does not reach back to this: a turn ended here, or it stands for all that was before."""
    return _is_whole(item) or stands_for_all_before(item.message)


def _is_whole(item: Item) -> bool:
    """Whether this is a reply that ends a turn: neither a tool's call nor a pause is left open."""
    paused = item.stop_reason == "pause_turn" or any(block["type"] == "tool_use" for block in item.blocks)
    return item.role == "assistant" and not paused
