"""Send turns to the fake API through an engine, and inspect the requests."""

from __future__ import annotations

from itertools import pairwise

from chathistory import ChatEngine
from chathistory.testing import FakeMessagesAPI

MODEL = "claude-sonnet-5-5"
THOUGHT = {"type": "thinking", "thinking": "hm", "signature": ""}


def answer(_body=None, words: str = "answer") -> list[dict]:
    return [THOUGHT, {"type": "text", "text": f"{words} " * 40}]


def send_questions(engine: ChatEngine, turns: int, name: str = "a", *, first: int = 0) -> None:
    for number in range(first, first + turns):
        engine.send(name, f"question {number} " + "word " * 20)


def sent_messages(api: FakeMessagesAPI) -> list[list[dict]]:
    """Return the messages of each request that was answered, except requests for a compaction."""
    return [
        request.body["messages"]
        for request in api.requests
        if request.status == 200 and "compaction" not in request.body
    ]


def count_new_prefixes(requests: list[list[dict]]) -> int:
    """Return the number of requests that do not extend the one before, character for character."""
    return sum(later[: len(earlier)] != earlier for earlier, later in pairwise(requests))


def list_refusals(api: FakeMessagesAPI) -> list[str]:
    """Return the broken rule and the status of each request that was not answered."""
    return [f"{request.rule}: {request.status}" for request in api.requests if request.status != 200]
