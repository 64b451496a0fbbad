"""`chathistory trim` and `usage`: limit what is sent of a conversation, and show what its replies cost."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict, astuple
from typing import Any

import click

from chathistory.cli.errors import ExitCode
from chathistory.cli.options import TRIMMING, CommandTarget, id_argument, optional_id_argument, shared_options
from chathistory.cli.output import escape_controls, format_count, print_json, print_rows
from chathistory.errors import ChatHistoryError, ConfigError, CorruptRecord, StoreUnavailable
from chathistory.operations.usage import Tokens, Usage
from chathistory.trimming.parse import build_policy
from chathistory.trimming.plan_cut import TrimResult
from chathistory.trimming.policies import Compaction

__all__ = ["trim", "usage"]


@click.command()
@optional_id_argument
@click.option("--all", "everything", is_flag=True, help="Trim every conversation of the scope.")
@shared_options(*TRIMMING, "dry_run", "json")
def trim(id: str | None, *, everything: bool, dry_run: bool, target: CommandTarget, as_json: bool, **given: Any) -> int:
    r"""Stop sending the beginning of a conversation.

    The cut holds from now on; nothing is removed from the log. Pairs of options (--trigger-... with --keep-...) say
    when to trim and how far; without them, the setting `trimming` does. If that setting has `compaction`, this command
    trims nothing: the API summarizes when the next message is sent.

    If standard output is not a terminal, it prints one line per trimmed conversation with fields separated by tabs: id,
    turns left out, messages left out, tokens before, tokens after, position of the first message sent.

    \b
    Examples:
      chathistory trim thesis --trigger-tokens 100000 --keep-tokens 50000 --dry-run
      chathistory trim thesis --trigger-turns 40 --keep-turns 20
      chathistory trim --all --trigger-age 30d --keep-age 7d --scope ada
    """
    if (id is None) != everything:
        raise click.UsageError("give the ID of a conversation, or --all, and not both.")
    try:
        policy = build_policy({name: value for name, value in given.items() if value is not None})
    except ConfigError as error:
        raise click.UsageError(str(error)) from None
    policy = policy or target.settings.trimming
    if policy is None:
        raise click.UsageError(
            "give a pair of limits, such as --trigger-tokens 100000 --keep-tokens 50000, or configure `trimming`."
        )
    cuts: dict[str, TrimResult] = {}
    failed: dict[str, ChatHistoryError] = {}
    with target.open() as history:
        named = [target.find_conversation(history, id)] if id else None
        if isinstance(policy, Compaction):
            click.echo(
                "nothing to trim now: with the setting `compaction`, the API summarizes when the next message is sent. "
                "Give --trigger-... and --keep-... to trim without a summary.",
                err=True,
            )
            return ExitCode.OK
        for each in named or (history.conversation(key.id) for key in history.store.keys(history.scope)):
            try:
                cut = each.trim(policy, dry_run=dry_run)
            except ChatHistoryError as error:
                if id or isinstance(error, StoreUnavailable):
                    raise
                failed[each.id] = error
            else:
                cuts |= {each.id: cut} if cut else {}
    _print_cuts(cuts, failed, id, dry_run=dry_run, as_json=as_json)
    return ExitCode.PARTLY if failed else ExitCode.OK


def _print_cuts(
    cuts: Mapping[str, TrimResult], failed: Mapping[str, Exception], id: str | None, *, dry_run: bool, as_json: bool
) -> None:
    """Print each cut, and on standard error the failures and the totals."""
    if as_json:
        for name, cut in cuts.items():
            print_json({"id": name, **asdict(cut), "dry_run": dry_run})
    else:
        columns = ("ID", "TURNS", "MESSAGES", "TOKENS BEFORE", "AFTER", "FROM")
        fields = ("turns", "messages", "tokens_before", "tokens_after", "position")
        print_rows(columns, [(name, *(str(getattr(cut, field)) for field in fields)) for name, cut in cuts.items()])
    for name, why in failed.items():
        click.echo(escape_controls(f"not trimmed: {name}: {why}"), err=True)
    if not cuts:
        click.echo(escape_controls(f"nothing to trim{f' in {id}' if id else ''}"), err=True)
        return
    turns, messages, before, after = (
        sum(getattr(cut, field) for cut in cuts.values())
        for field in ("turns", "messages", "tokens_before", "tokens_after")
    )
    left_out = (
        f"{format_count(turns, 'turn')} ({format_count(messages, 'message')})"
        if turns
        else format_count(messages, "message")
    )
    verb = "would not be sent again" if dry_run else "will not be sent again"
    click.echo(f"{left_out} {verb}: {before:,} tokens before, {after:,} after", err=True)


@click.command()
@id_argument
@shared_options("json")
def usage(id: str, *, target: CommandTarget, as_json: bool) -> None:
    r"""Show what the replies of a conversation cost in tokens.

    It shows the tokens of each turn, of each model, and in total. If standard output is not a terminal, it prints lines
    with fields separated by tabs: "turn", "model" or "total"; position and time of the turn's first reply; the model;
    tokens of input, of output, read from the cache, written to the cache.

    \b
    Examples:
      chathistory usage thesis
      chathistory usage thesis --json | jq .total
    """
    with target.open_conversation(id) as conversation:
        try:
            used = conversation.usage()
        except CorruptRecord as error:
            state = conversation.state()
            click.echo(escape_controls(f"{error}: only the total is known"), err=True)
            used = Usage(Tokens.from_usage(state.totals.usage if state else {}))
    for position in used.left_out:
        click.echo(f"record {position} is damaged: its tokens count only in the total", err=True)
    if as_json:
        print_json({"id": id, **asdict(used)})
    elif sys.stdout.isatty():
        columns = ("TURN", "TIME", "MODEL", "INPUT", "OUTPUT", "CACHE READ", "CACHE WRITTEN")
        turns = [
            (
                str(turn.position),
                f"{turn.at.astimezone():%Y-%m-%d %H:%M}",
                turn.model or "",
                *_format_tokens(turn.tokens),
            )
            for turn in used.turns
        ]
        models = [(model or "?", "", "", *_format_tokens(tokens)) for model, tokens in used.models.items()]
        print_rows(columns, [*turns, *models, ("total", "", "", *_format_tokens(used.total))])
    else:
        turns = [
            (
                "turn",
                str(turn.position),
                turn.at.isoformat(timespec="seconds"),
                turn.model or "",
                *_format_tokens(turn.tokens),
            )
            for turn in used.turns
        ]
        models = [("model", "", "", model or "?", *_format_tokens(tokens)) for model, tokens in used.models.items()]
        print_rows((), [*turns, *models, ("total", "", "", "", *_format_tokens(used.total))])


def _format_tokens(tokens: Tokens) -> tuple[str, ...]:
    return tuple(map(str, astuple(tokens)))
