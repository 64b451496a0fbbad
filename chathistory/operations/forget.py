"""Forgetting: the events from which the state can be folded again once the records before them are gone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from chathistory.errors import CorruptRecord
from chathistory.log.active_path import clip_spans, covers, load_cut, load_setup, load_spans
from chathistory.log.conversation_log import ConversationLog
from chathistory.log.entry import Entry, messages_among
from chathistory.log.events import MessageAdded, Snapshot
from chathistory.log.message_sizes import estimated
from chathistory.log.read_damaged import Sound, read_repaired
from chathistory.log.state import ConversationHead
from chathistory.messages.content import blocks_of
from chathistory.messages.fit_blocks import CALLS
from chathistory.operations.rewind import count_turns
from chathistory.view.tool_call_ids import doubled_calls

__all__ = ["snapshot_entries"]


def snapshot_entries(log: ConversationLog, head: ConversationHead, before: int) -> list[Entry]:
    """Return the entries from which the fold can start again once all below `before` is gone."""
    try:
        entries = [entry for part in log.slices(head.start, before) for entry in log.entries(part)]
    except CorruptRecord:
        entries = [each.entry for each in read_repaired(log, head.stored, before) if isinstance(each, Sound)]
    load_cut(log, head, entries)
    setup = load_setup(log, head, entries)
    snapshot = Entry(_take_snapshot(log, head, before, entries))
    is_setup_gone = any(entry.position == head.state.engine.setup_position for entry in entries)
    return [snapshot, Entry(setup)] if setup and is_setup_gone else [snapshot]


def _take_snapshot(log: ConversationLog, head: ConversationHead, before: int, entries: Sequence[Entry]) -> Snapshot:
    """Return the state at the end of the log, as it is when `entries`, all below `before`, are gone."""
    state, spans = head.state, load_spans(log, head, [])
    view, totals = state.view, state.totals
    said = messages_among(entry for entry in entries if covers(spans, entry.position))
    sent = [entry for entry in said if entry.position >= view.view_start]
    hidden = [entry for entry in said if entry.position < view.view_start]
    cut = next((entry for entry in entries if entry.position == view.cut_position), None)
    lead = cut.message if cut else None
    gone = sum(estimated(entry.event.message) for entry in sent) + (estimated(lead) if lead else 0)
    without_preview = replace(state, totals=replace(totals, preview=None))  # it quotes what is to be forgotten
    return Snapshot(
        path=tuple(clip_spans(spans, low=before, high=head.end)),
        messages=totals.messages - len(said),
        turns=totals.turns - count_turns(said),
        tokens=max(0, view.tokens - gone),
        hidden_turns=max(0, view.hidden_turns - count_turns(hidden)),
        was_sent=bool(sent or lead),
        cut_position=None if cut else view.cut_position,
        state_values=without_preview.to_dict(),
        renamed=_find_renamed(log, head, before, sent),
    )


def _find_renamed(
    log: ConversationLog, head: ConversationHead, before: int, gone: Sequence[Entry[MessageAdded]]
) -> tuple[str, ...]:
    """Return the calls that stay renamed although the one that had their id first is to be forgotten."""
    renamed = head.state.view.renamed
    if not any(block["type"] in CALLS for entry in gone for block in blocks_of(entry.event.message)):
        return renamed
    spans = clip_spans(load_spans(log, head, []), low=before, high=head.end)
    kept = [entry for start, stop in spans for entry in log.read(start, stop)]
    marks = doubled_calls([*gone, *kept], renamed)
    return tuple(mark for mark in marks if int(mark.partition(".")[0]) >= before)
