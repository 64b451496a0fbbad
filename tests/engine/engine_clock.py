"""A clock that stands still until a test moves it: for leases, and for those who renew them."""

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
    """The time of this machine, as leases and their keeper see it; `skew` is what others' clocks are ahead."""

    def __init__(self, monkeypatch) -> None:
        self.wall = time.time_ns() // 1000
        self.ticks = 0.0
        self.waiting: list[threading.Condition] = []
        for module in (conversation_log, lease, turn):
            monkeypatch.setattr(module, "now", lambda: self.wall)
        monkeypatch.setattr(lease_renewal, "TICKER", self)
        self.keeper = LeaseKeeper()
        monkeypatch.setattr(turn, "KEEPER", self.keeper)

    # What `Ticker` does.

    def time(self) -> float:
        return self.ticks

    def wait(self, condition: threading.Condition, seconds: float) -> None:
        self.waiting.append(condition)
        condition.wait(0.05)  # then the keeper looks again: time may have passed before this condition was known

    # What tests do.

    def go(self, seconds: float) -> None:
        """Let time pass, on the wall and for the keeper."""
        self.wall += int(seconds * SECOND)
        self.ticks += seconds
        for condition in dict.fromkeys(self.waiting):
            with condition:
                condition.notify_all()

    def set_wall(self, seconds: float) -> None:
        """Set the wall's clock ahead or back; no time passes."""
        self.wall += int(seconds * SECOND)


def wait_until(seen: Callable[[], object], what: str) -> None:
    """Wait until something can be seen; what: for the message if that does not come within a minute."""
    for _ in range(6000):
        if seen():
            return
        threading.Event().wait(0.01)
    raise AssertionError(what)
