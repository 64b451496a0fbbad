"""`from_config` of both engines: which settings and scope they use, and what they close."""

from __future__ import annotations

import asyncio

import anthropic
import pytest

from chathistory import AsyncChatEngine, AsyncHistory, ChatEngine, History, open_history, open_store
from chathistory.errors import ConfigError, InvalidInput, StoreClosed
from chathistory.testing import FakeMessagesAPI

ENGINES = [ChatEngine, AsyncChatEngine]


@pytest.fixture(autouse=True)
def file(tmp_path, monkeypatch):
    """Write a configuration into the folder where the test runs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("ANTHROPIC_API_KEY", "x")
    path = tmp_path / "chathistory.toml"
    path.write_text(
        'store = "file:./history"\nscope = "ada"\nmodel = "claude-haiku-5-5"\nsystem = "Be brief."\nmax_tokens = 99\n'
        '[profiles.other]\nscope = "eve"\n'
    )
    return path


def run_calls(kind, *calls, client=None, **given):
    """Create an engine, make calls, close it, and return the results of the calls."""

    def run_sync():
        with ChatEngine.from_config(client, **given) as engine:
            return [call(engine) for call in calls]

    async def run_async():
        async with AsyncChatEngine.from_config(client, **given) as engine:
            return [await call(engine) for call in calls]

    return run_sync() if kind is ChatEngine else asyncio.run(run_async())


def client_of(kind, api):
    return api.client() if kind is ChatEngine else api.async_client()


@pytest.mark.parametrize("kind", ENGINES)
def test_arguments_take_precedence_over_the_configuration(kind):
    api = FakeMessagesAPI()
    run_calls(kind, lambda engine: engine.send("a", "hi"), client=client_of(kind, api))
    given = {"model": "claude-opus-5-5", "system": None, "max_tokens": 7, "cache": False, "scope": "bob"}
    run_calls(kind, lambda engine: engine.send("a", "hi"), client=client_of(kind, api), **given)
    one, other = (request.body for request in api.requests)
    assert (one["model"], one["system"], one["max_tokens"]) == ("claude-haiku-5-5", "Be brief.", 99)
    assert (other["model"], other.get("system"), other["max_tokens"]) == ("claude-opus-5-5", None, 7)
    assert "cache_control" in one
    assert "cache_control" not in other
    with open_history() as history:
        assert [row.id for row in history.list().items] == ["a"]
        assert [row.id for row in history.list(scope="bob").items] == ["a"]
        assert history.list(scope="default").items == []


@pytest.mark.parametrize("kind", ENGINES)
def test_configured_trimming_and_context_editing_are_used(kind, file):
    file.write_text(
        "store = 'memory:'\n[trimming]\ntrigger_turns = 2\nkeep_turns = 1\n[context_editing]\nclear_thinking = true\n"
    )
    api = FakeMessagesAPI()
    run_calls(kind, *[lambda engine: engine.send("a", "hi")] * 4, client=client_of(kind, api))
    assert [len(request.body["messages"]) for request in api.requests] == [1, 3, 1, 3]
    assert [request.status for request in api.requests] == [200] * 4
    assert api.requests[0].body["context_management"] == {"edits": [{"type": "clear_thinking_20251015"}]}


@pytest.mark.parametrize("kind", ENGINES)
def test_calls_without_a_scope_use_the_configured_scope(kind):
    calls = [
        lambda engine: engine.send("a", "hi"),
        lambda engine: engine.send("a", "hi", scope="default"),
        lambda engine: engine.resume("a"),
        lambda engine: engine.abandon("a"),
        lambda engine: engine.run_tools("b", "hi", tools=[]),
    ]
    replies = run_calls(kind, *calls, client=client_of(kind, FakeMessagesAPI()), profile="other")
    assert [getattr(reply, "text", reply) for reply in replies] == [
        "[fake reply, no model] You said: hi (message 1 of this conversation)",
        "[fake reply, no model] You said: hi (message 1 of this conversation)",
        None,
        False,
        "[fake reply, no model] You said: hi (message 1 of this conversation)",
    ]
    with open_history(profile="other") as history:
        assert {row.id for row in history.list().items} == {"a", "b"}
        assert [row.id for row in history.list(scope="default").items] == ["a"]
        assert history.conversation("a").scope == "eve"
        assert history.delete("a").scope == "eve"
        assert history.delete("a") is None
        assert history.delete("a", scope="default").scope == "default"


def test_streams_use_the_configured_scope():
    with ChatEngine.from_config(FakeMessagesAPI().client(), profile="other") as engine:
        with engine.stream("a", "hi") as stream:
            assert stream.get_final_reply().text.endswith("(message 1 of this conversation)")
        assert engine.history.conversation("a").messages()


def test_none_as_a_scope_is_refused():
    with open_history() as history:
        for call in (history.conversation, history.delete):
            with pytest.raises(InvalidInput, match="scope"):
                call("a", scope=None)
    with (
        ChatEngine.from_config(FakeMessagesAPI().client(), profile="other") as engine,
        pytest.raises(InvalidInput, match="scope"),
    ):
        engine.send("a", "hi", scope=None)


def test_the_asynchronous_history_has_the_scope_of_its_history():
    async def main():
        async with AsyncHistory(History(open_store("memory:"), scope="ada")) as history:
            await history.conversation("a").append({"role": "user", "content": "hi"})
            page = await history.list()
            return page.items[0].scope, (await history.delete("a")).scope

    assert asyncio.run(main()) == ("ada", "ada")


@pytest.mark.parametrize("kind", ENGINES)
def test_no_environment_variable_replaces_the_client_by_a_fake(kind, monkeypatch):
    for name in ("CHATHISTORY_STAND_IN", "CHATHISTORY_FAKE"):
        monkeypatch.setenv(name, "1")
    api = FakeMessagesAPI("hello")
    [reply] = run_calls(kind, lambda engine: engine.send("a", "hi"), client=client_of(kind, api), profile="other")
    assert reply.text == "hello"
    assert api.requests[0].body["model"] == "claude-haiku-5-5"


def test_close_closes_what_the_engine_opened_and_nothing_else():
    engine = ChatEngine.from_config()
    own = engine._closing[1]
    assert isinstance(own, anthropic.Anthropic)
    engine.close()
    engine.close()
    assert own.is_closed()
    with pytest.raises(StoreClosed):
        engine.history.list()
    given = FakeMessagesAPI().client()
    with ChatEngine.from_config(given) as engine:
        pass
    assert not given.is_closed()
    with open_store("memory:") as store:
        with ChatEngine(given, store, model="claude-sonnet-5-5"):
            pass
        store.check()


def test_the_asynchronous_engine_closes_the_same():
    async def main():
        engine = AsyncChatEngine.from_config()
        own, store = engine._closing[1], engine.history.sync.store
        assert isinstance(own, anthropic.AsyncAnthropic)
        await engine.close()
        assert own.is_closed()
        with pytest.raises(StoreClosed):
            store.check()
        given = FakeMessagesAPI().async_client()
        async with AsyncChatEngine.from_config(given):
            pass
        assert not given.is_closed()

    asyncio.run(main())


@pytest.mark.parametrize("kind", ENGINES)
def test_errors_are_raised_before_anything_is_opened(kind, file):
    with pytest.raises(TypeError, match="modle"):
        kind.from_config(FakeMessagesAPI().client(), modle="x")
    with pytest.raises(ConfigError, match="no profile 'x'"):
        kind.from_config(profile="x")
    with pytest.raises(ConfigError, match=r"other\.toml"):
        kind.from_config(config="other.toml")
