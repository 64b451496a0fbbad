"""Made conversations under each policy: what is sent is always taken, extends between cuts, and the log keeps all."""

from __future__ import annotations

import warnings

import pytest
from made_conversations import conversation, hold

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

pytestmark = pytest.mark.repeated

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


def held_under(policy: str, seeds: range, *, extends: bool = True) -> int:
    """Hold conversations under a policy, check each, and return how many cuts there were, the API's too."""
    cuts = 0
    with open_store("memory:") as store, warnings.catch_warnings():
        warnings.simplefilter("ignore", CutFailedWarning)
        for seed in seeds:
            held = hold(conversation(seed), store, **POLICIES[policy])
            kinds = [entry.kind for entry in held.chat.entries()]
            cuts += kinds.count("cut") + kinds.count("compaction") + (held.chat.view().report.view_start > 0)
            held.check(extends=extends)
    return cuts


@pytest.mark.parametrize("policy", POLICIES)
def test_what_is_sent_is_taken_and_extends_between_cuts_and_the_log_keeps_all(policy):
    cuts = held_under(policy, range(20_000, 20_060))
    assert (cuts == 0) is (policy == "keep all")


def test_a_rewind_to_a_refused_turn_behind_an_open_call_needs_the_thinking_of_that_call():
    """The refused turn is not sent, so the call before it is open again, and its thinking must come back as it was."""
    held_under("the API's", range(31_736, 31_737), extends=False)


@pytest.mark.stress
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("policy", POLICIES)
def test_five_thousand_conversations_under_each_policy(policy):
    # a refused turn in which the API had summed up, and left a call open, goes back to the summary without that call
    held_under(policy, range(30_000, 35_000), extends=policy != "the API's")
