"""The one place that asks for the time, and makes tokens that are unique and sort by it.

A machine's clock can jump while a process runs. What a jump must not do is delete: whether a time to live has run out
is judged by the *earliest* time that it can be, of two clocks that agree unless one of them jumped.
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
_LAST = (datetime.max.replace(tzinfo=UTC) - EPOCH) // timedelta(microseconds=1)


def to_datetime(microseconds: int) -> datetime:
    """Return microseconds since 1970 as a time in UTC; the last time that there is for what lies after it."""
    return EPOCH + timedelta(microseconds=min(microseconds, _LAST))


def to_microseconds(time: datetime) -> int:
    """Return an aware time as microseconds since 1970."""
    return (time - EPOCH) // timedelta(microseconds=1)


def _read_wall_clock() -> int:
    return time.time_ns() // 1000


def _read_elapsed() -> int:
    """Return microseconds since some moment before this process started; a machine that sleeps counts as well."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000
    return time.monotonic_ns() // 1000


class Clock:
    """The time on this machine's wall, and the time that has passed since the clock was made.

    Args:
        wall: Returns microseconds since 1970 UTC; it may jump.
        elapsed: Returns microseconds since any moment; it never jumps.
    """

    def __init__(
        self, *, wall: Callable[[], int] = _read_wall_clock, elapsed: Callable[[], int] = _read_elapsed
    ) -> None:
        self._wall = wall
        self._elapsed = elapsed
        self._start = wall() - elapsed()

    def now(self) -> int:
        """Return the time on the wall, within what a store keeps exactly."""
        return max(0, min(self._wall(), LARGEST_NUMBER))

    def earliest_now(self) -> int:
        """Return the earlier of the time on the wall and the time by what has passed since the start."""
        return self.now() + min(0, self._jumped_back())

    def latest_now(self) -> int:
        """Return the later of the time on the wall and the time by what has passed since the start."""
        return self.now() + max(0, self._jumped_back())

    def _jumped_back(self) -> int:
        """Return how far the clock on the wall is behind what has passed; negative: ahead; 0: by less than a second."""
        now = self.now()
        due = max(0, min(self._start + self._elapsed(), LARGEST_NUMBER))
        return due - now if abs(due - now) >= MICROSECONDS else 0


_clock = Clock()


@contextmanager
def use_clock(clock: Clock) -> Iterator[None]:
    """Let all of this process go by another clock for the time of the body: for tests."""
    global _clock  # noqa: PLW0603 - the one clock of the process
    before, _clock = _clock, clock
    try:
        yield
    finally:
        _clock = before


def now() -> int:
    """Return microseconds since 1970 UTC, as this machine's clock has them; it may jump."""
    return _clock.now()


def earliest_now() -> int:
    """Return the earliest time that it can be: what deletes because of its age asks for this one."""
    return _clock.earliest_now()


def latest_now() -> int:
    """Return the latest time that it can be: a time to live begins here."""
    return _clock.latest_now()


def fresh_token() -> str:
    """Return 28 hexadecimal characters: the millisecond, then 64 random bits."""
    return f"{now() // 1000:012x}{os.urandom(8).hex()}"
