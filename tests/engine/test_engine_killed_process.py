"""A process is killed at each step of a turn; another one sees that it is gone, and continues at once."""

from __future__ import annotations

import signal
import subprocess
import sys
from functools import partial

import anthropic
import pytest
from stored_entries import list_entries

from chathistory import ChatEngine, History, open_store
from chathistory.log.process import this_process
from chathistory.testing import FakeMessagesAPI

pytestmark = pytest.mark.wide

MODEL = "claude-sonnet-5-5"
CALL = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "A"}}
CHILD = """
import os, signal, sys
import anthropic
from chathistory import ChatEngine, open_store
from chathistory_file import FileStore

store_url, api_url, fatal, when, tools = sys.argv[1:]
stored, count = FileStore.append, 0

def append(self, *args, **kwargs):
    global count
    count += 1
    if (count, when) == (int(fatal), "before"):
        os.kill(os.getpid(), signal.SIGKILL)
    head = stored(self, *args, **kwargs)
    if (count, when) == (int(fatal), "after"):
        os.kill(os.getpid(), signal.SIGKILL)
    return head

FileStore.append = append

@anthropic.beta_tool
def weather(city: str) -> str:
    '''Tell the weather of a city.'''
    return "sun"

client = anthropic.Anthropic(base_url=api_url, api_key="x")
engine = ChatEngine(client, open_store(store_url), model="claude-sonnet-5-5")
if tools == "tools":
    engine.run_tools("a", "the weather?", tools=[weather], turn_id="T")
else:
    engine.send("a", "the weather?", turn_id="T")
"""


@anthropic.beta_tool
def weather(city: str) -> str:
    """Tell the weather of a city."""
    return "sun"


def reply(body):
    """Call the tool, if there is one and it was not called yet; else reply with text."""
    called = any("tool_use" in str(message["content"]) for message in body["messages"])
    return [CALL] if body.get("tools") and not called else "sunny"


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(("tools", "fatal"), [("none", 1), ("none", 2), *(("tools", n) for n in (1, 2, 3, 4))])
def test_another_process_continues_after_a_kill(tmp_path, tools, fatal, when):
    api, url = FakeMessagesAPI(reply), f"file:{tmp_path}/store"
    with api.serve() as address:
        run = [sys.executable, "-c", CHILD, url, address, str(fatal), when, tools]
        assert subprocess.run(run, timeout=300).returncode == -signal.SIGKILL
    paid = len(api.requests)
    with open_store(url) as store:
        chat = History(store).conversation("a")
        saved = (fatal, when) != (1, "before")
        assert [message["content"] for message in chat.messages()][:1] == ["the weather?"] * saved
        engine = ChatEngine(api.client(), store, model=MODEL)
        done = (fatal, when) == (4 if tools == "tools" else 2, "after")
        if this_process().boot is None:  # on this system, another process cannot see that it is gone
            engine.abandon("a")
        say = partial(engine.run_tools, tools=[weather]) if tools == "tools" else engine.send
        assert say("a", "the weather?", turn_id="T").text == "sunny"
        if done:
            assert len(api.requests) == paid
        texts = [entry.message["content"] for entry in list_entries(chat) if entry.kind == "message"]
        assert texts.count("the weather?") == 1
        assert say("a", "thanks").text == "sunny"  # the conversation can be sent
    api.assert_extends()
