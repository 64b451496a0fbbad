"""A conversation to which everything happens that can, by the throw of a die: for what nobody thought of.

The same seed gives the same story. What may not happen, whatever came before: a request that the API refuses; one that
does not extend the one before, though nothing was cut or taken back; a record that changes; a turn that is sent twice.
"""

from __future__ import annotations

import itertools
import json
import random
import warnings
from uuid import uuid4

import anthropic

from chathistory import ChatEngine, History, errors, open_store
from chathistory.testing import FakeMessagesAPI
from chathistory.testing.fake_api import Failure, Reply
from chathistory.trimming import (
    AnyOf,
    Compaction,
    ContextEditing,
    KeepAll,
    LastTurns,
    MaxAge,
    Summarize,
    TokenBudget,
)

MODEL = "claude-sonnet-5-5"
THOUGHT = {"type": "thinking", "thinking": "", "signature": ""}
TOOLS = [{"name": "f", "input_schema": {"type": "object"}}, {"type": "web_search_20250305", "name": "web_search"}]
CHANGES = frozenset({"cut", "compaction", "rewind", "snapshot", "setup", "thinking_policy", "repair"})
LIKELY = {
    "say": 40, "name": 10, "again": 6, "trim": 8, "rewind": 4, "forget": 2, "choose": 2, "resume": 4,
    "renew": 6, "compact": 4, "repair": 2, "number": 2, "append": 1,
}  # fmt: skip


def text(words):
    return {"type": "text", "text": words}


class World:
    """kind: how the engines trim: "plain", "summarize", "compaction", or "edit" (the API does, at a threshold)."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.kind = self.dice.choice(["plain", "plain", "summarize", "compaction", "edit"])
        self.api = FakeMessagesAPI(self.reply, smallest_trigger=100)
        self.store = open_store(f"memory:{uuid4().hex}")
        self.chat = History(self.store).conversation("a")
        self.system = "S1"
        self.count = 0
        self.named: dict[str, tuple] = {}
        self.story: list[object] = []
        self.seen: list = []
        self.last: list[str] | None = None
        self.extends = True
        self.renew()

    def live(self, steps: int) -> None:
        for _ in range(steps):
            [step] = self.dice.choices(list(LIKELY), list(LIKELY.values()))
            self.story.append(step)
            before = len(self.api.requests)
            try:
                getattr(self, step)()
            except errors.InvalidInput as refused:  # told beforehand, and nothing was stored
                self.story.append(str(refused))
            except anthropic.InternalServerError as failed:
                self.story.append(failed.status_code)
            self.check(self.api.requests[before:])

    def check(self, requests) -> None:
        assert [request.rule for request in requests if request.rule] == []
        records = list(self.chat.entries())
        kept = [entry for entry in self.seen if not records or entry.position >= records[0].position]
        assert records[: len(kept)] == kept
        new, self.seen = records[len(kept) :], records
        self.extends = self.extends and not any(entry.kind in CHANGES for entry in new)
        for request in requests:
            if request.path == "/v1/messages" and "compaction" not in request.body:
                sent = [json.dumps(message) for message in request.body["messages"]]
                assert not (self.extends and self.last) or sent[: len(self.last)] == self.last
                self.last, self.extends = sent, True
        if any(self.changes_what_is_sent(entry) for entry in new):
            self.extends = False

    def changes_what_is_sent(self, entry) -> bool:
        content = entry.message["content"] if entry.message else ""
        compacted = isinstance(content, list) and any(block["type"] == "compaction" for block in content)
        return compacted or entry.data.get("response", {}).get("stop_reason") == "refusal"

    # What happens.

    def say(self, name: str | None = None) -> None:
        self.count += 1
        content = self.content() if name is None else f"named {name} " + "x " * self.dice.choice([1, 30, 300])
        if self.dice.random() < 0.25:
            with self.engine.stream("a", content, turn_id=name) as stream:
                reply = stream.get_final_reply()
        else:
            reply = self.engine.send("a", content, turn_id=name)
        if name:
            self.named[name] = (content, reply)

    def content(self):
        newest = self.chat.last_entries(1)
        blocks = newest[0].message["content"] if newest else ""
        calls = [block["id"] for block in blocks if isinstance(block, dict) and block["type"] == "tool_use"]
        if not calls or self.dice.random() < 0.15:
            return f"say {self.count} " + "x " * self.dice.choice([1, 30, 300])
        paper = "paper " * self.dice.choice([1, 100])
        results = [{"type": "tool_result", "tool_use_id": each, "content": paper} for each in calls]
        results = results[:-1] or results if self.dice.random() < 0.2 else results
        return [*results, text("and more")] if self.dice.random() < 0.1 else results

    def name(self) -> None:
        self.say(f"t{self.count}")

    def again(self) -> None:
        if self.named:
            name = self.dice.choice(list(self.named))
            content, reply = self.named[name]
            before = len(self.api.requests)
            assert self.engine.send("a", content, turn_id=name).message == reply.message
            assert len(self.api.requests) == before

    def trim(self) -> None:
        policy = self.policy()
        self.chat.trim(Summarize(policy, by=lambda _: "by hand") if self.dice.random() < 0.3 else policy)

    def rewind(self) -> None:
        if summary := self.chat.state():
            low = summary.view.view_start if self.dice.random() < 0.7 else 0
            self.chat.rewind(to=self.dice.randint(low, self.seen[-1].position + 1))
            self.named = {}

    def forget(self) -> None:
        head = self.chat.log.refresh()
        if head:
            self.chat.forget(before=self.dice.randint(head.start, head.start + (head.end - head.start) // 2))
            self.named = {}

    def choose(self) -> None:
        self.chat.set_drop_stale_thinking(drop=self.dice.random() < 0.5)

    def resume(self) -> None:
        self.engine.resume("a")

    def renew(self) -> None:
        """Another process goes on, perhaps with another system prompt and another policy."""
        if self.dice.random() < 0.3:
            self.system = f"S{self.dice.randint(1, 3)}"
        policy = self.policy()
        if self.kind == "summarize":
            policy = Summarize(policy, by=lambda messages: f"sum of {len(messages)}")
        if self.kind == "compaction":
            policy = Compaction(policy)
        editing = ContextEditing(compact=self.dice.choice([400, 1500]), clear_tool_uses=self.dice.random() < 0.5)
        self.engine = ChatEngine(
            self.api.client(),
            self.store,
            model=MODEL,
            system=self.system,
            tools=TOOLS,
            trimming=policy,
            context_editing=editing if self.kind == "edit" else None,
        )

    def policy(self):
        high = self.dice.randint(2, 6)
        low = self.dice.randint(1, high)
        budget = TokenBudget(self.dice.choice([300, 800, 2000]), self.dice.choice([50, 150, 300]))
        return self.dice.choice(
            [LastTurns(high, low), budget, AnyOf(LastTurns(high, low), budget), MaxAge(0, 0), KeepAll()]
        )

    def compact(self) -> None:
        if self.kind != "edit":  # the API signs no summary of one that it made at a threshold
            self.engine.compact("a")

    def repair(self) -> None:
        shown = self.chat.messages()
        if self.chat.repair(dry_run=False):
            self.named = {}
        assert self.chat.repair() == ()
        assert self.chat.messages() == shown

    def number(self) -> None:
        assert self.engine.count_tokens("a", "next") > 0

    def append(self) -> None:
        self.chat.append({"role": "user", "content": "by hand"})

    # What Claude answers.

    def reply(self, body):
        thought = [THOUGHT] if self.dice.random() < 0.7 else []
        words = text(f"reply {self.count} " + "w " * self.dice.choice([5, 50, 400]))
        if searches := _open_searches(body["messages"]):
            return [*(_found(each) for each in searches), words]
        search = {"type": "server_tool_use", "id": f"srvtoolu_{uuid4().hex}", "name": "web_search", "input": {}}
        call = {"type": "tool_use", "name": "f", "input": {}}
        paused = Reply(content=[*thought, search], stop_reason="pause_turn")
        answers = {
            "words": (45, [*thought, words]),
            "calls": (20, [*thought, *([words] if thought else []), *[call] * self.dice.randint(1, 3)]),
            "pause": (7, paused if self.kind != "edit" else [words]),  # the search would be gone with what is summed up
            "search": (5, [*thought, search, _found(search["id"]), words]),
            "search and call": (3, [*thought, search, call] if self.kind != "edit" else [call]),
            "refusal": (4, Reply(content=[], stop_reason="refusal") if _answered(body["messages"]) else [words]),
            "half": (4, Reply(content=[*thought, words, call], stop_reason="max_tokens")),
            "nothing": (3, Reply(content=self.dice.choice([[], [text(" ")]]), stop_reason="end_turn")),
            "failure": (5, Failure(self.dice.choice([500, 529]))),
        }
        [(_, answer)] = self.dice.choices(list(answers.values()), [weight for weight, _ in answers.values()])
        return answer


def _found(name):
    return {"type": "web_search_tool_result", "tool_use_id": name, "content": []}


def _answered(messages) -> bool:
    """Whether each turn had a reply. If not, leaving out a refused one makes a turn the last again whose thinking may
    have gone with another system prompt: known, and so rare that nobody is helped by a way around it.
    """
    return all(one["role"] != other["role"] for one, other in itertools.pairwise(messages))


def _open_searches(messages) -> list[str]:
    """Return the server's calls of the turn that is under way which have no result yet."""
    found: dict[str, None] = {}
    for message in messages:
        blocks = [text(message["content"])] if isinstance(message["content"], str) else message["content"]
        for block in blocks:
            if message["role"] == "user" and block["type"] == "text":
                found.clear()
            elif block["type"] == "server_tool_use":
                found[block["id"]] = None
            elif block["type"].endswith("_tool_result"):
                found.pop(block["tool_use_id"], None)
    return list(found)


def lived(seed: int, steps: int) -> World:
    """Return the world of a seed after so many steps; what is wrong in it is an AssertionError that tells the story."""
    world = World(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # setups change, and summaries fail, as they please
        try:
            world.live(steps)
        except Exception as error:
            error.add_note(f"seed {seed}, {world.kind}, after: {world.story[-12:]}")
            raise
    return world
