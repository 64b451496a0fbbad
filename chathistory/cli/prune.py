"""`chathistory retain`, `erase` and `sweep`: what is kept, and what goes."""

from __future__ import annotations

import sys
from dataclasses import asdict
from datetime import timedelta

import click

from chathistory.cli.damaged_rows import damaged_json, damaged_name, tell_damaged
from chathistory.cli.escape import one_line, safe
from chathistory.cli.output import INCOMPLETE, PARTLY, full_scan_option, json_option, lines, print_json, progress, table
from chathistory.cli.parsers import ParsedBy
from chathistory.cli.render import ago
from chathistory.cli.target import Place, debug_option, place_options
from chathistory.durations import parse_duration
from chathistory.history import History
from chathistory.operations.prune import DeletedConversation, PruneReport

__all__ = ["erase", "retain", "sweep"]

_DURATION = ParsedBy(parse_duration)
_SHOWN = 20
_WHY = {"age": "too old", "ttl": "not active", "count": "too many", "expired": "expired"}


@click.command()
@click.option(
    "--age",
    type=ParsedBy(parse_duration),
    metavar="SPAN",
    help="Remove what was begun longer ago than that, such as 365d.",
)
@click.option(
    "--ttl",
    type=ParsedBy(parse_duration),
    metavar="SPAN",
    help="Remove what was not active for that long, such as 90d or 12h.",
)
@click.option("--count", type=click.IntRange(min=0), metavar="N", help="Keep only the N with the newest activity.")
@click.option("--yes", is_flag=True, help="Do it. Without this option it is only shown.")
@full_scan_option
@json_option
@place_options
@debug_option
def retain(
    *,
    age: timedelta | None,
    ttl: timedelta | None,
    count: int | None,
    yes: bool,
    full_scan: bool,
    place: Place,
    as_json: bool,
) -> int:
    r"""Remove conversations of a scope that are too old or too many, and what has expired; shows them first.

    What is damaged is kept, and named on standard error. When it does not go to a terminal, one line each: id, why,
    messages, time, separated by tabs. The exit code is 3 if some may have been missed, or are damaged.

    \b
    Examples:
      chathistory retain --ttl 90d
      chathistory retain --ttl 90d --count 1000 --yes
    """
    with place.opened() as history, progress("removing", None) as step:
        done = history.prune(
            scope=place.scope, age=age, ttl=ttl, count=count, dry_run=not yes, full_scan=full_scan, progress=step
        )
    if as_json:
        print_json(asdict(done) | {"damaged": [damaged_json(each) for each in done.damaged]})
    elif sys.stdout.isatty():
        _print_table(done)
    else:
        times = (row.updated.isoformat(timespec="seconds") if row.updated else "" for row in done.removed)
        lines("\t".join((*_fields(row), time)) for row, time in zip(done.removed, times, strict=True))
    if not as_json:
        verb = "would remove" if done.dry_run else "removed"
        more = "; --yes does it" if done.dry_run and done.removed else ""
        click.echo(f"{verb} {len(done.removed)} conversations, kept {done.kept}{more}", err=True)
        tell_damaged(place, done.damaged, f"kept: damaged ({', '.join(map(damaged_name, done.damaged))})")
    if not done.complete:
        click.echo(INCOMPLETE, err=True)
    return PARTLY if done.damaged or not done.complete else 0


def _print_table(done: PruneReport) -> None:
    if done.removed:
        table(
            ("ID", "WHY", "MESSAGES", "UPDATED"),
            [(*_fields(row), ago(row.updated) if row.updated else "") for row in done.removed],
        )


def _fields(row: DeletedConversation) -> tuple[str, str, str]:
    return one_line(row.id), _WHY[row.reason or "expired"], str(row.messages)


@click.command()
@click.argument("scope")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@click.option("--store", "url", metavar="URL", envvar="CHATHISTORY_STORE", show_envvar=True, help="Where.")
@debug_option
def erase(scope: str, *, yes: bool, url: str | None, as_json: bool) -> int:
    r"""Remove all conversations of SCOPE for good, and tell what went: for somebody who asks to be forgotten.

    Damaged ones are removed as well. In the end the whole storage is looked through once more; if anything is left, or
    this account may not look through it, that is told, and the exit code is 3. When it does not go to a terminal, one
    line each: id, messages, records, separated by tabs.

    \b
    Examples:
      chathistory erase ada
      chathistory erase ada --yes --json > erased.json
    """
    if not (yes or sys.stdin.isatty()):
        raise click.UsageError("there is no terminal to ask on; add --yes to erase without asking.")
    with Place.of(url, scope).opened() as history:
        if not yes:
            click.confirm(
                f"Erase all {_count(history, scope)} conversations of scope {safe(scope)} for good?", abort=True
            )
        with progress("erasing", lambda: _count(history, scope)) as step:
            gone = history.erase(scope, progress=step)
    if as_json:
        print_json(asdict(gone) | {"messages": gone.messages, "records": gone.records})
        return 0 if gone.complete else PARTLY
    if not sys.stdout.isatty():
        lines(f"{one_line(each.id)}\t{each.messages}\t{each.records}" for each in gone.removed)
    words = f"{len(gone.removed)} conversations, {gone.messages} messages, {gone.records} records"
    words += f", {gone.leftovers} leftovers" if gone.leftovers else ""
    click.echo(f"erased scope {safe(scope)}: {words}", err=True)
    if gone.not_reached:
        click.echo(f"not reached, for the server keeps it itself: {', '.join(gone.not_reached)}", err=True)
    for each in gone.left[:_SHOWN]:
        click.echo(f"still there: {one_line(each)}", err=True)
    if gone.left:
        click.echo(f"{len(gone.left)} pieces are still there, or were begun meanwhile; erase again", err=True)
    elif not gone.complete:
        click.echo("whether anything is left cannot be told: this account may not look through the storage", err=True)
    return 0 if gone.complete else PARTLY


def _count(history: History, scope: str) -> int:
    return sum(1 for _ in history.store.keys(scope))


@click.command()
@json_option
@place_options
@debug_option
def sweep(*, place: Place, as_json: bool) -> None:
    r"""Free the space of what has expired, and of what crashes left over; of all scopes.

    What expired is absent without it, too. To be run daily where the backend needs it: MongoDB and S3.

    \b
    Example:
      chathistory sweep --store s3://bucket/prefix
    """
    with place.opened() as history:
        sweeping = history.store.get_sweeping()
        if sweeping is None:
            raise click.ClickException(safe(f"there is nothing to sweep in {place}: see `retain` for what has expired"))
        done = asdict(sweeping.sweep())
    if as_json:
        print_json(done)
    else:
        lines([", ".join(f"{name}: {count}" for name, count in done.items())])
