"""The page on configuration has every key, variable, flag and option: its tables are made from what the code declares.

`python tests/config/test_config_docs.py` writes them.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import click
import pytest

from chathistory.cli.app import group
from chathistory.config.files import AT_TOP
from chathistory.config.load import VARIABLES
from chathistory.config.settings import SETTINGS, variable_of
from chathistory.storage.plugins import list_backends, list_options

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"
OTHERS = {
    "store_options": "options of the store, a table",
    "profile": "the profile to use",
    "profiles": "profiles by their names, each a table of all keys above but `profile`",
}


def flags():
    """Return the flags of all commands, by the long form."""
    commands = group.commands.values()
    options = [option for command in commands for option in command.params if isinstance(option, click.Option)]
    return {name for option in options for name in option.opts}


def row(*cells):
    return "".join(f"| {cell} " if cell else "| " for cell in cells) + "|"


def settings_table():
    known = flags()
    lines = [row("key", "variable", "flag", "default", ""), row(*["---"] * 5)]
    for name, words in [*((name, option.help) for name, option in SETTINGS.items()), *OTHERS.items()]:
        flag, variable = f"--{name.rpartition('.')[2].replace('_', '-')}", variable_of(name)
        default = SETTINGS[name].default if name in SETTINGS else None
        lines.append(
            row(
                f"`{name}`",
                f"`{variable}`" if variable in VARIABLES else "",
                f"`{flag}`" if flag in known else "",
                "" if default is None else f"`{str(default).lower()}`",
                words,
            )
        )
    lines.append(row("", "`CHATHISTORY_CONFIG`", "`--config`", "", "the file to read in place of those that are found"))
    return "\n".join(lines)


def options_tables():
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
        [f"### {heading}", "", row("option", "default", ""), row(*["---"] * 3), *(row(*cells) for cells in rows)]
    )


def made(text):
    for name, table in (("settings", settings_table()), ("options", options_tables())):
        text = re.sub(
            rf"(?<=<!-- {name} -->\n).*?(?=<!-- end -->)",
            lambda _, table=table: f"\n{table}\n\n",
            text,
            flags=re.DOTALL,
        )
    return text


def test_the_tables_are_those_of_the_code():
    text = PAGE.read_text()
    assert made(text) == text, "run python tests/config/test_config_docs.py to update the tables"


def test_every_key_and_every_variable_is_in_the_table():
    table = settings_table()
    assert {*(name.partition(".")[0] for name in SETTINGS), *OTHERS} == AT_TOP
    for name in (*SETTINGS, *OTHERS, *VARIABLES):
        assert f"| `{name}` |" in table


@pytest.mark.parametrize("scheme", ["file", "memory", "redis", "rediss", "unix", "mongodb", "s3"])
def test_every_option_of_every_backend_is_on_the_page(scheme):
    part = next(part for part in PAGE.read_text().split("\n### ") if f"`{scheme}:`" in part.splitlines()[0])
    for name in list_options(scheme):
        assert f"`{name}`" in part


def test_every_flag_is_one_of_a_command():
    for flag in set(re.findall(r"`?(--[a-z-]+)", PAGE.read_text())) - {"---"}:
        assert flag in flags() | {"--json"}, flag


if __name__ == "__main__":
    PAGE.write_text(made(PAGE.read_text()))
    sys.stdout.write(f"{PAGE}\n")
