"""Paid replies and tool results are never lost: they are stored, or on the error.

Also: incomplete replies, replies that cannot be stored, and fields of streams that the SDK leaves out.
"""

from __future__ import annotations

import asyncio
import io
import itertools
import json
import sys

import anthropic
import pytest
from faulty_stores import FaultyStore, landed_then, shared_names, unavailable
from stored_entries import list_entries, list_kinds

from chathistory import AsyncChatEngine, ChatEngine, History, errors, open_store
from chathistory.engine import turn
from chathistory.errors import InvalidInput
from chathistory.messages.json_text import sdk_objects_to_dicts, to_json_text
from chathistory.testing import FakeMessagesAPI
from chathistory.testing.fake_api import Raw, Reply

MODEL = "claude-sonnet-5-5"
CALLS = [{"type": "tool_use", "id": f"toolu_{n}", "name": "pay", "input": {"amount": n}} for n in (1, 2)]


@pytest.fixture(autouse=True)
def _no_retry_delays(monkeypatch):
    monkeypatch.setattr(turn, "RETRY_DELAYS", (0, 0, 0))


@pytest.fixture
def payments():
    """Return the list of paid amounts, and the tool that pays."""
    amounts = []

    @anthropic.beta_tool
    def pay(amount: int) -> str:
        """Pay an amount."""
        amounts.append(amount)
        return f"paid {amount}"

    return amounts, pay


@pytest.fixture
def async_payments():
    amounts = []

    @anthropic.beta_async_tool
    async def pay(amount: int) -> str:
        """Pay an amount."""
        amounts.append(amount)
        return f"paid {amount}"

    return amounts, pay


@pytest.fixture
def store():
    with shared_names("kept"):
        yield FaultyStore("kept")


def chat():
    return History(open_store("memory:kept")).conversation("a")


def fail(_):
    raise gone


gone = unavailable("not stored")


def nest(levels):
    value = inner = {}
    for _ in range(levels):
        inner["a"] = {}
        inner = inner["a"]
    return value


def list_sent_results(api):
    last = api.requests[-1].body["messages"][-1]["content"]
    return [(block["tool_use_id"], block["content"]) for block in last if block["type"] == "tool_result"]


# Tools that ran.


def test_results_that_cannot_be_stored_are_on_the_error_and_can_be_sent_later(store, payments):
    amounts, pay = payments
    api = FakeMessagesAPI([CALLS, "both paid"])
    engine = ChatEngine(api.client(), store, model=MODEL)
    store.on_append = iter(
        [None, None, *[fail] * 10]
    )  # the question and the reply are stored; then the store cannot be reached
    with pytest.raises(errors.StoreUnavailable) as caught:
        engine.run_tools("a", "pay", tools=[pay])
    assert amounts == [1, 2]
    assert [block["content"] for block in caught.value.results] == ["paid 1", "paid 2"]
    assert "error.results" in "\n".join(caught.value.__notes__)
    store.clear_faults()
    assert engine.run_tools("a", caught.value.results, tools=[pay]).text == "both paid"
    assert amounts == [1, 2], "nothing was paid twice"
    assert list_sent_results(api) == [("toolu_1", "paid 1"), ("toolu_2", "paid 2")]


def test_results_on_the_error_can_be_sent_with_send(store, payments):
    amounts, pay = payments
    api = FakeMessagesAPI([CALLS, "both paid"])
    engine = ChatEngine(api.client(), store, model=MODEL, tools=[pay.to_dict()])
    store.on_append = iter([None, None, *[fail] * 10])
    with pytest.raises(errors.StoreUnavailable) as caught:
        engine.run_tools("a", "pay", tools=[pay])
    store.clear_faults()
    assert engine.send("a", caught.value.results).text == "both paid"
    assert amounts == [1, 2]


def test_storing_results_is_retried_and_stores_them_once(store, payments):
    amounts, pay = payments
    api = FakeMessagesAPI([CALLS, "both paid"])
    engine = ChatEngine(api.client(), store, model=MODEL)

    def landed_and_lost(call):
        call()
        raise unavailable()

    store.on_append = iter([None, None, landed_and_lost, fail, fail, fail])
    assert engine.run_tools("a", "pay", tools=[pay]).text == "both paid"
    assert amounts == [1, 2]
    assert list_kinds(chat()) == ["message"] * 4


def test_a_reply_is_stored_once_though_the_store_was_gone_for_a_while(store):
    engine = ChatEngine(FakeMessagesAPI(["hi", "again"]).client(), store, model=MODEL)
    store.on_append = iter([None, fail, fail, fail, None])
    assert engine.send("a", "hello").text == "hi"
    assert list_kinds(chat()) == ["message", "message"]
    assert engine.send("a", "more").text == "again"


def test_a_reply_that_cannot_be_stored_for_good_is_on_the_error(store):
    engine = ChatEngine(FakeMessagesAPI("hi").client(), store, model=MODEL)
    store.on_append = iter([None, *[fail] * 10])
    with pytest.raises(errors.StoreUnavailable) as caught:
        engine.send("a", "hello")
    assert caught.value.reply.text == "hi"
    store.clear_faults()
    assert engine.resume("a").text == "hi"


def set_title():
    History(open_store("memory:kept")).conversation("a").set_title("A title")


def test_results_that_were_stored_without_an_answer_and_followed_by_others_are_stored_once(store, payments):
    amounts, pay = payments
    api = FakeMessagesAPI([CALLS, "both paid"])
    engine = ChatEngine(api.client(), store, model=MODEL)
    store.on_append = iter([None, None, landed_then(set_title)])
    assert engine.run_tools("a", "pay", tools=[pay]).text == "both paid"
    assert amounts == [1, 2]
    assert list_kinds(chat()) == ["message", "message", "message", "annotation", "message"]
    assert list_sent_results(api) == [("toolu_1", "paid 1"), ("toolu_2", "paid 2")]


def test_a_reply_that_others_overtake_each_time_is_saved(store):
    def overtake_and_append(append):
        set_title()
        return append()

    engine = ChatEngine(FakeMessagesAPI("hi").client(), store, model=MODEL)
    store.on_append = iter([None, *[overtake_and_append] * 400])

    with pytest.raises(errors.OrphanedReply) as caught:
        engine.send("a", "hello")
    assert caught.value.reply.text == "hi"
    store.clear_faults()
    assert "reply_orphaned" in list_kinds(chat())


def test_a_message_that_others_overtake_each_time_is_a_conflict(store):
    def overtake_and_append(append):
        chat().append({"role": "user", "content": "me first"})
        return append()

    api = FakeMessagesAPI("hi")
    store.on_append = itertools.repeat(overtake_and_append)
    with pytest.raises(errors.Conflict):
        ChatEngine(api.client(), store, model=MODEL).send("a", "hello")
    store.clear_faults()
    assert "hello" not in [message["content"] for message in chat().messages()]
    assert api.requests == []


def test_the_asynchronous_runner_keeps_results_alike(store, async_payments):
    amounts, pay = async_payments
    api = FakeMessagesAPI([CALLS, "both paid"])

    async def main():
        async with AsyncChatEngine(api.async_client(), store, model=MODEL) as engine:
            store.on_append = iter([None, None, *[fail] * 10])
            with pytest.raises(errors.StoreUnavailable) as caught:
                await engine.run_tools("a", "pay", tools=[pay])
            store.clear_faults()
            return (await engine.run_tools("a", caught.value.results, tools=[pay])).text

    assert asyncio.run(main()) == "both paid"
    assert amounts == [1, 2]


UNSTORABLE = {
    "a dict": {"booked": True},
    "bytes": b"xy",
    "a list of text": ["a", "b"],
    "a list of numbers": [1],
    "a list of nothing": [None],
    "a tuple": (1, 2),
    "a set": {"a"},
    "an iterator": lambda: iter("xy"),
    "NaN": [{"type": "text", "text": float("nan")}],
    "nested 300 levels": [{"type": "text", "text": "x", "more": nest(300)}],
    "nested 20,000 levels": [{"type": "text", "text": "x", "more": nest(20_000)}],
    "raw data": [{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": b"x"}}],
}
COULD_NOT = "The tool ran, but its result could not be stored: result"


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("name", UNSTORABLE)
def test_a_result_that_cannot_be_stored_is_an_error_of_that_tool_alone(store, name, asynchronous):
    ran = []

    def pay(amount: int) -> str:
        """Pay an amount."""
        ran.append(amount)
        value = UNSTORABLE[name] if amount == 2 else f"paid {amount}"
        return value() if callable(value) else value

    async def paying(amount: int) -> str:
        """Pay an amount."""
        return pay(amount)

    async def main():
        async with AsyncChatEngine(api.async_client(), store, model=MODEL) as engine:
            tool = anthropic.beta_async_tool(paying, name="pay")
            return await engine.run_tools("a", "pay", tools=[tool])

    api = FakeMessagesAPI([CALLS, "both paid"])
    if asynchronous:
        assert asyncio.run(main()).text == "both paid"
    else:
        engine = ChatEngine(api.client(), store, model=MODEL)
        assert engine.run_tools("a", "pay", tools=[anthropic.beta_tool(pay)]).text == "both paid"
    assert sorted(ran) == [1, 2]
    good, bad = api.requests[-1].body["messages"][-1]["content"]
    assert good["content"] == "paid 1"
    assert (bad["tool_use_id"], bad["is_error"]) == ("toolu_2", True)
    assert bad["content"].startswith(COULD_NOT)
    assert chat().messages()[:-1] == api.requests[-1].body["messages"]


def test_a_tool_error_without_a_message_is_reported_by_its_type(open_again):
    class Wordless(Exception):
        def __str__(self):
            raise RuntimeError

    api = FakeMessagesAPI([CALLS[:1], "noted"])
    engine = ChatEngine(
        api.client(), open_again(), model=MODEL, tools=[{"name": "pay", "input_schema": {"type": "object"}}]
    )
    engine.submit("a", engine.send("a", "pay"), {"toolu_1": Wordless()})
    assert list_sent_results(api) == [("toolu_1", "Wordless")]


def test_results_for_a_conversation_that_others_changed_are_kept_and_on_the_error(open_again, payments):
    _, pay = payments

    @anthropic.beta_tool
    def spoil(amount: int) -> str:
        """Change the conversation while the tool runs."""
        History(open_again()).conversation("a").append({"role": "user", "content": "me too"})
        return f"paid {amount}"

    spoiling = [CALLS[0] | {"name": "spoil"}]
    engine = ChatEngine(FakeMessagesAPI([spoiling]).client(), open_again(), model=MODEL)
    with pytest.raises(errors.OrphanedReply) as caught:
        engine.run_tools("a", "pay", tools=[spoil, pay])
    assert caught.value.results[0]["content"] == "paid 1"
    assert list_entries(History(open_again()).conversation("a"))[-1].kind == "reply_orphaned"


# Replies that cannot be stored.

AWKWARD = {
    "nested over 200 levels": Reply(content=[CALLS[0] | {"input": nest(210)}, {"type": "text", "text": "words"}]),
    "nested over 700 levels": Reply(content=[CALLS[0] | {"input": nest(700)}, {"type": "text", "text": "words"}]),
    "a tool call without an id": Raw(
        json.dumps(
            {
                "id": "msg_1",
                "type": "message",
                "role": "assistant",
                "model": MODEL,
                "content": [{"type": "tool_use", "name": "pay", "input": {}}, {"type": "text", "text": "words"}],
                "stop_reason": "tool_use",
                "usage": {"input_tokens": 5, "output_tokens": 7},
            }
        ),
        content_type="application/json",
    ),
    "a number beyond a float": Raw(
        '{"id":"msg_1","type":"message","role":"assistant","model":"m","content":[{"type":"tool_use","id":"t","name":'
        '"pay","input":{"x":1e999}},{"type":"text","text":"words"}],"stop_reason":"tool_use","usage":{"input_tokens":5,'
        '"output_tokens":7}}',
        content_type="application/json",
    ),
}


@pytest.mark.parametrize("name", AWKWARD)
def test_a_reply_that_cannot_be_stored_is_on_the_error_and_saved_as_text(open_again, name):
    api = FakeMessagesAPI([AWKWARD[name], "later"])
    engine = ChatEngine(api.client(), open_again(), model=MODEL)
    with pytest.raises(InvalidInput) as caught:
        engine.send("a", "hello")
    reply = caught.value.reply
    assert reply.text == "words"
    assert reply.position == -1
    assert reply.stop_reason == "tool_use"
    entries = list_entries(History(open_again()).conversation("a"))
    assert [entry.kind for entry in entries] == ["message", "reply_orphaned"]
    assert to_json_text(sdk_objects_to_dicts(reply.message["content"])) in entries[1].data["raw"]
    assert entries[1].message["content"] == [{"type": "text", "text": "words"}]
    assert f"record {entries[1].position}" in "\n".join(caught.value.__notes__)
    found = History(open_again()).conversation("a")
    assert found.state().engine.open_turn is None
    assert found.state().totals.usage["output_tokens"] > 0, "it was paid for"
    assert engine.resume("a").text == "later"
    assert "words" not in str(api.requests[-1].body["messages"])


def test_a_reply_that_cannot_be_stored_at_all_is_on_the_error(store):
    engine = ChatEngine(FakeMessagesAPI([AWKWARD["a tool call without an id"], "later"]).client(), store, model=MODEL)
    store.on_append = iter([None, *[fail] * 4])
    with pytest.raises(InvalidInput) as caught:
        engine.send("a", "hello")
    assert caught.value.reply.text == "words"
    notes = "\n".join(caught.value.__notes__)
    assert "only this error's `reply` has the reply; saving it failed: the line went dead" in notes
    store.clear_faults()
    assert "reply_orphaned" not in list_kinds(chat())
    assert engine.resume("a").text == "later"


@pytest.mark.parametrize("name", ["nested over 200 levels", "nested over 700 levels"])
def test_a_streamed_reply_that_cannot_be_stored_is_saved_too(open_again, name):
    engine = ChatEngine(FakeMessagesAPI([AWKWARD[name], "later"]).client(), open_again(), model=MODEL)
    with pytest.raises(InvalidInput) as caught, engine.stream("a", "hello") as stream:
        list(stream)
    assert caught.value.reply.text == "words"
    assert list_kinds(History(open_again()).conversation("a")) == ["message", "reply_orphaned"]
    assert engine.resume("a").text == "later"


def test_the_tool_runner_and_the_asynchronous_engine_keep_them_too(open_again, payments, async_payments):
    name = "nested over 700 levels"
    engine = ChatEngine(FakeMessagesAPI([AWKWARD[name]]).client(), open_again(), model=MODEL)
    with pytest.raises(InvalidInput) as caught:
        engine.run_tools("a", "hello", tools=[payments[1]])
    assert caught.value.reply.text == "words"

    async def main():
        api = FakeMessagesAPI([AWKWARD[name]] * 2)
        async with AsyncChatEngine(api.async_client(), open_again(), model=MODEL) as engine:
            with pytest.raises(InvalidInput) as one:
                await engine.send("b", "hello")
            with pytest.raises(InvalidInput) as two:
                async with engine.stream("c", "hello") as stream:
                    await stream.get_final_reply()
            return one.value.reply.text, two.value.reply.text

    assert asyncio.run(main()) == ("words", "words")
    for id in ("a", "b", "c"):
        assert list_kinds(History(open_again()).conversation(id)) == ["message", "reply_orphaned"]


def test_json_text_of_anything_reads_back():
    value = {"a": [1, 2.5, None, True, {"b": []}, {}], "ä\ud800\n": {"c": -(10**5000)}, "d": nest(3)}
    digits = sys.get_int_max_str_digits()
    try:
        sys.set_int_max_str_digits(0)
        assert json.loads(to_json_text(value)) == value
    finally:
        sys.set_int_max_str_digits(digits)
    assert to_json_text([float("inf"), float("-inf"), float("nan"), b"x"]) == "[1e999,-1e999,null,\"b'x'\"]"
    assert to_json_text(nest(20_000)).count("{") == 20_001


def test_what_is_unpacked_is_what_the_sdk_gives():
    reply = Reply(content=[CALLS[0], {"type": "text", "text": "hi", "citations": None}, {"type": "new", "x": {"y": 1}}])
    with FakeMessagesAPI([reply]).client() as client:
        found = client.messages.create(model=MODEL, max_tokens=9, messages=[{"role": "user", "content": "x"}])
    assert sdk_objects_to_dicts(found) == found.to_dict(mode="json", warnings=False)


# Incomplete replies.

INCOMPLETE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": MODEL,
    "content": [{"type": "text", "text": "Half a"}],
    "stop_reason": None,
    "usage": {"input_tokens": 5, "output_tokens": 1},
}


@pytest.mark.parametrize("as_object", [True, False])
def test_an_incomplete_reply_cannot_be_appended(open_again, as_object):
    given = anthropic.types.Message.model_validate(INCOMPLETE) if as_object else INCOMPLETE
    conversation = History(open_again()).conversation("a")
    refusal = r"message\.stop_reason: must be text; null means that the reply was interrupted"
    with pytest.raises(InvalidInput, match=refusal):
        conversation.append([{"role": "user", "content": "hi"}, given])
    assert conversation.messages() == []
    conversation.append([{"role": "user", "content": "hi"}, INCOMPLETE | {"stop_reason": "end_turn"}])


def test_an_incomplete_reply_cannot_be_imported(open_again):
    file = io.BytesIO(json.dumps([{"role": "user", "content": "hi"}, INCOMPLETE]).encode())
    with pytest.raises(InvalidInput, match=r"stop_reason"):
        History(open_again()).import_from(file, id="a")
    assert History(open_again()).conversation("a").messages() == []


def test_an_incomplete_reply_of_the_api_is_saved_as_interrupted(open_again):
    raw = Raw(json.dumps(INCOMPLETE), content_type="application/json")
    engine = ChatEngine(FakeMessagesAPI([raw, "whole"]).client(), open_again(), model=MODEL)
    with pytest.raises(errors.IncompleteReply) as caught:
        engine.send("a", "hello")
    assert caught.value.reply.text == "Half a"
    entries = list_entries(History(open_again()).conversation("a"))
    assert [entry.kind for entry in entries] == ["message", "reply_interrupted"]
    assert entries[1].message["content"] == INCOMPLETE["content"]
    assert engine.resume("a").text == "whole"


def test_a_clients_own_dicts_are_replies_as_well(open_again):
    class Fake:
        def __init__(self):
            self.messages = self

        def create(self, **_):
            return INCOMPLETE | {"stop_reason": "end_turn"}

    assert ChatEngine(Fake(), open_again(), model=MODEL).send("a", "hello").text == "Half a"


# Fields of a stream that the SDK leaves out.

BETA_BLOCKS = [
    {"type": "mcp_tool_use", "id": "mcptoolu_1", "name": "find", "server_name": "s", "input": {"q": [1, {"z": "y"}]}},
    {"type": "mcp_tool_result", "tool_use_id": "mcptoolu_1", "content": [{"type": "text", "text": "found"}]},
    {"type": "compaction", "content": "in short", "encrypted_content": "EqQ="},
    {"type": "text", "text": "done"},
]


class Plain:
    """A client without a beta namespace."""

    def __init__(self, client):
        self.messages = client.messages


@pytest.mark.parametrize("wrapped", [lambda client: client, Plain])
def test_beta_blocks_of_a_stream_are_stored_whole(open_again, wrapped):
    engine = ChatEngine(wrapped(FakeMessagesAPI([Reply(content=BETA_BLOCKS)]).client()), open_again(), model=MODEL)
    with engine.stream("a", "hello") as stream:
        reply = stream.get_final_reply()
    stored = History(open_again()).conversation("a").last_messages(1)[0]["content"]
    assert stored == reply.message["content"]
    for block, given in zip(stored, BETA_BLOCKS, strict=True):
        assert {name: block.get(name) for name in given} == given


def test_beta_blocks_of_an_asynchronous_stream_are_stored_whole(open_again):
    async def main(client):
        async with AsyncChatEngine(client, open_again(), model=MODEL) as engine, engine.stream("a", "hello") as stream:
            return (await stream.get_final_reply()).message["content"]

    for wrapped in (lambda client: client, Plain):
        content = asyncio.run(main(wrapped(FakeMessagesAPI([Reply(content=BETA_BLOCKS)]).async_client())))
        assert content[0]["input"] == BETA_BLOCKS[0]["input"]
        assert content[2]["content"] == "in short"
