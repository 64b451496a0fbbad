"""A run as Markdown tables, and the comparison of two runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from .timing import RAW, Figure, Run

__all__ = ["comparison", "markdown"]

DASH = "\N{EN DASH}"
_TIMES = ("us", "ms", "turns/s")


def markdown(run: Run) -> str:
    """Return all tables of a run."""
    return "\n".join(_lines(run)) + "\n"


def _lines(run: Run) -> Iterator[str]:
    yield "| " + " | ".join(run.about) + " |"
    yield "|" + " --- |" * len(run.about)
    yield "| " + " | ".join(run.about.values()) + " |"
    for backend in _unique(each.backend for each in run.figures if each.backend != "import"):
        of = [each for each in run.figures if each.backend == backend]
        yield from _table(f"{backend}: times", [each for each in of if each.unit in ("us", "ms")])
        yield from _table(f"{backend}: {16} threads", [each for each in of if "threads" in each.work])
        counts = [each for each in of if each.unit not in _TIMES and "threads" not in each.work]
        yield from _table(f"{backend}: counts", counts)
        yield from _notes(of)
    yield from _imports([each for each in run.figures if each.backend == "import"])
    for name, printed in run.scripts.items():
        yield from ("", f"## {name}", "", "```text", printed.rstrip(), "```")


def _table(title: str, figures: Sequence[Figure]) -> Iterator[str]:
    subjects = _unique(each.subject for each in figures)
    if not subjects:
        return
    yield from ("", f"## {title}", "", f"| | {' | '.join(subjects)} |", "| --- |" + " --- |" * len(subjects))
    cells = {each.place[1:]: each for each in figures}
    for work, size, unit in _unique((each.work, each.size, each.unit) for each in figures):
        row = (_cell(cells.get((work, size, subject, unit))) for subject in subjects)
        yield f"| {_describe_work(work, size, unit)} | {' | '.join(row)} |"


def _describe_work(work: str, size: int, unit: str) -> str:
    if "threads" in work:
        return f"{work}, {unit}"
    return f"{work}, of {size:,}" + ("" if unit in ("us", "ms") else f", {unit}")


def _cell(figure: Figure | None) -> str:
    if figure is None or figure.median is None:
        return DASH
    text = _number(figure.median, figure.unit)
    if figure.ratio is not None and figure.ratio_low is not None and figure.ratio_high is not None:
        text += f" = {_x(figure.ratio)} x ({_x(figure.ratio_low)}{DASH}{_x(figure.ratio_high)})"
    return text


def _x(ratio: float) -> str:
    return f"{ratio:.2f}" if ratio < 10 else f"{ratio:,.0f}"


def _number(value: float, unit: str) -> str:
    if unit == "us":
        return f"{value:,.0f} µs" if value < 10_000 else f"{value / 1000:,.0f} ms"
    if unit == "ms":
        return f"{value:,.1f} ms"
    return f"{value:,.0f}"


def _notes(figures: Iterable[Figure]) -> Iterator[str]:
    noted = [each for each in figures if each.note]
    if noted:
        yield ""
    for each in noted:
        yield f"- {each.subject}, {each.work}: {each.note}"


def _imports(figures: Sequence[Figure]) -> Iterator[str]:
    if not figures:
        return
    yield from ("", "## import, above bare Python", "", "| | ms | MB |", "| --- | --- | --- |")
    values = {(each.subject, each.unit): each for each in figures}
    for subject in _unique(each.subject for each in figures):
        ms, mb = values[subject, "ms"], values[subject, "MB"]
        yield f"| {subject} | {_range(ms, 0)} | {_range(mb, 1)} |"


def _range(figure: Figure, digits: int) -> str:
    return f"{figure.median:.{digits}f} ({figure.low:.{digits}f}{DASH}{figure.high:.{digits}f})"


def _unique(values: Iterable) -> list:
    return list(dict.fromkeys(values))


def comparison(old: Run, new: Run, *, beyond: float = 0.1) -> str:
    """Return a line for each figure that differs by more than `beyond` (0.1 is a tenth), by its ratio to raw if any."""
    before = {each.place: each for each in old.figures}
    lines = []
    for each in new.figures:
        was = before.get(each.place)
        if was is None or each.subject == RAW:
            continue
        then, now, what = (was.ratio, each.ratio, "x raw") if each.ratio else (was.median, each.median, each.unit)
        if then is not None and now is not None and abs(now - then) > beyond * abs(then):
            place = f"{each.backend:8} {_describe_work(each.work, each.size, each.unit):44} {each.subject:16}"
            lines.append(f"{place} {then:12,.2f} -> {now:12,.2f} {what}{_overlap_note(was, each)}")
    return "\n".join(lines) or f"no figure differs by more than {beyond:.0%}"


def _overlap_note(was: Figure, now: Figure) -> str:
    """Return a note if the quartiles overlap: the change may be noise."""
    if None in (was.ratio_low, was.ratio_high, now.ratio_low, now.ratio_high):
        return ""
    apart = was.ratio_high < now.ratio_low or now.ratio_high < was.ratio_low  # type: ignore[operator]
    return "" if apart else "  (quartiles overlap)"
