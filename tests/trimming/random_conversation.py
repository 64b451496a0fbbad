"""A conversation with random steps: whatever can happen to a conversation, in any order.

The same seed gives the same steps. These things must never happen: a request that the API refuses; a request that does
not extend the one before although nothing was cut or rewound; a record that changes; a turn that is sent twice.
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
STEP_WEIGHTS = {
    "send": 40, "send_named": 10, "repeat_turn": 6, "trim": 8, "rewind": 4, "forget": 2, "toggle_thinking": 2,
    "resume": 4, "change_engine": 6, "compact": 4, "repair": 2, "count_tokens": 2, "append": 1,
}  # fmt: skip


def text(words):
    return {"type": "text", "text": words}


class RandomConversation:
    """A conversation that random steps are made on.

    Attributes:
        kind: How the engines trim: "plain", "summarize", "compaction", or "edit" (the API does, at a threshold).
        made_steps: The steps that were made, and the errors that they raised.
    """

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.kind = self.rng.choice(["plain", "plain", "summarize", "compaction", "edit"])
        self.api = FakeMessagesAPI(self.reply, smallest_trigger=100)
        self.store = open_store(f"memory:{uuid4().hex}")
        self.chat = History(self.store).conversation("a")
        self.system = "S1"
        self.count = 0
        self.named: dict[str, tuple] = {}
        self.made_steps: list[object] = []
        self.seen: list = []
        self.last: list[str] | None = None
        self.extends = True
        self.change_engine()

    def make_steps(self, steps: int) -> None:
        for _ in range(steps):
            [step] = self.rng.choices(list(STEP_WEIGHTS), list(STEP_WEIGHTS.values()))
            self.made_steps.append(step)
            before = len(self.api.requests)
            try:
                getattr(self, step)()
            except errors.InvalidInput as refused:  # refused before anything was stored
                self.made_steps.append(str(refused))
            except anthropic.InternalServerError as failed:
                self.made_steps.append(failed.status_code)
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

    # The steps.

    def send(self, name: str | None = None) -> None:
        self.count += 1
        content = self.content() if name is None else f"named {name} " + "x " * self.rng.choice([1, 30, 300])
        if self.rng.random() < 0.25:
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
        if not calls or self.rng.random() < 0.15:
            return f"say {self.count} " + "x " * self.rng.choice([1, 30, 300])
        paper = "paper " * self.rng.choice([1, 100])
        results = [{"type": "tool_result", "tool_use_id": each, "content": paper} for each in calls]
        results = results[:-1] or results if self.rng.random() < 0.2 else results
        return [*results, text("and more")] if self.rng.random() < 0.1 else results

    def send_named(self) -> None:
        self.send(f"t{self.count}")

    def repeat_turn(self) -> None:
        if self.named:
            name = self.rng.choice(list(self.named))
            content, reply = self.named[name]
            before = len(self.api.requests)
            assert self.engine.send("a", content, turn_id=name).message == reply.message
            assert len(self.api.requests) == before

    def trim(self) -> None:
        policy = self.policy()
        self.chat.trim(Summarize(policy, by=lambda _: "by hand") if self.rng.random() < 0.3 else policy)

    def rewind(self) -> None:
        if summary := self.chat.state():
            low = summary.view.view_start if self.rng.random() < 0.7 else 0
            self.chat.rewind(to=self.rng.randint(low, self.seen[-1].position + 1))
            self.named = {}

    def forget(self) -> None:
        head = self.chat.log.refresh()
        if head:
            self.chat.forget(before=self.rng.randint(head.start, head.start + (head.end - head.start) // 2))
            self.named = {}

    def toggle_thinking(self) -> None:
        self.chat.set_drop_stale_thinking(drop=self.rng.random() < 0.5)

    def resume(self) -> None:
        self.engine.resume("a")

    def change_engine(self) -> None:
        """Continue in another process, perhaps with another system prompt and another policy."""
        if self.rng.random() < 0.3:
            self.system = f"S{self.rng.randint(1, 3)}"
        policy = self.policy()
        if self.kind == "summarize":
            policy = Summarize(policy, by=lambda messages: f"sum of {len(messages)}")
        if self.kind == "compaction":
            policy = Compaction(policy)
        editing = ContextEditing(compact=self.rng.choice([400, 1500]), clear_tool_uses=self.rng.random() < 0.5)
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
        high = self.rng.randint(2, 6)
        low = self.rng.randint(1, high)
        budget = TokenBudget(self.rng.choice([300, 800, 2000]), self.rng.choice([50, 150, 300]))
        return self.rng.choice(
            [LastTurns(high, low), budget, AnyOf(LastTurns(high, low), budget), MaxAge(0, 0), KeepAll()]
        )

    def compact(self) -> None:
        if self.kind != "edit":  # the API does not compact a summary that it made at a threshold
            self.engine.compact("a")

    def repair(self) -> None:
        shown = self.chat.messages()
        if self.chat.repair(dry_run=False):
            self.named = {}
        assert self.chat.repair() == ()
        assert self.chat.messages() == shown

    def count_tokens(self) -> None:
        assert self.engine.count_tokens("a", "next") > 0

    def append(self) -> None:
        self.chat.append({"role": "user", "content": "by hand"})

    # The replies.

    def reply(self, body):
        thought = [THOUGHT] if self.rng.random() < 0.7 else []
        words = text(f"reply {self.count} " + "w " * self.rng.choice([5, 50, 400]))
        if searches := _open_searches(body["messages"]):
            return [*(_search_result(each) for each in searches), words]
        search = {"type": "server_tool_use", "id": f"srvtoolu_{uuid4().hex}", "name": "web_search", "input": {}}
        call = {"type": "tool_use", "name": "f", "input": {}}
        paused = Reply(content=[*thought, search], stop_reason="pause_turn")
        answers = {
            "words": (45, [*thought, words]),
            "calls": (20, [*thought, *([words] if thought else []), *[call] * self.rng.randint(1, 3)]),
            "pause": (
                7,
                paused if self.kind != "edit" else [words],
            ),  # the summary would contain the call of the search
            "search": (5, [*thought, search, _search_result(search["id"]), words]),
            "search and call": (3, [*thought, search, call] if self.kind != "edit" else [call]),
            "refusal": (
                4,
                Reply(content=[], stop_reason="refusal") if _is_every_turn_answered(body["messages"]) else [words],
            ),
            "half": (4, Reply(content=[*thought, words, call], stop_reason="max_tokens")),
            "nothing": (3, Reply(content=self.rng.choice([[], [text(" ")]]), stop_reason="end_turn")),
            "failure": (5, Failure(self.rng.choice([500, 529]))),
        }
        [(_, answer)] = self.rng.choices(list(answers.values()), [weight for weight, _ in answers.values()])
        return answer


def _search_result(name):
    return {"type": "web_search_tool_result", "tool_use_id": name, "content": []}


def _is_every_turn_answered(messages) -> bool:
    """Return True if each turn had a reply.

    If not, leaving out a refused turn makes an earlier turn the last one again, and its thinking may have been dropped
    with another system prompt. This is known, and too rare to be handled.
    """
    return all(one["role"] != other["role"] for one, other in itertools.pairwise(messages))


def _open_searches(messages) -> list[str]:
    """Return the ids of server tool calls of the current turn that have no result yet."""
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


def run_random_conversation(seed: int, steps: int) -> RandomConversation:
    """Return the conversation of a seed after a number of steps; an error names the seed and the last steps."""
    conversation = RandomConversation(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # changed setups and failed summaries warn
        try:
            conversation.make_steps(steps)
        except Exception as error:
            error.add_note(f"seed {seed}, {conversation.kind}, after: {conversation.made_steps[-12:]}")
            raise
    return conversation
