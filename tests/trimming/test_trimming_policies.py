"""Policies by themselves: when each is due, where it cuts, and what a conversation looks like to them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from made_entries import make_entry

from chathistory import Entry
from chathistory.errors import InvalidInput, TurnTooLarge
from chathistory.trimming import AnyOf, Compaction, KeepAll, LastTurns, MaxAge, Round, SentTurn, Summarize, TrimContext
from chathistory.trimming import TokenBudget as Budget
from chathistory.trimming.turns import SizedTurns, split_into_turns


def moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def turn(position: int, tokens: int = 100, *, at: int = 0, rounds: tuple[int, ...] = ()) -> SentTurn:
    """A turn; rounds: the tokens of each, at positions behind the one that opens it."""
    made = tuple(Round(position + 1 + 2 * index, size) for index, size in enumerate(rounds))
    return SentTurn(position, moment(at), tokens + sum(rounds), tokens, made)


def load(*, tokens: int = 0, turns: int = 0, since: int = 0, now: int = 0, before: int = 0) -> TrimContext:
    return TrimContext(tokens, turns, moment(since), moment(now), before)


TURNS = [turn(position) for position in range(0, 10, 2)]


def test_keep_all_never_cuts():
    assert not KeepAll().should_cut(load(tokens=10**9, turns=10**9))
    assert KeepAll().find_start(TURNS, load()) is None


@pytest.mark.parametrize(("turns", "due"), [(5, False), (6, True)])
def test_last_turns_is_due_over_its_high_mark(turns, due):
    assert LastTurns(5, 2).should_cut(load(turns=turns)) is due


@pytest.mark.parametrize(("low", "place"), [(1, 8), (3, 4), (5, None)])
def test_last_turns_cuts_to_its_low_mark(low, place):
    assert LastTurns(9, low).find_start(TURNS, load(turns=10)) == place


def test_max_age_looks_at_the_oldest_message():
    policy = MaxAge(high=10, low=3)
    assert not policy.should_cut(load(since=5, now=15))
    assert policy.should_cut(load(since=5, now=16))
    turns = [turn(number, at=number) for number in range(10)]
    assert policy.find_start(turns, load(now=10)) == 7
    assert policy.find_start(turns, load(now=100)) == 9


def test_the_marks_of_an_age_are_durations():
    weeks = MaxAge(high="2w", low=timedelta(hours=12))
    assert weeks == MaxAge(1_209_600, 43_200.0)
    assert (weeks.high, weeks.low) == (timedelta(weeks=2), timedelta(hours=12))


@pytest.mark.parametrize(("tokens", "due"), [(1000, False), (1001, True)])
def test_a_token_budget_is_due_over_its_high_mark(tokens, due):
    assert Budget(1000, 500).should_cut(load(tokens=tokens)) is due


@pytest.mark.parametrize(("low", "before", "place"), [(500, 0, 0), (499, 0, 2), (300, 0, 4), (300, 1, 6), (250, 50, 6)])
def test_a_token_budget_keeps_what_fits_beside_system_prompt_and_tools(low, before, place):
    turns = [turn(position, 50, rounds=(50,)) for position in range(0, 10, 2)]
    assert Budget(1000, low).find_start(turns, load(before=before)) == place


def test_the_last_finished_turn_stays_whole_while_it_fits_under_the_high_mark():
    turns = [turn(0, 50, rounds=(50,)), turn(2, 50, rounds=(700,)), turn(4, 10)]
    assert Budget(1000, 100).find_start(turns, load()) == 2


def test_a_turn_over_the_budget_is_cut_between_its_rounds():
    giant = turn(2, 50, rounds=(400, 300, 200, 100))  # at 3, 5, 7 and 9
    turns = [turn(0), giant, turn(11, 10)]
    assert Budget(1000, 400).find_start(turns, load()) == 7
    assert Budget(1000, 60).find_start(turns, load()) == 9  # the last round stays, whatever it takes
    with pytest.raises(TurnTooLarge, match="about 1050 tokens, which is over the budget of 1000"):
        Budget(1000, 400, oversized="raise").find_start(turns, load())


def test_a_message_that_alone_is_over_the_budget_goes_alone():
    turns = [turn(0, 50, rounds=(50,)), turn(2, 5000)]
    assert Budget(1000, 500).find_start(turns, load()) == 2
    with pytest.raises(TurnTooLarge):
        Budget(1000, 500, oversized="raise").find_start(turns, load())


def test_any_of_cuts_as_far_as_the_one_that_cuts_furthest():
    policy = AnyOf(LastTurns(4, 3), Budget(100, 50), KeepAll())
    assert not policy.should_cut(load(turns=4, tokens=100))
    assert policy.find_start(TURNS, load(turns=5, tokens=100)) == 4  # the budget is not due, and not asked
    assert policy.find_start(TURNS, load(turns=5, tokens=101)) == 8
    assert AnyOf().find_start(TURNS, load()) is None


@pytest.mark.parametrize("wrapped", [Compaction(LastTurns(4, 3)), Summarize(LastTurns(4, 3), by=str)])
def test_what_sums_up_cuts_where_its_policy_does(wrapped):
    assert not wrapped.should_cut(load(turns=4))
    assert wrapped.should_cut(load(turns=5))
    assert wrapped.find_start(TURNS, load(turns=5)) == 4


@pytest.mark.parametrize(
    "made",
    [
        lambda: LastTurns(high=3, low=4),
        lambda: LastTurns(high=3, low=0),
        lambda: MaxAge(high=1, low=2),
        lambda: MaxAge(high=1, low=-1),
        lambda: MaxAge(high="soon", low=1),
        lambda: MaxAge(high=True, low=0),
        lambda: Budget(high=5, low=6),
        lambda: Budget(high=5, low=0),
        lambda: Budget(high=5, low=1, oversized="maybe"),
    ],
)
def test_marks_that_cannot_be_are_refused(made):
    with pytest.raises(InvalidInput):
        made()


# What a policy sees.


def entry(position: int, role: str, *blocks: dict, usage: dict | None = None) -> Entry:
    content = list(blocks) or "x" * 31  # 9 tokens by its length, and 4 for the message
    data = {"response": {"usage": usage}} if usage else {}
    return make_entry("message", {"role": role, "content": content}, data, position=position, time_us=position)


def outlined(entries: list[Entry], **options: int) -> tuple:
    outline = split_into_turns(entries, **options)
    return outline.turns, outline.preamble_tokens


def used(context: int, output: int) -> dict:
    return {"input_tokens": context - output, "output_tokens": output, "cache_read_input_tokens": 0}


CALL = {"type": "tool_use", "id": "t", "name": "f", "input": {}}
RESULT = {"type": "tool_result", "tool_use_id": "t", "content": "ok"}
SEARCH = {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}
FOUND = {"type": "web_search_tool_result", "tool_use_id": "s", "content": []}


def test_turns_and_rounds_and_what_usage_tells_of_them():
    turns, before = outlined(
        [
            entry(0, "user"),
            entry(1, "assistant", CALL, usage=used(250, 50)),
            entry(2, "user", RESULT),
            entry(3, "assistant", usage=used(400, 30)),
            entry(4, "system"),
            entry(5, "user"),
            entry(6, "assistant", usage=used(1000, 100)),
            entry(7, "user"),
        ],
        cache_valid_from=-1,
    )
    assert before == 187  # all but the first message, estimated, and the reply
    assert [each.position for each in turns] == [0, 5, 7]
    assert [each.first_message_tokens for each in turns[::2]] == [13, 13]
    assert turns[0].rounds == (Round(1, 50 + 120), Round(3, 30 + 250))  # and half of what lies between
    assert sum(each.tokens for each in turns) == 1000 - 187 + 13
    assert [each.at for each in turns] == [moment(number / 1_000_000) for number in (0, 5, 7)]


def test_a_round_begins_only_where_nothing_is_open():
    turns, _ = outlined(
        [
            entry(0, "user"),
            entry(1, "assistant", SEARCH, CALL),
            entry(2, "user", RESULT),
            entry(3, "assistant", FOUND, CALL),  # the server's answer to what was asked before
            entry(4, "user", RESULT),
            entry(5, "assistant", SEARCH),  # paused
            entry(6, "assistant", FOUND),
        ]
    )
    assert [each.position for each in turns[0].rounds] == [1, 5]


def test_what_was_told_before_a_change_of_what_stands_before_says_nothing_of_that():
    entries = [
        entry(0, "user"),
        entry(1, "assistant", usage=used(900, 50)),
        entry(2, "user"),
        entry(5, "assistant", usage=used(500, 20)),
        entry(6, "user"),
    ]
    assert outlined(entries, cache_valid_from=6)[1] is None
    turns, before = outlined(entries, cache_valid_from=3)
    assert before == 500 - 20 - 13 - 50 - 13
    assert turns[0].tokens == 13 + 50


def test_nothing_is_nothing():
    assert split_into_turns([]) == SizedTurns([], None)


def test_a_system_message_before_the_first_reply_counts_and_opens_no_round():
    [turn], _ = outlined([entry(0, "user"), entry(1, "system"), entry(2, "assistant"), entry(3, "assistant")])
    assert (turn.tokens, turn.first_message_tokens, turn.rounds) == (52, 13, ())


def test_two_replies_in_a_row_leave_nothing_between_them():
    entries = [
        entry(1, "user"),
        entry(2, "assistant", usage=used(100, 10)),
        entry(3, "assistant", usage=used(130, 20)),
    ]
    [turn], before = outlined(entries)
    assert (turn.tokens, before) == (13 + 10 + 20, 100 - 10 - 13)
