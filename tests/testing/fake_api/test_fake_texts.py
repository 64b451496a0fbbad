"""The words of the API that are on record, each with a rule of the fake that says them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from chathistory.testing.fake_api import RULES

TEXTS = (Path(__file__).parent / "texts_of_the_api.txt").read_text(encoding="utf-8").splitlines()
"""As documentation and issues quote them, with examples of paths and ids. Two on record have no rule, and the page on
the fake says so: "prompt is too long", for it has no context window, and the order of thinking and calls of models
with manual thinking.
"""


def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\\{\w+\\}", ".*", re.escape(text).replace("\\!r", "")), re.DOTALL)


@pytest.mark.parametrize("text", TEXTS)
def test_some_rule_says_it_in_these_words(text):
    assert any(_pattern(rule.text).fullmatch(text) for rule in RULES if rule.text != "{path}: {wanted}")


@pytest.mark.parametrize("text", ["messages: at least two messages are required", "prompt is too long: 9 tokens > 8"])
def test_other_words_are_found_out(text):
    assert not any(_pattern(rule.text).fullmatch(text) for rule in RULES if rule.text != "{path}: {wanted}")
