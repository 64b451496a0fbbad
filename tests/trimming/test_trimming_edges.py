"""Cuts where it is hard: each request is held against the rules of the API, and the log keeps every message."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import anthropic
import pytest
from chathistory_memory import MemoryStore
from trimming_session import (
    MODEL,
    SEARCH,
    THOUGHT,
    TOOL,
    EngineSession,
    count_thinking,
    first_words,
    reply_in_turn,
    reply_with_thinking,
    search_call,
    search_result,
    text,
    tool_call,
    tool_result,
)

from chathistory import AsyncChatEngine, CutFailedWarning, History, errors, open_store
from chathistory.engine.request import SetupChangedWarning
from chathistory.engine.turn import Turn
from chathistory.testing.fake_api import Cut, Failure, Reply
from chathistory.trimming import AnyOf, Compaction, ContextEditing, LastTurns, Summarize, TokenBudget

AT_THRESHOLD = ContextEditing(compact=1000)


# Summaries of the API's own, and what it takes them back with.


def test_a_conversation_that_was_summed_up_at_a_threshold_goes_on_without_that_setting():
    session = EngineSession(context_editing=AT_THRESHOLD)
    session.send_many(8, size=200)
    assert session.newest_messages[0]["content"][0]["type"] == "compaction"
    plain = session.engine_with()
    plain.send("a", "and now?")
    assert session.api.requests[-1].body["context_management"] == {"edits": [{"type": "compact_20260112"}]}
    assert plain.count_tokens("a", "and then?") > 0
    assert session.broken_rules == []
    session.api.assert_extends()


def test_behind_a_signed_summary_the_api_is_not_asked_for_another_one():
    editing = ContextEditing(compact=1000, clear_tool_uses=True)
    session = EngineSession(context_editing=editing)
    session.send_many(2)
    assert session.engine.compact("a")
    session.send("go on")
    edits = session.api.requests[-1].body["context_management"]["edits"]
    assert [edit["type"] for edit in edits] == ["clear_tool_uses_20250919"]
    assert session.engine.count_tokens("a", "and then?") > 0
    assert session.broken_rules == []


def test_a_summary_is_asked_for_without_what_only_shapes_replies():
    options = {
        "stop_sequences": ["X"],
        "tool_choice": {"type": "any"},
        "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": {}}},
        "context_management": {"edits": []},
        "betas": ["context-management-2025-06-27"],
    }
    session = EngineSession(tools=[TOOL], options=options)
    session.send_many(2)
    assert session.engine.compact("a").turns == 2
    asked = session.api.requests[-1].body
    assert "stop_sequences" not in asked
    assert "tool_choice" not in asked
    assert asked["output_config"] == {"effort": "low"}
    session.send("go on")
    assert session.api.requests[-1].body["tool_choice"] == {"type": "any"}
    assert session.broken_rules == []


@pytest.mark.parametrize("editing", [ContextEditing(), ContextEditing(clear_tool_uses=True)])
def test_edits_that_are_none_are_not_asked_for(editing):
    session = EngineSession(context_editing=editing)
    session.send("hello")
    assert ("context_management" in session.api.requests[-1].body) == bool(editing.edits)


def test_tokens_are_counted_with_thinking_that_is_to_be_dropped():
    session = EngineSession()
    session.chat.set_drop_stale_thinking(drop=True)
    session.send_many(4)
    session.chat.rewind(to=3)
    assert session.engine.count_tokens("a", "next") > session.engine.count_tokens("a", "n")
    assert session.broken_rules == []


def test_an_answer_without_a_summary_is_no_compaction():
    session = EngineSession(summary=Reply(content=[]), trimming=Compaction(LastTurns(4, 2)))
    with pytest.warns(CutFailedWarning, match="IncompleteReply"):
        session.send_many(5)
    with pytest.raises(errors.IncompleteReply):
        session.engine.compact("a")
    with pytest.warns(CutFailedWarning, match="IncompleteReply"):
        session.send("and now?")
    assert len(session.newest_messages) == 11
    assert {entry.kind for entry in session.entries()} == {"setup", "message"}
    assert session.broken_rules == []


PAUSED = Reply(content=[THOUGHT, search_call("srvtoolu_1")], stop_reason="pause_turn")
ODD = {
    "a call": [[THOUGHT, tool_call()]],
    "words and a call": [[THOUGHT, text("half"), tool_call()]],
    "a pause": [PAUSED, [search_result("srvtoolu_1"), text("done")]],
    "blank text": [[text(" ")]],
    "nothing": [Reply(content=[], stop_reason="end_turn")],
    "refused": [Reply(content=[], stop_reason="refusal")],
}


@pytest.mark.parametrize("low", [1, 2, 3])
@pytest.mark.parametrize("odd", ODD)
def test_what_is_summed_up_is_what_was_sent(odd, low):
    """A call that nobody answered is completed in the user's next message, which the API has not signed for."""
    session = EngineSession(
        reply_in_turn(None, None, None, *ODD[odd]), trimming=Compaction(LastTurns(5, low)), tools=[TOOL, SEARCH]
    )
    session.send_many(12)
    assert session.broken_rules == []
    assert "compaction" in {entry.kind for entry in session.entries()}
    assert count_thinking(session.newest_messages) == len(session.newest_messages) // 2 - 1, (
        "thinking behind the summary stays"
    )


def test_a_summary_at_once_is_bound_to_the_system_prompt_that_it_is_made_with():
    session = EngineSession(system="one")
    session.send_many(2)
    other = session.engine_with(system="two")
    assert other.count_tokens("a", "next") > 0
    assert other.compact("a").turns == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        other.send("a", "go on")
    assert [entry.kind for entry in session.entries()][-4:] == ["setup", "compaction", "message", "message"]
    assert session.broken_rules == []


def test_a_policy_that_makes_something_is_the_outermost():
    for make in (AnyOf, lambda policy: Summarize(policy, by=str), Compaction):
        with pytest.raises(errors.InvalidInput, match="must wrap the other policies"):
            make(Compaction(LastTurns(4, 2)))


def test_a_reply_that_would_pause_after_a_summary_is_refused_beforehand():
    with pytest.raises(errors.InvalidInput, match="pause_after_compaction"):
        ContextEditing(compact={"pause_after_compaction": True})


# Summaries that somebody else makes.


def summarized(messages):
    return f"sum of {len(messages)}"


async def summarized_later(messages):
    await asyncio.sleep(0)
    return summarized(messages)


class LaterStill:
    async def __call__(self, messages):
        return await summarized_later(messages)


@pytest.mark.parametrize("by", [summarized, summarized_later, LaterStill()], ids=["function", "coroutine", "object"])
@pytest.mark.parametrize("streamed", [False, True])
def test_asyncio_waits_for_a_summary(by, streamed):
    session = EngineSession()

    async def main():
        policy = Summarize(LastTurns(4, 2), by=by)
        async with AsyncChatEngine(session.api.async_client(), session.store, model=MODEL, trimming=policy) as engine:
            for number in range(8):
                if streamed:
                    async with engine.stream("a", f"turn {number}") as stream:
                        await stream.get_final_reply()
                else:
                    await engine.send("a", f"turn {number}")

    asyncio.run(main())
    cuts = [entry.message["content"][0]["text"] for entry in session.entries() if entry.kind == "cut"]
    words = "What was said before, in summary:\n\nsum of "
    assert cuts == [f"{words}6", f"{words}7"]  # the second one with the first
    assert session.newest_messages[0]["content"][0]["text"] == cuts[-1]
    assert session.broken_rules == []


def test_a_coroutine_in_a_program_without_asyncio_is_no_text():
    session = EngineSession(trimming=Summarize(LastTurns(4, 2), by=summarized_later))
    with pytest.warns(CutFailedWarning, match="InvalidInput"):
        session.send_many(5)
    with pytest.raises(errors.InvalidInput, match="coroutine"):
        session.chat.trim(Summarize(LastTurns(2, 1), by=summarized_later))
    gc.collect()  # a coroutine that nobody awaited or closed would be a warning here, and so an error
    assert len(session.newest_messages) == 9


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_summary_that_fails_leaves_no_turn_open_where_warnings_are_errors(asynchronous):
    def broken(_):
        raise ZeroDivisionError

    policy = Summarize(LastTurns(2, 1), by=broken)
    session = EngineSession(trimming=policy)
    session.send_many(2)

    async def main():
        async with AsyncChatEngine(session.api.async_client(), session.store, model=MODEL, trimming=policy) as engine:
            await engine.send("a", "third")

    with pytest.raises(CutFailedWarning, match="ZeroDivisionError") as caught:
        asyncio.run(main()) if asynchronous else session.send("third")
    assert "saved" in caught.value.__notes__[0]
    assert session.chat.state().engine.open_turn is None
    assert session.engine.resume("a")


def test_a_summary_that_cannot_be_had_now_leaves_the_turn_alone():
    overloaded = Failure(529, code="compaction_unavailable")
    session = EngineSession(summary=overloaded, trimming=Compaction(LastTurns(4, 2)))
    with pytest.warns(CutFailedWarning, match=r"making its summary raised \w*Error"):
        assert session.send_many(5)
    assert len(session.newest_messages) == 9
    assert session.chat.state().engine.open_turn is None
    session.api.assert_extends()


def test_until_a_reply_tells_the_message_behind_a_summary_counts():
    def reply(body):
        return Failure(500) if "long" in str(body["messages"][-1]["content"]) else reply_with_thinking(body)

    session = EngineSession(reply, trimming=Summarize(LastTurns(3, 1), by=summarized))
    session.send_many(3)
    with pytest.raises(anthropic.InternalServerError):
        session.send("long " * 2000)
    view = session.chat.view()
    assert not view.report.exact
    assert view.report.tokens > 2000


# A turn that comes again after it was cut off.


def test_a_turn_that_comes_again_after_it_was_summed_up_and_cut_off_is_not_sent_again():
    session = EngineSession(context_editing=AT_THRESHOLD)
    replies = [session.send(f"turn {number} " + "x " * 200, turn_id=f"t{number}") for number in range(8)]
    assert session.chat.state().view.view_start > 0
    assert session.chat.trim(LastTurns(1, 1))
    for number, reply in enumerate(replies):
        before = len(session.api.requests)
        assert session.send(f"turn {number} " + "x " * 200, turn_id=f"t{number}").message == reply.message
        assert len(session.api.requests) == before
    assert session.send("new", turn_id="new").text


def test_a_cut_counts_the_turns_that_were_said_and_not_the_summary():
    session = EngineSession()
    session.send_many(6)
    first = session.chat.trim(Summarize(LastTurns(5, 4), by=summarized))
    second = session.chat.trim(Summarize(LastTurns(3, 1), by=summarized))
    assert (first.turns, second.turns) == (2, 3)
    assert (first.messages, second.messages) == (4, 6)


# Turns that are left open: the API wants their thinking back.


@pytest.mark.parametrize(
    "said", ["never mind", [tool_result("toolu_1")], [tool_result("toolu_1"), text("and then?")]], ids=str
)
def test_there_is_no_cut_while_a_call_has_no_reply(said):
    session = EngineSession(reply_in_turn(None, None, [THOUGHT, tool_call(id="toolu_1")], Failure(500)), tools=[TOOL])
    session.send_many(3)
    assert session.chat.trim(LastTurns(1, 1)) is None
    with pytest.raises(anthropic.InternalServerError):
        session.send(said)
    assert session.chat.trim(LastTurns(1, 1)) is None
    assert session.engine.resume("a")
    assert session.chat.trim(LastTurns(1, 1))
    session.send("on")
    assert session.broken_rules == []


def test_a_reply_with_nothing_in_it_does_not_close_a_turn():
    """It is not sent again, so that the results before it are answered by the next reply only."""
    empty = Reply(content=[], stop_reason="end_turn")
    session = EngineSession(reply_in_turn(None, None, [THOUGHT, tool_call(id="toolu_1")], empty), tools=[TOOL])
    session.send_many(3)
    session.send([tool_result("toolu_1")])
    assert session.chat.trim(LastTurns(1, 1)) is None
    with pytest.raises(errors.InvalidInput, match="under way"):
        session.chat.forget(before=3)
    session.send("are you there?")
    assert session.chat.trim(LastTurns(1, 1))
    session.send("good")
    assert session.broken_rules == []


def test_another_system_prompt_while_a_call_awaits_its_result():
    """What the API wants back then, it would refuse, too: so it is asked to drop it itself from then on."""
    session = EngineSession(reply_in_turn(None, [THOUGHT, tool_call(id="toolu_1")]), tools=[TOOL], system="one")
    session.send_many(2)
    other = session.engine_with(tools=[TOOL], system="two")
    assert other.count_tokens("a", [tool_result("toolu_1")]) > 0
    with pytest.warns(SetupChangedWarning):
        other.send("a", [tool_result("toolu_1")])
    assert session.chat.state().view.drop_stale_thinking
    for number in range(3):
        other.send("a", f"then {number}")
    assert session.broken_rules == []
    dropped = session.api.requests[-1].reply["input_transformations"]
    assert [each["path"] for each in dropped] == ["messages.1.content.0", "messages.3.content.0"]


def test_another_system_prompt_between_turns_asks_for_nothing():
    session = EngineSession(system="one")
    session.send_many(2)
    with pytest.warns(SetupChangedWarning):
        session.engine_with(system="two").send("a", "hello")
    assert not session.chat.state().view.drop_stale_thinking
    assert count_thinking(session.newest_messages) == 0
    assert session.broken_rules == []


def test_the_choice_is_not_taken_back_while_a_call_awaits_its_result():
    session = EngineSession(reply_in_turn(None, [THOUGHT, tool_call(id="toolu_1")]), tools=[TOOL])
    session.chat.set_drop_stale_thinking(drop=True)
    session.send_many(2)
    with pytest.raises(errors.InvalidInput, match="waits for its result"):
        session.chat.set_drop_stale_thinking(drop=False)
    session.send([tool_result("toolu_1")])
    session.chat.set_drop_stale_thinking(drop=False)
    session.send("on")
    assert count_thinking(session.newest_messages) == 0
    assert session.broken_rules == []


# Going back, and forgetting, across a cut.


def test_going_back_before_a_cut_sends_all_again():
    session = EngineSession()
    session.send_many(6)
    assert session.chat.trim(LastTurns(2, 2)).turns == 4
    session.send("seventh")
    session.chat.rewind(to=7)  # behind the third reply
    session.send("fourth, once more")
    assert first_words(session.newest_messages)[::2] == ["turn 0", "turn 1", "turn 2", "fourth, once"]
    assert count_thinking(session.newest_messages) == 0
    assert session.chat.state().view.hidden_turns == 0
    assert session.broken_rules == []
    session.send("fifth")
    session.api.assert_extends(session.api.requests[-2:])


def test_going_back_behind_the_beginning_of_a_cut_keeps_it():
    session = EngineSession()
    session.send_many(6, size=300)
    session.chat.trim(LastTurns(2, 2))
    before = session.chat.view().report.tokens
    session.chat.rewind(to=11)  # behind the fifth reply
    report = session.chat.view().report
    assert first_words(session.chat.messages())[::2] == ["turn 4"]
    assert before * 0.4 < report.tokens < before * 0.6
    session.send("on")
    assert first_words(session.newest_messages)[::2] == ["turn 4", "on"]
    assert session.broken_rules == []


def test_one_does_not_go_back_into_a_turn_whose_thinking_is_cut_off():
    session = EngineSession(reply_in_turn(None, [THOUGHT, tool_call(id="toolu_1")]), tools=[TOOL])
    session.send("one", "two", [tool_result("toolu_1")], "three", "four")
    before = session.entries()
    session.chat.trim(LastTurns(2, 2))
    for to in (5, 6):  # behind the call, behind its result
        with pytest.raises(errors.InvalidInput, match="within a trimmed tool turn"):
            session.chat.rewind(to=to)
    assert session.entries()[:-1] == before
    session.chat.rewind(to=3)
    session.send("two, once more")
    assert session.broken_rules == []


def test_forgetting_across_a_cut():
    session = EngineSession()
    session.send_many(6)
    session.chat.trim(LastTurns(3, 3))
    for before, left in ((5, 3), (9, 2), (14, 0)):  # before what is sent, within it, behind the cut
        session.chat.forget(before=before)
        assert len(session.chat.messages()) == 2 * left
        summary = session.chat.state()
        assert summary.totals.turns - summary.view.hidden_turns == left
    session.send("on", "and on")
    assert first_words(session.newest_messages) == ["on", "reply to", "and on"]
    assert session.broken_rules == []


def test_forgetting_takes_a_time_that_grows_with_what_is_forgotten():
    """A comparison of each message with each other would take minutes here."""
    chat = EngineSession().chat
    chat.append([{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}] * 10_000)
    began = time.perf_counter()
    chat.forget(before=19_000)
    assert time.perf_counter() - began < 20
    assert len(chat.messages()) == 1000


# What is mended stays mended.


def test_a_refused_turn_is_mended_as_a_whole():
    steps = (None, [THOUGHT, tool_call(id="toolu_1")], Reply(content=[], stop_reason="refusal"))
    session = EngineSession(reply_in_turn(*steps), tools=[TOOL])
    session.send("one", "two", [tool_result("toolu_1")], "three")
    shown = session.chat.messages()
    assert [repair.position for repair in session.chat.repair(dry_run=False)] == [6]
    assert session.chat.repair() == ()
    assert session.chat.messages() == shown
    session.send("four")
    assert first_words(session.newest_messages)[::2] == ["one", "three", "four"]
    assert session.broken_rules == []
    session.api.assert_extends(session.api.requests[-2:])


def test_damage_that_is_at_no_record_is_not_mended():
    class Broken(MemoryStore):
        def read(self, key, *, start=0, stop=None):
            if stop != 0:
                raise errors.CorruptRecord(key, None, "as told")
            return super().read(key, start=start, stop=stop)

    with Broken() as store:
        chat = History(store).conversation("a")
        appended = chat.append({"role": "user", "content": "hello"})
        with pytest.raises(errors.CorruptRecord, match="the head"):
            chat.repair(dry_run=False)
        assert chat.info() == appended


def test_a_turn_whose_beginning_was_summed_up_comes_again():
    session = EngineSession(
        reply_in_turn(None, None, [tool_call(id="toolu_1")]), context_editing=AT_THRESHOLD, tools=[TOOL]
    )
    session.send_many(2)
    question = "the weather? " + "x " * 3000
    reply = session.send(question, turn_id="w")
    assert session.chat.state().view.view_start == reply.position, "the API summed up within the turn"
    before = len(session.api.requests)
    assert session.send(question, turn_id="w").message == reply.message
    assert len(session.api.requests) == before
    with pytest.raises(errors.TurnMismatch):
        session.send("something else", turn_id="w")


def test_a_summary_stays_first_when_what_follows_is_mended():
    session = EngineSession(
        reply_in_turn(*[None] * 3, Reply(content=[], stop_reason="refusal")), trimming=Compaction(LastTurns(3, 2))
    )
    session.send_many(3)
    session.send("fourth", "fifth")
    shown = session.chat.messages()
    assert shown[0]["content"][0]["type"] == "compaction"
    assert session.chat.repair(dry_run=False)
    assert session.chat.messages() == shown
    session.send("on")
    assert count_thinking(session.newest_messages) == 2
    assert session.broken_rules == []


def test_what_stands_before_and_behind_a_damaged_record_is_still_sent(tmp_path):
    """The store of files gives nothing of a range in which a record is damaged."""
    session = EngineSession(url=f"file:{tmp_path}/store")
    session.send_many(9)
    [path] = tmp_path.rglob("a.jsonl")
    path.write_bytes(path.read_bytes().replace(b"turn 2 ", b"turn X ").replace(b"turn 6 ", b"turn Y "))
    other = EngineSession(url=session.url)
    found = other.chat.repair(dry_run=False)
    assert [each.position for each in found] == [5, 13]
    assert other.chat.repair() == ()
    said = first_words(other.chat.messages())
    assert [words for words in said if words.startswith("turn")] == [
        f"turn {number}" for number in (0, 1, 3, 4, 5, 7, 8)
    ]
    assert len(said) == 16, "the replies to what is damaged stay"
    other.send("on")
    assert other.broken_rules == []


# Several processes, and one that dies.


def test_of_eight_processes_that_cut_at_once_one_does(tmp_path):
    session = EngineSession(url=f"file:{tmp_path}/store")
    session.send_many(5)
    together = threading.Barrier(8)

    class Together:
        """All have looked before anybody writes."""

        def should_cut(self, load):
            return load.turns > 3

        def find_start(self, turns, load):
            together.wait(20)
            return turns[-2].position

    def cut(_):
        with open_store(session.url) as store:
            try:
                return History(store).conversation("a").trim(Together())
            except errors.Conflict:
                return "somebody else did"

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(cut, range(8)))
    assert results.count("somebody else did") == 7
    assert [entry.kind for entry in session.entries()].count("cut") == 1
    session.send("on")
    assert first_words(session.newest_messages)[::2] == ["turn 3", "turn 4", "on"]
    assert session.broken_rules == []


def test_two_engines_in_turn_cut_where_the_other_did_not(tmp_path):
    session = EngineSession(url=f"file:{tmp_path}/store", trimming=LastTurns(4, 2))
    other = session.engine_with(trimming=LastTurns(4, 2))
    for number in range(8):
        (session.engine, other)[number % 2].send("a", f"turn {number}")
    cuts = [entry.data["view_start"] for entry in session.entries() if entry.kind == "cut"]
    assert len(cuts) == 2
    assert cuts == sorted(cuts)
    assert first_words(session.chat.messages())[::2] == ["turn 6", "turn 7"]
    assert session.broken_rules == []


def test_a_process_that_dies_while_it_sums_up_leaves_the_message_and_no_cut(monkeypatch):
    """What a kill leaves: nobody closes the turn. After its time, or by hand, the next one cuts."""

    def dies(_):
        raise KeyboardInterrupt

    session = EngineSession(trimming=Summarize(LastTurns(3, 1), by=dies))
    session.send_many(3)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Turn, "abort", lambda *_: None)
        session.send("fourth")
    next_one = session.engine_with(trimming=Summarize(LastTurns(3, 1), by=summarized))
    with pytest.raises(errors.TurnInProgress):
        next_one.send("a", "fifth")
    assert [entry.kind for entry in session.entries()].count("cut") == 0
    next_one.abandon("a")
    next_one.send("a", "fifth")
    assert first_words(session.newest_messages) == ["What was", "fifth"]
    assert session.newest_messages[0]["content"][0]["text"].endswith("sum of 7")
    assert session.broken_rules == []


def test_a_stream_that_breaks_off_behind_a_cut_is_resumed_with_the_same(tmp_path):
    session = EngineSession(
        reply_in_turn(None, None, None, Cut([THOUGHT, text("half of it")], 4)), trimming=LastTurns(3, 1)
    )
    session.send_many(3)
    with pytest.raises(errors.IncompleteReply), session.engine.stream("a", "fourth") as stream:
        _ = stream.get_final_reply()
    assert first_words(session.newest_messages) == ["fourth"]
    assert session.engine.resume("a")
    assert first_words(session.newest_messages) == ["fourth"]
    assert [entry.kind for entry in session.entries()].count("cut") == 1
    session.send("fifth")
    session.api.assert_extends(session.api.requests[-2:])
    assert session.broken_rules == []


def test_a_giant_turn_is_cut_between_rounds_of_parallel_calls():
    rounds = [
        [THOUGHT, text("look " * 100), tool_call(id=f"toolu_{n}a"), tool_call(id=f"toolu_{n}b")] for n in range(6)
    ]
    session = EngineSession(reply_in_turn(None, *rounds), trimming=TokenBudget(2000, 900), tools=[TOOL])
    session.send_many(2)
    for number in range(6):
        session.send([tool_result(f"toolu_{number}{each}", "paper " * 80) for each in "ab"])
    before = len(session.newest_messages)
    assert before == 15, "while it goes on nothing is cut, though it is over its mark"
    session.send("and now?")
    assert first_words(session.newest_messages)[0] == "turn 1", "what the turn began with is sent all the same"
    assert 4 <= len(session.newest_messages) <= 8
    assert session.chat.state().view.hidden_turns == 1
    session.send("and then?")
    session.api.assert_extends(session.api.requests[-2:])
    assert session.broken_rules == []
