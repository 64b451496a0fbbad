"""The guarantees of `docs/contract.md` as data, and which of them a test of the suite is about.

A theme of the suite names its guarantee where its class begins, a test that belongs to another one by `belongs_to`:

    class Atomic(Contract, guarantee=1): ...
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

__all__ = ["GUARANTEES", "LISTING", "Guarantee", "belongs_to", "guarantee_of"]

F = TypeVar("F", bound=Callable[..., Any])
LISTING = 14
_NUMBER = "_chathistory_guarantee"


@dataclass(frozen=True, slots=True)
class Guarantee:
    """One of the thirteen, or the listing, which follows from none of them. `expected` says it in one sentence."""

    number: int
    name: str
    expected: str

    def __str__(self) -> str:
        """Return how a failure names it."""
        return f"guarantee {self.number}, {self.name}" if self.number < LISTING else self.name

    @property
    def note(self) -> str:
        """What is added to the error of a test that fails."""
        return f"{self}; expected: {self.expected}"


_EXPECTED = {
    "atomic": "a batch is stored wholly or not at all, at consecutive positions; what is refused changes nothing",
    "guarded": "an append by a writer who has not seen the present version is a Conflict that carries the present "
    "head, and nothing changes; positions have no gaps and move only forward",
    "retry-safe": "the same append repeated is a Conflict whose head has the version of that append; nothing is "
    "stored twice, and two equal texts are two records",
    "durable on return": "what was acknowledged is there after the store is closed, or killed, and opened again",
    "character-exact": "bodies, info, names and revisions come back as they were given, to the character",
    "constant cost": "an append and a read of the tail cost the same in a small and in a large conversation",
    "whole or absent": "a reader sees the head and the records of one moment, without a gap; damage is CorruptRecord",
    "contained": "every name stands for itself, to the character, and reaches nothing but its own conversation",
    "forget and delete": "what is removed is gone for good, the head survives a forget, and what comes late is a "
    "Conflict; unknown conversations are None or False",
    "threads and processes": "many threads and instances lose nothing; a store that was closed, or carried across a "
    "fork(), raises StoreClosed from every method",
    "errors are ours": "StoreUnavailable or StoreRejected with the client library's error as its cause, and no message "
    "text in an error, a repr or a log line",
    "damage stays in place": "a range without a damaged record is readable; a walk over many conversations reports the "
    "damaged one and goes on; a call that names it raises CorruptRecord; what is sound can be kept",
    "complete walks": "scan_keys and remove_leftovers find what is stored without an index that can be lost, and touch "
    "nothing else; is_index_complete is True only if keys and heads name every conversation",
    "the listing": "heads by (updated, id) descending, page by page, each conversation exactly once",
}
GUARANTEES: Mapping[int, Guarantee] = {
    number: Guarantee(number, name, expected) for number, (name, expected) in enumerate(_EXPECTED.items(), 1)
}
"""By number, as in `docs/contract.md`; the listing comes last."""


def belongs_to(number: int) -> Callable[[F], F]:
    """Say of which guarantee a test is, where that is not the one of its theme."""

    def mark_test(test: F) -> F:
        setattr(test, _NUMBER, number)
        return test

    return mark_test


def guarantee_of(test: Callable[..., Any]) -> Guarantee | None:
    """Return the guarantee that a test of the suite is about; None: it is none of the suite's."""
    return GUARANTEES.get(getattr(test, _NUMBER, 0))
