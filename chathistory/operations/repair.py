"""Repairs a conversation: leaves out what cannot be read, and stores messages again as they can be sent.

A conversation may be much larger than memory, so it is read in portions, and its view is built in *chunks*: runs of
whole turns. The view of a turn depends on earlier messages in two cases only: a tool call has an id that was used
before, or an entry says that content is not sent. In these cases, everything that is sent is examined as one chunk.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from chathistory.log.active_path import ActiveEntries, clip_ranges, exclude_positions, load_ranges, ranges_from_entry
from chathistory.log.conversation_log import ConversationLog
from chathistory.log.entry import FORMAT, Entry, is_cut_entry, is_message_entry, select_messages
from chathistory.log.events import CompactionByAPI, Cut, MessageAdded, Repair, Setup, UnknownEvent
from chathistory.log.field_types import PositionRange
from chathistory.log.lease import check_no_open_turn
from chathistory.log.message_sizes import estimate_tokens
from chathistory.log.read_damaged import LostRecord, ReadableRecord, iter_around_damage
from chathistory.log.state import ConversationHead, ConversationState
from chathistory.log.turn_boundaries import opens_turn
from chathistory.messages.content import blocks_of
from chathistory.operations.leave_out import list_refused, make_entries_omitting_refused, update_last_refusal
from chathistory.view import MessageView, ViewRepair, build_active_view
from chathistory.view.item import ADDED
from chathistory.view.leave_out import find_omissions, has_omissions
from chathistory.view.tool_call_ids import map_sent_to_given_ids, restore_given_ids

__all__ = ["find_damage_off_path", "repair"]

_CHUNK_SIZE = 512 * 1024
"""About how many characters of messages make a chunk; a single turn may be larger."""


def repair(log: ConversationLog, *, dry_run: bool = True, force: bool = False) -> tuple[ViewRepair, ...]:
    """Return what has to be repaired, in the order of the log; without `dry_run`, store the repair.

    Args:
        log: The log of the conversation.
        dry_run: Store nothing; only return what would be repaired.
        force: Repair it even while a turn is open.

    Returns:
        Each position that is left out or changed, with the reason; () if nothing is, or if there is no conversation.

    Raises:
        CorruptRecord: The head itself is damaged; see `restore_head`.
        TurnInProgress: A turn is open, and `force` was not given (without `dry_run`).
        Conflict: Another writer changed the conversation meanwhile.
    """
    with log.lock:
        head = log.refresh()
        if head is None:
            return ()
        path, findings = _examine_conversation(log, head)
        refused = list_refused([findings.refusal] if findings.refusal else [])
        if refused and not dry_run:
            if not force:
                check_no_open_turn(log.key, path.state)
            active = _load_sent_entries(log, path, findings, path.state.view.view_start)
            path, findings = _examine_conversation(log, log.append(make_entries_omitting_refused(active)))
        repairs = (*findings.losses, *refused, *findings.repairs)
        if not dry_run and (findings.losses or findings.repairs):
            if not force:
                check_no_open_turn(log.key, path.state)
            if entries := _make_repair_entries(log, path, findings):
                log.append(entries)
        return repairs


def _examine_conversation(log: ConversationLog, head: ConversationHead) -> tuple[_ActivePath, _Findings]:
    path = _find_active_path(log, head)
    findings = _examine_path(log, path)
    if any(findings.is_sent(each.position) for each in findings.losses):  # later thinking is bound to what is lost
        view = replace(path.state.view, thinking_valid_from=head.end)
        path = replace(path, head=replace(path.head, state=replace(path.state, view=view)))
        findings = _examine_path(log, path)
    return path, findings


def find_damage_off_path(log: ConversationLog) -> tuple[ViewRepair, ...]:
    """Return the damaged positions that are not on the active path; exports and copies still read them.

    Args:
        log: The log of the conversation.
    """
    head = log.refresh()
    if head is None:
        return ()
    position, gaps = head.start, []
    for start, stop in sorted(load_ranges(log, head, [])):
        gaps.append((position, start))
        position = max(position, stop)
    gaps.append((position, head.end))
    records = (each for start, stop in gaps for each in iter_around_damage(log.store, head.stored, start, stop))
    return tuple(
        ViewRepair(each.position, f"damaged: {each.reason}") for each in records if isinstance(each, LostRecord)
    )


@dataclass(frozen=True, slots=True)
class _ActivePath:
    """The active path of a conversation, as far as it can be read.

    Attributes:
        head: The head as it was read. Its state does not refer to entries that turned out to be of another kind.
        ranges: The ranges of positions on the path, in order; the whole log if the entry that stores them is lost.
        cut: The newest cut; None if it does not exist or cannot be read.
        lost: Entries that the head refers to and that cannot be read: the reason, by position.
        mismatches: Entries of another kind than the head says, by the kind that it says.
    """

    head: ConversationHead
    ranges: list[PositionRange]
    cut: Entry[Cut | CompactionByAPI] | None
    lost: dict[int, str]
    mismatches: dict[str, ViewRepair]

    @property
    def state(self) -> ConversationState:
        return self.head.state

    @property
    def head_positions(self) -> set[int | None]:
        view = self.state.view
        return {view.cut_position, view.path_position, self.state.engine.setup_position}


def _find_active_path(log: ConversationLog, head: ConversationHead) -> _ActivePath:
    view, engine = head.state.view, head.state.engine
    positions = {_CUT: view.cut_position, _SETUP: engine.setup_position, _PATH: view.path_position}
    lost: dict[int, str] = {}
    entries: dict[str, Entry] = {}
    mismatches: dict[str, ViewRepair] = {}
    for name, position in positions.items():
        if position is None:
            continue
        if position < head.start:
            mismatches[name] = ViewRepair(position, f"the head refers to it as {name}, but it is another kind of entry")
        for record in iter_around_damage(log.store, head.stored, max(position, head.start), position + 1):
            if (reason := _find_loss_reason(record)) is not None:
                lost[position] = reason
            elif isinstance(record, ReadableRecord) and (
                ranges_from_entry(record.entry, head) is not None
                if name == _PATH
                else isinstance(record.entry.event, Setup if name == _SETUP else Cut | CompactionByAPI)
            ):
                entries[name] = record.entry
            else:
                mismatches[name] = ViewRepair(
                    position, f"the head refers to it as {name}, but it is another kind of entry"
                )
    cut_position = None if _CUT in mismatches else view.cut_position
    view = replace(view, cut_position=cut_position, path_position=None if _PATH in mismatches else view.path_position)
    engine = replace(engine, setup_position=None if _SETUP in mismatches else engine.setup_position)
    path, cut = entries.get(_PATH), entries.get(_CUT)
    ranges = (ranges_from_entry(path, head) if path else None) or [(head.start, head.end)]
    known = replace(head, state=replace(head.state, view=view, engine=engine))
    return _ActivePath(known, ranges, cut if cut and is_cut_entry(cut) else None, lost, mismatches)


_CUT, _SETUP, _PATH = "the newest cut", "the newest setup", "the entry with the active path"


def _find_loss_reason(record: ReadableRecord | LostRecord) -> str | None:
    """Return why a position is left out; None if its record can be read or is optional."""
    if isinstance(record, LostRecord):
        return f"left out: the record is damaged, {record.reason}"
    event = record.entry.event
    if not isinstance(event, UnknownEvent) or event.is_optional:
        return None
    writer = "a development version" if record.entry.version < FORMAT else "a later version"
    return f"left out: {writer} of chathistory wrote it"


@dataclass(slots=True)
class _Counts:
    """The number of messages and turns below a position, and an estimate of the tokens that are sent of them."""

    messages: int = 0
    turns: int = 0
    hidden: int = 0
    tokens: int = 0

    def add(self, entry: Entry[MessageAdded], *, is_sent: bool) -> None:
        is_turn = opens_turn(entry.event.message)
        self.messages += 1
        self.turns += is_turn
        self.hidden += is_turn and not is_sent
        self.tokens += estimate_tokens(entry.event.message) if is_sent else 0


@dataclass(slots=True)
class _Findings:
    """What was found on the active path of a conversation.

    Attributes:
        view_start: The position from which on messages are sent.
        head_positions: The positions that the head refers to: of the newest cut, path and setup.
        lost: Positions that cannot be read, with the reason.
        mismatches: See `_ActivePath`.
        refusal: The entry with the newest unsettled refusal of something earlier than its turn, or None.
        omission_entries: The entries that say that content is not sent.
        changes: What the view changes in the messages that can be read.
        counts: Of the messages below `first_changed`.
        first_changed: The position of the first message that the view changes or leaves out, or None.
        first_rewritten: The first position of the first chunk that has to be stored again in part; None if none has.
        first_sent: The position of the first message that is sent; None if none is.
    """

    view_start: int
    head_positions: set[int | None]
    lost: dict[int, str]
    mismatches: Mapping[str, ViewRepair]
    refusal: Entry | None = None
    omission_entries: list[Entry] = field(default_factory=list)
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
        """Return True if the entry at a position was sent to Claude, or decides what is sent."""
        is_in_head = position in self.head_positions or any(
            each.position == position for each in self.mismatches.values()
        )
        return position >= self.view_start or is_in_head


def _examine_path(log: ConversationLog, path: _ActivePath) -> _Findings:
    """Read the active path, chunk by chunk, and find what its view leaves out or changes."""
    findings = _Findings(path.state.view.view_start, path.head_positions, dict(path.lost), path.mismatches)
    ids: set[str] = set()
    for chunk in _split_into_chunks(_iter_messages(log, path, findings), findings.view_start):
        blocks = [block for entry in chunk for block in blocks_of(entry.event.message)]
        new = {block["id"] for block in blocks if block["type"].endswith("tool_use")}
        new.update(*(entry.event.sent_ids.values() for entry in chunk))
        if findings.omission_entries or ids.intersection(new):  # the view of a message depends on distant entries
            return _examine_in_one_chunk(log, path)
        ids.update(new)
        _examine_chunk(path, chunk, findings)
    if findings.first_sent is None:
        _examine_chunk(path, [], findings)
    return findings


def _examine_in_one_chunk(log: ConversationLog, path: _ActivePath) -> _Findings:
    """Examine the active path as a single chunk, keeping only the beginning of each text in memory."""
    findings = _Findings(path.state.view.view_start, path.head_positions, dict(path.lost), path.mismatches)
    chunk: list[Entry[MessageAdded]] = []
    for entry in _iter_messages(log, path, findings):
        if entry.position < findings.view_start:
            findings.counts.add(entry, is_sent=False)
        else:
            short = replace(entry.event, message=_shorten_texts(entry.event.message))
            chunk.append(entry if entry.surrogates else replace(entry, event=short))
    _examine_chunk(path, chunk, findings)
    return findings


def _iter_messages(log: ConversationLog, path: _ActivePath, findings: _Findings) -> Iterator[Entry[MessageAdded]]:
    """Yield the messages on the active path.

    Positions that cannot be read, and the entries that say what is not sent, are added to `findings`.
    """
    findings.omission_entries.clear()
    for start, stop in path.ranges:
        for record in iter_around_damage(log.store, path.head.stored, start, stop):
            reason = _find_loss_reason(record)
            if reason is not None:
                findings.lost[record.position] = reason
            if reason is not None or not isinstance(record, ReadableRecord):
                continue
            entry = record.entry
            findings.refusal = update_last_refusal(findings.refusal, entry)
            if entry.position >= findings.view_start and has_omissions(entry):
                findings.omission_entries.append(entry)
            if is_message_entry(entry):
                yield entry


def _split_into_chunks(messages: Iterable[Entry[MessageAdded]], view_start: int) -> Iterator[list[Entry[MessageAdded]]]:
    """Yield chunks of whole turns; no chunk holds both messages that are sent and messages that are not."""
    chunk: list[Entry[MessageAdded]] = []
    replies: list[Entry[MessageAdded]] = []  # the replies since the last message of another role
    size = 0
    for entry in messages:
        is_reply = entry.event.message["role"] == "assistant"
        is_first_sent = bool(chunk) and chunk[-1].position < view_start <= entry.position
        is_long = size >= _CHUNK_SIZE and entry.position < view_start
        if size >= _CHUNK_SIZE and not is_reply and opens_turn(entry.event.message):
            # a turn begins here; the one before is closed if its replies have text and leave nothing open
            reasons = {reply.event.response.stop_reason for reply in replies}
            blocks = [block for reply in replies for block in blocks_of(reply.event.message)]
            has_text = any(block["type"] == "text" and (block.get("text") or "").strip() for block in blocks)
            is_open = any(block["type"].endswith("tool_use") for block in blocks)
            is_long = is_long or (has_text and not is_open and reasons.isdisjoint({"pause_turn", "refusal"}))
        if is_first_sent or is_long:
            yield chunk
            chunk, size = [], 0
        chunk.append(entry)
        size += _count_characters(entry.event.message)
        replies = [*replies, entry] if is_reply else []
    if chunk:
        yield chunk


def _count_characters(value: Any) -> int:
    """Return the approximate number of characters of a JSON value."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        return sum(map(_count_characters, value.values())) + len(value)
    return sum(map(_count_characters, value)) + len(value) if isinstance(value, list) else 1


def _examine_chunk(path: _ActivePath, chunk: list[Entry[MessageAdded]], findings: _Findings) -> None:
    """Add to `findings` what the view of a chunk leaves out or changes."""
    if chunk and chunk[-1].position < findings.view_start:
        for entry in chunk:
            findings.counts.add(entry, is_sent=False)
        return
    if findings.first_sent is None and chunk:
        findings.first_sent = chunk[0].position
    report = _build_view(path, findings, chunk).report
    findings.changes += report.repairs
    changed = {each.position for each in report.repairs}.union(report.dropped) - {ADDED, path.state.view.cut_position}
    is_added = any(each.position == ADDED for each in report.repairs)
    if findings.first_rewritten is None and (changed or is_added):
        findings.first_rewritten = chunk[0].position if chunk else path.head.end
    first = max(findings.view_start, min(changed)) if changed and findings.first_changed is None else None
    if findings.first_changed is None:
        for entry in chunk:
            if first is None or entry.position < first:
                findings.counts.add(entry, is_sent=True)
        findings.first_changed = first


def _build_view(path: _ActivePath, findings: _Findings, chunk: list[Entry[MessageAdded]]) -> MessageView:
    """Return the view of a chunk: the first one with the message of the newest cut, others after a closed turn."""
    if not chunk or chunk[0].position == findings.first_sent:
        return build_active_view(
            ActiveEntries(path.head, _merge_by_position(chunk, findings.omission_entries), path.cut)
        )
    view = build_active_view(ActiveEntries(path.head, [*_TURN_BEFORE, *chunk]))
    count = len(_TURN_BEFORE)
    return MessageView(view.messages[count:], replace(view.report, kept=view.report.kept[count:]))


def _merge_by_position(messages: Sequence[Entry], others: Sequence[Entry]) -> Sequence[Entry]:
    return sorted([*messages, *others], key=operator.attrgetter("position")) if others else messages


_TURN_BEFORE = (
    Entry(MessageAdded({"role": "user", "content": "."}), position=-3),
    Entry(MessageAdded({"role": "assistant", "content": "."}), position=-2),
)
"""Takes the place of everything before a chunk, so that its view begins after a closed turn."""


def _shorten_texts(value: Any, name: str = "") -> Any:
    """Return a message with shortened texts: the view only looks at whether they hold more than white space."""
    if isinstance(value, str) and name in _TEXT_FIELDS:
        return value[:_TEXT_LENGTH] if len(value) > _TEXT_LENGTH and value[:_TEXT_LENGTH].strip() else value
    if isinstance(value, dict):
        return {key: _shorten_texts(part, key) for key, part in value.items()}
    return [_shorten_texts(part, name) for part in value] if isinstance(value, list) else value


def _load_sent_entries(log: ConversationLog, path: _ActivePath, findings: _Findings, start: int) -> ActiveEntries:
    """Return the entries that are sent from a position on, with their full text."""
    messages = [entry for entry in _iter_messages(log, path, findings) if entry.position >= start]
    refusal = [findings.refusal] if findings.refusal and findings.refusal not in findings.omission_entries else []
    others = [*findings.omission_entries, *refusal]
    return ActiveEntries(path.head, _merge_by_position(messages, others), path.cut)


_TEXT_FIELDS = frozenset({"text", "thinking", "data", "content"})
_TEXT_LENGTH = 64


def _make_repair_entries(log: ConversationLog, path: _ActivePath, findings: _Findings) -> list[Entry]:
    """Return the entries to append, after which the conversation is sent without any repair."""
    end = path.head.end
    first = end if findings.first_changed is None else findings.first_changed
    entries: list[Entry] = [Entry(_make_repair(path, findings, first))] if findings.losses or first < end else []
    if findings.first_rewritten is None:
        return entries
    start = max(findings.view_start, findings.first_rewritten)
    chunk = select_messages(_load_sent_entries(log, path, findings, start).entries)
    view = _build_view(path, findings, chunk)
    ids = map_sent_to_given_ids(chunk, path.state.view.renamed_calls)
    stored = {entry.position: entry for entry in chunk}
    cut_position = path.state.view.cut_position
    for position, message in zip(view.report.kept, view.messages, strict=True):
        if position != ADDED and (position < first or position == cut_position):
            continue
        # callers answer tool calls by their ids in the log, not by the ids under which they are sent
        stored_message, sent_ids = restore_given_ids(message, ids)
        entry = stored.get(position)
        if entry is None:  # the view added this message
            entries.append(Entry(MessageAdded(stored_message, sent_ids=sent_ids)))
            continue
        event = replace(entry.event, message=stored_message, sent_ids=sent_ids, copy_of=position)
        event = replace(event, lease_until=None, opened_by=None)
        entries.append(Entry(event, entry.turn, time_us=entry.time_us, extra=entry.extra))
    return entries


def _make_repair(path: _ActivePath, findings: _Findings, first: int) -> Repair:
    counts, view = findings.counts, path.state.view
    omissions = find_omissions(findings.omission_entries)
    return Repair(
        path=tuple(exclude_positions(clip_ranges(path.ranges, high=first), findings.lost)),
        messages=counts.messages,
        turns=counts.turns,
        hidden_turns=counts.hidden,
        tokens=counts.tokens,
        cut_position=view.cut_position if view.cut_position not in findings.lost else None,
        lost=tuple(each.position for each in findings.losses if findings.is_sent(each.position)),
        setup_lost=path.state.engine.setup_position in findings.lost or _SETUP in findings.mismatches,
        omitted=tuple(each for position, omitted in omissions.items() if position < first for each in omitted),
    )
