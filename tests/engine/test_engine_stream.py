"""`stream`: pieces and events of a streamed reply, and streams that break at each event."""

from __future__ import annotations

import asyncio
import contextlib
import json

import anthropic
import httpx2
import pytest
from stored_entries import list_entries, list_kinds

from chathistory import AsyncChatEngine, ChatEngine, SetupChangedWarning, errors
from chathistory.testing import FakeMessagesAPI
from chathistory.testing.fake_api import Cut, Drop, ErrorEvent, Failure, Raw, Reply, Reset

MODEL = "claude-sonnet-5-5"
TEXT = "one two three"
CALL = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Basel"}}


def test_text_comes_in_pieces_and_the_whole_is_saved(engine_on, chat_of):
    api = FakeMessagesAPI(TEXT)
    with engine_on(api).stream("a", "hello") as stream:
        pieces = list(stream)
        assert stream.get_final_reply().text == TEXT
    assert "".join(pieces) == TEXT
    assert len(pieces) > 1
    assert list_kinds(chat_of("a")) == ["message", "message"]
    assert list_entries(chat_of("a"))[1].data["request_id"].startswith("req_")


def test_a_streamed_turn_is_stored_like_any_other(engine_on, chat_of):
    content = [{"type": "thinking", "thinking": "", "signature": ""}, {"type": "text", "text": TEXT}, CALL]
    tools = [{"name": "weather", "input_schema": {"type": "object"}}]
    engine = engine_on(FakeMessagesAPI(content), tools=tools)
    whole = engine.send("a", "hello")
    with engine.stream("b", "hello") as stream:
        streamed = stream.get_final_reply()
    assert streamed.message == whole.message
    assert streamed.response.keys() == whole.response.keys()


def test_nothing_happens_before_the_block_is_entered(engine_on, chat_of):
    engine_on(FakeMessagesAPI(TEXT)).stream("a", "hello")
    assert list_kinds(chat_of("a")) == []


def test_a_turn_id_given_twice_streams_the_stored_reply(engine_on):
    api = FakeMessagesAPI(TEXT)
    for _ in range(2):
        with engine_on(api).stream("a", "hello", turn_id="T") as stream:
            assert "".join(stream) == TEXT
            assert stream.get_final_reply().text == TEXT
    assert len(api.requests) == 1


def test_leaving_early_saves_the_partial_reply_as_interrupted(engine_on, chat_of):
    engine = engine_on(FakeMessagesAPI(TEXT))
    with engine.stream("a", "hello") as stream:
        next(iter(stream))
    assert list_kinds(chat_of("a")) == ["message", "reply_interrupted"]
    kept = list_entries(chat_of("a"))[1]
    assert kept.message["content"][0]["text"] == "one "
    assert chat_of("a").messages() == [{"role": "user", "content": "hello"}]
    with engine.stream_resumed("a") as stream:
        assert stream.get_final_reply().text == TEXT
    with pytest.raises(errors.TurnError), engine.stream_resumed("a"):
        pass


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("the caller's own")])
def test_an_error_of_the_caller_passes_through_and_the_turn_is_closed(engine_on, chat_of, error):
    with pytest.raises(type(error)) as caught, engine_on(FakeMessagesAPI(TEXT)).stream("a", "hello") as stream:
        for _ in stream:
            raise error
    assert caught.value is error
    assert "saved" in error.__notes__[0]
    assert list_kinds(chat_of("a")) == ["message", "reply_interrupted"]
    assert chat_of("a").state().engine.open_turn is None


EVENTS = 9  # message_start, ping, content_block_start, 3 deltas, content_block_stop, message_delta, message_stop
BREAKS = {
    "clean end": (Cut, errors.IncompleteReply),
    "connection closed": (Drop, httpx2.RemoteProtocolError),
    "connection reset": (Reset, httpx2.ReadError),
    "error event": (ErrorEvent, anthropic.APIStatusError),
}


@pytest.mark.parametrize("after", range(EVENTS))
@pytest.mark.parametrize("how", BREAKS)
def test_a_broken_stream_is_never_a_reply(engine_on, chat_of, how, after):
    breaking, expected = BREAKS[how]
    api = FakeMessagesAPI([breaking(TEXT, after), "whole"])
    engine = engine_on(api)
    with pytest.raises(expected), engine.stream("a", "hello") as stream:
        list(stream)
    has_text = after > 3
    assert list_kinds(chat_of("a")) == ["message", "reply_interrupted" if has_text else "turn_abandoned"]
    assert chat_of("a").messages() == [{"role": "user", "content": "hello"}]
    assert chat_of("a").state().engine.open_turn is None
    assert engine.resume("a").text == "whole"
    api.assert_extends()


def test_a_stream_that_broke_has_no_final_reply(engine_on):
    with engine_on(FakeMessagesAPI(Cut(TEXT, after=5))).stream("a", "hello") as stream:
        with pytest.raises(errors.IncompleteReply, match="its stream ended too early"):
            list(stream)
        with pytest.raises(errors.IncompleteReply, match="the reply was interrupted before it was complete"):
            stream.get_final_reply()


def test_an_asynchronous_stream_that_broke_has_no_final_reply(open_again):
    async def main():
        api = FakeMessagesAPI(Cut(TEXT, after=5))
        engine = AsyncChatEngine(api.async_client(), open_again(), model=MODEL)
        async with engine, engine.stream("a", "hello") as stream:
            with pytest.raises(errors.IncompleteReply, match="its stream ended too early"):
                [piece async for piece in stream]
            with pytest.raises(errors.IncompleteReply, match="the reply was interrupted before it was complete"):
                await stream.get_final_reply()

    asyncio.run(main())


def test_leaving_a_stream_that_was_not_entered_does_nothing(engine_on, open_again, chat_of):
    async def main():
        engine = AsyncChatEngine(FakeMessagesAPI().async_client(), open_again(), model=MODEL)
        async with engine, contextlib.AsyncExitStack() as stack:
            stack.push_async_exit(engine.stream("a", "hello"))

    with contextlib.ExitStack() as stack:
        stack.push(engine_on(FakeMessagesAPI()).stream("a", "hello"))
    asyncio.run(main())
    assert list_kinds(chat_of("a")) == []


def test_an_incomplete_tool_call_is_not_saved(engine_on, chat_of):
    tools = [{"name": "weather", "input_schema": {"type": "object"}}]
    engine = engine_on(FakeMessagesAPI(Cut([{"type": "text", "text": "Let me see."}, CALL], after=7)), tools=tools)
    with pytest.raises(errors.IncompleteReply), engine.stream("a", "hello") as stream:
        list(stream)
    kept = list_entries(chat_of("a"))[1]
    assert [block["type"] for block in kept.message["content"]] == ["text"]


def test_an_error_before_the_stream_closes_the_turn(engine_on, chat_of):
    with (
        pytest.raises(anthropic.RateLimitError),
        engine_on(FakeMessagesAPI(Failure(429))).stream("a", "hello") as stream,
    ):
        list(stream)
    assert list_kinds(chat_of("a")) == ["message", "turn_abandoned"]


def test_a_paused_stream_continues(engine_on, chat_of):
    use = {"type": "server_tool_use", "id": "srvtoolu_01", "name": "web_search", "input": {"query": "x"}}
    result = {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_01", "content": []}
    paused = Reply(content=[{"type": "text", "text": "Let me look. "}, use], stop_reason="pause_turn")
    api = FakeMessagesAPI([paused, Reply(content=[result, {"type": "text", "text": "Found."}])])
    tools = [{"type": "web_search_20250305", "name": "web_search"}]
    with engine_on(api, tools=tools).stream("a", "look") as stream:
        assert "".join(stream) == "Let me look. Found."
    assert list_kinds(chat_of("a")) == ["message"] * 3


def event_stream(*events: dict) -> Raw:
    """Return a response that streams exactly these events."""
    body = "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events)
    return Raw(body, content_type="text/event-stream")


USAGE = {"input_tokens": 1, "output_tokens": 1}
MESSAGE_START = {
    "type": "message_start",
    "message": {"id": "msg_1", "type": "message", "role": "assistant", "model": MODEL, "content": [], "usage": USAGE},
}
BLOCK_START = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
TEXT_DELTA = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "one"}}
BLOCK_STOP = {"type": "content_block_stop", "index": 0}
MESSAGE_DELTA = {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": USAGE}
MESSAGE_STOP = {"type": "message_stop"}


def test_an_empty_stream_is_not_a_reply(engine_on, chat_of):
    with (
        pytest.raises(errors.IncompleteReply),
        engine_on(FakeMessagesAPI([event_stream()])).stream("a", "hello") as stream,
    ):
        list(stream)
    assert list_kinds(chat_of("a")) == ["message", "turn_abandoned"]


def test_unknown_events_and_deltas_are_skipped(engine_on, chat_of):
    later = {"type": "content_block_delta", "index": 0, "delta": {"type": "later_delta", "x": 1}}
    events = (MESSAGE_START, {"type": "later"}, BLOCK_START, TEXT_DELTA, later, BLOCK_STOP, MESSAGE_DELTA, MESSAGE_STOP)
    with engine_on(FakeMessagesAPI([event_stream(*events)])).stream("a", "hello") as stream:
        assert stream.get_final_reply().text == "one"


def test_a_tool_call_with_invalid_json_is_not_a_reply(engine_on, chat_of):
    call = {"type": "content_block_start", "index": 0, "content_block": CALL | {"input": {}}}
    half = {"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": '{"a": }'}}
    api = FakeMessagesAPI([event_stream(MESSAGE_START, call, half, BLOCK_STOP, MESSAGE_DELTA, MESSAGE_STOP), "whole"])
    engine = engine_on(api)
    with pytest.raises(ValueError), engine.stream("a", "hello") as stream:
        list(stream)
    assert "tool_use" not in str(chat_of("a").messages())
    assert engine.resume("a").text == "whole"


def test_citations_are_kept_of_a_reply_that_the_sdk_cannot_parse(engine_on):
    citation = {"type": "char_location", "cited_text": "x", "document_index": 0, "start_char_index": 0}
    cited = {"type": "content_block_delta", "index": 0, "delta": {"type": "citations_delta", "citation": citation}}
    call = {"type": "content_block_start", "index": 1, "content_block": CALL | {"input": {}}}
    half = {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": '{"a": }'}}
    events = [MESSAGE_START, BLOCK_START, TEXT_DELTA, cited, cited, BLOCK_STOP, call, half, BLOCK_STOP | {"index": 1}]
    engine = engine_on(FakeMessagesAPI([event_stream(*events, MESSAGE_DELTA, MESSAGE_STOP)]))
    with pytest.raises(errors.InvalidInput) as caught, engine.stream("a", "hello") as stream:
        list(stream)
    [cited_text, tool_use] = caught.value.reply.content
    assert cited_text["text"] == "one"
    assert [each["cited_text"] for each in cited_text["citations"]] == ["x", "x"]
    assert tool_use["input"] == '{"a": }'


class OpaqueStream:
    """A stream of the SDK whose events cannot be observed before the SDK has parsed them."""

    def __init__(self, stream):
        self._stream = stream
        self.request_id = stream.request_id
        self.get_final_message = stream.get_final_message

    @property
    def current_message_snapshot(self):
        return self._stream.current_message_snapshot

    def __iter__(self):
        return iter(self._stream)

    async def __aiter__(self):
        async for event in self._stream:
            yield event


class OpaqueClient:
    """A client with such streams, of either kind."""

    def __init__(self, client):
        self.messages = self
        self._messages = client.messages
        self.create = client.messages.create

    def stream(self, **arguments):
        manager = self._messages.stream(**arguments)
        return self._open_async(manager) if hasattr(manager, "__aenter__") else self._open(manager)

    @contextlib.contextmanager
    def _open(self, manager):
        with manager as stream:
            yield OpaqueStream(stream)

    @contextlib.asynccontextmanager
    async def _open_async(self, manager):
        async with manager as stream:
            yield OpaqueStream(stream)


def stream_opaque(api, store, asynchronous):
    """Stream a reply through an `OpaqueClient`, and return it."""

    async def main():
        engine = AsyncChatEngine(OpaqueClient(api.async_client()), store, model=MODEL)
        async with engine, engine.stream("a", "hello") as stream:
            return await stream.get_final_reply()

    if asynchronous:
        return asyncio.run(main())
    with ChatEngine(OpaqueClient(api.client()), store, model=MODEL).stream("a", "hello") as stream:
        return stream.get_final_reply()


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_stream_whose_events_cannot_be_observed_is_stored_as_the_sdk_gives_it(open_again, chat_of, asynchronous):
    content = [{"type": "text", "text": TEXT}, CALL]
    reply = stream_opaque(FakeMessagesAPI([content]), open_again(), asynchronous)
    assert (reply.text, reply.tool_calls[0]["input"]) == (TEXT, CALL["input"])
    assert chat_of("a").messages()[1] == reply.message


@pytest.mark.parametrize("asynchronous", [False, True])
def test_such_a_stream_that_the_sdk_cannot_parse_is_incomplete(open_again, chat_of, asynchronous):
    call = {"type": "content_block_start", "index": 0, "content_block": CALL | {"input": {}}}
    half = {"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": '{"a": }'}}
    api = FakeMessagesAPI([event_stream(MESSAGE_START, call, half, BLOCK_STOP, MESSAGE_DELTA, MESSAGE_STOP)])
    with pytest.raises(errors.IncompleteReply, match="the SDK could not read its stream"):
        stream_opaque(api, open_again(), asynchronous)
    assert list_kinds(chat_of("a")) == ["message", "turn_abandoned"]


def test_an_end_without_a_stop_reason_is_not_a_reply(engine_on, chat_of):
    events = (MESSAGE_START, BLOCK_START, TEXT_DELTA, BLOCK_STOP, MESSAGE_STOP)
    with (
        pytest.raises(errors.IncompleteReply),
        engine_on(FakeMessagesAPI([event_stream(*events)])).stream("a", "hello") as stream,
    ):
        list(stream)
    assert list_kinds(chat_of("a")) == ["message", "reply_interrupted"]


def test_a_title_set_while_the_reply_streams_does_not_disturb_it(engine_on, chat_of):
    with engine_on(FakeMessagesAPI("one two three")).stream("a", "count") as stream:
        pieces = iter(stream)
        assert next(pieces).startswith("one")
        chat_of("a").set_title("A title")
        assert stream.get_final_reply().text == "one two three"
    assert list_kinds(chat_of("a")) == ["message", "annotation", "message"]
    assert chat_of("a").info().title == "A title"


THOUGHT = {"type": "thinking", "thinking": "Basel, then.", "signature": ""}
TOOLS = [{"name": "weather", "input_schema": {"type": "object"}}]


def join_pieces(events):
    """Return the joined text of each block, by its index, type and tool."""
    texts = {}
    for event in events:
        key = (event.index, event.type, event.tool)
        texts[key] = texts.get(key, "") + event.text
    return texts


PIECES = {(0, "thinking", None): "Basel, then.", (1, "text", None): TEXT}


def test_thinking_and_the_input_of_tools_come_as_events(engine_on):
    engine = engine_on(FakeMessagesAPI([THOUGHT, {"type": "text", "text": TEXT}, CALL]), tools=TOOLS)
    for _ in range(2):  # streamed by the API, then replayed from the store
        with engine.stream("a", "hello", turn_id="T") as stream:
            pieces = join_pieces(stream.events)
            assert json.loads(pieces.pop((2, "tool_input", "weather"))) == CALL["input"]
            assert pieces == PIECES
            assert stream.get_final_reply().tool_calls[0]["name"] == "weather"


def test_the_same_events_come_with_asyncio(open_again):
    async def main():
        api = FakeMessagesAPI([THOUGHT, {"type": "text", "text": TEXT}])
        async with AsyncChatEngine(api.async_client(), open_again(), model=MODEL) as engine:
            with pytest.raises(errors.InvalidInput, match="must be entered first"):
                await engine.stream("a", "hello").get_final_reply()
            async with engine.stream("a", "hello") as stream:
                first = await anext(stream.text_stream)
                assert TEXT.startswith(first)
                rest = join_pieces([event async for event in stream.events])
                reply = await stream.get_final_reply()
            async with engine.stream("b", "hello", model="claude-opus-5-5", max_tokens=77) as stream:
                assert join_pieces([event async for event in stream.events]) == PIECES
            assert [api.requests[-1].body[name] for name in ("model", "max_tokens")] == ["claude-opus-5-5", 77]
            return first + rest[1, "text", None], reply

    whole, reply = asyncio.run(main())
    assert whole == str(reply) == TEXT


def test_a_replayed_reply_has_the_events_that_were_streamed(engine_on):
    search = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "x"}}
    found = {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": []}
    web = [{"type": "web_search_20250305", "name": "web_search"}]
    engine = engine_on(FakeMessagesAPI([[search, found, {"type": "text", "text": TEXT}]]), tools=web)
    for _ in range(2):  # streamed by the API, then replayed from the store
        with engine.stream("a", "hello", turn_id="T") as stream:
            pieces = join_pieces(stream.events)
        assert json.loads(pieces.pop((0, "tool_input", "web_search"))) == {"query": "x"}
        assert pieces == {(2, "text", None): TEXT}


def test_an_asynchronous_stream_replays_a_stored_reply(open_again):
    async def main():
        async with AsyncChatEngine(api.async_client(), open_again(), model=MODEL) as engine:
            first = await engine.send("a", "hello", turn_id="T")
            async with engine.stream("a", "hello", turn_id="T") as stream:
                assert [piece async for piece in stream] == [TEXT]
                assert (await stream.get_final_reply()).position == first.position

    api = FakeMessagesAPI(TEXT)
    asyncio.run(main())
    assert len(api.requests) == 1


@pytest.mark.parametrize(
    "use", [iter, lambda it: it.events, lambda it: it.text_stream, lambda it: it.get_final_reply()], ids=range(4)
)
def test_using_a_stream_without_with_is_refused(engine_on, chat_of, use):
    with pytest.raises(errors.InvalidInput, match=r"with engine\.stream"):
        use(engine_on(FakeMessagesAPI(TEXT)).stream("a", "hello"))
    assert list_kinds(chat_of("a")) == []


def test_iterating_yields_the_text_stream(engine_on):
    with engine_on(FakeMessagesAPI([THOUGHT, {"type": "text", "text": TEXT}])).stream("a", "hello") as stream:
        assert "".join(stream.text_stream) == TEXT
        assert list(stream) == []


def test_a_reply_has_content_text_model_id_and_stop_reason(engine_on):
    api = FakeMessagesAPI([THOUGHT, {"type": "text", "text": TEXT}])
    reply = engine_on(api).send("a", "hello")
    assert [block["type"] for block in reply.content] == ["thinking", "text"]
    assert str(reply) == reply.text == TEXT
    assert (reply.model, reply.stop_reason) == (MODEL, "end_turn")
    assert reply.id.startswith("msg_")
    assert TEXT not in repr(reply)


def test_a_call_can_set_model_and_max_tokens(engine_on):
    api = FakeMessagesAPI()
    engine = engine_on(api)
    engine.send("a", "hello", max_tokens=5)
    with pytest.warns(SetupChangedWarning):
        assert engine.send("a", "hello again", model="claude-opus-5-5").model == "claude-opus-5-5"
    with pytest.warns(SetupChangedWarning), engine.stream("a", "and again", max_tokens=6) as stream:
        assert stream.get_final_reply().model == MODEL
    assert [each.body["max_tokens"] for each in api.requests] == [5, 16_000, 6]
    for wrong in ({"model": 5}, {"max_tokens": 0}, {"max_tokens": "9"}):
        with pytest.raises(errors.InvalidInput, match=next(iter(wrong))):
            engine.send("a", "x", **wrong)
