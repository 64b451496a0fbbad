"""Cuts in difficult cases: the fake API checks each request against its rules, and the log keeps every message."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import anthropic
import pytest
from chathistory_memory import MemoryStore
from platforms import needs_posix
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


# Summaries that the API makes, and the requests that send them back.


def test_a_conversation_compacted_at_a_threshold_continues_without_that_setting():
    session = EngineSession(context_editing=AT_THRESHOLD)
    session.send_many(8, size=200)
    assert session.newest_messages[0]["content"][0]["type"] == "compaction"
    plain = session.engine_with()
    plain.send("a", "and now?")
    assert session.api.requests[-1].body["context_management"] == {"edits": [{"type": "compact_20260112"}]}
    assert plain.count_tokens("a", "and then?") > 0
    assert session.broken_rules == []
    session.api.assert_extends()


def test_with_a_signed_summary_no_further_compaction_is_requested():
    editing = ContextEditing(compact=1000, clear_tool_uses=True)
    session = EngineSession(context_editing=editing)
    session.send_many(2)
    assert session.engine.compact("a")
    session.send("go on")
    edits = session.api.requests[-1].body["context_management"]["edits"]
    assert [edit["type"] for edit in edits] == ["clear_tool_uses_20250919"]
    assert session.engine.count_tokens("a", "and then?") > 0
    assert session.broken_rules == []


def test_a_summary_is_requested_without_options_that_only_affect_replies():
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
    body = session.api.requests[-1].body
    assert "stop_sequences" not in body
    assert "tool_choice" not in body
    assert body["output_config"] == {"effort": "low"}
    session.send("go on")
    assert session.api.requests[-1].body["tool_choice"] == {"type": "any"}
    assert session.broken_rules == []


@pytest.mark.parametrize("editing", [ContextEditing(), ContextEditing(clear_tool_uses=True)])
def test_without_edits_none_are_requested(editing):
    session = EngineSession(context_editing=editing)
    session.send("hello")
    assert ("context_management" in session.api.requests[-1].body) == bool(editing.edits)


def test_tokens_are_counted_with_thinking_that_the_server_drops():
    session = EngineSession()
    session.chat.set_drop_stale_thinking(drop=True)
    session.send_many(4)
    session.chat.rewind(to=3)
    assert session.engine.count_tokens("a", "next") > session.engine.count_tokens("a", "n")
    assert session.broken_rules == []


def test_an_answer_without_a_summary_is_not_a_compaction():
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
def test_exactly_the_messages_that_were_sent_are_summarized(odd, low):
    """An unanswered call gets its result in the next user message, which the API does not sign."""
    session = EngineSession(
        reply_in_turn(None, None, None, *ODD[odd]), trimming=Compaction(LastTurns(5, low)), tools=[TOOL, SEARCH]
    )
    session.send_many(12)
    assert session.broken_rules == []
    assert "compaction" in {entry.kind for entry in session.entries()}
    assert count_thinking(session.newest_messages) == len(session.newest_messages) // 2 - 1, (
        "thinking after the summary stays"
    )


def test_a_requested_summary_is_bound_to_the_system_prompt_that_it_is_made_with():
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


def test_a_policy_with_a_summary_must_wrap_the_others():
    for make in (AnyOf, lambda policy: Summarize(policy, by=str), Compaction):
        with pytest.raises(errors.InvalidInput, match="must wrap the other policies"):
            make(Compaction(LastTurns(4, 2)))


def test_the_setting_to_pause_after_a_compaction_is_refused():
    with pytest.raises(errors.InvalidInput, match="pause_after_compaction"):
        ContextEditing(compact={"pause_after_compaction": True})


# Summaries that a function makes.


def summarize(messages):
    return f"sum of {len(messages)}"


async def summarize_later(messages):
    await asyncio.sleep(0)
    return summarize(messages)


class AsyncSummarizer:
    async def __call__(self, messages):
        return await summarize_later(messages)


@pytest.mark.parametrize("by", [summarize, summarize_later, AsyncSummarizer()], ids=["function", "coroutine", "object"])
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
    assert cuts == [f"{words}6", f"{words}7"]  # the second one includes the first
    assert session.newest_messages[0]["content"][0]["text"] == cuts[-1]
    assert session.broken_rules == []


def test_a_coroutine_function_is_refused_without_asyncio():
    session = EngineSession(trimming=Summarize(LastTurns(4, 2), by=summarize_later))
    with pytest.warns(CutFailedWarning, match="InvalidInput"):
        session.send_many(5)
    with pytest.raises(errors.InvalidInput, match="coroutine"):
        session.chat.trim(Summarize(LastTurns(2, 1), by=summarize_later))
    gc.collect()  # a coroutine that is never awaited or closed causes a warning here, which is an error
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


def test_a_summary_that_fails_does_not_affect_the_turn():
    overloaded = Failure(529, code="compaction_unavailable")
    session = EngineSession(summary=overloaded, trimming=Compaction(LastTurns(4, 2)))
    with pytest.warns(CutFailedWarning, match=r"making its summary raised \w*Error"):
        assert session.send_many(5)
    assert len(session.newest_messages) == 9
    assert session.chat.state().engine.open_turn is None
    session.api.assert_extends()


def test_the_message_after_a_summary_is_estimated_until_a_reply_has_its_usage():
    def reply(body):
        return Failure(500) if "long" in str(body["messages"][-1]["content"]) else reply_with_thinking(body)

    session = EngineSession(reply, trimming=Summarize(LastTurns(3, 1), by=summarize))
    session.send_many(3)
    with pytest.raises(anthropic.InternalServerError):
        session.send("long " * 2000)
    view = session.chat.view()
    assert not view.report.exact
    assert view.report.tokens > 2000


# A turn that is repeated after it was cut off.


def test_a_repeated_turn_that_was_compacted_and_cut_off_is_not_sent_again():
    session = EngineSession(context_editing=AT_THRESHOLD)
    replies = [session.send(f"turn {number} " + "x " * 200, turn_id=f"t{number}") for number in range(8)]
    assert session.chat.state().view.view_start > 0
    assert session.chat.trim(LastTurns(1, 1))
    for number, reply in enumerate(replies):
        before = len(session.api.requests)
        assert session.send(f"turn {number} " + "x " * 200, turn_id=f"t{number}").message == reply.message
        assert len(session.api.requests) == before
    assert session.send("new", turn_id="new").text


def test_a_cut_counts_the_turns_and_not_the_summary():
    session = EngineSession()
    session.send_many(6)
    first = session.chat.trim(Summarize(LastTurns(5, 4), by=summarize))
    second = session.chat.trim(Summarize(LastTurns(3, 1), by=summarize))
    assert (first.turns, second.turns) == (2, 3)
    assert (first.messages, second.messages) == (4, 6)


# Open turns: the API requires their thinking.


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


def test_an_empty_reply_does_not_close_a_turn():
    """It is not sent again, so only the next reply answers the results before it."""
    empty = Reply(content=[], stop_reason="end_turn")
    session = EngineSession(reply_in_turn(None, None, [THOUGHT, tool_call(id="toolu_1")], empty), tools=[TOOL])
    session.send_many(3)
    session.send([tool_result("toolu_1")])
    assert session.chat.trim(LastTurns(1, 1)) is None
    with pytest.raises(errors.InvalidInput, match="cannot forget while a tool call is waiting for its result"):
        session.chat.forget(before=3)
    session.send("are you there?")
    assert session.chat.trim(LastTurns(1, 1))
    session.send("good")
    assert session.broken_rules == []


def test_another_system_prompt_while_a_call_waits_for_its_result():
    """The API requires the thinking of the call, and would refuse it, so it is body to drop it from then on."""
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


def test_another_system_prompt_between_turns_needs_no_beta():
    session = EngineSession(system="one")
    session.send_many(2)
    with pytest.warns(SetupChangedWarning):
        session.engine_with(system="two").send("a", "hello")
    assert not session.chat.state().view.drop_stale_thinking
    assert count_thinking(session.newest_messages) == 0
    assert session.broken_rules == []


def test_dropping_thinking_cannot_be_turned_off_while_a_call_waits_for_its_result():
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


# Rewinds and forgetting across a cut.


def test_a_rewind_before_a_cut_sends_all_messages_again():
    session = EngineSession()
    session.send_many(6)
    assert session.chat.trim(LastTurns(2, 2)).turns == 4
    session.send("seventh")
    session.chat.rewind(to=7)  # after the third reply
    session.send("fourth, once more")
    assert first_words(session.newest_messages)[::2] == ["turn 0", "turn 1", "turn 2", "fourth, once"]
    assert count_thinking(session.newest_messages) == 0
    assert session.chat.state().view.hidden_turns == 0
    assert session.broken_rules == []
    session.send("fifth")
    session.api.assert_extends(session.api.requests[-2:])


def test_a_rewind_after_the_start_of_a_cut_keeps_the_cut():
    session = EngineSession()
    session.send_many(6, size=300)
    session.chat.trim(LastTurns(2, 2))
    before = session.chat.view().report.tokens
    session.chat.rewind(to=11)  # after the fifth reply
    report = session.chat.view().report
    assert first_words(session.chat.messages())[::2] == ["turn 4"]
    assert before * 0.4 < report.tokens < before * 0.6
    session.send("on")
    assert first_words(session.newest_messages)[::2] == ["turn 4", "on"]
    assert session.broken_rules == []


def test_a_rewind_into_a_turn_without_its_thinking_is_refused():
    session = EngineSession(reply_in_turn(None, [THOUGHT, tool_call(id="toolu_1")]), tools=[TOOL])
    session.send("one", "two", [tool_result("toolu_1")], "three", "four")
    before = session.entries()
    session.chat.trim(LastTurns(2, 2))
    for to in (5, 6):  # after the call, after its result
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
    for before, left in ((5, 3), (9, 2), (14, 0)):  # before the messages that are sent, within them, after the cut
        session.chat.forget(before=before)
        assert len(session.chat.messages()) == 2 * left
        summary = session.chat.state()
        assert summary.totals.turns - summary.view.hidden_turns == left
    session.send("on", "and on")
    assert first_words(session.newest_messages) == ["on", "reply to", "and on"]
    assert session.broken_rules == []


def count_lines(call):
    """Return how many lines of Python a call runs; a loop counts with each pass."""
    lines = 0

    def count(_frame, event, _argument):
        nonlocal lines
        lines += event == "line"
        return count

    before = sys.gettrace()
    sys.settrace(count)
    try:
        call()
    finally:
        sys.settrace(before)
    return lines


def test_forgetting_takes_steps_in_proportion_to_its_records():
    steps = {}
    for turns in (200, 400):
        chat = EngineSession().chat
        chat.append([{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}] * turns)
        steps[turns] = count_lines(partial(chat.forget, before=2 * turns - 100))
        assert len(chat.messages()) == 100
    assert steps[400] < 2.5 * steps[200], "comparing each message with all others would be 4 times as many"


# Repairs are permanent.


def test_a_refused_turn_is_repaired_as_a_whole():
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


def test_damage_without_a_position_is_not_repaired():
    class Broken(MemoryStore):
        def read(self, key, *, start=0, stop=None):
            if stop != 0:
                raise errors.CorruptRecord(key, None, "made damage")
            return super().read(key, start=start, stop=stop)

    with Broken() as store:
        chat = History(store).conversation("a")
        appended = chat.append({"role": "user", "content": "hello"})
        with pytest.raises(errors.CorruptRecord, match="the head"):
            chat.repair(dry_run=False)
        assert chat.info() == appended


def test_a_turn_is_repeated_after_its_first_message_was_compacted():
    session = EngineSession(
        reply_in_turn(None, None, [tool_call(id="toolu_1")]), context_editing=AT_THRESHOLD, tools=[TOOL]
    )
    session.send_many(2)
    question = "the weather? " + "x " * 3000
    reply = session.send(question, turn_id="w")
    assert session.chat.state().view.view_start == reply.position, "the API compacted within the turn"
    before = len(session.api.requests)
    assert session.send(question, turn_id="w").message == reply.message
    assert len(session.api.requests) == before
    with pytest.raises(errors.TurnMismatch):
        session.send("something else", turn_id="w")


def test_a_summary_stays_first_when_later_records_are_repaired():
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


@needs_posix
def test_messages_before_and_after_a_damaged_record_are_still_sent(tmp_path):
    """The file store returns nothing of a range with a damaged record."""
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
    assert len(said) == 16, "the replies to damaged messages stay"
    other.send("on")
    assert other.broken_rules == []


# Several processes, and one that dies.


@needs_posix
def test_of_eight_processes_that_cut_at_once_only_one_succeeds(tmp_path):
    session = EngineSession(url=f"file:{tmp_path}/store")
    session.send_many(5)
    barrier = threading.Barrier(8)

    class WaitingPolicy:
        """Waits until all processes have read, before one of them writes."""

        def should_cut(self, load):
            return load.turns > 3

        def find_start(self, turns, load):
            barrier.wait(600)
            return turns[-2].position

    def cut(_):
        with open_store(session.url) as store:
            try:
                return History(store).conversation("a").trim(WaitingPolicy())
            except errors.Conflict:
                return "conflict"

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(cut, range(8)))
    assert results.count("conflict") == 7
    assert [entry.kind for entry in session.entries()].count("cut") == 1
    session.send("on")
    assert first_words(session.newest_messages)[::2] == ["turn 3", "turn 4", "on"]
    assert session.broken_rules == []


@needs_posix
def test_two_engines_that_alternate_do_not_cut_twice(tmp_path):
    session = EngineSession(url=f"file:{tmp_path}/store", trimming=LastTurns(4, 2))
    other = session.engine_with(trimming=LastTurns(4, 2))
    for number in range(8):
        (session.engine, other)[number % 2].send("a", f"turn {number}")
    cuts = [entry.data["view_start"] for entry in session.entries() if entry.kind == "cut"]
    assert len(cuts) == 2
    assert cuts == sorted(cuts)
    assert first_words(session.chat.messages())[::2] == ["turn 6", "turn 7"]
    assert session.broken_rules == []


def test_a_process_that_dies_during_a_summary_leaves_the_message_and_no_cut(monkeypatch):
    """After a kill nobody closes the turn. Once it has expired or is abandoned, the next process cuts."""

    def dies(_):
        raise KeyboardInterrupt

    session = EngineSession(trimming=Summarize(LastTurns(3, 1), by=dies))
    session.send_many(3)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Turn, "abort", lambda *_: None)
        session.send("fourth")
    next_engine = session.engine_with(trimming=Summarize(LastTurns(3, 1), by=summarize))
    with pytest.raises(errors.TurnInProgress):
        next_engine.send("a", "fifth")
    assert [entry.kind for entry in session.entries()].count("cut") == 0
    next_engine.abandon("a")
    next_engine.send("a", "fifth")
    assert first_words(session.newest_messages) == ["What was", "fifth"]
    assert session.newest_messages[0]["content"][0]["text"].endswith("sum of 7")
    assert session.broken_rules == []


def test_an_interrupted_stream_after_a_cut_is_resumed_with_the_same_messages(tmp_path):
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
    assert before == 15, "nothing is cut within the open turn, although it is above the threshold"
    session.send("and now?")
    assert first_words(session.newest_messages)[0] == "turn 1", "the message that opens the turn is still sent"
    assert 4 <= len(session.newest_messages) <= 8
    assert session.chat.state().view.hidden_turns == 1
    session.send("and then?")
    session.api.assert_extends(session.api.requests[-2:])
    assert session.broken_rules == []
