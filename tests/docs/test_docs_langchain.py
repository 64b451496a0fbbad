"""The page on LangChain is right about its histories: tried with LangChain itself, in a virtual environment."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pymongo
import pytest
import redis
from mongodb_servers import standalone
from redis_servers import Server

from chathistory import History, open_store
from chathistory.testing import FakeMessagesAPI

PAGE = (Path(__file__).parents[2] / "docs" / "coming-from.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
FUNCTION = next(block for block in BLOCKS if "from_langchain" in block)
READERS = next(block for block in BLOCKS if "def read_redis_history" in block)
SESSION = "support/42"
HISTORY = """
import json, sys
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage, messages_to_dict
call = {"name": "sun", "type": "tool_call"}
cities = [call | {"args": {"city": city}, "id": f"toolu_{city}"} for city in ("Oslo", "Rome")]
content_blocks = [{"type": "text", "text": "I look."}] + [
    {"type": "tool_use", "id": call["id"] + "2", "name": "sun", "input": call["args"], "index": 1} for call in cities
]
messages = [
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
]
print(json.dumps(messages_to_dict(messages)))
if sys.argv[1:]:
    from langchain_community.chat_message_histories import FileChatMessageHistory, RedisChatMessageHistory
    from langchain_mongodb import MongoDBChatMessageHistory
    session, file, redis_url, mongodb_url = sys.argv[1:]
    FileChatMessageHistory(file).add_messages(messages)
    RedisChatMessageHistory(session, redis_url).add_messages(messages)
    MongoDBChatMessageHistory(mongodb_url, session).add_messages(messages)
"""


def page_functions(block: str) -> dict:
    """Return the names that a block of the page defines."""
    names: dict = {"History": History, "store": open_store("memory:"), "old": [None], "json": json, "Path": Path}
    exec(compile(block.partition("\nstored = ")[0], "docs/coming-from.md", "exec"), names)
    return names


def run_langchain(environment: Path, packages: list[str], *arguments: str) -> list:
    """Install packages of LangChain into a virtual environment, run `HISTORY` there, and return the messages."""
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    subprocess.run([environment / "bin" / "pip", "install", "--quiet", *packages], check=True)
    process = subprocess.run(
        [environment / "bin" / "python", "-W", "ignore", "-c", HISTORY, *arguments],
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(process.stdout)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    return run_langchain(tmp_path_factory.mktemp("langchain"), ["langchain-core>=0.3"])


def test_the_redis_history_is_read_with_its_oldest_message_first():
    messages = [{"type": "human", "data": {"content": str(number)}} for number in range(3)]
    with Server() as server, redis.Redis(port=server.port) as client:
        for message in messages:
            client.lpush(f"message_store:{SESSION}", json.dumps(message))  # as `RedisChatMessageHistory` does
        assert page_functions(READERS)["read_redis_history"](client, SESSION) == messages
        assert page_functions(READERS)["read_redis_history"](client, "another") == []


@pytest.mark.stress
def test_the_histories_of_langchain_are_read_in_their_order(tmp_path):
    packages = ["langchain-core>=0.3", "langchain-community", "langchain-mongodb", "redis"]
    with Server() as redis_server, standalone() as mongod:
        redis_url, mongodb_url = f"redis://127.0.0.1:{redis_server.port}", f"mongodb://{mongod.address}"
        arguments = (SESSION, str(tmp_path / "history.json"), redis_url, mongodb_url)
        messages = run_langchain(tmp_path / "environment", packages, *arguments)
        readers = page_functions(READERS)
        assert len(messages) == 11
        assert readers["read_file_history"](tmp_path / "history.json") == messages
        with redis.Redis.from_url(redis_url) as client:
            assert readers["read_redis_history"](client, SESSION) == messages
        with pymongo.MongoClient(mongodb_url) as client:
            assert readers["read_mongodb_history"](client, SESSION) == messages


@pytest.mark.stress
def test_a_history_of_langchain_becomes_a_conversation_that_can_be_sent(stored):
    names = page_functions(FUNCTION)
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
    system, messages = page_functions(FUNCTION)["from_langchain"](stored)
    tool = {"name": "sun", "input_schema": {"type": "object"}}
    FakeMessagesAPI().client().messages.create(
        model="claude-sonnet-5-5",
        max_tokens=100,
        system=system,
        tools=[tool],
        messages=[*messages, {"role": "user", "content": "Thanks."}],
    )
