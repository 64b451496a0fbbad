"""A long chat with tools and thinking, always the same, and what its requests cost with different cuts.

The tests use a short one, the benchmark a long one. Each reply has thinking. Every eighth turn calls two tools at once,
every sixteenth turn does so twice. Within a turn even a sliding window does not move, so that tools make it look better
than it is: `at_turns` counts only the requests that open a turn.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from uuid import uuid4

import anthropic
from chathistory_memory import MemoryStore

from chathistory import ChatEngine, Conversation, History, open_store
from chathistory.log import local_state
from chathistory.testing import FakeMessagesAPI
from chathistory.testing.fake_api import Recorded

MODEL = "claude-sonnet-5-5"
SYSTEM = "You help with the accounts of a small shop. " * 20
TOOLS = [{"name": "look_up", "description": "Look up a costs.", "input_schema": {"type": "object"}}]
THOUGHT = {"type": "thinking", "thinking": "", "signature": ""}
MESSAGES = "/v1/messages"

Message = dict
Cut = Callable[[list[Message]], list[Message]]


def question(number: int) -> str:
    return f"Question {number}: " + "what about the bill of the third supplier? " * (6 + number % 9)


def reply(body) -> list[dict]:
    """Answer a question, or call tools for it first; the number of the question decides."""
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
    """Return the results of tool calls."""
    paper = "supplier 3; 1,204.50; due on the 30th; paid. " * 40
    return [{"type": "tool_result", "tool_use_id": call["id"], "content": paper} for call in calls]


def run_long_chat(turns: int, policy=None, *, engine_on=None) -> FakeMessagesAPI:
    """Run the chat through an engine, and return the fake API with all requests."""
    api = FakeMessagesAPI(reply)
    store = engine_on or open_store(f"memory:{uuid4().hex}")
    engine = ChatEngine(api.client(), store, model=MODEL, system=SYSTEM, tools=TOOLS, trimming=policy)
    for number in range(turns):
        answer = engine.send("chat", question(number))
        while answer.tool_calls:
            answer = engine.send("chat", results(answer.tool_calls))
    return api


@dataclass
class RequestCosts:
    """The cost of requests.

    Attributes:
        requests: The number of requests.
        largest: The most input tokens of one request.
        tokens: The input tokens ("all"), those read from the cache ("read"), and both for requests that open a turn
            ("at_turns", "read_at_turns").
        refused: The number of refused requests, by the rule that they broke.
    """

    requests: int = 0
    largest: int = 0
    tokens: Counter = field(default_factory=Counter)
    refused: Counter = field(default_factory=Counter)

    @classmethod
    def from_requests(cls, requests: Iterable[Recorded]) -> RequestCosts:
        costs = cls()
        for request in requests:
            costs.requests += 1
            if request.rule:
                costs.refused[request.rule] += 1
                continue
            usage = request.reply["usage"]
            read = usage["cache_read_input_tokens"]
            whole = read + usage["input_tokens"] + usage["cache_creation_input_tokens"]
            costs.largest = max(costs.largest, whole)
            costs.tokens += Counter(all=whole, read=read)
            if isinstance(request.body["messages"][-1]["content"], str):
                costs.tokens += Counter(at_turns=whole, read_at_turns=read)
        return costs

    @property
    def share(self) -> float:
        """The share of input tokens that were read from the cache."""
        return self.tokens["read"] / max(1, self.tokens["all"])

    @property
    def at_turns(self) -> float:
        """The same share, only of requests that open a turn."""
        return self.tokens["read_at_turns"] / max(1, self.tokens["at_turns"])


def replay_requests(requests: Sequence[Recorded], cut: Cut) -> RequestCosts:
    """Send each request again with the messages that `cut` keeps; a request without messages counts as refused."""
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
            continue  # the fake API has recorded it
    costs = RequestCosts.from_requests(api.requests)
    costs.refused += Counter({"nothing is left": empty})
    costs.requests += empty
    return costs


def split_at_cuts(requests: Sequence[Recorded]) -> list[list[Recorded]]:
    """Split requests into the runs between cuts; after a cut, the first message is another one."""
    runs: list[list[Recorded]] = []
    for request in requests:
        if runs and runs[-1][0].body["messages"][0] == request.body["messages"][0]:
            runs[-1].append(request)
        else:
            runs.append([request])
    return runs


def estimate_tokens(message: Message) -> int:
    """Return the estimated tokens of a message, as the fake API counts them."""
    return len(str(message)) // 4


class CountingStore(MemoryStore):
    """A store that records how many records each read returned."""

    def __init__(self) -> None:
        super().__init__()
        self.reads: list[int] = []

    def read(self, key, **more):
        found = super().read(key, **more)
        self.reads.append(len(found.records) if found else 0)
        return found


def store_long_chat(store, messages: int, *, kept: int, name: str = "long") -> Conversation:
    """Store a conversation, cut so that only the last `kept` messages are sent."""
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


def open_without_cache(store, name: str = "long") -> Conversation:
    """Return a conversation as a new process opens it, without any local state."""
    local_state._local_states.clear()
    return History(store).conversation(name)
