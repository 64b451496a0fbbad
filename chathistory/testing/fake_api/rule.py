"""A rule: one thing that the API refuses, as a row of the table in `rules`.

Its check (see the `check_` modules) finds the faults; its text is the API's, filled with the values of the check.
`source` says where our knowledge comes from, and how good it is:

    docs     platform.claude.com, by page
    sdk      types, texts or changelog of the Anthropic SDK 2.12.0
    issue    an answer of the API quoted in an issue of an open project
    probe    an answer of the API that somebody recorded and published
    memory   remembered, without a source
    guess    the text (or the rule, if it says so) is ours
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
    """One thing that the API refuses.

    Attributes:
        name: A short name, recorded in `Recorded.rule`.
        check: Finds the faults of a request; yields the values for `text`.
        text: The error message, as a format string.
        source: Where the rule and its text are known from.
        status: HTTP status of the error.
        type: `error.type`.
        code: `error.details.error_code`, for errors that have one.
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
    """A rule that a request breaks, with the error message. `details` are further fields of `error.details`."""

    rule: Rule
    text: str
    details: Mapping[str, Any] = field(default_factory=dict)
