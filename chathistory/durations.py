"""The one grammar of durations: for URLs, configuration, the command line and arguments in code."""

from __future__ import annotations

import re
from datetime import timedelta

from chathistory.errors import ConfigError, InvalidInput

__all__ = ["check_duration", "parse_duration"]

_UNITS = {"": "seconds", "s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw]?)", re.ASCII)


def parse_duration(value: object) -> timedelta:
    """Return the duration that a text, a number of seconds or a `timedelta` stands for.

    Args:
        value: A number with a unit (s, m, h, d or w), such as "90s", "12h" or "1.5d"; without a unit, seconds.

    Raises:
        ConfigError: It is none of these, negative, or more than a `timedelta` holds. The value is not quoted.
    """
    duration = value if isinstance(value, timedelta) else None
    try:
        if isinstance(value, int | float) and not isinstance(value, bool):
            duration = timedelta(seconds=value)
        elif isinstance(value, str) and (found := _DURATION.fullmatch(value)):
            duration = timedelta(**{_UNITS[found[2]]: float(found[1])})
    except (OverflowError, ValueError):  # ValueError: not a number
        duration = None
    if duration is None or duration < timedelta():
        raise ConfigError("must be a duration, such as 90s, 30m, 12h, 7d or 2w (a number alone: seconds)")
    return duration


def check_duration(name: str, value: object) -> timedelta:
    """Return the duration that an argument stands for, as `parse_duration` does.

    Args:
        name: The name of the argument, for the error.
        value: What the caller handed in.

    Raises:
        InvalidInput: It is no duration.
    """
    try:
        return parse_duration(value)
    except ConfigError as error:
        raise InvalidInput(f"{name}: {error}") from None
