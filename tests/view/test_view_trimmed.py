"""Random conversations under each policy: the API accepts each request, each extends the one before up to a cut."""

from __future__ import annotations

import warnings

import pytest
from random_conversations import make_plan, play_on_engine

from chathistory import CutFailedWarning, open_store
from chathistory.trimming import (
    AnyOf,
    Compaction,
    ContextEditing,
    KeepAll,
    LastTurns,
    MaxAge,
    Summarize,
    TokenBudget,
)

pytestmark = pytest.mark.wide

POLICIES = {
    "keep all": {"trimming": KeepAll()},
    "last turns": {"trimming": LastTurns(4, 2)},
    "token budget": {"trimming": TokenBudget(2500, 1200)},
    "small budget": {"trimming": TokenBudget(300, 200)},
    "age": {"trimming": MaxAge(high=0.004, low=0.002)},
    "any of two": {"trimming": AnyOf(LastTurns(6, 3), TokenBudget(3000, 1500))},
    "summary": {"trimming": Summarize(LastTurns(4, 2), by=lambda messages: f"{len(messages)} messages")},
    "compaction": {"trimming": Compaction(LastTurns(4, 2))},
    "the API's": {
        "context_editing": ContextEditing(compact=300, clear_thinking=True, clear_tool_uses=True),
        "api": {"smallest_trigger": 1},
    },
}


def play_under(policy: str, seeds: range, *, extends: bool = True) -> int:
    """Play conversations under a policy, check each, and return the number of cuts, including those of the API."""
    cuts = 0
    with open_store("memory:") as store, warnings.catch_warnings():
        warnings.simplefilter("ignore", CutFailedWarning)
        for seed in seeds:
            played = play_on_engine(make_plan(seed), store, **POLICIES[policy])
            kinds = [entry.kind for entry in played.chat.entries()]
            cuts += kinds.count("cut") + kinds.count("compaction") + (played.chat.view().report.view_start > 0)
            played.check(extends=extends)
    return cuts


@pytest.mark.parametrize("policy", POLICIES)
def test_requests_are_accepted_and_extend_each_other_between_cuts_and_the_log_has_all(policy):
    cuts = play_under(policy, range(20_000, 20_060))
    assert (cuts == 0) is (policy == "keep all")


def test_a_rewind_to_a_refused_turn_after_an_open_call_needs_the_thinking_of_that_call():
    """The refused turn is not sent, so the call before it is open again, and its thinking must come back as it was."""
    play_under("the API's", range(31_736, 31_737), extends=False)


@pytest.mark.stress
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("policy", POLICIES)
def test_five_thousand_conversations_under_each_policy(policy):
    # after a refused turn with a summary of the API and an open call, the view has the summary without that call
    play_under(policy, range(30_000, 35_000), extends=policy != "the API's")
