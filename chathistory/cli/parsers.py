"""What people write on a command line: durations, times, names with values, and filters."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import click

from chathistory.durations import parse_duration
from chathistory.errors import ConfigError

__all__ = ["DURATION", "PAIR", "ParsedBy", "filter_options", "format_filters", "select_filters"]


class ParsedBy(click.ParamType[Any]):
    """The type of an option that a function reads; its `ConfigError` is a usage error."""

    name = "text"

    def __init__(self, parse: Callable[[str], Any]) -> None:
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return self._parse(value)
        except ConfigError as error:
            self.fail(str(error), param, ctx)


def _parse_time(text: str) -> datetime:
    """Return a time that was given as such (without a zone: of this machine's), or as a duration before now."""
    with suppress(ConfigError, OverflowError):
        return datetime.now(UTC) - parse_duration(text)
    with suppress(ValueError, OverflowError):
        return datetime.fromisoformat(text).astimezone()
    raise ConfigError("must be a time such as 2026-01-31, 2026-01-31T12:00 or 7d (seven days ago)")


def _parse_pair(text: str) -> tuple[str, Any]:
    """Return a name and a value, which is JSON, or else text."""
    name, equals, value = text.partition("=")
    if not equals:
        raise ConfigError("must be NAME=VALUE")
    with suppress(ValueError):
        return name, json.loads(value)
    return name, value


DURATION = ParsedBy(parse_duration)
PAIR = ParsedBy(_parse_pair)
_TIME = ParsedBy(_parse_time)

_FILTERS = (
    click.option(
        "--title", metavar="TEXT", help="With this text in the title, or in the preview if there is no title."
    ),
    click.option("--tag", metavar="TAG", multiple=True, help="With this tag; several: with all of them."),
    click.option("--meta", "metadata", type=PAIR, metavar="NAME=VALUE", multiple=True, help="With this metadata."),
    click.option("--model", metavar="MODEL", help="With the last reply by this model."),
    click.option(
        "--since", type=_TIME, metavar="TIME", help="Active then (2026-01-31, 2026-01-31T12:00, 7d) or later."
    ),
    click.option("--until", type=_TIME, metavar="TIME", help="Not active at that time or later."),
    click.option("--open", "unanswered", is_flag=True, help="With no reply to the last turn."),
)


def filter_options(command: Any) -> Any:
    """Add the options that select conversations; they reach the command by the names of `History.list`."""
    for option in reversed(_FILTERS):
        command = option(command)
    return command


def select_filters(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the filters that were given, as arguments of `History.list`."""
    filters = {name: value for name, value in given.items() if value not in (None, (), False)}
    return filters | ({"metadata": dict(filters["metadata"])} if "metadata" in filters else {})


def format_filters(filters: Mapping[str, Any]) -> Iterator[str]:
    """Yield the words of a command line that selects the same."""
    for name, value in filters.items():
        if name == "unanswered":
            yield "--open"
        elif name == "metadata":
            for key, part in value.items():
                yield from ("--meta", f"{key}={json.dumps(part)}")
        else:
            for part in value if isinstance(value, tuple) else (value,):
                yield from (f"--{name}", part.isoformat() if isinstance(part, datetime) else part)
