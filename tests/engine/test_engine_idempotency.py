"""Repeated calls send nothing twice: turn ids, equal messages, tool results. Useless requests are refused unsent."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import anthropic
import pytest
from stored_entries import list_entries, list_kinds

from chathistory import AsyncChatEngine, ChatEngine, errors
from chathistory.engine import request
from chathistory.engine.turn import Turn
from chathistory.engine.view_cache import SentView
from chathistory.log.entry import Entry
from chathistory.log.events import MessageAdded
from chathistory.log.field_types import Response
from chathistory.testing import FakeMessagesAPI
from chathistory.testing.fake_api import Failure, Paused, Reply
from chathistory.trimming import LastTurns

MODEL = "claude-sonnet-5-5"
TOOL = {"name": "weather", "input_schema": {"type": "object"}}
CALLS = [{"type": "tool_use", "id": f"toolu_{n}", "name": "weather", "input": {"day": n}} for n in (1, 2, 3)]
EMPTY = {
    "no text": "",
    "blanks": " \n\t\u2003",
    "an empty list": [],
    "an empty text block": [{"type": "text", "text": ""}],
    "blank text blocks": [{"type": "text", "text": " "}, {"type": "text", "text": "\n"}],
}


def make_result(id: str, content: object = "sun") -> dict:
    return {"type": "tool_result", "tool_use_id": id, "content": content}


def make_results(reply, **changes) -> dict:
    return {call["id"]: "sun" for call in reply.tool_calls} | changes


def ways_to_send(engine):
    """Return each function of a synchronous engine that sends a user's content."""

    def send_streamed(content):
        with engine.stream("a", content) as stream:
            return stream.get_final_reply()

    return {
        "send": lambda content: engine.send("a", content),
        "stream": send_streamed,
        "run_tools": lambda content: engine.run_tools("a", content, tools=[weather]),
    }


@anthropic.beta_tool
def weather(day: int) -> str:
    """Tell the weather of a day."""
    return f"sun on {day}"


@pytest.fixture
def start_conversation(engine_on):
    """Return a function that creates an engine, its fake API, and a conversation with one finished turn."""

    def start(*replies, **options):
        api = FakeMessagesAPI(["first", *replies])
        engine = engine_on(api, **options)
        engine.send("a", "hello")
        return engine, api

    return start


# Nothing to send.


@pytest.mark.parametrize("way", ["send", "stream", "run_tools"])
@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("name", EMPTY)
def test_a_message_with_nothing_to_send_is_refused(engine_on, chat_of, name, begun, way):
    api = FakeMessagesAPI()
    engine = engine_on(api)
    if begun:
        engine.send("a", "hello")
    before, paid = list(chat_of("a").entries()), len(api.requests)
    with pytest.raises(errors.InvalidInput, match=r"message\.content: must have text that is not blank"):
        ways_to_send(engine)[way](EMPTY[name])
    assert list(chat_of("a").entries()) == before
    assert len(api.requests) == paid
    assert engine.send("a", "and now?").text


@pytest.mark.parametrize("name", EMPTY)
def test_the_asynchronous_engine_refuses_a_message_with_nothing_to_send(open_again, chat_of, name):
    api = FakeMessagesAPI()

    async def main():
        async with AsyncChatEngine(api.async_client(), open_again(), model=MODEL) as engine:
            with pytest.raises(errors.InvalidInput):
                await engine.send("a", EMPTY[name])
            with pytest.raises(errors.InvalidInput):
                async with engine.stream("a", EMPTY[name]):
                    pass
            with pytest.raises(errors.InvalidInput):
                await engine.run_tools("a", EMPTY[name], tools=[weather])

    asyncio.run(main())
    assert api.requests == []
    assert list_kinds(chat_of("a")) == []


def test_one_block_that_can_be_sent_is_enough(engine_on):
    api = FakeMessagesAPI()
    engine_on(api).send("a", [{"type": "text", "text": " "}, {"type": "text", "text": "hello"}])
    assert api.requests[0].body["messages"] == [{"role": "user", "content": [{"type": "text", "text": "hello"}]}]


def test_a_blank_message_is_not_resumed(start_conversation, chat_of):
    engine, api = start_conversation("second")
    chat_of("a").append({"role": "user", "content": " "})
    assert engine.resume("a") is None
    with pytest.raises(errors.TurnError), engine.stream_resumed("a"):
        pass
    with pytest.raises(errors.TurnError):
        engine.run_tools("a", None, tools=[weather])
    assert len(api.requests) == 1
    assert engine.send("a", "more").text == "second"


@pytest.mark.parametrize("messages", [[], [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]])
def test_a_request_without_a_message_to_answer_is_refused(open_again, messages):
    """The function that every request uses refuses, whatever happened before."""

    def sent(stop_reason):
        said = [Entry(MessageAdded(each, Response({"stop_reason": stop_reason}))) for each in messages]
        return SentView(SimpleNamespace(entries=said), messages)

    turn = Turn(SimpleNamespace(key=SimpleNamespace(id="a")), "T", 600.0)
    template = request.RequestTemplate(MODEL)
    for view in (None, sent("end_turn")):
        turn.view = view
        with pytest.raises(errors.TurnError, match="nothing to send"):
            template.build_arguments(turn)
    if messages:
        turn.view = sent("pause_turn")
        assert template.build_arguments(turn)["messages"] == messages
        assert template.build_arguments(turn, [])["messages"] == []  # not a turn: messages to summarize


# Results of tools.


@pytest.mark.parametrize("also", [[], [{"type": "text", "text": "and?"}]])
@pytest.mark.parametrize("case", ["unknown", "answered", "rewound", "another reply", "doubled", "no call at all"])
def test_results_that_answer_no_open_call_are_refused(start_conversation, chat_of, case, also):
    engine, api = start_conversation(CALLS[:1], "sunny", CALLS[1:2], "rainy", tools=[TOOL])
    content = [make_result("toolu_1")]
    if case == "unknown":
        engine.send("a", "the weather?")
        content = [make_result("toolu_9")]
    if case == "doubled":
        engine.send("a", "the weather?")
        content = [make_result("toolu_1"), make_result("toolu_1", "rain")]
    if case in ("answered", "another reply"):
        engine.submit("a", engine.send("a", "the weather?"), {"toolu_1": "sun"})
        content = [make_result("toolu_1", "rain")]
    if case == "another reply":
        engine.send("a", "and tomorrow?")
        content = [make_result("toolu_1"), make_result("toolu_2")]
    if case == "rewound":
        chat = chat_of("a")
        question = chat.messages()
        engine.send("a", "the weather?")
        chat = chat_of("a")
        chat.rewind(to=chat.last_entries(2)[0].position)
        assert chat.messages() == question
    before, paid = list(chat_of("a").entries()), len(api.requests)
    with pytest.raises((errors.InvalidInput, errors.TurnError)):
        engine.send("a", [*content, *also])
    assert list(chat_of("a").entries()) == before
    assert len(api.requests) == paid


@pytest.mark.parametrize("partial", [False, True])
@pytest.mark.parametrize("gone", ["rewound", "deleted", "made again", "forked before"])
def test_results_for_a_missing_reply_are_refused_and_store_nothing(start_conversation, chat_of, gone, partial):
    engine, api = start_conversation(CALLS, "never", tools=[TOOL])
    reply = engine.send("a", "the weather?")
    name = "a"
    if gone == "rewound":
        chat_of("a").rewind(to=reply.position)
    elif gone == "forked before":
        chat_of("a").fork(name := "b", at=reply.position)
    else:
        engine.history.delete("a")
    if gone == "made again":
        chat_of("a").append({"role": "user", "content": "another"})
    before, paid = list(chat_of(name).entries()), len(api.requests)
    with pytest.raises(errors.TurnError, match="has no reply with these tool calls"):
        engine.submit(name, reply, {"toolu_1": "sun"}, partial=partial)
    assert list(chat_of(name).entries()) == before
    assert len(api.requests) == paid


@pytest.mark.parametrize("partial", [False, True])
def test_results_for_a_reply_that_another_one_replaced_are_refused(start_conversation, chat_of, partial):
    engine, api = start_conversation(CALLS, "never", tools=[TOOL])
    reply = engine.send("a", "the weather?")
    engine.history.delete("a")
    other_reply = {"role": "assistant", "content": "another"}
    chat_of("a").append([*[{"role": "user", "content": "x"}] * reply.position, other_reply])
    before, paid = list(chat_of("a").entries()), len(api.requests)
    assert before[reply.position].message["role"] == "assistant"
    with pytest.raises(errors.TurnError, match="has no reply with these tool calls"):
        engine.submit("a", reply, {"toolu_1": "sun"}, partial=partial)
    assert list(chat_of("a").entries()) == before
    assert len(api.requests) == paid


def test_results_to_a_deleted_conversation_are_refused_by_send_too(engine_on, chat_of):
    api = FakeMessagesAPI()
    with pytest.raises(errors.TurnError):
        engine_on(api).send("a", [make_result("toolu_1")])
    assert list_kinds(chat_of("a")) == []
    assert api.requests == []


@pytest.mark.parametrize("resubmit", ["submit", "send", "stream", "partial"])
def test_the_same_results_submitted_twice_are_sent_once(start_conversation, chat_of, engine_on, resubmit):
    engine, _ = start_conversation(CALLS, "sunny", tools=[TOOL])
    reply = engine.send("a", "the weather?")
    first = engine.submit("a", reply, make_results(reply))
    other = FakeMessagesAPI()
    elsewhere = engine_on(other, tools=[TOOL])
    if resubmit == "send":
        again = elsewhere.send("a", reply.results(make_results(reply)))
    elif resubmit == "stream":
        with elsewhere.stream("a", reply.results(make_results(reply))) as stream:
            again = stream.get_final_reply()
    else:
        again = elsewhere.submit("a", reply, make_results(reply), partial=resubmit == "partial")
    assert (again.message, again.position) == (first.message, first.position)
    assert other.requests == []
    assert len(list_entries(chat_of("a"))) == 6
    with pytest.raises(errors.TurnMismatch):
        elsewhere.submit("a", reply, make_results(reply, toolu_2="rain"))


def test_results_with_words_submitted_twice_are_sent_once(start_conversation, chat_of):
    engine, api = start_conversation(CALLS[:1], "sunny", "more", tools=[TOOL])
    engine.send("a", "the weather?")
    content = [make_result("toolu_1"), {"type": "text", "text": "and tomorrow?"}]
    first = engine.send("a", content)
    assert engine.send("a", content).position == first.position
    assert len(api.requests) == 3
    assert len(chat_of("a").messages()) == 6


def test_results_whose_request_failed_are_sent_again_without_being_stored_twice(start_conversation, chat_of):
    engine, api = start_conversation(CALLS, Failure(500), "sunny", tools=[TOOL])
    reply = engine.send("a", "the weather?")
    with pytest.raises(anthropic.InternalServerError):
        engine.submit("a", reply, make_results(reply))
    assert engine.submit("a", reply, make_results(reply)).text == "sunny"
    assert list_kinds(chat_of("a"))[4:] == ["message", "turn_abandoned", "turn_opened", "message"]
    api.assert_extends()


def test_repeated_call_ids_are_distinguished_by_their_reply(start_conversation):
    """Some gateways call every first call `call_1`."""
    call = [CALLS[0] | {"id": "call_1"}]
    engine, api = start_conversation(call, "sunny", call, "rainy", tools=[TOOL])
    one = engine.send("a", "the weather?")
    engine.submit("a", one, {"call_1": "sun"})
    two = engine.send("a", "and tomorrow?")
    with pytest.raises(errors.TurnMismatch):
        engine.submit("a", one, {"call_1": "rain"})
    assert engine.submit("a", one, {"call_1": "sun"}).text == "sunny"
    assert two.tool_calls[0]["id"] == "call_1"
    assert len(api.requests) == 4


def test_results_before_a_cut_are_recognized(open_again):
    api = FakeMessagesAPI([CALLS, "sunny", *["more"] * 6])
    engine = ChatEngine(api.client(), open_again(), model=MODEL, tools=[TOOL], trimming=LastTurns(high=3, low=1))
    reply = engine.send("a", "the weather?")
    first = engine.submit("a", reply, make_results(reply))
    for number in range(6):
        engine.send("a", f"turn {number}")
    assert engine.history.conversation("a").state().view.view_start > first.position
    assert engine.submit("a", reply, make_results(reply)).position == first.position
    assert engine.send("a", reply.results(make_results(reply))).position == first.position
    assert len(api.requests) == 8


# Results one by one.


def test_results_may_come_one_by_one(start_conversation, chat_of):
    engine, api = start_conversation(CALLS, "sunny", tools=[TOOL])
    reply = engine.send("a", "the weather?")
    assert engine.submit("a", reply, {"toolu_2": "sun"}, partial=True) == ["toolu_1", "toolu_3"]
    assert engine.submit("a", reply, {"toolu_2": "sun"}, partial=True) == ["toolu_1", "toolu_3"]
    assert engine.submit("a", reply, {"toolu_3": "rain"}, partial=True) == ["toolu_1"]
    assert len(api.requests) == 2
    done = engine.submit("a", reply, {"toolu_1": ValueError("no")}, partial=True)
    assert done.text == "sunny"
    assert len(api.requests) == 3
    blocks = [block for message in api.requests[-1].body["messages"][4:] for block in message["content"]]
    assert sorted(block["tool_use_id"] for block in blocks) == ["toolu_1", "toolu_2", "toolu_3"]
    assert list_kinds(chat_of("a")) == ["message"] * 8
    assert engine.submit("a", reply, {"toolu_3": "rain"}, partial=True).position == done.position
    api.assert_extends()


def test_of_two_last_results_from_two_processes_one_sends(open_again, chat_of):
    gate = Paused("sunny")
    api = FakeMessagesAPI([CALLS, gate])
    engines = [ChatEngine(api.client(), open_again(), model=MODEL, tools=[TOOL]) for _ in range(2)]
    reply = engines[0].send("a", "the weather?")
    assert engines[1].submit("a", reply, {"toolu_1": "sun"}, partial=True) == ["toolu_2", "toolu_3"]
    with ThreadPoolExecutor(2) as pool:
        both = [
            pool.submit(engine.submit, "a", reply, {id: "sun"}, partial=True)
            for engine, id in zip(engines, ("toolu_2", "toolu_3"), strict=True)
        ]
        assert gate.reached.wait(600)
        gate.gate.set()
        done = [each.result(100) for each in both]
    assert sorted(type(each).__name__ for each in done) == ["Reply", "list"]
    assert len(api.requests) == 2
    assert list_kinds(chat_of("a")) == ["message"] * 6


def test_the_same_last_result_from_two_processes_is_sent_once(open_again, chat_of):
    gate = Paused("sunny")
    api = FakeMessagesAPI([CALLS[:1], gate])
    engines = [ChatEngine(api.client(), open_again(), model=MODEL, tools=[TOOL]) for _ in range(2)]
    reply = engines[0].send("a", "the weather?")
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(engines[0].submit, "a", reply, {"toolu_1": "sun"}, partial=True)
        assert gate.reached.wait(600)
        with pytest.raises(errors.TurnInProgress):
            engines[1].submit("a", reply, {"toolu_1": "sun"}, partial=True)
        gate.gate.set()
        done = first.result(100)
    assert engines[1].submit("a", reply, {"toolu_1": "sun"}, partial=True).position == done.position
    assert len(api.requests) == 2


def test_a_result_that_comes_too_late_is_refused(start_conversation):
    engine, api = start_conversation(CALLS, "never mind", tools=[TOOL])
    reply = engine.send("a", "the weather?")
    engine.submit("a", reply, {"toolu_1": "sun"}, partial=True)
    engine.send("a", "forget it")
    with pytest.raises(errors.TurnError):
        engine.submit("a", reply, {"toolu_2": "sun"}, partial=True)
    assert len(api.requests) == 3
    api.assert_extends()


def test_stored_results_are_not_sent_again_after_the_conversation_continued(start_conversation, chat_of):
    engine, api = start_conversation(CALLS[:1], Failure(500), "never mind", tools=[TOOL])
    reply = engine.send("a", "the weather?")
    with pytest.raises(anthropic.InternalServerError):
        engine.submit("a", reply, {"toolu_1": "sun"})
    engine.send("a", "forget it")
    before, paid = list(chat_of("a").entries()), len(api.requests)
    with pytest.raises(errors.TurnError, match="continued without a reply to these results"):
        engine.submit("a", reply, {"toolu_1": "sun"})
    assert list(chat_of("a").entries()) == before
    assert len(api.requests) == paid


def test_submitting_no_results_is_refused(start_conversation):
    engine, api = start_conversation(CALLS, tools=[TOOL])
    reply = engine.send("a", "the weather?")
    for partial in (False, True):
        with pytest.raises(errors.InvalidInput, match="results: must have at least one tool result, by the id"):
            engine.submit("a", reply, {}, partial=partial)
    assert len(api.requests) == 2


def test_the_asynchronous_engine_takes_results_one_by_one_too(open_again):
    api = FakeMessagesAPI([CALLS[:2], "sunny"])

    async def main():
        async with AsyncChatEngine(api.async_client(), open_again(), model=MODEL, tools=[TOOL]) as engine:
            reply = await engine.send("a", "the weather?")
            assert await engine.submit("a", reply, {"toolu_1": "sun"}, partial=True) == ["toolu_2"]
            done = await engine.submit("a", reply, {"toolu_2": "sun"}, partial=True)
            again = await engine.submit("a", reply, {"toolu_1": "sun", "toolu_2": "sun"})
            return done, again

    done, again = asyncio.run(main())
    assert done.text == "sunny"
    assert again.position == done.position
    assert len(api.requests) == 2


# The same message again.


@pytest.mark.parametrize("turn_ids", [(None, None), ("T", None), (None, "T"), ("T", "U")])
def test_a_question_without_a_reply_is_not_stored_twice(engine_on, chat_of, turn_ids):
    api = FakeMessagesAPI([Failure(500), "at last", "once more"])
    with pytest.raises(anthropic.InternalServerError):
        engine_on(api).send("a", "hello", turn_id=turn_ids[0])
    reply = engine_on(api).send("a", "hello", turn_id=turn_ids[1])
    assert reply.text == "at last"
    assert api.requests[-1].body["messages"] == [{"role": "user", "content": "hello"}]
    assert list_kinds(chat_of("a")) == ["message", "turn_abandoned", "turn_opened", "message"]
    for turn_id in filter(None, turn_ids):
        assert engine_on(api).send("a", "hello", turn_id=turn_id).position == reply.position
    assert engine_on(api).send("a", "hello").text == "once more"  # this is another question, with the same text
    assert len(api.requests) == 3


def test_the_same_message_after_another_one_is_a_new_question(engine_on, chat_of):
    api = FakeMessagesAPI([Failure(500), Failure(500), "ok"])
    engine = engine_on(api)
    for words in ("one", "two"):
        with pytest.raises(anthropic.InternalServerError):
            engine.send("a", words)
    engine.send("a", "one")
    assert [message["content"] for message in api.requests[-1].body["messages"]] == ["one", "two", "one"]


def test_a_question_that_is_being_answered_is_not_sent_again(engine_on):
    gate = Paused("slow")
    api = FakeMessagesAPI(gate)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(engine_on(api).send, "a", "hello")
        assert gate.reached.wait(600)
        with pytest.raises(errors.TurnInProgress):
            engine_on(api).send("a", "hello")
        gate.gate.set()
        assert first.result(100).text == "slow"
    assert len(api.requests) == 1


def test_the_same_message_after_open_calls_is_a_new_message(start_conversation, chat_of):
    engine, _ = start_conversation(CALLS, "fine", tools=[TOOL])
    engine.send("a", "the weather?")
    assert engine.send("a", "the weather?").text == "fine"
    assert len(chat_of("a").messages()) == 6


# Too many pauses.


SEARCH = {"type": "server_tool_use", "name": "web_search", "input": {"query": "x"}}
SEARCH_TOOL = {"type": "web_search_20250305", "name": "web_search"}


@pytest.mark.parametrize("way", ["send", "stream", "async send", "async stream"])
def test_a_turn_that_only_pauses_is_closed(open_again, chat_of, monkeypatch, way):
    monkeypatch.setattr("chathistory.engine.flows.MAX_REQUESTS_PER_TURN", 3)
    paused = Reply(content=[{"type": "text", "text": "Let me look."}, SEARCH], stop_reason="pause_turn")
    api = FakeMessagesAPI([*[paused] * 3, "something else"])

    async def ask_async():
        async with AsyncChatEngine(api.async_client(), open_again(), model=MODEL, tools=[SEARCH_TOOL]) as engine:
            if way == "async send":
                return await engine.send("a", "look")
            async with engine.stream("a", "look") as stream:
                return await stream.get_final_reply()

    engine = ChatEngine(api.client(), open_again(), model=MODEL, tools=[SEARCH_TOOL])
    if way == "send":
        reply = engine.send("a", "look")
    elif way == "stream":
        with engine.stream("a", "look") as stream:
            reply = stream.get_final_reply()
    else:
        reply = asyncio.run(ask_async())
    assert reply.stop_reason == "pause_turn"
    assert chat_of("a").state().engine.open_turn is None
    assert list_kinds(chat_of("a")) == ["message"] * 4 + ["turn_abandoned"]
    assert chat_of("a").messages()[-1] == reply.message
    assert engine.send("a", "never mind").text == "something else"


@pytest.mark.parametrize("content", ["first", "other words"])
def test_a_turn_id_with_a_message_that_later_turns_sent_is_refused(engine_on, chat_of, content):
    """Claude was sent its message with later turns."""
    api = FakeMessagesAPI([Failure(500), "answer to both"])
    with pytest.raises(anthropic.InternalServerError):
        engine_on(api).send("a", "first", turn_id="T")
    engine_on(api).send("a", "second")
    before = list(chat_of("a").entries())
    with pytest.raises(errors.TurnError, match=r"continued without a reply to turn|already has another message"):
        engine_on(api).send("a", content, turn_id="T")
    assert list(chat_of("a").entries()) == before
    assert len(api.requests) == 2


def test_a_turn_id_is_not_sent_again_after_its_reply_was_rewound(engine_on, chat_of):
    api = FakeMessagesAPI(["one", Failure(500), "two"])
    first = engine_on(api).send("a", "hello", turn_id="T")
    with pytest.raises(anthropic.InternalServerError):
        engine_on(api).regenerate("a")
    again = engine_on(api).send("a", "hello", turn_id="T")
    assert (again.text, again.position) == ("one", first.position)
    assert len(api.requests) == 2
    assert engine_on(api).resume("a").text == "two"


def test_a_turn_id_whose_reply_failed_is_sent_after_a_rewind_to_what_followed_it(engine_on, chat_of):
    api = FakeMessagesAPI([Failure(500), "one"])
    with pytest.raises(anthropic.InternalServerError):
        engine_on(api).send("a", "hello", turn_id="T")
    chat = chat_of("a")
    added = chat.append({"role": "user", "content": "one more thing"})
    chat.rewind(to=added.end - 1)
    assert engine_on(api).send("a", "hello", turn_id="T").text == "one"
    assert [message["content"] for message in api.requests[1].body["messages"]] == ["hello"]
    assert len(api.requests) == 2
