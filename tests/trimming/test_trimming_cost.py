"""The cost of trimming: use of the prompt cache, refusals, and records that are read after a cut."""

from __future__ import annotations

import pytest
from trimming_costs import (
    CountingStore,
    RequestCosts,
    open_without_cache,
    replay_requests,
    run_long_chat,
    split_at_cuts,
    store_long_chat,
)

from chathistory.trimming import LastTurns, TokenBudget

TURNS, HIGH, LOW = 60, 24_000, 12_000


@pytest.fixture(scope="module")
def cut_rarely():
    return run_long_chat(TURNS, TokenBudget(HIGH, LOW))


@pytest.fixture(scope="module")
def never_cut():
    return run_long_chat(TURNS)


def test_a_budget_keeps_the_cache_and_a_sliding_window_loses_it(cut_rarely):
    ours = RequestCosts.from_requests(cut_rarely.requests)
    sliding = RequestCosts.from_requests(run_long_chat(TURNS, LastTurns(20, 20)).requests)
    assert ours.refused == sliding.refused == {}
    assert ours.share > 0.9
    assert ours.at_turns > 0.9
    assert sliding.at_turns < 0.25
    assert sliding.share < ours.share / 2


def test_each_turn_begins_within_the_budget(cut_rarely):
    turn_requests = [
        request for request in cut_rarely.requests if isinstance(request.body["messages"][-1]["content"], str)
    ]
    assert RequestCosts.from_requests(turn_requests).largest <= HIGH
    assert RequestCosts.from_requests(turn_requests).largest > HIGH * 0.9, "no cut is made long before the threshold"


def test_between_cuts_each_request_extends_the_one_before(cut_rarely):
    runs = split_at_cuts(cut_rarely.requests)
    assert 3 <= len(runs) <= 6
    for run in runs:
        cut_rarely.assert_extends(run)
    with pytest.raises(AssertionError, match="does not extend"):
        cut_rarely.assert_extends()


def test_a_slice_of_the_same_chat_is_refused_and_the_engine_is_not(never_cut):
    assert RequestCosts.from_requests(never_cut.requests).refused == {}
    for size in (20, 40):
        costs = replay_requests(never_cut.requests, lambda messages, size=size: messages[-size:])
        longer = sum(len(request.body["messages"]) > size for request in never_cut.requests)
        assert costs.refused.total() == longer > len(never_cut.requests) / 4
    whole = replay_requests(never_cut.requests, lambda messages: messages)
    assert whole.refused == {}, "only the slice causes refusals"


@pytest.mark.parametrize(("stored", "kept"), [(2_000, 100), (10_000, 100), (10_000, 2_000)])
def test_after_a_cut_no_more_is_read_than_is_sent(stored, kept):
    with CountingStore() as store:
        store_long_chat(store, stored, kept=kept)
        chat = open_without_cache(store)
        store.reads.clear()
        assert len(chat.messages()) == kept
        assert len(store.reads) <= 2
        assert sum(store.reads) <= max(256, kept) + 1
        store.reads.clear()
        chat.messages()
        assert store.reads == [kept + 1], "the start is known: one read, with the record of the cut"


def test_without_a_cut_all_is_read():
    with CountingStore() as store:
        store_long_chat(store, 2_000, kept=2_000)
        store.reads.clear()
        assert len(open_without_cache(store).messages()) == 2_000
        assert sum(store.reads) == 2_000


def test_a_turn_below_the_threshold_reads_nothing():
    with CountingStore() as store:
        run_long_chat(4, TokenBudget(HIGH, LOW), engine_on=store)
        assert sum(store.reads) == 0, "an engine remembers the conversation, and asks the policy without reading"
        run_long_chat(30, TokenBudget(3_000, 1_000), engine_on=store)
        assert sum(store.reads) > 0
