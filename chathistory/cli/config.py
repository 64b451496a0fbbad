"""`chathistory config`: which settings are in force, and where each came from. Nothing secret is shown."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import click

from chathistory.cli.escape import to_one_line
from chathistory.cli.output import print_json, print_rows
from chathistory.cli.target import Target, shared_options
from chathistory.config.files import NAME, find_user_file
from chathistory.config.load import VARIABLES
from chathistory.config.settings import DEFAULT, OPTION, SETTINGS, Settings
from chathistory.config.source import Source
from chathistory.storage.url import near_match

__all__ = ["config"]

HIDDEN = "***"
_LONGEST = 60
_TESTS = "CHATHISTORY_TEST_"


@dataclass(frozen=True, slots=True)
class _Row:
    """A setting with its value, as it may be shown."""

    name: str
    value: Any
    source: Source

    def fields(self) -> tuple[str, ...]:
        """Return the row as texts for people and for programs."""
        text = "" if self.value is None else str(self.value)
        text = text.lower() if isinstance(self.value, bool) else text
        return (
            to_one_line(self.name),
            to_one_line(text, _LONGEST if self.name == "system" else None),
            to_one_line(str(self.source)),
        )


@click.command()
@shared_options("json")
def config(*, target: Target, as_json: bool) -> None:
    r"""Show which settings are in force here, and where each came from.

    When it does not go to a terminal, one line each: name, value, source, separated by tabs. Passwords, texts of store
    options and what else may be secret are shown as ***.

    \b
    Examples:
      chathistory config
      chathistory config --profile prod
      chathistory config --json | jq -r 'select(.name == "store").source'
    """
    from chathistory.config.open import check_url, find_store  # brings pluggy

    settings = target.settings
    store, options = settings.store, dict[str, Any]()
    try:
        store = find_store(settings)
        options.update(check_url(settings).options)
    finally:  # a mistake is easier to find beside the rest
        rows = list(_list_rows(settings, str(store), options))
        if as_json:
            for row in rows:
                print_json({"name": row.name, "value": row.value, "source": str(row.source)})
        else:
            print_rows(("SETTING", "VALUE", "FROM"), [row.fields() for row in rows], fold=True)
        _print_files(settings)


def _list_rows(settings: Settings, store: str, options: Mapping[str, Any]) -> Iterator[_Row]:
    """Yield what is in force; options: as the backend reads them, nothing if it cannot."""
    sources = settings.sources
    yield _Row("profile", settings.profile, sources.get("profile", DEFAULT))
    yield _Row("store", store, sources["store"])
    for name in settings.store.options if settings.store else ():
        if name in options or OPTION + name in sources:  # else it may be half of a password with a "?" in it
            value = options.get(name)
            shown = value if isinstance(value, bool | int | float) else HIDDEN  # a text may be a password
            yield _Row(OPTION + name, shown, sources.get(OPTION + name, sources["store"]))
    for name in ("scope", "model", "system", "max_tokens"):
        hidden = name == "system" and sources[name].references
        yield _Row(name, HIDDEN if hidden else getattr(settings, name), sources[name])
    for name in SETTINGS:
        if "." in name and settings.is_set(name):
            yield _Row(name, sources[name].written, sources[name])


def _print_files(settings: Settings) -> None:
    """Say which files were read, and which variables look as if they were meant to be read."""
    files = ", ".join(map(str, settings.files))
    none = f"none; looked for {NAME} here and above, and for {find_user_file()}"
    click.echo(to_one_line(f"configuration files: {files or none}"), err=True)
    for name in sorted(os.environ):
        if name.startswith("CHATHISTORY_") and name not in VARIABLES and not name.startswith(_TESTS):
            click.echo(
                to_one_line(f"note: unknown variable {name} in the environment{near_match(name, VARIABLES)}"), err=True
            )
