"""`run_tools` and `submit`; the stored setup (model, system prompt, tools); containers."""

from __future__ import annotations

import asyncio
import warnings

import anthropic
import pytest
from stored_entries import list_entries, list_kinds

from chathistory import AsyncChatEngine, ChatEngine, errors
from chathistory.engine.request import SetupChangedWarning
from chathistory.testing import FakeMessagesAPI
from chathistory.testing.fake_api import Cut, Failure, Reply

MODEL = "claude-sonnet-5-5"
CITIES = {"toolu_0": "A", "toolu_1": "B"}
CALLS = [{"type": "tool_use", "id": id, "name": "weather", "input": {"city": city}} for id, city in CITIES.items()]
THOUGHT = {"type": "thinking", "thinking": "hm", "signature": ""}


@anthropic.beta_tool
def weather(city: str) -> str:
    """Tell the weather of a city."""
    return f"sun in {city}"


@anthropic.beta_async_tool
async def forecast(city: str) -> str:
    """Tell the weather of a city."""
    return f"sun in {city}"


forecast.name = "weather"


def run_tools(open_again, api, content="the weather?", **options):
    return ChatEngine(api.client(), open_again(), model=MODEL).run_tools("a", content, tools=[weather], **options)


def test_the_tool_runner_is_used_and_each_message_is_stored_at_once(open_again, chat_of):
    seen = []

    def reply(body):
        seen.append(list_kinds(chat_of("a")))
        return [THOUGHT, *CALLS] if len(body["messages"]) == 1 else "sunny"

    api = FakeMessagesAPI(reply)
    assert run_tools(open_again, api).text == "sunny"
    assert seen == [["message"], ["message"] * 3]
    results = list_entries(chat_of("a"))[2].message
    assert [(block["tool_use_id"], block["content"]) for block in results["content"]] == [
        ("toolu_0", "sun in A"),
        ("toolu_1", "sun in B"),
    ]
    assert chat_of("a").state().engine.open_turn is None
    assert chat_of("a").messages() == [*api.requests[-1].body["messages"], list_entries(chat_of("a"))[-1].message]
    api.assert_extends()


def test_the_asynchronous_tool_runner_is_used(open_again, chat_of):
    api = FakeMessagesAPI([CALLS, "sunny"])

    async def main():
        async with AsyncChatEngine(api.async_client(), open_again(), model=MODEL) as engine:
            return await engine.run_tools("a", "the weather?", tools=[forecast])

    assert asyncio.run(main()).text == "sunny"
    assert list_kinds(chat_of("a")) == ["message"] * 4
    assert chat_of("a").state().engine.open_turn is None


def test_others_wait_while_tools_are_run(open_again, chat_of, engine_on):
    def reply(body):
        if len(body["messages"]) > 1:
            with pytest.raises(errors.TurnInProgress):
                engine_on(FakeMessagesAPI()).send("a", "me first")
        return CALLS if len(body["messages"]) == 1 else "sunny"

    assert run_tools(open_again, FakeMessagesAPI(reply)).text == "sunny"


def test_a_failure_between_tools_can_be_resumed(open_again, chat_of):
    api = FakeMessagesAPI([CALLS, Failure(500), "sunny after all"])
    with pytest.raises(anthropic.InternalServerError):
        run_tools(open_again, api)
    assert list_kinds(chat_of("a")) == ["message", "message", "message", "turn_abandoned"]
    assert run_tools(open_again, api, None).text == "sunny after all"
    with pytest.raises(errors.TurnError):
        run_tools(open_again, api, None)
    api.assert_extends()


def test_a_conversation_continues_after_a_tool_killed_its_process(open_again, chat_of):
    @anthropic.beta_tool
    def deadly(city: str) -> str:
        """Tell the weather of a city."""
        raise KeyboardInterrupt

    deadly.name = "weather"
    api = FakeMessagesAPI([CALLS, "never mind"])
    engine = ChatEngine(api.client(), open_again(), model=MODEL)
    with pytest.raises(KeyboardInterrupt):
        engine.run_tools("a", "the weather?", tools=[deadly])
    assert run_tools(open_again, api, None).text == "never mind"
    results = api.requests[-1].body["messages"][-1]["content"]
    assert [block["is_error"] for block in results] == [True, True]
    assert results == list_entries(chat_of("a"))[-2].message["content"]  # sent as it is stored
    api.assert_extends()


def test_a_turn_id_given_twice_runs_no_tool_twice(open_again, chat_of):
    api = FakeMessagesAPI([CALLS, "sunny"])
    for _ in range(2):
        assert run_tools(open_again, api, turn_id="T").text == "sunny"
    assert len(api.requests) == 2


def test_an_incomplete_call_is_not_returned(engine_on):
    cut = Reply(content=CALLS, stop_reason="max_tokens")
    reply = engine_on(FakeMessagesAPI([cut]), tools=[weather.to_dict()]).send("a", "the weather?")
    assert [call["id"] for call in reply.tool_calls] == ["toolu_0"]


def test_the_setup_is_stored_when_it_changes(open_again, chat_of):
    api = FakeMessagesAPI()

    def send(**arguments):
        ChatEngine(api.client(), open_again(), **{"model": MODEL, **arguments}).send("a", "hello")

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        send(system="Be brief.")
        send(system="Be brief.")
    with pytest.warns(SetupChangedWarning, match="with a different system prompt: its earlier thinking"):
        send(system="Be long.")
    with pytest.warns(SetupChangedWarning, match="with a different model$"):
        send(system="Be long.", model="claude-opus-5-5")
    with pytest.warns(SetupChangedWarning, match="with a different system prompt and tools: "):
        send(model="claude-opus-5-5", tools=[weather.to_dict()])
    setups = [entry for entry in chat_of("a").entries() if entry.kind == "setup"]
    assert [entry.data.get("system") for entry in setups] == ["Be brief.", "Be long.", "Be long.", None]
    assert [entry.data["model"] for entry in setups] == [MODEL, MODEL, "claude-opus-5-5", "claude-opus-5-5"]
    assert setups[-1].data["tools"] == [weather.to_dict()]


def test_thinking_that_was_bound_to_another_system_prompt_is_not_sent(open_again, chat_of):
    api = FakeMessagesAPI(
        [[THOUGHT, {"type": "text", "text": "one"}], [THOUGHT, {"type": "text", "text": "two"}], "three"]
    )
    ChatEngine(api.client(), open_again(), model=MODEL, system="Be brief.").send("a", "hello")
    other = ChatEngine(api.client(), open_again(), model=MODEL, system="Be long.")
    with pytest.warns(SetupChangedWarning):
        other.send("a", "more")  # the fake API refuses thinking that is bound to another system prompt
    other.send("a", "more")
    types = [[block["type"] for block in message["content"]] for message in api.requests[-1].body["messages"][1::2]]
    assert types == [["text"], ["thinking", "text"]]


def test_a_container_is_used_whatever_expires_at_says(engine_on, chat_of):
    alive = Reply(content="a", extra={"container": {"id": "container_1", "expires_at": "2999-01-01T00:00:00Z"}})
    over = Reply(content="b", extra={"container": {"id": "container_2", "expires_at": "2020-01-01T00:00:00Z"}})
    api = FakeMessagesAPI([alive, over, "c"])
    for _ in range(3):
        engine_on(api).send("a", "hello")
    assert [request.body.get("container") for request in api.requests] == [None, "container_1", "container_2"]


def test_a_container_in_the_options_comes_first(engine_on):
    extra = {"container": {"id": "container_1", "expires_at": "2999-01-01T00:00:00Z"}}
    api = FakeMessagesAPI([Reply(content="a", extra=extra), "b"])
    for _ in range(2):
        engine_on(api, options={"container": "mine"}).send("a", "hello")
    assert [request.body["container"] for request in api.requests] == ["mine", "mine"]


def test_a_context_window_that_is_full_is_a_reply_like_any_other(engine_on, chat_of):
    api = FakeMessagesAPI([Reply(content="cut", stop_reason="model_context_window_exceeded"), "on"])
    engine = engine_on(api)
    assert engine.send("a", "hello").stop_reason == "model_context_window_exceeded"
    assert engine.send("a", "more").text == "on"


def test_a_broken_stream_within_a_tool_turn_keeps_the_turn_whole(engine_on, chat_of):
    engine = engine_on(FakeMessagesAPI([CALLS, Cut("sunny", 5), "sunny"]), tools=[weather.to_dict()])
    calls = engine.send("a", "the weather?").tool_calls
    results = [{"type": "tool_result", "tool_use_id": call["id"], "content": "sun"} for call in calls]
    with pytest.raises(errors.IncompleteReply), engine.stream("a", results) as stream:
        list(stream)
    assert engine.resume("a").text == "sunny"
    assert [message["role"] for message in chat_of("a").messages()] == ["user", "assistant", "user", "assistant"]


@pytest.mark.parametrize("awaited", [False, True])
def test_results_are_submitted_by_the_ids_of_the_calls(open_again, chat_of, awaited):
    toolset = CALLS[0] | {"id": "toolu_2", "toolset_name": "sky"}
    api = FakeMessagesAPI([[*CALLS, toolset], "sunny"], check_thinking=False)
    results = {"toolu_2": [{"type": "text", "text": "rain"}], "toolu_0": "sun", "toolu_1": ValueError("no such city")}

    async def submit_async():
        async with AsyncChatEngine(api.async_client(), open_again(), model=MODEL, tools=[weather.to_dict()]) as engine:
            reply = await engine.send("a", "the weather?")
            with pytest.raises(errors.InvalidInput, match="no tool call 'toolu_9'"):
                await engine.submit("a", reply, {"toolu_9": "x"})
            return await engine.submit("a", reply, results)

    if awaited:
        assert asyncio.run(submit_async()).text == "sunny"
    else:
        engine = ChatEngine(api.client(), open_again(), model=MODEL, tools=[weather.to_dict()])
        assert engine.submit("a", engine.send("a", "the weather?"), results).text == "sunny"
    assert chat_of("a").messages()[2]["content"] == [
        {"type": "tool_result", "tool_use_id": "toolu_0", "content": "sun"},
        {"type": "tool_result", "tool_use_id": "toolu_1", "content": "ValueError: no such city", "is_error": True},
        {"type": "tool_result", "tool_use_id": "toolu_2", "content": results["toolu_2"], "toolset_name": "sky"},
    ]


# What is sent between the rounds of a tool loop.

UNUSUAL_REPLIES = {
    "an empty text": [{"type": "text", "text": ""}, CALLS[0]],
    "one id twice": [CALLS[0], CALLS[0] | {"input": {"city": "B"}}],
    "an id that the API refuses": [CALLS[0] | {"id": "functions.weather:0"}],
    "an empty thought": [{"type": "thinking", "thinking": "", "signature": ""}, CALLS[0]],
}


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("name", UNUSUAL_REPLIES)
@pytest.mark.parametrize("is_known", [False, True])
def test_each_round_sends_the_view_of_the_log(open_again, chat_of, name, asynchronous, is_known):
    wrong, replies = [], ["hi", UNUSUAL_REPLIES[name], UNUSUAL_REPLIES[name], "sunny"]

    def reply(body):
        wrong.extend([body["messages"]] if body["messages"] != chat_of("a").messages() else [])
        return replies.pop(0)

    async def main():
        async with AsyncChatEngine(api.async_client(), open_again(), model=MODEL, tools=[forecast]) as engine:
            if is_known:
                await engine.send("a", "hello")
            return await engine.run_tools("a", "the weather?", tools=[forecast])

    del replies[: 0 if is_known else 1]
    api = FakeMessagesAPI(reply)
    if asynchronous:
        assert asyncio.run(main()).text == "sunny"
    else:
        engine = ChatEngine(api.client(), open_again(), model=MODEL, tools=[weather])
        if is_known:
            engine.send("a", "hello")
        assert engine.run_tools("a", "the weather?", tools=[weather]).text == "sunny"
    assert wrong == []
    assert all(request.rule is None for request in api.requests)
    api.assert_extends()


def test_a_reference_to_an_undefined_tool_is_not_sent(open_again):
    @anthropic.beta_tool
    def weather(city: str) -> str:
        """Find a tool."""
        return [{"type": "tool_reference", "tool_name": "gone"}]

    api = FakeMessagesAPI([CALLS[:1], "nothing found"])
    engine = ChatEngine(api.client(), open_again(), model=MODEL)
    assert engine.run_tools("a", "the weather?", tools=[weather]).text == "nothing found"


def test_a_reply_that_paused_is_sent_back_and_continued(open_again, chat_of):
    search = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "x"}}
    found = {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": []}
    api = FakeMessagesAPI(
        [Reply(content=[search], stop_reason="pause_turn"), Reply(content=[found, CALLS[0]]), "sunny"]
    )
    engine = ChatEngine(api.client(), open_again(), model=MODEL)
    web = {"type": "web_search_20250305", "name": "web_search"}
    assert engine.run_tools("a", "the weather?", tools=[weather, web]).text == "sunny"
    assert chat_of("a").messages()[:-1] == api.requests[-1].body["messages"]
    api.assert_extends()


def test_a_round_of_tools_is_two_appends_and_no_read(open_again, monkeypatch):
    store, steps = open_again(), []
    api = FakeMessagesAPI(["hi", CALLS, [CALLS[0] | {"id": "toolu_2"}], "sunny"])
    engine = ChatEngine(api.client(), store, model=MODEL, tools=[weather])
    engine.send("a", "hello")
    for name in ("read", "append"):
        method = getattr(store, name)
        counted = lambda *a, _name=name, _method=method, **k: (steps.append(_name), _method(*a, **k))[1]  # noqa: E731
        monkeypatch.setattr(store, name, counted)
    engine.run_tools("a", "the weather?", tools=[weather])
    assert steps == ["append"] * 6  # the question, two replies with their results, the last reply
