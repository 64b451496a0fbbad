"""The tables of the page on configuration, made from what the code declares: settings, and options of backends."""

from __future__ import annotations

import re
from pathlib import Path

import click

from chathistory.cli.app import group
from chathistory.config.load import VARIABLES
from chathistory.config.settings import SETTINGS, variable_of
from chathistory.storage.plugins import list_backends, list_options

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"
OTHERS = {
    "store_options": "options of the store, a table",
    "profile": "the profile to use",
    "profiles": "the profiles by name, each a table of the keys above except `profile`",
}


def list_flags() -> set[str]:
    """Return the names of the options of all commands."""
    commands = group.commands.values()
    options = [option for command in commands for option in command.params if isinstance(option, click.Option)]
    return {name for option in options for name in option.opts}


def format_row(*cells: str) -> str:
    """Return a row of a table in Markdown."""
    return "".join(f"| {cell} " if cell else "| " for cell in cells) + "|"


def settings_table() -> str:
    """Return the table of all settings."""
    known = list_flags()
    lines = [format_row("key", "variable", "command-line option", "default", "meaning"), format_row(*["---"] * 5)]
    for name, words in [*((name, option.help) for name, option in SETTINGS.items()), *OTHERS.items()]:
        flag, variable = f"--{name.rpartition('.')[2].replace('_', '-')}", variable_of(name)
        default = SETTINGS[name].default if name in SETTINGS else None
        lines.append(
            format_row(
                f"`{name}`",
                f"`{variable}`" if variable in VARIABLES else "",
                f"`{flag}`" if flag in known else "",
                "" if default is None else f"`{str(default).lower()}`",
                words,
            )
        )
    lines.append(format_row("", "`CHATHISTORY_CONFIG`", "`--config`", "", "the only configuration file to read"))
    return "\n".join(lines)


def options_tables() -> str:
    """Return a table for each group of schemes with the same options."""
    by_options = {}
    for backend in list_backends():
        assert backend.problem is None, backend
        options = list_options(backend.scheme)
        by_options.setdefault(repr({name: option.help for name, option in options.items()}), []).append(backend.scheme)
    return "\n\n".join(map(options_table, by_options.values()))


def options_table(schemes):
    """Return one table for the schemes that have the same options; options with the same help share a row."""
    alike = {}
    for name, option in sorted(list_options(schemes[0]).items()):
        alike.setdefault((option.help, str(option.default)), []).append(f"`{name}`")
    rows = [
        (", ".join(names), "" if default in {"None", ""} else f"`{default}`", words)
        for (words, default), names in alike.items()
    ]
    heading = ", ".join(f"`{scheme}:`" for scheme in schemes)
    return "\n".join(
        [
            f"### {heading}",
            "",
            format_row("option", "default", "meaning"),
            format_row(*["---"] * 3),
            *(format_row(*cells) for cells in rows),
        ]
    )


def update_tables(text: str) -> str:
    """Return the text of the page with its tables as they must be now."""
    for name, table in (("settings", settings_table()), ("options", options_tables())):
        text = re.sub(
            rf"(?<=<!-- {name} -->\n).*?(?=<!-- end -->)",
            lambda _, table=table: f"\n{table}\n\n",
            text,
            flags=re.DOTALL,
        )
    return text
