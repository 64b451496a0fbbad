"""Whatever a reply is, and whenever the store fails: what was paid for or done is in the store or on the error.

Made are replies that no API was ever seen to give, and stores that fail at any append, for good or for a while.
`python tests/engine/test_engine_nothing_lost_random.py 2000` runs more cases.
"""

from __future__ import annotations

import itertools
import json
import random
import sys
from uuid import uuid4

import anthropic
import pytest
from faulty_stores import FaultyStore

from chathistory import ChatEngine, History, open_store
from chathistory.engine import turn
from chathistory.errors import ChatHistoryError, InvalidInput, OrphanedReply, StoreRejected, StoreUnavailable
from chathistory.testing import FakeMessagesAPI
from chathistory.testing.fake_api import Raw, Reply

pytestmark = pytest.mark.repeated

MODEL = "claude-sonnet-5-5"
SEND, STREAM, TOOLS = range(3)


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch):
    monkeypatch.setattr(turn, "RETRY_DELAYS", (0, 0, 0))


class World:
    """A conversation, the tool that is run for it, and what goes wrong."""

    def __init__(self, seed):
        self.rng = random.Random(seed)
        self.name = uuid4().hex
        self.store = FaultyStore(self.name)
        self.numbers = itertools.count()
        self.ran = []
        self.results = []
        self.api = FakeMessagesAPI(self.reply)
        self.given = []
        self.way = SEND
        self.engine = self.open_store()

    def mark(self, kind):
        return f"{kind}{next(self.numbers):06d}"

    def open_store(self):
        return ChatEngine(self.api.client(), self.store, model=MODEL, tools=[self.pay().to_dict()])

    # What comes.

    def value(self, depth=0):
        rng = self.rng
        kinds = ["text", "number", "null", *(["list", "object", "deep"] if depth < 3 else [])]
        match rng.choice(kinds):
            case "text":
                return rng.choice(["x", "", "\u2028", "é", "a.b$c", "\x00"])
            case "number":
                return rng.choice([0, -1, 10**30, 1.5, 2**64])
            case "null":
                return rng.choice([None, True, False])
            case "list":
                return [self.value(depth + 1) for _ in range(rng.randrange(3))]
            case "object":
                return {rng.choice(["a", "type", "", "data", "$x"]): self.value(depth + 1) for _ in range(2)}
        inner = self.value(3)
        for _ in range(rng.choice([5, 150, 199, 201, 400, 800])):
            inner = rng.choice([[inner], {"a": inner}])
        return inner

    def reply(self, _):
        words = {"type": "text", "text": self.mark("said")}
        self.given.append(words["text"])
        calls = [
            {"type": "tool_use", "id": self.mark("toolu_"), "name": "pay", "input": {"amount": 1}}
            for _ in range(self.rng.choice([0, 1, 2]))
        ]
        awkward = self.rng.choice([None, None, "input", "id", *(["infinite"] if self.way != STREAM else [])])
        if awkward is None:
            return Reply(content=[words, *calls])
        block = {"type": "tool_use", "id": self.mark("toolu_"), "name": "pay", "input": {"x": self.value()}}
        if awkward == "id":
            block["id"] = None
        if awkward in ("id", "input"):
            return Reply(content=[words, block])
        body = {"id": "msg_1", "type": "message", "role": "assistant", "model": MODEL, "content": [words, block]}
        body |= {"stop_reason": "tool_use", "usage": {"input_tokens": 3, "output_tokens": 4}}
        text = json.dumps(body)
        if awkward == "infinite":
            text = text.replace(
                '"output_tokens": 4', f'"output_tokens": 4, "x": {self.rng.choice(["1e999", "-1e999"])}'
            )
        return Raw(text, content_type="application/json")

    # What goes wrong.

    def faults(self):
        """Yield faults of the appends to come, endlessly; most do nothing."""
        rng = self.rng
        while True:
            yield None
            if rng.random() < 0.25:
                yield from [rng.choice([self.lost, self.landed, self.refused])] * rng.choice([1, 2, 4, 20])

    @staticmethod
    def lost(_):
        raise StoreUnavailable("gone", outcome="not stored")

    @staticmethod
    def landed(call):
        call()
        raise StoreUnavailable("gone")

    @staticmethod
    def refused(_):
        raise StoreRejected("full")

    # What is done.

    def pay(self):
        world = self

        @anthropic.beta_tool
        def pay(amount: int) -> str:
            """Pay an amount."""
            world.ran.append(amount)
            result = world.mark("paid")
            world.results.append(result)
            return result

        return pay

    def turn(self, content):
        self.way = self.rng.choice([SEND, STREAM, TOOLS])
        if self.way == SEND:
            return self.engine.send("a", content).text
        if self.way == STREAM:
            with self.engine.stream("a", content) as stream:
                return stream.get_final_reply().text
        return self.engine.run_tools("a", content, tools=[self.pay()]).text

    def stored(self):
        chat = History(open_store(f"memory:{self.name}")).conversation("a")
        return "\n".join(json.dumps([entry.kind, entry.message, entry.data]) for entry in chat.entries())


def played(seed):
    """Hold a conversation in which things go wrong; return how often."""
    world = World(seed)
    world.store.on_append = world.faults()
    troubles = []
    for _ in range(world.rng.randrange(1, 6)):
        before, ran = len(world.given), len(world.results)
        try:
            world.turn(world.mark("asked"))
        except ChatHistoryError as error:
            troubles.append(error)
            check_kept(world, error, world.given[before:], world.results[ran:])
        else:
            check_kept(world, None, world.given[before:], world.results[ran:])
    world.store.clear_faults()
    world.api = FakeMessagesAPI("fine")
    engine = world.open_store()
    engine.abandon("a")
    assert engine.send("a", "And now?").text == "fine"
    return len(troubles)


def check_kept(world, error, given, results):
    """All that was paid for or done since is stored, or on the error."""
    stored = world.stored()
    reply = error.reply.text if error is not None and error.reply else ""
    for text in given:
        assert text in stored or text in reply, "a paid reply is lost"
    handed = str(error.results) if error is not None else ""
    for result in results:
        assert result in stored or result in handed, "what a tool did is lost"
    for text in (*given, *results):
        lines = [line for line in stored.split("\n") if text in line and not line.startswith('["reply_orphaned"')]
        assert len(lines) <= 1, "something is stored twice"
    if error is not None:
        assert isinstance(error, InvalidInput | OrphanedReply | StoreUnavailable | StoreRejected)
        assert all(text not in str(error) for text in (*given, *results))


@pytest.mark.parametrize("start", range(0, 120, 20))
def test_nothing_that_was_paid_for_or_done_is_lost(start):
    assert sum(played(seed) for seed in range(start, start + 20)) > 0


if __name__ == "__main__":
    turn.RETRY_DELAYS = (0, 0, 0)
    count = int(sys.argv[1])
    found = [played(seed) for seed in range(10_000, 10_000 + count)]
    print(count, "cases;", sum(map(bool, found)), "with trouble")  # noqa: T201
