"""The one place that asks for the time, and makes tokens that are unique and sort by it."""

from __future__ import annotations

import os
import time

__all__ = ["MICROSECONDS", "fresh_token", "now"]

MICROSECONDS = 1_000_000


def now() -> int:
    """Return microseconds since 1970 UTC, as this machine's clock has them; it may jump."""
    return time.time_ns() // 1000


def fresh_token() -> str:
    """Return 28 hexadecimal characters: the millisecond, then 64 random bits."""
    return f"{now() // 1000:012x}{os.urandom(8).hex()}"
