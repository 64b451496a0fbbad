"""Cuts, going back, forgetting, mending, other setups, failures, in any order: what is sent is always taken."""

from __future__ import annotations

from collections import Counter

import pytest
from trimming_world import LIKELY, World, lived

pytestmark = pytest.mark.repeated


@pytest.mark.parametrize("part", range(4))
def test_whatever_happens_each_request_is_taken_and_the_log_stays_as_it_was(part):
    for seed in range(part * 6, part * 6 + 6):
        lived(seed, 40)


@pytest.mark.stress
@pytest.mark.timeout(1800)
def test_whatever_happens_in_six_hundred_conversations():
    for seed in range(1_000, 1_600):
        lived(seed, 60)


def test_everything_happens():
    """A story that never came to a cut would prove nothing."""
    worlds = [lived(seed, 60) for seed in range(100, 112)]
    assert {step for world in worlds for step in world.story} >= LIKELY.keys()
    assert {world.kind for world in worlds} == {"plain", "summarize", "compaction", "edit"}
    kinds = Counter(entry.kind for world in worlds for entry in world.seen)
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


def test_the_same_seed_tells_the_same_story():
    first, second = (World(5), World(5))
    for world in (first, second):
        world.live(20)
    assert first.story == second.story
