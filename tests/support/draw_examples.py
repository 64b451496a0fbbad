"""Tests with examples that Hypothesis draws: a few with every run of the tests, many in the wide tier."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis.strategies import SearchStrategy

__all__ = ["draw_examples"]


def draw_examples(few: int, many: int, *strategies: SearchStrategy) -> Callable[[Callable], Callable]:
    """Return a decorator that runs a test with a few examples, and again with many of them, marked `wide`."""

    def decorate(check):
        @pytest.mark.parametrize("examples", [few, pytest.param(many, marks=pytest.mark.wide)])
        def run_test(examples):
            settings(max_examples=examples, deadline=None)(given(*strategies)(check))()

        run_test.__name__, run_test.__doc__ = check.__name__, check.__doc__
        return run_test

    return decorate
