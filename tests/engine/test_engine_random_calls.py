"""Whatever two processes do with a conversation, and wherever they die: nothing is sent in vain, twice or never."""

from __future__ import annotations

import os

import pytest
from chathistory_memory import MemoryStore
from random_engine_run import World

pytestmark = pytest.mark.repeated

CASES = int(os.environ.get("CHATHISTORY_ENGINE_CASES", "60"))
PARTS = 20


@pytest.mark.timeout(0)  # as many cases as are asked for
@pytest.mark.parametrize("part", range(PARTS))
def test_any_sequence_of_calls_and_crashes(clock, part):
    for case in range(part, CASES, PARTS):
        name = f"test-engine-any-{case}"
        world = World(case, name, clock)
        try:
            for _ in range(world.dice.randint(5, 30)):
                world.step()
            world.check()
        except BaseException as error:
            error.add_note(f"case {case}")
            raise
        finally:
            MemoryStore._named.pop(name, None)
