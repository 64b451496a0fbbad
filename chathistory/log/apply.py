"""How each kind of event changes the state of a conversation.

The log is the truth, and the state is computed from it: start with `begin_state`, and `apply` each entry in order.
Applying an entry never changes the state that was passed in.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, assert_never

from chathistory.log.entry import Entry
from chathistory.log.events import (
    Annotation,
    CompactionByAPI,
    ContentOmitted,
    Cut,
    Forked,
    LeaseRenewed,
    MessageAdded,
    RecordLost,
    Repair,
    ReplyInterrupted,
    ReplyOrphaned,
    Rewind,
    Setup,
    Snapshot,
    ThinkingPolicy,
    TurnAbandoned,
    TurnOpened,
    TurnRefusedByAPI,
    UnknownEvent,
)
from chathistory.log.field_types import KEEP, Response
from chathistory.log.message_sizes import count_context_tokens, estimate_tokens
from chathistory.log.process import Process
from chathistory.log.state import (
    Annotations,
    ClosedTurn,
    Container,
    ConversationState,
    EngineState,
    Identity,
    OpenTurn,
    Totals,
    ViewState,
    is_sendable_id,
    parse_state,
)
from chathistory.log.turn_boundaries import begins_view, opens_turn
from chathistory.messages.content import text_of
from chathistory.storage.values import LARGEST_NUMBER

__all__ = ["apply", "apply_all", "begin_state"]

_PREVIEW_LENGTH = 80  # characters


def begin_state(entry: Entry) -> ConversationState:
    """Return the state before the first entry of a conversation.

    Args:
        entry: The first entry; its id and time identify the conversation.
    """
    return ConversationState(Identity(entry.id, entry.time_us), view=ViewState(view_since=entry.time_us))


def apply_all(state: ConversationState | None, entries: Iterable[Entry], start: int) -> ConversationState:
    """Return the state after several entries.

    Args:
        state: The state before them; None: they create the conversation, and there is at least one.
        entries: The entries, in order.
        start: The position of the first entry.
    """
    for position, entry in enumerate(entries, start):
        state = apply(state or begin_state(entry), entry, position)
    if state is None:
        raise ValueError("entries: must have at least one entry if there is no state")
    return state


def apply(state: ConversationState, entry: Entry, position: int) -> ConversationState:  # noqa: C901, PLR0911, PLR0912, PLR0915 - one case for each kind
    """Return the state after one more entry.

    Args:
        state: The state before it.
        entry: The entry.
        position: Where it is stored.
    """
    event, view, engine = entry.event, state.view, state.engine
    match event:
        case MessageAdded():
            return _add_message(state, entry, event, position)
        case Annotation():
            before = state.annotations
            title = before.title if event.title is KEEP else event.title
            tags = before.tags if event.tags is KEEP else event.tags
            metadata = before.metadata if event.metadata is KEEP else event.metadata
            return replace(state, annotations=Annotations(title, tags, metadata))
        case Rewind():
            if (start := event.view) is not None:  # it goes back to a position before the part that was sent
                view = replace(view, view_start=start.view_start, cut_position=start.cut_position)
                view = replace(view, hidden_turns=start.hidden_turns, view_since=start.view_since)
                view = _invalidate_prefix(view, position)
            view = replace(view, path_position=position, tokens=event.tokens)
            engine = replace(engine, open_turn=None, unanswered_turn=None)
            return replace(_set_counts(state, event), view=view, engine=engine)
        case Snapshot():
            view = _invalidate_thinking(view, position) if event.was_sent else view
            view = replace(view, path_position=position, tokens=event.tokens, hidden_turns=event.hidden_turns)
            cut_position = None if event.cut_position is None else view.cut_position
            view = replace(view, cut_position=cut_position, renamed_calls=event.renamed_calls)
            counted = _set_counts(state, event)
            return replace(counted, totals=replace(counted.totals, preview=None), view=view)
        case Repair():
            view = _invalidate_thinking(view, position) if event.lost else view
            view = replace(view, path_position=position, tokens=event.tokens)
            view = replace(view, hidden_turns=event.hidden_turns, cut_position=event.cut_position)
            if event.setup_lost:  # the next turn of an engine stores the setup again
                engine = replace(engine, setup_fingerprints={}, setup_position=None)
            return replace(_set_counts(state, event), view=view, engine=engine)
        case Setup():
            known = engine.setup_fingerprints
            is_changed = any(known.get(name) != event.fingerprints.get(name) for name in ("system", "tools"))
            view = _invalidate_prefix(view, position) if known and is_changed else view
            engine = replace(engine, setup_fingerprints=event.fingerprints, setup_position=position)
            return replace(state, view=view, engine=engine)
        case Cut():
            return replace(state, view=_invalidate_prefix(_apply_cut(view, event, position), position))
        case CompactionByAPI():
            paid = _count_usage(state, event.response, entry.time_us)
            return replace(paid, view=replace(_apply_cut(view, event, position), cache_valid_from=position))
        case ThinkingPolicy():
            drop = event.drop_stale_thinking
            valid_from = position if view.drop_stale_thinking and not drop else view.thinking_valid_from
            return replace(state, view=replace(view, drop_stale_thinking=drop, thinking_valid_from=valid_from))
        case TurnOpened():
            engine = _open_turn(engine, entry, event.lease_until, event.opened_by)
            return replace(state, engine=engine)
        case LeaseRenewed():
            turn = engine.open_turn
            if turn is None or turn.lease != event.lease:  # another process has taken the turn over
                return state
            turn = replace(turn, lease_until=min(event.lease_until, LARGEST_NUMBER))
            return replace(state, engine=replace(engine, open_turn=turn))
        case TurnAbandoned():
            engine = _close_turn(_forget_container(engine, event), entry, "interrupted", event.lease)
            return replace(state, engine=engine)
        case TurnRefusedByAPI():
            engine = _close_turn(_forget_container(engine, event), entry, "refused")
            return replace(state, view=_subtract_tokens(view, event.tokens), engine=engine)
        case ReplyInterrupted() | ReplyOrphaned():
            state = replace(state, engine=_forget_container(engine, event))
            paid = _count_usage(state, event.response, entry.time_us)
            return replace(paid, engine=_close_turn(paid.engine, entry, "interrupted", event.lease))
        case ContentOmitted():
            view = _subtract_tokens(view, event.tokens)
            view = _invalidate_prefix(view, position) if event.invalidates_thinking else view
            view = replace(view, thinking_valid_from=position) if event.omits_all_thinking else view
            return replace(state, view=view)
        case Forked():
            return parse_state(event.state) or state
        case RecordLost():  # thinking after it depends on the lost record
            return replace(state, view=_invalidate_thinking(view, position))
        case UnknownEvent():
            return state
        case _:
            assert_never(event)


def _add_message(state: ConversationState, entry: Entry, event: MessageAdded, position: int) -> ConversationState:
    message, response = event.message, event.response
    is_reply, totals, view, engine = message["role"] == "assistant", state.totals, state.view, state.engine
    if event.forgotten_container is not None:
        engine = _forget_container(engine, event)
    usage, model, preview = totals.usage, totals.model, totals.preview
    tokens = (count_context_tokens(response.usage) if is_reply else None) or view.tokens + estimate_tokens(message)
    if is_reply and event.copy_of is None:  # a repair's copy was counted at its first position
        usage, model = _add_usage(usage, response.usage), response.model or model
        engine = _use_container(engine, response, entry.time_us)
    if preview is None and message["role"] == "user":
        preview = " ".join(text_of(message)[: 4 * _PREVIEW_LENGTH].split())[:_PREVIEW_LENGTH] or None
    totals = Totals(totals.messages + 1, totals.turns + opens_turn(message), usage, model, preview)
    if is_reply and begins_view(event):
        view = replace(view, view_start=position, cut_position=None, hidden_turns=totals.turns)
        view = replace(view, view_since=entry.time_us, cache_valid_from=position)
    if event.lease_until is not None:
        engine = _open_turn(engine, entry, event.lease_until, event.opened_by)
    elif engine.unanswered_turn is not None:
        engine = replace(engine, unanswered_turn=None)
    if is_reply and event.lease_until is None and response.stop_reason != "pause_turn":
        engine = _close_turn(engine, entry, None)
    return ConversationState(state.identity, state.annotations, totals, view.with_tokens(tokens), engine, state.extra)


def _count_usage(state: ConversationState, response: Response, at: int) -> ConversationState:
    """Add the usage of a reply that was paid for, and note its model and container."""
    totals = state.totals
    totals = replace(totals, usage=_add_usage(totals.usage, response.usage), model=response.model or totals.model)
    return replace(state, totals=totals, engine=_use_container(state.engine, response, at))


def _add_usage(sums: dict[str, int], usage: dict[str, Any]) -> dict[str, int]:
    """Return the sums of token counts after one more reply."""
    counts = {name: count for name, count in usage.items() if type(count) is int and count >= 0}
    return sums | {name: min(sums.get(name, 0) + count, LARGEST_NUMBER) for name, count in counts.items()}


def _use_container(engine: EngineState, response: Response, at: int) -> EngineState:
    values, known = response.container, engine.container
    id, expires_at = values.get("id"), values.get("expires_at")
    if not is_sendable_id(id):
        return engine
    before = known if known and known.id == id else Container(id, since=at)
    container = replace(before, expires_at=expires_at if isinstance(expires_at, str) else None)
    return replace(engine, container=container)


def _set_counts(state: ConversationState, event: Rewind | Snapshot | Repair) -> ConversationState:
    return replace(state, totals=replace(state.totals, messages=event.messages, turns=event.turns))


def _apply_cut(view: ViewState, event: Cut | CompactionByAPI, position: int) -> ViewState:
    view = replace(view, view_start=event.view_start, cut_position=position, hidden_turns=event.hidden_turns)
    return replace(view, view_since=event.view_since, tokens=event.tokens, renamed_calls=event.renamed_calls)


def _invalidate_prefix(view: ViewState, position: int) -> ViewState:
    """Note that what precedes other messages has changed: cached prefixes and earlier thinking are no longer valid."""
    valid_from = view.thinking_valid_from if view.drop_stale_thinking else position
    return replace(view, cache_valid_from=position, thinking_valid_from=valid_from)


def _invalidate_thinking(view: ViewState, position: int) -> ViewState:
    """Note that earlier thinking depends on content that is lost: not even the API can decide what to drop."""
    return replace(view, cache_valid_from=position, thinking_valid_from=position)


def _subtract_tokens(view: ViewState, tokens: int) -> ViewState:
    return replace(view, tokens=max(0, view.tokens - tokens))


def _open_turn(engine: EngineState, entry: Entry, lease_until: int, opened_by: Process | None) -> EngineState:
    """Open a turn, or extend the lease of the open turn that the entry continues."""
    lease_until, turn = min(lease_until, LARGEST_NUMBER), engine.open_turn
    if opened_by is None and turn and turn.id == entry.turn:
        turn = replace(turn, lease_until=lease_until)
    else:
        turn = OpenTurn(entry.turn or entry.id, lease_until, entry.time_us, entry.id, opened_by)
    return replace(engine, open_turn=turn, unanswered_turn=None)


def _close_turn(engine: EngineState, entry: Entry, state: str | None, lease: str | None = None) -> EngineState:
    """Close the open turn, if an entry belongs to it.

    Args:
        engine: The state before the entry.
        entry: The entry that closes the turn.
        state: The state of the turn without a reply; None: the entry is its reply.
        lease: The lease that the turn must still have, because another process may have taken it over; None: any.
    """
    turn = engine.open_turn
    if turn is None or lease not in (None, turn.lease) or entry.turn not in (None, turn.id):
        return engine
    closed = ClosedTurn(turn.id, state, entry.time_us, turn.process) if state else None
    return replace(engine, open_turn=None, unanswered_turn=closed)


def _forget_container(
    engine: EngineState, event: MessageAdded | TurnAbandoned | TurnRefusedByAPI | ReplyInterrupted | ReplyOrphaned
) -> EngineState:
    if engine.container is None or event.forgotten_container != engine.container.id:
        return engine
    return replace(engine, container=None)
