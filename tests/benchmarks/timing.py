"""Calls that alternate: what is compared is measured in the same seconds, call by call.

In each round every library makes one call, in an order that is reversed from round to round. If the machine slows down
or speeds up, it does so for all. A ratio is the median of the ratios of the rounds, not the ratio of two medians. A
slow library stops when its time is used up; the others continue.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

__all__ = ["RAW", "At", "Figure", "Run", "make_count", "make_figures", "measure_alternately", "median_and_quartiles"]

RAW = "raw"
LEAST = 3  # rounds, however slow
Work: TypeAlias = Callable[[], object]


class At(NamedTuple):
    """What was done: on which backend, what, and with how much there."""

    backend: str
    work: str
    size: int


@dataclass(frozen=True)
class Figure:
    """One number of a run: of which library and work, and how certain it is.

    Attributes:
        size: Number of messages or conversations that are stored.
        low: Lower quartile; `high` is the upper one.
        ratio: Ratio to the raw form; `ratio_low` and `ratio_high` are its quartiles. None if there is no ratio.
        note: Remark, shown next to or in place of a number.
    """

    backend: str
    work: str
    size: int
    subject: str
    unit: str
    median: float | None = None
    low: float | None = None
    high: float | None = None
    mean: float | None = None
    rounds: int = 0
    ratio: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None
    note: str = ""

    @property
    def place(self) -> tuple[str, str, int, str, str]:
        """What the number is about: a key to find it in another run."""
        return self.backend, self.work, self.size, self.subject, self.unit


@dataclass
class Run:
    """All figures of a run, and the machine it ran on."""

    about: dict[str, str]
    figures: list[Figure] = field(default_factory=list)
    scripts: dict[str, str] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write the run as JSON."""
        path.write_text(json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n")

    @classmethod
    def load(cls, path: Path) -> Run:
        """Read what `save` wrote."""
        values: dict[str, Any] = json.loads(path.read_text())
        return cls(values["about"], [Figure(**each) for each in values["figures"]], values["scripts"])


def measure_alternately(
    works: Mapping[str, Work], *, seconds: float, most: int = 2000, clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """Return the seconds of each call by name, round by round.

    Each work runs for about `seconds` in all, for `LEAST` rounds at least and `most` rounds at most.
    """
    times: dict[str, list[float]] = {name: [] for name in works}
    spent = dict.fromkeys(works, 0.0)
    order = list(works)
    for work in works.values():
        work()  # opens connections, fills caches, loads scripts
    for done in range(most):
        order = [name for name in order[::-1] if done < LEAST or spent[name] < seconds]
        if not order or order == [RAW]:
            break
        for name in order:
            started = clock()
            works[name]()
            duration = clock() - started
            times[name].append(duration)
            spent[name] += duration
    return times


def median_and_quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the median and the quartiles; with fewer than four values, the smallest and the largest."""
    if len(values) < 4:
        return statistics.median(values), min(values), max(values)
    low, middle, high = statistics.quantiles(values, n=4)
    return middle, low, high


def make_figures(at: At, times: Mapping[str, Sequence[float]], *, unit: str = "us", scale: float = 1e6) -> list[Figure]:
    """Return a figure for each library in `times`, with its ratio to the raw form, round by round."""
    raw = times.get(RAW, ())
    found = []
    for subject, durations in times.items():
        median, low, high = (value * scale for value in median_and_quartiles(durations))
        mean = statistics.mean(durations) * scale
        ratio = _ratio_of_rounds(durations, raw) if subject != RAW and raw else (None, None, None)
        found.append(Figure(*at, subject, unit, median, low, high, mean, len(durations), *ratio))
    return found


def _ratio_of_rounds(durations: Sequence[float], raw: Sequence[float]) -> tuple[float, float, float]:
    return median_and_quartiles([one / other for one, other in zip(durations, raw, strict=False)])


def make_count(at: At, subject: str, unit: str, value: float | None) -> Figure:
    """Return a figure for a count."""
    return Figure(*at, subject, unit, value, rounds=1)
