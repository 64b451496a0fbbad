"""`chathistory list`, `show`, `delete` and `backends`: what there is, as a table, as text, as JSON."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import click

from chathistory.cli.damaged_rows import damaged_fields, damaged_json, notes_of, tell_damaged
from chathistory.cli.escape import json_line, one_line, safe
from chathistory.cli.lookup import absent, found
from chathistory.cli.output import json_option, lines, print_json, table
from chathistory.cli.parsers import filter_options, filter_words, filters
from chathistory.cli.render import ago, body_of, console, is_readable, local_time, mark_of, readable, speaker_of
from chathistory.cli.target import Place, debug_option, place_options
from chathistory.errors import CorruptRecord, UnsupportedRecord
from chathistory.history import ConversationInfo, History
from chathistory.log.entry import Entry
from chathistory.storage.store import Key, Page
from chathistory.view import ViewRepair

__all__ = ["backends", "delete", "list_", "show"]


@click.command("list")
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="How many.")
@click.option("--after", metavar="CURSOR", help="Go on where a list ended; it said with which cursor.")
@filter_options
@click.option("--open", "unanswered", is_flag=True, help="Only those whose last turn has no reply, and why.")
@json_option
@place_options
@debug_option
def list_(limit: int, after: str | None, *, place: Place, unanswered: bool, as_json: bool, **wanted: Any) -> None:
    r"""List conversations, those with the newest activity first.

    All of them, or those that fit all that is asked for. When it does not go to a terminal, one line each: id,
    messages, time, model, tags, title, separated by tabs. One that is damaged has "damaged" in the place of the
    messages, and the reason in that of the title.

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
    with place.opened() as history:
        page = _page(history, limit, after, {"scope": place.scope, "unanswered": unanswered, **filters(wanted)})
        notes = notes_of(history.store, (Key(row.scope, row.id) for row in page.items))
    if as_json:
        for row in page.items:
            print_json(asdict(row) | {"tokens": row.tokens})
        for each in page.damaged:
            print_json(damaged_json(each))
    elif not sys.stdout.isatty():
        for row in page.items:
            fields = _fields(row, row.updated.isoformat(timespec="seconds"))
            lines(["\t".join((*fields[:5], *_turn(row), *fields[5:]) if unanswered else fields)])
        lines("\t".join(damaged_fields(each, 6 if unanswered else 3)) for each in page.damaged)
    elif page.items or page.damaged:
        turn = ("TURN", "SINCE", "BY") if unanswered else ("TURN",)
        columns = ("ID", "MESSAGES", "UPDATED", "TOKENS", "MODEL", "TAGS", *turn, "TITLE")
        rows = [_row(row, len(turn)) for row in page.items]
        rows += [damaged_fields(each, 4 + len(turn)) for each in page.damaged]
        table(columns, rows, cut=True)
    tell_damaged(place, page.damaged)
    for note in notes:
        click.echo(note, err=True)
    _tell_more(place, limit, after, page, [*filter_words(wanted), *(["--open"] if unanswered else [])])


def _page(history: History, limit: int, after: str | None, wanted: dict[str, Any]) -> Page[ConversationInfo]:
    """Return a full page, however many conversations have to be looked at for it."""
    page = history.list(limit=limit, after=after, **wanted)
    rows, damaged = list(page.items), list(page.damaged)
    while page.next and len(rows) < limit:
        page = history.list(limit=limit - len(rows), after=page.next, **wanted)
        rows += page.items
        damaged += page.damaged
    return Page(rows, page.next, damaged)


def _tell_more(place: Place, limit: int, after: str | None, page: Page[ConversationInfo], asked: list[str]) -> None:
    if page.next:
        words = ("list", "--limit", str(limit), *asked, "--after", page.next)
        click.echo(f"more: {place.command(*words)}", err=True)
    elif not page.items and not page.damaged and after is None:
        hint = "that are asked for" if asked else f"yet; begin one with: {place.command('chat')}"
        click.echo(f"no conversations in {place}, scope {safe(place.scope)}, {hint}", err=True)


def _fields(row: ConversationInfo, updated: str) -> tuple[str, ...]:
    title = row.title or row.preview or ""
    fields = (row.id, str(row.messages), updated, row.model or "", ",".join(row.tags), title)
    return tuple(map(one_line, fields))


def _row(row: ConversationInfo, turn_fields: int) -> tuple[str, ...]:
    fields = _fields(row, ago(row.updated))
    tokens = f"{row.tokens:,}" if row.tokens else ""
    state, since, by = _turn(row)
    since = ago(row.turn.since) if row.turn else since
    return (*fields[:3], tokens, *fields[3:5], *(state, since, by)[:turn_fields], *fields[5:])


def _turn(row: ConversationInfo) -> tuple[str, ...]:
    """Return what a last turn without a reply is, since when, and which process opened it; "" for what is not known."""
    if row.turn is None:
        return "", "", ""
    by = "" if row.turn.pid is None else f"{row.turn.host}/{row.turn.pid}"
    return tuple(map(one_line, (row.turn.state, row.turn.since.isoformat(timespec="seconds"), by)))


@click.command()
@click.argument("id")
@click.option("--last", type=click.IntRange(min=1, max=10**9), metavar="N", help="Only the newest N.")
@json_option
@click.option("--messages", "as_sent", is_flag=True, help="The messages as Claude would be sent them, one JSON each.")
@click.option("--damaged", is_flag=True, help="All that can be read of a damaged conversation, and where it cannot.")
@place_options
@debug_option
def show(id: str, last: int | None, *, place: Place, as_json: bool, as_sent: bool, damaged: bool) -> None:
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
    with place.opened() as history:
        if damaged:
            _show_damaged(history, place, id, as_json=as_json)
            return
        conversation = found(history, place, id)
        if as_json:
            lines(json_line(asdict(entry)) for entry in conversation.entries(-last if last else 0))
        elif as_sent:
            lines(map(json_line, conversation.messages()[-(last or 0) :]))
        else:
            _print_entries(readable(conversation, last))


def _print_entries(entries: Sequence[Entry]) -> None:
    screen = console()
    for entry in entries:
        mark = f" ({mark_of(entry)})" if mark_of(entry) else ""
        screen.out(
            f"{speaker_of(entry)}  {local_time(entry.at)}  #{entry.position}{mark}", style="bold", highlight=False
        )
        screen.out(f"{body_of(entry).rstrip()}\n", highlight=False)


def _show_damaged(history: History, place: Place, id: str, *, as_json: bool) -> None:
    """Show all that can be read, whatever is damaged, a portion at a time."""
    count = 0
    for each in history.conversation(id, scope=place.scope).salvage():
        count += 1
        if isinstance(each, ViewRepair):
            told = {"position": each.position, "damaged": each.what}
            lines([json_line(told) if as_json else f"#{each.position}  {one_line(each.what)}\n"])
        elif as_json:
            lines([json_line(asdict(each))])
        elif is_readable(each):
            _print_entries([each])
    if not count:
        raise click.ClickException(safe(absent(place, id)))


@click.command()
@click.argument("id")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@place_options
@debug_option
def delete(id: str, *, place: Place, yes: bool, as_json: bool) -> None:
    r"""Delete a conversation for good.

    \b
    Examples:
      chathistory delete thesis
      chathistory delete thesis --yes
    """
    if not (yes or sys.stdin.isatty()):
        raise click.UsageError("there is no terminal to ask on; add --yes to delete without asking.")
    with place.opened() as history:
        seen = _look(history, place, id)
        if not yes:
            click.confirm(f"Delete {safe(id)} ({seen.size}) for good?", abort=True)
        expected = None if yes else seen.version  # what was agreed to is what was shown
        gone = history.delete(id, scope=place.scope, expected=expected)
    if gone is None:
        raise click.ClickException(absent(place, id))
    if as_json:
        print_json(asdict(gone))
        return
    click.echo(f"deleted {safe(id)}: {seen.size}" + (f", in {gone.records} records" if gone.records else ""))


@dataclass(frozen=True, slots=True)
class _Seen:
    """What was there when it was asked whether to delete it: its size in words, and its version if it can be told."""

    size: str
    version: str | None = None


def _look(history: History, place: Place, id: str) -> _Seen:
    try:
        conversation = found(history, place, id)
        summary, head = conversation.summary, conversation.log.last
    except (CorruptRecord, UnsupportedRecord):
        return _Seen("damaged")
    return _Seen(f"{summary.messages if summary else 0} messages", head.revision.version if head else None)


@click.command()
@json_option
@debug_option
def backends(*, as_json: bool) -> None:
    r"""Show which kinds of store there are, and what those that do not work need.

    \b
    Example:
      chathistory backends
    """
    from chathistory.storage.plugins import backends as known  # noqa: PLC0415 - brings pluggy

    there = list(known())
    if as_json:
        for each in there:
            print_json({"scheme": each.scheme, "distribution": each.distribution, "problem": each.problem})
        return
    rows = [(f"{each.scheme}:", each.distribution, each.problem or "works") for each in there]
    told = [tuple(map(one_line, row)) for row in rows]
    if sys.stdout.isatty():
        table(("URL", "DISTRIBUTION", "STATE"), told)
    else:
        lines("\t".join(line) for line in told)
