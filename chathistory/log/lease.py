"""How long an open turn counts as open: until its lease ends, or its process is known to have ended.

The machine that opened a turn wrote the end of the lease by its own clock, and another machine's clock may be wrong by
years. So a reader lets a lease last no longer than its own timeout, counted from the moment when it first saw the
lease.
"""

from __future__ import annotations

import threading
from collections import OrderedDict

from chathistory.errors import TurnInProgress
from chathistory.log.clock import MICROSECONDS, now, to_datetime
from chathistory.log.process import has_ended, this_process
from chathistory.log.state import ConversationState, OpenTurn
from chathistory.storage.values import Key

__all__ = ["TURN_TIMEOUT", "check_no_open_turn", "lease_end", "mark_given_up"]

TURN_TIMEOUT = 600.0
"""Seconds for which a turn without a reply counts as open after each of its steps, unless an engine says otherwise."""

_MAX_REMEMBERED = 4096  # leases; a lease is needed only while its turn is open

_lock = threading.Lock()
_first_seen: OrderedDict[tuple[str, int], int] = OrderedDict()
_given_up: OrderedDict[str, None] = OrderedDict()


def lease_end(turn: OpenTurn, timeout: float = TURN_TIMEOUT) -> int | None:
    """Return until when a turn counts as open.

    Args:
        turn: The open turn.
        timeout: The longest time, in seconds, that this reader lets a lease last.

    Returns:
        Microseconds since 1970 UTC. None if the turn no longer counts as open: its lease is over, its process has
        ended, or this process has given it up.
    """
    time = now()
    until = turn.lease_until
    if turn.process != this_process():  # otherwise our own clock set the end
        until = min(until, _seen_since(turn, time) + int(timeout * MICROSECONDS))
    if until <= time or turn.lease in _given_up or (turn.process and has_ended(turn.process)):
        return None
    return until


def mark_given_up(lease: str) -> None:
    """Note that this process no longer works on a turn that it could not close, so nobody has to wait for it.

    Args:
        lease: The id of the entry that opened the turn.
    """
    with _lock:
        _given_up[lease] = None
        if len(_given_up) > _MAX_REMEMBERED:
            _given_up.popitem(last=False)


def check_no_open_turn(key: Key, state: ConversationState | None, *, timeout: float = TURN_TIMEOUT) -> None:
    """Raise an error if a turn of the conversation is open.

    Args:
        key: The conversation.
        state: Its state; None: it does not exist.
        timeout: As in `lease_end`.

    Raises:
        TurnInProgress: A turn is open.
    """
    turn = state.engine.open_turn if state else None
    if turn and (until := lease_end(turn, timeout)):
        process = turn.process
        raise TurnInProgress(
            key,
            turn.id,
            to_datetime(until),
            host=process.host if process else None,
            pid=process.pid if process else None,
        )


def _seen_since(turn: OpenTurn, time: int) -> int:
    """Return when this process first saw a lease with this end: now, or earlier."""
    lease_key = (turn.lease, turn.lease_until)
    with _lock:
        since = min(_first_seen.pop(lease_key, time), time)  # our own clock may have been set back
        _first_seen[lease_key] = since
        if len(_first_seen) > _MAX_REMEMBERED:
            _first_seen.popitem(last=False)
    return since
