"""What trimming costs, counted: the prompt cache, refusals, and what is read of a long conversation behind a cut."""

from __future__ import annotations

import pytest
from trimming_costs import Bill, Counted, cuts_in, held, long_chat, replayed, seen_anew

from chathistory.trimming import LastTurns, TokenBudget

TURNS, HIGH, LOW = 60, 24_000, 12_000


@pytest.fixture(scope="module")
def cut_rarely():
    return held(TURNS, TokenBudget(HIGH, LOW))


@pytest.fixture(scope="module")
def never_cut():
    return held(TURNS)


def test_a_budget_keeps_the_cache_where_a_window_that_slides_loses_it(cut_rarely):
    ours = Bill.of(cut_rarely.requests)
    sliding = Bill.of(held(TURNS, LastTurns(20, 20)).requests)
    assert ours.refused == sliding.refused == {}
    assert ours.share > 0.9
    assert ours.at_turns > 0.9
    assert sliding.at_turns < 0.25
    assert sliding.share < ours.share / 2


def test_each_turn_begins_within_the_budget(cut_rarely):
    openings = [request for request in cut_rarely.requests if isinstance(request.body["messages"][-1]["content"], str)]
    assert Bill.of(openings).largest <= HIGH
    assert Bill.of(openings).largest > HIGH * 0.9, "and no cut comes long before it is due"


def test_between_cuts_each_request_extends_the_one_before(cut_rarely):
    runs = cuts_in(cut_rarely.requests)
    assert 3 <= len(runs) <= 6
    for run in runs:
        cut_rarely.assert_extends(run)
    with pytest.raises(AssertionError, match="does not extend"):
        cut_rarely.assert_extends()


def test_a_slice_of_the_same_chat_is_refused_where_the_engine_is_not(never_cut):
    assert Bill.of(never_cut.requests).refused == {}
    for size in (20, 40):
        bill = replayed(never_cut.requests, lambda messages, size=size: messages[-size:])
        longer = sum(len(request.body["messages"]) > size for request in never_cut.requests)
        assert bill.refused.total() == longer > len(never_cut.requests) / 4
    whole = replayed(never_cut.requests, lambda messages: messages)
    assert whole.refused == {}, "what is refused is refused because of the slice"


@pytest.mark.parametrize(("stored", "kept"), [(2_000, 100), (10_000, 100), (10_000, 2_000)])
def test_behind_a_cut_no_more_is_read_than_is_sent(stored, kept):
    with Counted() as store:
        long_chat(store, stored, kept=kept)
        chat = seen_anew(store)
        store.reads.clear()
        assert len(chat.messages()) == kept
        assert len(store.reads) <= 2
        assert sum(store.reads) <= max(256, kept) + 1
        store.reads.clear()
        chat.messages()
        assert store.reads == [kept + 1], "known where to begin: one read, with the record of the cut"


def test_without_a_cut_all_is_read():
    with Counted() as store:
        long_chat(store, 2_000, kept=2_000)
        store.reads.clear()
        assert len(seen_anew(store).messages()) == 2_000
        assert sum(store.reads) == 2_000


def test_a_turn_far_from_its_mark_reads_nothing():
    with Counted() as store:
        held(4, TokenBudget(HIGH, LOW), engine_on=store)
        assert sum(store.reads) == 0, "an engine remembers what it held, and asks the policy without reading"
        held(30, TokenBudget(3_000, 1_000), engine_on=store)
        assert sum(store.reads) > 0
