"""`chathistory export`, `import` and `copy`: conversations into files, out of them, and from store to store."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import click

from chathistory.cli.escape import json_line, one_line
from chathistory.cli.output import INCOMPLETE, PARTLY, full_scan_option, json_option, progress
from chathistory.cli.target import Place, debug_option, place_options
from chathistory.history import History
from chathistory.storage.store import Damaged
from chathistory.transfer.copy import CopyReport

__all__ = ["copy", "export", "import_"]

_SHOWN = 20
_ids = click.argument("ids", nargs=-1, metavar="[ID]...")


def _counting(history: History, scope: str | None, ids: list[str] | None) -> Callable[[], int]:
    return lambda: sum(1 for _ in history.store.keys(scope)) if ids is None else len(ids)


def _chosen(place: Place) -> str | None:
    """Return the scope that was asked for; None: all."""
    return place.scope if place.chosen else None


@click.command()
@_ids
@click.option(
    "--output",
    "-o",
    default="-",
    show_default=True,
    metavar="FILE",
    help="A file, compressed if it ends in .gz; - is standard output.",
)
@click.option("--markdown", is_flag=True, help="Markdown, for people; also if FILE ends in .md.")
@click.option("--force", is_flag=True, help="Replace FILE if it is there.")
@click.option("--salvage", is_flag=True, help="Of damaged conversations write what can be read.")
@full_scan_option
@json_option
@place_options
@debug_option
def export(
    ids: tuple[str, ...],
    *,
    output: str,
    markdown: bool,
    force: bool,
    salvage: bool,
    full_scan: bool,
    place: Place,
    as_json: bool,
) -> int:
    r"""Write conversations into a file: those that are named, or all of the scope, or all if no scope is given.

    JSON lines that `import` reads back to the character. FILE is there only when all is written. What is damaged is
    named on standard error and left out, and the exit code is 3; the file can be imported all the same.

    \b
    Examples:
      chathistory export -o everything.jsonl.gz
      chathistory export thesis -o thesis.md
      chathistory export --scope ada | gzip > ada.jsonl.gz
    """
    if output == "-" and sys.stdout.isatty():
        raise click.UsageError("standard output is a terminal; add --output FILE, or send it into a pipe.")
    if output != "-" and Path(output).exists() and not force:
        raise click.UsageError(f"{output} is there already; add --force to replace it.")
    scope, names = _chosen(place), list(ids) or None
    with place.opened() as history, progress("exporting", _counting(history, scope, names)) as step:
        report = history.export_to(
            sys.stdout.buffer if output == "-" else output,
            scope=scope,
            ids=names,
            format="markdown" if markdown else None,
            salvage=salvage,
            full_scan=full_scan,
            progress=step,
        )
    counts = {"conversations": report.conversations, "records": report.records, "later": report.later}
    not_done = [_NotDone(key.id, key.scope, str(why)) for key, why in report.failed.items()]
    not_done += [_NotDone(key.id, key.scope, f"{lost} records are lost") for key, lost in report.salvaged.items()]
    not_done += map(_not_told, report.damaged)
    return _told("exported", counts, not_done, as_json=as_json, all_found=report.all_found, err=output == "-")


@click.command("import")
@click.argument("file")
@click.option("--id", metavar="ID", help="The name for a plain list of messages.")
@click.option("--replace", is_flag=True, help="Replace what is there under the same name and is something else.")
@json_option
@place_options
@debug_option
def import_(file: str, *, id: str | None, replace: bool, place: Place, as_json: bool) -> int:
    r"""Store what a file (- is standard input) holds: an export, or a list of messages in JSON.

    An export's conversations go into the scopes in which they were, unless one is given. What is there already is
    skipped, so an import that broke off is just made again. Parts of the file that cannot be read are passed over and
    named, and the exit code is 3.

    \b
    Examples:
      chathistory import everything.jsonl.gz
      chathistory import messages.json --id thesis
    """
    with place.opened() as history, progress("importing", None) as step:
        source = sys.stdin.buffer if file == "-" else file
        report = history.import_from(source, id=id, scope=_chosen(place), replace=replace, progress=step)
    return _arrived("imported", report, as_json=as_json)


@click.command()
@_ids
@click.option("--to", "target", metavar="URL", required=True, help="The store to copy into.")
@click.option("--replace", is_flag=True, help="Replace what is there under the same name and is something else.")
@click.option("--verify/--no-verify", default=True, show_default=True, help="Read each copy back and compare.")
@click.option("--threads", type=click.IntRange(1, 64), default=4, show_default=True, help="So many at once.")
@full_scan_option
@json_option
@place_options
@debug_option
def copy(
    ids: tuple[str, ...],
    *,
    target: str,
    replace: bool,
    verify: bool,
    threads: int,
    full_scan: bool,
    place: Place,
    as_json: bool,
) -> int:
    r"""Copy conversations into another store: those that are named, or all of the scope, or all if none is given.

    Positions, times and order stay as they are. A copy that broke off, or that is to be brought up to date, is just
    made again: what is there already is skipped.

    \b
    Examples:
      chathistory copy --to redis://localhost
      chathistory copy --store file:./history --scope ada --to s3://bucket/history
    """
    from chathistory.storage.plugins import open_store  # noqa: PLC0415 - brings pluggy

    scope, names = _chosen(place), list(ids) or None
    with ExitStack() as opened:
        history = opened.enter_context(place.opened())
        other = opened.enter_context(open_store(target))
        step = opened.enter_context(progress("copying", _counting(history, scope, names)))
        report = history.copy_to(
            other,
            scope=scope,
            ids=names,
            replace=replace,
            verify=verify,
            threads=threads,
            full_scan=full_scan,
            progress=step,
        )
    return _arrived("copied", report, as_json=as_json)


def _arrived(done: str, report: CopyReport, *, as_json: bool) -> int:
    counts = {name: getattr(report, name) for name in ("copied", "continued", "same", "records", "later")}
    not_done = [_NotDone(key.id, key.scope, _DIFFERENT) for key in report.different]
    not_done += [_NotDone(key.id, key.scope, str(why)) for key, why in report.failed.items()]
    not_done += map(_not_told, report.damaged)
    not_done += [_NotDone(None, None, f"passed over: {what}") for what in report.skipped]
    return _told(done, counts, not_done, as_json=as_json, all_found=report.all_found)


@dataclass(frozen=True, slots=True)
class _NotDone:
    """Something that could not be done; what has no id is named by its place in the storage, or not at all."""

    id: str | None
    scope: str | None
    why: str
    where: str | None = None

    @property
    def name(self) -> str:
        if self.id is not None and self.scope is not None:
            return f"{one_line(self.id)} in scope {one_line(self.scope)}: "
        return f"{one_line(self.where)}: " if self.where else ""


def _not_told(damaged: Damaged) -> _NotDone:
    key = damaged.key
    return _NotDone(key.id if key else None, key.scope if key else None, str(damaged.error), damaged.where)


_DIFFERENT = "something else is there under this name, and stayed; --replace replaces it"


def _told(
    done: str,
    counts: Mapping[str, int],
    not_done: Sequence[_NotDone],
    *,
    as_json: bool,
    all_found: bool,
    err: bool = False,
) -> int:
    """Tell what was done, and what was not; return the exit code."""
    code = PARTLY if not_done or not all_found else 0
    if as_json:
        rest = [{"scope": each.scope, "id": each.id, "where": each.where, "why": each.why} for each in not_done]
        click.echo(json_line({**counts, "not_done": rest, "all_found": all_found}), err=err)
        return code
    told = [f"{counts['conversations']} conversations"] if "conversations" in counts else []
    told += [f"{counts[name]} {words}" for name, words in _WORDS.items() if counts.get(name)]
    click.echo(f"{done}: {', '.join(told) or 'nothing, there are no conversations'}", err=err)
    for each in not_done[:_SHOWN]:
        click.echo(f"not {done}: {each.name}{one_line(each.why)}", err=True)
    if len(not_done) > _SHOWN:
        click.echo(f"not {done}: {len(not_done) - _SHOWN} more; --json tells all", err=True)
    if not all_found:
        click.echo(INCOMPLETE, err=True)
    return code


_WORDS = {
    "copied": "whole",
    "continued": "continued",
    "same": "there already",
    "records": "records",
    "later": "of a later format, kept as they are",
}
