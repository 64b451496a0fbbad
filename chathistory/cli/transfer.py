"""`chathistory export`, `import` and `copy`: move conversations to files, from files, and between stores."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click

from chathistory.cli.errors import ExitCode
from chathistory.cli.options import CommandTarget, ids_argument, shared_options
from chathistory.cli.output import MAY_HAVE_MISSED, format_count, key_to_json, show_progress, to_json_line, to_one_line
from chathistory.history import History
from chathistory.storage.values import Key
from chathistory.transfer.copy import CopyReport

__all__ = ["copy", "export", "import_"]

_MAX_SHOWN = 20
_WORDS = {
    "copied": "new",
    "continued": "continued",
    "same": "already there",
    "records": "records",
    "later": "in a later format, kept unchanged",
}


@click.command()
@ids_argument
@click.option(
    "--output",
    "-o",
    default="-",
    show_default=True,
    metavar="FILE",
    help="File to write, compressed if its name ends in .gz; - is standard output.",
)
@click.option("--markdown", is_flag=True, help="Write Markdown, for people; the default if FILE ends in .md.")
@click.option("--force", is_flag=True, help="Replace FILE if it exists.")
@click.option("--salvage", is_flag=True, help="Write what can be read of damaged conversations.")
@shared_options("full_scan", "json", "all_scopes")
def export(
    ids: tuple[str, ...],
    *,
    output: str,
    markdown: bool,
    force: bool,
    target: CommandTarget,
    as_json: bool,
    **options: Any,
) -> int:
    r"""Write conversations to a file.

    It exports the conversations with the given IDs, all of the scope, or all of the store with --all-scopes. The format
    is JSON lines, which `chathistory import` reads back exactly. FILE appears only when everything is written. Damaged
    conversations are left out and named on standard error, and the exit code is 3; the file can still be imported.

    \b
    Examples:
      chathistory export --all-scopes -o everything.jsonl.gz
      chathistory export thesis -o thesis.md
      chathistory export --scope ada | gzip > ada.jsonl.gz
    """
    _check_ids(target, ids)
    if output == "-" and sys.stdout.isatty():
        raise click.UsageError("standard output is a terminal; add --output FILE, or use a pipe.")
    if output != "-" and Path(output).exists() and not force:
        raise click.UsageError(f"{output} exists already; add --force to replace it.")
    with (
        target.open() as history,
        show_progress("exporting", lambda: _count_conversations(history, target, ids)) as step,
    ):
        report = history.export_to(
            sys.stdout.buffer if output == "-" else output,
            all_scopes=target.all_scopes,
            ids=list(ids) or None,
            format="markdown" if markdown else None,
            progress=step,
            **options,
        )
    counts = {"conversations": report.conversations, "records": report.records, "later": report.later}
    not_done = [_describe_failure(key, str(why)) for key, why in report.failed.items()]
    not_done += [
        _describe_failure(key, f"{format_count(lost, 'record')} lost") for key, lost in report.salvaged.items()
    ]
    not_done += [_describe_failure(each.key, str(each.error), each.where) for each in report.damaged]
    return _report_transfer(
        "exported", counts, not_done, as_json=as_json, all_found=report.all_found, err=output == "-"
    )


@click.command("import")
@click.argument("file")
@click.option("--id", metavar="ID", help="ID to store a plain list of messages under; required for one.")
@shared_options("replace", "json", "all_scopes")
def import_(file: str, *, id: str | None, replace: bool, target: CommandTarget, as_json: bool) -> int:
    r"""Store the conversations of a file.

    FILE (- is standard input) is an export, or a list of messages in JSON, which needs --id. The conversations go into
    the scope; with --all-scopes, into the scopes that the export names. Conversations that exist already are skipped:
    run an interrupted import again to complete it. Parts of the file that cannot be read are skipped and named on
    standard error, and the exit code is 3.

    \b
    Examples:
      chathistory import everything.jsonl.gz --all-scopes
      chathistory import messages.json --id thesis
    """
    with target.open() as history, show_progress("importing", None) as step:
        source = sys.stdin.buffer if file == "-" else file
        report = history.import_from(source, id=id, all_scopes=target.all_scopes, replace=replace, progress=step)
    return _report_copies("imported", report, as_json=as_json)


@click.command()
@ids_argument
@click.option("--to", "other", metavar="URL", required=True, help="URL of the store to copy to.")
@click.option("--verify/--no-verify", default=True, show_default=True, help="Read each copy back and compare it.")
@click.option(
    "--threads",
    type=click.IntRange(1, 64),
    metavar="N",
    default=4,
    show_default=True,
    help="Conversations copied at once.",
)
@shared_options("replace", "full_scan", "json", "all_scopes")
def copy(ids: tuple[str, ...], *, other: str, target: CommandTarget, as_json: bool, **options: Any) -> int:
    r"""Copy conversations to another store.

    It copies the conversations with the given IDs, all of the scope, or all of the store with --all-scopes. Positions,
    times and order stay the same. Conversations that exist already are skipped: run the command again to complete an
    interrupted copy, or to bring a copy up to date.

    \b
    Examples:
      chathistory copy --all-scopes --to redis://localhost
      chathistory copy --store file:./history --scope ada --to s3://bucket/history
    """
    from chathistory.storage.plugins import open_store  # brings pluggy

    _check_ids(target, ids)
    with ExitStack() as opened:
        history = opened.enter_context(target.open())
        store = opened.enter_context(open_store(other))
        step = opened.enter_context(show_progress("copying", lambda: _count_conversations(history, target, ids)))
        chosen = list(ids) or None
        report = history.copy_to(store, all_scopes=target.all_scopes, ids=chosen, progress=step, **options)
    return _report_copies("copied", report, as_json=as_json)


def _check_ids(target: CommandTarget, ids: Sequence[str]) -> None:
    if ids and target.all_scopes:
        raise click.UsageError("IDs are only valid in one scope; leave out --all-scopes or the IDs.")


def _count_conversations(history: History, target: CommandTarget, ids: Sequence[str]) -> int:
    return len(ids) or sum(1 for _ in history.store.keys(None if target.all_scopes else target.scope))


def _report_copies(done: str, report: CopyReport, *, as_json: bool) -> int:
    counts = {name: getattr(report, name) for name in ("copied", "continued", "same", "records", "later")}
    different = "a different conversation has this ID, and was kept; add --replace to replace it"
    not_done = [_describe_failure(key, different) for key in report.different]
    not_done += [_describe_failure(key, str(why)) for key, why in report.failed.items()]
    not_done += [_describe_failure(each.key, str(each.error), each.where) for each in report.damaged]
    not_done += [_describe_failure(None, f"skipped: {what}") for what in report.skipped]
    return _report_transfer(done, counts, not_done, as_json=as_json, all_found=report.all_found)


def _describe_failure(key: Key | None, why: str, where: str | None = None) -> dict[str, Any]:
    """Return a failure as a dict for JSON; where: the place in the storage, for what has no key."""
    return {**key_to_json(key), "why": why, "where": where}


def _report_transfer(
    done: str,
    counts: Mapping[str, int],
    not_done: Sequence[Mapping[str, Any]],
    *,
    as_json: bool,
    all_found: bool,
    err: bool = False,
) -> int:
    """Print what was done and what failed; return the exit code.

    Args:
        done: The verb, such as "copied".
        counts: The numbers to report, by the keys of `_WORDS`, and "conversations".
        not_done: What failed, as `_describe_failure` returns it.
        as_json: Whether to print JSON.
        all_found: Whether all conversations were found.
        err: Whether to print to standard error.
    """
    code = ExitCode.PARTLY if not_done or not all_found else ExitCode.OK
    if as_json:
        click.echo(to_json_line({**counts, "not_done": not_done, "all_found": all_found}), err=err)
        return code
    words = [format_count(counts["conversations"], "conversation")] if "conversations" in counts else []
    for name, what in _WORDS.items():
        if number := counts.get(name):
            words.append(format_count(number, "record") if name == "records" else f"{number} {what}")
    nothing = "nothing" if not_done else "nothing: there are no conversations"
    click.echo(f"{done}: {', '.join(words) or nothing}", err=err)
    for each in not_done[:_MAX_SHOWN]:
        name = f"{each['id']} in scope {each['scope']}" if each["id"] is not None else each["where"]
        click.echo(to_one_line(f"not {done}: {f'{name}: ' if name else ''}{each['why']}"), err=True)
    if len(not_done) > _MAX_SHOWN:
        click.echo(f"not {done}: {len(not_done) - _MAX_SHOWN} more; --json lists all of them", err=True)
    if not all_found:
        click.echo(MAY_HAVE_MISSED, err=True)
    return code
