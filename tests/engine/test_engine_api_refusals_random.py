"""Random conversations in which the API refuses a random block: they continue, and no other block is marked.

The fake API refuses a block permanently, wherever it is sent, as the API does with an image that it cannot read. Its
error names the place, or not, with a text of the table. More cases:
`python tests/engine/test_engine_api_refusals_random.py 2000`
"""

from __future__ import annotations

import itertools
import random
import sys
from uuid import uuid4

import anthropic
import pytest
from reported_api_errors import CASES, OTHER, SIZE

from chathistory import ChatEngine, History, open_store
from chathistory.errors import InvalidInput, TurnError
from chathistory.testing import FakeMessagesAPI
from chathistory.testing.fake_api import Failure

pytestmark = pytest.mark.wide

MODEL = "claude-sonnet-5-5"
TOOLS = [{"name": name, "input_schema": {"type": "object"}} for name in ("shot", "weather")]
ANYTHING = [case for case in CASES if case.kind in (SIZE, OTHER)]
OPEN = "thinking of the open turn that is not as the API gave it"
WORDS = (
    "image.source.base64: image exceeds 5 MB maximum: 8259148 bytes > 5242880 bytes",
    "pdf.source.base64.data: The PDF specified was not valid.",
    "text: something about it",
)


class RefusingConversation:
    """A conversation with a fake API that refuses each block with the unique mark in `poison`."""

    def __init__(self, seed):
        self.rng = random.Random(seed)
        self.url = f"memory:{uuid4().hex}"
        self.store = open_store(self.url)
        self.api = FakeMessagesAPI(self.make_reply, refuse=self.refuse)
        self.numbers = itertools.count()
        self.poison = None
        self.is_path_named = True
        self.next_failure = None
        self.sent_contents = []
        self.engine = self.make_engine()

    def make_engine(self):
        return ChatEngine(self.api.client(), self.store, model=MODEL, tools=TOOLS)

    def make_mark(self):
        return f"mark{next(self.numbers):06d}"

    # The messages and replies.

    def make_block(self):
        kind = self.rng.choice(["text", "text", "image", "document", "file"])
        mark = self.make_mark()
        if kind == "text":
            return {"type": "text", "text": f"words {mark}"}
        if kind == "image":
            return {"type": "image", "source": {"type": "url", "url": f"https://e.org/{mark}.png"}}
        if kind == "document":
            return {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": mark}}
        return {"type": "document", "source": {"type": "file", "file_id": f"file_{mark}"}}

    def make_blocks(self):
        return [self.make_block() for _ in range(self.rng.choice([1, 1, 2, 4]))]

    def make_reply(self, _):
        thought = [{"type": "thinking", "thinking": f"hm {self.make_mark()}", "signature": ""}] * self.rng.randrange(2)
        words = [{"type": "text", "text": f"reply {self.make_mark()}"}]
        calls = [
            {
                "type": "tool_use",
                "id": f"toolu_{self.make_mark()}",
                "name": self.rng.choice(["shot", "weather"]),
                "input": {},
            }
            for _ in range(self.rng.choice([0, 0, 1, 2]))
        ]
        return [*thought, *words, *calls]

    # The refusals.

    def refuse(self, body):
        failure, self.next_failure = self.next_failure, None
        if failure:
            return failure
        for number, message in enumerate(body["messages"]):
            content = message["content"]
            for index, block in enumerate(content if isinstance(content, list) else [content]):
                if self.poison and self.poison in str(block):
                    return self.make_refusal(block, f"messages.{number}.content.{index}", block)
        return None

    def make_refusal(self, block, path, inner):
        if isinstance(block, dict) and block["type"] == "tool_result" and isinstance(block["content"], list):
            at, inner = next((at, part) for at, part in enumerate(block["content"]) if self.poison in str(part))
            path += f".tool_result.content.{at}"
        kind = inner["type"] if isinstance(inner, dict) else "text"
        if kind == "thinking":
            return Failure(400, message=f"{path}: Invalid `signature` in `thinking` block")
        if "file_" in str(inner) and not self.is_path_named:
            return Failure(404, "not_found_error", f"File not found: file_{self.poison}", code="file_expired")
        return Failure(400, message=f"{path}.{self.rng.choice(WORDS)}")

    # The steps.

    def send_message(self):
        """Send text, blocks, the results of open tool calls, or text instead of them."""
        content = self.rng.choice([f"words {self.make_mark()}", self.make_blocks()])
        calls = self.list_open_calls()
        if calls and self.rng.random() < 0.7:
            results = {
                call["id"]: self.rng.choice([f"result {self.make_mark()}", self.make_blocks()]) for call in calls
            }
            content = [{"type": "tool_result", "tool_use_id": id, "content": said} for id, said in results.items()]
            content += self.make_blocks() if self.rng.random() < 0.2 else []
        self.sent_contents.append(content)
        way = self.rng.randrange(3)
        if way == 0:
            self.engine = self.make_engine()
        if way == 1:
            with self.engine.stream("a", content) as stream:
                return stream.get_final_reply()
        return self.engine.send("a", content)

    def list_open_calls(self):
        last = self.open_chat().last_messages(1)
        content = last[0]["content"] if last and last[0]["role"] == "assistant" else []
        return [block for block in content if block["type"] == "tool_use"]

    def open_chat(self):
        return History(open_store(self.url)).conversation("a")

    def list_sent_marks(self):
        """Return the marks in the messages that are sent."""
        return [word for word in str(self.open_chat().messages()).replace("'", " ").split() if "mark" in word]


def run_case(seed):
    """Run a conversation, refuse a part of it, and check that it continues. Return the kind of the refusal."""
    session = RefusingConversation(seed)
    for _ in range(session.rng.randrange(1, 7)):
        session.send_message()
    transient = session.rng.random() < 0.3
    if transient:
        session.next_failure = session.rng.choice(ANYTHING).failure
    else:
        choose_poison(session)
    # three times: the poison may be in the next reply, which is refused with the message after it
    kinds = [send_and_react(session, transient=transient) for _ in range(3)]
    session.send_message()
    check_log(session)
    return next((kind for kind in kinds if kind != "accepted"), "accepted")


def send_and_react(session, *, transient):
    """Send a message; if it is refused, do what the error says, and return the kind of the refusal."""
    try:
        session.send_message()
    except anthropic.APIStatusError as error:
        return react_to_refusal(session, error, transient=transient)
    return "accepted"


def choose_poison(session):
    """Choose a block of the messages so far, or of the next ones, to be refused."""
    session.is_path_named = session.rng.random() < 0.8
    if session.rng.random() < 0.5:
        number = next(session.numbers)
        session.numbers = itertools.count(number)
        session.poison = f"mark{number + session.rng.randrange(3):06d}"
    else:
        session.poison = session.rng.choice([mark[mark.index("mark") :][:10] for mark in session.list_sent_marks()])


def react_to_refusal(session, error, *, transient):
    refusal = getattr(error, "refusal", None)
    chat = session.open_chat()
    assert chat.state().engine.open_turn is None, "the turn is closed"
    if transient:
        assert refusal is None or refusal.kind == "size"
        assert chat.view().report.omitted == ()
        session.engine.resume("a")
        return refusal and refusal.kind
    assert refusal is not None
    if refusal.kind == "earlier":
        chat.leave_out()
        session.engine = session.make_engine()
        resume_turn(session)
    elif session.rng.random() < 0.5:
        try:
            session.engine.resume("a")
        except TurnError:  # the whole turn was refused
            assert chat.view().report.omitted
    return refusal.kind


def resume_turn(session):
    """Resume the turn; if that needs thinking which was left out, leave out its reply as well, and resume again."""
    try:
        session.engine.resume("a")
    except anthropic.BadRequestError as error:
        if "cannot be modified" not in str(error):
            raise
        session.open_chat().leave_out()
        session.engine.resume("a")


def check_log(session):
    """Assert that no message is lost, and only messages with the refused block are left out."""
    chat = session.open_chat()
    stored = [entry.message["content"] for entry in chat.entries() if entry.kind == "message"]
    for content in session.sent_contents:
        assert content in stored, "a message is not stored as it was sent"
    by_position = {entry.position: entry for entry in chat.entries() if entry.kind == "message"}
    for each in chat.view().report.omitted:
        message = by_position[each.position].message
        assert session.poison in str(message) or each.description.endswith(OPEN), "another message was left out"


@pytest.mark.parametrize("start", range(0, 120, 20))
def test_any_conversation_continues_after_any_refusal(start):
    kinds = [run_case(seed) for seed in range(start, start + 20)]
    assert len(set(kinds)) >= 2


@pytest.mark.parametrize("seed", [10476, 10656, 11617])
def test_conversations_that_were_stuck_before_continue(seed):
    run_case(seed)


def test_all_kinds_of_refusals_occur():
    kinds = {run_case(seed) for seed in range(1000, 1060)}
    assert kinds >= {"turn", "earlier", "size", None}


def test_a_refusal_that_is_not_certain_is_not_left_out_without_asking():
    session = RefusingConversation(1)
    images = [{"type": "image", "source": {"type": "url", "url": f"https://e.org/{n}.png"}} for n in range(2)]
    session.engine.send("a", images)
    session.next_failure = Failure(400, message="Could not process image")
    with pytest.raises(anthropic.BadRequestError) as caught:
        session.engine.send("a", "And?")
    assert caught.value.refusal.certain is False
    with pytest.raises(InvalidInput, match=r"engine\.check"):
        session.open_chat().leave_out()


if __name__ == "__main__":
    count = int(sys.argv[1])
    kinds = [run_case(seed) for seed in range(10_000, 10_000 + count)]
    print(count, "cases;", {kind: kinds.count(kind) for kind in set(kinds)})  # noqa: T201
