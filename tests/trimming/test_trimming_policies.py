"""Policies without an engine: when each one cuts, where it cuts, and the turns that it gets."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from entry_factory import make_entry

from chathistory import Entry
from chathistory.errors import InvalidInput, TurnTooLarge
from chathistory.trimming import AnyOf, Compaction, KeepAll, LastTurns, MaxAge, Round, SentTurn, Summarize, TrimContext
from chathistory.trimming import TokenBudget as Budget
from chathistory.trimming.turns import SizedTurns, split_into_turns


def moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def turn(position: int, tokens: int = 100, *, at: int = 0, rounds: tuple[int, ...] = ()) -> SentTurn:
    """Return a turn; `rounds` has the tokens of each round, and their positions follow the one of the turn."""
    turn_rounds = tuple(Round(position + 1 + 2 * index, size) for index, size in enumerate(rounds))
    return SentTurn(position, moment(at), tokens + sum(rounds), tokens, turn_rounds)


def context(*, tokens: int = 0, turns: int = 0, oldest: int = 0, now: int = 0, preamble: int = 0) -> TrimContext:
    return TrimContext(tokens, turns, moment(oldest), moment(now), preamble)


TURNS = [turn(position) for position in range(0, 10, 2)]


def test_keep_all_never_cuts():
    assert not KeepAll().should_cut(context(tokens=10**9, turns=10**9))
    assert KeepAll().find_start(TURNS, context()) is None


@pytest.mark.parametrize(("turns", "expected"), [(5, False), (6, True)])
def test_last_turns_cuts_above_its_high_threshold(turns, expected):
    assert LastTurns(5, 2).should_cut(context(turns=turns)) is expected


@pytest.mark.parametrize(("low", "position"), [(1, 8), (3, 4), (5, None)])
def test_last_turns_cuts_down_to_its_low_threshold(low, position):
    assert LastTurns(9, low).find_start(TURNS, context(turns=10)) == position


def test_max_age_uses_the_oldest_message():
    policy = MaxAge(high=10, low=3)
    assert not policy.should_cut(context(oldest=5, now=15))
    assert policy.should_cut(context(oldest=5, now=16))
    turns = [turn(number, at=number) for number in range(10)]
    assert policy.find_start(turns, context(now=10)) == 7
    assert policy.find_start(turns, context(now=100)) == 9


def test_the_thresholds_of_an_age_are_durations():
    weeks = MaxAge(high="2w", low=timedelta(hours=12))
    assert weeks == MaxAge(1_209_600, 43_200.0)
    assert (weeks.high, weeks.low) == (timedelta(weeks=2), timedelta(hours=12))


@pytest.mark.parametrize(("tokens", "expected"), [(1000, False), (1001, True)])
def test_a_token_budget_cuts_above_its_high_threshold(tokens, expected):
    assert Budget(1000, 500).should_cut(context(tokens=tokens)) is expected


@pytest.mark.parametrize(
    ("low", "preamble", "position"), [(500, 0, 0), (499, 0, 2), (300, 0, 4), (300, 1, 6), (250, 50, 6)]
)
def test_a_token_budget_includes_system_prompt_and_tools(low, preamble, position):
    turns = [turn(position, 50, rounds=(50,)) for position in range(0, 10, 2)]
    assert Budget(1000, low).find_start(turns, context(preamble=preamble)) == position


def test_the_last_finished_turn_stays_whole_if_it_fits_into_high():
    turns = [turn(0, 50, rounds=(50,)), turn(2, 50, rounds=(700,)), turn(4, 10)]
    assert Budget(1000, 100).find_start(turns, context()) == 2


def test_a_turn_over_the_budget_is_cut_between_its_rounds():
    giant = turn(2, 50, rounds=(400, 300, 200, 100))  # at 3, 5, 7 and 9
    turns = [turn(0), giant, turn(11, 10)]
    assert Budget(1000, 400).find_start(turns, context()) == 7
    assert Budget(1000, 60).find_start(turns, context()) == 9  # the last round stays, however large it is
    with pytest.raises(TurnTooLarge, match="about 1050 tokens, which is over the budget of 1000"):
        Budget(1000, 400, oversized="raise").find_start(turns, context())


def test_a_message_that_alone_exceeds_the_budget_is_sent_alone():
    turns = [turn(0, 50, rounds=(50,)), turn(2, 5000)]
    assert Budget(1000, 500).find_start(turns, context()) == 2
    with pytest.raises(TurnTooLarge):
        Budget(1000, 500, oversized="raise").find_start(turns, context())


def test_any_of_cuts_as_far_as_the_one_that_cuts_furthest():
    policy = AnyOf(LastTurns(4, 3), Budget(100, 50), KeepAll())
    assert not policy.should_cut(context(turns=4, tokens=100))
    # below its threshold, the budget is not asked for a position
    assert policy.find_start(TURNS, context(turns=5, tokens=100)) == 4
    assert policy.find_start(TURNS, context(turns=5, tokens=101)) == 8
    assert AnyOf().find_start(TURNS, context()) is None


@pytest.mark.parametrize("policy_with_summary", [Compaction(LastTurns(4, 3)), Summarize(LastTurns(4, 3), by=str)])
def test_a_policy_with_a_summary_cuts_where_its_inner_policy_does(policy_with_summary):
    assert not policy_with_summary.should_cut(context(turns=4))
    assert policy_with_summary.should_cut(context(turns=5))
    assert policy_with_summary.find_start(TURNS, context(turns=5)) == 4


@pytest.mark.parametrize(
    "make_policy",
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
def test_wrong_thresholds_are_refused(make_policy):
    with pytest.raises(InvalidInput):
        make_policy()


# The turns that a policy gets.


def entry(position: int, role: str, *blocks: dict, usage: dict | None = None) -> Entry:
    content = list(blocks) or "x" * 31  # 9 tokens by its length, and 4 for the message
    data = {"response": {"usage": usage}} if usage else {}
    return make_entry("message", {"role": role, "content": content}, data, position=position, time_us=position)


def split(entries: list[Entry], **options: int) -> tuple:
    sized = split_into_turns(entries, **options)
    return sized.turns, sized.preamble_tokens


def usage_of(context: int, output: int) -> dict:
    return {"input_tokens": context - output, "output_tokens": output, "cache_read_input_tokens": 0}


CALL = {"type": "tool_use", "id": "t", "name": "f", "input": {}}
RESULT = {"type": "tool_result", "tool_use_id": "t", "content": "ok"}
SEARCH = {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}
FOUND = {"type": "web_search_tool_result", "tool_use_id": "s", "content": []}


def test_turns_and_rounds_with_sizes_from_usage():
    turns, preamble = split(
        [
            entry(0, "user"),
            entry(1, "assistant", CALL, usage=usage_of(250, 50)),
            entry(2, "user", RESULT),
            entry(3, "assistant", usage=usage_of(400, 30)),
            entry(4, "system"),
            entry(5, "user"),
            entry(6, "assistant", usage=usage_of(1000, 100)),
            entry(7, "user"),
        ],
        cache_valid_from=-1,
    )
    assert preamble == 187  # the context without the reply and the first message, which is estimated
    assert [each.position for each in turns] == [0, 5, 7]
    assert [each.first_message_tokens for each in turns[::2]] == [13, 13]
    # each round has its share of the tokens between two replies
    assert turns[0].rounds == (Round(1, 50 + 120), Round(3, 30 + 250))
    assert sum(each.tokens for each in turns) == 1000 - 187 + 13
    assert [each.at for each in turns] == [moment(number / 1_000_000) for number in (0, 5, 7)]


def test_a_round_begins_only_where_no_call_is_open():
    turns, _ = split(
        [
            entry(0, "user"),
            entry(1, "assistant", SEARCH, CALL),
            entry(2, "user", RESULT),
            entry(3, "assistant", FOUND, CALL),  # the server's result for the call preamble
            entry(4, "user", RESULT),
            entry(5, "assistant", SEARCH),  # paused
            entry(6, "assistant", FOUND),
        ]
    )
    assert [each.position for each in turns[0].rounds] == [1, 5]


def test_usage_before_a_change_of_the_prefix_does_not_show_its_size():
    entries = [
        entry(0, "user"),
        entry(1, "assistant", usage=usage_of(900, 50)),
        entry(2, "user"),
        entry(5, "assistant", usage=usage_of(500, 20)),
        entry(6, "user"),
    ]
    assert split(entries, cache_valid_from=6)[1] is None
    turns, preamble = split(entries, cache_valid_from=3)
    assert preamble == 500 - 20 - 13 - 50 - 13
    assert turns[0].tokens == 13 + 50


def test_no_messages_have_no_turns():
    assert split_into_turns([]) == SizedTurns([], None)


def test_a_system_message_before_the_first_reply_counts_and_opens_no_round():
    [turn], _ = split([entry(0, "user"), entry(1, "system"), entry(2, "assistant"), entry(3, "assistant")])
    assert (turn.tokens, turn.first_message_tokens, turn.rounds) == (52, 13, ())


def test_two_replies_in_a_row_leave_nothing_between_them():
    entries = [
        entry(1, "user"),
        entry(2, "assistant", usage=usage_of(100, 10)),
        entry(3, "assistant", usage=usage_of(130, 20)),
    ]
    [turn], preamble = split(entries)
    assert (turn.tokens, preamble) == (13 + 10 + 20, 100 - 10 - 13)
