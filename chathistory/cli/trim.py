"""`chathistory trim` and `usage`: what is sent of a conversation, and what its replies cost."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict, astuple
from typing import Any

import click

from chathistory.cli.errors import ExitCode
from chathistory.cli.escape import show_controls
from chathistory.cli.output import print_json, print_rows
from chathistory.cli.parsers import ParsedBy
from chathistory.cli.target import Target, id_argument, optional_id_argument, shared_options
from chathistory.conversation import Conversation
from chathistory.errors import ChatHistoryError, ConfigError, CorruptRecord, StoreUnavailable
from chathistory.history import History
from chathistory.operations.usage import Tokens, Usage
from chathistory.trimming.parse import TRIMMING_OPTIONS, build_policy
from chathistory.trimming.plan_cut import TrimResult
from chathistory.trimming.policies import Compaction, Policy

__all__ = ["trim", "usage"]


def trimming_options(command: Any) -> Any:
    """Add the options that say when to trim, and how far; they reach the command by the names of the settings."""
    for key, option in reversed([*TRIMMING_OPTIONS.items()]):
        if key.startswith(("trigger_", "keep_")):
            words = f"{option.help[0].upper()}{option.help[1:]}."
            metavar = "DURATION" if key.endswith("age") else "N"
            flag = f"--{key.replace('_', '-')}"
            command = click.option(flag, key, type=ParsedBy(option.parse), metavar=metavar, help=words)(command)
    return command


@click.command()
@optional_id_argument
@click.option("--all", "everything", is_flag=True, help="Every conversation of the scope.")
@trimming_options
@shared_options("dry_run", "json")
def trim(id: str | None, *, everything: bool, dry_run: bool, target: Target, as_json: bool, **given: Any) -> int:
    r"""Leave the beginning of a conversation out of what Claude is sent from now on; nothing is removed.

    When to trim, and how far, is said by pairs of options (--trigger-... with --keep-...), or else by the setting
    `trimming`. With its `compaction` there is nothing to trim here: the API summarizes when the next message is sent.
    When it does not go to a terminal, one line each: id, turns and messages left out, tokens sent before
    and after, the position from which on messages are sent, separated by tabs.

    \b
    Examples:
      chathistory trim thesis --trigger-tokens 100000 --keep-tokens 50000 --dry-run
      chathistory trim thesis --trigger-turns 40 --keep-turns 20
      chathistory trim --all --trigger-age 30d --keep-age 7d --scope ada
    """
    if (id is None) != everything:
        raise click.UsageError("give the ID of a conversation, or --all.")
    policy = _choose_policy(target, given)
    failed: dict[str, ChatHistoryError] = {}
    with target.opened() as history:
        conversation = None if id is None else target.find(history, id)
        if isinstance(policy, Compaction):
            click.echo(
                "nothing to trim now: with the setting `compaction` the API summarizes when the next message is sent. "
                "Give --trigger-... and --keep-... to trim without a summary.",
                err=True,
            )
            return ExitCode.OK
        if conversation:
            cut = conversation.trim(policy, dry_run=dry_run)
            cuts = {conversation.id: cut} if cut else {}
        else:
            cuts = _trim_all(history, policy, failed, dry_run=dry_run)
    if as_json:
        for name, cut in cuts.items():
            print_json({"id": name, **asdict(cut), "dry_run": dry_run})
    else:
        columns = ("ID", "TURNS", "MESSAGES", "TOKENS BEFORE", "AFTER", "FROM")
        names = ("turns", "messages", "tokens_before", "tokens_after", "position")
        rows = [(name, *(str(getattr(cut, field)) for field in names)) for name, cut in cuts.items()]
        print_rows(columns, rows)
    for name, error in failed.items():
        click.echo(show_controls(f"not trimmed: {name}: {error}"), err=True)
    _summarize(cuts, id, dry_run=dry_run)
    return ExitCode.PARTLY if failed else ExitCode.OK


def _choose_policy(target: Target, given: Mapping[str, Any]) -> Policy:
    """Return the policy of the options, or else the configured one."""
    try:
        policy = build_policy({key: value for key, value in given.items() if value is not None})
    except ConfigError as error:
        raise click.UsageError(str(error)) from None
    policy = policy or target.settings.trimming
    if policy is None:
        raise click.UsageError("say when to trim, for example with --trigger-tokens 100000 --keep-tokens 50000.")
    return policy


def _trim_all(
    history: History, policy: Policy, failed: dict[str, ChatHistoryError], *, dry_run: bool
) -> dict[str, TrimResult]:
    """Return the cuts that were made, or would be, by ids; what could not be trimmed is added to `failed`."""
    cuts = {}
    for key in history.store.keys(history.scope):
        try:
            if cut := history.conversation(key.id).trim(policy, dry_run=dry_run):
                cuts[key.id] = cut
        except StoreUnavailable:
            raise
        except ChatHistoryError as error:
            failed[key.id] = error
    return cuts


def _summarize(cuts: Mapping[str, TrimResult], id: str | None, *, dry_run: bool) -> None:
    if not cuts:
        click.echo(show_controls(f"nothing to trim{f' in {id}' if id else ''}"), err=True)
        return
    turns, messages = (sum(getattr(cut, name) for cut in cuts.values()) for name in ("turns", "messages"))
    before, after = (sum(getattr(cut, name) for cut in cuts.values()) for name in ("tokens_before", "tokens_after"))
    what = f"{turns} turns ({messages} messages)" if turns else f"{messages} messages"
    verb = "would be left out of what is sent" if dry_run else "left out of what is sent"
    click.echo(f"{what} {verb}: {before:,} tokens before, {after:,} after", err=True)


@click.command()
@id_argument
@shared_options("json")
def usage(id: str, *, target: Target, as_json: bool) -> None:
    r"""Show what the replies of a conversation cost in tokens: turn by turn, by model, and in all.

    When it does not go to a terminal, one line each: "turn", "model" or "total"; position and time of the turn's first
    reply; the model; tokens of input, of output, read from the cache, written to it; separated by tabs.

    \b
    Examples:
      chathistory usage thesis
      chathistory usage thesis --json | jq .total
    """
    with target.opened() as history:
        used = _read_usage(target.find(history, id))
    if as_json:
        print_json({"id": id, **asdict(used)})
    elif sys.stdout.isatty():
        columns = ("TURN", "TIME", "MODEL", "INPUT", "OUTPUT", "CACHE READ", "CACHE WRITTEN")
        turns = [
            _format_tokens(str(turn.position), f"{turn.at.astimezone():%Y-%m-%d %H:%M}", turn.model, turn.tokens)
            for turn in used.turns
        ]
        models = [_format_tokens(model or "?", "", "", tokens) for model, tokens in used.models.items()]
        print_rows(columns, [*turns, *models, _format_tokens("total", "", "", used.total)])
    else:
        turns = [
            _format_tokens(str(turn.position), turn.at.isoformat(timespec="seconds"), turn.model, turn.tokens)
            for turn in used.turns
        ]
        models = [_format_tokens("", "", model or "?", tokens) for model, tokens in used.models.items()]
        rows = [*(("turn", *row) for row in turns), *(("model", *row) for row in models)]
        print_rows((), [*rows, ("total", *_format_tokens("", "", "", used.total))])


def _read_usage(conversation: Conversation) -> Usage:
    """Return what the replies cost; only the sum, and a word on why, where a record is damaged."""
    try:
        used = conversation.usage()
    except CorruptRecord as error:
        summary = conversation.state()
        click.echo(show_controls(f"{error}: only the sum is known"), err=True)
        return Usage(Tokens.of(summary.totals.usage if summary else {}))
    for position in used.left_out:
        click.echo(f"record {position} is damaged: what it cost is only in the total", err=True)
    return used


def _format_tokens(name: str, time: str, model: str | None, tokens: Tokens) -> tuple[str, ...]:
    return (name, time, model or "", *map(str, astuple(tokens)))
