"""What tests of trimming hold conversations with: the engine, on a stand-in whose replies have thinking."""

from __future__ import annotations

import itertools
from uuid import uuid4

from chathistory import ChatEngine, Conversation, History, open_store
from chathistory.testing import FakeMessagesAPI

MODEL = "claude-sonnet-5-5"
THOUGHT = {"type": "thinking", "thinking": "", "signature": ""}
TOOL = {"name": "f", "input_schema": {"type": "object"}}
SEARCH = {"type": "web_search_20250305", "name": "web_search"}
REFUSED = "bound to a different conversation"


def text(words):
    return {"type": "text", "text": words}


def call(**more):
    return {"type": "tool_use", "name": "f", "input": {}, **more}


def result(id, content="done"):
    return {"type": "tool_result", "tool_use_id": id, "content": content}


def search(id):
    return {"type": "server_tool_use", "id": id, "name": "web_search", "input": {"query": "x"}}


def found(id):
    return {"type": "web_search_tool_result", "tool_use_id": id, "content": []}


def thoughtful(body):
    return [THOUGHT, text(f"reply to {len(body['messages'])} messages " + "word " * 40)]


def in_turn(*steps):
    """Make a function of replies that come one after the other, and thoughtful ones behind them."""
    given = itertools.chain(steps, itertools.repeat(None))

    def reply(body):
        step = next(given)
        return thoughtful(body) if step is None else step

    return reply


class Talk:
    """A conversation, the engine that holds it, and the stand-in: that keeps to all rules of the API."""

    def __init__(self, reply=thoughtful, *, summary=None, url=None, **engine):
        self.api = FakeMessagesAPI(reply, summary=summary, smallest_trigger=100)
        self.url = url or f"memory:{uuid4().hex}"
        self.store = open_store(self.url)
        self.engine = self.engine_with(**engine)

    def engine_with(self, **options) -> ChatEngine:
        """Return an engine of another process, on the same store."""
        return ChatEngine(self.api.client(), open_store(self.url), model=MODEL, **options)

    @property
    def chat(self) -> Conversation:
        return History(self.store).conversation("a")

    def say(self, *words, **more):
        """Say one thing after the other; return the last reply."""
        return [self.engine.send("a", each, **more) for each in words][-1]

    def say_many(self, count, size=1, start=0):
        return self.say(*(f"turn {number} " + "x " * size for number in range(start, start + count)))

    @property
    def sent(self):
        """The messages of the newest request."""
        return self.api.requests[-1].body["messages"]

    @property
    def refused(self):
        """The rules that requests broke: none ever should."""
        return [request.rule for request in self.api.requests if request.rule]

    def records(self):
        return list(self.chat.entries())


def words_of(messages):
    """Return the first words of each message."""
    contents = [message["content"] for message in messages]
    texts = [
        content if isinstance(content, str) else next((b["text"] for b in content if b["type"] == "text"), "")
        for content in contents
    ]
    return [" ".join(words.split()[:2]) for words in texts]


def thoughts_in(messages):
    contents = [message["content"] for message in messages if isinstance(message["content"], list)]
    return sum(block["type"] == "thinking" for content in contents for block in content)
