"""Streaming, and every way in which a stream can break."""

from __future__ import annotations

import asyncio
import json

import anthropic
import httpx2
import pytest
from stored_entries import list_entries, list_kinds

from chathistory import AsyncChatEngine, ChatEngine, SetupChangedWarning, errors
from chathistory.testing import FakeMessagesAPI
from chathistory.testing.fake_api import Cut, Drop, ErrorEvent, Failure, Paused, Raw, Reply, Reset

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


def test_a_streamed_turn_is_stored_as_one_that_was_not(engine_on, chat_of):
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


def test_leaving_early_keeps_what_came_beside_the_conversation(engine_on, chat_of):
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
    came = after > 3  # a piece of text
    assert list_kinds(chat_of("a")) == ["message", "reply_interrupted" if came else "turn_abandoned"]
    assert chat_of("a").messages() == [{"role": "user", "content": "hello"}]
    assert chat_of("a").state().engine.open_turn is None
    assert engine.resume("a").text == "whole"
    api.assert_extends()


def test_half_a_tool_call_is_not_kept(engine_on, chat_of):
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


def test_a_paused_stream_goes_on(engine_on, chat_of):
    use = {"type": "server_tool_use", "id": "srvtoolu_01", "name": "web_search", "input": {"query": "x"}}
    result = {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_01", "content": []}
    paused = Reply(content=[{"type": "text", "text": "Let me look. "}, use], stop_reason="pause_turn")
    api = FakeMessagesAPI([paused, Reply(content=[result, {"type": "text", "text": "Found."}])])
    tools = [{"type": "web_search_20250305", "name": "web_search"}]
    with engine_on(api, tools=tools).stream("a", "look") as stream:
        assert "".join(stream) == "Let me look. Found."
    assert list_kinds(chat_of("a")) == ["message"] * 3


def test_breaks_over_a_real_socket(open_again, chat_of):
    answers = [Cut(TEXT, 5), Reset(TEXT, 5), ErrorEvent(TEXT, 5), Paused(TEXT, after=5)]
    expected = [errors.IncompleteReply, httpx2.TransportError, anthropic.APIStatusError, httpx2.ReadTimeout]
    api = FakeMessagesAPI(answers)
    with api.serve() as url:
        client = anthropic.Anthropic(base_url=url, api_key="x", max_retries=0, timeout=0.5)
        engine = ChatEngine(client, open_again(), model="claude-sonnet-5-5")
        for error in expected:
            with pytest.raises(error), engine.stream("a", "hello") as stream:
                list(stream)
        answers[3].gate.set()
        client.close()
    assert list_kinds(chat_of("a")) == ["message", "reply_interrupted"] + ["turn_opened", "reply_interrupted"] * 3


def sse(*events: dict) -> Raw:
    """Return a stream of just these events."""
    body = "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events)
    return Raw(body, content_type="text/event-stream")


USAGE = {"input_tokens": 1, "output_tokens": 1}
START = {
    "type": "message_start",
    "message": {"id": "msg_1", "type": "message", "role": "assistant", "model": MODEL, "content": [], "usage": USAGE},
}
BEGUN = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
SAID = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "one"}}
STOPPED = {"type": "content_block_stop", "index": 0}
REASON = {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": USAGE}
END = {"type": "message_stop"}


def test_an_empty_stream_is_no_reply(engine_on, chat_of):
    with pytest.raises(errors.IncompleteReply), engine_on(FakeMessagesAPI([sse()])).stream("a", "hello") as stream:
        list(stream)
    assert list_kinds(chat_of("a")) == ["message", "turn_abandoned"]


def test_events_and_deltas_of_the_future_pass_by(engine_on, chat_of):
    later = {"type": "content_block_delta", "index": 0, "delta": {"type": "later_delta", "x": 1}}
    events = (START, {"type": "later"}, BEGUN, SAID, later, STOPPED, REASON, END)
    with engine_on(FakeMessagesAPI([sse(*events)])).stream("a", "hello") as stream:
        assert stream.get_final_reply().text == "one"


def test_a_tool_call_whose_input_is_no_json_is_no_reply(engine_on, chat_of):
    call = {"type": "content_block_start", "index": 0, "content_block": CALL | {"input": {}}}
    half = {"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": '{"a": }'}}
    api = FakeMessagesAPI([sse(START, call, half, STOPPED, REASON, END), "whole"])
    engine = engine_on(api)
    with pytest.raises(ValueError), engine.stream("a", "hello") as stream:
        list(stream)
    assert "tool_use" not in str(chat_of("a").messages())
    assert engine.resume("a").text == "whole"


def test_an_end_without_a_stop_reason_is_no_reply(engine_on, chat_of):
    events = (START, BEGUN, SAID, STOPPED, END)
    with (
        pytest.raises(errors.IncompleteReply),
        engine_on(FakeMessagesAPI([sse(*events)])).stream("a", "hello") as stream,
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


def pieces_of(events):
    """Return the text of the pieces of each block, by what kind of block it is."""
    found = {}
    for event in events:
        key = (event.index, event.type, event.tool)
        found[key] = found.get(key, "") + event.text
    return found


PIECES = {(0, "thinking", None): "Basel, then.", (1, "text", None): TEXT}


def test_thinking_and_the_input_of_tools_come_as_events(engine_on):
    engine = engine_on(FakeMessagesAPI([THOUGHT, {"type": "text", "text": TEXT}, CALL]), tools=TOOLS)
    for _ in range(2):  # as it comes, and once more as it is stored
        with engine.stream("a", "hello", turn_id="T") as stream:
            pieces = pieces_of(stream.events)
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
                rest = pieces_of([event async for event in stream.events])
                reply = await stream.get_final_reply()
            async with engine.stream("b", "hello", model="claude-opus-5-5", max_tokens=77) as stream:
                assert pieces_of([event async for event in stream.events]) == PIECES
            assert [api.requests[-1].body[name] for name in ("model", "max_tokens")] == ["claude-opus-5-5", 77]
            return first + rest[1, "text", None], reply

    whole, reply = asyncio.run(main())
    assert whole == str(reply) == TEXT


@pytest.mark.parametrize(
    "use", [iter, lambda it: it.events, lambda it: it.text_stream, lambda it: it.get_final_reply()], ids=range(4)
)
def test_a_stream_without_with_says_so(engine_on, chat_of, use):
    with pytest.raises(errors.InvalidInput, match=r"with engine\.stream"):
        use(engine_on(FakeMessagesAPI(TEXT)).stream("a", "hello"))
    assert list_kinds(chat_of("a")) == []


def test_the_text_stream_is_what_iterating_gives(engine_on):
    with engine_on(FakeMessagesAPI([THOUGHT, {"type": "text", "text": TEXT}])).stream("a", "hello") as stream:
        assert "".join(stream.text_stream) == TEXT
        assert list(stream) == []


def test_what_people_look_for_in_a_reply_is_there(engine_on):
    api = FakeMessagesAPI([THOUGHT, {"type": "text", "text": TEXT}])
    reply = engine_on(api).send("a", "hello")
    assert [block["type"] for block in reply.content] == ["thinking", "text"]
    assert str(reply) == reply.text == TEXT
    assert (reply.model, reply.stop_reason) == (MODEL, "end_turn")
    assert reply.id.startswith("msg_")
    assert TEXT not in repr(reply)


def test_a_call_can_name_a_model_and_a_length_of_its_own(engine_on):
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
