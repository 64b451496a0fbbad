"""A clock for leases and their renewal, which does not move until a test moves it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from chathistory.engine import lease_renewal, turn
from chathistory.engine.lease_renewal import LeaseKeeper
from chathistory.log import conversation_log, lease

__all__ = ["Clock", "wait_until"]

SECOND = 1_000_000


class Clock:
    """The time of this machine, as leases and their keeper see it."""

    def __init__(self, monkeypatch) -> None:
        self.wall = time.time_ns() // 1000
        self.ticks = 0.0
        self.waiting: list[threading.Condition] = []
        for module in (conversation_log, lease, turn):
            monkeypatch.setattr(module, "now", lambda: self.wall)
        monkeypatch.setattr(lease_renewal, "TICKER", self)
        self.keeper = LeaseKeeper()
        monkeypatch.setattr(turn, "KEEPER", self.keeper)

    # The methods of `Ticker`.

    def time(self) -> float:
        return self.ticks

    def wait(self, condition: threading.Condition, seconds: float) -> None:
        self.waiting.append(condition)
        condition.wait(0.05)  # then the keeper checks again, as the clock may have moved before this was registered

    # Called by tests.

    def go(self, seconds: float) -> None:
        """Move both clocks forward: the wall clock and the keeper's."""
        self.wall += int(seconds * SECOND)
        self.ticks += seconds
        for condition in dict.fromkeys(self.waiting):
            with condition:
                condition.notify_all()

    def set_wall(self, seconds: float) -> None:
        """Change the wall clock, forward or back, without time passing."""
        self.wall += int(seconds * SECOND)


def wait_until(condition: Callable[[], object], message: str) -> None:
    """Wait until a condition is true, for a minute at most; then fail with the message."""
    for _ in range(6000):
        if condition():
            return
        threading.Event().wait(0.01)
    raise AssertionError(message)
