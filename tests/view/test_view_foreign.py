"""Whatever is accepted can be sent: sequences of calls with messages that other programs made.

After each call that was accepted, the fake takes the view with the user's next words, or with the results that are
pending; its signatures of thinking are checked. Each call of a tool is sent under one id for ever, with its own result.
"""

from __future__ import annotations

import contextlib
import copy
import json
import random
from collections import Counter

import pytest
from ask_fake_api import add_next_message, find_refusal, next_view, user
from made_conversations import MODEL, Refused, Wire
from made_entries import make_entry
from made_foreign import Foreign, number_of

from chathistory import ChatEngine, History, open_store
from chathistory.errors import ChatHistoryError, InvalidInput
from chathistory.messages.accept import _check_content
from chathistory.testing.fake_api import Reply
from chathistory.trimming import LastTurns
from chathistory.trimming.context_editing import CompactionBlocks
from chathistory.view import build_view

pytestmark = pytest.mark.repeated

TOOLS = [{"name": name, "input_schema": {"type": "object"}} for name in ("look", "count")]
TOOLS.append({"type": "web_search_20250305", "name": "web_search"})
THOUGHT = {"type": "thinking", "thinking": "", "signature": ""}
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
told: Counter[str] = Counter()


class Case:
    """One conversation, and all that happens to it."""

    def __init__(self, seed, store, path):
        self.rng = random.Random(seed)
        self.maker = Foreign(self.rng)
        self.seed, self.store, self.path = seed, store, path
        self.wire = Wire()
        self.engine = ChatEngine(self.wire, store, model=MODEL, tools=TOOLS)
        self.history = History(store)
        self.id = f"case/{seed}"
        self.chat = self.history.conversation(self.id)
        self.ids = {}
        self.asked = None

    def play(self):
        steps = [
            self.append,
            self.append,
            self.send,
            self.send,
            self.drive,
            self.submit,
            self.submit,
            self.change,
            self.mend,
        ]
        if self.rng.random() < 0.2:
            self.step(self.bring)
        for _ in range(self.rng.randint(2, 10)):
            self.step(self.rng.choice(steps))

    def step(self, step):
        try:
            done = step()
        except Refused as error:
            pytest.fail(f"seed {self.seed}: {step.__name__}: {error}")
        except ChatHistoryError as error:
            told[f"{step.__name__}: {type(error).__name__}"] += 1
            return
        if done is not False:
            told[step.__name__] += 1
            self.check(step.__name__)

    # What is done.

    def append(self):
        self.chat.state()
        messages = [self.maker.strange(message) for message in self.maker.exchange()]
        if self.rng.random() < 0.4:
            self.chat.append(messages)
            return
        for message in messages:  # what is refused of them is missing: as a program has it that logs and goes on
            with contextlib.suppress(InvalidInput):
                self.chat.append(message)

    def bring(self):
        messages = [message for _ in range(self.rng.randint(1, 3)) for message in self.maker.exchange()]
        lines = [self.maker.strange(message) if self.rng.random() < 0.3 else message for message in messages]
        self.path.write_text(json.dumps(lines))
        report = self.history.import_from(self.path, id=self.id)
        return bool(report.copied)

    def send(self):
        content = self.maker.strange({"role": "user", "content": self.maker.blocks()}).get("content")
        self.wire.answers = [self.answer()]
        self.asked = self.engine.send(self.id, content)

    def submit(self):
        if self.asked is None or not self.asked.tool_calls:
            return False
        results = {call["id"]: self.rng.choice(VALUES) for call in self.asked.tool_calls if self.rng.random() < 0.9}
        self.wire.answers = [self.answer()]
        self.asked = self.engine.submit(self.id, self.asked, results)
        return True

    def drive(self):
        """A caller who drives the API, and saves what came in a form of its own."""
        self.chat.state()
        self.chat.append(user(self.maker.words()))
        self.wire.answers = [self.answer()]
        messages = self.chat.messages(tools=TOOLS)
        response = self.wire.create(messages=messages, max_tokens=9, model=MODEL, tools=TOOLS)
        saved = self.maker.saved(response.to_dict())
        self.chat.append(saved if self.rng.random() < 0.7 else response)
        calls = [block for block in response.to_dict()["content"] if block["type"] == "tool_use"]
        if calls and self.rng.random() < 0.8:
            self.chat.append(user(self.maker.results(calls)))

    def answer(self):
        blocks = [dict(THOUGHT)] if self.rng.random() < 0.4 else []
        if self.rng.random() < 0.6:
            return Reply(content=[*blocks, self.maker.text(), *map(_with_object, self.maker.calls())])
        return Reply(content=[*blocks, self.maker.text()])

    def change(self):
        chat = self.chat
        head = chat.state() and chat.log.known_head()
        if head is None:
            return False
        place = self.rng.randint(head.start, head.end)
        match self.rng.choice(["trim", "trim", "trim", "rewind", "forget", "fork", "fork"]):
            case "trim":
                return chat.trim(LastTurns(*self.rng.choice([(1, 1), (2, 1), (3, 2)]))) is not None
            case "rewind":
                chat.rewind(to=place)
            case "forget":
                chat.forget(before=place)
            case "fork":
                self.id = f"{self.id}/f"
                self.chat = chat.fork(self.id, at=place)
        self.asked = None
        return True

    def mend(self):
        self.chat.state()
        before = self.chat.messages()
        found = self.chat.repair()
        assert self.chat.repair(dry_run=False) == found
        assert self.chat.messages() == before
        assert self.chat.repair() == ()

    # What must be true.

    def check(self, name):
        chat = self.chat
        chat.state()
        lines = self.store.read(chat.log.key)
        made = chat.view(tools=TOOLS)
        assert chat.view(tools=TOOLS) == made
        assert self.store.read(chat.log.key) == lines
        messages = next_view(chat, tools=TOOLS)
        try:
            self.wire.count(
                messages, model=MODEL, tools=TOOLS, betas=CompactionBlocks.from_messages(messages).select_betas([])
            )
        except Refused as error:
            pytest.fail(f"seed {self.seed}: after {name}: {error}")
        self.check_ids(made.messages)

    def check_ids(self, messages):
        """Each call is sent under one id for ever, and a result that says its number is its own."""
        sent = {}
        doubled = self.doubled()
        for message in messages:
            for block in message["content"] if isinstance(message["content"], list) else ():
                if block["type"] == "tool_use" and number_of(block) is not None:
                    sent[number_of(block)] = block["id"]
                if block["type"] == "tool_result" and (number := _number_in(block)) in sent.keys() - doubled:
                    assert block["tool_use_id"] == sent[number], f"seed {self.seed}: result {number}"
        assert len(set(sent.values())) == len(sent)
        for number, id in sent.items():
            assert self.ids.setdefault(number, id) == id, f"seed {self.seed}: call {number} was {self.ids[number]}"

    def doubled(self):
        """The numbers of calls whose id another call of the same message has: whose result is whose cannot be told."""
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
    words = content[0].get("text") if isinstance(content, list) and content else content
    return int(words[1:]) if isinstance(words, str) and words[:1] == "r" and words[1:].isdigit() else None


def play(seeds, path):
    told.clear()
    for seed in seeds:
        with open_store("memory:") as store:
            Case(seed, store, path / "list.json").play()


@pytest.mark.parametrize("part", range(4))
def test_whatever_is_accepted_can_be_sent(part, tmp_path):
    play(range(part * 50, (part + 1) * 50), tmp_path)


@pytest.mark.stress
@pytest.mark.timeout(900)
def test_two_thousand_cases(tmp_path):
    play(range(10_000, 12_000), tmp_path)


def test_the_cases_have_all_that_may_happen(tmp_path):
    """A generator of which everything is refused, or nothing, would let every test pass."""
    play(range(300, 400), tmp_path)
    for step in ("append", "bring", "send", "submit", "drive", "change", "mend"):
        assert told[step] >= 8, told
    assert told["append: InvalidInput"] > 10
    assert told["send: InvalidInput"] > 5
    assert told["submit: InvalidInput"] > 2


def stored_by_an_earlier_version(message):
    """Whether a version before the table of fields would have stored a message."""
    try:
        _check_content(message)
    except InvalidInput:
        return False
    return True


def test_whatever_an_earlier_version_has_stored_can_be_sent():
    rng = random.Random(5)
    stored = 0
    for _ in range(400):
        maker = Foreign(rng)
        messages = [maker.strange(message) for _ in range(3) for message in maker.exchange()]
        messages = [
            {name: message[name] for name in ("role", "content")} if rng.random() < 0.9 else message
            for message in messages
            if stored_by_an_earlier_version(message)
        ]
        entries = [
            make_entry("message", message=message, position=place, surrogates=True)
            for place, message in enumerate(messages)
        ]
        before = copy.deepcopy(messages)
        made = build_view(entries)
        assert messages == before
        sent = made.messages
        if not sent or sent[-1]["role"] == "assistant":
            sent = build_view(add_next_message(entries)).messages
        assert find_refusal(sent) == [], messages
        json.dumps(sent, ensure_ascii=False).encode()
        stored += len(messages)
    assert stored > 1000
