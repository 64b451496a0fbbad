"""The certificate: the result for each guarantee, as text and as JSON data."""

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
_NEVER_TESTED = (
    (6, "a page of the listing among very many conversations"),
    (8, "what other programs keep on the same server or in the same folder"),
    (11, "that a password of the URL shows in no error, repr or log line"),
)
"""What the suite does not test, by guarantee; the author's own tests must."""
_OWN_SCOPE_NAMES = (8, "scopes by their own names (.., /, con): they have a fresh prefix unless --exclusive is given")


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of one test.

    Attributes:
        test: Its name, with the parameters in brackets.
        number: Its guarantee.
        state: Whether it passed, failed or did not run.
        message: What was wrong, or why it did not run; empty if it passed.
    """

    test: str
    number: int
    state: Literal["passed", "failed", "not run"]
    message: str

    @property
    def title(self) -> str:
        """The name of the test as words, with its parameters."""
        _, bracket, case = self.test.partition("[")
        return self.title_without_case + (f" ({case.removesuffix(']')})" if bracket else "")

    @property
    def title_without_case(self) -> str:
        """The name of the test as words, without parameters."""
        return self.test.partition("[")[0].removeprefix("test_").removeprefix("zz_").replace("_", " ")


@dataclass(frozen=True, slots=True)
class NotRun:
    """Tests that did not run, and the reason. Without tests: something that the suite cannot test."""

    reason: str
    tests: tuple[Outcome, ...] = ()


@dataclass(frozen=True, slots=True)
class GuaranteeResult:
    """The result for one guarantee.

    Attributes:
        guarantee: The guarantee.
        passed: Number of tests that passed.
        failed: Tests that failed.
        not_applicable: Tests that the traits switch off.
        not_tested: Tests without the hook or option that they need, and what the suite cannot test.
    """

    guarantee: Guarantee
    passed: int
    failed: tuple[Outcome, ...]
    not_applicable: tuple[NotRun, ...]
    not_tested: tuple[NotRun, ...]

    @property
    def state(self) -> str:
        """One of "FAILED", "kept", "kept in part" (something was not tested), "not tested" and "does not apply"."""
        if self.failed:
            return "FAILED"
        if not self.passed:
            return "not tested" if self.not_tested else "does not apply"
        return "kept in part" if self.not_tested else "kept"

    @property
    def did_not_run(self) -> int:
        """How many tests did not run that could have been run."""
        return sum(len(skipped.tests) for skipped in self.not_tested)


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """The result of certifying a store.

    Attributes:
        store: The URL, without secrets.
        backend: The class and distribution of the backend.
        traits: The traits of the store.
        outcomes: The outcome of every test.
        exclusive: Whether scopes were used by their own names.
        only: Guarantees that were chosen; all if empty.
        leftover_scopes: Scopes that could not be emptied.
        seconds: How long it took.
    """

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
        """The result for each chosen guarantee, in order."""
        chosen = [guarantee for number, guarantee in GUARANTEES.items() if not self.only or number in self.only]
        return tuple(map(self._make_result, chosen))

    @property
    def all_passed(self) -> bool:
        """Whether nothing failed, something was tested, and no scope is left over."""
        states = [finding.state for finding in self.results]
        return "FAILED" not in states and any(finding.passed for finding in self.results) and not self.leftover_scopes

    @property
    def is_complete(self) -> bool:
        """Whether no test lacked a hook, a URL or an option."""
        return self.did_not_run == 0

    @property
    def did_not_run(self) -> int:
        """How many tests did not run that could have been run."""
        return sum(finding.did_not_run for finding in self.results)

    @property
    def is_certified(self) -> bool:
        """Whether all guarantees were chosen and nothing failed; see `is_complete` for tests that did not run."""
        return self.all_passed and not self.only

    def _make_result(self, guarantee: Guarantee) -> GuaranteeResult:
        ours = [outcome for outcome in self.outcomes if outcome.number == guarantee.number]
        not_run: dict[str, list[Outcome]] = {}
        for outcome in ours:
            if outcome.state == "not run":
                not_run.setdefault(outcome.message, []).append(outcome)
        reasons = [NotRun(reason, tuple(tests)) for reason, tests in not_run.items()]
        never_tested = (*_NEVER_TESTED, *(() if self.exclusive else (_OWN_SCOPE_NAMES,)))
        return GuaranteeResult(
            guarantee,
            sum(outcome.state == "passed" for outcome in ours),
            tuple(outcome for outcome in ours if outcome.state == "failed"),
            tuple(
                NotRun(skipped.reason.removeprefix(_TRAITS), skipped.tests)
                for skipped in reasons
                if _is_by_traits(skipped)
            ),
            (
                *(skipped for skipped in reasons if not _is_by_traits(skipped)),
                *(NotRun(what) for number, what in never_tested if number == guarantee.number),
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
            yield f"not removed by the store: scope {scope}"
        yield self._verdict_line()

    def _verdict_line(self) -> str:
        failed = [finding.guarantee.name for finding in self.results if finding.failed]
        if failed:
            return f"NOT certified: {', '.join(failed)}"
        if not self.all_passed:
            return "NOT certified: " + (
                "the store did not remove all that was deleted" if self.leftover_scopes else "nothing was tested"
            )
        if self.only:
            kept = ", ".join(finding.guarantee.name for finding in self.results if finding.passed)
            return f"kept: {kept}; this is not a certificate, since the other guarantees were not tested"
        if not self.is_complete:
            return f"certified in part: {_count_tests(self.did_not_run)} did not run, see above"
        return "certified"

    def to_dict(self) -> dict[str, Any]:
        """Return the report as a dict for JSON."""
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


def _is_by_traits(skipped: NotRun) -> bool:
    return skipped.reason.startswith(_TRAITS)


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
    for skipped in finding.not_tested:
        yield from _not_run_lines("not tested", skipped)
    for skipped in finding.not_applicable:
        yield from _not_run_lines("does not apply", skipped)


def _not_run_lines(what: str, skipped: NotRun) -> Iterator[str]:
    """Yield the reason and the names of the tests, with the number of cases if a test has several."""
    yield f"      {what}: {skipped.reason}" + (f" [{_count_tests(len(skipped.tests))}]" if skipped.tests else "")
    for words, cases in Counter(outcome.title_without_case for outcome in skipped.tests).items():
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
        "not_tested": [_not_run_data("what", skipped) for skipped in finding.not_tested],
        "does_not_apply": [_not_run_data("why", skipped) for skipped in finding.not_applicable],
    }


def _not_run_data(word: str, skipped: NotRun) -> dict[str, Any]:
    return {word: skipped.reason, "tests": len(skipped.tests), "names": [outcome.test for outcome in skipped.tests]}
