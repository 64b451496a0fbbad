"""From a policy to a cut: when there may be one, where, the event that says so, and the cut asked for by hand.

There is no cut while something is open: a tool call that awaits its result, a reply that paused. The API wants the
thinking of the last turn back then, unchanged, and a cut changes what that thinking is bound to.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Awaitable, Coroutine, Sequence
from dataclasses import dataclass, replace
from typing import Any

from chathistory.errors import Conflict, IncompleteReply, InvalidInput
from chathistory.log.active_path import ActiveEntries, load_active
from chathistory.log.clock import now, to_datetime, to_microseconds
from chathistory.log.conversation_log import ConversationLog
from chathistory.log.entry import Entry, message_entry, messages_among
from chathistory.log.events import CompactionByAPI as CompactionEvent
from chathistory.log.events import Cut, MessageAdded
from chathistory.log.field_types import NO_RESPONSE
from chathistory.log.lease import check_free
from chathistory.log.message_sizes import estimated
from chathistory.log.state import ConversationState
from chathistory.log.turn_boundaries import find_open_reply, opens_turn
from chathistory.messages.content import Message, blocks_of
from chathistory.trimming.policies import Compaction, Policy, Summarize, TrimContext, check_policy
from chathistory.trimming.turns import SentTurn, split_into_turns
from chathistory.view import view_of
from chathistory.view.tool_call_ids import find_doubled_calls

__all__ = [
    "CutPlan",
    "TrimResult",
    "check_summary",
    "is_callers_turn_id",
    "is_cut_wanted",
    "may_be_trimmed",
    "plan_cut",
    "plan_cut_of_all",
    "trim",
]

_FRESH = re.compile("[0-9a-f]{28}")  # a turn id that was not the caller's
_CRC = 8  # characters that are kept of a turn id


@dataclass(frozen=True, slots=True)
class TrimResult:
    """What a cut leaves out.

    Attributes:
        position: From which on messages are sent.
        turns: How many are left out.
        messages: How many are left out.
        tokens_before: About how many were sent; see `TrimContext`.
        tokens_after: About how many are sent from now on.
    """

    position: int
    turns: int
    messages: int
    tokens_before: int
    tokens_after: int


@dataclass(frozen=True, slots=True)
class CutPlan:
    """A cut that a policy asks for.

    Attributes:
        policy: Which one.
        trimmed: What it leaves out.
        cut: The event. Its message is what opens the turn within which it falls; None: it falls between turns.
    """

    policy: Policy
    trimmed: TrimResult
    cut: Cut

    @property
    def new_tokens(self) -> int:
        """The tokens of the message that opens the turn for which it was planned; 0: it was planned for none."""
        return self.trimmed.tokens_after - self.cut.tokens

    def to_entry(self, summary: str | None = None) -> Entry[Cut]:
        """Return the entry of the cut; summary: a text that stands for what it leaves out."""
        if summary is None:
            return Entry(self.cut)
        words = [{"type": "text", "text": f"What was said before, in summary:\n\n{summary}"}]
        lead = {"role": "user", "content": [*words, *(blocks_of(self.cut.message) if self.cut.message else ())]}
        return Entry(replace(self.cut, message=lead, tokens=self.cut.tokens + estimated(lead)))

    def to_compaction_entry(self, response: Any) -> Entry[CompactionEvent]:
        """Return the entry of the cut whose message is the API's own, which stands for what it leaves out.

        Raises `IncompleteReply` if the API answered without a summary, as it does where it cannot make one.
        """
        made, cut = message_entry(response).event, self.cut
        if not any(block["type"] == "compaction" and block.get("content") for block in blocks_of(made.message)):
            raise IncompleteReply("the API answered without a summary")
        event = CompactionEvent(
            message=made.message,
            view_start=cut.view_start,
            hidden_turns=cut.hidden_turns,
            view_since=cut.view_since,
            tokens=cut.tokens + estimated(made.message),
            preamble_tokens=cut.preamble_tokens,
            trimmed_turn_ids=cut.trimmed_turn_ids,
            renamed_calls=cut.renamed_calls,
            response=made.response,
            request_id=made.request_id,
        )
        return Entry(event)

    def select_left_out(self, sent: ActiveEntries) -> ActiveEntries:
        """Return the part of what is sent that the cut leaves out."""
        return _select_before(sent, self.trimmed.position)


def is_cut_wanted(policy: Policy, state: ConversationState, new: Message | None = None) -> bool:
    """Whether the policy wants a cut, by what is known without reading; new: the message that is about to be sent."""
    return policy.should_cut(_measure_context(state, new))


def _measure_context(state: ConversationState, new: Message | None) -> TrimContext:
    view, turns = state.view, state.totals.turns
    tokens = view.tokens + (estimated(new) if new else 0)
    turns += (new is not None) - view.hidden_turns
    return TrimContext(tokens, turns, to_datetime(view.view_since), to_datetime(now()))


def plan_cut(policy: Policy, sent: ActiveEntries, new: Message | None = None) -> CutPlan | None:
    """Return the cut that the policy asks for.

    Args:
        policy: Decides whether to cut, and where.
        sent: What is sent now.
        new: The message that is about to be sent, which opens a turn; None: there is none.

    Returns:
        None if no cut is wanted, or none is possible.

    Raises:
        InvalidInput: The policy names a position at which neither a turn nor a round begins.
        Exception: What the policy raises.
    """
    load = _measure_context(sent.state, new)
    if not policy.should_cut(load) or find_open_reply(reversed(sent.entries)) or (new and not opens_turn(new)):
        return None
    outline = split_into_turns(_list_messages_with_cut_message(sent), cache_valid_from=sent.state.view.cache_valid_from)
    turns, before = outline.turns, outline.preamble_tokens
    if before is None:
        before = sent.cut.event.preamble_tokens if sent.cut else 0
    if new:
        turns.append(SentTurn(sent.head.end, load.now, estimated(new), estimated(new)))
    candidates = _CutCandidates(sent, turns, replace(load, preamble_tokens=before), new)
    position = policy.find_start(turns, candidates.context) if turns else None
    # nothing is left out between a turn's beginning and its first reply
    firsts = {turn.rounds[0].position: turn.position for turn in turns if turn.rounds}
    position = firsts.get(position, position) if position is not None else None
    if position is not None and isinstance(policy, Compaction):
        position = _next_closed_boundary(candidates, position)
    if position is None or position <= max(turns[0].position, sent.state.view.view_start):
        return None
    return _plan_at(policy, candidates, position)


@dataclass(frozen=True, slots=True)
class _CutCandidates:
    """What a policy decides on: what is sent, its turns (the last is that of `new`, if given), and how much it is."""

    sent: ActiveEntries
    turns: list[SentTurn]
    context: TrimContext
    new: Message | None


def _list_messages_with_cut_message(sent: ActiveEntries) -> list[Entry[MessageAdded]]:
    """Return the messages behind what a cut put before them, which opens their first turn."""
    messages = messages_among(sent.entries)
    if sent.cut is None or sent.cut.event.message is None:
        return messages
    response = sent.cut.event.response if isinstance(sent.cut.event, CompactionEvent) else NO_RESPONSE
    lead = MessageAdded(sent.cut.event.message, response)
    return [Entry(lead, time_us=sent.cut.time_us, position=sent.state.view.view_start - 1), *messages]


def _plan_at(policy: Policy, candidates: _CutCandidates, position: int) -> CutPlan:
    """Return the cut at a position. Raises `InvalidInput` if neither a turn nor a round begins there."""
    turns, sent, load = candidates.turns, candidates.sent, candidates.context
    split = next((turn for turn in turns if any(each.position == position for each in turn.rounds)), None)
    if split is None and not any(turn.position == position for turn in turns):
        raise InvalidInput(f"the policy names position {position}, at which neither a turn nor a round begins")
    left = [turn for turn in turns if turn.position >= position]
    size = load.preamble_tokens + sum(turn.tokens for turn in left)
    opening: Message | None = None
    if split:
        size += split.opening_tokens + sum(each.tokens for each in split.rounds if each.position >= position)
        left.insert(0, split)
        messages = _list_messages_with_cut_message(sent)
        opening = next(entry.event.message for entry in messages if entry.position == split.position)
    gone = [entry for entry in messages_among(sent.entries) if entry.position < position]
    hidden_turns = sent.state.totals.turns - len(left) + (candidates.new is not None)
    cut = Cut(
        message=opening,
        view_start=position,
        hidden_turns=hidden_turns,
        view_since=to_microseconds(left[0].at),
        tokens=size - (estimated(candidates.new) if candidates.new else 0),
        preamble_tokens=load.preamble_tokens,
        trimmed_turn_ids=_list_trimmed_ids(sent, gone),
        renamed_calls=find_doubled_calls(sent.entries, sent.state.view.renamed_calls, start=position),
    )
    hidden_now = hidden_turns - sent.state.view.hidden_turns
    return CutPlan(policy, TrimResult(position, hidden_now, len(gone), load.tokens, size), cut)


# A cut asked for by hand.


def trim(log: ConversationLog, policy: Policy, *, dry_run: bool = False) -> TrimResult | None:
    """Store the cut that a policy asks for, and return what it leaves out; None: there is no cut."""
    check_policy("policy", policy)
    if isinstance(policy, Compaction):
        raise InvalidInput("a Compaction is made by the API: use ChatEngine.compact, or ChatEngine(..., trimming=...)")
    sent = load_active(log)
    plan = plan_cut(policy, sent) if sent else None
    if sent is None or plan is None:
        return None
    if dry_run:
        return plan.trimmed
    check_free(log.key, sent.state)
    summary = None
    if isinstance(policy, Summarize):  # it may take long: nobody waits for it
        summary = check_summary(policy.by(view_of(plan.select_left_out(sent)).messages))
    with log.lock:
        head = log.seen()
        if head is None or head.version != sent.head.version:
            raise Conflict(log.key, head.stored if head else None)
        log.append([plan.to_entry(summary)])
    return plan.trimmed


def check_summary(summary: str | Awaitable[str]) -> str:
    """Return what a writer of summaries made. Raises `InvalidInput` if it is no text."""
    if isinstance(summary, str) and summary.strip():
        return summary
    if isinstance(summary, Coroutine):
        summary.close()  # else Python would complain that nobody awaited it
    raise InvalidInput("Summarize: `by` must return text; a coroutine function works in an AsyncChatEngine only")


# A compaction of all that was said.


@dataclass(frozen=True, slots=True)
class _CutAll:
    """All that was said so far is cut off."""

    def should_cut(self, context: TrimContext) -> bool:
        return context.turns > 1

    def find_start(self, turns: Sequence[SentTurn], context: TrimContext) -> int | None:  # noqa: ARG002
        return turns[-1].position


def plan_cut_of_all(sent: ActiveEntries) -> CutPlan | None:
    """Return the cut before which everything is left to a compaction by the API; None: there is nothing to compact."""
    return plan_cut(Compaction(_CutAll()), sent, {"role": "user", "content": ""})


def _next_closed_boundary(candidates: _CutCandidates, position: int) -> int | None:
    """Return the first turn from a position on before which nothing is left open: the API sums up to there.

    What it is shown has to be what was sent, message for message: it signs for that, and binds thinking to it.
    """
    sent = candidates.sent
    spoken = Entry(MessageAdded({"role": "user", "content": "."}), position=sent.head.end)
    whole = view_of(replace(sent, entries=[*sent.entries, spoken])).messages
    for turn in candidates.turns:
        if turn.position >= position:
            shown = view_of(_select_before(sent, turn.position)).messages
            if shown and shown[-1]["role"] == "assistant" and whole[: len(shown)] == shown:
                return turn.position
    return None


def _select_before(sent: ActiveEntries, position: int) -> ActiveEntries:
    """Return the part of what is sent that stands before a position."""
    return replace(sent, entries=[entry for entry in sent.entries if entry.position < position])


def _list_trimmed_ids(sent: ActiveEntries, gone: Sequence[Entry]) -> str | None:
    """Return CRCs of all turn ids of callers that are no longer sent, so that one that comes again is recognised.

    None: it is not known which those are.
    """
    before = _read_trimmed_ids(sent) if sent.state.view.view_start else ""
    ids = dict.fromkeys(entry.turn for entry in gone if entry.turn and is_callers_turn_id(entry.turn))
    return None if before is None else before + "".join(map(_turn_id_crc, ids))


def _read_trimmed_ids(sent: ActiveEntries) -> str | None:
    """Return the CRCs that the cut has; None: the API itself summed up, or the cut is damaged or forgotten."""
    return sent.cut.event.trimmed_turn_ids if sent.cut else None


def _turn_id_crc(turn: str) -> str:
    return f"{zlib.crc32(turn.encode('utf-8', 'surrogatepass')):08x}"


def is_callers_turn_id(turn: str) -> bool:
    """Whether a turn id is one that a caller gave, so that it may come again."""
    return not _FRESH.fullmatch(turn)


def may_be_trimmed(sent: ActiveEntries, turn: str) -> bool:
    """Whether a turn of this id may stand before what is sent; False is certain."""
    if not sent.state.view.view_start or not is_callers_turn_id(turn):
        return False
    known = _read_trimmed_ids(sent)
    return known is None or _turn_id_crc(turn) in {known[at : at + _CRC] for at in range(0, len(known), _CRC)}
