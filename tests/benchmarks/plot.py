"""A run as one picture: time over length, on logarithmic scales, a panel for each work of each backend; plain SVG."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from xml.sax.saxutils import escape

from .timing import Figure, Run

__all__ = ["svg"]

_WORKS = ("append", "last 20", "load all")
_WIDTH, _HEIGHT, _LEFT, _TOP, _GAP = 200, 150, 58, 64, 26
_COLOURS = {"raw": "#777777", "backend alone": "#7fb2e5", "chathistory": "#0a58ca"}
_PEERS = ("#d9822b", "#b23a48", "#5b8c3a")


def svg(run: Run) -> str:
    """Return a picture of a run as SVG."""
    shown = [each for each in run.figures if each.work in _WORKS and each.unit == "us" and each.median]
    backends = list(dict.fromkeys(each.backend for each in shown))
    width = _LEFT + len(backends) * (_WIDTH + _GAP)
    height = _TOP + len(_WORKS) * (_HEIGHT + _GAP) + 20
    return "\n".join([*_begin(width, height), *_panels(shown, backends), *_legend(shown), "</svg>"]) + "\n"


def _begin(width: int, height: int) -> Iterator[str]:
    yield f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif"'
    yield '  font-size="11" fill="#333333">'
    yield f'<rect width="{width}" height="{height}" fill="#ffffff"/>'
    yield f'<text x="{_LEFT}" y="18" font-size="13">Time of a call over the messages that are there (median)</text>'


def _panels(shown: Sequence[Figure], backends: Sequence[str]) -> Iterator[str]:
    for column, backend in enumerate(backends):
        for row, work in enumerate(_WORKS):
            here = [each for each in shown if (each.backend, each.work) == (backend, work)]
            left, top = _LEFT + column * (_WIDTH + _GAP), _TOP + row * (_HEIGHT + _GAP)
            title = backend if row == 0 else ""
            yield from _panel(here, (left, top), title, _scale(shown, work), work if column == 0 else "")


def _scale(shown: Sequence[Figure], work: str) -> tuple[int, int]:
    """Return the decades of microseconds that a row of panels shows, the same for all backends."""
    values = [each.median for each in shown if each.work == work and each.median]
    return math.floor(math.log10(min(values, default=1))), math.ceil(math.log10(max(values, default=1)))


def _panel(
    figures: Sequence[Figure], corner: tuple[int, int], title: str, decades: tuple[int, int], work: str
) -> Iterator[str]:
    left, top = corner
    low, high = decades
    yield f'<rect x="{left}" y="{top}" width="{_WIDTH}" height="{_HEIGHT}" fill="none" stroke="#cccccc"/>'
    yield f'<text x="{left + 6}" y="{top + 14}" font-weight="bold">{escape(title)}</text>'
    for decade in range(low, high + 1):
        y = _y(10.0**decade, top, decades)
        yield f'<line x1="{left}" x2="{left + _WIDTH}" y1="{y}" y2="{y}" stroke="#eeeeee"/>'
        if work:
            yield f'<text x="{left - 6}" y="{y + 4}" text-anchor="end">{_time(decade)}</text>'
    if work:
        yield f'<text x="{left + _WIDTH - 6}" y="{top + 14}" text-anchor="end" font-style="italic">{work}</text>'
    for power in range(1, 6):
        x = _x(10**power, left)
        yield f'<text x="{x}" y="{top + _HEIGHT + 14}" text-anchor="middle">{_count(power)}</text>'
    for subject in dict.fromkeys(each.subject for each in figures):
        points = [
            (_x(each.size, left), _y(each.median or 1, top, decades)) for each in figures if each.subject == subject
        ]
        yield from _line(points, _colour(subject))


def _line(points: Sequence[tuple[float, float]], colour: str) -> Iterator[str]:
    path = " ".join(f"{x},{y}" for x, y in points)
    yield f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>'
    for x, y in points:
        yield f'<circle cx="{x}" cy="{y}" r="2.5" fill="{colour}"/>'


def _x(size: int, left: int) -> float:
    return round(left + 14 + (math.log10(size) - 1) / 4 * (_WIDTH - 28), 1)


def _y(microseconds: float, top: int, decades: tuple[int, int]) -> float:
    low, high = decades
    return round(top + _HEIGHT - (math.log10(microseconds) - low) / max(high - low, 1) * _HEIGHT, 1)


def _time(decade: int) -> str:
    unit = ("µs", "ms", "s")[min(max(decade, 0) // 3, 2)]
    return f"{10.0 ** (decade - 3 * min(max(decade, 0) // 3, 2)):g} {unit}"


def _count(power: int) -> str:
    return ("1", "10", "100", "1k", "10k", "100k")[power]


def _colour(subject: str) -> str:
    if subject in _COLOURS:
        return _COLOURS[subject]
    return _PEERS[2 if "agents" in subject else 1 if "SQLite" in subject else 0]


def _legend(shown: Sequence[Figure]) -> Iterator[str]:
    x = _LEFT
    for subject in dict.fromkeys(each.subject for each in shown):
        yield f'<line x1="{x}" x2="{x + 18}" y1="38" y2="38" stroke="{_colour(subject)}" stroke-width="3"/>'
        yield f'<text x="{x + 24}" y="42">{escape(subject)}</text>'
        x += 44 + 7 * len(subject)
