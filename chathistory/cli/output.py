"""What commands print: lines, tables, JSON, and a bar while something takes its time."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import click

from chathistory.cli.escape import json_line
from chathistory.cli.render import console

__all__ = [
    "INCOMPLETE",
    "PARTLY",
    "dry_run_option",
    "full_scan_option",
    "json_option",
    "lines",
    "plain",
    "print_json",
    "progress",
    "table",
]

PARTLY = 3
"""The exit code for what could not be done with all conversations."""

INCOMPLETE = "some conversations may have been missed: this server's index can lose entries; --full-scan looks at all"
"""What to say of a walk that relied on an index."""

_WIDE = 100  # columns of a terminal
_LONGEST_ID, _LONGEST_FIELD, _SHORTEST_TITLE = 28, 20, 10
_GAP = 2
json_option = click.option("--json", "as_json", is_flag=True, help="JSON on standard output, with everything.")
dry_run_option = click.option("--dry-run", is_flag=True, help="Only show what would be done.")
full_scan_option = click.option(
    "--full-scan", is_flag=True, help="Find conversations by a walk over the whole storage; may be slow."
)


def lines(texts: Iterable[str]) -> None:
    """Print each text on a line of its own."""
    for line in texts:
        sys.stdout.write(f"{line}\n")


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, cut: bool = False) -> None:
    """Print a table; the last column takes what is left of the width, and is cut there or goes on in the next line.

    The first is never cut, for it is what people copy. Columns with nothing in them are left out, and the model where
    there is no room for it.
    """
    from rich.cells import cell_len  # noqa: PLC0415 - only a terminal needs it
    from rich.table import Table  # noqa: PLC0415 - as above
    from rich.text import Text  # noqa: PLC0415 - as above

    screen = console()
    dropped = {"MODEL"} if screen.width < _WIDE else set()
    kept = [index for index, name in enumerate(columns) if name not in dropped and any(row[index] for row in rows)]
    room = screen.width
    made = Table(box=None, pad_edge=False, header_style="bold")
    for index in kept:
        longest = _LONGEST_FIELD if index else _LONGEST_ID
        if index == len(columns) - 1:
            longest = max(room, _SHORTEST_TITLE)
        width = min(max(cell_len(row[index]) for row in (columns, *rows)), longest)
        wraps = index == 0 or (index == len(columns) - 1 and not cut)
        made.add_column(columns[index], width=width, no_wrap=not wraps, overflow="fold" if wraps else "ellipsis")
        room -= width + _GAP
    for row in rows:
        made.add_row(*(Text(row[index]) for index in kept))
    screen.print(made)


def plain(value: Any) -> Any:
    """Return a value as JSON takes it: times as text, names of fields as keys."""
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, dict):
        return {name: plain(part) for name, part in value.items()}
    return [plain(part) for part in value] if isinstance(value, list | tuple) else value


def print_json(value: Any) -> None:
    """Print one value as one line."""
    lines([json_line(plain(value))])


@contextmanager
def progress(doing: str, total: Callable[[], int] | None) -> Iterator[Callable[[object], None]]:
    """Give a function that is to be called after each step; draws a bar if there is a terminal to draw it on.

    total: counts the steps, which is not done without a terminal; None: nobody knows.
    """
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    columns = (TextColumn(doing), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console(stderr=True), transient=True) as bar:
        task = bar.add_task(doing, total=total() if total else None)
        yield lambda _: bar.advance(task)
