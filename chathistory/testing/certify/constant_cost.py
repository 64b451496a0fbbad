"""Guarantee 6: an append and a tail read cost the same in a conversation of ten and of ten thousand records."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

from chathistory.storage.store import HistoryStore
from chathistory.storage.values import Head, Key
from chathistory.testing.certify.base_test_class import CertifyTest
from chathistory.testing.contract.checked_reads import read_head
from chathistory.testing.contract.samples import KEY, make_revision

__all__ = ["ConstantCost"]

_FEW, _MANY, _BATCH = 10, 10_000, 200
_BODY = "x" * 1000
_TIMES = 15
_FACTOR = 6.0
_FLOOR = 0.000_5  # seconds; below it, the clock and the interpreter would be measured
_ATTEMPTS = 5  # the machine may be busy
_SMALL, _LARGE = (Key(KEY.scope, name) for name in ("small", "large"))


def _fill_conversation(store: HistoryStore, key: Key, count: int) -> None:
    head: Head | None = None
    for at in range(0, count, _BATCH):
        head = store.append(key, [_BODY] * min(_BATCH, count - at), after=head, revision=make_revision())


def _make_append(store: HistoryStore, key: Key) -> Callable[[], object]:
    head = read_head(store, key)

    def append() -> None:
        nonlocal head
        head = store.append(key, [_BODY], after=head, revision=make_revision())

    return append


def _check_same_cost(what: str, small: Callable[[], object], large: Callable[[], object]) -> None:
    """Compare the medians of alternating calls, so that other load on the machine slows down both."""
    few, many = 0.0, 0.0
    for _ in range(_ATTEMPTS):
        pairs = [(_measure_seconds(small), _measure_seconds(large)) for _ in range(_TIMES)]
        few, many = (max(statistics.median(times), _FLOOR) for times in zip(*pairs, strict=True))
        if many <= _FACTOR * few:
            return
    raise AssertionError(
        f"{what} took {1000 * many:.1f} ms with {_MANY} records and {1000 * few:.1f} ms with {_FEW}; "
        f"expected at most {_FACTOR:.0f} times as much"
    )


def _measure_seconds(call: Callable[[], object]) -> float:
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


class ConstantCost(CertifyTest, guarantee=6):
    """The cost of a call does not depend on how much a conversation holds."""

    def test_an_append_and_a_tail_read_cost_the_same_in_a_large_conversation(self, store: HistoryStore) -> None:
        _fill_conversation(store, _SMALL, _FEW)
        _fill_conversation(store, _LARGE, _MANY)
        _check_same_cost("an append", _make_append(store, _SMALL), _make_append(store, _LARGE))
        _check_same_cost(
            "a read of the last record",
            lambda: store.read(_SMALL, start=-1),
            lambda: store.read(_LARGE, start=-1),
        )
