"""`chathistory list`, `show` and `backends`: as a table, as text, as JSON."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from functools import partial
from typing import Any

import click

from chathistory.cli.escape import show_controls, to_json_line, to_one_line
from chathistory.cli.output import (
    damaged_as_json,
    damaged_as_row,
    print_json,
    print_lines,
    print_notes,
    print_rows,
)
from chathistory.cli.parsers import filter_options, format_filters, select_filters
from chathistory.cli.render import (
    ShownEntry,
    describe_mark,
    format_age,
    format_body,
    load_readable,
    local_time,
    make_console,
    name_speaker,
    shown_entry,
)
from chathistory.cli.target import OPTIONS, Target, id_argument, shared_options
from chathistory.history import ConversationInfo, History
from chathistory.storage.values import Key, Page
from chathistory.view import ViewRepair

__all__ = ["backends", "list_", "show"]


@click.command("list")
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="How many.")
@click.option("--after", metavar="CURSOR", help="Continue where a list ended; it said with which cursor.")
@filter_options
@shared_options("json")
def list_(limit: int, after: str | None, *, target: Target, as_json: bool, **given: Any) -> None:
    r"""List conversations, those with the newest activity first.

    All of the scope, or those that match all filters. When it does not go to a terminal, one line each: id, messages,
    time, model, tags, title, separated by tabs. A damaged one has "damaged" in place of the messages, and the reason
    in place of the title.

    A last turn without a reply is open (a process waits for it), interrupted or refused: a terminal shows that, and
    with --open three more columns stand before the title: which of these, since when, and the process that opened it.

    \b
    Examples:
      chathistory list
      chathistory list --scope ada --limit 100
      chathistory list --tag work --since 7d
      chathistory list --open
      chathistory list --json | jq -r .id
    """
    filters = select_filters(given)
    with target.opened() as history:
        page = _read_page(history, limit, after, filters)
        if as_json:
            for row in page.items:
                print_json(asdict(row) | {"records": row.records, "tokens": row.tokens})
            for each in page.damaged:
                print_json(damaged_as_json(each))
        else:
            _print_page(page, with_turn=given["unanswered"])
        if page.damaged:
            click.echo(f"{len(page.damaged)} damaged; examine them with: {target.command('doctor')}", err=True)
        print_notes(history.store, (Key(row.scope, row.id) for row in page.items))
    if page.next:
        words = ("list", "--limit", str(limit), *format_filters(filters), "--after", page.next)
        click.echo(f"more: {target.command(*words)}", err=True)
    elif not page.items and not page.damaged and after is None:
        hint = "match the filters" if filters else f"exist yet; create one with: {target.command('chat')}"
        click.echo(f"no conversations in {target}, scope {show_controls(target.scope)}, {hint}", err=True)


def _read_page(history: History, limit: int, after: str | None, wanted: Mapping[str, Any]) -> Page[ConversationInfo]:
    """Return a full page, however many conversations have to be looked at for it."""
    page = history.list(limit=limit, after=after, **wanted)
    rows, damaged = list(page.items), list(page.damaged)
    while page.next and len(rows) < limit:
        page = history.list(limit=limit - len(rows), after=page.next, **wanted)
        rows += page.items
        damaged += page.damaged
    return Page(rows, page.next, damaged)


def _print_page(page: Page[ConversationInfo], *, with_turn: bool) -> None:
    """Print rows for people or for programs; with_turn: with all that is known of a last turn without a reply."""
    on_screen = sys.stdout.isatty()
    turn = ("TURN", "SINCE", "BY") if with_turn else ("TURN",) if on_screen else ()
    tokens = ("TOKENS",) if on_screen else ()
    columns = ("ID", "MESSAGES", "UPDATED", *tokens, "MODEL", "TAGS", *turn, "TITLE")
    rows = [_format_row(row, turn_fields=len(turn), on_screen=on_screen) for row in page.items]
    damaged = [damaged_as_row(each, len(columns) - 3) for each in page.damaged]
    print_rows(columns, [*rows, *damaged], cut=True)


def _format_row(row: ConversationInfo, *, turn_fields: int, on_screen: bool) -> tuple[str, ...]:
    format_time = format_age if on_screen else partial(datetime.isoformat, timespec="seconds")
    turn: tuple[str, ...] = ("", "", "")
    if row.turn:
        process = "" if row.turn.pid is None else f"{row.turn.host}/{row.turn.pid}"
        turn = (row.turn.state, format_time(row.turn.since), process)
    tokens = (f"{row.tokens:,}" if row.tokens else "",) if on_screen else ()
    head = (row.id, str(row.messages), format_time(row.updated), *tokens, row.model or "", ",".join(row.tags))
    return (*head, *turn[:turn_fields], row.title or row.preview or "")


@click.command()
@id_argument
@click.option("--last", type=click.IntRange(min=1, max=10**9), metavar="N", help="Only the newest N.")
@click.option("--messages", "as_sent", is_flag=True, help="The messages as Claude would be sent them, one JSON each.")
@click.option("--damaged", is_flag=True, help="All that can be read of a damaged conversation, and where it cannot.")
@shared_options("json")
def show(id: str, last: int | None, *, target: Target, as_json: bool, as_sent: bool, damaged: bool) -> None:
    r"""Show a conversation: who said what, when, and at which position (for fork and rewind).

    With --json, every record of its log, exactly as it is stored. With --damaged, each record that cannot be read is
    named in its place.

    \b
    Examples:
      chathistory show thesis --last 10
      chathistory show thesis --json | jq .message
      chathistory show thesis --messages > messages.jsonl
    """
    if as_json and as_sent:
        raise click.UsageError("--json and --messages exclude each other.")
    if damaged and (as_sent or last):
        raise click.UsageError("--damaged shows the whole log; leave out --messages and --last.")
    with target.opened() as history:
        if damaged:
            _show_damaged(history, target, id, as_json=as_json)
            return
        conversation = target.find(history, id)
        if as_json:
            print_lines(to_json_line(entry.to_dict()) for entry in conversation.entries(-last if last else 0))
        elif as_sent:
            print_lines(map(to_json_line, conversation.messages()[-(last or 0) :]))
        else:
            _print_entries(load_readable(conversation, last))


def _print_entries(entries: Sequence[ShownEntry]) -> None:
    screen = make_console()
    for entry in entries:
        mark = f" ({describe_mark(entry)})" if describe_mark(entry) else ""
        screen.out(
            f"{name_speaker(entry)}  {local_time(entry.at)}  #{entry.position}{mark}", style="bold", highlight=False
        )
        screen.out(f"{format_body(entry).rstrip()}\n", highlight=False)


def _show_damaged(history: History, target: Target, id: str, *, as_json: bool) -> None:
    """Show all that can be read, whatever is damaged, a portion at a time."""
    is_empty = True
    for each in history.conversation(id).salvage():
        is_empty = False
        if isinstance(each, ViewRepair):
            found = {"position": each.position, "damaged": each.what}
            print_lines([to_json_line(found) if as_json else f"#{each.position}  {to_one_line(each.what)}\n"])
        elif as_json:
            print_lines([to_json_line(each.to_dict())])
        elif shown := shown_entry(each):
            _print_entries([shown])
    if is_empty:
        raise target.absent(id)


@click.command()
@OPTIONS["json"]
@OPTIONS["debug"]
def backends(*, as_json: bool) -> None:
    r"""Show which kinds of store there are, and what those that do not work need.

    \b
    Example:
      chathistory backends
    """
    from chathistory.storage.plugins import backends as list_backends  # brings pluggy

    found = list(list_backends())
    if as_json:
        for each in found:
            print_json({"scheme": each.scheme, "distribution": each.distribution, "problem": each.problem})
    else:
        rows = [(f"{each.scheme}:", each.distribution, each.problem or "works") for each in found]
        print_rows(("URL", "DISTRIBUTION", "STATE"), rows)
