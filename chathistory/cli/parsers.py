"""What people ask for, in their words: times, spans of time, names with values."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import click

__all__ = ["filter_options", "filter_words", "filters", "span"]

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_SPAN = re.compile(r"(\d{1,6})([smhdw])")


def _span(text: str) -> timedelta | None:
    found = _SPAN.fullmatch(text)
    return timedelta(**{_UNITS[found[2]]: int(found[1])}) if found else None


def span(text: str) -> timedelta:
    """Return a span of time such as 90d, or 12h; the type of an option. Raises `click.BadParameter`."""
    found = _span(text)
    if found is None:
        raise click.BadParameter("a span of time is a number and s, m, h, d or w, such as 90d")
    return found


def filter_options(command: Any) -> Any:
    """Add the options that say which conversations are asked for; they reach the command as text."""
    for option in (
        click.option("--until", metavar="TIME", help="Not active at that time or later."),
        click.option("--since", metavar="TIME", help="Active then (2026-01-31, 2026-01-31T12:00, 7d) or later."),
        click.option("--model", metavar="MODEL", help="With the last reply by this model."),
        click.option("--meta", "metadata", metavar="NAME=VALUE", multiple=True, help="With this metadata."),
        click.option("--tag", metavar="TAG", multiple=True, help="With this tag; several: with all of them."),
        click.option("--title", metavar="TEXT", help="With this text in the title; where there is none, the preview."),
    ):
        command = option(command)
    return command


def filters(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments for `History.recent`. Raises `click.BadParameter`."""
    times = {name: _time(name, given[name]) for name in ("since", "until")}
    pairs = [_pair(text) for text in given["metadata"]]
    return {**given, **times, "metadata": dict(pairs)}


def filter_words(given: Mapping[str, Any]) -> Iterator[str]:
    """Yield the words of a command line that asks for the same."""
    for name, value in given.items():
        option = "--meta" if name == "metadata" else f"--{name}"
        for text in [value] if isinstance(value, str) else value or ():
            yield from (option, text)


def _pair(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise click.BadParameter("--meta takes NAME=VALUE")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value  # text need not be in quotes


def _time(name: str, text: str | None) -> datetime | None:
    """Return a time that was given as such (without a zone: of this machine's) or as a span before now."""
    if text is None:
        return None
    if (back := _span(text)) is not None:
        return datetime.now(UTC) - back
    try:
        return datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError):
        pass
    raise click.BadParameter(f"--{name} takes a time such as 2026-01-31, 2026-01-31T12:00 or 7d (seven days ago)")
