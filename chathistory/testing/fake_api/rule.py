"""A rule: one thing that the API refuses, as a row of the table in `rules`.

Its check (see the `check_` modules) finds the places, its text is the API's, filled with what the check found. `source`
says where our knowledge comes from, and how good it is:

    docs     platform.claude.com, by page
    sdk      types, texts or changelog of the Anthropic SDK 2.12.0
    issue    an answer of the API quoted in an issue of an open project
    probe    an answer of the API that somebody recorded and published
    memory   it is remembered, no source was found
    guess    the words (or the rule, where it says so) are ours
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from chathistory.testing.fake_api.request import ApiRequest

__all__ = ["Refusal", "Rule"]

Check: TypeAlias = Callable[[ApiRequest], Iterable[dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class Rule:
    """One thing that the API refuses: its name, what finds it, the error's text, where that is known from.

    code: `error.details.error_code`, for the errors that have one.
    """

    name: str
    check: Check
    text: str
    source: str
    status: int = 400
    type: str = "invalid_request_error"
    code: str | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """A rule that a request breaks, and the error's text for it. details: more of `error.details` than its code."""

    rule: Rule
    text: str
    details: Mapping[str, Any] = field(default_factory=dict)
