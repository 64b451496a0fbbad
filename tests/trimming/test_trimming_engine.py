"""Cuts that an engine makes before a turn: rare, stored, the same for every process, and never refused by the API."""

from __future__ import annotations

import asyncio
import json

import anthropic
import pytest
from entry_factory import make_entry
from trimming_requests import MODEL, THOUGHT, answer, count_new_prefixes, list_refusals, send_questions, sent_messages

from chathistory import AsyncChatEngine, ChatEngine, CutFailedWarning, History
from chathistory.errors import Conflict, InvalidInput, TurnInProgress, TurnTooLarge
from chathistory.testing import FakeMessagesAPI
from chathistory.testing.fake_api import Failure, Reply
from chathistory.trimming import AnyOf, Compaction, ContextEditing, KeepAll, LastTurns, MaxAge, Summarize, TokenBudget

INPUT = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")


def list_kinds(chat) -> list[str]:
    return [entry.kind for entry in chat.entries() if entry.kind != "message"]


def find_compactions(chat) -> list[int]:
    """Return the positions of replies that begin with a compaction."""
    replies = [entry for entry in chat.entries() if entry.kind == "message" and entry.message["role"] == "assistant"]
    return [entry.position for entry in replies if entry.message["content"][0]["type"] == "compaction"]


@pytest.mark.parametrize(
    ("policy", "cuts"),
    [
        (KeepAll(), 0),
        (LastTurns(6, 3), 4),
        (TokenBudget(900, 400), 4),
        (AnyOf(LastTurns(8, 2), TokenBudget(1200, 400)), 3),
        (Summarize(LastTurns(6, 3), by=lambda messages: f"{len(messages)} messages"), 4),
        (Compaction(LastTurns(6, 3)), 4),
    ],
    ids=lambda value: type(value).__name__,
)
def test_cuts_are_rare_and_between_them_each_request_extends_the_one_before(engine_with, api, chat, policy, cuts):
    send_questions(engine_with(policy), 20)
    assert list_refusals(api) == []
    made = [kind for kind in list_kinds(chat) if kind in ("cut", "compaction")]
    assert len(made) == cuts
    assert count_new_prefixes(sent_messages(api)) == cuts
    assert chat.state().totals.messages == 40
    assert [entry.kind for entry in chat.entries()].count("message") == 40
    texts = [entry.message["content"] for entry in chat.entries() if entry.kind == "message"]
    assert [f"question {number} " + "word " * 20 for number in range(20)] == texts[::2]


def test_another_process_sends_the_same_to_the_character(engine_with, api, chat, store):
    send_questions(engine_with(LastTurns(6, 3)), 10)
    as_sent = sent_messages(api)[-1]
    again = History(store).conversation("a").messages()
    assert json.dumps(again[: len(as_sent)]) == json.dumps(as_sent)
    send_questions(engine_with(), 1, first=10)  # without a policy it continues after the cut
    assert sent_messages(api)[-1][: len(as_sent)] == as_sent
    assert list_refusals(api) == []


def test_a_turn_reads_nothing_if_the_engine_remembers_the_conversation(engine_with, store, monkeypatch):
    engine, reads = engine_with(LastTurns(6, 3)), []
    send_questions(engine, 3)
    read = type(store).read
    monkeypatch.setattr(type(store), "read", lambda *a, **k: (reads.append(1), read(*a, **k))[1])
    send_questions(engine, 3, first=3)
    assert reads == []
    send_questions(engine, 1, first=6)
    assert reads == []  # nor does a turn with a cut


def test_the_report_describes_what_is_sent(engine_with, api, chat):
    engine = engine_with(LastTurns(6, 3))
    send_questions(engine, 7)
    report = chat.view().report
    assert report.view_start == 9  # a setup, and four turns
    assert report.kept == (9, 10, 11, 12, 14, 15)  # the cut is at 13
    assert (report.dropped, report.repairs) == ((), ())
    assert report.thinking_stripped == 2
    assert (report.exact, report.prefix_changed) == (True, False)
    usage = api.requests[-1].reply["usage"]
    assert report.tokens == sum(usage[name] for name in (*INPUT, "output_tokens"))
    chat.append({"role": "user", "content": "x" * 350})
    after = chat.view().report
    assert (after.tokens, after.exact) == (report.tokens + 105, False)


def test_trim_with_dry_run_only_reports_the_cut(engine_with, chat):
    send_questions(engine_with(), 8)
    before, messages = len(list(chat.entries())), chat.messages()
    result = chat.trim(LastTurns(5, 2), dry_run=True)
    assert (result.turns, result.messages, result.position) == (6, 12, 13)
    assert result.tokens_before > result.tokens_after > 0
    assert (len(list(chat.entries())), chat.messages()) == (before, messages)
    assert chat.trim(LastTurns(5, 2)) == result
    view = chat.view()
    assert len(view.messages) == 4
    assert (view.report.prefix_changed, view.report.exact, view.report.tokens) == (True, False, result.tokens_after)
    assert chat.trim(LastTurns(5, 2)) is None
    assert len(list(chat.entries())) == before + 1
    assert chat.last_messages(100) == [entry.message for entry in chat.entries() if entry.kind == "message"]


def test_there_is_no_cut_while_a_turn_is_open(engine_with, store):
    send_questions(engine_with(), 3)
    opened = engine_with().stream("a", "more")
    chat = History(store).conversation("a")
    with opened, pytest.raises(TurnInProgress):
        chat.trim(LastTurns(1, 1))


def test_there_is_no_cut_while_a_call_waits_for_its_result(store, chat):
    call = {"type": "tool_use", "name": "f", "input": {}}
    tools = [{"name": "f", "input_schema": {"type": "object"}}]
    api = FakeMessagesAPI(["one", "two", [THOUGHT, call], answer(), answer()])
    engine = ChatEngine(api.client(), store, model=MODEL, tools=tools, trimming=LastTurns(2, 1))
    engine.send("a", "1")
    engine.send("a", "2")
    reply = engine.send("a", "3")  # above the high threshold: cut
    assert list_kinds(chat).count("cut") == 1
    assert chat.trim(LastTurns(1, 1)) is None
    engine.send("a", [{"type": "tool_result", "tool_use_id": reply.tool_calls[0]["id"], "content": "ok"}])
    engine.send("a", "4")
    assert list_refusals(api) == []
    assert [len(messages) for messages in sent_messages(api)] == [1, 3, 1, 3, 5]


# One turn that exceeds the budget.


@anthropic.beta_tool
def look(place: str) -> str:
    """Look at a place."""
    return f"{place} " * 60


def tool_rounds(rounds: int) -> list[object]:
    call = {"type": "tool_use", "name": "look", "input": {"place": "somewhere"}}
    return [*([[THOUGHT, call]] * rounds), answer()]


def test_a_giant_turn_is_cut_between_its_tool_rounds(store, chat):
    api = FakeMessagesAPI([*tool_rounds(8), answer(), answer()])
    engine = ChatEngine(api.client(), store, model=MODEL, tools=[look.to_dict()], trimming=TokenBudget(900, 600))
    engine.run_tools("a", "look around", tools=[look])
    engine.run_tools("a", "and?", tools=[look])
    engine.run_tools("a", "and more?", tools=[look])
    assert list_refusals(api) == []
    first, second = sent_messages(api)[-2:]
    assert first[0] == {"role": "user", "content": "look around"}  # the message that opens the turn stays
    assert [message["role"] for message in first][:3] == ["user", "assistant", "user"]
    assert 3 < len(first) < 19
    assert second[: len(first)] == first
    assert list_kinds(chat).count("cut") == 1
    assert chat.state().totals.messages == 22


def test_a_giant_turn_is_an_error_if_the_policy_says_so(store, chat):
    api = FakeMessagesAPI([*tool_rounds(8), answer()])
    policy = TokenBudget(900, 500, oversized="raise")
    engine = ChatEngine(api.client(), store, model=MODEL, trimming=policy)
    engine.run_tools("a", "look around", tools=[look])
    before = len(list(chat.entries()))
    with pytest.raises(TurnTooLarge) as caught:
        engine.run_tools("a", "and?", tools=[look])
    assert caught.value.budget == 900
    assert len(list(chat.entries())) == before
    assert len(api.requests) == 9


# Summaries.


def test_a_summary_is_the_first_message_and_says_what_it_is(engine_with, api, chat):
    given = []
    policy = Summarize(LastTurns(3, 1), by=lambda messages: given.append(messages) or "they talked")
    send_questions(engine_with(policy), 4)
    assert [message["role"] for message in given[0]] == ["user", "assistant"] * 3
    first = sent_messages(api)[-1][0]
    assert first["content"][0]["text"] == "What was said before, in summary:\n\nthey talked"
    assert [message["role"] for message in sent_messages(api)[-1]] == ["user", "user"]
    send_questions(engine_with(policy), 3, first=4)
    assert given[1][0] == first  # a summary of the summary and of the later messages
    assert list_refusals(api) == []


@pytest.mark.parametrize("failing", ["raises", "is not text", "is empty"])
def test_a_summary_that_fails_leaves_no_turn_unanswered(engine_with, api, chat, failing):
    by = {"raises": lambda _: 1 / 0, "is not text": lambda _: None, "is empty": lambda _: " "}[failing]
    engine = engine_with(Summarize(LastTurns(3, 1), by=by))
    send_questions(engine, 3)
    with pytest.warns(CutFailedWarning, match="conversation 'a' was not trimmed: making its summary raised "):
        send_questions(engine, 1, first=3)
    assert len(sent_messages(api)[-1]) == 7
    assert list_kinds(chat) == ["setup"]


def test_a_compaction_that_fails_leaves_no_turn_unanswered(store, chat):
    busy = Failure(529, message="busy", headers={"x-should-retry": "false"})
    api = FakeMessagesAPI(answer, summary=[busy, "they talked"])
    engine = ChatEngine(api.client(), store, model=MODEL, trimming=Compaction(LastTurns(3, 1)))
    send_questions(engine, 3)
    with pytest.warns(CutFailedWarning, match="OverloadedError"):
        send_questions(engine, 1, first=3)
    send_questions(engine, 2, first=4)  # the next turn tries again
    assert list_kinds(chat) == ["setup", "compaction"]
    assert [request.status for request in api.requests].count(200) == 7


def test_ctrl_c_during_a_summary_closes_the_turn(engine_with, chat):
    def stopped(_):
        raise KeyboardInterrupt

    engine = engine_with(Summarize(LastTurns(3, 1), by=stopped))
    send_questions(engine, 3)
    with pytest.raises(KeyboardInterrupt):
        engine.send("a", "more")
    assert list_kinds(chat) == ["setup", "turn_abandoned"]
    assert chat.state().engine.open_turn is None


def test_an_engine_that_lost_its_turn_during_a_summary_raises_a_conflict(engine_with, chat, store):
    engine = engine_with(Summarize(LastTurns(3, 1), by=lambda _: engine.abandon("a") and "they talked"))
    send_questions(engine, 3)
    with pytest.raises(Conflict):
        engine.send("a", "more")
    assert list_kinds(chat) == ["setup", "turn_abandoned"]


def test_compaction_on_demand_leaves_thinking_valid(engine_with, api, chat):
    engine = engine_with()
    assert engine.compact("a") is None
    send_questions(engine, 4)
    result = engine.compact("a")
    assert (result.turns, result.messages) == (4, 8)
    [only] = chat.messages()
    assert [block["type"] for block in only["content"]] == ["compaction"]
    send_questions(engine, 3, first=4)
    assert list_refusals(api) == []
    assert [block["type"] for block in sent_messages(api)[-1][2]["content"]] == ["thinking", "text"]
    api.assert_extends()
    replies = [request.reply["usage"]["output_tokens"] for request in api.requests]
    assert chat.usage().total.output == sum(replies)


def test_a_compaction_of_a_changed_conversation_is_not_stored(engine_with, store, chat):
    send_questions(engine_with(), 2)
    api = FakeMessagesAPI(answer, summary=lambda _: chat.append({"role": "user", "content": "late"}) and "they talked")
    with pytest.raises(Conflict):
        ChatEngine(api.client(), store, model=MODEL).compact("a")
    assert list_kinds(chat) == ["setup"]


def test_trim_refuses_a_compaction(chat):
    with pytest.raises(InvalidInput, match=r"ChatEngine\.compact"):
        chat.trim(Compaction(KeepAll()))


# Context editing by the API.


def test_compaction_at_a_threshold_is_stored_and_the_messages_before_it_are_not_sent_again(store, chat):
    api = FakeMessagesAPI(answer, smallest_trigger=1)
    editing = ContextEditing(
        compact=400, clear_thinking=True, clear_tool_uses={"keep": {"type": "tool_uses", "value": 1}}
    )
    engine = ChatEngine(api.client(), store, model=MODEL, context_editing=editing)
    send_questions(engine, 12)
    assert list_refusals(api) == []
    body = api.requests[0].body["context_management"]
    assert [edit["type"] for edit in body["edits"]] == [
        "clear_thinking_20251015",
        "clear_tool_uses_20250919",
        "compact_20260112",
    ]
    starts = find_compactions(chat)
    assert len(starts) > 1
    assert chat.view().report.view_start == starts[-1]
    assert chat.messages()[0]["content"][0]["type"] == "compaction"
    assert max(map(len, sent_messages(api))) < 12
    # the compaction block still needs its beta
    ChatEngine(api.client(), store, model=MODEL).send("a", "without any edit")
    assert list_refusals(api) == []


def test_a_refusal_in_the_turn_of_a_compaction_keeps_the_summary(store, chat):
    call = {"type": "tool_use", "name": "look", "input": {"place": "somewhere"}}
    api = FakeMessagesAPI(
        [answer(), answer(), [THOUGHT, call], Reply(content=[], stop_reason="refusal"), answer()], smallest_trigger=1
    )
    editing = ContextEditing(compact=200)
    engine = ChatEngine(api.client(), store, model=MODEL, tools=[look.to_dict()], context_editing=editing)
    send_questions(engine, 2)
    reply = engine.send("a", "look there")
    assert reply.message["content"][0]["type"] == "compaction"
    engine.submit("a", reply, {reply.tool_calls[0]["id"]: "nothing"})
    send_questions(engine, 1, first=3)
    assert sent_messages(api)[-1][0]["content"][0]["type"] == "compaction"
    assert list_refusals(api) == []


# Thinking that is bound to messages that are no longer sent.


def test_the_setting_to_drop_thinking_is_stored_with_the_conversation(engine_with, api, chat, store):
    send_questions(engine_with(), 4)
    chat.set_drop_stale_thinking(drop=True)
    chat.trim(LastTurns(2, 2))
    send_questions(engine_with(), 2, first=4)  # another engine, without this setting
    assert list_refusals(api) == []
    body = api.requests[-1].body
    assert body["thinking"] == {"type": "adaptive", "block_binding": {"prefix_mismatch_behavior": "drop_block"}}
    assert chat.view().report.thinking_stripped == 0
    assert History(store).conversation("a").state().view.drop_stale_thinking
    chat.set_drop_stale_thinking(drop=False)
    send_questions(engine_with(), 1, first=6)
    assert "thinking" not in api.requests[-1].body
    assert chat.view().report.thinking_stripped == 4
    assert list_refusals(api) == []


@pytest.mark.parametrize("change", [{"system": "Be brief."}, {"tools": [look.to_dict()]}])
def test_a_change_of_the_prefix_warns_before_the_request(engine_with, api, chat, change):
    send_questions(engine_with(), 2)
    engine = engine_with(**change)
    with pytest.warns(UserWarning, match="its earlier thinking is no longer sent"):
        send_questions(engine, 1, first=2)
    report = chat.view().report
    assert (report.thinking_stripped, report.prefix_changed) == (2, False)
    assert list_refusals(api) == []


def test_a_rewind_before_a_cut_undoes_the_cut(engine_with, api, chat):
    engine = engine_with(LastTurns(3, 1))
    send_questions(engine, 4)
    view_start = chat.view().report.view_start
    assert view_start > 0
    chat.rewind(to=view_start)
    assert chat.view().report.view_start == 0
    assert len(chat.messages()) == 6
    send_questions(engine_with(), 1, first=4)
    chat.rewind(to=chat.state().view.path_position + 1)
    send_questions(engine_with(), 1, first=5)
    assert list_refusals(api) == []


def test_a_rewind_before_the_last_cut_restores_the_cut_before_it(engine_with, api, chat):
    send_questions(engine_with(LastTurns(3, 1)), 7)  # cut before the fourth and the seventh turn
    begins = [entry.data["view_start"] for entry in chat.entries() if entry.kind == "cut"]
    assert len(begins) == 2
    chat.rewind(to=begins[1])
    assert chat.view().report.view_start == begins[0]
    assert chat.state().totals.turns - chat.state().view.hidden_turns == 3
    send_questions(engine_with(LastTurns(9, 9)), 1, first=7)
    assert len(sent_messages(api)[-1]) == 7
    assert list_refusals(api) == []


def test_a_rewind_before_a_compaction_of_the_api_restores_the_one_before_it(store, chat):
    api = FakeMessagesAPI(answer, smallest_trigger=1)
    editing = ContextEditing(compact=400)
    engine = ChatEngine(api.client(), store, model=MODEL, context_editing=editing)
    send_questions(engine, 12)
    starts = find_compactions(chat)
    chat.rewind(to=starts[-1])
    assert chat.view().report.view_start == starts[-2]
    assert chat.state().totals.turns - chat.state().view.hidden_turns == len(
        [message for message in chat.messages() if message["role"] == "user"]
    )
    engine.send("a", "again")
    assert list_refusals(api) == []


def test_trim_with_a_summary_and_a_writer_in_the_meantime(engine_with, chat, store):
    send_questions(engine_with(), 4)
    result = chat.trim(Summarize(LastTurns(2, 1), by=lambda messages: f"{len(messages)} messages"))
    assert result.messages == 6
    assert chat.messages()[0]["content"][0]["text"].endswith("6 messages")
    send_questions(engine_with(), 3, first=4)
    late = Summarize(LastTurns(2, 1), by=lambda _: chat.append({"role": "user", "content": "late"}) and "they talked")
    with pytest.raises(Conflict):
        chat.trim(late)
    assert list_kinds(chat) == ["setup", "cut"]


def test_an_interrupted_reply_with_a_call_leaves_no_open_call(engine_with, chat):
    send_questions(engine_with(), 3)
    call = {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "f", "input": {}}]}
    chat.log.append([make_entry("reply_interrupted", message=call, turn="x")])
    assert chat.trim(LastTurns(1, 1)) is not None


def test_the_id_of_a_turn_that_was_cut_off_is_still_known(engine_with, api, chat):
    engine = engine_with(LastTurns(3, 1))
    replies = [engine.send("a", f"q{number}", turn_id=f"order-{number}") for number in range(9)]
    for other_engine in (engine, engine_with(LastTurns(3, 1))):
        for number in (0, 4, 8):
            assert other_engine.send("a", f"q{number}", turn_id=f"order-{number}").message == replies[number].message
    assert len(api.requests) == 9
    with pytest.raises(Exception, match="already has another message"):
        engine.send("a", "other words", turn_id="order-0")


def test_max_age_uses_the_clock(engine_with, api, chat, monkeypatch):
    engine = engine_with(MaxAge(high=3600, low=600))
    send_questions(engine, 3)
    later = 3700 * 1_000_000
    for module in ("trimming.plan_cut", "log.entry", "log.conversation_log", "log.lease", "engine.turn"):
        real = __import__(f"chathistory.{module}", fromlist=["now"]).now
        monkeypatch.setattr(f"chathistory.{module}.now", lambda real=real: real() + later)
    send_questions(engine, 2, first=3)
    assert [len(messages) for messages in sent_messages(api)] == [1, 3, 5, 1, 3]
    assert list_kinds(chat) == ["setup", "cut"]


class EveryThird:
    """A policy that an application wrote."""

    def should_cut(self, context) -> bool:
        return context.turns > 3

    def find_start(self, turns, context) -> int | None:
        return turns[-1].position


def test_a_policy_that_an_application_wrote(engine_with, api, chat):
    send_questions(engine_with(EveryThird()), 10)
    assert [len(messages) for messages in sent_messages(api)] == [1, 3, 5, 1, 3, 5, 1, 3, 5, 1]
    assert list_refusals(api) == []


@pytest.mark.parametrize("position", [-5, 2, 10**9])
def test_a_policy_that_returns_a_wrong_position_is_an_error(engine_with, chat, position):
    engine = engine_with(type("Odd", (EveryThird,), {"find_start": lambda *_: position})())
    send_questions(engine, 3)
    if position < 3:
        send_questions(engine, 1, first=3)  # before everything, or before the first reply: there is nothing to cut
        assert list_kinds(chat) == ["setup"]
        return
    with pytest.raises(InvalidInput, match=f"position {position}"):
        send_questions(engine, 1, first=3)
    assert list_kinds(chat) == ["setup"]


def test_a_value_that_is_not_a_policy_is_refused(engine_with):
    with pytest.raises(InvalidInput, match="trimming: must be a policy"):
        engine_with(50)


def test_count_tokens_asks_the_api(engine_with, api):
    engine = engine_with()
    send_questions(engine, 2)
    count = engine.count_tokens("a", "question 2 " + "word " * 20)
    assert api.requests[-1].path.endswith("count_tokens")
    send_questions(engine, 1, first=2)
    assert sum(api.requests[-1].reply["usage"][name] for name in INPUT) == count
    assert engine.count_tokens("new", "hello") > 0
    with pytest.raises(
        InvalidInput, match=r"^content: must be given, because the conversation is empty or ends with a reply"
    ):
        engine.count_tokens("a")
    engine.compact("a")
    assert 0 < engine.count_tokens("a", "more") < count  # with the beta that the block needs
    assert list_refusals(api) == []


@pytest.mark.parametrize("stop", ["refusal", "max_tokens"])
def test_cuts_after_replies_with_another_stop_reason(store, chat, stop):
    replies = [answer(), Reply(content=[] if stop == "refusal" else answer(), stop_reason=stop)]
    api = FakeMessagesAPI(replies * 6)
    engine = ChatEngine(api.client(), store, model=MODEL, trimming=LastTurns(4, 2))
    send_questions(engine, 12)
    assert list_refusals(api) == []
    assert "cut" in list_kinds(chat)


# The same for asyncio.


@pytest.mark.parametrize("way", ["function", "coroutine function", "compaction", "broken"])
def test_the_async_engine_makes_summaries(api, store, chat, way):
    async def by(messages):
        await asyncio.sleep(0)
        return f"{len(messages)} messages"

    policies = {
        "function": Summarize(LastTurns(3, 1), by=lambda messages: f"{len(messages)} messages"),
        "coroutine function": Summarize(LastTurns(3, 1), by=by),
        "compaction": Compaction(LastTurns(3, 1)),
        "broken": Summarize(LastTurns(3, 1), by=lambda _: 1 / 0),
    }

    async def main():
        async with AsyncChatEngine(api.async_client(), store, model=MODEL, trimming=policies[way]) as engine:
            for number in range(3):
                await engine.send("a", f"q{number}")
            if way == "broken":
                with pytest.warns(CutFailedWarning):
                    await engine.send("a", "q3")
            else:
                async with engine.stream("a", "q3") as stream:
                    await stream.get_final_reply()
            assert await engine.count_tokens("a", "more") > 0
            return await engine.compact("a")

    result = asyncio.run(main())
    assert list_refusals(api) == []
    expected = {"compaction": ["setup", "compaction", "compaction"], "broken": ["setup", "compaction"]}
    assert list_kinds(chat) == expected.get(way, ["setup", "cut", "compaction"])
    assert result.messages == (8 if way == "broken" else 2)
    assert chat.usage().turns[-1].model == MODEL


def test_cancelling_during_a_summary_closes_the_turn(api, store, chat):
    async def by(_):
        await asyncio.sleep(60)

    async def main():
        policy = Summarize(LastTurns(3, 1), by=by)
        async with AsyncChatEngine(api.async_client(), store, model=MODEL, trimming=policy) as engine:
            for number in range(3):
                await engine.send("a", f"q{number}")
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(engine.send("a", "q3"), 0.2)
            assert await engine.compact("nothing there") is None

    asyncio.run(main())
    assert list_kinds(chat) == ["setup", "turn_abandoned"]
