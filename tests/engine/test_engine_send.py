"""`send`, `resume` and `abandon`: what is stored at which moment of a turn, and what is sent."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import anthropic
import pytest
from stored_entries import list_entries, list_kinds

from chathistory import ChatEngine, errors, open_store
from chathistory.testing import FakeMessagesAPI
from chathistory.testing.fake_api import Failure, Paused, Raw, Reply

MODEL = "claude-sonnet-5-5"
TOOL = {"name": "weather", "input_schema": {"type": "object"}}


def test_a_conversation_is_saved_and_resumed_by_another_process(engine_on, chat_of):
    api = FakeMessagesAPI()
    first = engine_on(api).send("a", "Hello Claude")
    second = engine_on(api).send("a", "And what did I just say?")
    assert first.text == "[fake reply, no model] You said: Hello Claude (message 1 of this conversation)"
    assert "message 3" in second.text
    assert chat_of("a").messages() == [
        {"role": "user", "content": "Hello Claude"},
        first.message,
        {"role": "user", "content": "And what did I just say?"},
        second.message,
    ]
    api.assert_extends()


def test_the_message_is_durable_before_the_request_and_the_reply_after_it(engine_on, chat_of):
    at_request = []

    def reply(_body):
        at_request.append((list_kinds(chat_of("a")), chat_of("a").messages()))
        return "done"

    answered = engine_on(FakeMessagesAPI(reply)).send("a", "first words")
    assert at_request == [(["message"], [{"role": "user", "content": "first words"}])]
    assert list_kinds(chat_of("a")) == ["message", "message"]
    assert answered.position == 2


def test_the_fields_of_the_response_are_stored_with_the_message(engine_on, chat_of):
    answered = engine_on(FakeMessagesAPI("hi")).send("a", "hello")
    entry = list_entries(chat_of("a"))[1]
    assert entry.message == {"role": "assistant", "content": [{"type": "text", "text": "hi"}]}
    assert entry.data["response"]["id"].startswith("msg_")
    assert entry.data["response"]["stop_reason"] == "end_turn"
    assert entry.data["response"]["usage"]["output_tokens"] == answered.usage["output_tokens"] > 0
    assert entry.data["request_id"].startswith("req_")
    assert chat_of("a").usage().total.output == answered.usage["output_tokens"]


def test_the_request_has_what_the_engine_was_given(open_again):
    api = FakeMessagesAPI("ok")
    given = {"system": "Be brief.", "tools": [TOOL], "max_tokens": 77, "options": {"stop_sequences": ["X"]}}
    ChatEngine(api.client(), open_again(), model=MODEL, **given).send("a", "hello")
    ChatEngine(api.client(), open_again(), model=MODEL, cache=False).send("b", "hello")
    sent, plain = (request.body for request in api.requests)
    assert sent == {
        "model": MODEL,
        "max_tokens": 77,
        "system": "Be brief.",
        "tools": [TOOL],
        "stop_sequences": ["X"],
        "cache_control": {"type": "ephemeral"},
        "messages": [{"role": "user", "content": "hello"}],
    }
    assert "cache_control" not in plain


def test_an_error_of_the_sdk_passes_through_and_the_turn_can_be_resumed(engine_on, chat_of):
    engine = engine_on(FakeMessagesAPI([Failure(529), "at last"]))
    with pytest.raises(anthropic.InternalServerError) as caught:
        engine.send("a", "precious words")
    assert "the message is saved" in caught.value.__notes__[0]
    assert "precious" not in caught.value.__notes__[0]
    assert list_kinds(chat_of("a")) == ["message", "turn_abandoned"]
    assert engine.resume("a").text == "at last"
    assert chat_of("a").messages()[0] == {"role": "user", "content": "precious words"}
    assert len(chat_of("a").messages()) == 2
    assert engine.resume("a") is None


def test_another_message_can_be_sent_after_a_failure(engine_on, chat_of):
    api = FakeMessagesAPI([Failure(500), "fine"])
    engine = engine_on(api)
    with pytest.raises(anthropic.InternalServerError):
        engine.send("a", "one")
    engine.send("a", "two")
    assert [message["content"] for message in api.requests[-1].body["messages"]] == ["one", "two"]


def test_an_answer_that_is_not_a_message_is_an_error(engine_on, chat_of):
    with pytest.raises(errors.IncompleteReply):
        engine_on(FakeMessagesAPI(Raw())).send("a", "hello")
    assert list_kinds(chat_of("a")) == ["message", "turn_abandoned"]


def test_a_turn_in_progress_is_refused_before_tokens_are_paid_for(engine_on, chat_of):
    paused = Paused("slow")
    api, other = FakeMessagesAPI(paused), FakeMessagesAPI()
    with ThreadPoolExecutor() as pool:
        under_way = pool.submit(engine_on(api).send, "a", "first")
        assert paused.reached.wait(600)
        with pytest.raises(errors.TurnInProgress) as caught:
            engine_on(other).send("a", "second")
        paused.gate.set()
        assert under_way.result(100).text == "slow"
    assert other.requests == []
    assert caught.value.until.utcoffset() == timedelta(0)
    assert list_kinds(chat_of("a")) == ["message", "message"]


def test_of_sixteen_sends_at_once_one_is_answered(open_again, chat_of):
    paused = Paused("answer")
    api = FakeMessagesAPI(paused)
    engine = ChatEngine(api.client(), open_again(), model=MODEL)

    def send(number: int) -> str:
        try:
            return engine.send("a", f"message {number}").text
        except errors.TurnInProgress:
            return "in progress"

    with ThreadPoolExecutor(16) as pool:
        futures = [pool.submit(send, number) for number in range(16)]
        assert paused.reached.wait(600)
        while sum(future.done() for future in futures) < 15:
            threading.Event().wait(0.01)
        paused.gate.set()
        results = sorted(future.result(100) for future in futures)
    assert results == ["answer"] + ["in progress"] * 15
    assert len(api.requests) == 1
    assert list_kinds(chat_of("a")) == ["message", "message"]


def test_a_reply_after_another_writers_message_is_saved_as_orphaned(engine_on, chat_of):
    def reply(_body):
        other = chat_of("a")
        other.append({"role": "user", "content": "from elsewhere"})
        return "paid for"

    with pytest.raises(errors.OrphanedReply) as caught:
        engine_on(FakeMessagesAPI(reply)).send("a", "hello")
    assert caught.value.reply.text == "paid for"
    assert caught.value.head.end == 4
    assert list_kinds(chat_of("a")) == ["message", "message", "reply_orphaned"]


def test_a_message_from_another_thread_of_this_process_counts_too(open_again):
    store = open_again()

    def reply(_body):
        engine.history.conversation("a").append({"role": "user", "content": "me too"})
        return "paid for"

    engine = ChatEngine(FakeMessagesAPI(reply).client(), store, model=MODEL)
    with pytest.raises(errors.OrphanedReply):
        engine.send("a", "hello")
    assert list_kinds(engine.history.conversation("a")) == ["message", "message", "reply_orphaned"]


def test_a_title_set_meanwhile_disturbs_nothing(engine_on, chat_of):
    def reply(_body):
        chat_of("a").set_title("A title")
        return "undisturbed"

    assert engine_on(FakeMessagesAPI(reply)).send("a", "hello").text == "undisturbed"
    assert list_kinds(chat_of("a")) == ["message", "annotation", "message"]
    assert chat_of("a").info().title == "A title"


@pytest.mark.parametrize("same_process", [True, False])
def test_a_late_reply_does_not_bring_a_deleted_conversation_back(open_again, same_process):
    store = open_again()

    def reply(_body):
        elsewhere = store if same_process else open_again()
        assert ChatEngine(api.client(), elsewhere, model=MODEL).history.delete("a").messages == 1
        return "paid for"

    api = FakeMessagesAPI(reply)
    with pytest.raises(errors.Conflict) as caught:
        ChatEngine(api.client(), store, model=MODEL).send("a", "hello")
    assert caught.value.reply.text == "paid for"
    assert store.read(ChatEngine(api.client(), store, model=MODEL).history.conversation("a").log.key) is None


def test_a_turn_id_given_twice_sends_once(engine_on, chat_of):
    api = FakeMessagesAPI()
    first = engine_on(api).send("a", "hello", turn_id="T1")
    again = engine_on(api).send("a", "hello", turn_id="T1")
    assert (again.message, again.position, again.turn) == (first.message, first.position, "T1")
    assert again.usage == first.usage
    assert len(api.requests) == 1
    with pytest.raises(errors.TurnMismatch):
        engine_on(api).send("a", "something else", turn_id="T1")
    assert len(api.requests) == 1
    assert list_kinds(chat_of("a")) == ["message", "message"]


def test_a_turn_id_that_failed_is_sent_again_without_a_second_message(engine_on, chat_of):
    api = FakeMessagesAPI([Failure(500), "now"])
    with pytest.raises(anthropic.InternalServerError):
        engine_on(api).send("a", "hello", turn_id="T1")
    assert engine_on(api).send("a", "hello", turn_id="T1").text == "now"
    assert list_kinds(chat_of("a")) == ["message", "turn_abandoned", "turn_opened", "message"]
    assert len(chat_of("a").messages()) == 2


def test_a_turn_that_another_process_left_open_can_be_abandoned_and_resumed(engine_on, chat_of):
    paused = Paused("never seen")
    with ThreadPoolExecutor() as pool:
        under_way = pool.submit(engine_on(FakeMessagesAPI(paused)).send, "a", "hello")
        assert paused.reached.wait(600)
        engine = engine_on(FakeMessagesAPI("resumed"))
        with pytest.raises(errors.TurnInProgress):
            engine.resume("a")
        assert engine.abandon("a") is True
        assert engine.abandon("a") is False
        assert engine.resume("a").text == "resumed"
        paused.gate.set()
        with pytest.raises(errors.OrphanedReply):
            under_way.result(100)
    assert [message["role"] for message in chat_of("a").messages()] == ["user", "assistant"]


def test_a_paused_turn_is_continued(engine_on, chat_of):
    search = {"type": "server_tool_use", "id": "srvtoolu_01", "name": "web_search", "input": {"query": "x"}}
    found = {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_01", "content": []}
    paused = Reply(content=[{"type": "text", "text": "Let me look."}, search], stop_reason="pause_turn")
    done = Reply(content=[found, {"type": "text", "text": "Here it is."}])
    api = FakeMessagesAPI([paused, done])
    tools = [{"type": "web_search_20250305", "name": "web_search"}]
    answered = engine_on(api, tools=tools).send("a", "look it up")
    assert answered.text == "Here it is."
    assert [message["role"] for message in api.requests[1].body["messages"]] == ["user", "assistant"]
    assert [message["role"] for message in chat_of("a").messages()] == ["user", "assistant", "assistant"]
    assert chat_of("a").state().engine.open_turn is None


def test_a_system_message_after_a_reply_is_nothing_to_resume(engine_on, chat_of):
    api = FakeMessagesAPI()
    engine = engine_on(api)
    engine.send("a", "hello")
    chat = chat_of("a")
    chat.state()
    chat.append({"role": "system", "content": "Be brief."})
    assert engine.resume("a") is None
    assert len(api.requests) == 1


def test_a_refused_turn_is_not_sent_again(engine_on, chat_of):
    api = FakeMessagesAPI([Reply(content=[], stop_reason="refusal"), "gladly"])
    engine = engine_on(api)
    assert engine.send("a", "something bad").stop_reason == "refusal"
    assert engine.send("a", "something good").text == "gladly"
    assert api.requests[1].body["messages"] == [{"role": "user", "content": "something good"}]
    assert list_kinds(chat_of("a")) == ["message"] * 4


def test_tool_calls_are_returned_to_the_caller(engine_on, chat_of):
    calls = [{"type": "tool_use", "id": f"toolu_{n}", "name": "weather", "input": {"day": n}} for n in (1, 2)]
    api = FakeMessagesAPI([calls, "sunny"])
    engine = engine_on(api, tools=[TOOL])
    answered = engine.send("a", "the weather?")
    assert answered.stop_reason == "tool_use"
    assert [(call["id"], call["input"]) for call in answered.tool_calls] == [
        ("toolu_1", {"day": 1}),
        ("toolu_2", {"day": 2}),
    ]
    results = [{"type": "tool_result", "tool_use_id": call["id"], "content": "sun"} for call in answered.tool_calls]
    assert engine.send("a", results).text == "sunny"
    api.assert_extends()


def test_unanswered_tool_calls_do_not_block_the_conversation(engine_on, chat_of):
    api = FakeMessagesAPI([[{"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {}}], "never mind"])
    engine = engine_on(api, tools=[TOOL])
    engine.send("a", "the weather?")
    assert engine.send("a", "forget it").text == "never mind"
    result, words = api.requests[1].body["messages"][2]["content"]
    assert (result["tool_use_id"], result["is_error"]) == ("toolu_1", True)
    assert words == {"type": "text", "text": "forget it"}


def test_bad_content_is_refused_before_anything_is_stored(engine_on, chat_of):
    api = FakeMessagesAPI()
    for content in (None, 3, [3], [{"text": "no type"}], {"type": "text", "text": "not in a list"}):
        with pytest.raises(errors.InvalidInput):
            engine_on(api).send("a", content)
    assert api.requests == []
    assert list_kinds(chat_of("a")) == []


def test_any_object_with_messages_is_a_client():
    api = FakeMessagesAPI("hi")
    engine = ChatEngine(api.client().beta, open_store("memory:"), model=MODEL)
    assert engine.send("a", "hello").text == "hi"
