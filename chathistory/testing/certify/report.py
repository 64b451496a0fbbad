"""The certificate: what became of each guarantee, as text that people read and as data."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from chathistory.storage.values import Traits
from chathistory.testing.guarantees import GUARANTEES, LISTING, Guarantee

__all__ = ["Certificate", "GuaranteeResult", "NotRun", "Outcome"]

_TRAITS = "traits: "
_ASIDE = (
    (6, "a page of the listing among very many conversations"),
    (8, "what other programs keep on the same server or in the same folder"),
    (11, "that a password of the URL shows in no error, repr or log line"),
)
"""What no test of the kit looks at: the author's own tests have to."""
_PLAIN_SCOPES = (8, "scopes by their plain names (.., /, con): they stand behind a fresh beginning (--exclusive)")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one test. said: what was seen, or why it was left out."""

    test: str
    number: int
    state: Literal["passed", "failed", "left out"]
    message: str

    @property
    def title(self) -> str:
        """The name of the test as words, with the case that it was run with."""
        _, bracket, case = self.test.partition("[")
        return self.title_without_case + (f" ({case.removesuffix(']')})" if bracket else "")

    @property
    def title_without_case(self) -> str:
        """The name of the test as words, without the case."""
        return self.test.partition("[")[0].removeprefix("test_").removeprefix("zz_").replace("_", " ")


@dataclass(frozen=True, slots=True)
class NotRun:
    """Tests that were not run, and why. No tests: something that no test of the kit looks at."""

    reason: str
    tests: tuple[Outcome, ...] = ()


@dataclass(frozen=True, slots=True)
class GuaranteeResult:
    """What became of a guarantee.

    not_applicable: what the traits leave out; not_tested: what nothing was given for, or no kit can test.
    """

    guarantee: Guarantee
    passed: int
    failed: tuple[Outcome, ...]
    not_applicable: tuple[NotRun, ...]
    not_tested: tuple[NotRun, ...]

    @property
    def state(self) -> str:
        """Return "FAILED", "kept", "kept in part" (something was not tested) or "not tested"."""
        if self.failed:
            return "FAILED"
        if not self.passed:
            return "not tested" if self.not_tested else "does not apply"
        return "kept in part" if self.not_tested else "kept"

    @property
    def did_not_run(self) -> int:
        """How many tests did not run that could have been run."""
        return sum(len(left.tests) for left in self.not_tested)


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """All that was found. store: the URL without its secrets. left: scopes that could not be emptied again."""

    store: str
    backend: str
    traits: Traits
    outcomes: tuple[Outcome, ...]
    exclusive: bool
    only: frozenset[int]
    leftover_scopes: tuple[str, ...]
    seconds: float

    @property
    def results(self) -> tuple[GuaranteeResult, ...]:
        """What became of each guarantee that was asked for, in their order."""
        asked = [guarantee for number, guarantee in GUARANTEES.items() if not self.only or number in self.only]
        return tuple(map(self._make_result, asked))

    @property
    def all_passed(self) -> bool:
        """Whether nothing failed, something was tested, and nothing was left behind."""
        states = [finding.state for finding in self.results]
        return "FAILED" not in states and any(finding.passed for finding in self.results) and not self.leftover_scopes

    @property
    def is_complete(self) -> bool:
        """Whether all was tested that could have been: nothing that a hook, a URL or an option would have allowed."""
        return self.did_not_run == 0

    @property
    def did_not_run(self) -> int:
        """How many tests did not run that could have been run."""
        return sum(finding.did_not_run for finding in self.results)

    @property
    def is_certified(self) -> bool:
        """Whether every guarantee was looked at and nothing failed; `complete` tells whether all of it was tested."""
        return self.all_passed and not self.only

    def _make_result(self, guarantee: Guarantee) -> GuaranteeResult:
        ours = [outcome for outcome in self.outcomes if outcome.number == guarantee.number]
        left_out: dict[str, list[Outcome]] = {}
        for outcome in ours:
            if outcome.state == "left out":
                left_out.setdefault(outcome.message, []).append(outcome)
        reasons = [NotRun(reason, tuple(tests)) for reason, tests in left_out.items()]
        aside = (*_ASIDE, *(() if self.exclusive else (_PLAIN_SCOPES,)))
        return GuaranteeResult(
            guarantee,
            sum(outcome.state == "passed" for outcome in ours),
            tuple(outcome for outcome in ours if outcome.state == "failed"),
            tuple(NotRun(left.reason.removeprefix(_TRAITS), left.tests) for left in reasons if _is_by_traits(left)),
            (
                *(left for left in reasons if not _is_by_traits(left)),
                *(NotRun(what) for number, what in aside if number == guarantee.number),
            ),
        )

    def lines(self) -> Iterator[str]:
        """Yield the report, line by line."""
        yield f"{self.store}: {self.backend} ({_format_traits(self.traits)})"
        yield ""
        for finding in self.results:
            yield from _result_lines(finding)
        yield ""
        for scope in self.leftover_scopes:
            yield f"left behind, for the store did not remove it: scope {scope}"
        yield self._verdict_line()

    def _verdict_line(self) -> str:
        failed = [finding.guarantee.name for finding in self.results if finding.failed]
        if failed:
            return f"NOT certified: {', '.join(failed)}"
        if not self.all_passed:
            return "NOT certified: " + (
                "it does not remove what it should" if self.leftover_scopes else "nothing was tested"
            )
        if self.only:
            kept = ", ".join(finding.guarantee.name for finding in self.results if finding.passed)
            return f"kept: {kept}; this is no certificate, for the other guarantees were not tested"
        if not self.is_complete:
            return f"certified in part: {_count_tests(self.did_not_run)} did not run, see above"
        return "certified"

    def to_dict(self) -> dict[str, Any]:
        """Return the report for programs."""
        return {
            "store": self.store,
            "backend": self.backend,
            "traits": {name: getattr(self.traits, name) for name in Traits.__slots__},
            "certified": self.is_certified,
            "passed": self.all_passed,
            "complete": self.is_complete,
            "only": sorted(self.only),
            "did_not_run": self.did_not_run,
            "seconds": round(self.seconds, 1),
            "left_behind": list(self.leftover_scopes),
            "guarantees": [_result_data(finding) for finding in self.results],
        }


def _format_traits(traits: Traits) -> str:
    words = ["durable" if traits.durable else "not durable", "shared" if traits.shared else "not shared"]
    return ", ".join([*words, f"recency {traits.recency}"])


def _is_by_traits(left: NotRun) -> bool:
    return left.reason.startswith(_TRAITS)


def _count_tests(tests: int) -> str:
    return f"{tests} test" if tests == 1 else f"{tests} tests"


def _result_lines(finding: GuaranteeResult) -> Iterator[str]:
    number = finding.guarantee.number
    label = f"{number:>2}" if number < LISTING else "  "
    tests = [_count_tests(finding.passed)] if finding.passed else []
    tests += [f"{finding.did_not_run} did not run"] if finding.did_not_run else []
    yield f"{label}  {finding.guarantee.name:<22} {finding.state:<14} {', '.join(tests)}".rstrip()
    for outcome in finding.failed:
        yield f"      FAILED: {outcome.title}"
        yield from textwrap.wrap(
            f"seen:     {outcome.message}", 110, initial_indent=" " * 8, subsequent_indent=" " * 18
        )
    if finding.failed:
        yield from textwrap.wrap(
            f"expected: {finding.guarantee.expected}", 110, initial_indent=" " * 8, subsequent_indent=" " * 18
        )
    for left in finding.not_tested:
        yield from _not_run_lines("not tested", left)
    for left in finding.not_applicable:
        yield from _not_run_lines("does not apply", left)


def _not_run_lines(what: str, left: NotRun) -> Iterator[str]:
    """Yield the reason, and the names of the tests; how many cases, where a test has more than one."""
    yield f"      {what}: {left.reason}" + (f" [{_count_tests(len(left.tests))}]" if left.tests else "")
    for words, cases in Counter(outcome.title_without_case for outcome in left.tests).items():
        yield f"        {words}" + (f" ({cases} cases)" if cases > 1 else "")


def _result_data(finding: GuaranteeResult) -> dict[str, Any]:
    return {
        "number": finding.guarantee.number if finding.guarantee.number < LISTING else None,
        "name": finding.guarantee.name,
        "expected": finding.guarantee.expected,
        "state": finding.state.lower(),
        "passed": finding.passed,
        "did_not_run": finding.did_not_run,
        "failed": [{"test": outcome.test, "seen": outcome.message} for outcome in finding.failed],
        "not_tested": [_not_run_data("what", left) for left in finding.not_tested],
        "does_not_apply": [_not_run_data("why", left) for left in finding.not_applicable],
    }


def _not_run_data(word: str, left: NotRun) -> dict[str, Any]:
    return {word: left.reason, "tests": len(left.tests), "names": [outcome.test for outcome in left.tests]}
