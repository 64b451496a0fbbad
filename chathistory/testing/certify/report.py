"""The certificate: the result for each guarantee, as text and as JSON data."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from chathistory.storage.values import Traits
from chathistory.testing.guarantees import GUARANTEES, LISTING, Guarantee

__all__ = ["Certificate", "GuaranteeResult", "Outcome", "State"]

State: TypeAlias = Literal["passed", "failed", "not tested", "does not apply", "left out"]
"""What became of a test. "not tested": a hook or an option is missing; "does not apply": because of the traits;
"left out": pytest did not run it."""

_NEVER_TESTED = (
    (6, "a page of the listing among very many conversations"),
    (8, "what other programs keep on the same server or in the same folder"),
    (11, "that a password of the URL shows in no error, repr or log line"),
)
"""What the suite does not test, by guarantee; the author's own tests must."""
_OWN_SCOPE_NAMES = (8, "scopes by their own names (.., /, con): they have a fresh prefix unless the store is exclusive")
_LEFT_OUT = "pytest left it out (-k, --lf, ...) or stopped before it"


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of one test.

    Attributes:
        test: Its name, with the parameters in brackets.
        number: Its guarantee.
        state: What became of it.
        message: What was wrong, or why it did not run; empty if it passed.
    """

    test: str
    number: int
    state: State
    message: str = ""

    @property
    def title(self) -> str:
        """The name of the test as words, with its parameters."""
        _, bracket, case = self.test.partition("[")
        return self.title_without_case + (f" ({case.removesuffix(']')})" if bracket else "")

    @property
    def title_without_case(self) -> str:
        """The name of the test as words, without parameters."""
        return self.test.partition("[")[0].removeprefix("test_").replace("_", " ")


@dataclass(frozen=True, slots=True)
class GuaranteeResult:
    """The result for one guarantee.

    Attributes:
        guarantee: The guarantee.
        outcomes: The outcomes of its tests.
        never_tested: What the suite cannot test of it.
    """

    guarantee: Guarantee
    outcomes: tuple[Outcome, ...]
    never_tested: tuple[str, ...]

    def having(self, *states: str) -> list[Outcome]:
        """Return the outcomes with one of these states."""
        return [outcome for outcome in self.outcomes if outcome.state in states]

    @property
    def passed(self) -> int:
        """How many tests passed."""
        return len(self.having("passed"))

    @property
    def did_not_run(self) -> int:
        """How many tests did not run that could have been run."""
        return len(self.having("not tested", "left out"))

    @property
    def state(self) -> str:
        """One of "FAILED", "kept", "kept in part" (something was not tested), "not tested" and "does not apply"."""
        if self.having("failed"):
            return "FAILED"
        in_part = self.did_not_run or self.never_tested
        if not self.passed:
            return "not tested" if in_part else "does not apply"
        return "kept in part" if in_part else "kept"

    def lines(self) -> Iterator[str]:
        """Yield the part of the report on this guarantee, line by line."""
        number = self.guarantee.number
        tests = [_count_tests(self.passed)] if self.passed else []
        tests += [f"{self.did_not_run} did not run"] if self.did_not_run else []
        label = f"{number:>2}" if number < LISTING else "  "
        yield f"{label}  {self.guarantee.name:<22} {self.state:<14} {', '.join(tests)}".rstrip()
        failed = self.having("failed")
        for outcome in failed:
            yield f"      FAILED: {outcome.title}"
            yield from _wrap(f"seen:     {outcome.message}")
        if failed:
            yield from _wrap(f"expected: {self.guarantee.expected}")
        if left_out := self.having("left out"):
            yield f"      not tested: {_LEFT_OUT} [{_count_tests(len(left_out))}]"
        yield from self._lines_by_reason("not tested")
        yield from (f"      not tested: {what}" for what in self.never_tested)
        yield from self._lines_by_reason("does not apply")

    def _lines_by_reason(self, state: str) -> Iterator[str]:
        """Yield each reason and the names of its tests, with the number of cases if a test has several."""
        for reason, outcomes in self._group_by_reason(state).items():
            yield f"      {state}: {reason} [{_count_tests(len(outcomes))}]"
            for words, cases in Counter(outcome.title_without_case for outcome in outcomes).items():
                yield f"        {words}" + (f" ({cases} cases)" if cases > 1 else "")

    def _group_by_reason(self, state: str) -> dict[str, list[Outcome]]:
        reasons: dict[str, list[Outcome]] = {}
        for outcome in self.having(state):
            reasons.setdefault(outcome.message, []).append(outcome)
        return reasons

    def to_dict(self) -> dict[str, Any]:
        """Return the part of the report on this guarantee as a dict for JSON."""
        not_tested = self._group_by_reason("not tested") | dict.fromkeys(self.never_tested, ())
        if left_out := self.having("left out"):
            not_tested[_LEFT_OUT] = left_out
        return {
            "number": self.guarantee.number if self.guarantee.number < LISTING else None,
            "name": self.guarantee.name,
            "expected": self.guarantee.expected,
            "state": self.state.lower(),
            "passed": self.passed,
            "did_not_run": self.did_not_run,
            "failed": [{"test": outcome.test, "seen": outcome.message} for outcome in self.having("failed")],
            "not_tested": [_name_tests("what", what, outcomes) for what, outcomes in not_tested.items()],
            "does_not_apply": [
                _name_tests("why", why, outcomes) for why, outcomes in self._group_by_reason("does not apply").items()
            ],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """The result of certifying a store.

    Attributes:
        store: The URL, without secrets.
        backend: The class and distribution of the backend.
        traits: The traits of the store.
        outcomes: The outcome of every test of the chosen guarantees.
        exclusive: Whether scopes were used by their own names.
        only: Guarantees that were chosen; all if empty.
        leftover_scopes: Scopes that could not be emptied.
    """

    store: str
    backend: str
    traits: Traits
    outcomes: tuple[Outcome, ...]
    exclusive: bool
    only: frozenset[int]
    leftover_scopes: tuple[str, ...]

    @property
    def results(self) -> tuple[GuaranteeResult, ...]:
        """The result for each chosen guarantee, in order."""
        never_tested = (*_NEVER_TESTED, *(() if self.exclusive else (_OWN_SCOPE_NAMES,)))
        return tuple(
            GuaranteeResult(
                guarantee,
                tuple(outcome for outcome in self.outcomes if outcome.number == number),
                tuple(what for of, what in never_tested if of == number),
            )
            for number, guarantee in GUARANTEES.items()
            if not self.only or number in self.only
        )

    @property
    def all_passed(self) -> bool:
        """Whether nothing failed, something was tested, and no scope is left over."""
        states = {outcome.state for outcome in self.outcomes}
        return "failed" not in states and "passed" in states and not self.leftover_scopes

    @property
    def did_not_run(self) -> int:
        """How many tests did not run that could have been run."""
        return sum(result.did_not_run for result in self.results)

    @property
    def is_complete(self) -> bool:
        """Whether every test ran that the traits do not switch off."""
        return self.did_not_run == 0

    @property
    def is_certified(self) -> bool:
        """Whether pytest ran all tests and nothing failed; see `is_complete` for missing hooks and options."""
        return self.all_passed and not self.only and not self._left_out

    @property
    def _left_out(self) -> int:
        return sum(outcome.state == "left out" for outcome in self.outcomes)

    @property
    def verdict(self) -> str:
        """The last line of the report."""
        failed = [result.guarantee.name for result in self.results if result.having("failed")]
        kept = [result.guarantee.name for result in self.results if result.passed]
        if not self.all_passed:
            left_behind = self.leftover_scopes and "the store did not remove all that was deleted"
            return f"NOT certified: {', '.join(failed) or left_behind or 'nothing was tested'}"
        if self._left_out:
            tests = _count_tests(len(self.outcomes))
            return f"nothing failed; this is not a certificate, since pytest did not run {self._left_out} of {tests}"
        if self.only:
            return f"kept: {', '.join(kept)}; this is not a certificate, since the other guarantees were not tested"
        if not self.is_complete:
            return f"certified in part: {_count_tests(self.did_not_run)} did not run, see above"
        return "certified"

    def lines(self) -> Iterator[str]:
        """Yield the report, line by line."""
        yield f"{self.store}: {self.backend} ({_format_traits(self.traits)})"
        yield ""
        for result in self.results:
            yield from result.lines()
        yield ""
        yield from (f"not removed by the store: scope {scope}" for scope in self.leftover_scopes)
        yield self.verdict

    def to_dict(self) -> dict[str, Any]:
        """Return the report as a dict for JSON."""
        return {
            "store": self.store,
            "backend": self.backend,
            "traits": {name: getattr(self.traits, name) for name in Traits.__slots__},
            "verdict": self.verdict,
            "certified": self.is_certified,
            "passed": self.all_passed,
            "complete": self.is_complete,
            "only": sorted(self.only),
            "did_not_run": self.did_not_run,
            "left_behind": list(self.leftover_scopes),
            "guarantees": [result.to_dict() for result in self.results],
        }


def _format_traits(traits: Traits) -> str:
    words = ["durable" if traits.durable else "not durable", "shared" if traits.shared else "not shared"]
    return ", ".join([*words, f"recency {traits.recency}"])


def _count_tests(tests: int) -> str:
    return f"{tests} test" if tests == 1 else f"{tests} tests"


def _wrap(text: str) -> list[str]:
    return textwrap.wrap(text, 110, initial_indent=" " * 8, subsequent_indent=" " * 18)


def _name_tests(word: str, reason: str, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    return {word: reason, "tests": len(outcomes), "names": [outcome.test for outcome in outcomes]}
