"""Keeps the leases of open turns while their replies take long, with one thread for all open turns of the process.

A turn that is shorter than a third of its time-out is never looked at: nothing is written for it, and nothing starts
or stops with it but an entry in a table. Turns are held weakly, so what a program has dropped without closing it is not
kept open. The thread waits for the next turn that is due, and ends if there is none; each store is then written to in a
thread of its own, so that one that does not answer delays no other.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from typing import Protocol
from weakref import WeakSet

from chathistory.errors import ConversationChanged, StoreClosed
from chathistory.log.conversation_log import ConversationLog

__all__ = ["KEEPER", "TICKER", "LeaseKeeper", "LeasedTurn", "Ticker"]


class LeasedTurn(Protocol):
    """An open turn. renew_at: when its lease is renewed next, by the clock of `Ticker`."""

    log: ConversationLog
    renew_at: float
    timeout: float

    def renew(self) -> bool:
        """Extend the lease; False: it is not this turn's any longer. Raises what the store raises."""
        ...


class Ticker:
    """A clock that never jumps, and a way to wait by it; tests put another one in the place of `TICKER`."""

    def time(self) -> float:
        """Return seconds since some moment."""
        return time.monotonic()

    def wait(self, condition: threading.Condition, seconds: float) -> None:
        """Wait until the condition is notified, but no longer than this."""
        condition.wait(min(seconds, threading.TIMEOUT_MAX))


TICKER = Ticker()

_PARTS = 3  # a lease is renewed after this part of it, so that two attempts may fail
_RETRY_PARTS = 30  # and, if the store could not be reached, after this part again


class LeaseKeeper:
    """The open turns of this process, and the thread that has their leases renewed."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin without turns and without a thread, as a forked child must."""
        self._changed = threading.Condition()
        self._turns: WeakSet[LeasedTurn] = WeakSet()
        self._renewing: WeakSet[LeasedTurn] = WeakSet()
        self._thread: threading.Thread | None = None
        self._wakes_at = 0.0

    def keep(self, turn: LeasedTurn) -> None:
        """Renew the lease of a turn from now on, each time when a part of it is over."""
        with self._changed:
            self._turns.add(turn)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run_renewals, name="chathistory-leases", daemon=True)
                self._wakes_at = turn.renew_at
                self._thread.start()
            elif turn.renew_at < self._wakes_at:
                self._changed.notify_all()

    def postpone(self, turn: LeasedTurn) -> None:
        """Note that the lease is being written with an end that counts from now."""
        turn.renew_at = TICKER.time() + turn.timeout / _PARTS

    def release(self, turn: LeasedTurn) -> None:
        """Do not renew the lease of a turn any longer."""
        with self._changed:
            self._turns.discard(turn)

    def _run_renewals(self) -> None:
        while due := self._wait_for_due_turns():
            self._start_renewals(due)
            del due  # so that nothing is kept alive while this waits

    def _start_renewals(self, due: Sequence[LeasedTurn]) -> None:
        by_store: dict[int, list[LeasedTurn]] = {}
        for turn in due:
            by_store.setdefault(id(turn.log.store), []).append(turn)
        for turns in by_store.values():
            threading.Thread(target=self._renew_leases, args=(turns,), name="chathistory-lease", daemon=True).start()

    def _wait_for_due_turns(self) -> list[LeasedTurn]:
        """Wait for turns whose leases must be renewed, and return them; none: no turn is open."""
        with self._changed:
            while turns := list(self._turns):
                now = TICKER.time()
                due = [turn for turn in turns if turn.renew_at <= now and turn not in self._renewing]
                if due:
                    self._renewing.update(due)
                    return due
                self._wakes_at = min((turn.renew_at for turn in turns if turn.renew_at > now), default=now + 1)
                del turns, due
                TICKER.wait(self._changed, self._wakes_at - now)
            self._thread = None
            return []

    def _renew_leases(self, turns: Sequence[LeasedTurn]) -> None:
        for turn in turns:
            now = TICKER.time()  # before the write: the lease counts from there
            try:
                holds = turn.renew()
                turn.renew_at = now + turn.timeout / _PARTS
            except (ConversationChanged, StoreClosed):
                holds = False
            except Exception:  # noqa: BLE001 - whatever a store raises: the next attempt is as good
                holds = True
                turn.renew_at = now + turn.timeout / _RETRY_PARTS
            if not holds:
                self.release(turn)
            with self._changed:
                self._renewing.discard(turn)
                self._changed.notify_all()


KEEPER = LeaseKeeper()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=KEEPER.reset)
