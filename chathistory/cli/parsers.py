"""What people ask for, in their words: times, spans of time, names with values."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import click

from chathistory.durations import parse_duration
from chathistory.errors import ConfigError

__all__ = ["ParsedBy", "filter_options", "filter_words", "filters"]


class ParsedBy(click.ParamType[Any]):
    """The type of an option that a function of the library reads; what it refuses is a usage error."""

    name = "text"

    def __init__(self, parse: Callable[[object], Any]) -> None:
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return self._parse(value)
        except ConfigError as error:
            self.fail(str(error), param, ctx)


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
    """Return the arguments for `History.list`. Raises `click.BadParameter`."""
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
    with suppress(ConfigError, OverflowError):
        return datetime.now(UTC) - parse_duration(text)
    with suppress(ValueError, OverflowError):
        return datetime.fromisoformat(text).astimezone()
    raise click.BadParameter(f"--{name} takes a time such as 2026-01-31, 2026-01-31T12:00 or 7d (seven days ago)")
