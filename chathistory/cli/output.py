"""What commands print: lines, tables, JSON, damaged conversations, and a bar while something takes its time."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import click

from chathistory.cli.escape import to_json_line, to_one_line
from chathistory.cli.render import make_console
from chathistory.errors import ChatHistoryError
from chathistory.storage.store import HistoryStore
from chathistory.storage.values import Damaged, Key

__all__ = [
    "MAY_HAVE_MISSED",
    "damaged_as_json",
    "damaged_as_row",
    "print_json",
    "print_lines",
    "print_notes",
    "print_rows",
    "show_progress",
]

MAY_HAVE_MISSED = "some conversations may have been missed: this server's index can lose entries; try --full-scan"
"""What to say of a walk that relied on an index."""

_WIDE = 100  # columns of a terminal
_LONGEST_ID, _LONGEST_FIELD, _SHORTEST_TITLE = 28, 20, 10
_GAP = 2


def print_lines(texts: Iterable[str]) -> None:
    """Print each text on a line of its own."""
    for line in texts:
        sys.stdout.write(f"{line}\n")


def print_rows(columns: Sequence[str], rows: Sequence[Sequence[str]], *, cut: bool = False, fold: bool = False) -> None:
    """Print rows for whoever reads them: a table on a terminal, else lines with tabs.

    Args:
        columns: The heads of the table.
        rows: Their fields.
        cut: Cut the last field to the width of the terminal, in place of continuing it in the next line.
        fold: Cut nothing: continue every field in the next line.
    """
    rows = [tuple(map(to_one_line, row)) for row in rows]
    if not sys.stdout.isatty():
        print_lines("\t".join(row) for row in rows)
    elif rows:
        _print_table(columns, rows, cut=cut, fold=fold)


def _print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, cut: bool, fold: bool) -> None:
    """Print a table; the last column gets what is left of the width.

    The first is never cut, for it is what people copy. Columns with nothing in them are left out, and the model where
    there is no room for it.
    """
    from rich.cells import cell_len  # only a terminal needs it
    from rich.table import Table
    from rich.text import Text

    screen = make_console()
    dropped = {"MODEL"} if screen.width < _WIDE else set()
    kept = [index for index, name in enumerate(columns) if name not in dropped and any(row[index] for row in rows)]
    room = screen.width
    table = Table(box=None, pad_edge=False, header_style="bold")
    for index in kept:
        longest = _LONGEST_FIELD if index else _LONGEST_ID
        if index == len(columns) - 1:
            longest = max(room, _SHORTEST_TITLE)
        width = None if fold else min(max(cell_len(row[index]) for row in (columns, *rows)), longest)
        wraps = fold or index == 0 or (index == len(columns) - 1 and not cut)
        table.add_column(columns[index], width=width, no_wrap=not wraps, overflow="fold" if wraps else "ellipsis")
        room -= (width or 0) + _GAP
    for row in rows:
        table.add_row(*(Text(row[index]) for index in kept))
    screen.print(table)


def print_json(value: Any) -> None:
    """Print one value as one line of JSON."""
    print_lines([to_json_line(value)])


def damaged_as_row(damaged: Damaged, empty: int) -> tuple[str, ...]:
    """Return the fields of a row: the id (else the place in the storage), "damaged", empty fields, and the reason."""
    return (
        damaged.key.id if damaged.key else damaged.where,
        "damaged",
        *("" for _ in range(empty)),
        str(damaged.error),
    )


def damaged_as_json(damaged: Damaged) -> dict[str, Any]:
    """Return what is known of something that is damaged, for JSON; `id` and `scope` are null if they are not known."""
    key = damaged.key
    return {
        "id": key.id if key else None,
        "scope": key.scope if key else None,
        "damaged": str(damaged.error),
        "where": damaged.where,
    }


def print_notes(store: HistoryStore, keys: Iterable[Key]) -> None:
    """Say on standard error what else is stored with conversations, as far as the store can tell."""
    storage_notes = store.get_storage_notes()
    if storage_notes is not None:
        for key in keys:
            with suppress(ChatHistoryError):  # it is damaged, or gone, which is said elsewhere
                for note in storage_notes.notes(key):
                    click.echo(f"note: {to_one_line(note)}", err=True)


@contextmanager
def show_progress(doing: str, total: Callable[[], int] | None) -> Iterator[Callable[[object], None]]:
    """Give a function that is to be called after each step; it draws a bar if there is a terminal to draw it on.

    Args:
        doing: What is being done.
        total: Counts the steps; it is only called if there is a terminal. None: nobody knows how many.
    """
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(doing), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=make_console(stderr=True), transient=True) as bar:
        task = bar.add_task(doing, total=total() if total else None)
        yield lambda _: bar.advance(task)
