"""`list`, `show`, `delete`, `backends`."""

from __future__ import annotations

import json
import os
import re
from datetime import UTC, datetime

import pytest

from chathistory import ChatEngine
from chathistory.testing import FakeMessagesAPI

EVIL = "x\x1b]0;owned\x07\x9b2J\u202e\r[bold]y[/bold] :smile:"
TOOLS = [
    {"role": "user", "content": "weather?"},
    {
        "role": "assistant",
        "content": [
            {"type": "thinking", "thinking": "a secret thought", "signature": "s"},
            {"type": "text", "text": "Let me look."},
            {"type": "tool_use", "id": "t1", "name": "weather", "input": {"city": "Basel"}},
        ],
    },
    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "rain", "is_error": False}]},
    {"role": "assistant", "content": "It rains."},
]


@pytest.fixture
def filled(open_history, store):
    """Three conversations: one with tools, one with an interrupted reply, one with hostile text."""
    with open_history() as history:
        tools = history.conversation("tools")
        tools.append(TOOLS)
        tools.annotate(title="The weather", tags=["a", "b"])
        engine = ChatEngine(FakeMessagesAPI("one two three").client(), history, model="claude-sonnet-5-5")
        with engine.stream("broken", "count") as stream:
            next(iter(stream))
        evil = history.conversation("evil")
        evil.append([{"role": "user", "content": EVIL}, {"role": "assistant", "content": EVIL + "\ud800"}])
        evil.annotate(title=f"{EVIL}\n\tz")
    return store


def test_a_list_for_programs_is_tabs_or_json(run, filled):
    rows = [line.split("\t") for line in run("list", "--store", filled).stdout.splitlines()]
    assert [row[0] for row in rows] == ["evil", "broken", "tools"]
    assert all(len(row) == 6 for row in rows)
    assert rows[2][1] == "4"
    assert rows[2][4:] == ["a,b", "The weather"]
    found = [json.loads(line) for line in run("list", "--store", filled, "--json").stdout.splitlines()]
    assert found[2]["tags"] == ["a", "b"]
    assert found[1]["preview"] == "count"
    assert found[0]["title"] == f"{EVIL}\n\tz"


def test_pages_follow_each_other_by_the_cursor_that_is_shown(run, filled):
    seen, words = [], ["list", "--store", filled, "--limit", "2"]
    while words:
        done = run(*words)
        seen += [line.split("\t")[0] for line in done.stdout.splitlines()]
        words = done.stderr.split()[2:]
        assert done.stderr == "" or done.stderr.startswith("more: chathistory list --limit 2 --after ")
    assert seen == ["evil", "broken", "tools"]


def test_a_list_in_a_terminal_is_a_table_that_cuts_no_id(terminal, filled, open_history):
    name = "".join(f"{number:03}" for number in range(85))
    with open_history() as history:
        history.conversation(name).append({"role": "user", "content": "long " * 50})
    screen = terminal("list", "--store", filled)
    assert screen.end() == 0
    for words in ("MESSAGES", "UPDATED", "The weather", "a,b", "…"):
        assert words in screen.seen
    assert re.search("just now|minutes? ago", screen.seen)
    digits = "".join(line[:28] for line in screen.seen.splitlines() if line[:3].isdigit())
    assert digits.replace(" ", "") == name


@pytest.mark.parametrize("command", [["list"], ["show", "evil"], ["show", "evil", "--json"], ["list", "--json"]])
def test_stored_text_cannot_drive_the_terminal(terminal, filled, command):
    screen = terminal(*command, "--store", filled, NO_COLOR="1")
    assert screen.end() == 0
    for bad in ("\x1b]", "\x07", "\x9b", "\u202e", "\r["):
        assert bad not in screen.seen
    assert "[bold]y[/bold] :smile:" in screen.seen


def test_show_tells_who_said_what(run, filled):
    shown = run("show", "tools", "--store", filled).stdout
    for words in ("you  ", "weather?", "[thinking, hidden]", '[calls weather: {"city": "Basel"}]', "[result: rain]"):
        assert words in shown
    assert "secret" not in shown
    assert shown.index("Let me look.") < shown.index("It rains.")
    assert run("show", "tools", "--store", filled, "--last", "1").stdout.count("rain") == 1


def test_show_marks_what_is_not_sent(run, filled):
    assert "(interrupted, not sent)\none\n" in run("show", "broken", "--store", filled).stdout


def test_show_as_json_is_exact(run, open_history, filled):
    rows = [json.loads(line) for line in run("show", "evil", "--store", filled, "--json").stdout.splitlines()]
    with open_history() as history:
        stored = list(history.conversation("evil").entries())
    assert [row["message"] for row in rows] == [entry.message for entry in stored]
    assert [row["kind"] for row in rows] == ["message", "message", "annotation"]
    last = run("show", "evil", "--store", filled, "--json", "--last", "1").stdout
    assert [json.loads(line) for line in last.splitlines()] == rows[-1:]


def test_show_as_messages_is_what_would_be_sent(run, filled):
    sent = [json.loads(line) for line in run("show", "broken", "--store", filled, "--messages").stdout.splitlines()]
    assert sent == [{"role": "user", "content": "count"}]


def test_delete_asks_in_a_terminal(terminal, run, filled):
    screen = terminal("delete", "tools", "--store", filled)
    screen.expect("Delete tools (4 messages) permanently? [y/N]")
    screen.type("n\r")
    assert screen.end() != 0
    assert run("show", "tools", "--store", filled).returncode == 0
    screen = terminal("delete", "tools", "--store", filled)
    screen.expect("[y/N]")
    screen.type("y\r")
    screen.expect("deleted 1 conversation: 4 messages, 5 records")
    assert screen.end() == 0
    assert run("show", "tools", "--store", filled).returncode == 1


def test_delete_elsewhere_needs_yes(run, filled):
    refused = run("delete", "tools", "--store", filled)
    assert refused.returncode == 2
    assert "--yes" in refused.stderr
    done = run("delete", "tools", "--yes", "--store", filled)
    assert done.stderr == "deleted 1 conversation: 4 messages, 5 records\n"
    assert [line.split("\t")[:3] for line in done.stdout.splitlines()] == [["tools", "4", "5"]]
    again = run("delete", "tools", "--yes", "--store", filled)
    assert again.returncode == 1
    assert "there is no conversation tools" in again.stderr


def test_an_unknown_id_brings_the_near_ones(run, filled):
    done = run("show", "tolos", "--store", filled)
    assert done.returncode == 1
    assert "did you mean tools?" in done.stderr


def test_an_empty_list_says_how_to_begin(run):
    done = run("list")
    assert (done.returncode, done.stdout) == (0, "")
    assert "create one with: chathistory chat" in done.stderr


def test_backends_tells_what_works(run):
    rows = [line.split("\t") for line in run("backends").stdout.splitlines()]
    assert ["file:", "chathistory", "works"] in rows
    assert ["memory:", "chathistory", "works"] in rows


def test_a_last_turn_without_a_reply_is_listed_with_its_process(run, filled):
    [fields] = [line.split("\t") for line in run("list", "--open", "--store", filled).stdout.splitlines()]
    assert (fields[0], fields[5], fields[8]) == ("broken", "interrupted", "count")
    assert datetime.fromisoformat(fields[6]) <= datetime.now(UTC)
    assert fields[7] == f"{os.uname().nodename}/{os.getpid()}"
    everything = run("list", "--store", filled).stdout.splitlines()
    assert {len(line.split("\t")) for line in everything} == {6}
    rows = map(json.loads, run("list", "--json", "--store", filled).stdout.splitlines())
    turns = {row["id"]: row["turn"] for row in rows}
    assert (turns["broken"]["state"], turns["broken"]["pid"], turns["tools"]) == ("interrupted", os.getpid(), None)
    with_open = run("list", "--open", "--limit", "1", "--tag", "a", "--store", filled)
    assert (with_open.stdout, "matches the filters" in with_open.stderr) == ("", True)
