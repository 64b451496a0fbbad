"""From a policy to a cut: whether a cut is allowed, its position, its entry, and `trim` on request of the caller.

There is no cut while a tool call waits for its result or a reply is paused. In that state the API requires the thinking
of the last turn unchanged, and a cut would change the messages that this thinking is bound to.
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
from chathistory.log.entry import Entry, make_message_entry, select_messages
from chathistory.log.events import CompactionByAPI, Cut, MessageAdded
from chathistory.log.field_types import NO_RESPONSE
from chathistory.log.lease import check_no_open_turn
from chathistory.log.message_sizes import estimate_tokens
from chathistory.log.state import ConversationState
from chathistory.log.turn_boundaries import find_open_reply, opens_turn
from chathistory.messages.content import Message, blocks_of
from chathistory.trimming.policies import Compaction, Policy, Summarize, TrimContext, check_policy
from chathistory.trimming.turns import SentTurn, split_into_turns
from chathistory.view import build_active_view
from chathistory.view.tool_call_ids import find_duplicate_calls

__all__ = [
    "CutPlan",
    "TrimResult",
    "check_summary",
    "is_callers_turn_id",
    "may_be_trimmed",
    "plan_cut",
    "plan_cut_of_all",
    "trim",
]

_GENERATED_ID = re.compile("[0-9a-f]{28}")  # a turn id that chathistory made
_CRC_LENGTH = 8  # characters for each turn id


@dataclass(frozen=True, slots=True)
class TrimResult:
    """The effect of a cut.

    Attributes:
        position: The position from which on messages are sent.
        turns: The number of turns that are left out.
        messages: The number of messages that are left out.
        tokens_before: The estimated tokens that were sent before the cut; see `TrimContext.tokens`.
        tokens_after: The estimated tokens that are sent from now on.
    """

    position: int
    turns: int
    messages: int
    tokens_before: int
    tokens_after: int


@dataclass(frozen=True, slots=True)
class CutPlan:
    """A cut that a policy wants, before it is stored.

    Attributes:
        policy: The policy.
        trimmed: The effect of the cut.
        cut: The event to store. Its message opens the turn within which the cut falls; None if it falls between turns.
    """

    policy: Policy
    trimmed: TrimResult
    cut: Cut

    @property
    def new_tokens(self) -> int:
        """The tokens of the new message that the cut was planned for; 0 if there is no new message."""
        return self.trimmed.tokens_after - self.cut.tokens

    def to_entry(self, summary: str | None = None) -> Entry[Cut]:
        """Return the entry to store.

        Args:
            summary: A text to send in place of the messages that are left out; None for a cut without summary.
        """
        if summary is None:
            return Entry(self.cut)
        blocks = [{"type": "text", "text": f"What was said before, in summary:\n\n{summary}"}]
        message = {"role": "user", "content": [*blocks, *(blocks_of(self.cut.message) if self.cut.message else ())]}
        return Entry(replace(self.cut, message=message, tokens=self.cut.tokens + estimate_tokens(message)))

    def to_compaction_entry(self, response: Any) -> Entry[CompactionByAPI]:
        """Return the entry to store, with the API's summary in place of the messages that are left out.

        Args:
            response: The response of the API with the compaction block.

        Raises:
            IncompleteReply: The response has no summary. The API answers like this if it cannot make one.
        """
        added, cut = make_message_entry(response).event, self.cut
        if not any(block["type"] == "compaction" and block.get("content") for block in blocks_of(added.message)):
            raise IncompleteReply("the API answered without a summary")
        event = CompactionByAPI(
            message=added.message,
            view_start=cut.view_start,
            hidden_turns=cut.hidden_turns,
            view_since=cut.view_since,
            tokens=cut.tokens + estimate_tokens(added.message),
            preamble_tokens=cut.preamble_tokens,
            trimmed_turn_ids=cut.trimmed_turn_ids,
            renamed_calls=cut.renamed_calls,
            response=added.response,
            request_id=added.request_id,
        )
        return Entry(event)

    def select_left_out(self, sent: ActiveEntries) -> ActiveEntries:
        """Return the entries that the cut leaves out.

        Args:
            sent: The entries that are sent at present.
        """
        return _select_before(sent, self.trimmed.position)


def _measure_context(state: ConversationState, new: Message | None) -> TrimContext:
    view, turns = state.view, state.totals.turns
    tokens = view.tokens + (estimate_tokens(new) if new else 0)
    turns += (new is not None) - view.hidden_turns
    return TrimContext(tokens, turns, to_datetime(view.view_since), to_datetime(now()))


def plan_cut(policy: Policy, sent: ActiveEntries, new: Message | None = None) -> CutPlan | None:
    """Return the cut that a policy wants.

    Args:
        policy: Decides whether to cut, and where.
        sent: The entries that are sent at present.
        new: The message that is about to be sent; None without a new message.

    Returns:
        The plan; None if the policy wants no cut, or no cut is possible.

    Raises:
        InvalidInput: The policy returned a position at which neither a turn nor a round begins.
        Exception: Any error that the policy raises.
    """
    context = _measure_context(sent.state, new)
    if not policy.should_cut(context) or find_open_reply(reversed(sent.entries)) or (new and not opens_turn(new)):
        return None
    sized = split_into_turns(_list_messages_with_cut_message(sent), cache_valid_from=sent.state.view.cache_valid_from)
    turns, preamble_tokens = sized.turns, sized.preamble_tokens
    if preamble_tokens is None:
        preamble_tokens = sent.cut.event.preamble_tokens if sent.cut else 0
    if new:
        turns.append(SentTurn(sent.head.end, context.now, estimate_tokens(new), estimate_tokens(new)))
    candidates = _CutCandidates(sent, turns, replace(context, preamble_tokens=preamble_tokens), new)
    position = policy.find_start(turns, candidates.context) if turns else None
    # a cut before the first reply of a turn would leave out nothing of it, so it falls before the turn
    first_rounds = {turn.rounds[0].position: turn.position for turn in turns if turn.rounds}
    position = first_rounds.get(position, position) if position is not None else None
    if position is not None and isinstance(policy, Compaction):
        position = _next_closed_boundary(candidates, position)
    if position is None or position <= max(turns[0].position, sent.state.view.view_start):
        return None
    return _plan_at(policy, candidates, position)


@dataclass(frozen=True, slots=True)
class _CutCandidates:
    """The input of a policy.

    Attributes:
        sent: The entries that are sent at present.
        turns: Their turns, and the one that `new` opens.
        context: Their size.
        new: The message that is about to be sent; None without a new message.
    """

    sent: ActiveEntries
    turns: list[SentTurn]
    context: TrimContext
    new: Message | None


def _list_messages_with_cut_message(sent: ActiveEntries) -> list[Entry[MessageAdded]]:
    """Return the messages that are sent; the first one is the message that the last cut put before them, if any."""
    messages = select_messages(sent.entries)
    if sent.cut is None or sent.cut.event.message is None:
        return messages
    response = sent.cut.event.response if isinstance(sent.cut.event, CompactionByAPI) else NO_RESPONSE
    added = MessageAdded(sent.cut.event.message, response)
    return [Entry(added, time_us=sent.cut.time_us, position=sent.state.view.view_start - 1), *messages]


def _plan_at(policy: Policy, candidates: _CutCandidates, position: int) -> CutPlan:
    """Return the cut at a position. Raises `InvalidInput` if neither a turn nor a round begins there."""
    turns, sent, context = candidates.turns, candidates.sent, candidates.context
    split = next((turn for turn in turns if any(each.position == position for each in turn.rounds)), None)
    if split is None and not any(turn.position == position for turn in turns):
        raise InvalidInput(
            f"the policy returned position {position}, at which neither a turn nor a round begins; find_start must "
            "return the position of one of `turns`, or of one of their rounds"
        )
    kept = [turn for turn in turns if turn.position >= position]
    size = context.preamble_tokens + sum(turn.tokens for turn in kept)
    first_message: Message | None = None
    if split:
        size += split.first_message_tokens + sum(each.tokens for each in split.rounds if each.position >= position)
        kept.insert(0, split)
        messages = _list_messages_with_cut_message(sent)
        first_message = next(entry.event.message for entry in messages if entry.position == split.position)
    left_out = [entry for entry in select_messages(sent.entries) if entry.position < position]
    hidden_turns = sent.state.totals.turns - len(kept) + (candidates.new is not None)
    cut = Cut(
        message=first_message,
        view_start=position,
        hidden_turns=hidden_turns,
        view_since=to_microseconds(kept[0].at),
        tokens=size - (estimate_tokens(candidates.new) if candidates.new else 0),
        preamble_tokens=context.preamble_tokens,
        trimmed_turn_ids=_list_trimmed_ids(sent, left_out),
        renamed_calls=find_duplicate_calls(sent.entries, sent.state.view.renamed_calls, start=position),
    )
    newly_hidden = hidden_turns - sent.state.view.hidden_turns
    return CutPlan(policy, TrimResult(position, newly_hidden, len(left_out), context.tokens, size), cut)


# A cut that the caller requests.


def trim(log: ConversationLog, policy: Policy, *, dry_run: bool = False) -> TrimResult | None:
    """Store the cut that a policy wants.

    Args:
        log: The log of the conversation.
        policy: Decides whether to cut, and where.
        dry_run: Return the effect of the cut, and store nothing.

    Returns:
        The effect of the cut; None if there is no cut.

    Raises:
        InvalidInput: `policy` is not a policy, or is a `Compaction`, or its summary is not text.
        TurnInProgress: A turn of the conversation is open.
        Conflict: Another writer changed the conversation meanwhile; nothing was stored.
    """
    check_policy("policy", policy)
    if isinstance(policy, Compaction):
        raise InvalidInput(
            "policy: a Compaction needs a request to the API; use ChatEngine.compact() or ChatEngine(..., trimming=...)"
        )
    sent = load_active(log)
    plan = plan_cut(policy, sent) if sent else None
    if sent is None or plan is None:
        return None
    if dry_run:
        return plan.trimmed
    check_no_open_turn(log.key, sent.state)
    summary = None
    if isinstance(policy, Summarize):  # made without the lock, because it may take long
        summary = check_summary(policy.by(build_active_view(plan.select_left_out(sent)).messages))
    with log.lock:
        head = log.known_head()
        if head is None or head.version != sent.head.version:
            raise Conflict(log.key, head.stored if head else None)
        log.append([plan.to_entry(summary)])
    return plan.trimmed


def check_summary(summary: str | Awaitable[str]) -> str:
    """Check the result of `Summarize.by`, and return it.

    Args:
        summary: The result.

    Raises:
        InvalidInput: It is not text, or it is blank.
    """
    if isinstance(summary, str) and summary.strip():
        return summary
    if isinstance(summary, Coroutine):
        summary.close()  # else Python warns that the coroutine was never awaited
    raise InvalidInput("Summarize: `by` must return text; only an AsyncChatEngine accepts a coroutine function")


# A compaction of the whole conversation.


@dataclass(frozen=True, slots=True)
class _CutAll:
    """A policy that cuts off all finished turns."""

    def should_cut(self, context: TrimContext) -> bool:
        return context.turns > 1

    def find_start(self, turns: Sequence[SentTurn], context: TrimContext) -> int | None:  # noqa: ARG002
        return turns[-1].position


def plan_cut_of_all(sent: ActiveEntries) -> CutPlan | None:
    """Return a cut that replaces the whole conversation with a compaction of the API; None if nothing can be compacted.

    Args:
        sent: The entries that are sent at present.
    """
    return plan_cut(Compaction(_CutAll()), sent, {"role": "user", "content": ""})


def _next_closed_boundary(candidates: _CutCandidates, position: int) -> int | None:
    """Return the position of the first turn, from a position on, before which no tool call is open.

    The API summarizes the messages before it. They must be the same as those that were sent, because the API signs the
    summary of them, and binds thinking to it.
    """
    sent = candidates.sent
    new_message = Entry(MessageAdded({"role": "user", "content": "."}), position=sent.head.end)
    all_messages = build_active_view(replace(sent, entries=[*sent.entries, new_message])).messages
    for turn in candidates.turns:
        if turn.position >= position:
            before = build_active_view(_select_before(sent, turn.position)).messages
            if before and before[-1]["role"] == "assistant" and all_messages[: len(before)] == before:
                return turn.position
    return None


def _select_before(sent: ActiveEntries, position: int) -> ActiveEntries:
    """Return only the entries before a position."""
    return replace(sent, entries=[entry for entry in sent.entries if entry.position < position])


def _list_trimmed_ids(sent: ActiveEntries, left_out: Sequence[Entry]) -> str | None:
    """Return the CRCs of all turn ids of callers that are no longer sent, so that a repeated turn id is recognised.

    None if they are not known.
    """
    earlier = _read_trimmed_ids(sent) if sent.state.view.view_start else ""
    ids = dict.fromkeys(entry.turn for entry in left_out if entry.turn and is_callers_turn_id(entry.turn))
    return None if earlier is None else earlier + "".join(map(_turn_id_crc, ids))


def _read_trimmed_ids(sent: ActiveEntries) -> str | None:
    """Return the CRCs in the last cut; None if the API compacted by itself, or the cut is damaged or forgotten."""
    return sent.cut.event.trimmed_turn_ids if sent.cut else None


def _turn_id_crc(turn: str) -> str:
    return f"{zlib.crc32(turn.encode('utf-8', 'surrogatepass')):08x}"


def is_callers_turn_id(turn: str) -> bool:
    """Return True if a caller chose this turn id, so that it may be used again.

    Args:
        turn: The turn id.
    """
    return not _GENERATED_ID.fullmatch(turn)


def may_be_trimmed(sent: ActiveEntries, turn: str) -> bool:
    """Return True if a turn with this id may be among the messages that are no longer sent; False is certain.

    Args:
        sent: The entries that are sent at present.
        turn: The turn id.
    """
    if not sent.state.view.view_start or not is_callers_turn_id(turn):
        return False
    known = _read_trimmed_ids(sent)
    return known is None or _turn_id_crc(turn) in {
        known[at : at + _CRC_LENGTH] for at in range(0, len(known), _CRC_LENGTH)
    }
