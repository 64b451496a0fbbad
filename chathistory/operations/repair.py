"""Finding a way around what cannot be read or sent, and writing that way into the log.

A conversation may be much larger than memory, so it is read in portions, and what is sent of it is looked at in
*stretches*: runs of whole turns. Between two turns the view depends on nothing that was said before, but for the ids of
tool calls; where one comes again, all is looked at as one stretch.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from chathistory.log.active_path import ActiveEntries, clip_spans, cut_spans_at, find_spans, load_spans
from chathistory.log.conversation_log import ConversationLog
from chathistory.log.entry import Entry, is_cut_entry, is_message_entry, messages_among
from chathistory.log.events import Compaction, Cut, MessageAdded, Repair, Setup, UnknownEvent
from chathistory.log.field_types import Span
from chathistory.log.lease import check_free
from chathistory.log.message_sizes import estimated
from chathistory.log.read_damaged import Lost, Sound, read_log_around
from chathistory.log.state import ConversationHead, ConversationState
from chathistory.log.turn_boundaries import opens_turn
from chathistory.messages.content import blocks_of
from chathistory.operations.leave_out import list_refused, make_refusal_entries, update_last_refusal
from chathistory.view import MessageView, ViewRepair, view_of
from chathistory.view.item import ADDED
from chathistory.view.leave_out import find_omissions, has_omissions
from chathistory.view.tool_call_ids import given_ids, with_given_ids

__all__ = ["find_left_out", "repair"]

_CHUNK_SIZE = 512 * 1024
"""About how many bytes of messages are looked at as one stretch; a single turn may be larger."""


def repair(log: ConversationLog, *, dry_run: bool = True, force: bool = False) -> tuple[ViewRepair, ...]:
    """Return what has to be repaired, in the order of the log; without `dry_run`, repair it in the log.

    Args:
        log: Of the conversation.
        dry_run: Change nothing.
        force: Also while a turn is open.

    Raises:
        CorruptRecord: The head itself is damaged.
        TurnInProgress: A turn is open, and `force` was not given.
        Conflict: Somebody else wrote meanwhile.
    """
    with log.lock:
        head = log.refresh()
        if head is None:
            return ()
        route, found = _examine_conversation(log, head)
        refused = list_refused([found.refusal] if found.refusal else [])
        if refused and not dry_run:
            if not force:
                check_free(log.key, route.state)
            sent = _load_sent_entries(log, route, found, route.state.view.view_start)
            route, found = _examine_conversation(log, log.append(make_refusal_entries(sent)))
        repairs = (*found.losses, *refused, *found.repairs)
        if not dry_run and (found.losses or found.repairs):
            if not force:
                check_free(log.key, route.state)
            if entries := _make_repair_entries(log, route, found):
                log.append(entries)
        return repairs


def _examine_conversation(log: ConversationLog, head: ConversationHead) -> tuple[_ActivePath, _Findings]:
    route = _find_active_path(log, head)
    found = _examine_path(log, route)
    if any(found.is_sent(each.position) for each in found.losses):  # thinking is bound to what is lost now
        view = replace(route.state.view, thinking_valid_from=head.end)
        route = replace(route, head=replace(route.head, state=replace(route.state, view=view)))
        found = _examine_path(log, route)
    return route, found


def find_left_out(log: ConversationLog) -> tuple[ViewRepair, ...]:
    """Return what cannot be read of what the conversation no longer goes through: exports and copies still meet it."""
    head = log.refresh()
    if head is None:
        return ()
    position, gaps = head.start, []
    for start, stop in sorted(load_spans(log, head, [])):
        gaps.append((position, start))
        position = max(position, stop)
    gaps.append((position, head.end))
    each_of_all = (each for start, stop in gaps for each in read_log_around(log.store, head.stored, start, stop))
    return tuple(ViewRepair(each.position, f"damaged: {each.reason}") for each in each_of_all if isinstance(each, Lost))


@dataclass(frozen=True, slots=True)
class _ActivePath:
    """What a conversation goes through.

    head: As it was read, with the state as the view is to take it: without what it says of entries that are others.
    spans: Of positions, in order; all of the log if the entry that says them is lost.
    cut: The newest cut, if it can be read.
    lost: Records beside the spans that are needed and cannot be read, by position, with the reason.
    misnamed: By what the head takes them for, entries that are other ones.
    """

    head: ConversationHead
    spans: list[Span]
    cut: Entry[Cut | Compaction] | None
    lost: dict[int, str]
    mismatches: dict[str, ViewRepair]

    @property
    def state(self) -> ConversationState:
        return self.head.state

    @property
    def head_positions(self) -> set[int | None]:
        view = self.state.view
        return {view.cut_position, view.path, self.state.engine.setup_position}


def _find_active_path(log: ConversationLog, head: ConversationHead) -> _ActivePath:
    view, engine = head.state.view, head.state.engine
    named = {_CUT: view.cut_position, _SETUP: engine.setup_position, _PATH: view.path}
    lost: dict[int, str] = {}
    found: dict[str, Entry] = {}
    misnamed: dict[str, ViewRepair] = {}
    for name, position in named.items():
        if position is None:
            continue
        if position < head.start:
            misnamed[name] = ViewRepair(position, f"the head names it as {name}, which it is not")
        for each in read_log_around(log.store, head.stored, max(position, head.start), position + 1):
            if (reason := _find_loss_reason(each)) is not None:
                lost[position] = reason
            elif isinstance(each, Sound) and (
                find_spans(each.entry, head) is not None
                if name == _PATH
                else isinstance(each.entry.event, Setup if name == _SETUP else Cut | Compaction)
            ):
                found[name] = each.entry
            else:
                misnamed[name] = ViewRepair(position, f"the head names it as {name}, which it is not")
    cut_position = None if _CUT in misnamed else view.cut_position
    view = replace(view, cut_position=cut_position, path=None if _PATH in misnamed else view.path)
    engine = replace(engine, setup_position=None if _SETUP in misnamed else engine.setup_position)
    path, cut = found.get(_PATH), found.get(_CUT)
    spans = (find_spans(path, head) if path else None) or [(head.start, head.end)]
    known = replace(head, state=replace(head.state, view=view, engine=engine))
    return _ActivePath(known, spans, cut if cut and is_cut_entry(cut) else None, lost, misnamed)


_CUT, _SETUP, _PATH = "the newest cut", "the newest setup", "the one that says which part of the log is active"


def _find_loss_reason(each: Sound | Lost) -> str | None:
    """Return why a position is left out; None: it can be read, or passed by."""
    if isinstance(each, Lost):
        return f"left out: the record is damaged, {each.reason}"
    event = each.entry.event
    is_unsupported = isinstance(event, UnknownEvent) and not event.may_be_passed_by
    return "left out: a later version of chathistory wrote it" if is_unsupported else None


@dataclass(slots=True)
class _Counts:
    """How many messages and turns stand below a position, and about how many tokens are sent of them."""

    messages: int = 0
    turns: int = 0
    hidden: int = 0
    tokens: int = 0

    def add(self, entry: Entry[MessageAdded], *, is_sent: bool) -> None:
        is_turn = opens_turn(entry.event.message)
        self.messages += 1
        self.turns += is_turn
        self.hidden += is_turn and not is_sent
        self.tokens += estimated(entry.event.message) if is_sent else 0


@dataclass(slots=True)
class _Findings:
    """What was found in a conversation.

    lost: What cannot be read of what it goes through, by position, with the reason.
    misnamed: As in `_Route`.
    refusal: The entry that tells of the last refusal for something that stood before, if nothing came of it yet.
    notes: Those of its entries that say what is not sent. is_whole: Whether all was looked at as one stretch.
    changes: What the view does to the rest. counts: Of the messages below `first`.
    first: The first message that the view changes or leaves out; None: there is none.
    stretch: The first position of the first stretch of which something has to be stored again; None: there is none.
    start: The first message of what is sent; None: nothing is.
    """

    view_start: int
    head_positions: set[int | None]
    lost: dict[int, str]
    mismatches: Mapping[str, ViewRepair]
    refusal: Entry | None = None
    omission_entries: list[Entry] = field(default_factory=list)
    is_one_chunk: bool = False
    changes: list[ViewRepair] = field(default_factory=list)
    counts: _Counts = field(default_factory=_Counts)
    first_changed: int | None = None
    first_rewritten: int | None = None
    first_sent: int | None = None

    @property
    def losses(self) -> list[ViewRepair]:
        lost = [ViewRepair(position, reason) for position, reason in self.lost.items()]
        return sorted([*lost, *self.mismatches.values()], key=lambda each: each.position)

    @property
    def repairs(self) -> list[ViewRepair]:
        return sorted(self.changes, key=lambda each: (each.position == ADDED, each.position))

    def is_sent(self, position: int) -> bool:
        """Whether what is at a position was sent to Claude, or told what is sent."""
        is_named = position in self.head_positions or any(
            each.position == position for each in self.mismatches.values()
        )
        return position >= self.view_start or is_named


def _examine_path(log: ConversationLog, path: _ActivePath) -> _Findings:
    """Read what a conversation goes through, and look at what is sent of it."""
    found = _Findings(path.state.view.view_start, path.head_positions, dict(path.lost), path.mismatches)
    ids: set[str] = set()
    for stretch in _split_into_chunks(_iter_messages(log, path, found), found.view_start):
        blocks = [block for entry in stretch for block in blocks_of(entry.event.message)]
        new = {block["id"] for block in blocks if block["type"].endswith("tool_use")}
        new.update(*(entry.event.sent_ids.values() for entry in stretch))
        if found.omission_entries or ids.intersection(new):
            return _examine_in_one_chunk(log, path)
        ids.update(new)
        _examine_chunk(path, stretch, found)
    if found.omission_entries:
        return _examine_in_one_chunk(log, path)
    if found.first_sent is None:
        _examine_chunk(path, [], found)
    return found


def _examine_in_one_chunk(log: ConversationLog, path: _ActivePath) -> _Findings:
    """Do the same in one stretch, of which only as much text is held as the view looks at."""
    found = _Findings(
        path.state.view.view_start, path.head_positions, dict(path.lost), path.mismatches, is_one_chunk=True
    )
    stretch: list[Entry[MessageAdded]] = []
    for entry in _iter_messages(log, path, found):
        if entry.position < found.view_start:
            found.counts.add(entry, is_sent=False)
        else:
            short = replace(entry.event, message=_shorten_texts(entry.event.message))
            stretch.append(entry if entry.surrogates else replace(entry, event=short))
    _examine_chunk(path, stretch, found)
    return found


def _iter_messages(log: ConversationLog, path: _ActivePath, found: _Findings) -> Iterator[Entry[MessageAdded]]:
    """Yield the messages that a conversation goes through.

    What cannot be read, and the entries that say what is not sent, are added to `found`.
    """
    found.omission_entries.clear()
    for start, stop in path.spans:
        for each in read_log_around(log.store, path.head.stored, start, stop):
            reason = _find_loss_reason(each)
            if reason is not None:
                found.lost[each.position] = reason
            if reason is not None or not isinstance(each, Sound):
                continue
            entry = each.entry
            found.refusal = update_last_refusal(found.refusal, entry)
            if entry.position >= found.view_start and has_omissions(entry):
                found.omission_entries.append(entry)
            if is_message_entry(entry):
                yield entry


def _split_into_chunks(messages: Iterable[Entry[MessageAdded]], view_start: int) -> Iterator[list[Entry[MessageAdded]]]:
    """Yield stretches of whole turns; what is not sent and what is are never in one."""
    stretch: list[Entry[MessageAdded]] = []
    replies: list[Entry[MessageAdded]] = []  # that were given since somebody else spoke
    size = 0
    for entry in messages:
        is_reply = entry.event.message["role"] == "assistant"
        is_first_sent = bool(stretch) and stretch[-1].position < view_start <= entry.position
        is_long = size >= _CHUNK_SIZE and entry.position < view_start
        if size >= _CHUNK_SIZE and not is_reply and opens_turn(entry.event.message):
            # a turn begins here; the one before is closed if its replies said something and left nothing open
            reasons = {reply.event.response.stop_reason for reply in replies}
            blocks = [block for reply in replies for block in blocks_of(reply.event.message)]
            is_said = any(block["type"] == "text" and (block.get("text") or "").strip() for block in blocks)
            is_open = any(block["type"].endswith("tool_use") for block in blocks)
            is_long = is_long or (is_said and not is_open and reasons.isdisjoint({"pause_turn", "refusal"}))
        if is_first_sent or is_long:
            yield stretch
            stretch, size = [], 0
        stretch.append(entry)
        size += _count_characters(entry.event.message)
        replies = [*replies, entry] if is_reply else []
    if stretch:
        yield stretch


def _count_characters(value: Any) -> int:
    """Return about how many characters a value has."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        return sum(map(_count_characters, value.values())) + len(value)
    return sum(map(_count_characters, value)) + len(value) if isinstance(value, list) else 1


def _examine_chunk(path: _ActivePath, chunk: list[Entry[MessageAdded]], found: _Findings) -> None:
    """Take down what the view does about a stretch."""
    if chunk and chunk[-1].position < found.view_start:
        for entry in chunk:
            found.counts.add(entry, is_sent=False)
        return
    if found.first_sent is None and chunk:
        found.first_sent = chunk[0].position
    report = _build_view(path, found, chunk).report
    found.changes += report.repairs
    changed = {each.position for each in report.repairs}.union(report.dropped) - {ADDED, path.state.view.cut_position}
    is_added = any(each.position == ADDED for each in report.repairs)
    if found.first_rewritten is None and (changed or is_added):
        found.first_rewritten = chunk[0].position if chunk else path.head.end
    first = max(found.view_start, min(changed)) if changed and found.first_changed is None else None
    if found.first_changed is None:
        for entry in chunk:
            if first is None or entry.position < first:
                found.counts.add(entry, is_sent=True)
        found.first_changed = first


def _build_view(path: _ActivePath, found: _Findings, chunk: list[Entry[MessageAdded]]) -> MessageView:
    """Return the view of a stretch: the first with what a cut put before all, others behind a turn that is closed."""
    if not chunk or chunk[0].position == found.first_sent:
        return view_of(ActiveEntries(path.head, _merge_by_position(chunk, found.omission_entries), path.cut))
    shown = view_of(ActiveEntries(path.head, [*_TURN_BEFORE, *chunk]))
    count = len(_TURN_BEFORE)
    return MessageView(shown.messages[count:], replace(shown.report, kept=shown.report.kept[count:]))


def _merge_by_position(messages: Sequence[Entry], others: Sequence[Entry]) -> Sequence[Entry]:
    return sorted([*messages, *others], key=operator.attrgetter("position")) if others else messages


_TURN_BEFORE = (
    Entry(MessageAdded({"role": "user", "content": "."}), position=-3),
    Entry(MessageAdded({"role": "assistant", "content": "."}), position=-2),
)
"""Stands for all that was said before a stretch."""


def _shorten_texts(value: Any, name: str = "") -> Any:
    """Return a message with as much of its texts as the view looks at: whether there is anything in them."""
    if isinstance(value, str) and name in _TEXT_FIELDS:
        return value[:_TEXT_LENGTH] if len(value) > _TEXT_LENGTH and value[:_TEXT_LENGTH].strip() else value
    if isinstance(value, dict):
        return {key: _shorten_texts(part, key) for key, part in value.items()}
    return [_shorten_texts(part, name) for part in value] if isinstance(value, list) else value


def _load_sent_entries(log: ConversationLog, path: _ActivePath, found: _Findings, start: int) -> ActiveEntries:
    """Return what is sent from a position on, with all of its text."""
    stretch = [entry for entry in _iter_messages(log, path, found) if entry.position >= start]
    told = [found.refusal] if found.refusal and found.refusal not in found.omission_entries else []
    return ActiveEntries(path.head, _merge_by_position(stretch, [*found.omission_entries, *told]), path.cut)


_TEXT_FIELDS = frozenset({"text", "thinking", "data", "content"})
_TEXT_LENGTH = 64


def _make_repair_entries(log: ConversationLog, path: _ActivePath, found: _Findings) -> list[Entry]:
    """Return what has to be written for the log to be sent without any repair."""
    end = path.head.end
    first = end if found.first_changed is None else found.first_changed
    written: list[Entry] = [Entry(_make_repair(path, found, first))] if found.losses or first < end else []
    if found.first_rewritten is None:
        return written
    stretch = messages_among(_load_sent_entries(log, path, found, max(found.view_start, found.first_rewritten)).entries)
    shown = _build_view(path, found, stretch)
    ids = given_ids(stretch, path.state.view.renamed)
    stored = {entry.position: entry for entry in stretch}
    cut_position = path.state.view.cut_position
    for position, message in zip(shown.report.kept, shown.messages, strict=True):
        if position != ADDED and (position < first or position == cut_position):
            continue
        # callers answer tool calls by the ids that these have in the log, not by those under which they are sent
        given, sent_ids = with_given_ids(message, ids)
        entry = stored.get(position)
        if entry is None:  # the view has added it
            written.append(Entry(MessageAdded(given, sent_ids=sent_ids)))
            continue
        event = replace(entry.event, message=given, sent_ids=sent_ids, copy_of=position)
        event = replace(event, lease_until=None, opened_by=None)
        written.append(Entry(event, entry.turn, time_us=entry.time_us, extra=entry.extra))
    return written


def _make_repair(path: _ActivePath, found: _Findings, first: int) -> Repair:
    counts, view = found.counts, path.state.view
    omissions = find_omissions(found.omission_entries)
    return Repair(
        path=tuple(cut_spans_at(clip_spans(path.spans, high=first), found.lost)),
        messages=counts.messages,
        turns=counts.turns,
        hidden_turns=counts.hidden,
        tokens=counts.tokens,
        cut_position=view.cut_position if view.cut_position not in found.lost else None,
        lost=tuple(each.position for each in found.losses if found.is_sent(each.position)),
        setup_lost=path.state.engine.setup_position in found.lost or _SETUP in found.mismatches,
        omitted=tuple(each for place, there in omissions.items() if place < first for each in there),
    )
