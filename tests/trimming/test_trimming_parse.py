"""Policies and context editing from named values, and the grammar of durations."""

from __future__ import annotations

from datetime import timedelta

import pytest

from chathistory.durations import parse_duration
from chathistory.errors import ConfigError
from chathistory.trimming import AnyOf, Compaction, ContextEditing, LastTurns, MaxAge, TokenBudget
from chathistory.trimming.parse import EDITING_OPTIONS, TRIMMING_OPTIONS, build_editing, build_policy


def parse_policy(**given):
    return build_policy({key: TRIMMING_OPTIONS[key].parse(value) for key, value in given.items()})


def parse_editing(**given):
    return build_editing({key: EDITING_OPTIONS[key].parse(value) for key, value in given.items()})


@pytest.mark.parametrize(
    ("given", "policy"),
    [
        ({}, None),
        ({"enabled": "false", "trigger_turns": 4, "keep_turns": 2}, None),
        ({"compaction": False}, None),
        ({"trigger_tokens": "100_000", "keep_tokens": 50000}, TokenBudget(100_000, 50_000)),
        ({"trigger_turns": 40, "keep_turns": "20"}, LastTurns(40, 20)),
        ({"trigger_age": "7d", "keep_age": "12h"}, MaxAge(604_800, 43_200)),
        ({"trigger_age": "2w", "keep_age": "90"}, MaxAge(1_209_600, 90)),
        ({"trigger_age": "1.5m", "keep_age": 30}, MaxAge(90, 30)),
        (
            {"trigger_tokens": 9, "keep_tokens": 5, "trigger_turns": 4, "keep_turns": 2},
            AnyOf(TokenBudget(9, 5), LastTurns(4, 2)),
        ),
        ({"compaction": "yes", "trigger_tokens": 9, "keep_tokens": 5}, Compaction(TokenBudget(9, 5))),
    ],
)
def test_a_policy_from_named_values(given, policy):
    assert parse_policy(**given) == policy


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"trigger_tokens": 9}, "trigger_tokens and keep_tokens must be set together; keep_tokens is missing"),
        ({"keep_turns": 9}, "trigger_turns and keep_turns must be set together; trigger_turns is missing"),
        ({"trigger_tokens": 9, "keep_tokens": "secret"}, "must be an integer above 0"),
        ({"trigger_tokens": 0, "keep_tokens": 0}, "must be an integer above 0"),
        ({"trigger_tokens": True, "keep_tokens": 5}, "must be an integer above 0"),
        ({"trigger_tokens": 1.5, "keep_tokens": 1}, "must be an integer above 0"),
        ({"trigger_tokens": 5, "keep_tokens": 9}, "keep_tokens must not be more than trigger_tokens"),
        ({"trigger_age": "7x", "keep_age": "1d"}, "must be a duration, such as 90s"),
        ({"compaction": True}, "compaction needs a threshold: set trigger_tokens"),
        ({"compaction": "secret"}, "must be true or false"),
    ],
)
def test_the_error_of_a_wrong_value_does_not_quote_it(given, words):
    with pytest.raises(ConfigError) as caught:
        parse_policy(**given)
    assert words in str(caught.value)
    assert "secret" not in str(caught.value)


def test_context_editing_from_named_values():
    assert parse_editing() is parse_editing(compact=False) is None
    assert parse_editing(clear_thinking=True, compact="200000") == ContextEditing(clear_thinking=True, compact=200_000)
    assert parse_editing(clear_tool_uses="true", compact=True) == ContextEditing(clear_tool_uses=True, compact=True)
    keep = {"keep": {"type": "tool_uses", "value": 3}}
    assert parse_editing(clear_tool_uses=keep) == ContextEditing(clear_tool_uses=keep)
    wrong = ({"clear_thinking": 5}, {"compact": "secret"}, {"compact": {"pause_after_compaction": "secret"}})
    for given in wrong:
        with pytest.raises(ConfigError) as caught:
            parse_editing(**given)
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("90s", 90), ("30m", 1800), ("12h", 43_200), ("7d", 604_800), ("2w", 1_209_600), ("1.5h", 5400), ("0", 0), (5, 5)],
    ids=str,
)
def test_a_duration_as_text(value, seconds):
    assert parse_duration(value) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "value",
    ["", "secret", "7x", "-1s", "1e5", "٣d", "9" * 400 + "w", "1d\n", -1, float("nan"), float("inf"), True],
    ids=repr,
)
def test_a_value_that_is_not_a_duration_is_refused(value):
    with pytest.raises(ConfigError, match="must be a duration, such as 90s") as caught:
        parse_duration(value)
    assert "secret" not in str(caught.value)


def test_numbers_and_durations_are_durations_too():
    assert parse_duration(0.25) == timedelta(seconds=0.25)
    assert parse_duration(timedelta(hours=1)) == parse_duration("1 h") == timedelta(hours=1)
    for value in (10**400, None, timedelta(-1)):
        with pytest.raises(ConfigError, match="must be a duration"):
            parse_duration(value)
