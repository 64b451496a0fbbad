"""The clock of the process, and unique tokens that sort by time.

A machine's clock can jump while a process runs. A jump must not delete anything. So whether a time to live is over is
decided by the *earliest* time that it can be, according to two clocks that agree unless one of them jumped.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from chathistory.storage.values import LARGEST_NUMBER

__all__ = [
    "MICROSECONDS",
    "Clock",
    "earliest_now",
    "fresh_token",
    "latest_now",
    "now",
    "to_datetime",
    "to_microseconds",
    "use_clock",
]

MICROSECONDS = 1_000_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_MICROSECONDS = (datetime.max.replace(tzinfo=UTC) - EPOCH) // timedelta(microseconds=1)


def to_datetime(microseconds: int) -> datetime:
    """Return a time in UTC; `datetime.max` for a time after that.

    Args:
        microseconds: Since 1970 UTC.
    """
    return EPOCH + timedelta(microseconds=min(microseconds, _MAX_MICROSECONDS))


def to_microseconds(time: datetime) -> int:
    """Return microseconds since 1970 UTC.

    Args:
        time: An aware time.
    """
    return (time - EPOCH) // timedelta(microseconds=1)


def _read_wall_clock() -> int:
    return time.time_ns() // 1000


def _read_elapsed() -> int:
    """Return microseconds since a moment before this process started, including the time that the machine slept."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000
    return time.monotonic_ns() // 1000


class Clock:
    """A wall clock, checked against the time that has elapsed since the object was created.

    Args:
        wall: Returns microseconds since 1970 UTC. It may jump.
        elapsed: Returns microseconds since any fixed moment. It never jumps.
    """

    def __init__(
        self, *, wall: Callable[[], int] = _read_wall_clock, elapsed: Callable[[], int] = _read_elapsed
    ) -> None:
        self._wall = wall
        self._elapsed = elapsed
        self._start = wall() - elapsed()

    def now(self) -> int:
        """Return the wall clock's time, limited to what every store keeps exactly."""
        return max(0, min(self._wall(), LARGEST_NUMBER))

    def earliest_now(self) -> int:
        """Return the earlier of the wall clock's time and the start plus the elapsed time."""
        return self.now() + min(0, self._measure_jump_back())

    def latest_now(self) -> int:
        """Return the later of the wall clock's time and the start plus the elapsed time."""
        return self.now() + max(0, self._measure_jump_back())

    def _measure_jump_back(self) -> int:
        """Return how far the wall clock has jumped back; negative: ahead; 0: by less than a second."""
        now = self.now()
        expected = max(0, min(self._start + self._elapsed(), LARGEST_NUMBER))
        return expected - now if abs(expected - now) >= MICROSECONDS else 0


_clock = Clock()


@contextmanager
def use_clock(clock: Clock) -> Iterator[None]:
    """Let the whole process use another clock inside a `with` block: for tests.

    Args:
        clock: The clock.
    """
    global _clock  # noqa: PLW0603 - the one clock of the process
    before, _clock = _clock, clock
    try:
        yield
    finally:
        _clock = before


def now() -> int:
    """Return microseconds since 1970 UTC by this machine's clock, which may jump."""
    return _clock.now()


def earliest_now() -> int:
    """Return the earliest time that it can be, in microseconds since 1970 UTC: for what deletes by age."""
    return _clock.earliest_now()


def latest_now() -> int:
    """Return the latest time that it can be, in microseconds since 1970 UTC: for the start of a time to live."""
    return _clock.latest_now()


def fresh_token() -> str:
    """Return 28 hexadecimal characters: the millisecond, then 64 random bits."""
    return f"{now() // 1000:012x}{os.urandom(8).hex()}"
