"""Cuts where it is hard: each request is held against the rules of the API, and the log keeps every message."""

from __future__ import annotations

import pytest
from trimming_rig import TOOL, Talk

from chathistory.trimming import ContextEditing

AT_THRESHOLD = ContextEditing(compact=1000)


# Summaries of the API's own, and what it takes them back with.


def test_a_conversation_that_was_summed_up_at_a_threshold_goes_on_without_that_setting():
    talk = Talk(context_editing=AT_THRESHOLD)
    talk.say_many(8, size=200)
    assert talk.sent[0]["content"][0]["type"] == "compaction"
    plain = talk.engine_with()
    plain.send("a", "and now?")
    assert talk.api.requests[-1].body["context_management"] == {"edits": [{"type": "compact_20260112"}]}
    assert plain.count_tokens("a", "and then?") > 0
    assert talk.refused == []
    talk.api.assert_extends()


def test_behind_a_signed_summary_the_api_is_not_asked_for_another_one():
    editing = ContextEditing(compact=1000, clear_tool_uses=True)
    talk = Talk(context_editing=editing)
    talk.say_many(2)
    assert talk.engine.compact("a")
    talk.say("go on")
    edits = talk.api.requests[-1].body["context_management"]["edits"]
    assert [edit["type"] for edit in edits] == ["clear_tool_uses_20250919"]
    assert talk.engine.count_tokens("a", "and then?") > 0
    assert talk.refused == []


def test_a_summary_is_asked_for_without_what_only_shapes_replies():
    options = {
        "stop_sequences": ["X"],
        "tool_choice": {"type": "any"},
        "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": {}}},
        "context_management": {"edits": []},
        "betas": ["context-management-2025-06-27"],
    }
    talk = Talk(tools=[TOOL], options=options)
    talk.say_many(2)
    assert talk.engine.compact("a").turns == 2
    asked = talk.api.requests[-1].body
    assert "stop_sequences" not in asked
    assert "tool_choice" not in asked
    assert asked["output_config"] == {"effort": "low"}
    talk.say("go on")
    assert talk.api.requests[-1].body["tool_choice"] == {"type": "any"}
    assert talk.refused == []


@pytest.mark.parametrize("editing", [ContextEditing(), ContextEditing(clear_tool_uses=True)])
def test_edits_that_are_none_are_not_asked_for(editing):
    talk = Talk(context_editing=editing)
    talk.say("hello")
    assert ("context_management" in talk.api.requests[-1].body) == bool(editing.edits)


def test_tokens_are_counted_with_thinking_that_is_to_be_dropped():
    talk = Talk()
    talk.chat.drop_block = True
    talk.say_many(4)
    talk.chat.rewind(to=3)
    assert talk.engine.count_tokens("a", "next") > talk.engine.count_tokens("a", "n")
    assert talk.refused == []
