"""Cuts, rewinds, forgetting, repairs, changed setups and failures in any order: the API accepts every request."""

from __future__ import annotations

from collections import Counter

import pytest
from random_conversation import STEP_WEIGHTS, RandomConversation, run_random_conversation

pytestmark = pytest.mark.wide


@pytest.mark.parametrize("part", range(4))
def test_after_any_steps_each_request_is_accepted_and_the_log_is_unchanged(part):
    for seed in range(part * 6, part * 6 + 6):
        run_random_conversation(seed, 40)


@pytest.mark.stress
@pytest.mark.timeout(1800)
def test_after_any_steps_in_six_hundred_conversations():
    for seed in range(1_000, 1_600):
        run_random_conversation(seed, 60)


def test_every_step_and_every_kind_of_entry_occurs():
    """Conversations without a cut would prove nothing."""
    conversations = [run_random_conversation(seed, 60) for seed in range(100, 112)]
    assert {step for conversation in conversations for step in conversation.made_steps} >= STEP_WEIGHTS.keys()
    assert {conversation.kind for conversation in conversations} == {"plain", "summarize", "compaction", "edit"}
    kinds = Counter(entry.kind for conversation in conversations for entry in conversation.seen)
    assert kinds.keys() >= {
        "cut",
        "compaction",
        "rewind",
        "snapshot",
        "setup",
        "thinking_policy",
        "repair",
        "turn_abandoned",
    }
    assert kinds["cut"] > 20


def test_the_same_seed_makes_the_same_steps():
    first, second = (RandomConversation(5), RandomConversation(5))
    for conversation in (first, second):
        conversation.make_steps(20)
    assert first.made_steps == second.made_steps
