"""Printing: text with its control characters made visible, tables, JSON, times, and a progress bar.

A message can contain anything. An escape sequence in it could move the cursor, change the window's title or fake a
prompt, and a character that changes the direction of writing could display a different text. So stored text goes
through `escape_controls`, `to_one_line` or `to_json_line` on its way to a terminal.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from chathistory.control_characters import get_picture
from chathistory.storage.values import Damaged, Key

if TYPE_CHECKING:
    from rich.console import Console

__all__ = [
    "MAY_HAVE_MISSED",
    "damaged_to_json",
    "escape_controls",
    "format_age",
    "format_count",
    "key_to_json",
    "make_console",
    "print_json",
    "print_rows",
    "show_progress",
    "to_json_line",
    "to_one_line",
]

MAY_HAVE_MISSED = "some conversations may have been missed: this server's index can lose entries; try --full-scan"
"""The note after a walk that relied on an index."""

# control characters except tab and line feed; separators and direction marks; lone surrogates, which UTF-8 refuses
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
_UNITS = (("year", 31_536_000), ("month", 2_592_000), ("day", 86_400), ("hour", 3600), ("minute", 60))
_WIDE_TERMINAL = 100  # columns of a terminal
_MAX_ID_WIDTH, _MAX_FIELD_WIDTH, _MIN_TITLE_WIDTH = 28, 20, 10  # columns
_COLUMN_GAP = 2


def escape_controls(text: str) -> str:
    """Return the text with all control characters for terminals made visible."""
    return _UNSAFE.sub(lambda found: get_picture(found[0]) or f"<U+{ord(found[0]):04X}>", text.replace("\r\n", "\n"))


def to_one_line(text: str, longest: int | None = None) -> str:
    """Return the text on one line, with control characters made visible.

    Args:
        text: The text.
        longest: The largest number of characters, of which the last is an ellipsis if the text is cut; None: no limit.
    """
    line = " ".join(escape_controls(text if longest is None else text[: 4 * longest]).split())
    return line if longest is None or len(line) <= longest else f"{line[: longest - 1]}\u2026"


def to_json_line(value: Any) -> str:
    """Return exact JSON on one line, with times in ISO format and control characters escaped."""
    unicode = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    text = json.dumps(value, ensure_ascii=not unicode, separators=(",", ":"), default=datetime.isoformat)
    return _UNSAFE.sub(lambda found: f"\\u{ord(found.group()):04x}", text)


def format_count(number: int, noun: str) -> str:
    """Return a number and its noun, such as "1 message" or "2 messages"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def format_age(time: datetime, now: datetime | None = None) -> str:
    """Return the age of a time, such as "2 hours ago".

    Args:
        time: The time. Less than a minute ago, or in the future, gives "just now".
        now: The present; None: by the clock.
    """
    seconds = ((now or datetime.now(UTC)) - time).total_seconds()
    for unit, size in _UNITS:
        if seconds >= size:
            return f"{format_count(int(seconds // size), unit)} ago"
    return "just now"


def make_console(*, stderr: bool = False) -> Console:
    """Return a console that prints text unchanged: no markup, no emoji codes, no automatic colours."""
    from rich.console import Console  # takes 50 ms, and `--help` does not need it

    return Console(stderr=stderr, markup=False, emoji=False, highlight=False)


def print_json(value: Any) -> None:
    """Print one value as one line of JSON."""
    sys.stdout.write(f"{to_json_line(value)}\n")


def print_rows(columns: Sequence[str], rows: Sequence[Sequence[str]], *, cut: bool = False, fold: bool = False) -> None:
    """Print a table on a terminal, otherwise lines with fields separated by tabs.

    The last column of a table gets the rest of the width. The first is never cut, because people copy it. Empty columns
    are left out, and the model on a narrow terminal.

    Args:
        columns: The headings of the table.
        rows: The fields of each row.
        cut: Cut the last field at the width of the terminal; without it, the field continues on the next line.
        fold: Cut no field: each continues on the next line.
    """
    rows = [tuple(map(to_one_line, row)) for row in rows]
    if not (sys.stdout.isatty() and rows):
        sys.stdout.writelines("\t".join(row) + "\n" for row in rows)
        return
    from rich.cells import cell_len  # only a terminal needs it
    from rich.table import Table
    from rich.text import Text

    screen = make_console()
    width_left = screen.width
    dropped = {"MODEL"} if width_left < _WIDE_TERMINAL else set()
    kept = [index for index, name in enumerate(columns) if name not in dropped and any(row[index] for row in rows)]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for index in kept:
        is_last = index == len(columns) - 1
        max_width = max(width_left, _MIN_TITLE_WIDTH) if is_last else _MAX_FIELD_WIDTH if index else _MAX_ID_WIDTH
        width = None if fold else min(max(cell_len(row[index]) for row in (columns, *rows)), max_width)
        wraps = fold or index == 0 or (is_last and not cut)
        table.add_column(columns[index], width=width, no_wrap=not wraps, overflow="fold" if wraps else "ellipsis")
        width_left -= (width or 0) + _COLUMN_GAP
    for row in rows:
        table.add_row(*(Text(row[index]) for index in kept))
    screen.print(table)


def key_to_json(key: Key | None) -> dict[str, str | None]:
    """Return the id and the scope of a conversation for JSON; None for both if the key is unknown."""
    return {"id": key.id if key else None, "scope": key.scope if key else None}


def damaged_to_json(damaged: Damaged) -> dict[str, Any]:
    """Return a damaged item as a dict for JSON."""
    return {**key_to_json(damaged.key), "damaged": str(damaged.error), "where": damaged.where}


@contextmanager
def show_progress(activity: str, total: Callable[[], int] | None) -> Iterator[Callable[[object], None]]:
    """Draw a progress bar on standard error, if that is a terminal.

    Args:
        activity: The name of the activity, such as "copying".
        total: Counts the steps; called only on a terminal. None: the number of steps is unknown.

    Yields:
        A function to call after each step; it ignores its argument.
    """
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(activity), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=make_console(stderr=True), transient=True) as bar:
        task = bar.add_task(activity, total=total() if total else None)
        yield lambda _: bar.advance(task)
