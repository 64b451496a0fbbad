"""Random replies and store faults: each paid reply and each tool result is in the store or on the error.

The replies include some that no API was ever seen to send. The stores fail at any append, for a while or permanently.
More cases: `python tests/engine/test_engine_nothing_lost_random.py 2000`
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

pytestmark = pytest.mark.wide

MODEL = "claude-sonnet-5-5"
SEND, STREAM, TOOLS = range(3)


@pytest.fixture(autouse=True)
def _no_retry_delays(monkeypatch):
    monkeypatch.setattr(turn, "RETRY_DELAYS", (0, 0, 0))


class FaultyConversation:
    """A conversation, its tool, and the faults of its store and its API."""

    def __init__(self, seed):
        self.rng = random.Random(seed)
        self.name = uuid4().hex
        self.store = FaultyStore(self.name)
        self.numbers = itertools.count()
        self.paid_amounts = []
        self.results = []
        self.api = FakeMessagesAPI(self.make_reply)
        self.reply_texts = []
        self.way = SEND
        self.engine = self.make_engine()

    def make_mark(self, kind):
        return f"{kind}{next(self.numbers):06d}"

    def make_engine(self):
        return ChatEngine(self.api.client(), self.store, model=MODEL, tools=[self.make_tool().to_dict()])

    # The replies.

    def make_value(self, depth=0):
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
                return [self.make_value(depth + 1) for _ in range(rng.randrange(3))]
            case "object":
                return {rng.choice(["a", "type", "", "data", "$x"]): self.make_value(depth + 1) for _ in range(2)}
        inner = self.make_value(3)
        for _ in range(rng.choice([5, 150, 199, 201, 400, 800])):
            inner = rng.choice([[inner], {"a": inner}])
        return inner

    def make_reply(self, _):
        words = {"type": "text", "text": self.make_mark("said")}
        self.reply_texts.append(words["text"])
        calls = [
            {"type": "tool_use", "id": self.make_mark("toolu_"), "name": "pay", "input": {"amount": 1}}
            for _ in range(self.rng.choice([0, 1, 2]))
        ]
        awkward = self.rng.choice([None, None, "input", "id", *(["infinite"] if self.way != STREAM else [])])
        if awkward is None:
            return Reply(content=[words, *calls])
        block = {"type": "tool_use", "id": self.make_mark("toolu_"), "name": "pay", "input": {"x": self.make_value()}}
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

    # The faults.

    def faults(self):
        """Yield a fault for each of the next appends, without end; most do nothing."""
        rng = self.rng
        while True:
            yield None
            if rng.random() < 0.25:
                yield from [rng.choice([self.fail_unstored, self.fail_after_storing, self.reject])] * rng.choice(
                    [1, 2, 4, 20]
                )

    @staticmethod
    def fail_unstored(_):
        raise StoreUnavailable("gone", outcome="not stored")

    @staticmethod
    def fail_after_storing(call):
        call()
        raise StoreUnavailable("gone")

    @staticmethod
    def reject(_):
        raise StoreRejected("full")

    # The turns.

    def make_tool(self):
        session = self

        @anthropic.beta_tool
        def pay(amount: int) -> str:
            """Pay an amount."""
            session.paid_amounts.append(amount)
            result = session.make_mark("paid")
            session.results.append(result)
            return result

        return pay

    def run_turn(self, content):
        self.way = self.rng.choice([SEND, STREAM, TOOLS])
        if self.way == SEND:
            return self.engine.send("a", content).text
        if self.way == STREAM:
            with self.engine.stream("a", content) as stream:
                return stream.get_final_reply().text
        return self.engine.run_tools("a", content, tools=[self.make_tool()]).text

    def stored_text(self):
        chat = History(open_store(f"memory:{self.name}")).conversation("a")
        return "\n".join(json.dumps([entry.kind, entry.message, entry.data]) for entry in chat.entries())


def run_case(seed):
    """Run a conversation with faults; return the number of errors."""
    session = FaultyConversation(seed)
    session.store.on_append = session.faults()
    raised = []
    for _ in range(session.rng.randrange(1, 6)):
        before, ran = len(session.reply_texts), len(session.results)
        try:
            session.run_turn(session.make_mark("question"))
        except ChatHistoryError as error:
            raised.append(error)
            check_kept(session, error, session.reply_texts[before:], session.results[ran:])
        else:
            check_kept(session, None, session.reply_texts[before:], session.results[ran:])
    session.store.clear_faults()
    session.api = FakeMessagesAPI("fine")
    engine = session.make_engine()
    engine.abandon("a")
    assert engine.send("a", "And now?").text == "fine"
    return len(raised)


def check_kept(session, error, given, results):
    """Assert that each paid reply and each tool result is stored, or on the error."""
    stored = session.stored_text()
    reply = error.reply.text if error is not None and error.reply else ""
    for text in given:
        assert text in stored or text in reply, "a paid reply is lost"
    on_error = str(error.results) if error is not None else ""
    for result in results:
        assert result in stored or result in on_error, "the result of a tool is lost"
    for text in (*given, *results):
        lines = [line for line in stored.split("\n") if text in line and not line.startswith('["reply_orphaned"')]
        assert len(lines) <= 1, "something is stored twice"
    if error is not None:
        assert isinstance(error, InvalidInput | OrphanedReply | StoreUnavailable | StoreRejected)
        assert all(text not in str(error) for text in (*given, *results))


@pytest.mark.parametrize("start", range(0, 120, 20))
def test_nothing_that_was_paid_for_or_done_is_lost(start):
    assert sum(run_case(seed) for seed in range(start, start + 20)) > 0


if __name__ == "__main__":
    turn.RETRY_DELAYS = (0, 0, 0)
    count = int(sys.argv[1])
    counts = [run_case(seed) for seed in range(10_000, 10_000 + count)]
    print(count, "cases;", sum(map(bool, counts)), "with errors")  # noqa: T201
