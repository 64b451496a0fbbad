"""The argument `expected`: a turn starts only if the conversation still has the version that the caller has seen."""

from __future__ import annotations

import asyncio

import anthropic
import pytest
from stored_entries import list_kinds

from chathistory import AsyncChatEngine, ChatEngine, errors
from chathistory.testing import FakeMessagesAPI
from chathistory.testing.fake_api import Failure

MODEL = "claude-sonnet-5-5"
TOOL = {"name": "weather", "input_schema": {"type": "object"}}
CALL = [{"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {}}]
WAYS = ["send", "stream", "run_tools", "submit", "submit partial"]


async def say(engine, way, reply, expected):
    """Send a message or results in one of the ways, with either engine."""
    results = {"toolu_1": "sun"}
    if way == "stream" and isinstance(engine, AsyncChatEngine):
        async with engine.stream("a", "second", expected=expected) as stream:
            return await stream.get_final_reply()
    if way == "stream":
        with engine.stream("a", "second", expected=expected) as stream:
            return stream.get_final_reply()
    made = {
        "send": lambda: engine.send("a", "second", expected=expected),
        "run_tools": lambda: engine.run_tools("a", "second", tools=[], expected=expected),
        "submit": lambda: engine.submit("a", reply, results, expected=expected),
        "submit partial": lambda: engine.submit("a", reply, results, partial=True, expected=expected),
    }[way]()
    return await made if asyncio.iscoroutine(made) else made


@pytest.mark.parametrize("awaited", [False, True])
@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_a_turn_starts_only_at_the_expected_version(open_again, chat_of, way, warm, awaited):
    """warm: the engine has the conversation in its cache."""
    api = FakeMessagesAPI([CALL if way.startswith("submit") else "first", "second reply"])
    store = open_again()

    async def main():
        first = ChatEngine(api.client(), store, model=MODEL, tools=[TOOL])
        reply = first.send("a", "hello")
        if awaited:
            engine = AsyncChatEngine(api.async_client(), store, model=MODEL, tools=[TOOL])
        else:
            engine = first if warm else ChatEngine(api.client(), open_again(), model=MODEL, tools=[TOOL])
        assert reply.version == chat_of("a").info().version
        before = list(chat_of("a").entries())
        for stale in ("no such version", "", chat_of("a").log.load(0, 1)[1][0].id):
            with pytest.raises(errors.Conflict):
                await say(engine, way, reply, stale)
        assert list(chat_of("a").entries()) == before
        assert len(api.requests) == 1
        chat_of("a").set_title("Only a title")
        done = await say(engine, way, reply, reply.version)
        assert done.text == "second reply"
        assert done.version == chat_of("a").info().version
        if awaited:
            await engine.close()

    if way == "run_tools":
        with pytest.warns(UserWarning, match="tools"):
            asyncio.run(main())
    else:
        asyncio.run(main())
    assert len(api.requests) == 2


@pytest.mark.parametrize("warm", [False, True])
def test_a_message_added_meanwhile_is_a_conflict(open_again, chat_of, warm):
    api = FakeMessagesAPI("hi")
    engine = ChatEngine(api.client(), open_again(), model=MODEL)
    page = engine.send("a", "hello").version
    if not warm:
        engine = ChatEngine(api.client(), open_again(), model=MODEL)
    others = chat_of("a")
    others.state()
    others.append({"role": "user", "content": "from elsewhere"})
    with pytest.raises(errors.Conflict):
        engine.send("a", "second", expected=page)
    assert len(api.requests) == 1
    engine.send("a", "second", expected=others.version)
    assert [message["content"] for message in api.requests[-1].body["messages"]][-2:] == ["from elsewhere", "second"]


def test_the_first_message_can_be_guarded_too(engine_on, chat_of):
    page = chat_of("a")
    assert page.messages() == []
    first = engine_on(FakeMessagesAPI("hi")).send("a", "hello", expected=page.version)
    with pytest.raises(errors.Conflict):
        engine_on(FakeMessagesAPI("hi")).send("a", "hello", expected=page.version)
    assert chat_of("a").info().version == first.version


def test_a_turn_id_is_answered_although_its_own_turn_changed_the_version(engine_on):
    api = FakeMessagesAPI(["first", Failure(500), "second reply"])
    page = engine_on(api).send("a", "hello").version
    with pytest.raises(anthropic.InternalServerError):
        engine_on(api).send("a", "second", turn_id="T", expected=page)
    reply = engine_on(api).send("a", "second", turn_id="T", expected=page)
    assert reply.text == "second reply"
    assert engine_on(api).send("a", "second", turn_id="T", expected=page).position == reply.position
    assert len(api.requests) == 3


def test_repeating_a_message_without_a_turn_id_is_guarded_too(engine_on, chat_of):
    api = FakeMessagesAPI(["first", Failure(500), "second reply"])
    page = engine_on(api).send("a", "hello").version
    with pytest.raises(anthropic.InternalServerError):
        engine_on(api).send("a", "second", expected=page)
    with pytest.raises(errors.Conflict):  # without a turn id it may be another message
        engine_on(api).send("a", "second", expected=page)
    assert engine_on(api).send("a", "second", expected=chat_of("a").info().version).text == "second reply"
    assert list_kinds(chat_of("a")) == ["message"] * 3 + ["turn_abandoned", "turn_opened", "message"]


def test_an_engine_with_an_older_cached_view_reads_again(open_again, chat_of):
    """The version is newer than the engine's cached view: the messages in between are sent, too."""
    api = FakeMessagesAPI("hi")
    engine = ChatEngine(api.client(), open_again(), model=MODEL)
    engine.send("a", "hello")
    others = chat_of("a")
    others.state()
    version = others.append({"role": "user", "content": "from elsewhere"}).version
    engine.send("a", "second", expected=version)
    assert [message["content"] for message in api.requests[-1].body["messages"]][-2:] == ["from elsewhere", "second"]
