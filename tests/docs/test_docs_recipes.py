"""Statements of the recipes that their own examples do not show."""

from __future__ import annotations

import logging
import os
import re
import sys
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path

import anthropic
import pytest
from docs_shell import CONSOLE, Shell
from moto.server import ThreadedMotoServer

from chathistory import ChatEngine, Key, errors
from chathistory.testing import FakeMessagesAPI
from chathistory.testing.fake_api import Failure

RECIPES = Path(__file__).parents[2] / "docs" / "recipes"
SECRET = "a message that no log may show"


@pytest.fixture
def lines(caplog):
    """The records of all loggers while somebody talks, is refused, deletes and lists."""
    caplog.set_level(logging.DEBUG)
    api = FakeMessagesAPI(
        [f"I say {SECRET}", Failure(400, message="messages.0.content: could not process image"), "Yes"]
    )
    engine = ChatEngine(api.client(), "memory:", model="claude-sonnet-5-5")
    reply = engine.send("support/42", SECRET)
    with pytest.raises(Exception, match="could not process image"):
        engine.send("support/42", f"Again {SECRET}")
    with engine.stream("support/42", f"Stream {SECRET}") as stream:
        logging.getLogger("shop").info("%r %r %r", reply, stream.get_final_reply(), engine.history.list().items)
    engine.history.delete("support/42")
    return caplog.records


def test_the_library_writes_no_log_lines(lines):
    assert "shop" in {record.name for record in lines}
    assert not [record for record in lines if record.name.partition(".")[0] == "chathistory"]


def test_no_message_text_is_logged_at_info(lines):
    shown = [record for record in lines if record.levelno >= logging.INFO]
    assert shown
    assert not [record for record in shown if SECRET in record.getMessage()]


def test_the_sdk_logs_messages_at_debug_as_the_recipe_warns(lines):
    assert {record.name.partition(".")[0] for record in lines if SECRET in record.getMessage()} == {"anthropic"}


@pytest.mark.parametrize("page", [RECIPES / "streaming.md", RECIPES.parent / "tutorial.md"], ids=lambda page: page.stem)
@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.TurnInProgress(Key("ada", "tea"), "t1", datetime(2026, 1, 1, tzinfo=UTC)), 409),
        (errors.TurnMismatch(""), 409),
        (errors.TurnError(""), 409),
        (errors.Conflict(Key("ada", "tea"), None), 409),
        (errors.TurnRefused(""), 400),
        (errors.TurnTooLarge(2, 1), 400),
        (errors.InvalidInput(""), 400),
        (errors.StoreUnavailable(""), 503),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_the_status_of_each_error_is_the_one_that_the_page_gives(page, error, status):
    [function] = re.findall(r"^def describe_failure\(error\):\n(?:    .*\n)+", page.read_text(), re.MULTILINE)
    names = {"errors": errors, "anthropic": anthropic}
    exec(function, names)
    assert names["describe_failure"](error)[0] == status


@pytest.mark.parametrize(("name", "row"), [("file", "file"), ("redis", "Redis"), ("mongodb", "MongoDB"), ("s3", "S3")])
def test_what_a_delete_does_not_reach_is_what_the_backend_says(name, row):
    module = import_module(f"chathistory_{name}.store")
    [store] = [each for each in vars(module).values() if isinstance(each, type) and each.__module__ == module.__name__]
    [line] = [line for line in (RECIPES / "delete.md").read_text().splitlines() if line.startswith(f"| [{row}]")]
    assert line.split(" | ")[1] == ", ".join(store.traits.not_reached)


def test_the_commands_of_the_recipe_on_s3_run(tmp_path):
    block = CONSOLE.search((RECIPES / "local-s3.md").read_text())
    install, start, *commands = block[2].splitlines()
    assert install.startswith("$ pip install ")
    assert start == "$ moto_server -p 5000 &"
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        shell = Shell(tmp_path, {"PATH": path, "HOME": str(tmp_path), "LC_ALL": "C.UTF-8", "TERM": "dumb"})
        for line in commands:
            output = shell.run(line.removeprefix("$ ").replace(":5000", f":{server.get_host_and_port()[1]}"))
            assert shell.code == 0, f"{line}\n{output}"
    finally:
        server.stop()
    assert output.split()[-1] == "Hello"
