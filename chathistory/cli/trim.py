"""`chathistory trim` and `usage`: what is sent of a conversation, and what its replies cost."""

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
@click.option("--all", "everything", is_flag=True, help="Every conversation of the scope.")
@shared_options(*TRIMMING, "dry_run", "json")
def trim(id: str | None, *, everything: bool, dry_run: bool, target: CommandTarget, as_json: bool, **given: Any) -> int:
    r"""Leave the beginning of a conversation out of what is sent.

    It holds from now on, and nothing is removed. When to trim, and how far, is said by pairs of options (--trigger-...
    with --keep-...), or else by the setting `trimming`. With its `compaction` there is nothing to trim here: the API
    summarizes when the next message is sent. When it does not go to a terminal, one line each: id, turns and messages
    left out, tokens sent before and after, the position from which on messages are sent, separated by tabs.

    \b
    Examples:
      chathistory trim thesis --trigger-tokens 100000 --keep-tokens 50000 --dry-run
      chathistory trim thesis --trigger-turns 40 --keep-turns 20
      chathistory trim --all --trigger-age 30d --keep-age 7d --scope ada
    """
    if (id is None) != everything:
        raise click.UsageError("give the ID of a conversation, or --all.")
    try:
        policy = build_policy({name: value for name, value in given.items() if value is not None})
    except ConfigError as error:
        raise click.UsageError(str(error)) from None
    policy = policy or target.settings.trimming
    if policy is None:
        raise click.UsageError("say when to trim, for example with --trigger-tokens 100000 --keep-tokens 50000.")
    cuts: dict[str, TrimResult] = {}
    failed: dict[str, ChatHistoryError] = {}
    with target.open() as history:
        named = [target.find_conversation(history, id)] if id else None
        if isinstance(policy, Compaction):
            click.echo(
                "nothing to trim now: with the setting `compaction` the API summarizes when the next message is sent. "
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
    """Print what was left out of each conversation, and on standard error what failed and how much it is in all."""
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
    what = (
        f"{format_count(turns, 'turn')} ({format_count(messages, 'message')})"
        if turns
        else format_count(messages, "message")
    )
    verb = "would be left out of what is sent" if dry_run else "left out of what is sent"
    click.echo(f"{what} {verb}: {before:,} tokens before, {after:,} after", err=True)


@click.command()
@id_argument
@shared_options("json")
def usage(id: str, *, target: CommandTarget, as_json: bool) -> None:
    r"""Show what the replies of a conversation cost in tokens.

    Turn by turn, by model, and in all. When it does not go to a terminal, one line each: "turn", "model" or "total";
    position and time of the turn's first reply; the model; tokens of input, of output, read from the cache, written to
    it; separated by tabs.

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
            click.echo(escape_controls(f"{error}: only the sum is known"), err=True)
            used = Usage(Tokens.from_usage(state.totals.usage if state else {}))
    for position in used.left_out:
        click.echo(f"record {position} is damaged: what it cost is only in the total", err=True)
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
