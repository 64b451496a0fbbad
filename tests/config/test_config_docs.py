"""The page on configuration has every key, variable, flag and option: the code makes its tables."""

from __future__ import annotations

import re

import pytest
from configuration_tables import OTHERS, PAGE, list_flags, settings_table, update_tables

from chathistory.config.files import AT_TOP
from chathistory.config.load import VARIABLES
from chathistory.config.settings import SETTINGS
from chathistory.storage.plugins import list_options


def test_the_tables_are_those_of_the_code():
    text = PAGE.read_text()
    assert update_tables(text) == text, "run `make reference` to update the tables"


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
        assert flag in list_flags() | {"--json"}, flag
