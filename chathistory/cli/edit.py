"""`chathistory annotate`, `rename`, `fork`, `rewind` and `leave-out`: change one conversation."""

from __future__ import annotations

from typing import Any

import click

from chathistory.cli.errors import name_options
from chathistory.cli.options import PAIR, CommandTarget, id_argument, shared_options
from chathistory.cli.output import escape_controls, format_count, print_json, to_one_line
from chathistory.defaults import OWN_SCOPE
from chathistory.history import ConversationInfo

__all__ = ["annotate", "fork", "leave_out", "rename", "rewind"]


@click.command()
@id_argument
@click.option("--title", metavar="TEXT", help='Set the title; "" removes it.')
@click.option("--tag", "tags", metavar="TAG", multiple=True, help="Add this tag; repeatable.")
@click.option("--untag", "untags", metavar="TAG", multiple=True, help="Remove this tag; repeatable.")
@click.option(
    "--meta",
    "pairs",
    type=PAIR,
    metavar="NAME=VALUE",
    multiple=True,
    help="Set this metadata; VALUE is JSON, otherwise text; repeatable.",
)
@click.option("--unmeta", "names", metavar="NAME", multiple=True, help="Remove this metadata; repeatable.")
@shared_options("json")
def annotate(
    id: str,
    *,
    title: str | None,
    tags: tuple[str, ...],
    untags: tuple[str, ...],
    pairs: tuple[tuple[str, Any], ...],
    names: tuple[str, ...],
    target: CommandTarget,
    as_json: bool,
) -> None:
    r"""Set the title, tags and metadata of a conversation.

    Without options it only shows them.

    \b
    Examples:
      chathistory annotate thesis --title "My thesis" --tag work --untag draft
      chathistory annotate thesis --meta customer=4711
      chathistory list --tag work --meta customer=4711
    """
    with target.open_conversation(id) as conversation:
        info = conversation.info()
        if info is None:
            raise target.make_not_found_error(id)
        changes: dict[str, Any] = {} if title is None else {"title": title or None}
        if tags or untags:
            kept = [tag for tag in info.tags if tag not in untags]
            changes["tags"] = [*kept, *(tag for tag in dict.fromkeys(tags) if tag not in kept)]
        if pairs or names:
            left = {name: value for name, value in info.metadata.items() if name not in names}
            changes["metadata"] = left | dict(pairs)
        if changes:
            conversation.annotate(**changes)
    shown: dict[str, Any] = {"title": info.title, "tags": info.tags, "metadata": dict(info.metadata)} | changes
    if as_json:
        print_json({"id": id, "scope": target.scope, **shown})
        return
    metadata = ", ".join(f"{name}={value}" for name, value in shown["metadata"].items())
    for name, text in (("title", shown["title"] or ""), ("tags", ", ".join(shown["tags"])), ("metadata", metadata)):
        click.echo(to_one_line(f"{name}: {text}"))


@click.command()
@id_argument
@click.argument("new_id")
@shared_options("json")
def rename(id: str, new_id: str, *, target: CommandTarget, as_json: bool) -> None:
    r"""Change the ID of a conversation to NEW_ID.

    Nothing else changes. If the command is interrupted, the conversation may exist under both IDs: run it again.

    \b
    Example:
      chathistory rename thesis thesis-2026
    """
    with target.open() as history:
        target.find_conversation(history, id)
        history.rename(id, new_id)
    if as_json:
        print_json({"id": new_id, "scope": target.scope, "before": id})
    else:
        click.echo(f"renamed {escape_controls(id)} to {escape_controls(new_id)}")


@click.command()
@id_argument
@click.argument("new_id")
@click.option("--at", type=int, metavar="POSITION", help="Copy only what comes before this position. [default: all]")
@click.option("--into", metavar="SCOPE", help="Scope of the new conversation. [default: the same]")
@shared_options("json")
def fork(id: str, new_id: str, *, at: int | None, into: str | None, target: CommandTarget, as_json: bool) -> None:
    r"""Copy a conversation, or its beginning, to NEW_ID.

    The original stays as it is. `chathistory show` prints the position of each message after a #. To replace message
    #12 with another one, fork with --at 12 and send the other one.

    \b
    Examples:
      chathistory fork thesis thesis-2
      chathistory fork thesis thesis-2 --at 12
    """
    with target.open_conversation(id) as conversation:
        info = conversation.fork(new_id, at=at, scope=into or OWN_SCOPE).info()
    if info is None:  # it has expired already: the store's time-to-live is that short
        raise target.make_not_found_error(new_id)
    _report_change(info, f"forked {escape_controls(id)} into {escape_controls(new_id)}", as_json=as_json)


@click.command()
@id_argument
@click.option(
    "--to", type=int, metavar="POSITION", required=True, help="Take back the messages at this position and after it."
)
@shared_options("json")
def rewind(id: str, *, to: int, target: CommandTarget, as_json: bool) -> None:
    r"""Take back all messages from a position on.

    They stay in the log but are not sent again. `chathistory show` prints the position of each message after a #.

    \b
    Example:
      chathistory rewind thesis --to 12
    """
    with target.open_conversation(id) as conversation:
        info = conversation.rewind(to=to)
    _report_change(info, f"rewound {escape_controls(id)} to position {to}", as_json=as_json)


@click.command("leave-out")
@id_argument
@click.option(
    "--record",
    type=int,
    metavar="POSITION",
    help="Position of the message to leave out, as a whole or only its --block.",
)
@click.option("--block", type=int, metavar="N", help="Index of its content block, from 0. [default: the whole message]")
@click.option("--thinking", is_flag=True, help="Leave out all thinking so far.")
@shared_options("json")
def leave_out(
    id: str, *, record: int | None, block: int | None, thinking: bool, target: CommandTarget, as_json: bool
) -> None:
    r"""Stop sending something that the API refuses.

    It stays in the log but is not sent again. Without options, it leaves out what the API refused at the last attempt;
    then send the message again with `chathistory chat --retry`. `chathistory doctor --online` finds what the API would
    refuse.

    \b
    Examples:
      chathistory leave-out thesis
      chathistory leave-out thesis --record 12 --block 1
      chathistory leave-out thesis --thinking
    """
    if block is not None and record is None:
        raise click.UsageError("--block needs --record POSITION.")
    with target.open_conversation(id) as conversation, name_options({"position": "--record", "block": "--block"}):
        info = conversation.leave_out(record, block=block, thinking=thinking)
    _report_change(info, f"left out of {escape_controls(id)}", as_json=as_json)


def _report_change(info: ConversationInfo, done: str, *, as_json: bool) -> None:
    if as_json:
        names = {"id": info.id, "scope": info.scope, "start": info.start, "end": info.end}
        print_json(names | {"messages": info.messages, "origin": info.origin.to_dict() if info.origin else None})
    else:
        click.echo(f"{done}: {format_count(info.messages, 'message')}")
