"""What commands print: text that a terminal must not obey, tables, JSON, times, and a bar while something takes long.

A message can hold anything. An escape sequence in it could move the cursor, change the window's title or fake a
prompt, and a character that turns the direction of writing could show something else than what is there. So stored
text goes through `escape_controls`, `to_one_line` or `to_json_line` on its way to a terminal.
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
"""What to say of a walk that relied on an index."""

# control characters but for tab and line feed; separators and marks of direction; what no encoding takes
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
_UNITS = (("year", 31_536_000), ("month", 2_592_000), ("day", 86_400), ("hour", 3600), ("minute", 60))
_WIDE = 100  # columns of a terminal
_LONGEST_ID, _LONGEST_FIELD, _SHORTEST_TITLE = 28, 20, 10
_GAP = 2


def escape_controls(text: str) -> str:
    """Return the text with every character that a terminal would obey made visible."""
    return _UNSAFE.sub(lambda found: get_picture(found[0]) or f"<U+{ord(found[0]):04X}>", text.replace("\r\n", "\n"))


def to_one_line(text: str, longest: int | None = None) -> str:
    """Return the text, safe, on one line; with `longest`, cut to so many characters with an ellipsis."""
    line = " ".join(escape_controls(text if longest is None else text[: 4 * longest]).split())
    return line if longest is None or len(line) <= longest else f"{line[: longest - 1]}\u2026"


def to_json_line(value: Any) -> str:
    """Return one line of JSON that is exact, with times as text; what a terminal would obey is escaped."""
    unicode = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    text = json.dumps(value, ensure_ascii=not unicode, separators=(",", ":"), default=datetime.isoformat)
    return _UNSAFE.sub(lambda found: f"\\u{ord(found.group()):04x}", text)


def format_count(number: int, noun: str) -> str:
    """Return a number with its noun, such as "1 message" and "2 messages"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def format_age(time: datetime, now: datetime | None = None) -> str:
    """Return how long ago a time was, such as "2 hours ago"; "just now" within a minute, and for what is to come."""
    seconds = ((now or datetime.now(UTC)) - time).total_seconds()
    for unit, size in _UNITS:
        if seconds >= size:
            return f"{format_count(int(seconds // size), unit)} ago"
    return "just now"


def make_console(*, stderr: bool = False) -> Console:
    """Return a console that takes text as it is: no markup, no emoji codes, no colours by guessing."""
    from rich.console import Console  # 50 ms that `--help` can do without

    return Console(stderr=stderr, markup=False, emoji=False, highlight=False)


def print_json(value: Any) -> None:
    """Print one value as one line of JSON."""
    sys.stdout.write(f"{to_json_line(value)}\n")


def print_rows(columns: Sequence[str], rows: Sequence[Sequence[str]], *, cut: bool = False, fold: bool = False) -> None:
    """Print rows for whoever reads them: a table on a terminal, else lines with tabs.

    The last column of a table gets what is left of the width. The first is never cut, for it is what people copy.
    Columns with nothing in them are left out, and the model where there is no room for it.

    Args:
        columns: The heads of the table.
        rows: Their fields.
        cut: Cut the last field to the width of the terminal, in place of continuing it in the next line.
        fold: Cut nothing: continue every field in the next line.
    """
    rows = [tuple(map(to_one_line, row)) for row in rows]
    if not (sys.stdout.isatty() and rows):
        sys.stdout.writelines("\t".join(row) + "\n" for row in rows)
        return
    from rich.cells import cell_len  # only a terminal needs it
    from rich.table import Table
    from rich.text import Text

    screen = make_console()
    room = screen.width
    dropped = {"MODEL"} if room < _WIDE else set()
    kept = [index for index, name in enumerate(columns) if name not in dropped and any(row[index] for row in rows)]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for index in kept:
        is_last = index == len(columns) - 1
        longest = max(room, _SHORTEST_TITLE) if is_last else _LONGEST_FIELD if index else _LONGEST_ID
        width = None if fold else min(max(cell_len(row[index]) for row in (columns, *rows)), longest)
        wraps = fold or index == 0 or (is_last and not cut)
        table.add_column(columns[index], width=width, no_wrap=not wraps, overflow="fold" if wraps else "ellipsis")
        room -= (width or 0) + _GAP
    for row in rows:
        table.add_row(*(Text(row[index]) for index in kept))
    screen.print(table)


def key_to_json(key: Key | None) -> dict[str, str | None]:
    """Return the id and the scope of a conversation, for JSON; null if they are not known."""
    return {"id": key.id if key else None, "scope": key.scope if key else None}


def damaged_to_json(damaged: Damaged) -> dict[str, Any]:
    """Return what is known of something that is damaged, for JSON."""
    return {**key_to_json(damaged.key), "damaged": str(damaged.error), "where": damaged.where}


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
