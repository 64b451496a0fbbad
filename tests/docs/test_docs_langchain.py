"""The page on LangChain is right about its histories: tried with LangChain itself, in a virtual environment."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from chathistory import History, open_store
from chathistory.testing import FakeMessagesAPI

PAGE = (Path(__file__).parents[2] / "docs" / "coming-from.md").read_text()
FUNCTION = next(
    block
    for block in re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    if "from_langchain" in block
)
HISTORY = """
import json
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage, messages_to_dict
call = {"name": "sun", "type": "tool_call"}
cities = [call | {"args": {"city": city}, "id": f"toolu_{city}"} for city in ("Oslo", "Rome")]
content_blocks = [{"type": "text", "text": "I look."}] + [
    {"type": "tool_use", "id": call["id"] + "2", "name": "sun", "input": call["args"], "index": 1} for call in cities
]
print(json.dumps(messages_to_dict([
    SystemMessage("You are brief."),
    HumanMessage("Sun in Oslo and Rome?"),
    AIMessage("", tool_calls=cities),
    ToolMessage("Yes.", tool_call_id="toolu_Oslo"),
    ToolMessage("It broke.", tool_call_id="toolu_Rome", status="error"),
    AIMessage("In Oslo."),
    HumanMessage("Again."),
    AIMessage(content_blocks, tool_calls=[call | {"id": call["id"] + "2"} for call in cities]),
    ToolMessage("Yes.", tool_call_id="toolu_Oslo2"),
    ToolMessage("Yes.", tool_call_id="toolu_Rome2"),
    AIMessage([{"type": "text", "text": "In both."}]),
])))
"""


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    environment = tmp_path_factory.mktemp("langchain")
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    subprocess.run([environment / "bin" / "pip", "install", "--quiet", "langchain-core>=0.3"], check=True)
    process = subprocess.run(
        [environment / "bin" / "python", "-c", HISTORY], capture_output=True, text=True, check=True
    )
    return json.loads(process.stdout)


@pytest.mark.stress
def test_a_history_of_langchain_becomes_a_conversation_that_can_be_sent(stored):
    names: dict = {"History": History, "store": open_store("memory:"), "old": [None]}
    exec(compile(FUNCTION.split("\nstored = ")[0], "docs/coming-from.md", "exec"), names)
    system, messages = names["from_langchain"](stored)
    chat = History(names["store"]).conversation("taken-over")
    chat.append(messages)
    assert system == "You are brief."
    assert [message["role"] for message in messages] == ["user", "assistant"] * 4
    assert chat.view().report.repairs == ()
    assert chat.messages() == messages
    results = messages[2]["content"]
    assert [(each["tool_use_id"], each.get("is_error", False)) for each in results] == [
        ("toolu_Oslo", False),
        ("toolu_Rome", True),
    ]
    assert [block["type"] for block in messages[5]["content"]] == ["text", "tool_use", "tool_use"]
    assert "index" not in json.dumps(messages)


@pytest.mark.stress
def test_the_api_takes_it(stored):
    names: dict = {}
    exec(compile(FUNCTION.split("\nstored = ")[0], "docs/coming-from.md", "exec"), names)
    system, messages = names["from_langchain"](stored)
    tool = {"name": "sun", "input_schema": {"type": "object"}}
    FakeMessagesAPI().client().messages.create(
        model="claude-sonnet-5-5",
        max_tokens=100,
        system=system,
        tools=[tool],
        messages=[*messages, {"role": "user", "content": "Thanks."}],
    )
