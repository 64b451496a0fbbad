"""`chathistory trim` and `usage`: what is sent of a conversation, and what its replies cost."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, astuple
from typing import Any

import click

from chathistory.cli.escape import one_line, safe
from chathistory.cli.lookup import found
from chathistory.cli.output import PARTLY, dry_run_option, json_option, lines, print_json, table
from chathistory.cli.parsers import ParsedBy
from chathistory.cli.target import Place, debug_option, place_options
from chathistory.conversation import Conversation
from chathistory.errors import ChatHistoryError, ConfigError, CorruptRecord, StoreUnavailable
from chathistory.history import History
from chathistory.operations.usage import Tokens, TurnUsage, Usage
from chathistory.trimming.parse import TRIMMING_OPTIONS, build_policy
from chathistory.trimming.plan_cut import TrimResult
from chathistory.trimming.policies import Policy

__all__ = ["trim", "usage"]


def trimming_options(command: Any) -> Any:
    """Add the options that say when to trim, and how far; they reach the command by the names of the settings."""
    for key, option in reversed([*TRIMMING_OPTIONS.items()]):
        if key.startswith(("trigger_", "keep_")):
            help_ = f"{option.help[0].upper()}{option.help[1:]}."
            metavar = "DURATION" if key.endswith("age") else "N"
            flag = f"--{key.replace('_', '-')}"
            command = click.option(flag, key, type=ParsedBy(option.parse), metavar=metavar, help=help_)(command)
    return command


@click.command()
@click.argument("id", required=False)
@click.option("--all", "every", is_flag=True, help="Every conversation of the scope.")
@trimming_options
@dry_run_option
@json_option
@place_options
@debug_option
def trim(id: str | None, *, every: bool, dry_run: bool, place: Place, as_json: bool, **given: Any) -> int:
    r"""Leave the beginning of a conversation out of what Claude is sent from now on; nothing is removed.

    When to trim, and how far, is said by pairs of options (--trigger-... with --keep-...), or else by the setting
    `trimming`. When it does not go to a terminal, one line each: id, turns and messages left out, tokens sent before
    and after, the position from which on messages are sent, separated by tabs.

    \b
    Examples:
      chathistory trim thesis --trigger-tokens 100000 --keep-tokens 50000 --dry-run
      chathistory trim thesis --trigger-turns 40 --keep-turns 20
      chathistory trim --all --trigger-age 30d --keep-age 7d --scope ada
    """
    if (id is None) != every:
        raise click.UsageError("give the ID of a conversation, or --all")
    policy = _choose_policy(place, given)
    with place.opened() as history:
        chosen = [found(history, place, id)] if id is not None else _all(history, place.scope)
        cuts, failed = _cut(chosen, policy, write=not dry_run, stop=not every)
    _print_cuts(cuts, as_json=as_json, write=not dry_run)
    for conversation, error in failed:
        click.echo(safe(f"not {conversation.id}: {error}"), err=True)
    _tell(cuts, id, write=not dry_run)
    return PARTLY if failed else 0


def _choose_policy(place: Place, given: Mapping[str, Any]) -> Policy:
    """Return the policy of the options, or else the configured one."""
    try:
        policy = build_policy({key: value for key, value in given.items() if value is not None})
    except ConfigError as error:
        raise click.UsageError(str(error)) from None
    policy = policy or place.settings.trimming
    if policy is None:
        raise click.UsageError("say when to trim, for example with --trigger-tokens 100000 --keep-tokens 50000")
    return policy


def _all(history: History, scope: str) -> Iterator[Conversation]:
    for key in history.store.keys(scope):
        yield history.conversation(key.id, scope=key.scope)


Cut = tuple[Conversation, TrimResult]


def _cut(
    chosen: Iterable[Conversation], policy: Policy, *, write: bool, stop: bool
) -> tuple[list[Cut], list[tuple[Conversation, ChatHistoryError]]]:
    """Return the cuts that were made, or would be, and what could not be cut; stop: at the first such error."""
    cuts, failed = [], []
    for conversation in chosen:
        try:
            if cut := conversation.trim(policy, dry_run=not write):
                cuts.append((conversation, cut))
        except StoreUnavailable:
            raise
        except ChatHistoryError as error:
            if stop:
                raise
            failed.append((conversation, error))
    return cuts, failed


def _print_cuts(cuts: Iterable[Cut], *, as_json: bool, write: bool) -> None:
    if as_json:
        for conversation, cut in cuts:
            print_json({"id": conversation.id, **asdict(cut), "written": write})
        return
    rows = [(one_line(conversation.id), *map(str, _numbers(cut))) for conversation, cut in cuts]
    if not sys.stdout.isatty():
        lines("\t".join(row) for row in rows)
    elif rows:
        table(("ID", "TURNS", "MESSAGES", "TOKENS BEFORE", "AFTER", "FROM"), rows)


def _numbers(cut: TrimResult) -> tuple[int, ...]:
    return cut.turns, cut.messages, cut.tokens_before, cut.tokens_after, cut.position


def _tell(cuts: list[Cut], id: str | None, *, write: bool) -> None:
    if not cuts:
        click.echo(safe(f"nothing to cut{f' in {id}' if id else ''}"), err=True)
        return
    turns, messages, before, after, _ = (
        sum(column) for column in zip(*(_numbers(cut) for _, cut in cuts), strict=True)
    )
    what = f"{turns} turns ({messages} messages)" if turns else f"{messages} messages"
    verb = "left out of what is sent" if write else "would be left out of what is sent"
    click.echo(f"{what} {verb}: {before:,} tokens before, {after:,} after", err=True)


@click.command()
@click.argument("id")
@json_option
@place_options
@debug_option
def usage(id: str, *, place: Place, as_json: bool) -> None:
    r"""Show what the replies of a conversation cost in tokens: turn by turn, by model, and in all.

    When it does not go to a terminal, one line each: "turn", "model" or "total"; position and time of the turn's first
    reply; the model; tokens of input, of output, read from the cache, written to it; separated by tabs.

    \b
    Examples:
      chathistory usage thesis
      chathistory usage thesis --json | jq .total
    """
    with place.opened() as history:
        spent = _spent(found(history, place, id))
    if as_json:
        print_json({"id": id, **asdict(spent)})
    elif sys.stdout.isatty():
        columns = ("TURN", "TIME", "MODEL", "INPUT", "OUTPUT", "CACHE READ", "CACHE WRITTEN")
        table(columns, [*(_row(turn, f"{turn.at.astimezone():%Y-%m-%d %H:%M}") for turn in spent.turns), *_sums(spent)])
    else:
        turns = (("turn", *_row(turn, turn.at.isoformat(timespec="seconds"))) for turn in spent.turns)
        sums = ((name, *row) for name, row in zip(_kinds(spent), _sums(spent, named=False), strict=True))
        lines("\t".join(row) for row in (*turns, *sums))


def _spent(conversation: Conversation) -> Usage:
    """Return what the replies cost; the sum alone, and a word on why, where a record is damaged."""
    try:
        spent = conversation.usage()
    except CorruptRecord as error:
        summary = conversation.refresh()
        click.echo(safe(f"{error}: only the sum is known"), err=True)
        return Usage(Tokens.of(summary.usage if summary else {}))
    for position in spent.left_out:
        click.echo(f"record {position} is damaged: what it cost is in the total alone", err=True)
    return spent


def _row(turn: TurnUsage, time: str) -> tuple[str, ...]:
    return str(turn.position), time, one_line(turn.model or ""), *_counts(turn.tokens)


def _kinds(spent: Usage) -> list[str]:
    return [*("model" for _ in spent.models), "total"]


def _sums(spent: Usage, *, named: bool = True) -> list[tuple[str, ...]]:
    """Return the rows of the sums; named: for people, with what each is the sum of in the first column."""
    models = [(one_line(model or "?"), tokens) for model, tokens in spent.models.items()]
    by_model = [(name if named else "", "", "" if named else name, *_counts(tokens)) for name, tokens in models]
    return [*by_model, ("total" if named else "", "", "", *_counts(spent.total))]


def _counts(tokens: Tokens) -> tuple[str, ...]:
    return tuple(map(str, astuple(tokens)))
