"""Turn and turn about: what is compared is measured in the same seconds, call by call.

In each round everybody has one call, in an order that is reversed from round to round, so that a machine that slows
down or speeds up meanwhile does so for all. A ratio is the median of the ratios of the rounds, not that of two medians
of different moments. Who is slow drops out when his time is over; the others go on.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

__all__ = ["RAW", "At", "Figure", "Run", "alternated", "counted", "figures", "spread"]

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
    """One number of a run: whose, of what, and how sure.

    size: messages or conversations that are there. low, high: the quartiles. ratio: to the raw form, with its
    quartiles; None: there is none. note: a word where there is no number.
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
        """What it is the number of."""
        return self.backend, self.work, self.size, self.subject, self.unit


@dataclass
class Run:
    """All figures of a run, and where it ran."""

    about: dict[str, str]
    figures: list[Figure] = field(default_factory=list)
    scripts: dict[str, str] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        path.write_text(json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n")

    @classmethod
    def load(cls, path: Path) -> Run:
        """Read what `save` wrote."""
        values: dict[str, Any] = json.loads(path.read_text())
        return cls(values["about"], [Figure(**each) for each in values["figures"]], values["scripts"])


def alternated(
    works: Mapping[str, Work], *, seconds: float, most: int = 2000, clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """Return the seconds of each call of each work, round by round; `seconds` for each of them, `most` rounds."""
    times: dict[str, list[float]] = {name: [] for name in works}
    spent = dict.fromkeys(works, 0.0)
    order = list(works)
    for work in works.values():
        work()  # connections, caches and scripts are there
    for done in range(most):
        order = [name for name in order[::-1] if done < LEAST or spent[name] < seconds]
        if not order or order == [RAW]:
            break
        for name in order:
            begun = clock()
            works[name]()
            taken = clock() - begun
            times[name].append(taken)
            spent[name] += taken
    return times


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the median and the quartiles; of few values, the least and the greatest."""
    if len(values) < 4:
        return statistics.median(values), min(values), max(values)
    low, middle, high = statistics.quantiles(values, n=4)
    return middle, low, high


def figures(at: At, times: Mapping[str, Sequence[float]], *, unit: str = "us", scale: float = 1e6) -> list[Figure]:
    """Return a figure for each subject of `times`, with the ratios to the raw one's rounds."""
    raw = times.get(RAW, ())
    found = []
    for subject, taken in times.items():
        median, low, high = (value * scale for value in spread(taken))
        mean = statistics.mean(taken) * scale
        ratio = _ratio(taken, raw) if subject != RAW and raw else (None, None, None)
        found.append(Figure(*at, subject, unit, median, low, high, mean, len(taken), *ratio))
    return found


def _ratio(taken: Sequence[float], raw: Sequence[float]) -> tuple[float, float, float]:
    return spread([one / other for one, other in zip(taken, raw, strict=False)])


def counted(at: At, subject: str, unit: str, value: float | None) -> Figure:
    """Return the figure of what is counted, not measured."""
    return Figure(*at, subject, unit, value, rounds=1)
