"""How many tokens messages take: exact or estimated."""

from __future__ import annotations

import pytest

from chathistory.log.message_sizes import count_context_tokens, estimate_tokens

PICTURE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "x" * 10**6}}
LINKED = {"type": "image", "source": {"type": "url", "url": "https://example.org/" + "x" * 10**4}}
PAPER = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "x" * 400_000}}
THOUGHT = {"type": "thinking", "thinking": "", "signature": "x" * 10**5}


@pytest.mark.parametrize(
    ("content", "low", "high"),
    [
        ("x" * 350, 100, 110),
        ([], 4, 4),
        ("\u4e2d" * 100, 80, 100),  # three bytes each, about a token
        ("\ud800" * 7, 8, 14),
        ([PICTURE], 1600, 1610),
        ([LINKED], 1600, 1610),
        ([PAPER], 10_000, 10_020),
        ([{"type": "document", "source": {"type": "base64", "data": None}}], 1600, 1620),
        ([THOUGHT], 4, 20),
        ([{"type": "tool_use", "id": "t", "name": "f", "input": {"a": [1, None, True, "x" * 70]}}], 20, 50),
        ([{"type": "tool_result", "tool_use_id": "t", "content": [PICTURE, PICTURE]}], 3200, 3220),
    ],
)
def test_an_estimate_counts_what_claude_reads(content, low, high):
    assert low <= estimate_tokens({"role": "user", "content": content}) <= high


@pytest.mark.parametrize(
    ("usage", "context"),
    [
        (None, None),
        ({}, None),
        ({"output_tokens": 5}, None),
        ({"input_tokens": None, "output_tokens": 5}, None),
        ({"input_tokens": 1, "output_tokens": 2}, 3),
        ({"input_tokens": 1, "output_tokens": 2, "cache_read_input_tokens": 4, "cache_creation_input_tokens": 8}, 15),
        ({"input_tokens": 1, "cache_read_input_tokens": None, "cache_creation": {"ephemeral_5m_input_tokens": 9}}, 1),
    ],
)
def test_the_usage_of_a_reply_gives_the_context_tokens(usage, context):
    assert count_context_tokens(usage) == context
