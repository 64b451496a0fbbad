"""Whatever is accepted can be sent: random calls with messages that other programs made.

After each accepted call, the fake API must accept the view with the user's next message, or with the pending results;
it checks the signatures of thinking. Each tool call is always sent under the same id, with its own result.
"""

from __future__ import annotations

import contextlib
import copy
import json
import random
from collections import Counter

import pytest
from ask_fake_api import add_next_message, find_refusal, next_view, user
from entry_factory import make_entry
from foreign_messages import ForeignMessages, number_of
from random_conversations import MODEL, DirectClient, Refused

from chathistory import ChatEngine, History, open_store
from chathistory.errors import ChatHistoryError, InvalidInput
from chathistory.messages.accept import _check_content
from chathistory.testing.fake_api import Reply
from chathistory.trimming import LastTurns
from chathistory.trimming.context_editing import CompactionBlocks
from chathistory.view import build_view

pytestmark = pytest.mark.wide

TOOLS = [{"name": name, "input_schema": {"type": "object"}} for name in ("look", "count")]
TOOLS.append({"type": "web_search_20250305", "name": "web_search"})
EMPTY_THINKING = {"type": "thinking", "thinking": "", "signature": ""}
VALUES = [
    *["done"] * 8,
    "done",
    "",
    None,
    [],
    [{"type": "text", "text": "so"}],
    ValueError("no"),
    5,
    {"a": 1},
    [{"type": "image_url"}],
]
outcomes: Counter[str] = Counter()


class Case:
    """One conversation, and random calls on it."""

    def __init__(self, seed, store, path):
        self.rng = random.Random(seed)
        self.maker = ForeignMessages(self.rng)
        self.seed, self.store, self.path = seed, store, path
        self.client = DirectClient()
        self.engine = ChatEngine(self.client, store, model=MODEL, tools=TOOLS)
        self.history = History(store)
        self.id = f"case/{seed}"
        self.chat = self.history.conversation(self.id)
        self.ids = {}
        self.reply = None

    def run(self):
        steps = [
            self.append,
            self.append,
            self.send,
            self.send,
            self.call_api,
            self.submit,
            self.submit,
            self.change_conversation,
            self.repair,
        ]
        if self.rng.random() < 0.2:
            self.run_step(self.import_list)
        for _ in range(self.rng.randint(2, 10)):
            self.run_step(self.rng.choice(steps))

    def run_step(self, step):
        try:
            done = step()
        except Refused as error:
            pytest.fail(f"seed {self.seed}: {step.__name__}: {error}")
        except ChatHistoryError as error:
            outcomes[f"{step.__name__}: {type(error).__name__}"] += 1
            return
        if done is not False:
            outcomes[step.__name__] += 1
            self.check(step.__name__)

    # Calls.

    def append(self):
        self.chat.state()
        messages = [self.maker.make_foreign(message) for message in self.maker.exchange()]
        if self.rng.random() < 0.4:
            self.chat.append(messages)
            return
        for message in messages:  # refused messages are missing, as in a program that logs the error and continues
            with contextlib.suppress(InvalidInput):
                self.chat.append(message)

    def import_list(self):
        messages = [message for _ in range(self.rng.randint(1, 3)) for message in self.maker.exchange()]
        lines = [self.maker.make_foreign(message) if self.rng.random() < 0.3 else message for message in messages]
        self.path.write_text(json.dumps(lines))
        report = self.history.import_from(self.path, id=self.id)
        return bool(report.copied)

    def send(self):
        content = self.maker.make_foreign({"role": "user", "content": self.maker.blocks()}).get("content")
        self.client.answers = [self.answer()]
        self.reply = self.engine.send(self.id, content)

    def submit(self):
        if self.reply is None or not self.reply.tool_calls:
            return False
        results = {call["id"]: self.rng.choice(VALUES) for call in self.reply.tool_calls if self.rng.random() < 0.9}
        self.client.answers = [self.answer()]
        self.reply = self.engine.submit(self.id, self.reply, results)
        return True

    def call_api(self):
        """A caller who calls the API, and saves the reply in a form of its own."""
        self.chat.state()
        self.chat.append(user(self.maker.words()))
        self.client.answers = [self.answer()]
        messages = self.chat.messages(tools=TOOLS)
        response = self.client.create(messages=messages, max_tokens=9, model=MODEL, tools=TOOLS)
        saved = self.maker.saved(response.to_dict())
        self.chat.append(saved if self.rng.random() < 0.7 else response)
        calls = [block for block in response.to_dict()["content"] if block["type"] == "tool_use"]
        if calls and self.rng.random() < 0.8:
            self.chat.append(user(self.maker.results(calls)))

    def answer(self):
        blocks = [dict(EMPTY_THINKING)] if self.rng.random() < 0.4 else []
        if self.rng.random() < 0.6:
            return Reply(content=[*blocks, self.maker.text(), *map(_with_object, self.maker.calls())])
        return Reply(content=[*blocks, self.maker.text()])

    def change_conversation(self):
        chat = self.chat
        head = chat.state() and chat.log.known_head()
        if head is None:
            return False
        position = self.rng.randint(head.start, head.end)
        match self.rng.choice(["trim", "trim", "trim", "rewind", "forget", "fork", "fork"]):
            case "trim":
                return chat.trim(LastTurns(*self.rng.choice([(1, 1), (2, 1), (3, 2)]))) is not None
            case "rewind":
                chat.rewind(to=position)
            case "forget":
                chat.forget(before=position)
            case "fork":
                self.id = f"{self.id}/f"
                self.chat = chat.fork(self.id, at=position)
        self.reply = None
        return True

    def repair(self):
        self.chat.state()
        before = self.chat.messages()
        found = self.chat.repair()
        assert self.chat.repair(dry_run=False) == found
        assert self.chat.messages() == before
        assert self.chat.repair() == ()

    # Checks.

    def check(self, name):
        chat = self.chat
        chat.state()
        lines = self.store.read(chat.log.key)
        view = chat.view(tools=TOOLS)
        assert chat.view(tools=TOOLS) == view
        assert self.store.read(chat.log.key) == lines
        messages = next_view(chat, tools=TOOLS)
        try:
            self.client.count(
                messages, model=MODEL, tools=TOOLS, betas=CompactionBlocks.from_messages(messages).select_betas([])
            )
        except Refused as error:
            pytest.fail(f"seed {self.seed}: after {name}: {error}")
        self.check_ids(view.messages)

    def check_ids(self, messages):
        """Check that each call is always sent under the same id, and has the result with its number."""
        sent = {}
        ambiguous = self.find_ambiguous()
        for message in messages:
            for block in message["content"] if isinstance(message["content"], list) else ():
                if block["type"] == "tool_use" and number_of(block) is not None:
                    sent[number_of(block)] = block["id"]
                if block["type"] == "tool_result" and (number := _number_in(block)) in sent.keys() - ambiguous:
                    assert block["tool_use_id"] == sent[number], f"seed {self.seed}: result {number}"
        assert len(set(sent.values())) == len(sent)
        for number, id in sent.items():
            assert self.ids.setdefault(number, id) == id, f"seed {self.seed}: call {number} was {self.ids[number]}"

    def find_ambiguous(self):
        """Return the numbers of calls with an id that another call of the same message has."""
        found = set()
        for entry in self.chat.entries():
            content = entry.message["content"] if entry.kind == "message" else ""
            calls = [block for block in content if isinstance(block, dict) and block["type"] == "tool_use"]
            ids = Counter(call["id"] for call in calls)
            found |= {number_of(call) for call in calls if ids[call["id"]] > 1}
        return found


def _with_object(call):
    return call | {"input": {"n": number_of(call)}}


def _number_in(result):
    content = result.get("content")
    text = content[0].get("text") if isinstance(content, list) and content else content
    return int(text[1:]) if isinstance(text, str) and text[:1] == "r" and text[1:].isdigit() else None


def run_cases(seeds, path):
    outcomes.clear()
    for seed in seeds:
        with open_store("memory:") as store:
            Case(seed, store, path / "list.json").run()


@pytest.mark.parametrize("part", range(4))
def test_whatever_is_accepted_can_be_sent(part, tmp_path):
    run_cases(range(part * 50, (part + 1) * 50), tmp_path)


@pytest.mark.stress
def test_two_thousand_cases(tmp_path):
    run_cases(range(10_000, 12_000), tmp_path)


def test_random_cases_reach_every_step(tmp_path):
    """Without this, a generator whose calls are all refused, or all accepted, would let every test pass."""
    run_cases(range(300, 400), tmp_path)
    for step in ("append", "import_list", "send", "submit", "call_api", "change_conversation", "repair"):
        assert outcomes[step] >= 8, outcomes
    assert outcomes["append: InvalidInput"] > 10
    assert outcomes["send: InvalidInput"] > 5
    assert outcomes["submit: InvalidInput"] > 2


def was_accepted_by_an_earlier_version(message):
    """Whether a version without the table of fields would have stored a message."""
    try:
        _check_content(message)
    except InvalidInput:
        return False
    return True


def test_whatever_an_earlier_version_stored_can_be_sent():
    rng = random.Random(5)
    stored = 0
    for _ in range(400):
        maker = ForeignMessages(rng)
        messages = [maker.make_foreign(message) for _ in range(3) for message in maker.exchange()]
        messages = [
            {name: message[name] for name in ("role", "content")} if rng.random() < 0.9 else message
            for message in messages
            if was_accepted_by_an_earlier_version(message)
        ]
        entries = [
            make_entry("message", message=message, position=position, surrogates=True)
            for position, message in enumerate(messages)
        ]
        before = copy.deepcopy(messages)
        view = build_view(entries)
        assert messages == before
        sent = view.messages
        if not sent or sent[-1]["role"] == "assistant":
            sent = build_view(add_next_message(entries)).messages
        assert find_refusal(sent) == [], messages
        json.dumps(sent, ensure_ascii=False).encode()
        stored += len(messages)
    assert stored > 1000
