"""What Claude is sent: a pure function from the entries of a log to messages that the API accepts.

The log stays as it is, exactly what was sent and received. The API refuses some of that when it is sent again, and a
crash can leave half of what belongs together, so the view leaves out, orders and completes; `ViewReport` tells
what it did.
The same entries always give the same messages, and entries that follow do not change those before a reply: request k+1
extends request k, on which the prompt cache and the signatures of thinking blocks depend.

Sources: the pages on the Messages API, tool use, extended thinking, stop reasons and errors at platform.claude.com.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from chathistory.log.active_path import ActiveEntries
from chathistory.log.entry import Entry, select_messages
from chathistory.log.events import CompactionByAPI, Cut
from chathistory.log.message_sizes import count_context_tokens
from chathistory.log.state import ViewState
from chathistory.messages.content import Message
from chathistory.view.clean_message import clean_items, count_thoughts
from chathistory.view.item import Notes, ViewRepair, item_from_cut, item_from_entry
from chathistory.view.leave_out import describe_omissions, find_omissions, leave_out_omitted, leave_out_refused
from chathistory.view.pairing import pair_calls
from chathistory.view.tool_call_ids import replace_ids
from chathistory.view.tool_references import drop_undefined_references, list_tool_names

__all__ = ["MessageView", "ViewRepair", "ViewReport", "build_active_view", "build_view"]


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


def build_active_view(sent: ActiveEntries | None, *, tools: Iterable[Any] | None = None) -> MessageView:
    """Return the view of what `load_active` found; None: of a conversation that is absent. tools: see `view`."""
    return build_view(sent.entries, state=sent.head.state.view, cut=sent.cut, tools=tools) if sent else MessageView()


def build_view(
    entries: Iterable[Entry],
    *,
    state: ViewState | None = None,
    cut: Entry[Cut | CompactionByAPI] | None = None,
    tools: Iterable[Any] | None = None,
) -> MessageView:
    """Return what is sent of the entries that the view goes through, in order; no entries: no messages.

    state: of the conversation; None: nothing was cut, all thinking may be sent. cut: the entry that said from which
    position on messages are sent; its own message is the first. tools: of the request, or their names; references to
    others are left out. None: they are not known, and references stay.
    """
    state, entries, notes = state or ViewState(), list(entries), Notes()
    omissions = find_omissions(entries)
    items = [item_from_entry(entry) for entry in select_messages(entries)]
    lead = item_from_cut(cut) if cut else None
    named = replace_ids([lead, *items] if lead else items, state.renamed_calls, notes)
    omitted = describe_omissions(named, omissions) if omissions else ()
    whole = leave_out_refused(leave_out_omitted(named, omissions) if omissions else named, notes)
    bound = state.thinking_valid_from
    stripped = sum(count_thoughts(item.message) for item in whole if item.position < bound) if bound else 0
    sent = pair_calls(clean_items(whole, notes, thinking_from=bound), notes)
    messages = [item.message for item in sent]
    if tools is not None and (names := list_tool_names(tools)) is not None:
        given, messages = messages, drop_undefined_references(messages, names)
        for item, is_same in zip(sent, map(operator.is_, messages, given), strict=True):
            if not is_same:
                notes.repair(item.position, "left out: a reference to a tool that the request does not define")
    kept = tuple([item.position for item in sent])
    last = max([item.position for item in sent if item.is_reply], default=-1)
    is_told = bool(items) and count_context_tokens(items[-1].usage) is not None
    report = ViewReport(
        kept,
        dropped=tuple(sorted({item.position for item in items}.difference(kept))),
        repairs=tuple(notes.repairs),
        adjusted=tuple(notes.adjusted),
        begin=state.view_start,
        tokens=state.tokens,
        exact=not sent or (is_told and items[-1].position == last > state.cache_valid_from),
        prefix_changed=-1 < last < state.cache_valid_from,
        thinking_stripped=stripped,
        omitted=omitted,
    )
    return MessageView(messages, report)
