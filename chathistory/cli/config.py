"""`chathistory config`: the settings in force and the source of each. It shows no secrets."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

import click

from chathistory.cli.options import CommandTarget, shared_options
from chathistory.cli.output import print_json, print_rows, to_one_line
from chathistory.config.files import NAME, find_user_file
from chathistory.config.load import VARIABLES
from chathistory.config.settings import DEFAULT, OPTION, SETTINGS, Settings
from chathistory.storage.url import suggest_name

__all__ = ["config"]

_HIDDEN = "***"
_MAX_VALUE_LENGTH = 60  # characters
_TESTS = "CHATHISTORY_TEST_"


@click.command()
@shared_options("json")
def config(*, target: CommandTarget, as_json: bool) -> None:
    r"""Show the settings in force, and where each came from.

    Passwords, texts of store options and other values that may be secret are shown as ***. If standard output is not a
    terminal, it prints one line per setting with fields separated by tabs: name, value, source.

    \b
    Examples:
      chathistory config
      chathistory config --profile prod
      chathistory config --json | jq -r 'select(.name == "store").source'
    """
    from chathistory.config.open import check_url, find_store  # brings pluggy

    settings = target.settings
    store, options = str(settings.store), dict[str, Any]()
    try:
        store = str(find_store(settings))
        options.update(check_url(settings).options)
    finally:  # an error is easier to understand next to the other settings
        shown = list(_show_settings(settings, store, options))
        if as_json:
            for row in shown:
                print_json(row)
        else:
            rows = []
            for row in shown:
                value = "" if row["value"] is None else str(row["value"])
                value = value.lower() if isinstance(row["value"], bool) else value
                value = to_one_line(value, _MAX_VALUE_LENGTH) if row["name"] == "system" else value
                rows.append((row["name"], value, row["source"]))
            print_rows(("SETTING", "VALUE", "FROM"), rows, fold=True)
        files = ", ".join(map(str, settings.files))
        files = files or f"none; looked for {NAME} in this folder and above, and for {find_user_file()}"
        click.echo(to_one_line(f"configuration files: {files}"), err=True)
        for name in sorted(os.environ):
            if name.startswith("CHATHISTORY_") and name not in VARIABLES and not name.startswith(_TESTS):
                hint = suggest_name(name, VARIABLES)
                click.echo(to_one_line(f"note: unknown environment variable {name}{hint}"), err=True)


def _show_settings(settings: Settings, store: str, options: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield name, value and source of each setting in force.

    Args:
        settings: The settings.
        store: The URL of the store, to be shown.
        options: The options of the store as the backend reads them; empty if it cannot read them.
    """
    sources = settings.sources
    values: dict[str, Any] = {"profile": settings.profile, "store": store}
    for key in settings.store.options if settings.store else ():
        if key in options or OPTION + key in sources:  # others may be half of a password with a "?" in it
            is_number = isinstance(options.get(key), bool | int | float)
            values[OPTION + key] = options[key] if is_number else _HIDDEN  # a text may be a password
    values |= {name: getattr(settings, name) for name in ("scope", "model", "system", "max_tokens")}
    if sources["system"].references:
        values["system"] = _HIDDEN
    values |= {name: sources[name].written for name in SETTINGS if "." in name and settings.is_set(name)}
    for name, value in values.items():
        source = sources.get(name, sources["store"] if name.startswith(OPTION) else DEFAULT)
        yield {"name": name, "value": value, "source": str(source)}
