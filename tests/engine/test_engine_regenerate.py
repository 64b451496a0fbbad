"""`regenerate`, `variants` and `choose`: several replies to the same question."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import anthropic
import pytest
from faulty_stores import FaultyStore, not_landed
from stored_entries import list_kinds

from chathistory import AsyncChatEngine, AsyncHistory, ChatEngine, History, errors
from chathistory.testing import FakeMessagesAPI
from chathistory.testing.fake_api import Failure, Paused, Reply
from chathistory.trimming import LastTurns

MODEL = "claude-sonnet-5-5"
TOOL = {"name": "weather", "input_schema": {"type": "object"}}
CALL = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "A"}}
THOUGHT = {"type": "thinking", "thinking": "hm", "signature": ""}


def texts_of(messages) -> list[str]:
    return [
        message["content"] if isinstance(message["content"], str) else message["content"][-1].get("text", "-")
        for message in messages
    ]


def sent_texts(api) -> list[str]:
    return texts_of(api.requests[-1].body["messages"])


def list_variants(chat, position) -> list[tuple[str, bool]]:
    return [(texts_of([variant.message])[0], variant.is_current) for variant in chat.variants(position)]


@pytest.fixture
def start_conversation(open_again):
    """Return a function that starts a conversation with two turns: questions at 1 and 3, replies at 2 and 4."""

    def start(*more, **options):
        api = FakeMessagesAPI(["one", "two", *more])
        engine = ChatEngine(api.client(), open_again(), model=MODEL, **options)
        for words in ("first", "second"):
            engine.send("a", words)
        return engine, api

    return start


def test_another_reply_to_the_same_question_keeps_the_first_one(start_conversation, chat_of):
    engine, api = start_conversation("two again", "three")
    assert engine.regenerate("a").text == "two again"
    assert sent_texts(api) == ["first", "one", "second"]
    assert texts_of(chat_of("a").messages()) == ["first", "one", "second", "two again"]
    assert list_kinds(chat_of("a")) == ["message"] * 4 + ["rewind", "turn_opened", "message"]
    assert chat_of("a").state().totals.messages == 4
    assert engine.send("a", "third").text == "three"
    assert sent_texts(api) == ["first", "one", "second", "two again", "third"]


@pytest.mark.parametrize("way", ["stream", "async", "async stream"])
def test_regenerate_streamed_and_with_asyncio(start_conversation, open_again, chat_of, way):
    engine, api = start_conversation("two again")

    async def main():
        async with AsyncChatEngine(api.async_client(), open_again(), model=MODEL) as other:
            if way == "async":
                return await other.regenerate("a")
            async with other.stream_regenerated("a") as stream:
                return await stream.get_final_reply()

    if way == "stream":
        with engine.stream_regenerated("a") as stream:
            assert "".join(stream) == "two again"
            reply = stream.get_final_reply()
    else:
        reply = asyncio.run(main())
    assert reply.text == "two again"
    assert texts_of(chat_of("a").messages()) == ["first", "one", "second", "two again"]


def test_all_replies_to_a_question_are_listed_and_one_can_be_chosen(start_conversation, chat_of):
    engine, api = start_conversation("two b", "two c", "three")
    for _ in range(2):
        engine.regenerate("a")
    chat = chat_of("a")
    assert list_variants(chat, 3) == [("two", False), ("two b", False), ("two c", True)]
    assert list_variants(chat, 4) == list_variants(chat, 3)  # the position of a reply works, too
    assert list_variants(chat, 1) == [("one", True)]
    first = chat.variants(3)[0]
    head = chat.choose(first.position)
    assert head.end == chat.info().records
    assert texts_of(chat.messages()) == ["first", "one", "second", "two"]
    assert list_variants(chat, 3) == [("two", True), ("two b", False), ("two c", False)]
    assert chat.state().totals.messages == 4
    assert engine.send("a", "third").text == "three"
    assert sent_texts(api) == ["first", "one", "second", "two", "third"]


def test_choosing_goes_back_and_forth_with_what_followed(start_conversation, chat_of):
    """Choosing a later reply of an earlier path restores that whole path."""
    engine, _ = start_conversation("three", "one b", "two b")
    three = engine.send("a", "third")
    chat = chat_of("a")
    chat.rewind(to=2)
    engine.resume("a")
    engine.send("a", "second b")
    chat = chat_of("a")
    assert texts_of(chat.messages()) == ["first", "one b", "second b", "two b"]
    chat.choose(three.position)
    assert texts_of(chat.messages()) == ["first", "one", "second", "two", "third", "three"]
    assert (chat.state().totals.messages, chat.state().totals.turns) == (6, 3)
    [one, one_b] = chat.variants(1)
    chat.choose(one_b.position)
    assert texts_of(chat.messages()) == ["first", "one b"]
    assert (chat.state().totals.messages, chat.state().totals.turns) == (2, 1)
    chat.choose(one.position)
    assert texts_of(chat.messages()) == ["first", "one"]


def test_choosing_the_current_reply_stores_nothing(start_conversation, chat_of):
    start_conversation()
    chat = chat_of("a")
    before = list(chat.entries())
    assert chat.choose(4).end == len(before)
    assert list(chat.entries()) == before
    assert chat.choose(2).end == len(before) + 1  # the messages after it are taken back
    assert texts_of(chat.messages()) == ["first", "one"]


def test_a_turn_with_tools_is_one_reply(open_again, chat_of):
    api = FakeMessagesAPI([[CALL], "sunny", [CALL | {"id": "toolu_2"}], "rainy", "fine"])
    engine = ChatEngine(api.client(), open_again(), model=MODEL, tools=[TOOL])
    engine.submit("a", engine.send("a", "the weather?"), {"toolu_1": "sun"})
    again = engine.regenerate("a")
    assert again.tool_calls[0]["id"] == "toolu_2"
    engine.submit("a", again, {"toolu_2": "rain"})
    chat = chat_of("a")
    [sunny, rainy] = chat.variants(1)
    assert [len(variant.entries) for variant in (sunny, rainy)] == [3, 3]
    assert (sunny.is_current, rainy.is_current) == (False, True)
    for position in (sunny.position, sunny.entries[0].position):  # each of its replies selects the whole turn
        chat.choose(rainy.position)
        chat.choose(position)
        assert texts_of(chat.messages()) == ["the weather?", "-", "-", "sunny"]
    engine.send("a", "thanks")
    assert len(api.requests[-1].body["messages"]) == 5


def test_a_reply_within_a_turn_can_be_regenerated(open_again, chat_of):
    api = FakeMessagesAPI([[CALL], "sunny", "very sunny"])
    engine = ChatEngine(api.client(), open_again(), model=MODEL, tools=[TOOL])
    engine.submit("a", engine.send("a", "the weather?"), {"toolu_1": "sun"})
    chat = chat_of("a")
    chat.rewind(to=chat.last_entries(1)[0].position)
    engine.resume("a")
    assert list_variants(chat_of("a"), 1) == [("sunny", False), ("very sunny", True)]


def test_thinking_of_each_reply_stays_valid(open_again, chat_of):
    thought = [[THOUGHT, {"type": "text", "text": text}] for text in ("one", "one b", "two")]
    api = FakeMessagesAPI([*thought, "three"])  # the fake API verifies the signatures
    engine = ChatEngine(api.client(), open_again(), model=MODEL)
    engine.send("a", "first")
    engine.regenerate("a")
    chat = chat_of("a")
    chat.choose(chat.variants(1)[0].position)
    engine.send("a", "second")
    engine.send("a", "third")
    assert [message["content"][0]["type"] for message in chat_of("a").messages()[1::2]] == [
        "thinking",
        "thinking",
        "text",
    ]


@pytest.mark.parametrize("cut", [True, False])
def test_cuts_stay_in_force_where_they_can(open_again, chat_of, cut):
    api = FakeMessagesAPI()
    trimming = LastTurns(high=3, low=2)
    engine = ChatEngine(api.client(), open_again(), model=MODEL, trimming=trimming)
    for number in range(4 if cut else 3):
        engine.send("a", f"question {number}")
    chat = chat_of("a")
    begin = chat.state().view.view_start
    assert bool(begin) == cut
    kept = len(chat.messages())
    engine.regenerate("a")
    chat = chat_of("a")
    assert (chat.state().view.view_start, len(chat.messages())) == (begin, kept)
    last = chat.last_entries(2)[0].position
    chat.choose(chat.variants(last)[0].position)
    assert (chat.state().view.view_start, len(chat.messages())) == (begin, kept)
    chat.choose(2)  # before the cut
    assert (chat.state().view.view_start, len(chat.messages())) == (0, 2)
    assert engine.send("a", "other way").text
    assert all(request.status == 200 for request in api.requests)


def test_the_stored_size_follows_the_choice(start_conversation, chat_of):
    engine, _ = start_conversation(Reply(content="long " * 500))
    chat = chat_of("a")
    before = chat.state().view.tokens
    engine.regenerate("a")
    chat = chat_of("a")
    assert chat.state().view.tokens > before
    chat.choose(4)
    assert chat.state().view.tokens == before


# When it is refused.


def test_an_open_turn_is_left_alone(start_conversation, open_again, chat_of):
    paused = Paused("slow")
    engine, _ = start_conversation(paused)
    other = ChatEngine(FakeMessagesAPI().client(), open_again(), model=MODEL)
    with ThreadPoolExecutor(1) as pool:
        under_way = pool.submit(engine.send, "a", "third")
        assert paused.reached.wait(600)
        before = list(chat_of("a").entries())
        for step in (
            lambda: other.regenerate("a"),
            lambda: other.stream_regenerated("a").__enter__(),
            lambda: chat_of("a").choose(4),
            lambda: chat_of("a").rewind(to=4),
        ):
            with pytest.raises(errors.TurnInProgress):
                step()
        assert list(chat_of("a").entries()) == before
        paused.gate.set()
        assert under_way.result(60).text == "slow"


def test_a_conversation_without_a_question_cannot_be_regenerated(engine_on, chat_of):
    engine = engine_on(FakeMessagesAPI())
    with pytest.raises(errors.TurnError, match="no user message that could be answered again"):
        engine.regenerate("a")
    chat_of("a").append({"role": "assistant", "content": "Welcome!"})
    with pytest.raises(errors.TurnError, match="no user message that could be answered again"):
        engine.regenerate("a")
    assert list_kinds(chat_of("a")) == ["message"]


def test_a_question_without_a_reply_is_sent_again(engine_on, chat_of):
    api = FakeMessagesAPI([Failure(500), "at last"])
    with pytest.raises(anthropic.InternalServerError):
        engine_on(api).send("a", "hello")
    assert engine_on(api).regenerate("a").text == "at last"
    assert list_kinds(chat_of("a")) == ["message", "turn_abandoned", "turn_opened", "message"]


def test_a_request_that_fails_leaves_the_question_and_the_first_reply_in_the_log(start_conversation, chat_of):
    engine, _ = start_conversation(Failure(500), "two b")
    with pytest.raises(anthropic.InternalServerError):
        engine.regenerate("a")
    chat = chat_of("a")
    assert texts_of(chat.messages()) == ["first", "one", "second"]
    assert list_variants(chat, 3) == [("two", False)]
    assert engine.resume("a").text == "two b"
    chat = chat_of("a")
    assert list_variants(chat, 3) == [("two", False), ("two b", True)]


@pytest.mark.parametrize("position", [-1, 0, 5, 99])
def test_a_position_without_a_question_or_a_reply_is_refused(start_conversation, chat_of, position):
    start_conversation()
    chat = chat_of("a")
    for step, problem in ((chat.variants, "neither"), (chat.choose, "not one")):
        with pytest.raises(errors.InvalidInput, match=rf"^position: must be .+ position {position} is {problem}; "):
            step(position)
    with pytest.raises(errors.InvalidInput):
        chat.choose(3)  # a question


def test_an_absent_conversation_has_no_variants(chat_of):
    with pytest.raises(errors.InvalidInput):
        chat_of("a").variants(0)
    with pytest.raises(errors.ConversationNotFound):
        chat_of("a").choose(0)


def test_regenerate_and_choose_check_the_version(start_conversation, open_again, chat_of):
    engine, api = start_conversation("two b")
    page, others = chat_of("a"), chat_of("a")
    assert page.messages()
    others.state()
    others.append({"role": "user", "content": "from elsewhere"})
    with pytest.raises(errors.Conflict):
        engine.regenerate("a", expected=page.version)
    with pytest.raises(errors.Conflict):
        page.choose(2)
    with pytest.raises(errors.Conflict):
        chat_of("a").choose(2, expected=page.version)
    assert len(api.requests) == 2
    others.rewind(to=5)
    assert engine.regenerate("a", expected=others.version).text == "two b"


def test_a_turn_id_is_regenerated_once(start_conversation, open_again, chat_of):
    engine, api = start_conversation("two b", "two c", "three")
    first = engine.regenerate("a", turn_id="R")
    assert engine.regenerate("a", turn_id="R").position == first.position
    second = engine.regenerate("a", turn_id="S")
    for elsewhere in (engine, ChatEngine(api.client(), open_again(), model=MODEL)):
        assert elsewhere.regenerate("a", turn_id="S").position == second.position
        assert elsewhere.regenerate("a", turn_id="R").position == first.position  # not the current one any longer
    engine.send("a", "third")
    assert engine.regenerate("a", turn_id="S").position == second.position
    assert len(api.requests) == 5
    assert [text for text, _ in list_variants(chat_of("a"), 3)] == ["two", "two b", "two c"]


def test_a_turn_id_whose_request_failed_is_regenerated_again(start_conversation, chat_of):
    engine, api = start_conversation(Failure(500), "two b")
    with pytest.raises(anthropic.InternalServerError):
        engine.regenerate("a", turn_id="R")
    assert engine.regenerate("a", turn_id="R").text == "two b"
    assert sent_texts(api) == ["first", "one", "second"]
    assert list_kinds(chat_of("a")).count("rewind") == 1


def test_a_refused_question_is_not_regenerated(start_conversation, chat_of):
    refused = Failure(400, message="messages.4.content: invalid")
    engine, api = start_conversation(refused)
    with pytest.raises(anthropic.BadRequestError):
        engine.send("a", "third")
    before = list(chat_of("a").entries())
    with pytest.raises(errors.TurnRefused, match="force=True"):
        engine.regenerate("a")
    assert list(chat_of("a").entries()) == before
    assert len(api.requests) == 3


def test_a_store_that_fails_when_a_reply_is_regenerated_closes_the_turn():
    def landed_unread(append):
        store.on_read = iter([not_landed])
        return append()

    with FaultyStore() as store:
        api = FakeMessagesAPI(["one", "one b"])
        engine = ChatEngine(api.client(), store, model=MODEL)
        engine.send("a", "first")
        store.on_append = iter([landed_unread])
        with pytest.raises(errors.StoreUnavailable) as caught:
            engine.regenerate("a")
        assert "the message is saved in 'a'" in caught.value.__notes__[0]
        chat = History(store).conversation("a")
        assert chat.state().engine.open_turn is None
        assert texts_of(chat.messages()) == ["first"]
        assert engine.regenerate("a").text == "one b"


def test_the_questions_turn_id_returns_the_current_reply(open_again):
    api = FakeMessagesAPI(["one", "one b"])
    engine = ChatEngine(api.client(), open_again(), model=MODEL)
    engine.send("a", "first", turn_id="T")
    again = engine.regenerate("a")
    assert engine.send("a", "first", turn_id="T").position == again.position
    assert len(api.requests) == 2


def test_a_late_reply_after_a_takeover_is_not_a_variant(start_conversation, open_again, chat_of):
    paused = Paused("late")
    engine, _ = start_conversation(paused)
    with ThreadPoolExecutor(1) as pool:
        under_way = pool.submit(engine.regenerate, "a")
        assert paused.reached.wait(600)
        other = ChatEngine(FakeMessagesAPI("taken over").client(), open_again(), model=MODEL)
        other.resume("a", takeover=True)
        paused.gate.set()
        with pytest.raises(errors.OrphanedReply):
            under_way.result(60)
    assert list_variants(chat_of("a"), 3) == [("two", False), ("taken over", True)]


def test_variants_after_a_repair_and_after_forgetting(start_conversation, open_again, chat_of):
    engine, _ = start_conversation("two b", "three")
    engine.regenerate("a")
    chat = chat_of("a")
    chat.append([{"role": "user", "content": " "}])
    assert chat.repair(dry_run=False)
    assert [text for text, _ in list_variants(chat, 3)] == ["two", "two b"]
    chat.forget(before=3)
    assert list_variants(chat, 3) == [("two", False), ("two b", True)]
    with pytest.raises(errors.InvalidInput):
        chat.variants(1)
    chat.choose(4)
    assert texts_of(chat.messages()) == ["second", "two"]
    assert chat.state().totals.messages == 2


def test_variants_and_choose_with_asyncio(start_conversation, open_again):
    start_conversation("two b")[0].regenerate("a")

    async def main():
        async with AsyncHistory(open_again()) as history:
            chat = history.conversation("a")
            [two, two_b] = await chat.variants(3)
            assert two_b.is_current
            await chat.choose(two.position, expected=(await chat.info()).version)
            assert texts_of(await chat.messages())[-1] == "two"
            assert chat.version == History(history.store).conversation("a").info().version

    asyncio.run(main())
