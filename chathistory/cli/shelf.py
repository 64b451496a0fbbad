"""`chathistory list`, `show`, `delete` and `backends`: what there is, as a table, as text, as JSON."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

import click

from chathistory.cli.place import Place, debug_option, place_options
from chathistory.cli.render import ago, body_of, console, local_time, mark_of, readable, speaker_of
from chathistory.cli.safe import json_line, one_line, safe
from chathistory.conversation import Conversation
from chathistory.errors import CorruptRecord
from chathistory.history import ConversationInfo, History
from chathistory.log.entry import Entry

__all__ = ["backends", "delete", "list_", "show"]

_NEAR = 200  # so many of the newest conversations are looked through for an id like the one that is not there
_WIDE = 100  # columns of a terminal
_LONGEST_ID, _LONGEST_FIELD, _SHORTEST_TITLE = 28, 20, 10
_GAP = 2
_json = click.option("--json", "as_json", is_flag=True, help="One JSON object per line, with everything.")


@click.command("list")
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="How many.")
@click.option("--after", metavar="CURSOR", help="Go on where a list ended; it said with which cursor.")
@_json
@place_options
@debug_option
def list_(limit: int, after: str | None, *, place: Place, as_json: bool) -> None:
    r"""List conversations, those with the newest activity first.

    When it does not go to a terminal, one line each: id, messages, time, model, tags, title, separated by tabs.

    \b
    Examples:
      chathistory list
      chathistory list --scope ada --limit 100
      chathistory list --json | jq -r .id
    """
    with place.opened() as history:
        page = history.recent(scope=place.scope, limit=limit, after=after)
    if as_json:
        _lines(json_line(_plain(asdict(row))) for row in page.items)
    elif not sys.stdout.isatty():
        _lines("\t".join(_fields(row, row.updated.isoformat(timespec="seconds"))) for row in page.items)
    elif page.items:
        columns = ("ID", "MESSAGES", "UPDATED", "MODEL", "TAGS", "TITLE")
        _table(columns, [_fields(row, ago(row.updated)) for row in page.items], cut=True)
    if not page.items and after is None:
        click.echo(
            f"no conversations in {place}, scope {safe(place.scope)}; begin one with: {place.command('chat')}", err=True
        )
    if page.next:
        click.echo(f"more: {place.command('list', '--limit', str(limit), '--after', page.next)}", err=True)


def _fields(row: ConversationInfo, updated: str) -> tuple[str, ...]:
    title = row.title or row.preview or ""
    fields = (row.id, str(row.messages), updated, row.model or "", ",".join(row.tags), title)
    return tuple(map(one_line, fields))


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in values.items()}


@click.command()
@click.argument("id")
@click.option("--last", type=click.IntRange(min=1), metavar="N", help="Only the newest N.")
@_json
@click.option("--messages", "as_sent", is_flag=True, help="The messages as Claude would be sent them, one JSON each.")
@place_options
@debug_option
def show(id: str, last: int | None, *, place: Place, as_json: bool, as_sent: bool) -> None:
    r"""Show a conversation: who said what, and when.

    With --json, every record of its log, exactly as it is stored.

    \b
    Examples:
      chathistory show thesis --last 10
      chathistory show thesis --json | jq .message
      chathistory show thesis --messages > messages.jsonl
    """
    if as_json and as_sent:
        msg = "--json and --messages exclude each other."
        raise click.UsageError(msg)
    with place.opened() as history:
        conversation = _found(history, place, id)
        if as_json:
            _lines(json_line(asdict(entry)) for entry in conversation.records(-last if last else 0))
        elif as_sent:
            _lines(map(json_line, conversation.messages()[-(last or 0) :]))
        else:
            _print_entries(readable(conversation, last))


def _print_entries(entries: Sequence[Entry]) -> None:
    screen = console()
    for entry in entries:
        mark = f" ({mark_of(entry)})" if mark_of(entry) else ""
        screen.out(f"{speaker_of(entry)}  {local_time(entry.at)}{mark}", style="bold", highlight=False)
        screen.out(f"{body_of(entry).rstrip()}\n", highlight=False)


@click.command()
@click.argument("id")
@click.option("--yes", is_flag=True, help="Do not ask.")
@place_options
@debug_option
def delete(id: str, *, place: Place, yes: bool) -> None:
    r"""Delete a conversation for good.

    \b
    Examples:
      chathistory delete thesis
      chathistory delete thesis --yes
    """
    if not (yes or sys.stdin.isatty()):
        msg = "there is no terminal to ask on; add --yes to delete without asking."
        raise click.UsageError(msg)
    with place.opened() as history:
        size = _size(history, place, id)
        if not yes:
            click.confirm(f"Delete {safe(id)} ({size}) for good?", abort=True)
        gone = history.delete(id, scope=place.scope)
    if gone is None:
        raise click.ClickException(_absent(place, id))
    click.echo(f"deleted {safe(id)}: {size}" + (f", in {gone.records} records" if gone.records else ""))


def _size(history: History, place: Place, id: str) -> str:
    try:
        summary = _found(history, place, id).summary
    except CorruptRecord:
        return "damaged"
    return f"{summary.messages if summary else 0} messages"


def _found(history: History, place: Place, id: str) -> Conversation:
    """Return a conversation that exists. Raises `click.ClickException` with ids like this one otherwise."""
    conversation = history.conversation(id, scope=place.scope)
    if conversation.refresh() is not None:
        return conversation
    names = [row.id for row in history.recent(scope=place.scope, limit=_NEAR).items]
    near = difflib.get_close_matches(id, names, n=3) or [name for name in names if name.startswith(id)][:3]
    hint = f"; did you mean {' or '.join(near)}?" if near else f"; {place.command('list')} shows those that are there"
    raise click.ClickException(safe(f"{_absent(place, id)}{hint}"))


def _absent(place: Place, id: str) -> str:
    return f"there is no conversation {id} in {place}, scope {place.scope}"


@click.command()
@debug_option
def backends() -> None:
    r"""Show which kinds of store there are, and what those that do not work need.

    \b
    Example:
      chathistory backends
    """
    from chathistory.plugins import backends as known  # noqa: PLC0415 - brings pluggy

    rows = [(f"{found.scheme}:", found.distribution, found.problem or "works") for found in known()]
    lines = [tuple(map(one_line, row)) for row in rows]
    if sys.stdout.isatty():
        _table(("URL", "DISTRIBUTION", "STATE"), lines)
    else:
        _lines("\t".join(line) for line in lines)


def _lines(lines: Iterable[str]) -> None:
    for line in lines:
        sys.stdout.write(f"{line}\n")


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, cut: bool = False) -> None:
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
    table = Table(box=None, pad_edge=False, header_style="bold")
    for index in kept:
        longest = _LONGEST_FIELD if index else _LONGEST_ID
        if index == len(columns) - 1:
            longest = max(room, _SHORTEST_TITLE)
        width = min(max(cell_len(row[index]) for row in (columns, *rows)), longest)
        wraps = index == 0 or (index == len(columns) - 1 and not cut)
        table.add_column(columns[index], width=width, no_wrap=not wraps, overflow="fold" if wraps else "ellipsis")
        room -= width + _GAP
    for row in rows:
        table.add_row(*(Text(row[index]) for index in kept))
    screen.print(table)
