"""How long an open turn counts as open: until its lease ends, or its process is known to be gone.

The machine that opened a turn wrote by its own clock until when it counts. Another clock may be wrong by years, so a
reader gives a lease no more than its own time-out, from the moment when it saw that lease first.
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

_REMEMBERED = 4096  # leases; each is looked for again only while it is open

_lock = threading.Lock()
_first_seen: OrderedDict[tuple[str, int], int] = OrderedDict()
_given_up: OrderedDict[str, None] = OrderedDict()


def lease_end(turn: OpenTurn, timeout: float = TURN_TIMEOUT) -> int | None:
    """Return until when a turn counts as open for a reader with this time-out.

    Returns:
        Microseconds since 1970 UTC; None: the turn does not count as open. Its lease is over, or its process is gone.
    """
    time = now()
    until = turn.lease_until
    if turn.process != this_process():  # else it is our own clock
        until = min(until, _seen_since(turn, time) + int(timeout * MICROSECONDS))
    if until <= time or turn.lease in _given_up or (turn.process and has_ended(turn.process)):
        return None
    return until


def mark_given_up(lease: str) -> None:
    """Note that this process does nothing any longer for a turn that it could not close: it need not be waited for."""
    with _lock:
        _given_up[lease] = None
        if len(_given_up) > _REMEMBERED:
            _given_up.popitem(last=False)


def check_no_open_turn(key: Key, state: ConversationState | None, *, timeout: float = TURN_TIMEOUT) -> None:
    """Raise `TurnInProgress` if a turn of the conversation is open."""
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
    """Return when this process saw this state of a lease first: now, or earlier."""
    state = (turn.lease, turn.lease_until)
    with _lock:
        since = min(_first_seen.pop(state, time), time)  # our own clock may have been set back
        _first_seen[state] = since
        if len(_first_seen) > _REMEMBERED:
            _first_seen.popitem(last=False)
    return since
