"""Which clients, options and stores an engine accepts, and that clients get copies of the engine's values."""

from __future__ import annotations

import asyncio
import copy
import functools
import pickle
from types import MappingProxyType, SimpleNamespace
from unittest.mock import AsyncMock, MagicMock

import anthropic
import pytest

from chathistory import AsyncChatEngine, AsyncHistory, ChatEngine, History, errors, open_store
from chathistory.testing import FakeMessagesAPI
from chathistory.trimming import LastTurns, Summarize

MODEL = "claude-sonnet-5-5"
TOOL = {"name": "weather", "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}}}


@anthropic.beta_tool
def weather(city: str) -> str:
    """Tell the weather of a city."""
    return f"sun in {city}"


class Fake:
    """A user's own fake client, with the least that an engine needs."""

    def __init__(self):
        self.messages = self

    def create(self, **_):
        return {"type": "message", "role": "assistant", "content": "hi", "stop_reason": "end_turn"}


class AsyncFake(Fake):
    async def create(self, **_):
        return Fake().create()


class DelegatingAsyncFake(Fake):
    """Its `create` is a plain function that returns the coroutine of another method."""

    def create(self, **_):
        return self.answer()

    async def answer(self):
        return Fake().create()


class Unconnected:
    @property
    def create(self):
        raise RuntimeError("not connected")


class FakeWithBrokenHelper(Fake):
    def __init__(self):
        super().__init__()
        self.helper = Unconnected()


class Proxy:
    """A tracing proxy that wraps methods on access."""

    def __init__(self, inner):
        self._inner = inner

    def __getattr__(self, name):
        value = getattr(self._inner, name)
        if not callable(value):
            return Proxy(value)

        def traced(*args, **kwargs):
            return value(*args, **kwargs)

        return traced


class TracedMessages:
    def __init__(self, inner):
        self._inner = inner

    def create(self, *args, **kwargs):
        return self._inner.create(*args, **kwargs)


def wrap_in_object(client):
    return SimpleNamespace(messages=TracedMessages(client.messages))


def patch_create(client, wraps=lambda _: lambda function: function):
    create = client.messages.create

    @wraps(create)
    def traced(*args, **kwargs):
        return create(*args, **kwargs)

    client.messages.create = traced
    return client


def make_subclass(kind):
    return type("Mine", (kind,), {})(api_key="k")


def make_partial(function):
    return SimpleNamespace(messages=SimpleNamespace(create=functools.partial(function, temperature=1)))


SYNC = {
    "sdk": lambda: FakeMessagesAPI().client(),
    "beta": lambda: FakeMessagesAPI().client().beta,
    "with_options": lambda: FakeMessagesAPI().client().with_options(timeout=3),
    "subclass": lambda: make_subclass(anthropic.Anthropic),
    "other platform": lambda: anthropic.AnthropicVertex(region="r", project_id="p", access_token="t"),
    "fake": Fake,
    "fake with a broken helper": FakeWithBrokenHelper,
    "proxy": lambda: Proxy(FakeMessagesAPI().client()),
    "object around it": lambda: wrap_in_object(FakeMessagesAPI().client()),
    "patched": lambda: patch_create(FakeMessagesAPI().client()),
    "wrapped": lambda: patch_create(FakeMessagesAPI().client(), functools.wraps),
    "partial": lambda: make_partial(Fake().create),
}
ASYNC = {
    "sdk": lambda: FakeMessagesAPI().async_client(),
    "beta": lambda: FakeMessagesAPI().async_client().beta,
    "with_options": lambda: FakeMessagesAPI().async_client().with_options(timeout=3),
    "subclass": lambda: make_subclass(anthropic.AsyncAnthropic),
    "other platform": lambda: anthropic.AsyncAnthropicVertex(region="r", project_id="p", access_token="t"),
    "fake": AsyncFake,
    "fake with a helper": DelegatingAsyncFake,
    "mock": AsyncMock,
    "proxy": lambda: Proxy(FakeMessagesAPI().async_client()),
    "object around it": lambda: wrap_in_object(FakeMessagesAPI().async_client()),
    "patched": lambda: patch_create(FakeMessagesAPI().async_client()),
    "wrapped": lambda: patch_create(FakeMessagesAPI().async_client(), functools.wraps),
    "partial": lambda: make_partial(AsyncFake().create),
}
HIDDEN = {"proxy", "object around it", "fake with a helper"}
"""Asynchronous clients that a synchronous engine cannot recognize before their first answer."""


def make_engine(kind, client, **options):
    return kind(client, open_store("memory:"), model=MODEL, **options)


@pytest.mark.parametrize("name", SYNC)
def test_a_synchronous_client_is_accepted_only_by_chat_engine(name):
    client = SYNC[name]()
    make_engine(ChatEngine, client)
    advice = r"must be asynchronous, but .+ is not; pass anthropic\.AsyncAnthropic\(\), or use ChatEngine"
    with pytest.raises(errors.InvalidInput, match=advice) as caught:
        make_engine(AsyncChatEngine, client)
    assert f"{type(client).__module__}.{type(client).__qualname__}" in str(caught.value)


@pytest.mark.parametrize("name", ASYNC)
def test_an_asynchronous_client_is_accepted_only_by_async_chat_engine(name):
    client = ASYNC[name]()
    make_engine(AsyncChatEngine, client)
    if name in HIDDEN:
        return
    advice = r"must be synchronous, but .+ is not; pass anthropic\.Anthropic\(\), or use AsyncChatEngine"
    with pytest.raises(errors.InvalidInput, match=advice) as caught:
        make_engine(ChatEngine, client)
    assert f"{type(client).__module__}.{type(client).__qualname__}" in str(caught.value)


@pytest.mark.parametrize("name", sorted(HIDDEN))
def test_a_hidden_asynchronous_client_is_refused_before_anything_is_sent(name):
    engine = make_engine(ChatEngine, ASYNC[name]())
    with pytest.raises(errors.InvalidInput, match="use AsyncChatEngine"):
        engine.send("a", "hello")
    assert engine.history.conversation("a").state().engine.open_turn is None


def test_the_answer_of_a_disguised_synchronous_client_is_stored():
    engine = make_engine(
        AsyncChatEngine,
        MagicMock(messages=MagicMock(create=MagicMock(side_effect=FakeMessagesAPI("hi").client().messages.create))),
    )

    async def main():
        async with engine:
            return (await engine.send("a", "hello")).text

    assert asyncio.run(main()) == "hi"


@pytest.mark.parametrize("kind", [ChatEngine, AsyncChatEngine])
@pytest.mark.parametrize(
    ("client", "words"),
    [
        (anthropic.Anthropic, "not the class anthropic.Anthropic itself"),
        (FakeMessagesAPI().client().messages, "not its `.messages`"),
        (FakeMessagesAPI().async_client().messages, "not its `.messages`"),
        (FakeMessagesAPI().client().with_raw_response, "raw HTTP responses"),
        (FakeMessagesAPI().async_client().with_streaming_response, "raw HTTP responses"),
        (SimpleNamespace(chat=1), "types.SimpleNamespace does not"),
        (SimpleNamespace(invoke_model=print), "AnthropicBedrock"),
        (open_store("memory:"), "the store the second"),
        ("sk-ant-1", "str does not"),
        (None, "NoneType does not"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_an_object_that_is_not_a_client_is_refused_by_name(kind, client, words):
    with pytest.raises(errors.InvalidInput, match=r"^client: ") as caught:
        make_engine(kind, client)
    assert words in str(caught.value)
    assert "sk-ant-1" not in str(caught.value)


@pytest.mark.parametrize(("kind", "clients"), [(ChatEngine, SYNC), (AsyncChatEngine, ASYNC)])
@pytest.mark.parametrize(
    "options", [{"stream": True}, {"stream": False}, {"messages": []}, {"system": "x"}, ["stream"]]
)
def test_options_that_break_every_request_are_refused(kind, clients, options):
    with pytest.raises(errors.InvalidInput, match=r"^options"):
        make_engine(kind, clients["sdk"](), options=options)


# A client gets copies.


class InPlace:
    """A wrapper of a client that adds markers and messages in place, as caching proxies do."""

    def __init__(self, inner):
        self._inner = inner
        self.messages = self
        self.beta = self

    def __getattr__(self, name):
        return getattr(self._inner.beta.messages, name)

    def create(self, **arguments):
        self.spoil(arguments)
        return self._inner.beta.messages.create(**arguments)

    def count_tokens(self, **arguments):
        self.spoil(arguments)
        return self._inner.beta.messages.count_tokens(**arguments)

    def stream(self, **arguments):
        self.spoil(arguments)
        return self._inner.beta.messages.stream(**arguments)

    def spoil(self, arguments):
        last = arguments["messages"][-1]
        if isinstance(last["content"], str):
            last["content"] = [{"type": "text", "text": last["content"]}]
        last["content"][-1]["cache_control"] = {"type": "ephemeral"}
        for block in arguments.get("system", ()):
            block["text"] += " (changed)"
        for tool in arguments.get("tools", ()):
            tool["description"] = "changed"
            tool["input_schema"]["properties"]["more"] = {}
        arguments.get("metadata", {})["user_id"] = "changed"
        arguments["messages"].append({"role": "user", "content": "inserted"})


class AsyncInPlace(InPlace):
    async def create(self, **arguments):
        self.spoil(arguments)
        return await self._inner.beta.messages.create(**arguments)

    async def count_tokens(self, **arguments):
        self.spoil(arguments)
        return await self._inner.beta.messages.count_tokens(**arguments)


def make_arguments():
    return {
        "system": [{"type": "text", "text": "Be brief."}],
        "tools": [copy.deepcopy(TOOL)],
        "options": {"metadata": {"user_id": "u"}},
        "cache": False,
    }


def check_untouched(api, arguments):
    """Assert that each request has the caller's arguments, changed once by the wrapper, with one cache marker."""
    assert arguments == make_arguments()
    for request in api.requests:
        body = request.body
        assert [block["text"] for block in body.get("system", [])] in ([], ["Be brief. (changed)"])
        assert str(body["messages"]).count("cache_control") == 1
        assert str(body["messages"]).count("inserted") == 1
        assert request.status == 200


def test_a_wrapper_that_changes_arguments_in_place_affects_one_request_only(open_again):
    api, arguments = FakeMessagesAPI(lambda _: "hi"), make_arguments()
    engine = ChatEngine(InPlace(api.client()), open_again(), model=MODEL, **arguments)
    for number in range(6):
        engine.send("a", f"question {number}")
        engine.count_tokens("a", "and?")
        with engine.stream("a", "streamed") as stream:
            assert stream.get_final_reply().text == "hi"
    assert engine.compact("a") is not None
    engine.send("a", "last")
    check_untouched(api, arguments)
    said = [m["content"] for m in History(open_again()).conversation("a").messages() if m["role"] == "user"]
    assert said == ["last"]


def test_an_asynchronous_wrapper_that_changes_arguments_in_place_affects_one_request_only(open_again):
    api, arguments = FakeMessagesAPI(lambda _: "hi"), make_arguments()

    async def main():
        async with AsyncChatEngine(AsyncInPlace(api.async_client()), open_again(), model=MODEL, **arguments) as engine:
            for number in range(4):
                await engine.send("a", f"question {number}")
                await engine.count_tokens("a", "and?")
                async with engine.stream("a", "streamed") as stream:
                    assert (await stream.get_final_reply()).text == "hi"
            assert await engine.compact("a") is not None
            await engine.send("a", "last")

    asyncio.run(main())
    check_untouched(api, arguments)


def test_the_callers_own_lists_can_change_without_changing_what_is_sent(open_again):
    api, arguments = FakeMessagesAPI(lambda _: "hi"), make_arguments()
    engine = ChatEngine(api.client(), open_again(), model=MODEL, **arguments)
    engine.send("a", "one")
    arguments["system"][0]["text"] = "Be long."
    arguments["tools"].clear()
    arguments["options"]["metadata"]["user_id"] = "other"
    engine.send("a", "two")
    first, second = (request.body for request in api.requests)
    for name in ("system", "tools", "metadata"):
        assert first[name] == second[name]
    stored = History(open_again()).conversation("a").setup()
    assert {name: stored[name] for name in ("system", "tools")} == {name: second[name] for name in ("system", "tools")}


def test_the_tool_runner_gets_a_copy_too(open_again):
    class Meddling(InPlace):
        def tool_runner(self, **arguments):
            arguments["messages"][0]["content"] = "changed"
            arguments["tools"][1]["name"] = "other"
            return self._inner.beta.messages.tool_runner(**arguments)

    api, tool = FakeMessagesAPI(lambda _: "hi"), copy.deepcopy(TOOL) | {"name": "plain"}
    engine = ChatEngine(Meddling(api.client()), open_again(), model=MODEL)
    engine.run_tools("a", "hello", tools=[weather, tool])
    assert tool["name"] == "plain"
    assert History(open_again()).conversation("a").messages()[0]["content"] == "hello"


def test_a_summary_function_may_change_its_messages(open_again):
    def by(messages):
        for message in messages:
            message["content"] = "gone"
        return "in short"

    api = FakeMessagesAPI(lambda _: "hi")
    engine = ChatEngine(api.client(), open_again(), model=MODEL, trimming=Summarize(LastTurns(2, 1), by=by))
    for number in range(6):
        engine.send("a", str(number))
    assert "gone" not in str(api.requests[-1].body["messages"])


@pytest.mark.parametrize("options", [{"metadata": {"user_id": "u"}}, MappingProxyType({"metadata": {"user_id": "u"}})])
def test_options_may_be_any_mapping(open_again, options):
    api = FakeMessagesAPI()
    ChatEngine(api.client(), open_again(), model=MODEL, options=options).send("a", "hello")
    assert api.requests[0].body["metadata"] == {"user_id": "u"}


# Stores of the wrong kind, and pickling.


@pytest.mark.parametrize(
    "store", [b"memory:", None, 3, {}, History, MagicMock()], ids=lambda store: type(store).__name__
)
@pytest.mark.parametrize("kind", [ChatEngine, AsyncChatEngine])
def test_an_object_that_is_not_a_store_is_refused(kind, store):
    client = (SYNC if kind is ChatEngine else ASYNC)["sdk"]()
    with pytest.raises(errors.InvalidInput, match="must be a HistoryStore, not"):
        kind(client, store, model=MODEL)


def test_an_engine_takes_a_history_of_either_kind_or_a_url():
    history = AsyncHistory("memory:", scope="team")
    for store in (history, history.sync):
        engine = ChatEngine(FakeMessagesAPI().client(), store, model=MODEL)
        assert (engine.history.store, engine.history.scope) == (history.store, "team")
        engine.close()
    history.store.check()  # the engine did not close it
    with ChatEngine(FakeMessagesAPI().client(), "memory:", model=MODEL) as engine:
        engine.send("a", "hello")
    with pytest.raises(errors.StoreClosed):
        engine.history.store.check()


@pytest.mark.parametrize("how", [pickle.dumps, copy.copy, copy.deepcopy])
def test_engines_say_what_to_do_when_they_are_pickled(how):
    for engine in (make_engine(ChatEngine, SYNC["sdk"]()), make_engine(AsyncChatEngine, ASYNC["sdk"]())):
        with pytest.raises(TypeError, match="create an engine in the other process"):
            how(engine)
