"""Conversations of all kinds, held with and without the engine: what is sent is always taken, and always extends."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
from made_conversations import Name, Retry, Rewind, Say, conversation, hold, hold_alone

from chathistory import open_store

pytestmark = pytest.mark.repeated

PART = 50


def _held_on(holding, seeds):
    with open_store("memory:") as store:
        for seed in seeds:
            holding(conversation(seed), store).check()


@pytest.mark.parametrize("part", range(12))
def test_on_the_engine_each_request_is_taken_extends_the_one_before_and_the_log_holds_all(part):
    _held_on(hold, range(part * PART, (part + 1) * PART))


@pytest.mark.parametrize("part", range(4))
def test_a_caller_who_drives_the_api_has_the_same_promise(part):
    _held_on(hold_alone, range(part * PART, (part + 1) * PART))


@pytest.mark.stress
@pytest.mark.timeout(900)
def test_five_thousand_conversations():
    _held_on(hold, range(10_000, 15_000))
    _held_on(hold_alone, range(10_000, 12_000))


def test_the_made_conversations_have_all_that_the_api_has():
    """A generator that lost a kind of thing would let every test pass."""
    made = [conversation(seed) for seed in range(300)]
    moves = [move for each in made for move in each.moves]
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


def test_a_conversation_is_the_same_each_time():
    assert conversation(7) == conversation(7) != conversation(8)
