"""Renewal of the leases of open turns with slow replies, with one waiting thread for the whole process.

A turn that ends within a third of its time-out costs one entry in a table: nothing is written for it. Turns are
referenced weakly, so a turn that a program dropped without closing it is not kept open. The thread waits until the next
lease has to be renewed, and ends when no turn is open. Each store is then written to in a thread of its own, so a store
that does not answer delays no other.
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
    """An open turn with a lease.

    Attributes:
        log: The log of its conversation.
        renew_at: When to renew the lease next, in seconds by the clock of `Ticker`.
        timeout: The length of the lease, in seconds.
    """

    log: ConversationLog
    renew_at: float
    timeout: float

    def renew(self) -> bool:
        """Extend the lease; return False if this turn no longer holds it. Raises what the store raises."""
        ...


class Ticker:
    """A clock that never jumps, and a way to wait by it; tests replace `TICKER`."""

    def time(self) -> float:
        """Return the seconds since an arbitrary moment."""
        return time.monotonic()

    def wait(self, condition: threading.Condition, seconds: float) -> None:
        """Wait until a condition is notified or a time is over.

        Args:
            condition: A condition that the caller has acquired.
            seconds: The longest time to wait.
        """
        condition.wait(min(seconds, threading.TIMEOUT_MAX))


TICKER = Ticker()

_RENEWALS_PER_LEASE = 3  # a lease is renewed after a third of its length, so two attempts may fail
_RETRIES_PER_LEASE = 30  # if the store could not be reached: again after a thirtieth


class LeaseKeeper:
    """The open turns of this process, and the thread that renews their leases."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget all turns and the thread: a forked child has neither."""
        self._changed = threading.Condition()
        self._turns: WeakSet[LeasedTurn] = WeakSet()
        self._renewing: WeakSet[LeasedTurn] = WeakSet()
        self._thread: threading.Thread | None = None
        self._wakes_at = 0.0

    def keep(self, turn: LeasedTurn) -> None:
        """Renew the lease of a turn from now on, each time when a third of it is over.

        Args:
            turn: An open turn; its `renew_at` is set.
        """
        with self._changed:
            self._turns.add(turn)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run_renewals, name="chathistory-leases", daemon=True)
                self._wakes_at = turn.renew_at
                self._thread.start()
            elif turn.renew_at < self._wakes_at:
                self._changed.notify_all()

    def postpone(self, turn: LeasedTurn) -> None:
        """Set the next renewal of a lease that is being written just now.

        Args:
            turn: The turn of the lease.
        """
        turn.renew_at = TICKER.time() + turn.timeout / _RENEWALS_PER_LEASE

    def stop_renewing(self, turn: LeasedTurn) -> None:
        """Stop renewing the lease of a turn.

        Args:
            turn: A turn that is closed, or held by another process; one that is not registered is ignored.
        """
        with self._changed:
            self._turns.discard(turn)

    def _run_renewals(self) -> None:
        while due := self._wait_for_due_turns():
            self._start_renewals(due)
            del due  # or this reference would keep the turns alive while the thread waits

    def _start_renewals(self, due: Sequence[LeasedTurn]) -> None:
        by_store: dict[int, list[LeasedTurn]] = {}
        for turn in due:
            by_store.setdefault(id(turn.log.store), []).append(turn)
        for turns in by_store.values():
            threading.Thread(target=self._renew_leases, args=(turns,), name="chathistory-lease", daemon=True).start()

    def _wait_for_due_turns(self) -> list[LeasedTurn]:
        """Wait until leases must be renewed, and return their turns; [] if no turn is open."""
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
            now = TICKER.time()  # taken before the write: the lease counts from this moment
            try:
                holds = turn.renew()
                turn.renew_at = now + turn.timeout / _RENEWALS_PER_LEASE
            except (ConversationChanged, StoreClosed):
                holds = False
            except Exception:  # noqa: BLE001 - whatever the store raises, the next attempt may succeed
                holds = True
                turn.renew_at = now + turn.timeout / _RETRIES_PER_LEASE
            if not holds:
                self.stop_renewing(turn)
            with self._changed:
                self._renewing.discard(turn)
                self._changed.notify_all()


KEEPER = LeaseKeeper()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=KEEPER.reset)
