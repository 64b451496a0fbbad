"""A conversation with an engine on the fake API, and content blocks for it; its replies have thinking."""

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


def tool_call(**more):
    return {"type": "tool_use", "name": "f", "input": {}, **more}


def tool_result(id, content="done"):
    return {"type": "tool_result", "tool_use_id": id, "content": content}


def search_call(id):
    return {"type": "server_tool_use", "id": id, "name": "web_search", "input": {"query": "x"}}


def search_result(id):
    return {"type": "web_search_tool_result", "tool_use_id": id, "content": []}


def reply_with_thinking(body):
    return [THOUGHT, text(f"reply to {len(body['messages'])} messages " + "word " * 40)]


def reply_in_turn(*steps):
    """Return a reply function that gives these replies in order, and then replies with thinking."""
    replies = itertools.chain(steps, itertools.repeat(None))

    def reply(body):
        step = next(replies)
        return reply_with_thinking(body) if step is None else step

    return reply


class EngineSession:
    """A conversation, its engine, and the fake API, which enforces all rules of the API."""

    def __init__(self, reply=reply_with_thinking, *, summary=None, url=None, **engine):
        self.api = FakeMessagesAPI(reply, summary=summary, smallest_trigger=100)
        self.url = url or f"memory:{uuid4().hex}"
        self.store = open_store(self.url)
        self.engine = self.engine_with(**engine)

    def engine_with(self, **options) -> ChatEngine:
        """Return an engine on the same store, as another process would open it."""
        return ChatEngine(self.api.client(), open_store(self.url), model=MODEL, **options)

    @property
    def chat(self) -> Conversation:
        return History(self.store).conversation("a")

    def send(self, *words, **more):
        """Send several messages in order, and return the last reply."""
        return [self.engine.send("a", each, **more) for each in words][-1]

    def send_many(self, count, size=1, start=0):
        return self.send(*(f"turn {number} " + "x " * size for number in range(start, start + count)))

    @property
    def newest_messages(self):
        """The messages of the newest request."""
        return self.api.requests[-1].body["messages"]

    @property
    def broken_rules(self):
        """The rules that requests broke; always empty if the engine is right."""
        return [request.rule for request in self.api.requests if request.rule]

    def entries(self):
        return list(self.chat.entries())


def first_words(messages):
    """Return the first words of each message."""
    contents = [message["content"] for message in messages]
    texts = [
        content if isinstance(content, str) else next((b["text"] for b in content if b["type"] == "text"), "")
        for content in contents
    ]
    return [" ".join(words.split()[:2]) for words in texts]


def count_thinking(messages):
    contents = [message["content"] for message in messages if isinstance(message["content"], list)]
    return sum(block["type"] == "thinking" for content in contents for block in content)
