"""`chathistory delete`, `prune` and `sweep`: remove conversations permanently.

`delete` removes what the user names: ids, all conversations that match every filter, or a whole scope. `prune` removes
conversations that exceed any of its limits, and always keeps damaged ones, so it is safe to run daily. The two differ
in too much to be one command.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

import click

from chathistory.cli.errors import ExitCode
from chathistory.cli.listing import read_listing
from chathistory.cli.options import DURATION, FILTERS, CommandTarget, ids_argument, select_filters, shared_options
from chathistory.cli.output import (
    MAY_HAVE_MISSED,
    damaged_to_json,
    escape_controls,
    format_age,
    format_count,
    print_json,
    print_rows,
    show_progress,
    to_one_line,
)
from chathistory.errors import Conflict
from chathistory.history import History
from chathistory.operations.remove_conversations import DeletedConversation

__all__ = ["delete", "prune", "sweep"]

_MAX_SHOWN = 20
_REASONS = {"age": "too old", "ttl": "not active", "count": "too many", "expired": "expired", None: ""}


@click.command()
@ids_argument
@click.option(
    "--all",
    "everything",
    is_flag=True,
    help="Delete the whole scope that --scope names, expired and damaged conversations too.",
)
@shared_options(*FILTERS, "dry_run", "yes", "json")
def delete(
    ids: tuple[str, ...],
    *,
    everything: bool,
    dry_run: bool,
    yes: bool,
    target: CommandTarget,
    as_json: bool,
    **given: Any,
) -> int:
    r"""Delete conversations permanently.

    Give IDs, or filters (a conversation must match all of them), or --all for a whole scope. A conversation is kept if
    somebody changed it after it was shown or found by a filter.

    --all is for users who ask to be forgotten: it searches the whole storage again at the end. If anything is left, or
    this account may not search the storage, standard error says so and the exit code is 3.

    If standard output is not a terminal, it prints one line per conversation with fields separated by tabs: id,
    messages, records, time.

    \b
    Examples:
      chathistory delete thesis notes
      chathistory delete --tag draft --until 90d --dry-run
      chathistory delete --scope ada --all --yes --json > deleted.json
    """
    filters = select_filters(given)
    if (bool(ids), bool(filters), everything).count(True) != 1:
        raise click.UsageError("give one of these to delete: IDs, filters such as --tag, or --scope NAME --all.")
    if everything and "--scope" not in target.flags[::2]:
        raise click.UsageError("--all deletes a whole scope: name it with --scope.")
    _check_can_ask(yes=yes or dry_run)
    with target.open() as history:
        if everything:
            return _delete_scope(history, dry_run=dry_run, yes=yes, as_json=as_json)
        versions = {id: target.find_version(history, id) for id in ids}
        if not ids:
            versions = {row.id: row.version for row in read_listing(history, filters).items}
        if versions and not (yes or dry_run):
            rows = [row for id in versions if (row := history.delete(id, dry_run=True))]
            name = ids[0] if len(ids) == 1 else format_count(len(rows), "conversation")
            _confirm_removal(f"Delete {name} ({_count_messages(rows)})", [] if ids or as_json else rows)
        if ids and yes:  # named and not confirmed: delete it whatever its version is
            versions = dict.fromkeys(versions)
        removed, kept = _delete_versions(history, versions, dry_run=dry_run)
    if as_json:
        left = [{"id": id, "scope": target.scope, "why": why} for id, why in kept.items()]
        print_json({"removed": [asdict(row) for row in removed], "left": left, "dry_run": dry_run})
    else:
        _report_removed(removed, is_shown=not (yes or dry_run), dry_run=dry_run)
        for id, why in kept.items():
            click.echo(f"not deleted: {to_one_line(id)}: {why}", err=True)
    return (ExitCode.PARTLY if removed else ExitCode.FAILED) if kept else ExitCode.OK


def _delete_versions(
    history: History, versions: Mapping[str, str | None], *, dry_run: bool
) -> tuple[list[DeletedConversation], dict[str, str]]:
    """Delete conversations that still have these versions.

    Args:
        history: The history.
        versions: The version of each conversation, by its id; None: any.
        dry_run: Whether to only return what would be deleted.

    Returns:
        The deleted conversations, and by its id the reason why a conversation was kept.
    """
    removed: list[DeletedConversation] = []
    kept: dict[str, str] = {}
    for id, version in versions.items():
        try:
            row = history.delete(id, expected=version, dry_run=dry_run)
        except Conflict:
            kept[id] = "somebody changed it in the meantime"
            continue
        if row:
            removed.append(row)
        else:
            kept[id] = "somebody else deleted it in the meantime"
    return removed, kept


def _check_can_ask(*, yes: bool) -> None:
    """Raise `click.UsageError` if the command must ask for confirmation and has no terminal."""
    if not (yes or sys.stdin.isatty()):
        raise click.UsageError(
            "there is no terminal to ask on; add --yes to delete without asking, or --dry-run to only show it."
        )


def _delete_scope(history: History, *, dry_run: bool, yes: bool, as_json: bool) -> int:
    def count_stored() -> int:
        return sum(1 for _ in history.store.keys(history.scope))

    if not (yes or dry_run):
        _confirm_removal(f"Delete all of scope {history.scope} ({format_count(count_stored(), 'conversation')})")
    with show_progress("deleting", count_stored) as step:
        report = history.erase(dry_run=dry_run, progress=step)
    if as_json:
        totals = {"messages": report.messages, "records": report.records, "dry_run": dry_run}
        print_json(asdict(report) | totals)
    else:
        _report_removed(report.removed, is_shown=False, dry_run=dry_run)
        if report.leftovers:
            click.echo(
                f"also deleted: {format_count(report.leftovers, 'leftover piece')} that belonged to no conversation",
                err=True,
            )
        if report.not_reached:
            click.echo(f"not removed, because the server keeps copies there: {', '.join(report.not_reached)}", err=True)
        for each in report.left[:_MAX_SHOWN]:
            click.echo(f"not deleted: {to_one_line(each)}", err=True)
        if report.left:
            click.echo(
                f"left, or new in the meantime: {format_count(len(report.left), 'piece')}; run the command again",
                err=True,
            )
        elif not report.complete and not dry_run:
            click.echo("cannot tell whether anything is left: this account may not search the whole storage", err=True)
    return ExitCode.OK if report.complete else ExitCode.PARTLY


@click.command()
@click.option(
    "--age", type=DURATION, metavar="DURATION", help="Remove conversations created longer ago than this, such as 365d."
)
@click.option(
    "--ttl", type=DURATION, metavar="DURATION", help="Remove conversations with no activity for this long, such as 90d."
)
@click.option(
    "--count", type=click.IntRange(min=0), metavar="N", help="Keep only the N conversations with the newest activity."
)
@shared_options("dry_run", "yes", "full_scan", "json")
def prune(*, dry_run: bool, yes: bool, target: CommandTarget, as_json: bool, **limits: Any) -> int:
    r"""Remove conversations that are too old or too many.

    It removes the conversations of one scope that exceed any of the limits, and those that have expired. It keeps
    damaged ones and names them on standard error. The exit code is 3 if some are damaged or may have been missed.

    If standard output is not a terminal, it prints one line per conversation with fields separated by tabs: id,
    messages, records, time, reason.

    \b
    Examples:
      chathistory prune --ttl 90d --dry-run
      chathistory prune --ttl 90d --count 1000 --yes
    """
    _check_can_ask(yes=yes or dry_run)
    with target.open() as history:
        if not (yes or dry_run):
            found = history.prune(dry_run=True, **limits)
            if found.removed:
                _confirm_removal(
                    f"Remove {format_count(len(found.removed), 'conversation')}", [] if as_json else found.removed
                )
        with show_progress("removing", None) as step:
            report = history.prune(dry_run=dry_run, progress=step, **limits)
    if as_json:
        print_json(asdict(report) | {"damaged": [damaged_to_json(each) for each in report.damaged]})
    else:
        _report_removed(report.removed, is_shown=not (yes or dry_run), dry_run=dry_run, more=f"; kept {report.kept}")
        for each in report.damaged:
            name = each.key.id if each.key else each.where
            click.echo(
                f"kept: {to_one_line(name)} is damaged; examine it with: {target.format_command('doctor')}", err=True
            )
    if not report.complete:
        click.echo(MAY_HAVE_MISSED, err=True)
    return ExitCode.PARTLY if report.damaged or not report.complete else ExitCode.OK


def _confirm_removal(what: str, shown: Sequence[DeletedConversation] = ()) -> None:
    """Show what would be removed and ask on standard error; end the command if the answer is no."""
    _print_removed(shown)
    click.confirm(escape_controls(f"{what} permanently?"), abort=True, err=True)


def _print_removed(removed: Sequence[DeletedConversation]) -> None:
    format_time = format_age if sys.stdout.isatty() else datetime.isoformat
    rows = [
        (
            row.id,
            "damaged" if row.messages is None else str(row.messages),
            "" if row.records is None else str(row.records),
            format_time(row.updated) if row.updated else "",
            _REASONS[row.reason],
        )
        for row in removed
    ]
    print_rows(("ID", "MESSAGES", "RECORDS", "UPDATED", "WHY"), rows)


def _count_messages(rows: Sequence[DeletedConversation]) -> str:
    damaged = sum(row.messages is None for row in rows)
    words = format_count(sum(row.messages or 0 for row in rows), "message")
    return f"{words}, {damaged} damaged" if damaged else words


def _report_removed(rows: Sequence[DeletedConversation], *, is_shown: bool, dry_run: bool, more: str = "") -> None:
    """Print the removed conversations, unless they have been shown already, and the totals."""
    if not is_shown:
        _print_removed(rows)
    verb = "would delete" if dry_run else "deleted"
    records = format_count(sum(row.records or 0 for row in rows), "record")
    click.echo(f"{verb} {format_count(len(rows), 'conversation')}: {_count_messages(rows)}, {records}{more}", err=True)


@click.command()
@shared_options("json")
def sweep(*, target: CommandTarget, as_json: bool) -> None:
    r"""Free the space of expired conversations, in all scopes.

    It also removes what crashes left over. Expired conversations are invisible even before it runs. Run it daily on
    backends that need it: MongoDB and S3.

    \b
    Example:
      chathistory sweep --store s3://bucket/prefix
    """
    with target.open() as history:
        sweeping = history.store.get_sweeping()
        if sweeping is None:
            raise click.ClickException(
                f"this kind of store needs no sweep ({target}); `chathistory prune` removes expired conversations"
            )
        swept = asdict(sweeping.sweep())
    if as_json:
        print_json(swept)
    else:
        click.echo(", ".join(f"{name}: {count}" for name, count in swept.items()))
