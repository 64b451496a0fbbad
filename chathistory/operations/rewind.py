"""Entries that change which part of a log is gone through: going back, forgetting, going around what is damaged."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from chathistory.errors import CorruptRecord, InvalidInput
from chathistory.log.active_path import Span, clipped, covers, newest_first, record_named, spans_of, walked
from chathistory.log.conversation_log import ConversationLog
from chathistory.log.entry import Entry
from chathistory.log.message_sizes import context_of, estimated
from chathistory.log.omissions import omissions_in, to_data
from chathistory.log.read_damaged import Sound, read_repaired
from chathistory.log.reducers import begins_view, open_reply, opens_turn
from chathistory.log.state import Summary, summary_of
from chathistory.messages.content import blocks_of
from chathistory.messages.fit_blocks import CALLS
from chathistory.storage.store import Head
from chathistory.view.clean_message import thoughts
from chathistory.view.tool_call_ids import doubled_calls

__all__ = ["rewound", "route", "snapshots", "within_a_turn"]

_PORTION = 32


def rewound(log: ConversationLog, head: Head | None, to: int) -> Entry:
    """Return the entry after which the view goes on from position `to`. Raises `InvalidInput`."""
    spans = spans_of(log, head, []) if head else []
    if head is None or not (covers(spans, to) or covers(spans, to - 1)):
        raise InvalidInput(f"position {to} is none that this conversation goes through")
    earlier = newest_first(log, _PORTION, before=head.end)
    later = [entry for entry in itertools.takewhile(lambda entry: entry.position >= to, earlier) if entry.message]
    summary = summary_of(head)
    counts = _less(summary, [entry for entry in later if entry.kind == "message"])
    keeps_view = not summary.begin or to > summary.begin
    return route(log, head, clipped(spans, high=to), counts, to=to, keeps_view=keeps_view)


def route(
    log: ConversationLog, head: Head, spans: list[Span], counts: dict[str, int], *, to: int, keeps_view: bool
) -> Entry:
    """Return the entry after which the view goes through `spans`, which end at `to`.

    Args:
        log: The log.
        head: Its present head; what is read beside it does not count as seen.
        spans: The new path.
        counts: How many messages and turns it has.
        to: Where it ends.
        keeps_view: Whether messages are sent from where on they are sent now; else from where the last cut on the new
            path says.

    Raises:
        InvalidInput: The path ends within a turn whose thinking has to be sent and can no longer be.
    """
    summary = summary_of(head)
    view = None if keeps_view else _view_at(walked(log, spans, _PORTION), counts["turns"], summary.created)
    _check_thinking(walked(log, spans, _PORTION), summary, to, unbound=view is not None)
    begin, cut = (view["begin"], view["cut"]) if view else (summary.begin, summary.cut)
    if view:
        lead = _lead(log.read(cut, cut + 1)[0]) if cut is not None else 0
    else:
        lead = _lead(named) if (named := record_named(log, head, "cut")) else 0
    tokens = lead + _context(walked(log, spans, _PORTION), begin=begin or 0, cut=cut)
    data = {"to": to, "path": spans, "tokens": tokens} | counts
    if omitted := _omitted_before(log, head, to):
        data["omitted"] = omitted
    return Entry("rewind", data=data | ({"view": view} if view else {}))


def _omitted_before(log: ConversationLog, head: Head, to: int) -> list[Any]:
    """Return what entries from a position on say is not sent of messages before it: it stays so."""
    newest = newest_first(log, _PORTION, before=head.end)
    later = list(itertools.takewhile(lambda entry: entry.position >= to, newest))
    omissions = omissions_in(reversed(later))
    return to_data(each for position, there in omissions.items() if position < to for each in there)


def _view_at(earlier: Iterable[Entry], turns: int, created: int) -> dict[str, int | None]:
    """Return from where on messages were sent at the end of a path: what the last cut on it said.

    Args:
        earlier: The entries of the path, newest first.
        turns: How many turns it has.
        created: When the conversation began.
    """
    for entry in earlier:
        if entry.kind in ("cut", "compaction"):
            said = entry.data
            return {"begin": said["from"], "cut": entry.position, "hidden": said["hidden"], "since": said["since"]}
        if begins_view(entry):
            return {"begin": entry.position, "cut": None, "hidden": turns, "since": entry.at}
        turns -= entry.kind == "message" and opens_turn(entry.message or {})
    return {"begin": 0, "cut": None, "hidden": 0, "since": created}


def _check_thinking(earlier: Iterable[Entry], summary: Summary, to: int, *, unbound: bool) -> None:
    """Refuse to go back into a turn whose thinking has to be sent and cannot be any more.

    unbound: what was cut off is sent again, so that thinking so far is not, unless the API drops it itself.
    """
    bound = to if unbound and not summary.drop_block else summary.thinking_from
    if not bound:
        return
    reply = open_reply(earlier)
    if reply and reply.position < bound and thoughts(reply):
        raise InvalidInput(
            f"position {to} is within a turn whose thinking is not sent any more; go back to where it begins"
        )


def _less(summary: Summary, gone: Sequence[Entry]) -> dict[str, int]:
    """Return how many messages and turns are left without those that go."""
    turns = sum(opens_turn(entry.message) for entry in gone if entry.message)
    return {"messages": summary.messages - len(gone), "turns": summary.turns - turns}


def _context(earlier: Iterable[Entry], *, begin: int, cut: int | None) -> int:
    """Return about how many tokens a path sends: what the last reply on it told, and what follows.

    What was told before a cut counts what is not sent any more.
    """
    tokens = 0
    for entry in earlier:
        if entry.position < begin:
            break
        if entry.kind != "message" or entry.message is None:
            continue
        told = context_of(entry.data.get("response", {}).get("usage"))
        if told is not None and (cut is None or entry.position > cut):
            return tokens + told
        tokens += estimated(entry.message)
    return tokens


def _lead(cut: Entry) -> int:
    """Return about how many tokens stand before the messages behind a cut."""
    return int(cut.data["before"]) + (estimated(cut.message) if cut.message else 0)


def snapshots(log: ConversationLog, head: Head, before: int) -> list[Entry]:
    """Return the entries from which the fold can start again once all below `before` is gone."""
    try:
        entries = [entry for part in log.slices(head.start, before) for entry in log.entries(part)]
    except CorruptRecord:
        entries = [each.entry for each in read_repaired(log, head, before) if isinstance(each, Sound)]
    for name in ("cut", "setup_at"):
        record_named(log, head, name, entries)
    setup = [entry for entry in entries if entry.position == summary_of(head).setup_at]
    return [_snapshot(log, head, before, entries), *(Entry("setup", data=entry.data) for entry in setup)]


def _snapshot(log: ConversationLog, head: Head, before: int, entries: Sequence[Entry]) -> Entry:
    summary, spans = summary_of(head), spans_of(log, head, [])
    gone = [entry for entry in entries if covers(spans, entry.position)]
    said = [entry for entry in gone if entry.kind == "message"]
    sent = [entry for entry in said if entry.position >= summary.begin]
    cut_off = [entry for entry in said if entry.position < summary.begin]
    lead = [entry for entry in entries if entry.position == summary.cut]
    renamed = _renamed(log, head, before, sent)
    data: dict[str, Any] = {
        "path": clipped(spans, low=before, high=head.end),
        "tokens": max(0, summary.context - sum(estimated(entry.message or {}) for entry in (*sent, *lead))),
        "hidden": max(0, summary.hidden - sum(opens_turn(entry.message or {}) for entry in cut_off)),
        "sent": bool(sent or any(entry.message for entry in lead)),
        "cut": None if lead else summary.cut,
        "summary": json.loads(replace(summary, preview=None).encode()),  # the preview quotes what is to be forgotten
    }
    return Entry("snapshot", data=data | _less(summary, said) | ({"renamed": renamed} if renamed else {}))


def _renamed(log: ConversationLog, head: Head, before: int, gone: Sequence[Entry]) -> list[str]:
    """Return the calls that stay renamed although the one that had their id first is to be forgotten."""
    if not any(block["type"] in CALLS for entry in gone for block in blocks_of(entry.message or {"content": ""})):
        return summary_of(head).renamed
    spans = clipped(spans_of(log, head, []), low=before, high=head.end)
    kept = [entry for start, stop in spans for entry in log.read(start, stop)]
    marks = doubled_calls([*gone, *kept], summary_of(head).renamed)
    return [mark for mark in marks if int(mark.partition(".")[0]) >= before]


def within_a_turn(log: ConversationLog, head: Head) -> bool:
    """Whether the API still wants the thinking of the last turn: a tool's result or the rest of a reply is missing.

    What is read for it does not count as seen, so that the append that follows is still guarded by `head`.
    """
    return open_reply(newest_first(log, _PORTION, before=head.end)) is not None
