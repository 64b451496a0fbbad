"""Random calls of two engines in one conversation, with crashes between any two steps, and a check of the result."""

from __future__ import annotations

import contextlib
import itertools
from collections import Counter
from random import Random

import anthropic
import pytest
from chathistory_memory import MemoryStore

from chathistory import ChatEngine, Conversation, History, errors
from chathistory.testing import FakeMessagesAPI
from chathistory.testing.fake_api import Failure, Reply

__all__ = ["EngineRun"]

MODEL = "claude-sonnet-5-5"
TOOLS = [{"name": "f", "input_schema": {"type": "object"}}, {"type": "web_search_20250305", "name": "web_search"}]
STEPS = {
    "send": 10, "again": 4, "repeat": 4, "stream": 3, "leave": 2, "submit": 8, "resubmit": 3, "partial": 6, "resume": 4,
    "takeover": 2, "regenerate": 4, "choose": 3, "rewind": 2, "append": 2, "keyed": 3, "empty": 2, "abandon": 1,
}  # fmt: skip


class Killed(BaseException):
    """The process was killed here: none of its code runs after this."""


class DyingStore(MemoryStore):
    """The store of one process, which can be killed before or after an append."""

    dies: str | None = None
    dead = False

    def append(self, *args, **more):
        if self.dead or self.dies == "before":
            self.dead = True
            raise Killed
        head = super().append(*args, **more)
        if self.dies == "after":
            self.dead = True
            raise Killed
        return head

    def read(self, *args, **more):
        if self.dead:
            raise Killed
        return super().read(*args, **more)


class EngineRun:
    """Make random calls and record what was sent; `check` asserts what must be true after all of them."""

    def __init__(self, seed: int, name: str, clock) -> None:
        self.dice, self.name, self.clock = Random(seed), name, clock
        clock.keeper.keep = lambda turn: None  # no renewal thread, so each case runs the same each time
        self.api = FakeMessagesAPI(self._reply, check_thinking=False)
        self.client = self.api.client()
        self.stores = [DyingStore(name), DyingStore(name)]
        self.engines = [self._engine(store) for store in self.stores]
        self.numbers = itertools.count()
        self.replies: list = []
        self.sent_results: list = []
        self.said: Counter[str] = Counter()
        self.keyed: list[str] = []
        self.turns: dict[str, str] = {}
        self.answered: set[str] = set()
        self.current: str | None = None
        self.nested = False
        self.violations: list[str] = []  # an exception within the fake API would only be a 500

    def _engine(self, store) -> ChatEngine:
        return ChatEngine(self.client, store, model=MODEL, tools=TOOLS, turn_timeout=60)

    def _reply(self, body):
        messages = body["messages"]
        if not messages:
            self.violations.append("a request with an empty list")
        elif messages[-1]["role"] == "assistant" and messages[-1]["content"][-1]["type"] != "server_tool_use":
            self.violations.append("a request that ends with a finished reply")
        if self.current in self.answered:
            self.violations.append(f"{self.current} was sent after it had its reply")
        open_use = messages and messages[-1]["role"] == "assistant" and messages[-1]["content"][-1]
        found = [{"type": "web_search_tool_result", "tool_use_id": open_use["id"], "content": []}] if open_use else []
        if not self.nested and self.dice.random() < 0.15:
            self._meanwhile()
        return self._answer(found)

    def _meanwhile(self) -> None:
        """Make another call, in either process, while a reply is being made."""
        current, self.nested = self.current, True
        self.step()
        self.current, self.nested = current, False

    def _answer(self, found):
        """Return a random answer. A reply that continues a paused one begins with the blocks in `found`."""
        kind = self.dice.choices(["text", "calls", "pause", "fail", "empty", "refusal"], [8, 5, 2, 2, 1, 1])[0]
        number = next(self.numbers)
        if kind == "fail":
            return Failure(500)
        if kind == "calls":
            calls = range(self.dice.randint(1, 3))
            return [
                *found,
                *({"type": "tool_use", "id": f"toolu_{number}_{n}", "name": "f", "input": {}} for n in calls),
            ]
        if kind == "pause":
            use = {"type": "server_tool_use", "id": f"srvtoolu_{number}", "name": "web_search", "input": {"query": "x"}}
            return Reply(content=[*found, use], stop_reason="pause_turn")
        if kind == "empty":
            return Reply(content=found)
        if kind == "refusal":
            return Reply(content=[], stop_reason="refusal")
        return [*found, {"type": "text", "text": f"reply {number}"}]

    # The steps, by their names in `STEPS`.

    def step(self) -> None:
        """Make one call in one of the two processes, which may be killed at one of its appends."""
        place = self.dice.randrange(2)
        store = self.stores[place]
        store.dies = self.dice.choices([None, "before", "after"], [12, 1, 1])[0]
        name = self.dice.choices(list(STEPS), list(STEPS.values()))[0]
        self.current = None
        try:
            getattr(self, f"_{name}")(self.engines[place])
        except (errors.ChatHistoryError, anthropic.APIError):
            pass
        except Killed:
            self._restart(place)
        store.dies = None
        if self.dice.random() < 0.1:
            self.clock.go(self.dice.choice([5, 61]))

    def _restart(self, place: int) -> None:
        """Replace a process that was killed by another one."""
        self.stores[place] = DyingStore(self.name)
        self.engines[place] = self._engine(self.stores[place])

    def _chat(self, engine) -> Conversation:
        return engine.history.conversation("a")

    def _keep(self, reply) -> None:
        if reply is not None and not isinstance(reply, list):
            self.replies.append(reply)
            if self.current is not None:
                self.answered.add(self.current)

    def _new_text(self) -> tuple[str, str | None]:
        number = next(self.numbers)
        text = f"words {number}"
        self.said[text] = 0
        turn = f"turn {number}" if self.dice.random() < 0.6 else None
        if turn:
            self.turns[turn] = text
        return text, turn

    def _send(self, engine) -> None:
        text, self.current = self._new_text()
        self._keep(engine.send("a", text, turn_id=self.current))

    def _again(self, engine) -> None:
        """Send the message of a turn id once more, as a client does that got no answer."""
        if self.turns:
            self.current, text = self.dice.choice(list(self.turns.items()))
            path = [entry.turn for entry in self._chat(engine).last_entries(1000) if entry.turn]
            if self.current in self.answered and self.current not in path:
                self.current = None  # the turn was taken back, so sending it again would be another turn
                return
            self._keep(engine.send("a", text, turn_id=self.current))

    def _repeat(self, engine) -> None:
        """Send the last message once more without a turn id, as a user does who sees no reply."""
        said = [entry for entry in self._chat(engine).last_entries(3) if entry.message["role"] == "user"]
        content = said[-1].message["content"] if said else None
        if isinstance(content, str) and content in self.said and not self._has_reply(engine, said[-1]):
            self._keep(engine.send("a", content))

    def _has_reply(self, engine, question) -> bool:
        chat = self._chat(engine)
        later = [entry for entry in chat.last_entries(30) if entry.position > question.position]
        return any(entry.data.get("response", {}).get("stop_reason") != "pause_turn" for entry in later)

    def _stream(self, engine) -> None:
        text, self.current = self._new_text()
        with engine.stream("a", text, turn_id=self.current) as stream:
            self._keep(stream.get_final_reply())

    def _leave(self, engine) -> None:
        text, self.current = self._new_text()
        with engine.stream("a", text, turn_id=self.current) as stream:
            for _ in stream:
                break

    def _results(self, calls) -> dict[str, str]:
        return {call["id"]: f"result of {call['id']}" for call in calls}

    def _submit(self, engine) -> None:
        called = [reply for reply in self.replies if reply.tool_calls]
        if called:
            reply = self.dice.choice(called[-2:])
            results = self._results(reply.tool_calls)
            self.sent_results.append((reply, results))
            self._keep(engine.submit("a", reply, results))

    def _resubmit(self, engine) -> None:
        if self.sent_results:
            self._keep(engine.submit("a", *self.dice.choice(self.sent_results)))

    def _partial(self, engine) -> None:
        called = [reply for reply in self.replies if reply.tool_calls]
        if called:
            reply = self.dice.choice(called[-2:])
            self._keep(engine.submit("a", reply, self._results([self.dice.choice(reply.tool_calls)]), partial=True))

    def _resume(self, engine) -> None:
        self._keep(engine.resume("a"))

    def _takeover(self, engine) -> None:
        self._keep(engine.resume("a", takeover=True))

    def _regenerate(self, engine) -> None:
        self._keep(engine.regenerate("a"))

    def _choose(self, engine) -> None:
        if self.replies:
            self._chat(engine).choose(self.dice.choice(self.replies).position)

    def _rewind(self, engine) -> None:
        chat = self._chat(engine)
        if newest := chat.last_entries(6):
            chat.rewind(to=self.dice.choice(newest).position)

    def _append(self, engine) -> None:
        chat = self._chat(engine)
        chat.state()
        chat.append({"role": self.dice.choice(["user", "assistant"]), "content": self.dice.choice(["by hand", " "])})

    def _keyed(self, engine) -> None:
        if not self.keyed or self.dice.random() < 0.5:
            self.keyed.append(f"keyed {next(self.numbers)}")
        text = self.dice.choice(self.keyed[-3:])
        chat = self._chat(engine)
        chat.state()
        chat.append({"role": "user", "content": text}, key=text)

    def _empty(self, engine) -> None:
        before = self._chat(engine).state()
        content = self.dice.choice(["", " \n", [], [{"type": "text", "text": " "}]])
        with contextlib.suppress(errors.InvalidInput):
            engine.send("a", content)
            self.violations.append("a message with nothing to send was accepted")
        after = self._chat(engine).state()
        assert (before and before.totals.messages) == (after and after.totals.messages)

    def _abandon(self, engine) -> None:
        engine.abandon("a")

    # What must be true at the end.

    def check(self) -> None:
        """Assert that nothing is stored twice, no request was refused, and the conversation can be continued."""
        self.current, self.nested = None, True
        assert self.violations == []
        entries = list(History(MemoryStore(self.name)).conversation("a").entries())
        stored = Counter(
            entry.message["content"]
            for entry in entries
            if entry.kind == "message" and isinstance(entry.message["content"], str)
        )
        on_path = Counter(
            message["content"]
            for message in History(MemoryStore(self.name)).conversation("a").last_messages(10_000)
            if isinstance(message["content"], str)
        )
        for text in self.said:
            assert on_path[text] <= 1, f"{text!r} is on the active path {on_path[text]} times"
        for text in self.keyed:
            assert stored[text] <= 1, f"{text!r} was stored {stored[text]} times"
        results = Counter(
            block["tool_use_id"]
            for message in History(MemoryStore(self.name)).conversation("a").last_messages(10_000)
            if isinstance(message["content"], list)
            for block in message["content"]
            if block["type"] == "tool_result"
        )
        assert all(count == 1 for count in results.values()), "a result is stored twice"
        ids = [
            entry.data["response"]["id"] for entry in entries if entry.kind == "message" and "response" in entry.data
        ]
        assert len(ids) == len(set(ids)), "a reply is stored twice"
        refused = [request for request in self.api.requests if request.rule]
        assert not refused, [request.rule for request in refused]
        self._check_continues()

    def _check_continues(self) -> None:
        """Assert that another process can send a message within one time-out, whatever happened before."""
        engine = self._engine(MemoryStore(self.name))
        for _ in range(20):
            try:
                engine.send("a", f"last words {next(self.numbers)}")
            except errors.TurnInProgress:
                self.clock.go(61)
            except anthropic.APIError:
                continue  # the fake API failed as the random choice said
            else:
                return
        pytest.fail("no message can be sent any longer")
