"""`chathistory list` and `backends`: print a table, lines with tabs, or JSON."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime
from functools import partial
from typing import Any

import click

from chathistory.cli.options import FILTERS, OPTIONS, CommandTarget, format_filters, select_filters, shared_options
from chathistory.cli.output import damaged_to_json, escape_controls, format_age, print_json, print_rows, to_one_line
from chathistory.errors import ChatHistoryError
from chathistory.history import ConversationInfo, History
from chathistory.storage.values import Damaged, Key, Page

__all__ = ["backends", "list_", "read_listing"]

_PAGE = 500  # conversations per call, when all are read


@click.command("list")
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    metavar="N",
    default=20,
    show_default=True,
    help="Print at most N conversations.",
)
@click.option("--after", metavar="CURSOR", help="Continue after this cursor, which the previous list printed.")
@shared_options(*FILTERS, "json")
def list_(limit: int, after: str | None, *, target: CommandTarget, as_json: bool, **given: Any) -> None:
    r"""List conversations, most recently active first.

    It lists the conversations of the scope that match all filters. If standard output is not a terminal, it prints one
    line per conversation with fields separated by tabs: id, messages, time, model, tags, title. A damaged conversation
    has "damaged" in the field of messages, and the reason in the field of the title.

    The last turn of a conversation can lack a reply: it is open (a process is waiting), interrupted or refused. A
    terminal shows which. --open adds three columns before the title: which of these it is, since when, and the process
    that opened the turn.

    \b
    Examples:
      chathistory list
      chathistory list --scope ada --limit 100
      chathistory list --tag work --since 7d
      chathistory list --open
      chathistory list --json | jq -r .id
    """
    filters = select_filters(given)
    with target.open() as history:
        page = read_listing(history, filters, limit=limit, after=after)
        if as_json:
            for row in page.items:
                origin = row.origin.to_dict() if row.origin else None
                print_json(asdict(row) | {"origin": origin, "records": row.records, "tokens": row.tokens})
            for each in page.damaged:
                print_json(damaged_to_json(each))
        else:
            _print_listing(page, with_turn=given["unanswered"])
        if page.damaged:
            click.echo(f"{len(page.damaged)} damaged; examine them with: {target.format_command('doctor')}", err=True)
        if storage_notes := history.store.get_storage_notes():  # what else is stored for it, as far as the store knows
            for row in page.items:
                with suppress(ChatHistoryError):  # damaged or deleted; another line says so
                    for note in storage_notes.list_notes(Key(row.scope, row.id)):
                        click.echo(f"note: {to_one_line(note)}", err=True)
    if page.next:
        words = ("list", "--limit", str(limit), *format_filters(filters), "--after", page.next)
        click.echo(f"more: {target.format_command(*words)}", err=True)
    elif not page.items and not page.damaged and after is None:
        rest = "matches the filters" if filters else f"exists yet; create one with: {target.format_command('chat')}"
        click.echo(f"no conversation in {target}, scope {escape_controls(target.scope)}, {rest}", err=True)


def read_listing(
    history: History, filters: Mapping[str, Any], *, limit: int | None = None, after: str | None = None
) -> Page[ConversationInfo]:
    """Return conversations that match the filters, with as many calls as it takes.

    Args:
        history: The history to list.
        filters: Arguments of `History.list`.
        limit: The largest number of conversations; None: all.
        after: The cursor to continue after; None: from the beginning.
    """
    rows: list[ConversationInfo] = []
    damaged: list[Damaged] = []
    while True:
        page = history.list(limit=limit - len(rows) if limit else _PAGE, after=after, **filters)
        rows += page.items
        damaged += page.damaged
        after = page.next
        if after is None or len(rows) == limit:
            return Page(rows, after, damaged)


def _print_listing(page: Page[ConversationInfo], *, with_turn: bool) -> None:
    """Print rows for people or for programs; with_turn: with all columns on a last turn that has no reply."""
    on_screen = sys.stdout.isatty()
    format_time = format_age if on_screen else partial(datetime.isoformat, timespec="seconds")
    turn_columns = ("TURN", "SINCE", "BY")[: 3 if with_turn else 1 if on_screen else 0]
    columns = ("ID", "MESSAGES", "UPDATED", *(["TOKENS"] if on_screen else []), "MODEL", "TAGS", *turn_columns, "TITLE")
    rows: list[tuple[str, ...]] = []
    for row in page.items:
        turn = ("", "", "")
        if row.turn:
            process = "" if row.turn.pid is None else f"{row.turn.host}/{row.turn.pid}"
            turn = (row.turn.state, format_time(row.turn.since), process)
        tokens = [f"{row.tokens:,}" if row.tokens else ""] if on_screen else []
        head = (row.id, str(row.messages), format_time(row.updated), *tokens, row.model or "", ",".join(row.tags))
        rows.append((*head, *turn[: len(turn_columns)], row.title or row.preview or ""))
    for each in page.damaged:
        name = each.key.id if each.key else each.where
        rows.append((name, "damaged", *[""] * (len(columns) - 3), str(each.error)))
    print_rows(columns, rows, cut=True)


@click.command()
@OPTIONS["json"]
@OPTIONS["debug"]
def backends(*, as_json: bool) -> None:
    r"""List the kinds of store, and whether each works.

    For each that does not work, it says what to install.

    \b
    Example:
      chathistory backends
    """
    from chathistory.storage.plugins import list_backends  # brings pluggy

    found = list(list_backends())
    if as_json:
        for each in found:
            print_json({"scheme": each.scheme, "distribution": each.distribution, "problem": each.problem})
    else:
        rows = [(f"{each.scheme}:", each.distribution, each.problem or "works") for each in found]
        print_rows(("URL", "DISTRIBUTION", "STATE"), rows)
