"""`chathistory fork`, `rewind` and `leave-out`: other ways to go on."""

from __future__ import annotations

import click

from chathistory.cli.escape import safe
from chathistory.cli.lookup import absent, found
from chathistory.cli.output import json_option, print_json
from chathistory.cli.target import Place, debug_option, place_options
from chathistory.log.state import summary_of
from chathistory.storage.store import Head

__all__ = ["fork", "leave_out", "rewind"]


@click.command()
@click.argument("id")
@click.argument("new_id")
@click.option("--at", type=int, metavar="POSITION", help="Take what stands before this position. [default: all]")
@click.option("--into", metavar="SCOPE", help="The new conversation's scope. [default: the same]")
@json_option
@place_options
@debug_option
def fork(id: str, new_id: str, *, at: int | None, into: str | None, place: Place, as_json: bool) -> None:
    r"""Begin the conversation NEW_ID with the first part of another, which stays as it is.

    `show` tells positions: each message's is behind the #. To say something else than #12, fork with --at 12.

    \b
    Examples:
      chathistory fork thesis thesis-2
      chathistory fork thesis thesis-2 --at 12
    """
    with place.opened() as history:
        head = found(history, place, id).fork(new_id, at=at, scope=into).log.seen()
    if head is None:  # the store's time-to-live is that short
        raise click.ClickException(absent(place, new_id))
    _tell(head, f"forked {safe(id)} into {safe(new_id)}", as_json=as_json)


@click.command()
@click.argument("id")
@click.option("--to", type=int, metavar="POSITION", required=True, help="What stands from here on is taken back.")
@json_option
@place_options
@debug_option
def rewind(id: str, *, to: int, place: Place, as_json: bool) -> None:
    r"""Take back what was said from a position on: it is kept in the log, and not sent any more.

    \b
    Examples:
      chathistory show thesis --last 2
      chathistory rewind thesis --to 12
    """
    with place.opened() as history:
        head = found(history, place, id).rewind(to=to)
    _tell(head, f"rewound {safe(id)} to position {to}", as_json=as_json)


def _tell(head: Head, done: str, *, as_json: bool) -> None:
    summary = summary_of(head)
    if as_json:
        names = {"id": head.key.id, "scope": head.key.scope, "start": head.start, "end": head.end}
        print_json(names | {"messages": summary.messages, "origin": summary.origin or None})
    else:
        click.echo(f"{done}: {summary.messages} messages")


@click.command("leave-out")
@click.argument("id")
@click.option("--record", type=int, metavar="POSITION", help="The message of which something is not sent any longer.")
@click.option("--block", type=int, metavar="N", help="Its content block, counted from 0. [default: the whole message]")
@click.option("--thinking", is_flag=True, help="All thinking so far.")
@json_option
@place_options
@debug_option
def leave_out(id: str, *, record: int | None, block: int | None, thinking: bool, place: Place, as_json: bool) -> None:
    r"""Go on without something that the API refuses: it is kept in the log, and not sent any longer.

    Without options, what the API refused when a message was sent last: send that message again with `chat --retry`.
    `doctor --online` finds what it would refuse.

    \b
    Examples:
      chathistory leave-out thesis
      chathistory leave-out thesis --record 12 --block 1
      chathistory leave-out thesis --thinking
    """
    if block is not None and record is None:
        raise click.UsageError("--block needs --record POSITION.")
    with place.opened() as history:
        head = found(history, place, id).leave_out(record, block=block, thinking=thinking)
    _tell(head, f"it is not sent any longer, in {safe(id)}", as_json=as_json)
