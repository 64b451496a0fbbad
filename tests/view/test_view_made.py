"""Conversations of all kinds, held on the engine: what is sent is always taken, and always extends what was sent."""

from __future__ import annotations

import pytest
from made_conversations import conversation, hold

from chathistory import open_store


@pytest.mark.parametrize("part", range(10))
def test_every_request_is_taken_and_extends_the_one_before_and_the_log_holds_all(part):
    with open_store("memory:") as store:
        for seed in range(part * 100, part * 100 + 100):
            hold(conversation(seed), store).check()
