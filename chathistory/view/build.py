"""What Claude is sent: a pure function from the entries of a log to messages that the API accepts.

The log stays as it is, exactly what was sent and received. The API refuses some of that when it is sent again, and a
crash can leave half of what belongs together, so the view leaves out, orders and completes; `ViewReport` tells
what it did.
The same entries always give the same messages, and entries that follow do not change those before a reply: request k+1
extends request k, on which the prompt cache and the signatures of thinking blocks depend.

Sources: the pages on the Messages API, tool use, extended thinking, stop reasons and errors at platform.claude.com.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from chathistory.log.active_path import ActiveEntries
from chathistory.log.entry import Entry, messages_among
from chathistory.log.events import Compaction, Cut
from chathistory.log.message_sizes import context_of
from chathistory.log.omissions import find_omissions
from chathistory.log.places import Omission
from chathistory.log.state import ViewState
from chathistory.log.turn_boundaries import ends_turn, opens_turn, stands_for_all_before
from chathistory.messages.content import Message
from chathistory.view.clean_message import bound_thoughts, cleaned, without_thinking
from chathistory.view.item import Item, Notes, ViewRepair, item_of, item_of_cut
from chathistory.view.leave_out import without_omitted
from chathistory.view.pairing import paired
from chathistory.view.tool_call_ids import named
from chathistory.view.tool_references import tool_names, with_defined_tools

__all__ = ["MessageView", "ViewRepair", "ViewReport", "view", "view_of"]


@dataclass(frozen=True, slots=True)
class ViewReport:
    """How the messages of a view came about.

    kept: the position of each message, in order; -1 for one that the view added. begin: no message that stands before
    this position is sent, for it was cut; 0: none was. dropped: positions from there on of messages that are left out.
    tokens: of what is sent, without system prompt and tools where no reply tells them. exact: all of that is told by
    the last reply's usage; False: some or all of it is estimated. prefix_changed: no reply came since what stands
    before others changed (a cut, another system prompt), so nothing of it is cached. thinking_stripped: how many blocks
    of thinking are left out, for they are bound to what is not sent any more. repairs: what was left out, moved,
    replaced or added to make the rest acceptable. adjusted: what is sent in another form than it is stored, and reads
    the same for the model: ids of tool calls, fields that the API does not take, input of a tool as JSON in a text.
    omitted: what is left out because the API refused it, or because somebody asked for that.
    """

    kept: tuple[int, ...] = ()
    dropped: tuple[int, ...] = ()
    repairs: tuple[ViewRepair, ...] = ()
    adjusted: tuple[ViewRepair, ...] = ()
    begin: int = 0
    tokens: int = 0
    exact: bool = True
    prefix_changed: bool = False
    thinking_stripped: int = 0
    omitted: tuple[ViewRepair, ...] = ()


@dataclass(frozen=True, slots=True)
class MessageView:
    """Messages, ready to send, and the report on them."""

    messages: list[Message] = field(default_factory=list, repr=False)
    report: ViewReport = ViewReport()


def view_of(sent: ActiveEntries | None, *, tools: Iterable[Any] | None = None) -> MessageView:
    """Return the view of what `load_active` found; None: of a conversation that is absent. tools: see `view`."""
    return view(sent.entries, state=sent.state.view, cut=sent.cut, tools=tools) if sent else MessageView()


def view(
    entries: Iterable[Entry],
    *,
    state: ViewState | None = None,
    cut: Entry[Cut | Compaction] | None = None,
    tools: Iterable[Any] | None = None,
) -> MessageView:
    """Return what is sent of the entries that the view goes through, in order; no entries: no messages.

    state: of the conversation; None: nothing was cut, all thinking may be sent. cut: the entry that said from which
    position on messages are sent; its own message is the first. tools: of the request, or their names; references to
    others are left out. None: they are not known, and references stay.
    """
    state = state or ViewState()
    notes = Notes()
    entries = list(entries)
    omissions = find_omissions(entries)
    items = [item_of(entry) for entry in messages_among(entries)]
    lead = item_of_cut(cut) if cut else None
    there = named([lead, *items] if lead else items, state.renamed, notes)
    omitted = tuple(_told(each) for item in there for each in omissions.get(item.position, ()))
    whole = _without_refused(without_omitted(there, omissions) if omissions else there, notes)
    sent = paired(cleaned(without_thinking(whole, state.thinking_valid_from), notes), notes)
    messages = _with_tools(sent, tools, notes)
    report = _report(items, sent, state)
    bound = state.thinking_valid_from
    stripped = sum(bound_thoughts(item, bound) for item in whole) if bound else 0
    report = replace(report, repairs=notes.repairs, adjusted=notes.adjusted, omitted=omitted)
    return MessageView(messages, replace(report, thinking_stripped=stripped))


def _with_tools(sent: Sequence[Item], tools: Iterable[Any] | None, notes: Notes) -> list[Message]:
    messages = [item.message for item in sent]
    names = None if tools is None else tool_names(tools)
    if names is None:
        return messages
    defined = with_defined_tools(messages, names)
    for item, message in zip(sent, defined, strict=True):
        if message is not item.message:
            notes.repair(item.position, "left out: a reference to a tool that the request does not define")
    return defined


def _told(omission: Omission) -> ViewRepair:
    place = omission.place
    what = "the message" if place.block is None else f"block {place.block}"
    inner = "" if place.inner is None else f", block {place.inner} within it"
    return ViewRepair(place.position, f"left out: {what}{inner}; {omission.why or 'as somebody asked'}")


def _report(items: Sequence[Item], sent: Sequence[Item], state: ViewState) -> ViewReport:
    kept = tuple(item.position for item in sent)
    left = {item.position for item in items}.difference(kept)
    last = max((item.position for item in sent if item.role == "assistant"), default=-1)
    told = bool(items) and context_of(items[-1].usage) is not None
    return ViewReport(
        kept,
        tuple(sorted(left)),
        begin=state.view_start,
        tokens=state.tokens,
        exact=not sent or (told and items[-1].position == last > state.cache_valid_from),
        prefix_changed=-1 < last < state.cache_valid_from,
    )


def _without_refused(items: Sequence[Item], notes: Notes) -> list[Item]:
    """Leave out each refused reply with the turn that it answers: sent again, it would be refused again."""
    kept: list[Item] = []
    for item in items:
        if item.stop_reason != "refusal":
            kept.append(item)
            continue
        notes.repair(item.position, "left out: the reply was refused, and with it its turn")
        while kept and not _ends_before(kept[-1]) and not opens_turn(kept.pop().message):
            pass
    return kept


def _ends_before(item: Item) -> bool:
    """Whether a refused turn does not reach back to this: a turn ended here, or it stands for all that was before."""
    return ends_turn(item.message, item.stop_reason) or stands_for_all_before(item.message)
