"""Makes the events of a rewind, which changes the active path, and of forgetting, which removes its beginning."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from chathistory.errors import CorruptRecord, InvalidInput
from chathistory.log.active_path import (
    clip_ranges,
    contains_position,
    iter_newest_first,
    iter_ranges_newest_first,
    load_cut,
    load_ranges,
    load_setup,
)
from chathistory.log.conversation_log import ConversationLog
from chathistory.log.entry import Entry, is_cut_entry, is_message_entry, select_messages
from chathistory.log.events import CompactionByAPI, Cut, MessageAdded, Rewind, Snapshot
from chathistory.log.field_types import PositionRange, ViewStart
from chathistory.log.message_sizes import count_context_tokens, estimate_tokens
from chathistory.log.read_damaged import ReadableRecord, read_repaired
from chathistory.log.state import ConversationHead
from chathistory.log.turn_boundaries import begins_view, find_open_reply, opens_turn
from chathistory.messages.content import blocks_of
from chathistory.messages.fit_blocks import TOOL_CALL_TYPES
from chathistory.view.clean_message import count_thinking_blocks
from chathistory.view.leave_out import find_omissions
from chathistory.view.tool_call_ids import find_duplicate_calls

__all__ = [
    "NewPath",
    "count_turns",
    "is_waiting_for_result",
    "make_rewind",
    "make_rewind_along",
    "make_snapshot_entries",
]

_PORTION = 32


@dataclass(frozen=True, slots=True)
class NewPath:
    """The path that becomes active with a rewind.

    Attributes:
        ranges: The ranges of positions on it, oldest first.
        end: The position at which it ends.
        messages: How many messages are on it.
        turns: How many of them open a turn.
        keeps_view: True if the view begins where it begins now; False if it begins where the last cut on the path says.
    """

    ranges: Sequence[PositionRange]
    end: int
    messages: int
    turns: int
    keeps_view: bool


def make_rewind(log: ConversationLog, head: ConversationHead | None, to: int) -> Rewind:
    """Return the event that rewinds to a position: everything from there on leaves the active path.

    Args:
        log: The log of the conversation.
        head: Its head; None if there is no conversation.
        to: The position: one on the active path, or its end.

    Raises:
        InvalidInput: `to` is not on the active path, or within a turn whose thinking must be sent and no longer can.
    """
    ranges = load_ranges(log, head, []) if head else []
    if head is None or not (contains_position(ranges, to) or contains_position(ranges, to - 1)):
        raise InvalidInput(
            f"cannot rewind to {to}: it is not a position of the current conversation; "
            "`last_entries` and `chathistory show` give the positions"
        )
    removed = select_messages(_list_from(log, head, to))
    totals, view_start = head.state.totals, head.state.view.view_start
    path = NewPath(
        clip_ranges(ranges, high=to),
        to,
        messages=totals.messages - len(removed),
        turns=totals.turns - count_turns(removed),
        keeps_view=not view_start or to > view_start,
    )
    return make_rewind_along(log, head, path)


def make_rewind_along(log: ConversationLog, head: ConversationHead, path: NewPath) -> Rewind:
    """Return the event that makes a path the active one.

    The records that it reads do not count as read by this process, so `head` still guards the append that follows.

    Args:
        log: The log of the conversation.
        head: Its head.
        path: The path.

    Raises:
        InvalidInput: The path ends within a turn whose thinking must be sent and no longer can.
    """
    view = head.state.view
    start = None if path.keeps_view else _find_view_start(log, head, path)
    # messages before the present cut are sent again, so thinking so far becomes invalid unless the API drops it itself
    invalid_before = path.end if start is not None and not view.drop_stale_thinking else view.thinking_valid_from
    reply = find_open_reply(iter_ranges_newest_first(log, path.ranges, _PORTION)) if invalid_before else None
    if reply and reply.position < invalid_before and count_thinking_blocks(reply.event.message):
        raise InvalidInput(f"cannot rewind to {path.end}, within a trimmed tool turn; rewind to the start of that turn")
    cut = load_cut(log, head) if path.keeps_view else None
    if start and start.cut_position is not None:
        entry = log.read_entries(start.cut_position, start.cut_position + 1)[0]
        cut = entry if is_cut_entry(entry) else None
    earlier = iter_ranges_newest_first(log, path.ranges, _PORTION)
    # entries after the path may say that content on it is not sent; that stays so
    omissions = find_omissions(reversed(_list_from(log, head, path.end)))
    return Rewind(
        to=path.end,
        path=tuple(path.ranges),
        messages=path.messages,
        turns=path.turns,
        tokens=_estimate_tokens(earlier, (start or view).view_start, cut),
        view=start,
        omitted=tuple(each for position, omitted in omissions.items() if position < path.end for each in omitted),
    )


def count_turns(messages: Iterable[Entry[MessageAdded]]) -> int:
    """Return how many of the messages open a turn.

    Args:
        messages: The messages.
    """
    return sum(opens_turn(entry.event.message) for entry in messages)


def is_waiting_for_result(log: ConversationLog, head: ConversationHead) -> bool:
    """Return True if the last turn lacks a tool result or the rest of a reply, so that the API requires its thinking.

    The records that it reads do not count as read by this process, so `head` still guards the append that follows.

    Args:
        log: The log of the conversation.
        head: Its head.
    """
    return find_open_reply(iter_newest_first(log, _PORTION, before=head.end)) is not None


def _list_from(log: ConversationLog, head: ConversationHead, position: int) -> list[Entry]:
    """Return the active entries from a position on, newest first."""
    newest = iter_newest_first(log, _PORTION, before=head.end)
    return list(itertools.takewhile(lambda entry: entry.position >= position, newest))


def _find_view_start(log: ConversationLog, head: ConversationHead, path: NewPath) -> ViewStart:
    """Return where the view began at the end of a path: what the last cut on it says."""
    turns = path.turns
    for entry in iter_ranges_newest_first(log, path.ranges, _PORTION):
        if is_cut_entry(entry):
            cut = entry.event
            return ViewStart(cut.view_start, entry.position, cut.hidden_turns, cut.view_since)
        if is_message_entry(entry):
            if begins_view(entry.event):
                return ViewStart(entry.position, None, turns, entry.time_us)
            turns -= opens_turn(entry.event.message)
    return ViewStart(view_since=head.state.identity.created)


def _estimate_tokens(earlier: Iterable[Entry], view_start: int, cut: Entry[Cut | CompactionByAPI] | None) -> int:
    """Return an estimate of the tokens that a path sends: the usage of its last reply, and what follows that.

    The usage of a reply before the last cut counts messages that are no longer sent, so it is not used; then the size
    of all messages, and of the message of the cut, is estimated.
    """
    tokens = 0
    if cut:
        tokens = cut.event.preamble_tokens + (estimate_tokens(cut.event.message) if cut.event.message else 0)
    for entry in itertools.takewhile(lambda entry: entry.position >= view_start, earlier):
        if not is_message_entry(entry):
            continue
        context = count_context_tokens(entry.event.response.usage)
        if context is not None and (cut is None or entry.position > cut.position):
            return tokens + context
        tokens += estimate_tokens(entry.event.message)
    return tokens


# Forgetting.


def make_snapshot_entries(log: ConversationLog, head: ConversationHead, before: int) -> list[Entry]:
    """Return the entries to store before a forget, from which the state can be rebuilt without the forgotten records.

    Args:
        log: The log of the conversation.
        head: Its head.
        before: The position below which records will be removed.

    Raises:
        CorruptRecord: A record that the head refers to is damaged or of another kind.
    """
    try:
        entries = [entry for part in log.read_in_parts(head.start, before) for entry in log.decode_part(part)]
    except CorruptRecord:
        entries = [each.entry for each in read_repaired(log, head.stored, before) if isinstance(each, ReadableRecord)]
    load_cut(log, head, entries)  # raises if the head refers to an entry of another kind as its cut
    setup = load_setup(log, head, entries)
    state, ranges = head.state, load_ranges(log, head, [])
    view, totals = state.view, state.totals
    messages = select_messages(entry for entry in entries if contains_position(ranges, entry.position))
    sent = [entry for entry in messages if entry.position >= view.view_start]
    hidden = [entry for entry in messages if entry.position < view.view_start]
    cut = next((entry for entry in entries if entry.position == view.cut_position), None)
    cut_message = cut.message if cut else None
    tokens = sum(estimate_tokens(entry.event.message) for entry in sent) + (
        estimate_tokens(cut_message) if cut_message else 0
    )
    without_preview = replace(state, totals=replace(totals, preview=None))  # it quotes a message that is forgotten
    snapshot = Snapshot(
        path=tuple(clip_ranges(ranges, low=before, high=head.end)),
        messages=totals.messages - len(messages),
        turns=totals.turns - count_turns(messages),
        tokens=max(0, view.tokens - tokens),
        hidden_turns=max(0, view.hidden_turns - count_turns(hidden)),
        was_sent=bool(sent or cut_message),
        cut_position=None if cut else view.cut_position,
        state=without_preview.to_dict(),
        renamed_calls=_find_renamed(log, head, before, sent),
    )
    gone = next((entry for entry in entries if entry.position == state.engine.setup_position), None)
    return [Entry(snapshot), Entry(setup, extra=gone.extra)] if setup and gone else [Entry(snapshot)]


def _find_renamed(
    log: ConversationLog, head: ConversationHead, before: int, forgotten: Sequence[Entry[MessageAdded]]
) -> tuple[str, ...]:
    """Return the tool calls that stay renamed although the call that had their id first will be forgotten."""
    renamed = head.state.view.renamed_calls
    if not any(block["type"] in TOOL_CALL_TYPES for entry in forgotten for block in blocks_of(entry.event.message)):
        return renamed
    ranges = clip_ranges(load_ranges(log, head, []), low=before, high=head.end)
    kept = [entry for start, stop in ranges for entry in log.read_entries(start, stop)]
    return find_duplicate_calls([*forgotten, *kept], renamed, start=before)
