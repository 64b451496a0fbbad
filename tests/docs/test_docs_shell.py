"""The commands on the pages run, and print what the pages show."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

import pytest
from docs_shell import CONSOLE, Command, Shell, commands_of, is_as_shown

from chathistory import History, open_store
from chathistory.testing import FakeMessagesAPI

pytestmark = pytest.mark.wide

ROOT = Path(__file__).parents[2]
PAGES = {str(path.relative_to(ROOT)): path.read_text() for path in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]}
ELSEWHERE = {"docs/tutorial.md"}  # tests/docs/test_docs_tutorial.py follows it from its first line to its last
FENCES = {"python", "console"}  # these run
DATA = {"text", "json", "jsonl", "js", "html", "ini", "toml", "yaml", "py"}  # these are looked at; py: signatures
WITH_COMMANDS = [name for name, text in PAGES.items() if commands_of(text) and name not in ELSEWHERE]


@pytest.fixture(scope="module")
def fake_api():
    with FakeMessagesAPI().serve() as url:
        yield url


@pytest.fixture
def shell(tmp_path, fake_api):
    messages = [{"role": "user", "content": "More."}, {"role": "assistant", "content": "Much more."}] * 10
    (tmp_path / "chapter.txt").write_text("It was a dark and stormy night.\n")
    (tmp_path / "messages.json").write_text(json.dumps(messages))
    folder = tmp_path / "home"
    with open_store(f"file:{folder}/.local/share/chathistory/history") as store:  # the reader's earlier conversations
        for scope, name in (("default", "thesis"), ("ada", "support/42")):
            History(store).conversation(name, scope=scope).append(messages)
    terminal = {"TERM": "xterm", "LC_ALL": "C.UTF-8", "TZ": "UTC", "COLUMNS": "100"}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    key = {"ANTHROPIC_API_KEY": "x", "ANTHROPIC_BASE_URL": fake_api}
    return Shell(tmp_path, {"PATH": path, "HOME": str(folder), **terminal, **key})


@pytest.mark.parametrize("page", WITH_COMMANDS)
def test_the_commands_of_a_page_run_in_their_order(page, shell):
    for command in commands_of(PAGES[page]):
        output = shell.run(command.line)
        assert shell.code == 0, f"{command.line}\n{output}"
        assert "Traceback" not in output
        assert command.shown is None or is_as_shown(output, command.shown), f"{command.line}\n{output}"


def test_pages_with_commands_are_found():
    assert "docs/using.md" in WITH_COMMANDS
    assert len(commands_of(PAGES["docs/using.md"])) >= 10


@pytest.mark.parametrize("page", PAGES)
def test_every_block_is_run_or_has_a_known_data_format(page):
    opened = re.findall(r"^ *```(.+)$", PAGES[page], re.MULTILINE)
    closed = re.findall(r"^ *```$", PAGES[page], re.MULTILINE)
    assert len(opened) == len(closed), "each block says what it is"
    for kind in opened:
        language, _, title = kind.partition(" ")
        assert language in FENCES | DATA, f"{language}: what is it, and who runs it?"
        assert not title or page in ELSEWHERE, "a file that is shown is tried where its page is followed"


def test_the_shell_shows_failures(shell):
    assert "No such command" in shell.run("chathistory lisst")
    assert shell.code == 2
    assert shell.run("echo one; echo two") == "one\ntwo"
    assert not is_as_shown("one\ntwo", "one")
    assert is_as_shown("one\ntwo\nthree", "one\n...\nthree")
    shell.run("export CHATHISTORY_STORE=file:./x")
    assert shell.run("echo $CHATHISTORY_STORE") == "file:./x"


def test_commands_are_found_in_their_order():
    page = "    chathistory list   # all\n\n```console\n$ echo 1\n1\n$ echo 2\n```\n\n    chathistory show x\n"
    assert commands_of(page) == [
        Command("chathistory list   # all"),
        Command("echo 1", "1"),
        Command("echo 2"),
        Command("chathistory show x"),
    ]
    assert commands_of(f"<!-- shown, not run: it stays -->\n\n{CONSOLE.search(page)[0]}\n") == []
    assert commands_of("<!-- shown, not run: it is yours -->\n\n    chathistory show x\n") == []
    assert commands_of("\n\n    pip install x\n    chathistory show x\n\n") == []
