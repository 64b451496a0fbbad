"""Parse durations: one grammar for URLs, configuration, the command line and arguments."""

from __future__ import annotations

import re
from datetime import timedelta

from chathistory.errors import ConfigError, InvalidInput

__all__ = ["check_duration", "parse_duration"]

_UNITS = {"": "seconds", "s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw]?)", re.ASCII)


def parse_duration(value: object) -> timedelta:
    """Return a duration, given as text, as a number of seconds, or as a `timedelta`.

    Args:
        value: A `timedelta`, a number of seconds, or text: a number and a unit (s, m, h, d or w), such as "90s", "12h"
            or "1.5d". A number without a unit is seconds.

    Raises:
        ConfigError: It is something else, negative, or more than a `timedelta` can hold. The value is not quoted.
    """
    duration = value if isinstance(value, timedelta) else None
    try:
        if isinstance(value, int | float) and not isinstance(value, bool):
            duration = timedelta(seconds=value)
        elif isinstance(value, str) and (match := _DURATION.fullmatch(value)):
            duration = timedelta(**{_UNITS[match[2]]: float(match[1])})
    except (OverflowError, ValueError):  # ValueError: not a number
        duration = None
    if duration is None or duration < timedelta():
        raise ConfigError("must be a duration, such as 90s, 30m, 12h, 7d or 2w (a number without a unit is seconds)")
    return duration


def check_duration(name: str, value: object) -> timedelta:
    """Return the duration that was given as an argument; see `parse_duration`.

    Args:
        name: The name of the argument, for the error.
        value: The value of the argument.

    Raises:
        InvalidInput: It is not a duration.
    """
    try:
        return parse_duration(value)
    except ConfigError as error:
        raise InvalidInput(f"{name}: {error}") from None
