"""Policies as text."""

from __future__ import annotations

import pytest

from chathistory.errors import ConfigError
from chathistory.trimming import AnyOf, Compaction, ContextEditing, KeepAll, LastTurns, MaxAge, TokenBudget
from chathistory.trimming.parse import editing_of, policy_of


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("none", KeepAll()),
        ("tokens=100_000:50000", TokenBudget(100_000, 50_000)),
        ("turns=40:20", LastTurns(40, 20)),
        ("age=7d:12h", MaxAge(604_800, 43_200)),
        ("age=2w:90", MaxAge(1_209_600, 90)),
        ("age=1.5m:30s", MaxAge(90, 30)),
        ("tokens=9:5, turns=4:2", AnyOf(TokenBudget(9, 5), LastTurns(4, 2))),
        ("compaction tokens=9:5", Compaction(TokenBudget(9, 5))),
    ],
)
def test_a_policy_is_a_line(text, policy):
    assert policy_of(text) == policy


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "a policy is due, such as tokens="),
        (5, "a policy is due"),
        ("token=9:5", "no such policy; did you mean 'tokens'?"),
        ("secret", "no such policy"),
        ("tokens=9", "tokens: HIGH:LOW is due"),
        ("tokens=9:secret", "a whole number is due"),
        ("tokens=5:9", "low <= high is due"),
        ("age=7x:1d", "a duration is due"),
        ("compaction", "needs a policy"),
    ],
)
def test_what_is_no_policy_is_told_without_quoting_it(text, words):
    with pytest.raises(ConfigError) as caught:
        policy_of(text)
    assert words in str(caught.value)
    assert "secret" not in str(caught.value)


def test_what_the_api_is_to_do_is_a_line_too():
    assert editing_of("clear_thinking,compact=200000") == ContextEditing(clear_thinking=True, compact=200_000)
    assert editing_of("clear_tool_uses compact") == ContextEditing(clear_tool_uses=True, compact=True)
    for text in ("", 5, "clear", "clear_thinking=5", "compact=secret"):
        with pytest.raises(ConfigError) as caught:
            editing_of(text)
        assert "secret" not in str(caught.value)
