"""Random calls of two processes with crashes: no message is sent twice, lost, or sent without any use."""

from __future__ import annotations

import os

import pytest
from chathistory_memory import MemoryStore
from random_engine_run import EngineRun

pytestmark = pytest.mark.wide

CASES = int(os.environ.get("CHATHISTORY_ENGINE_CASES", "60"))
PARTS = 20


@pytest.mark.timeout(0)  # the number of cases is configurable
@pytest.mark.parametrize("part", range(PARTS))
def test_any_sequence_of_calls_and_crashes(clock, part):
    for case in range(part, CASES, PARTS):
        name = f"test-engine-any-{case}"
        run = EngineRun(case, name, clock)
        try:
            for _ in range(run.dice.randint(5, 30)):
                run.step()
            run.check()
        except BaseException as error:
            error.add_note(f"case {case}")
            raise
        finally:
            MemoryStore._named.pop(name, None)
