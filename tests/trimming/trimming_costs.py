"""A long chat with tools and thinking, made up but always the same, and what its requests cost under different cuts.

For the tests, small, and for the benchmark, large. Each reply thinks; every eighth turn calls two tools at once, every
sixteenth twice. Within a turn even a window that slides stands still, so that tools make it look better than it is:
`at_turns` counts only the requests that open a turn.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from uuid import uuid4

import anthropic
from chathistory_memory import MemoryStore

from chathistory import ChatEngine, Conversation, History, open_store
from chathistory.log import conversation_log
from chathistory.testing import FakeMessagesAPI
from chathistory.testing.fake_api import Recorded

MODEL = "claude-sonnet-5-5"
SYSTEM = "You help with the accounts of a small shop. " * 20
TOOLS = [{"name": "look_up", "description": "Look up a bill.", "input_schema": {"type": "object"}}]
THOUGHT = {"type": "thinking", "thinking": "", "signature": ""}
MESSAGES = "/v1/messages"

Message = dict
Cut = Callable[[list[Message]], list[Message]]


def question(number: int) -> str:
    return f"Question {number}: " + "what about the bill of the third supplier? " * (6 + number % 9)


def reply(body) -> list[dict]:
    """Answer a question, or call tools for it first: what the number of the question says."""
    said = [message["content"] for message in body["messages"] if isinstance(message["content"], str)]
    number = int(said[-1].split(":")[0].split()[1])
    last = body["messages"][-1]["content"]
    rounds = (number % 8 == 7) + (number % 16 == 15)
    done = 0
    for message in reversed(body["messages"]):
        if isinstance(message["content"], str) and message["role"] == "user":
            break
        done += message["role"] == "assistant"
    if done < rounds:
        calls = [{"type": "tool_use", "name": "look_up", "input": {"bill": each}} for each in (number, done)]
        return [THOUGHT, {"type": "text", "text": "Let me look."}, *calls]
    words = "The bill was paid in full at the end of the month. " * (24 + number % 20)
    return [THOUGHT, {"type": "text", "text": f"On {len(last)}: {words}"}]


def results(calls: Iterable[Message]) -> list[dict]:
    """Return what the tools give back."""
    paper = "supplier 3; 1,204.50; due on the 30th; paid. " * 40
    return [{"type": "tool_result", "tool_use_id": call["id"], "content": paper} for call in calls]


def held(turns: int, policy=None, *, engine_on=None) -> FakeMessagesAPI:
    """Hold the chat through an engine; return the stand-in with all requests."""
    api = FakeMessagesAPI(reply)
    store = engine_on or open_store(f"memory:{uuid4().hex}")
    engine = ChatEngine(api.client(), store, model=MODEL, system=SYSTEM, tools=TOOLS, trimming=policy)
    for number in range(turns):
        answer = engine.send("chat", question(number))
        while answer.tool_calls:
            answer = engine.send("chat", results(answer.tool_calls))
    return api


@dataclass
class Bill:
    """What requests cost: tokens of input, how many of them came from the cache; and which rules refused how many.

    at_turns: the same for requests that open a turn only.
    """

    requests: int = 0
    largest: int = 0
    tokens: Counter = field(default_factory=Counter)
    refused: Counter = field(default_factory=Counter)

    @classmethod
    def of(cls, requests: Iterable[Recorded]) -> Bill:
        bill = cls()
        for request in requests:
            bill.requests += 1
            if request.rule:
                bill.refused[request.rule] += 1
                continue
            usage = request.reply["usage"]
            read = usage["cache_read_input_tokens"]
            whole = read + usage["input_tokens"] + usage["cache_creation_input_tokens"]
            bill.largest = max(bill.largest, whole)
            bill.tokens += Counter(all=whole, read=read)
            if isinstance(request.body["messages"][-1]["content"], str):
                bill.tokens += Counter(opening=whole, opening_read=read)
        return bill

    @property
    def share(self) -> float:
        return self.tokens["read"] / max(1, self.tokens["all"])

    @property
    def at_turns(self) -> float:
        return self.tokens["opening_read"] / max(1, self.tokens["opening"])


def replayed(requests: Sequence[Recorded], cut: Cut) -> Bill:
    """Send the messages of each request again, as `cut` leaves them; an empty list counts as refused."""
    api = FakeMessagesAPI("fine")
    client = api.client()
    empty = 0
    for request in requests:
        messages = cut(request.body["messages"])
        if not messages:
            empty += 1
            continue
        try:
            client.messages.create(**request.body | {"messages": messages})
        except anthropic.BadRequestError:
            continue  # counted by what the stand-in noted
    bill = Bill.of(api.requests)
    bill.refused += Counter({"nothing is left": empty})
    bill.requests += empty
    return bill


def cuts_in(requests: Sequence[Recorded]) -> list[list[Recorded]]:
    """Return the requests in runs between cuts: a cut shows in that another message is the first."""
    runs: list[list[Recorded]] = []
    for request in requests:
        if runs and runs[-1][0].body["messages"][0] == request.body["messages"][0]:
            runs[-1].append(request)
        else:
            runs.append([request])
    return runs


def tokens_of(message: Message) -> int:
    """Return about how many tokens a message has, as the stand-in counts."""
    return len(str(message)) // 4


class Counted(MemoryStore):
    """A store that notes how many records each read gave."""

    def __init__(self) -> None:
        super().__init__()
        self.reads: list[int] = []

    def read(self, key, **more):
        found = super().read(key, **more)
        self.reads.append(len(found.records) if found else 0)
        return found


def long_chat(store, messages: int, *, kept: int, name: str = "long") -> Conversation:
    """Make a conversation of which a cut leaves the last `kept` messages to be sent."""
    from chathistory.trimming import LastTurns

    chat = History(store).conversation(name)
    words = "The quick brown fox jumps over the lazy dog. " * 8
    turn = [{"role": "user", "content": words}, {"role": "assistant", "content": [{"type": "text", "text": words}]}]
    for _ in range(messages // 1000):
        chat.append(turn * 500)
    if messages % 1000:
        chat.append(turn * (messages % 1000 // 2))
    if kept < messages:
        assert chat.trim(LastTurns(kept // 2, kept // 2)) is not None
    return chat


def seen_anew(store, name: str = "long") -> Conversation:
    """Return a conversation as a process sees it that knows nothing of it."""
    conversation_log._local_states.clear()
    return History(store).conversation(name)
