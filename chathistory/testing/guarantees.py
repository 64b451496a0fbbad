"""The guarantees of `docs/contract.md` as data, and the guarantee that each test of the suite is about.

A test class names its guarantee as a class argument. `belongs_to` marks a single test that is about another one:

    class Atomic(ContractTest, guarantee=1): ...
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
    """One of the thirteen guarantees, or the listing, which is not one of them.

    Attributes:
        number: From 1, as in `docs/contract.md`; `LISTING` for the listing.
        name: A short name, such as "atomic".
        expected: What a backend must do, in one sentence.
        look_at: The methods of `BaseStore` that usually cause a failure.
    """

    number: int
    name: str
    expected: str
    look_at: str

    def __str__(self) -> str:
        """Return the name for a failure message."""
        return f"guarantee {self.number}, {self.name}" if self.number < LISTING else self.name

    @property
    def note(self) -> str:
        """The note on the error of a failed test."""
        return f"{self}; expected: {self.expected}; look at {self.look_at} (docs/contract.md has the details)"


_EXPECTED = {
    "atomic": (
        "a batch is stored completely or not at all, at consecutive positions; a refused call changes nothing",
        "_append_records",
    ),
    "guarded": (
        (
            "an append after a head that is not the current one is a Conflict that carries the current head, and "
            "changes nothing; positions have no gaps and only increase"
        ),
        "_append_records, check_version and its transaction",
    ),
    "retry-safe": (
        (
            "a repeated append is a Conflict whose head has the version of that append; nothing is stored twice, "
            "and equal bodies are separate records"
        ),
        "_append_records",
    ),
    "durable on return": (
        "what was acknowledged is stored after the store is closed or killed and opened again",
        "_append_records, and what it waits for before it returns",
    ),
    "character-exact": (
        "bodies, payloads, names and revisions come back unchanged, to the character",
        "how values are encoded, and the types of columns or fields",
    ),
    "constant cost": (
        "an append and a read of the tail cost the same in a small and in a large conversation",
        "_append_records and _read_range",
    ),
    "whole or absent": (
        "a reader sees the head and the records of one moment, without a gap; damage is CorruptRecord",
        "_read_range, and whether it reads head and records in one transaction",
    ),
    "contained": (
        "every name is a name of its own, to the character, and reaches only its own conversation",
        "how scope and id become a key, path or condition",
    ),
    "forget and delete": (
        (
            "what is removed is gone permanently, the head survives a forget, and late calls are a Conflict; unknown "
            "conversations are None or False"
        ),
        "_forget_records, _delete and _remove_leftovers",
    ),
    "threads and processes": (
        (
            "many threads and instances lose nothing; a store that was closed, or carried across a fork(), raises "
            "StoreClosed from every method"
        ),
        "locks and transactions, and _check_open",
    ),
    "errors are ours": (
        (
            "StoreUnavailable or StoreRejected with the client library's error as its cause, and no message text in an "
            "error, a repr or a log line"
        ),
        "where errors of the client library are caught",
    ),
    "damage stays in place": (
        (
            "a range without a damaged record is readable; a walk over many conversations reports a damaged one and "
            "continues; a call that names it raises CorruptRecord; sound records can be kept"
        ),
        "_read_range, _list_heads, _list_keys and _list_damaged_keys",
    ),
    "complete walks": (
        (
            "scan_keys and remove_leftovers find what is stored without an index that can lose entries, and touch "
            "nothing else; is_index_complete is True only if keys and heads are complete"
        ),
        "_scan_keys, _remove_leftovers and _is_index_complete",
    ),
    "the listing": (
        "heads by (updated, id) descending, page by page, each conversation exactly once",
        "_list_heads or _list_page, and _list_keys",
    ),
}
GUARANTEES: Mapping[int, Guarantee] = {
    number: Guarantee(number, name, expected, look_at)
    for number, (name, (expected, look_at)) in enumerate(_EXPECTED.items(), 1)
}
"""All guarantees by number, as in `docs/contract.md`; the listing is last."""


def belongs_to(number: int) -> Callable[[F], F]:
    """Mark a test as one of another guarantee than its class.

    Args:
        number: The guarantee.

    Returns:
        A decorator for the test.
    """

    def mark_test(test: F) -> F:
        setattr(test, _NUMBER, number)
        return test

    return mark_test


def guarantee_of(test: Callable[..., Any]) -> Guarantee | None:
    """Return the guarantee that a test is about, or None if it is not a test of the suite.

    Args:
        test: A test function.

    Returns:
        The guarantee, or None.
    """
    return GUARANTEES.get(getattr(test, _NUMBER, 0))
