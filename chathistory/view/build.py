"""Building the view: a pure function from the entries of a log to messages that the API accepts.

The log keeps exactly what was sent and received. The API refuses some of that when it is sent again, and a crash can
leave a tool call without its result. So the view leaves out, reorders and completes messages; `ViewReport` says what
it did.

The same entries always give the same messages, and later entries do not change the messages before a reply. So request
k+1 extends request k, as the prompt cache and the signatures of thinking blocks require.

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
from chathistory.view.clean_message import clean_items, count_thinking_blocks
from chathistory.view.item import Notes, ViewRepair, item_from_cut, item_from_entry
from chathistory.view.leave_out import describe_omissions, find_omissions, leave_out_omitted, leave_out_refused
from chathistory.view.pairing import pair_calls
from chathistory.view.tool_call_ids import replace_ids
from chathistory.view.tool_references import drop_undefined_references, list_tool_names

__all__ = ["MessageView", "ViewRepair", "ViewReport", "build_active_view", "build_view"]


@dataclass(frozen=True, slots=True)
class ViewReport:
    """How the messages of a view were made from the log.

    Attributes:
        kept: The position of each message, in order; -1 for a message that the view added.
        dropped: The positions of messages from `view_start` on that are left out.
        repairs: What was left out, moved, replaced or added, so that the API accepts the rest.
        adjusted: What is sent in another form than it is stored, with the same meaning for the model: ids of tool
            calls, fields that the API does not accept, the input of a tool as JSON in a text.
        view_start: Messages before this position are not sent because of a cut; 0: no cut.
        tokens: How many tokens are sent. System prompt and tools are counted only if a reply has reported them.
        exact: True if the usage of the last reply gives all of `tokens`; False if some of it is estimated.
        prefix_changed: True if something that precedes other messages (a cut, another system prompt) changed, and no
            reply followed: then nothing of it is cached.
        thinking_stripped: How many thinking blocks are left out because they depend on content that is no longer sent.
        omitted: What is left out because the API refused it, or because a user asked for that.
    """

    kept: tuple[int, ...] = ()
    dropped: tuple[int, ...] = ()
    repairs: tuple[ViewRepair, ...] = ()
    adjusted: tuple[ViewRepair, ...] = ()
    view_start: int = 0
    tokens: int = 0
    exact: bool = True
    prefix_changed: bool = False
    thinking_stripped: int = 0
    omitted: tuple[ViewRepair, ...] = ()


@dataclass(frozen=True, slots=True)
class MessageView:
    """Messages that are ready to be sent, and the report on them.

    Attributes:
        messages: The messages, in order.
        report: How they were made.
    """

    messages: list[Message] = field(default_factory=list, repr=False)
    report: ViewReport = ViewReport()


def build_active_view(active: ActiveEntries | None, *, tools: Iterable[Any] | None = None) -> MessageView:
    """Return the view of the active entries of a conversation.

    Args:
        active: The active entries; None: the conversation does not exist.
        tools: As in `build_view`.
    """
    return build_view(active.entries, state=active.state.view, cut=active.cut, tools=tools) if active else MessageView()


def build_view(
    entries: Iterable[Entry],
    *,
    state: ViewState | None = None,
    cut: Entry[Cut | CompactionByAPI] | None = None,
    tools: Iterable[Any] | None = None,
) -> MessageView:
    """Return the messages that are sent for the active entries.

    Args:
        entries: The active entries, in order.
        state: The view part of the conversation's state; None: no cut, and all thinking can be sent.
        cut: The cut that set the start of the view; its message is sent first. None: no cut.
        tools: The tools of the request, or their names; references to other tools are left out. None: the tools are
            unknown, and references stay.
    """
    state, entries, notes = state or ViewState(), list(entries), Notes()
    omissions = find_omissions(entries)
    items = [item_from_entry(entry) for entry in select_messages(entries)]
    cut_item = item_from_cut(cut) if cut else None
    renamed = replace_ids([cut_item, *items] if cut_item else items, state.renamed_calls, notes)
    omitted = describe_omissions(renamed, omissions) if omissions else ()
    remaining = leave_out_refused(leave_out_omitted(renamed, omissions) if omissions else renamed, notes)
    valid_from = state.thinking_valid_from
    stale = (item for item in remaining if item.position < valid_from)
    stripped = sum(count_thinking_blocks(item.message) for item in stale) if valid_from else 0
    sent = pair_calls(clean_items(remaining, notes, thinking_from=valid_from), notes)
    messages = [item.message for item in sent]
    if tools is not None and (names := list_tool_names(tools)) is not None:
        before, messages = messages, drop_undefined_references(messages, names)
        for item, is_same in zip(sent, map(operator.is_, messages, before), strict=True):
            if not is_same:
                notes.repair(item.position, "left out: a reference to a tool that the request does not define")
    kept = tuple([item.position for item in sent])
    last = max([item.position for item in sent if item.is_reply], default=-1)
    has_usage = bool(items) and count_context_tokens(items[-1].usage) is not None
    report = ViewReport(
        kept,
        dropped=tuple(sorted({item.position for item in items}.difference(kept))),
        repairs=tuple(notes.repairs),
        adjusted=tuple(notes.adjusted),
        view_start=state.view_start,
        tokens=state.tokens,
        exact=not sent or (has_usage and items[-1].position == last > state.cache_valid_from),
        prefix_changed=-1 < last < state.cache_valid_from,
        thinking_stripped=stripped,
        omitted=omitted,
    )
    return MessageView(messages, report)
