"""The certificate: what became of each guarantee, as text that people read and as data."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from chathistory.store import Traits
from chathistory.testing.guarantees import GUARANTEES, LISTING, Guarantee

__all__ = ["Certificate", "Finding", "Outcome"]

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
    said: str

    @property
    def words(self) -> str:
        """The name of the test as words, with the case that it was run with."""
        name, bracket, case = self.test.partition("[")
        words = name.removeprefix("test_").removeprefix("zz_").replace("_", " ")
        return words + (f" ({case.removesuffix(']')})" if bracket else "")


@dataclass(frozen=True, slots=True)
class Finding:
    """What became of a guarantee.

    not_applicable: what the traits leave out, and not_tested: what nothing was given for, or no kit can test; each
    with the number of its tests (0: there is none).
    """

    guarantee: Guarantee
    passed: int
    failed: tuple[Outcome, ...]
    not_applicable: tuple[tuple[str, int], ...]
    not_tested: tuple[tuple[str, int], ...]

    @property
    def state(self) -> str:
        """Return "FAILED", "kept", "kept in part" (something was not tested) or "not tested"."""
        if self.failed:
            return "FAILED"
        if not self.passed:
            return "not tested" if self.not_tested else "does not apply"
        return "kept in part" if self.not_tested else "kept"


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """All that was found. store: the URL without its secrets. left: scopes that could not be emptied again."""

    store: str
    backend: str
    traits: Traits
    outcomes: tuple[Outcome, ...]
    exclusive: bool
    only: frozenset[int]
    left: tuple[str, ...]
    seconds: float

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What became of each guarantee that was asked for, in their order."""
        asked = [guarantee for number, guarantee in GUARANTEES.items() if not self.only or number in self.only]
        return tuple(map(self._finding, asked))

    @property
    def passed(self) -> bool:
        """Whether nothing failed, something was tested, and nothing was left behind."""
        states = [finding.state for finding in self.findings]
        return "FAILED" not in states and any(finding.passed for finding in self.findings) and not self.left

    @property
    def complete(self) -> bool:
        """Whether all was tested that could have been: nothing that a hook, a URL or an option would have allowed."""
        return not any(count for finding in self.findings for _, count in finding.not_tested)

    def _finding(self, guarantee: Guarantee) -> Finding:
        ours = [outcome for outcome in self.outcomes if outcome.number == guarantee.number]
        left_out = [outcome for outcome in ours if outcome.state == "left out"]
        aside = (*_ASIDE, *(() if self.exclusive else (_PLAIN_SCOPES,)))
        by_traits = Counter(o.said.removeprefix(_TRAITS) for o in left_out if o.said.startswith(_TRAITS))
        lacking = Counter(o.said for o in left_out if not o.said.startswith(_TRAITS))
        untestable = [(what, 0) for number, what in aside if number == guarantee.number]
        return Finding(
            guarantee,
            sum(outcome.state == "passed" for outcome in ours),
            tuple(outcome for outcome in ours if outcome.state == "failed"),
            tuple(by_traits.items()),
            (*lacking.items(), *untestable),
        )

    def lines(self) -> Iterator[str]:
        """Yield the report, line by line."""
        yield f"{self.store}: {self.backend} ({_shown(self.traits)})"
        yield ""
        for finding in self.findings:
            yield from _lines(finding)
        yield ""
        for scope in self.left:
            yield f"left behind, for the store did not remove it: scope {scope}"
        yield self._verdict()

    def _verdict(self) -> str:
        failed = [finding.guarantee.name for finding in self.findings if finding.failed]
        if failed:
            return f"NOT certified: {', '.join(failed)}"
        if not self.passed:
            return "NOT certified: " + ("it does not remove what it should" if self.left else "nothing was tested")
        lacking = sum(len(finding.not_tested) for finding in self.findings)
        return "certified" + (f"; {lacking} parts were not tested, see above" if lacking else "")

    def as_data(self) -> dict[str, Any]:
        """Return the report for programs."""
        return {
            "store": self.store,
            "backend": self.backend,
            "traits": {name: getattr(self.traits, name) for name in Traits.__slots__},
            "certified": self.passed,
            "complete": self.complete,
            "seconds": round(self.seconds, 1),
            "left_behind": list(self.left),
            "guarantees": [_data(finding) for finding in self.findings],
        }


def _shown(traits: Traits) -> str:
    words = ["durable" if traits.durable else "not durable", "shared" if traits.shared else "not shared"]
    return ", ".join([*words, f"recency {traits.recency}"])


def _lines(finding: Finding) -> Iterator[str]:
    number = finding.guarantee.number
    label = f"{number:>2}" if number < LISTING else "  "
    tests = f"{finding.passed} tests" if finding.passed else ""
    yield f"{label}  {finding.guarantee.name:<22} {finding.state:<14} {tests}".rstrip()
    for outcome in finding.failed:
        yield f"      FAILED: {outcome.words}"
        yield from textwrap.wrap(f"seen: {outcome.said}", 110, initial_indent=" " * 8, subsequent_indent=" " * 14)
    if finding.failed:
        yield from textwrap.wrap(
            f"due:  {finding.guarantee.due}", 110, initial_indent=" " * 8, subsequent_indent=" " * 14
        )
    for what, count in finding.not_tested:
        yield f"      not tested: {what}" + (f" [{count} tests]" if count else "")
    for what, count in finding.not_applicable:
        yield f"      does not apply, by its traits: {what} [{count} tests]"


def _data(finding: Finding) -> dict[str, Any]:
    return {
        "number": finding.guarantee.number if finding.guarantee.number < LISTING else None,
        "name": finding.guarantee.name,
        "due": finding.guarantee.due,
        "state": finding.state.lower(),
        "passed": finding.passed,
        "failed": [{"test": outcome.test, "seen": outcome.said} for outcome in finding.failed],
        "not_tested": [{"what": what, "tests": count} for what, count in finding.not_tested],
        "does_not_apply": [{"why": why, "tests": count} for why, count in finding.not_applicable],
    }
