"""The cache of views: a turn with a cached view makes two appends and no read, and never misses another writer."""

from __future__ import annotations

import random

import anthropic
import pytest

from chathistory import ChatEngine, History
from chathistory.engine import view_cache
from chathistory.testing import FakeMessagesAPI
from chathistory.testing.fake_api import Failure, Reply

MODEL = "claude-sonnet-5-5"
THOUGHT = {"type": "thinking", "thinking": "hm", "signature": ""}


@anthropic.beta_tool
def weather(city: str) -> str:
    """Tell the weather of a city."""
    return "sun"


@pytest.fixture
def counted_store(open_again, monkeypatch):
    """Return a store, and the list of its methods that were called."""
    store, calls = open_again(), []
    for name in ("read", "append"):
        method = getattr(store, name)
        monkeypatch.setattr(
            store, name, lambda *a, _name=name, _method=method, **k: (calls.append(_name), _method(*a, **k))[1]
        )
    return store, calls


def sent_texts(api) -> list[str]:
    return [str(message["content"]) for message in api.requests[-1].body["messages"]]


def test_a_warm_turn_is_two_appends(counted_store):
    store, calls = counted_store
    api = FakeMessagesAPI(lambda _: [THOUGHT, {"type": "text", "text": "hi"}])
    engine = ChatEngine(api.client(), store, model=MODEL)
    engine.send("a", "one")
    calls.clear()
    for words in ("two", "three"):
        engine.send("a", words)
        with engine.stream("a", words) as stream:
            assert stream.get_final_reply().text == "hi"
    assert calls == ["append"] * 8
    assert api.requests[-1].body["messages"] == History(store).conversation("a").messages()[:-1]
    api.assert_extends()


def test_a_message_of_another_process_is_sent_too(counted_store, chat_of):
    store, _ = counted_store
    api = FakeMessagesAPI("hi")
    engine = ChatEngine(api.client(), store, model=MODEL)
    engine.send("a", "one")
    chat_of("a").append({"role": "user", "content": "from elsewhere"})
    engine.send("a", "two")
    assert sent_texts(api)[-2:] == ["from elsewhere", "two"]


def test_a_message_of_another_thread_is_sent_too(counted_store):
    store, _ = counted_store
    api = FakeMessagesAPI("hi")
    engine = ChatEngine(api.client(), store, model=MODEL)
    engine.send("a", "one")
    History(store).conversation("a").append({"role": "user", "content": "from here"})
    engine.send("a", "two")
    assert sent_texts(api)[-2:] == ["from here", "two"]


def test_a_recreated_or_rewound_conversation_is_read_again(counted_store, chat_of, open_again):
    store, _ = counted_store
    api = FakeMessagesAPI("hi")
    engine = ChatEngine(api.client(), store, model=MODEL)
    engine.send("a", "one")
    History(open_again()).delete("a")
    chat_of("a").append({"role": "user", "content": "again"})
    engine.send("a", "two")
    assert sent_texts(api) == ["again", "two"]
    chat_of("a").rewind(to=0)
    engine.send("a", "three")
    assert sent_texts(api) == ["three"]


def test_a_title_set_elsewhere_costs_one_retry(counted_store, chat_of):
    store, calls = counted_store
    api = FakeMessagesAPI("hi")
    engine = ChatEngine(api.client(), store, model=MODEL)
    engine.send("a", "one")
    chat_of("a").set_title("A title")
    calls.clear()
    engine.send("a", "two")
    assert sent_texts(api)[::2] == ["one", "two"]
    assert calls.count("append") == 3  # the first one conflicted with the title, and was repeated
    assert chat_of("a").info().title == "A title"


def test_tool_turns_are_cached(counted_store):
    store, calls = counted_store
    call = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "A"}}
    api = FakeMessagesAPI([[call], "sunny", "bye"])
    engine = ChatEngine(api.client(), store, model=MODEL)
    engine.run_tools("a", "the weather?", tools=[weather])
    calls.clear()
    engine.run_tools("a", "thanks", tools=[weather])
    assert "read" not in calls
    assert [message["role"] for message in api.requests[-1].body["messages"]] == ["user", "assistant"] * 2 + ["user"]
    api.assert_extends()


def test_a_call_that_awaits_its_result_is_cached(counted_store):
    store, calls = counted_store
    call = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {}}
    api = FakeMessagesAPI([[THOUGHT, call], "sunny", [THOUGHT, call], "rain"])
    engine = ChatEngine(api.client(), store, model=MODEL, tools=[weather.to_dict()])
    for words in ("one", "two"):
        engine.send("a", words)
        calls.clear()
        engine.send("a", [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "ok"}])
        assert calls == ["append", "append"]
    assert api.requests[-1].body["messages"] == History(store).conversation("a").messages()[:-1]


def test_a_refusal_is_cached(counted_store):
    store, calls = counted_store
    api = FakeMessagesAPI(["hi", Failure(400, message="messages.2.content: no"), "fine"])
    engine = ChatEngine(api.client(), store, model=MODEL)
    engine.send("a", "one")
    with pytest.raises(anthropic.BadRequestError):
        engine.send("a", "two")
    calls.clear()
    engine.send("a", "three")
    assert calls == ["append", "append"]
    assert sent_texts(api)[::2] == ["one", "three"]
    assert api.requests[-1].body["messages"] == History(store).conversation("a").messages()[:-1]


def test_a_repeated_turn_id_is_recognized(counted_store):
    store, _ = counted_store
    api = FakeMessagesAPI("hi")
    engine = ChatEngine(api.client(), store, model=MODEL)
    first = engine.send("a", "one", turn_id="T")
    engine.send("a", "two")
    assert engine.send("a", "one", turn_id="T").position == first.position
    assert len(api.requests) == 2


def test_only_recent_conversations_are_cached(counted_store, monkeypatch):
    store, calls = counted_store
    monkeypatch.setattr(view_cache, "MAX_CONVERSATIONS", 2)
    engine = ChatEngine(FakeMessagesAPI("hi").client(), store, model=MODEL)
    for name in "abc":
        engine.send(name, "one")
    for name, reads in (("b", 0), ("a", 1)):
        calls.clear()
        engine.send(name, "two")
        assert bool(calls.count("read")) == bool(reads), name


def test_a_reply_that_paused_and_then_said_nothing_is_read_again(counted_store):
    """The open server tool call is in the request, and may have to be left out of the next one."""
    store, _ = counted_store
    search = {"type": "server_tool_use", "name": "web_search", "input": {"query": "x"}}
    api = FakeMessagesAPI([Reply(content=[search], stop_reason="pause_turn"), Reply(content=[]), "fine"])
    engine = ChatEngine(api.client(), store, model=MODEL)
    engine.send("a", "one")
    assert engine.send("a", "two").text == "fine"
    assert sent_texts(api) == ["one", "two"]


def test_an_empty_reply_keeps_a_system_message_in_its_place(counted_store):
    """The user's next message joins the one before, and the system message follows both."""
    store, _ = counted_store
    api = FakeMessagesAPI([Reply(content=[]), "fine", "well"])
    engine = ChatEngine(api.client(), store, model=MODEL)
    chat = History(store).conversation("a")
    chat.append({"role": "system", "content": "be brief"})
    engine.send("a", "one")
    assert engine.send("a", "two").text == "fine"
    assert sent_texts(api) == ["one", "two", "be brief"]


def make_any_reply(dice: random.Random) -> Reply:
    text = {"type": "text", "text": dice.choice(["fine", "a\ud800"])}
    return dice.choice(
        [
            Reply(content=[text]),
            Reply(content=[THOUGHT, text]),
            Reply(content=[THOUGHT, text], stop_reason="max_tokens"),
            Reply(content=[text], stop_reason="refusal"),
            Reply(content=[text, {"type": "hologram", "depth": 3}]),
            Reply(content=[]),
            Reply(content=[], stop_reason="refusal"),
            Reply(content=[{"type": "text", "text": " "}]),
            Reply(
                content=[THOUGHT, {"type": "tool_use", "id": f"toolu_{dice.randrange(3)}", "name": "f", "input": {}}]
            ),
            Reply(content=[{"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {}}, text]),
        ]
    )


@pytest.mark.parametrize("seed", range(40))
def test_the_cached_view_equals_the_view_of_the_log(counted_store, seed):
    store, _ = counted_store
    dice, wrong = random.Random(seed), []
    chat = History(store).conversation("a")

    def answer(body):
        wrong.extend([body["messages"]] if body["messages"] != History(store).conversation("a").messages() else [])
        return make_any_reply(dice)

    engine = ChatEngine(FakeMessagesAPI(answer).client(), store, model=MODEL)
    for number in range(10):
        role = dice.choices(["engine", "system", "user"], [6, 2, 1])[0]
        if role == "engine":
            engine.send("a", f"question {number}")
        else:
            chat.state()
            chat.append({"role": role, "content": f"words {number}"})
    assert wrong == []
