"""Runs functions in many threads that start together and switch as often as the interpreter can.

Work is counted in rounds, not in seconds, so a slow machine only takes longer.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

__all__ = ["HANG_SECONDS", "WritersAndReaders", "run_together"]

T = TypeVar("T")

HANG_SECONDS = 600.0
"""Seconds after which a call or a thread counts as hanging. No result depends on it."""

_LOOKS = 20


def run_together(*works: Callable[[], T], expect: tuple[type[Exception], ...] = ()) -> list[T | Exception]:
    """Run each function in a thread of its own; return, in order, each result or expected error.

    Any other error is raised, and so is a failed check.
    """
    barrier = threading.Barrier(len(works))
    outcomes: list[T | BaseException | None] = [None] * len(works)

    def run(at: int, work: Callable[[], T]) -> None:
        barrier.wait()
        try:
            outcomes[at] = work()
        except BaseException as error:  # noqa: BLE001  # raised in the thread that waits
            outcomes[at] = error

    threads = [threading.Thread(target=run, args=pair, daemon=True) for pair in enumerate(works)]
    with _switch_threads_often():
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(HANG_SECONDS)
    assert not any(thread.is_alive() for thread in threads), f"a thread did not finish within {HANG_SECONDS} seconds"
    return [_result_or_raise(outcome, expect) for outcome in outcomes]


class WritersAndReaders:
    """Writers do their rounds while readers read, until all rounds are done and every reader has read often enough.

    The first failure ends all of them.
    """

    def __init__(self) -> None:
        self._works: list[Callable[[], object]] = []
        self._looks: list[int] = []
        self._working = 0
        self._over = threading.Event()
        self._lock = threading.Lock()

    def add_reader(self, look: Callable[[], object]) -> None:
        """Add a thread that calls `look` repeatedly until the writers are done."""
        at = len(self._looks)
        self._looks.append(0)

        def work() -> None:
            try:
                while not self._over.is_set():
                    look()
                    self._looks[at] += 1
            finally:
                self._looks[at] = _LOOKS

        self._works.append(work)

    def add_writer(self, step: Callable[[], object], *, rounds: int) -> None:
        """Add a thread that calls `step` at least `rounds` times, and until every reader has read `_LOOKS` times."""
        self._working += 1

        def work() -> None:
            try:
                done = 0
                while not self._over.is_set() and (done < rounds or min(self._looks, default=_LOOKS) < _LOOKS):
                    step()
                    done += 1
            except BaseException:
                self._over.set()
                raise
            finally:
                with self._lock:
                    self._working -= 1
                    if self._working == 0:
                        self._over.set()

        self._works.append(work)

    def run(self) -> None:
        """Run all threads; raise the first error."""
        run_together(*self._works)


def _result_or_raise(outcome: T | BaseException | None, expect: tuple[type[Exception], ...]) -> T | Exception:
    if isinstance(outcome, expect):
        return outcome
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome  # type: ignore[return-value]  # a thread that ended without an error has stored its result


@contextmanager
def _switch_threads_often() -> Iterator[None]:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        yield
    finally:
        sys.setswitchinterval(interval)
