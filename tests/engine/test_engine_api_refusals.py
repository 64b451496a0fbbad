"""Refusals of the API never block a conversation: refused turns are not sent again, refused earlier blocks are named.

Also: containers that the API no longer knows, and `ChatEngine.check`.
"""

from __future__ import annotations

import asyncio

import anthropic
import pytest
from faulty_stores import FaultyStore, shared_names
from reported_api_errors import CASES, IMAGE, OTHER, REPLIES, SAID, TURN, TURN_BLOCKS, Case, text
from stored_entries import list_kinds

from chathistory import AsyncChatEngine, ChatEngine, History, errors, open_store
from chathistory.engine.online_check import find_refused_place
from chathistory.engine.turn import Turn
from chathistory.log.active_path import load_active
from chathistory.log.state import Container
from chathistory.testing import FakeMessagesAPI
from chathistory.testing.fake_api import Failure, Reply
from chathistory.trimming import LastTurns, Summarize

MODEL = "claude-sonnet-5-5"
TOOL = {"name": "shot", "input_schema": {"type": "object"}}
WEB = {"type": "web_search_20250305", "name": "web_search"}
CALL = {"type": "tool_use", "id": "toolu_1", "name": "shot", "input": {}}
CALL_2 = CALL | {"id": "toolu_2"}
TOO_LARGE = "image.source.base64: image exceeds 5 MB maximum: 8259148 bytes > 5242880 bytes"
LARGE = Case(f"messages.2.content.1.{TOO_LARGE}", TURN)
"""For the second turn of a conversation."""


def make_refusing_api(case):
    """Return a fake API that answers two turns and refuses the third."""
    return FakeMessagesAPI([*REPLIES, case.failure, *["fine"] * 5])


def send_turns(engine, name="a"):
    for words in SAID:
        engine.send(name, words)


def sent_messages(api, number=-1):
    return api.requests[number].body["messages"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.text[:60])
def test_an_error_is_classified_by_what_it_names(open_again, case):
    api, store = make_refusing_api(case), open_again()
    engine = ChatEngine(api.client(), store, model=MODEL, tools=[WEB])
    send_turns(engine)
    with pytest.raises(anthropic.APIStatusError) as caught:
        engine.send("a", TURN_BLOCKS)
    refusal = getattr(caught.value, "refusal", None)
    assert (refusal and refusal.kind) == case.kind
    if case.places:
        assert tuple((place.position, place.block) for place in refusal.locations) == case.places
    chat = History(store).conversation("a")
    assert chat.state().engine.open_turn is None
    assert [m["content"] for m in chat.last_messages(5) if m["role"] == "user"] == [*SAID, TURN_BLOCKS], (
        "stored as it was sent"
    )
    check_outcome(case, engine, api, chat)


def check_outcome(case, engine, api, chat):
    if case.kind == TURN:
        with pytest.raises(errors.TurnRefused, match="force=True"):
            engine.resume("a")
        assert engine.send("a", "Never mind.").text == "fine"
        assert [message["content"] for message in sent_messages(api)[::2]] == [*SAID, "Never mind."]
        assert chat.view().report.omitted[0].position == 5
        return
    assert engine.resume("a").text == "fine"
    assert sent_messages(api) == sent_messages(api, -2), "the turn is sent as it was"
    assert chat.view().report.omitted == ()


def test_the_table_has_real_texts_of_all_kinds_with_their_sources():
    assert len(CASES) >= 50
    assert all(case.source for case in CASES)
    assert {case.kind for case in CASES} == {"turn", "earlier", "size", OTHER}
    assert sum("memory" not in case.source and "fake API" not in case.source for case in CASES) >= 25


def test_the_error_says_which_block_it_was_and_what_to_do(open_again):
    case = CASES[0]
    engine = ChatEngine(make_refusing_api(case).client(), open_again(), model=MODEL, tools=[WEB])
    send_turns(engine)
    with pytest.raises(anthropic.BadRequestError) as caught:
        engine.send("a", TURN_BLOCKS)
    assert caught.value.refusal.path == "messages.4.content.1"
    list_entries = "\n".join(caught.value.__notes__)
    assert "record 5, block 1: an image that is too large" in list_entries
    assert "not sent again" in list_entries
    assert "resume(id, force=True)" in list_entries


def test_a_refused_turn_is_sent_again_by_force(open_again):
    api, store = FakeMessagesAPI(["hello", LARGE.failure, "now", "then"]), open_again()
    engine = ChatEngine(api.client(), store, model=MODEL)
    engine.send("a", "Hi")
    with pytest.raises(anthropic.BadRequestError):
        engine.send("a", TURN_BLOCKS)
    assert engine.resume("a", force=True).text == "now"
    assert sent_messages(api)[-1]["content"] == TURN_BLOCKS
    engine.send("a", "And?")
    assert sent_messages(api)[2]["content"] == TURN_BLOCKS
    api.assert_extends([request for request in api.requests if request.status == 200])


def test_what_is_refused_by_force_is_refused_again(open_again):
    api = FakeMessagesAPI(["hello", LARGE.failure, LARGE.failure, "fine"])
    engine = ChatEngine(api.client(), open_again(), model=MODEL)
    engine.send("a", "Hi")
    with pytest.raises(anthropic.BadRequestError):
        engine.send("a", TURN_BLOCKS)
    with pytest.raises(anthropic.BadRequestError):
        engine.resume("a", force=True)
    with pytest.raises(errors.TurnRefused):
        engine.resume("a")
    assert engine.send("a", "Never mind.").text == "fine"
    assert [message["content"] for message in sent_messages(api)[::2]] == ["Hi", "Never mind."]


def test_a_turn_id_that_was_refused_is_not_sent_again(open_again):
    api, store = FakeMessagesAPI(["hello", LARGE.failure]), open_again()
    engine = ChatEngine(api.client(), store, model=MODEL)
    engine.send("a", "Hi")
    with pytest.raises(anthropic.BadRequestError):
        engine.send("a", TURN_BLOCKS, turn_id="T1")
    for again in (engine, ChatEngine(api.client(), open_again(), model=MODEL)):
        with pytest.raises(errors.TurnRefused):
            again.send("a", TURN_BLOCKS, turn_id="T1")
    assert len(api.requests) == 2


def test_the_first_turn_of_a_conversation_may_be_refused(open_again):
    case = Case(f"messages.0.content.1.{TOO_LARGE}", TURN)
    api = FakeMessagesAPI([case.failure, "fine"])
    engine = ChatEngine(api.client(), open_again(), model=MODEL)
    with pytest.raises(anthropic.BadRequestError):
        engine.send("a", TURN_BLOCKS)
    assert engine.send("a", "Hi").text == "fine"
    assert sent_messages(api) == [{"role": "user", "content": "Hi"}]


def test_a_refused_turn_is_kept_in_the_log_through_copies_forks_and_exports(open_again, tmp_path):
    api, store = FakeMessagesAPI(["hello", LARGE.failure, "fine", "fine"]), open_again()
    engine = ChatEngine(api.client(), store, model=MODEL)
    engine.send("a", "Hi")
    with pytest.raises(anthropic.BadRequestError):
        engine.send("a", TURN_BLOCKS)
    history = engine.history
    history.conversation("a").fork("b")
    history.export_to(tmp_path / "all.jsonl")
    other = ChatEngine(api.client(), open_store("memory:"), model=MODEL)
    other.history.import_from(tmp_path / "all.jsonl")
    for each, name in ((engine, "b"), (other, "a")):
        assert each.send(name, "Go on").text == "fine"
        assert [message["content"] for message in sent_messages(api)[::2]] == ["Hi", "Go on"]
        assert TURN_BLOCKS in [message["content"] for message in each.history.conversation(name).last_messages(9)]


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("messages.0.content.2", (3, 0)),  # counted in one message, as the API merges messages of the same role
        ("messages.0.content.1", (1, 0)),
        ("messages.0.content.9", (0, None)),
        ("messages.2.content.1", (3, 1)),
        ("messages.9.content.1", None),
    ],
)
def test_a_path_is_found_in_messages_that_the_api_merges(open_again, path, place):
    api, store = FakeMessagesAPI([Failure(400, message=f"{path}: this was refused"), "fine"]), open_again()
    History(store).conversation("a").append([{"role": "user", "content": words} for words in ("one", "two")])
    with pytest.raises(anthropic.BadRequestError) as caught:
        ChatEngine(api.client(), store, model=MODEL).send("a", TURN_BLOCKS)
    refusal = getattr(caught.value, "refusal", None)
    assert (refusal and [(each.position, each.block) for each in refusal.locations]) == (place and [place])


@pytest.mark.parametrize("index", [0, 1])
def test_a_block_that_is_not_sent_as_it_is_stored_is_found(open_again, index):
    failure = Failure(400, message=f"messages.0.content.{index}: this was refused")
    engine = ChatEngine(FakeMessagesAPI([failure]).client(), open_again(), model=MODEL)
    with pytest.raises(anthropic.BadRequestError) as caught:
        engine.send("a", [text("one \ud800"), text("two \ud800")])
    assert [place.block for place in caught.value.refusal.locations] == [index]


def test_an_error_about_images_in_a_conversation_without_any_refuses_nothing(open_again):
    api = FakeMessagesAPI([Failure(400, message="Could not process image"), "fine"])
    engine = ChatEngine(api.client(), open_again(), model=MODEL)
    with pytest.raises(anthropic.BadRequestError) as caught:
        engine.send("a", "Hi")
    assert not hasattr(caught.value, "refusal")
    assert engine.resume("a").text == "fine"


def test_an_error_about_a_result_that_was_added_to_a_message_refuses_the_message(open_again):
    failure = Failure(400, message="messages.2.content.0.tool_result.content: this was refused")
    api, engine = start_with_calls(open_again, failure, "fine", calls=[CALL])
    engine.send("a", "Look")
    with pytest.raises(anthropic.BadRequestError) as caught:
        engine.send("a", "Never mind")
    assert [block["type"] for block in sent_messages(api)[2]["content"]] == ["tool_result", "text"]
    assert [(place.position, place.block) for place in caught.value.refusal.locations] == [(3, None)]
    assert engine.send("a", "Go on").text == "fine"
    assert "Never mind" not in str(sent_messages(api))


def test_an_error_about_results_that_are_stored_nowhere_refuses_nothing(open_again):
    failure = Failure(400, message="messages.2.content.0.tool_result.content: this was refused")
    api, engine = start_with_calls(open_again, "as you like", failure, "fine", calls=[CALL])
    engine.send("a", "Look")
    engine.send("a", "Never mind")
    engine.history.conversation("a").leave_out(3)
    with pytest.raises(anthropic.BadRequestError) as caught:
        engine.send("a", "Go on")
    assert [block["type"] for block in sent_messages(api)[2]["content"]] == ["tool_result"]
    assert not hasattr(caught.value, "refusal")
    assert engine.resume("a").text == "fine"


# Results of tools.
# Results of tools.


def start_with_calls(open_again, *replies, calls=(CALL, CALL_2)):
    api = FakeMessagesAPI([list(calls), *replies])
    return api, ChatEngine(api.client(), open_again(), model=MODEL, tools=[TOOL])


def test_a_refused_tool_result_is_replaced_by_an_error_and_the_loop_continues(open_again):
    failure = Failure(400, message=f"messages.2.content.1.tool_result.content.0.{TOO_LARGE}")
    api, engine = start_with_calls(open_again, failure, "I see one.", "fine")
    reply = engine.send("a", "Look")
    with pytest.raises(anthropic.BadRequestError) as caught:
        engine.submit("a", reply, {"toolu_1": "a cat", "toolu_2": [IMAGE]})
    place = caught.value.refusal.locations[0]
    assert (place.block, place.inner) == (1, 0)
    assert "an error in its place" in "\n".join(caught.value.__notes__)
    assert engine.resume("a").text == "I see one."
    first, second = sent_messages(api)[2]["content"]
    assert first["content"] == "a cat"
    assert second == {
        "type": "tool_result",
        "tool_use_id": "toolu_2",
        "content": "This result was not accepted: an image that is too large.",
        "is_error": True,
    }
    engine.send("a", "Go on")
    api.assert_extends([request for request in api.requests if request.status == 200])
    assert engine.history.conversation("a").repair() == ()


def test_all_results_of_a_message_that_is_refused_as_a_whole_are_replaced(open_again):
    failure = Failure(400, message="messages.2: all messages must be valid")
    api, engine = start_with_calls(open_again, failure, "I see.")
    reply = engine.send("a", "Look")
    with pytest.raises(anthropic.BadRequestError) as caught:
        engine.submit("a", reply, {"toolu_1": "a cat", "toolu_2": "a dog"})
    assert [place.block for place in caught.value.refusal.locations] == [None]
    assert engine.resume("a").text == "I see."
    assert [block["is_error"] for block in sent_messages(api)[2]["content"]] == [True, True]


def test_a_refused_tool_result_is_sent_again_by_force(open_again):
    failure = Failure(400, message=f"messages.2.content.0.tool_result.content.0.{TOO_LARGE}")
    api, engine = start_with_calls(open_again, failure, "I see it.", calls=[CALL])
    reply = engine.send("a", "Look")
    with pytest.raises(anthropic.BadRequestError):
        engine.submit("a", reply, {"toolu_1": [IMAGE]})
    assert engine.resume("a", force=True).text == "I see it."
    assert sent_messages(api)[2]["content"][0]["content"] == [IMAGE]


def test_another_result_may_take_the_place_of_a_refused_one(open_again):
    failure = Failure(400, message=f"messages.2.content.0.tool_result.content.0.{TOO_LARGE}")
    api, engine = start_with_calls(open_again, failure, "I see it.", "fine", calls=[CALL])
    reply = engine.send("a", "Look")
    with pytest.raises(anthropic.BadRequestError):
        engine.submit("a", reply, {"toolu_1": [IMAGE]})
    assert engine.submit("a", reply, {"toolu_1": "a small cat"}).text == "I see it."
    assert [block["content"] for block in sent_messages(api)[2]["content"]] == ["a small cat"]
    engine.send("a", "Go on")
    api.assert_extends([request for request in api.requests if request.status == 200])


def test_the_tool_runner_continues_after_a_refused_result(open_again):
    @anthropic.beta_tool
    def shot() -> str:
        """Take a picture."""
        calls.append(1)
        return "picture"

    calls = []
    failure = Failure(400, message=f"messages.2.content.0.tool_result.content.0.{TOO_LARGE}")
    api = FakeMessagesAPI([[CALL], failure, "Without it, then."])
    engine = ChatEngine(api.client(), open_again(), model=MODEL)
    with pytest.raises(anthropic.BadRequestError) as caught:
        engine.run_tools("a", "Look", tools=[shot])
    assert caught.value.refusal.kind == "turn"
    assert engine.run_tools("a", None, tools=[shot]).text == "Without it, then."
    assert calls == [1], "the tool ran once"
    assert sent_messages(api)[2]["content"][0]["is_error"] is True


def test_a_result_that_the_api_refuses_without_a_path_is_replaced_too(open_again):
    api, engine = start_with_calls(open_again, Failure(400, message="Could not process image"), "fine", calls=[CALL])
    reply = engine.send("a", "Look")
    with pytest.raises(anthropic.BadRequestError):
        engine.submit("a", reply, {"toolu_1": [IMAGE]})
    assert engine.resume("a").text == "fine"
    assert sent_messages(api)[2]["content"][0]["is_error"] is True


def test_results_submitted_one_by_one_are_replaced_where_they_are_stored(open_again):
    failure = Failure(400, message=f"messages.2.content.0.tool_result.content.0.{TOO_LARGE}")
    api, engine = start_with_calls(open_again, failure, "fine")
    reply = engine.send("a", "Look")
    assert engine.submit("a", reply, {"toolu_1": [IMAGE]}, partial=True) == ["toolu_2"]
    with pytest.raises(anthropic.BadRequestError) as caught:
        engine.submit("a", reply, {"toolu_2": "b"}, partial=True)
    assert [(place.position, place.block) for place in caught.value.refusal.locations] == [(3, 0)]
    assert engine.resume("a").text == "fine"
    assert [block.get("is_error", False) for block in sent_messages(api)[2]["content"]] == [True, False]


# Earlier messages.


def test_an_image_that_was_accepted_once_is_named_and_left_out_by_one_call(open_again):
    case = next(case for case in CASES if case.text.startswith("messages.2.content.0.image"))
    api, store = make_refusing_api(case), open_again()
    engine = ChatEngine(api.client(), store, model=MODEL, tools=[WEB])
    send_turns(engine)
    with pytest.raises(anthropic.BadRequestError) as caught:
        engine.send("a", "And now?")
    assert "conversation.leave_out()" in "\n".join(caught.value.__notes__)
    chat = History(store).conversation("a")
    chat.leave_out()
    assert engine.resume("a").text == "fine"
    assert sent_messages(api)[2]["content"] == SAID[1][1:]
    assert chat.last_messages(4)[0]["content"] == SAID[1], "the log keeps it"
    engine.send("a", "Go on")
    api.assert_extends(api.requests[-2:])


def test_thinking_of_another_account_is_left_out_by_one_call(open_again):
    store, thoughtful = open_again(), lambda _: [{"type": "thinking", "thinking": "hm", "signature": ""}, text("hi")]
    mine, theirs = FakeMessagesAPI(thoughtful, account="mine"), FakeMessagesAPI(thoughtful, account="theirs")
    for words in ("one", "two"):
        ChatEngine(mine.client(), store, model=MODEL).send("a", words)
    engine = ChatEngine(theirs.client(), store, model=MODEL)
    with pytest.raises(anthropic.BadRequestError) as caught:
        engine.send("a", "three")
    assert caught.value.refusal.kind == "earlier"
    assert caught.value.refusal.problem == "thinking that the API does not accept"
    engine.history.conversation("a").leave_out()
    assert engine.resume("a").text == "hi"
    assert "thinking" not in str(sent_messages(theirs))
    assert engine.send("a", "four").text == "hi"
    assert str(sent_messages(theirs)).count("'thinking'") == 2, "what was thought since is sent"


def test_thinking_of_another_account_within_a_tool_call_is_left_out_too(open_again):
    store = open_again()
    thinks = [{"type": "thinking", "thinking": "hm", "signature": ""}, CALL]
    mine, theirs = FakeMessagesAPI([thinks], account="mine"), FakeMessagesAPI(["done", "fine"], account="theirs")
    reply = ChatEngine(mine.client(), store, model=MODEL, tools=[TOOL]).send("a", "Look")
    engine = ChatEngine(theirs.client(), store, model=MODEL, tools=[TOOL])
    with pytest.raises(anthropic.BadRequestError):
        engine.submit("a", reply, {"toolu_1": "a cat"})
    engine.history.conversation("a").leave_out()
    assert engine.resume("a").text == "done"
    assert engine.send("a", "Go on").text == "fine"


@pytest.mark.parametrize("where", ["document", "tool result", "upload"])
def test_an_expired_file_is_found_and_left_out_by_one_call(open_again, where):
    file = {"type": "document", "source": {"type": "file", "file_id": "file_1"}}
    said = {
        "document": [file, text("Read this")],
        "upload": [{"type": "container_upload", "file_id": "file_1"}, text("Read this")],
        "tool result": "Look",
    }[where]
    store = open_again()
    api = FakeMessagesAPI([[CALL] if where == "tool result" else "read", *["fine"] * 4])
    engine = ChatEngine(api.client(), store, model=MODEL, tools=[TOOL])
    reply = engine.send("a", said)
    if where == "tool result":
        engine.submit("a", reply, {"toolu_1": [text("here"), file]})
    api.gone.add("file_1")
    with pytest.raises(anthropic.NotFoundError) as caught:
        engine.send("a", "And now?")
    assert caught.value.refusal.kind == "earlier"
    History(store).conversation("a").leave_out()
    assert engine.resume("a").text == "fine"
    assert "file_1" not in str(sent_messages(api))
    assert "here" in str(sent_messages(api)) or where != "tool result", "the rest of the result stays"


def test_an_old_image_is_left_out_while_a_tool_call_with_thinking_awaits_its_result(open_again):
    store = open_again()
    thinks = [{"type": "thinking", "thinking": "hm", "signature": ""}, CALL]
    failure = Failure(400, message=f"messages.0.content.0.{TOO_LARGE}")
    api = FakeMessagesAPI(["a cat", thinks, failure, "done", "fine"])
    engine = ChatEngine(api.client(), store, model=MODEL, tools=[TOOL])
    engine.send("a", [IMAGE, text("What is this?")])
    reply = engine.send("a", "Look again")
    with pytest.raises(anthropic.BadRequestError):
        engine.submit("a", reply, {"toolu_1": "a dog"})
    engine.history.conversation("a").leave_out()
    assert engine.resume("a").text == "done"
    assert engine.send("a", "Go on").text == "fine"


def test_an_omission_survives_going_back_and_repair(open_again):
    case = next(case for case in CASES if case.text.startswith("messages.2.content.0.image"))
    api, store = make_refusing_api(case), open_again()
    engine = ChatEngine(api.client(), store, model=MODEL, tools=[WEB])
    send_turns(engine)
    with pytest.raises(anthropic.BadRequestError):
        engine.send("a", "And now?")
    chat = engine.history.conversation("a")
    chat.leave_out()
    engine.resume("a")
    chat.state()
    chat.rewind(to=5)
    engine.send("a", "Something else")
    assert sent_messages(api)[2]["content"] == SAID[1][1:]
    chat.repair(dry_run=False)
    chat.fork("b")
    engine.send("b", "Go on")
    assert sent_messages(api)[2]["content"] == SAID[1][1:]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "refused nothing"),
        ({"position": 99}, "position: must be the position of a message"),
        ({"position": 0}, "position: must be the position of a message"),
        ({"position": 1, "block": 3}, "block: must be between 0 and 0"),
    ],
)
def test_what_cannot_be_left_out_is_refused(open_again, arguments, words):
    engine = ChatEngine(FakeMessagesAPI().client(), open_again(), model=MODEL)
    engine.send("a", "Hi")
    with pytest.raises(errors.InvalidInput, match=words):
        engine.history.conversation("a").leave_out(**arguments)
    with pytest.raises(errors.ConversationNotFound, match="no conversation"):
        engine.history.conversation("nothing").leave_out(1)


def test_a_message_that_is_too_large_can_be_left_out_by_hand(open_again):
    api = FakeMessagesAPI(["hello", Failure(400, message="prompt is too long: 209582 tokens > 200000 maximum"), "fine"])
    engine = ChatEngine(api.client(), open_again(), model=MODEL)
    engine.send("a", "Hi")
    with pytest.raises(anthropic.BadRequestError) as caught:
        engine.send("a", "a whole book")
    largest = caught.value.refusal.locations[0]
    assert largest.position == 3
    engine.history.conversation("a").leave_out(largest.position)
    assert engine.send("a", "Never mind.").text == "fine"
    assert [message["content"] for message in sent_messages(api)[::2]] == ["Hi", "Never mind."]


THOUGHT = {"type": "thinking", "thinking": "hm", "signature": ""}


@pytest.mark.parametrize("what", [{"thinking": True}, {"position": 2, "block": 0}])
def test_thinking_that_a_result_needs_cannot_be_left_out_by_hand(open_again, what):
    api = FakeMessagesAPI([[THOUGHT, CALL], "fine", "well"])
    engine = ChatEngine(api.client(), open_again(), model=MODEL, tools=[TOOL])
    reply = engine.send("a", "Take a look")
    chat = engine.history.conversation("a")
    with pytest.raises(errors.InvalidInput, match=r"position 2 until its turn is complete; leave it out after"):
        chat.leave_out(**what)
    assert engine.submit("a", reply, {"toolu_1": "seen"}).text == "fine"
    chat.state()
    chat.leave_out(**what)
    assert engine.send("a", "And now?").text == "well"
    assert "thinking" not in str(sent_messages(api)[1:])


def test_a_reply_that_awaits_results_can_be_left_out_as_a_whole(open_again):
    api = FakeMessagesAPI([[THOUGHT, CALL], "fine"])
    engine = ChatEngine(api.client(), open_again(), model=MODEL, tools=[TOOL])
    engine.send("a", "Take a look")
    engine.history.conversation("a").leave_out(2)
    assert engine.send("a", "Never mind").text == "fine"
    assert [message["content"] for message in sent_messages(api)] == ["Take a look", "Never mind"]


@pytest.mark.parametrize("block", [None, 0])
def test_words_in_place_of_a_result_can_be_left_out(open_again, block):
    thought = {"type": "thinking", "thinking": "hm", "signature": ""}
    api = FakeMessagesAPI([[thought, text("I look."), CALL, CALL_2], "as you like", "fine"])
    engine = ChatEngine(api.client(), open_again(), model=MODEL, tools=[TOOL])
    engine.send("a", "Take a look")
    engine.send("a", "No, wait")
    engine.history.conversation("a").leave_out(3, block=block)
    assert engine.send("a", "Go on").text == "fine"
    question, call, results, reply, last = sent_messages(api)
    assert [block["type"] for block in call["content"]] == ["text", "tool_use", "tool_use"]
    assert [block["tool_use_id"] for block in results["content"]] == ["toolu_1", "toolu_2"]
    assert all(block["is_error"] for block in results["content"])
    assert [question["content"], reply["content"][0]["text"], last["content"]] == [
        "Take a look",
        "as you like",
        "Go on",
    ]


# The other ways to send.


def test_a_streamed_turn_is_refused_as_well(open_again):
    api = FakeMessagesAPI(["hello", LARGE.failure, "fine", "forced"])
    engine = ChatEngine(api.client(), open_again(), model=MODEL)
    engine.send("a", "Hi")
    with pytest.raises(anthropic.BadRequestError) as caught, engine.stream("a", TURN_BLOCKS) as stream:
        list(stream)
    assert caught.value.refusal.kind == "turn"
    with pytest.raises(errors.TurnRefused), engine.stream_resumed("a"):
        pass
    with engine.stream_resumed("a", force=True) as stream:
        assert stream.get_final_reply().text == "fine"
    assert sent_messages(api)[-1]["content"] == TURN_BLOCKS


def test_the_asynchronous_engine_classifies_alike(open_again):
    earlier = Case(f"messages.0.content.0.{TOO_LARGE}", "earlier")
    api, store = FakeMessagesAPI(["hello", LARGE.failure, "fine", earlier.failure, "then"]), open_again()

    async def main():
        async with AsyncChatEngine(api.async_client(), store, model=MODEL) as engine:
            await engine.send("a", [IMAGE, text("Hi")])
            with pytest.raises(anthropic.BadRequestError) as caught:
                await engine.send("a", TURN_BLOCKS)
            assert caught.value.refusal.kind == "turn"
            with pytest.raises(errors.TurnRefused):
                await engine.resume("a")
            assert (await engine.send("a", "Never mind.")).text == "fine"
            with pytest.raises(anthropic.BadRequestError) as caught:
                async with engine.stream("a", "And?") as stream:
                    await stream.get_final_reply()
            assert caught.value.refusal.kind == "earlier"
            await engine.history.conversation("a").leave_out()
            assert (await engine.resume("a")).text == "then"

    asyncio.run(main())
    assert [message["content"] for message in sent_messages(api)[::2]] == [[text("Hi")], "Never mind.", "And?"]


def test_a_turn_that_somebody_abandoned_meanwhile_is_not_marked(open_again):
    def reply(_):
        ChatEngine(api.client(), open_again(), model=MODEL).abandon("a")
        return Case(f"messages.0.content.1.{TOO_LARGE}", TURN).failure

    api = FakeMessagesAPI(reply)
    engine = ChatEngine(api.client(), open_again(), model=MODEL)
    with pytest.raises(anthropic.BadRequestError):
        engine.send("a", TURN_BLOCKS)
    assert "turn_refused" not in list_kinds(History(open_again()).conversation("a"))


def test_a_turn_that_somebody_continued_while_the_refusal_is_stored_is_not_marked():
    def append_late(append):
        History(open_store("memory:continued")).conversation("a").append({"role": "user", "content": "me too"})
        return append()

    def refuse(_):
        store.on_append = iter([append_late])
        return LARGE.failure

    with shared_names("continued"), FaultyStore("continued") as store:
        engine = ChatEngine(FakeMessagesAPI(["hello", refuse]).client(), store, model=MODEL)
        engine.send("a", "Hi")
        with pytest.raises(anthropic.BadRequestError):
            engine.send("a", TURN_BLOCKS)
        chat = History(store).conversation("a")
        assert list_kinds(chat)[2:] == ["message", "message", "turn_abandoned"]
        assert [message["content"] for message in chat.messages()][2:] == [TURN_BLOCKS, "me too"]


def test_a_refusal_is_not_marked_if_the_messages_that_were_sent_are_not_known(open_again, monkeypatch):
    turns, start = [], Turn.start
    monkeypatch.setattr(Turn, "start", lambda self, *a, **k: (turns.append(self), start(self, *a, **k)))

    def refuse_after_renewal(_):
        History(store).conversation("a").set_title("A title")
        assert turns[-1].renew()  # others wrote before it, so this process has to read the conversation again
        return LARGE.failure

    store = open_again()
    api = FakeMessagesAPI(["hello", refuse_after_renewal, LARGE.failure])
    engine = ChatEngine(api.client(), open_again(), model=MODEL)
    engine.send("a", "Hi")
    with pytest.raises(anthropic.BadRequestError) as caught:
        engine.send("a", TURN_BLOCKS)
    assert not hasattr(caught.value, "refusal")
    with pytest.raises(anthropic.BadRequestError) as caught:
        engine.resume("a")
    assert caught.value.refusal.kind == "turn"


# Containers.


def make_container_reply(id):
    return Reply(content="ran", extra={"container": {"id": id, "expires_at": "2020-01-01T00:00:00Z"}})


def test_a_container_is_kept_for_thirty_days_from_when_it_was_made(open_again):
    api = FakeMessagesAPI([make_container_reply("container_1"), make_container_reply("container_1"), "c", "d"])
    engine = ChatEngine(api.client(), open_again(), model=MODEL)
    for words in ("one", "two", "three"):
        engine.send("a", words)
    assert [request.body.get("container") for request in api.requests] == [None, "container_1", "container_1"]
    found = engine.history.conversation("a").state().engine.container
    day = 24 * 3600 * 1_000_000
    since = found.since
    assert found.id == "container_1"
    assert found.is_usable(since + 30 * day - 1)
    assert not found.is_usable(since + 30 * day)


@pytest.mark.parametrize("way", ["send", "stream", "run_tools"])
def test_a_container_that_the_api_does_not_know_is_forgotten_and_the_turn_continues(open_again, way):
    api, store = FakeMessagesAPI([make_container_reply("container_1"), "on", "then"]), open_again()
    engine = ChatEngine(api.client(), store, model=MODEL, tools=[TOOL])
    engine.send("a", "one")
    api.gone.add("container_1")
    if way == "send":
        assert engine.send("a", "two").text == "on"
    elif way == "stream":
        with engine.stream("a", "two") as stream:
            assert stream.get_final_reply().text == "on"
    else:
        assert engine.run_tools("a", "two", tools=[TOOL]).text == "on"
    engine.send("a", "three")
    assert [request.body.get("container") for request in api.requests] == [None, "container_1", None, None]
    assert History(store).conversation("a").state().engine.container is None


@pytest.mark.parametrize("streaming", [False, True])
def test_a_container_is_forgotten_by_the_asynchronous_engine_too(open_again, streaming):
    api = FakeMessagesAPI([make_container_reply("container_1"), "on", "then", "last"])

    async def ask(engine, words):
        if not streaming:
            return await engine.send("a", words)
        async with engine.stream("a", words) as stream:
            return await stream.get_final_reply()

    async def main():
        async with AsyncChatEngine(api.async_client(), open_again(), model=MODEL) as engine:
            await engine.send("a", "one")
            api.gone.add("container_1")
            assert (await ask(engine, "two")).text == "on"
            assert (await ask(engine, "three")).text == "then"

    asyncio.run(main())
    assert [request.body.get("container") for request in api.requests] == [None, "container_1", None, None]


def make_stored_reply(id):
    """Return a reply with a container id of any type, as a program may have saved it."""
    text = [{"type": "text", "text": "ran"}]
    fields = {
        "id": "msg_1",
        "model": MODEL,
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 1, "output_tokens": 1},
    }
    return {"type": "message", "role": "assistant", "content": text, "container": {"id": id}, **fields}


@pytest.mark.parametrize("id", [5, None, True, "", " ", "\ud800", ["x"], {"a": 1}])
def test_a_container_with_an_invalid_id_is_not_used(open_again, id):
    store, api = open_again(), FakeMessagesAPI("fine")
    chat = History(store).conversation("a")
    chat.append([{"role": "user", "content": "one"}, make_stored_reply(id)])
    assert chat.state().engine.container is None
    assert ChatEngine(api.client(), store, model=MODEL).send("a", "two").text == "fine"
    assert "container" not in api.requests[-1].body


@pytest.mark.parametrize("container", [{"id": 5}, {"id": "\ud800", "since": 1}, {"expires_at": 5}, {"since": "x"}])
def test_an_invalid_container_id_stored_by_an_earlier_version_is_not_sent(container):
    made = Container.from_dict(container)
    assert made is None or not made.is_usable(1)


def test_a_container_that_the_api_finds_malformed_is_forgotten(open_again):
    store = open_again()
    api = FakeMessagesAPI([Failure(400, message="container: String should have at most 64 characters"), "fine"])
    History(store).conversation("a").append([{"role": "user", "content": "one"}, make_stored_reply("x" * 999)])
    assert ChatEngine(api.client(), store, model=MODEL).send("a", "two").text == "fine"
    assert [request.body.get("container") for request in api.requests] == ["x" * 999, None]


def test_a_container_in_the_options_is_not_removed(open_again):
    api = FakeMessagesAPI("hi", gone=["mine"])
    engine = ChatEngine(api.client(), open_again(), model=MODEL, options={"container": "mine"})
    with pytest.raises(anthropic.BadRequestError):
        engine.send("a", "one")
    assert len(api.requests) == 1


def test_a_fork_starts_without_the_container_of_the_first_one(open_again):
    api = FakeMessagesAPI([make_container_reply("container_1"), "b", "c"])
    engine = ChatEngine(api.client(), open_again(), model=MODEL)
    engine.send("a", "one")
    engine.history.conversation("a").fork("b", scope="other")
    engine.send("b", "two", scope="other")
    engine.send("a", "two")
    assert [request.body.get("container") for request in api.requests] == [None, None, "container_1"]


# `ChatEngine.check`: asking the API where the refused block is.


def make_long_conversation(store, faulty, turns=12):
    """Create a conversation with many turns and blocks that the API refuses without naming a path."""
    api = FakeMessagesAPI(
        lambda _: "fine", refuse=lambda body: BROKEN if on[0] and "BROKEN" in str(body["messages"]) else None
    )
    on = [False]
    engine = ChatEngine(api.client(), store, model=MODEL)
    for number in range(turns):
        said = [text("look"), text("BROKEN"), text("here")] if number in faulty else f"turn {number}"
        engine.send("a", said)
    on[0] = True
    return api, engine


BROKEN = Failure(400, message="Something in this request cannot be read")


@pytest.mark.parametrize("faulty", [{0}, {5}, {11}, {3, 8}])
def test_the_place_is_found_by_bisection_and_left_out(open_again, faulty):
    api, engine = make_long_conversation(open_again(), faulty)
    chat = engine.history.conversation("a")
    before = len(api.requests)
    for _ in faulty:
        refusal = engine.check("a")
        assert [place.block for place in refusal.locations] == [1]
        assert chat.last_messages(50)[2 * min(faulty)]["content"][1]["text"] == "BROKEN"
        chat.leave_out(refusal.locations[0].position, block=1)
    paths = [request.path for request in api.requests[before:]]
    assert engine.check("a") is None
    assert set(paths) == {"/v1/messages/count_tokens"}
    assert len(paths) <= 10 * len(faulty)
    assert engine.send("a", "Go on").text == "fine"


def test_a_place_that_the_api_names_needs_one_request(open_again):
    api = FakeMessagesAPI(lambda _: "fine")
    engine = ChatEngine(api.client(), open_again(), model=MODEL)
    engine.send("a", [{"type": "document", "source": {"type": "file", "file_id": "file_1"}}, text("Read")])
    api.gone.add("file_1")
    count = len(api.requests)
    refusal = engine.check("a")
    assert len(api.requests) == count + 1
    assert refusal.problem == "a file that the API no longer has"
    assert [(place.position, place.block) for place in refusal.locations] == [(1, 0)]


def test_errors_of_the_request_itself_are_raised_and_mark_nothing(open_again):
    api = FakeMessagesAPI(lambda _: "fine")
    store = open_again()
    ChatEngine(api.client(), store, model=MODEL).send("a", "Hi")
    binding = {"thinking": {"type": "adaptive", "block_binding": {}}}
    with pytest.raises(anthropic.BadRequestError, match="thinking"):
        ChatEngine(api.client(), store, model=MODEL, options=binding).check("a")
    with pytest.raises(anthropic.NotFoundError):
        ChatEngine(api.client(), store, model="claude-0").check("a")
    assert list_kinds(History(store).conversation("a")) == ["message", "message"]


def test_a_valid_conversation_costs_one_request(open_again):
    api = FakeMessagesAPI(lambda _: "fine")
    engine = ChatEngine(api.client(), open_again(), model=MODEL)
    assert engine.check("a") is None
    assert api.requests == []
    engine.send("a", "Hi")
    assert engine.check("a") is None
    assert [request.path for request in api.requests] == ["/v1/messages", "/v1/messages/count_tokens"]


def test_the_asynchronous_engine_checks_alike(open_again):
    store = open_again()
    api, _ = make_long_conversation(store, {4})

    async def main():
        async with AsyncChatEngine(api.async_client(), store, model=MODEL) as engine:
            refusal = await engine.check("a")
            assert [place.block for place in refusal.locations] == [1]
            await engine.history.conversation("a").leave_out(refusal.locations[0].position, block=1)
            assert await engine.check("a") is None
            assert await engine.check("nothing") is None

    asyncio.run(main())


class StatusError(Exception):
    """An error as the SDK raises it."""

    def __init__(self, text, status):
        super().__init__(text)
        self.status_code = status


def find_place(chat, refuse):
    """Run `find_refused_place` with a function that returns an error for the messages that it refuses, or None."""

    def count(messages):
        if error := refuse(messages):
            raise error
        return lambda: None

    flow = find_refused_place(load_active(chat.log), count)
    try:
        while True:
            next(flow)()
    except StopIteration as end:
        return end.value


def refuse_broken(messages):
    return StatusError("Something cannot be read", 400) if "BROKEN" in str(messages) else None


@pytest.fixture
def chat(open_again):
    """Return a conversation with two turns."""
    chat = History(open_again()).conversation("a")
    chat.append([{"role": role, "content": f"{role} {n}"} for n in (1, 2) for role in ("user", "assistant")])
    return chat


def test_a_place_that_the_error_names_is_of_an_earlier_message(chat):
    refusal = find_place(chat, lambda _: StatusError(f"messages.2.content.0: {TOO_LARGE}", 400))
    assert [(place.position, place.block) for place in refusal.locations] == [(2, 0)]
    assert (refusal.kind, refusal.certain) == ("earlier", True)


def test_a_conversation_that_is_too_large_is_not_searched(chat):
    requests = []
    refusal = find_place(chat, lambda messages: requests.append(1) or StatusError("prompt is too long", 400))
    assert (refusal.kind, len(requests)) == ("size", 1)


@pytest.mark.parametrize("status", [401, 429, 500, None])
def test_an_error_of_access_or_load_ends_the_check(chat, status):
    requests = []
    with pytest.raises(StatusError):
        find_place(chat, lambda messages: requests.append(1) or StatusError("no", status))
    assert len(requests) == 1


def test_an_error_that_any_messages_get_is_raised(chat):
    with pytest.raises(StatusError, match="bad tools"):
        find_place(chat, lambda _: StatusError("bad tools", 400))


def test_an_error_of_a_conversation_without_messages_is_raised(open_again):
    chat = History(open_again()).conversation("a")
    chat.set_title("A title")
    answers = iter([StatusError("once", 400)])
    with pytest.raises(StatusError, match="once"):
        find_place(chat, lambda _: next(answers, None))


@pytest.mark.parametrize("block", [0, 1, 2])
@pytest.mark.parametrize("role", ["user", "assistant"])
def test_the_refused_block_of_a_message_is_found(chat, role, block):
    chat.append({"role": "user", "content": "3"})
    content = [text("BROKEN" if number == block else "fine") for number in range(3)]
    head = chat.append([{"role": role, "content": content}, {"role": "user", "content": "end"}])
    refusal = find_place(chat, refuse_broken)
    assert [(place.position, place.block) for place in refusal.locations] == [(head.end - 2, block)]
    assert refusal.status == 400


def test_a_refused_block_is_found_if_nothing_else_could_be_sent(open_again):
    chat = History(open_again()).conversation("a")
    chat.append([{"role": "user", "content": [text("BROKEN"), text(" ")]}, {"role": "assistant", "content": "hi"}])
    assert find_place(chat, lambda _: None) is None
    [place] = find_place(chat, refuse_broken).locations
    assert (place.position, place.block) == (0, 0)


def test_the_summary_of_a_cut_is_found(chat):
    assert chat.trim(Summarize(LastTurns(high=1, low=1), by=lambda _: "BROKEN"))
    cut = next(entry for entry in chat.entries() if entry.kind == "cut")
    refusal = find_place(chat, refuse_broken)
    assert [(place.position, place.block) for place in refusal.locations] == [(cut.position, 0)]


def test_repair_reports_what_was_refused_and_leaves_it_out(open_again):
    case = next(case for case in CASES if case.text.startswith("messages.2.content.0.image"))
    api, store = make_refusing_api(case), open_again()
    engine = ChatEngine(api.client(), store, model=MODEL, tools=[WEB])
    send_turns(engine)
    with pytest.raises(anthropic.BadRequestError):
        engine.send("a", "And now?")
    chat = History(store).conversation("a")
    [found] = chat.repair()
    assert found.position == 3
    assert "block 0" in found.description
    assert chat.repair(dry_run=False) == (found,)
    assert chat.repair() == ()
    assert engine.resume("a").text == "fine"
    assert sent_messages(api)[2]["content"] == SAID[1][1:]
