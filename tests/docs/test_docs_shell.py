"""The commands on the pages do what the pages say."""

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

pytestmark = pytest.mark.repeated

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
    said = [{"role": "user", "content": "More."}, {"role": "assistant", "content": "Much more."}] * 10
    (tmp_path / "chapter.txt").write_text("It was a dark and stormy night.\n")
    (tmp_path / "messages.json").write_text(json.dumps(said))
    folder = tmp_path / "home"
    with open_store(f"file:{folder}/.local/share/chathistory/history") as store:  # what a reader has said before
        for scope, name in (("default", "thesis"), ("ada", "support/42")):
            History(store).conversation(name, scope=scope).append(said)
    plain = {"TERM": "xterm", "LC_ALL": "C.UTF-8", "TZ": "UTC", "COLUMNS": "100"}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    key = {"ANTHROPIC_API_KEY": "x", "ANTHROPIC_BASE_URL": fake_api}
    return Shell(tmp_path, {"PATH": path, "HOME": str(folder), **plain, **key})


@pytest.mark.timeout(300)  # each command is a process, and a busy machine takes its time
@pytest.mark.parametrize("page", WITH_COMMANDS)
def test_the_commands_of_a_page_run_from_its_top_to_its_end(page, shell):
    for command in commands_of(PAGES[page]):
        seen = shell.run(command.line)
        assert shell.code == 0, f"{command.line}\n{seen}"
        assert "Traceback" not in seen
        assert command.shown is None or is_as_shown(seen, command.shown), f"{command.line}\n{seen}"


def test_there_are_such_pages():
    assert "docs/using.md" in WITH_COMMANDS
    assert len(commands_of(PAGES["docs/using.md"])) >= 10


@pytest.mark.parametrize("page", PAGES)
def test_every_block_is_run_or_is_data(page):
    opened = re.findall(r"^ *```(.+)$", PAGES[page], re.MULTILINE)
    closed = re.findall(r"^ *```$", PAGES[page], re.MULTILINE)
    assert len(opened) == len(closed), "each block says what it is"
    for kind in opened:
        language, _, title = kind.partition(" ")
        assert language in FENCES | DATA, f"{language}: what is it, and who runs it?"
        assert not title or page in ELSEWHERE, "a file that is shown is tried where its page is followed"


def test_the_shell_sees_what_goes_wrong(shell):
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
