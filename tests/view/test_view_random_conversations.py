"""Random conversations, with and without the engine: the API accepts each request, and each extends the one before."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
from random_conversations import Name, Retry, Rewind, Say, make_plan, play_on_engine, play_without_engine

from chathistory import open_store

pytestmark = pytest.mark.wide

PART = 50


def _check_all(play, seeds):
    with open_store("memory:") as store:
        for seed in seeds:
            play(make_plan(seed), store).check()


@pytest.mark.parametrize("part", range(12))
def test_requests_of_the_engine_are_accepted_and_extend_each_other_and_the_log_has_all(part):
    _check_all(play_on_engine, range(part * PART, (part + 1) * PART))


@pytest.mark.parametrize("part", range(4))
def test_requests_of_a_caller_without_engine_are_accepted_and_extend_each_other(part):
    _check_all(play_without_engine, range(part * PART, (part + 1) * PART))


@pytest.mark.stress
def test_five_thousand_conversations():
    _check_all(play_on_engine, range(10_000, 15_000))
    _check_all(play_without_engine, range(10_000, 12_000))


def test_the_plans_contain_everything_that_the_api_has():
    """Without this, a generator that no longer makes some kind would let every test pass."""
    plans = [make_plan(seed) for seed in range(300)]
    moves = [move for each in plans for move in each.moves]
    assert {type(move) for move in moves} == {Say, Retry, Rewind, Name}
    says = [move for move in moves if isinstance(move, Say)]
    answers = list(itertools.chain.from_iterable(move.answers for move in says))
    stops = {getattr(answer, "stop_reason", "failed") for answer in answers}
    assert stops == {None, "pause_turn", "tool_use", "refusal", "end_turn", "max_tokens",
                     "model_context_window_exceeded", "failed"}  # fmt: skip
    blocks = Counter(
        block["type"]
        for content in [*(move.content for move in says), *(getattr(each, "content", "") for each in answers)]
        if isinstance(content, list)
        for block in content
    )
    assert blocks.keys() == {"text", "image", "document", "search_result", "tool_use", "tool_result", "thinking",
                             "redacted_thinking", "server_tool_use", "web_search_tool_result"}  # fmt: skip
    assert any(move.broken is not None for move in says)
    assert any(move.streamed for move in says)
    assert any(move.system for move in moves if isinstance(move, Retry))
    assert any(
        sum(block["type"] == "tool_use" for block in each.content) > 1 for each in answers if hasattr(each, "content")
    )


def test_a_plan_is_the_same_each_time():
    assert make_plan(7) == make_plan(7) != make_plan(8)
