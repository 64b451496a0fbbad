"""`chathistory config`: which settings are in force, and where each came from. Nothing secret is shown."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click

from chathistory.cli.escape import json_line, one_line
from chathistory.cli.render import console
from chathistory.cli.target import configuration_options, debug_option, settings_for
from chathistory.config.files import NAME, users_file
from chathistory.config.layers import OPTION, Source, near_name
from chathistory.config.load import VARIABLES
from chathistory.config.settings import DEFAULT, SETTINGS, Settings

__all__ = ["config"]

HIDDEN = "***"
_LONGEST = 60
_TESTS = "CHATHISTORY_TEST_"
Row = tuple[str, Any, Source]


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
@configuration_options
@debug_option
def config(*, url: str | None, scope: str | None, profile: str | None, config: str | None, as_json: bool) -> None:
    r"""Show which settings are in force here, and where each came from.

    When it does not go to a terminal, one line each: name, value, source, separated by tabs. Passwords, texts of store
    options and what else may be secret are shown as ***.

    \b
    Examples:
      chathistory config
      chathistory config --profile prod
      chathistory config --json | jq -r 'select(.name == "store").source'
    """
    from chathistory.config.open import check_url, find_store  # noqa: PLC0415 - brings pluggy

    settings = settings_for(url, scope, profile=profile, config=config)
    store, options = settings.store, dict[str, Any]()
    try:
        store = find_store(settings)
        options.update(check_url(settings).options)
    finally:  # what is wrong is easier found in the light of the rest
        _print(list(_rows(settings, str(store), options)), as_json=as_json)
        _say_files(settings)


def _rows(settings: Settings, store: str, options: Mapping[str, Any]) -> Iterator[Row]:
    """Yield what is in force; options: as the backend reads them, nothing if it cannot."""
    sources = settings.sources
    yield "profile", settings.profile, sources.get("profile", DEFAULT)
    yield "store", store, sources["store"]
    for name in settings.store.options if settings.store else ():
        if name in options or OPTION + name in sources:  # else it may be half of a password with a "?" in it
            value = options.get(name)
            shown = value if isinstance(value, bool | int | float) else HIDDEN  # a text may be a password
            yield OPTION + name, shown, sources.get(OPTION + name, sources["store"])
    for name in ("scope", "model", "system", "max_tokens"):
        hidden = name == "system" and sources[name].references
        yield name, HIDDEN if hidden else getattr(settings, name), sources[name]
    for name in (name for name in SETTINGS if "." in name and settings.is_set(name)):
        yield name, sources[name].written, sources[name]


def _print(rows: Sequence[Row], *, as_json: bool) -> None:
    if as_json:
        for name, value, source in rows:
            sys.stdout.write(json_line({"name": name, "value": value, "source": str(source)}) + "\n")
    elif sys.stdout.isatty():
        _table(rows)
    else:
        for row in rows:
            sys.stdout.write("\t".join(_fields(row)) + "\n")


def _fields(row: Row) -> tuple[str, str, str]:
    name, value, source = row
    text = "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    return one_line(name), one_line(text, _LONGEST if name == "system" else None), one_line(str(source))


def _table(rows: Sequence[Row]) -> None:
    from rich.table import Table  # noqa: PLC0415 - only a terminal needs it
    from rich.text import Text  # noqa: PLC0415 - as above

    table = Table("SETTING", "VALUE", "FROM", box=None, pad_edge=False, header_style="bold")
    for column in table.columns:
        column.overflow = "fold"
    for row in rows:
        table.add_row(*map(Text, _fields(row)))
    console().print(table)


def _say_files(settings: Settings) -> None:
    """Say which files were read, and which variables look as if they were meant to say something."""
    files = ", ".join(map(str, settings.files))
    none = f"none; looked for {NAME} here and above, and for {users_file()}"
    click.echo(one_line(f"configuration files: {files or none}"), err=True)
    for name in sorted(os.environ):
        if name.startswith("CHATHISTORY_") and name not in VARIABLES and not name.startswith(_TESTS):
            click.echo(one_line(f"note: {name} in the environment says nothing{near_name(name, VARIABLES)}"), err=True)
