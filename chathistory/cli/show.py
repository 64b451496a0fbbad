"""`chathistory show`: print messages for people; the prompt of `chat` prints them in the same form."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import click

from chathistory.cli.options import CommandTarget, id_argument, shared_options
from chathistory.cli.output import escape_controls, make_console, print_json, to_one_line
from chathistory.cli.responder import FAKE_MODEL
from chathistory.conversation import Conversation
from chathistory.log.active_path import iter_newest_first
from chathistory.log.clock import to_datetime
from chathistory.log.entry import Entry
from chathistory.log.events import MessageAdded, ReplyInterrupted, ReplyOrphaned
from chathistory.view import ViewRepair
from chathistory.view.leave_out import list_omissions, omits_whole_message

__all__ = ["DisplayedEntry", "load_displayed", "show"]

_REASONS_NOT_SENT = {
    "message": "",
    "reply_interrupted": "interrupted, not sent",
    "reply_orphaned": "arrived too late, not sent",
    "turn_refused": "refused by the API, not sent",
    "content_omitted": "left out, not sent",
}
_FIRST_READ = 16  # records in the first round trip, in addition to the messages that are wanted
_MAX_VALUE_LENGTH = 200  # characters of a tool's input or result


@click.command()
@id_argument
@click.option(
    "--last",
    type=click.IntRange(min=1, max=10**9),
    metavar="N",
    help="Show only the newest N messages, or records with --json.",
)
@click.option(
    "--messages",
    "as_sent",
    is_flag=True,
    help="Print the messages that would be sent to Claude, one line of JSON each.",
)
@click.option(
    "--damaged", is_flag=True, help="Show all that can be read of a damaged conversation, and which positions cannot."
)
@shared_options("json")
def show(id: str, last: int | None, *, target: CommandTarget, as_json: bool, as_sent: bool, damaged: bool) -> None:
    r"""Show the messages of a conversation.

    The number after each # is the position for fork and rewind. --json prints every record of the log exactly as it is
    stored. --damaged names each record that cannot be read in its place.

    \b
    Examples:
      chathistory show thesis --last 10
      chathistory show thesis --json | jq .message
      chathistory show thesis --messages > messages.jsonl
    """
    if as_json and as_sent:
        raise click.UsageError("--json and --messages cannot be given together; leave one of them out.")
    if damaged and (as_sent or last):
        raise click.UsageError("--damaged shows the whole log; leave --messages and --last out.")
    if damaged:
        _show_damaged(target, id, as_json=as_json)
        return
    with target.open_conversation(id) as conversation:
        if as_json:
            for entry in conversation.entries(-last if last else 0):
                print_json(entry.to_dict())
        elif as_sent:
            for message in conversation.messages()[-(last or 0) :]:
                print_json(message)
        else:
            _print_entries(load_displayed(conversation, last))


def _show_damaged(target: CommandTarget, id: str, *, as_json: bool) -> None:
    """Show all that can be read of a damaged conversation, one portion at a time."""
    is_empty = True
    with target.open() as history:
        for each in history.conversation(id).salvage():
            is_empty = False
            if isinstance(each, ViewRepair):
                if as_json:
                    print_json({"position": each.position, "damaged": each.description})
                else:
                    click.echo(f"#{each.position}  {to_one_line(each.description)}\n")
            elif as_json:
                print_json(each.to_dict())
            elif displayed := DisplayedEntry.from_entry(each):
                _print_entries([displayed])
    if is_empty:
        raise target.make_not_found_error(id)


@dataclass(frozen=True, slots=True)
class DisplayedEntry:
    """A message in the form in which it is shown.

    Attributes:
        event: The event with the message.
        kind: The kind of the entry; for a message that is not sent again, "turn_refused"
            or "content_omitted".
        at: When it was stored, in microseconds since 1970 UTC.
        position: Its position in the log.
    """

    event: MessageAdded | ReplyInterrupted | ReplyOrphaned
    kind: str
    at: int
    position: int

    @classmethod
    def from_entry(cls, entry: Entry) -> DisplayedEntry | None:
        """Return an entry in the form in which it is shown; None if it has no message."""
        event = entry.event
        if not isinstance(event, MessageAdded | ReplyInterrupted | ReplyOrphaned):
            return None
        return cls(event, entry.kind, entry.time_us, entry.position)

    @property
    def author(self) -> str:
        """The name of the author: "you", "claude", "fake" or "system"."""
        role = self.event.message["role"]
        if role != "assistant":
            return "you" if role == "user" else str(role)
        return FAKE_MODEL if self.event.response.model == FAKE_MODEL else "claude"

    @property
    def time(self) -> str:
        """The local time, to the minute."""
        return f"{to_datetime(self.at).astimezone():%Y-%m-%d %H:%M}"

    @property
    def reason_not_sent(self) -> str:
        """Why it is not sent to Claude; "" if it is sent."""
        return _REASONS_NOT_SENT[self.kind]

    @property
    def text(self) -> str:
        """Its text, with control characters made visible; other blocks are described in one line each."""
        content = self.event.message.get("content") or ""
        if isinstance(content, str):
            return escape_controls(content)
        return "\n".join(filter(None, map(_describe_block, content)))


def _describe_block(block: Mapping[str, Any]) -> str:
    kind = str(block["type"])
    if kind == "text":
        return escape_controls(block.get("text") or "")
    if kind in ("thinking", "redacted_thinking"):
        return "[thinking, hidden]"
    if kind.endswith("tool_use"):
        return f"[calls {to_one_line(str(block.get('name')))}: {_shorten_value(block.get('input'))}]"
    if kind.endswith("tool_result"):
        return f"[{'failed' if block.get('is_error') else 'result'}: {_shorten_value(block.get('content'))}]"
    return f"[{to_one_line(kind)}]"


def _shorten_value(value: Any) -> str:
    if isinstance(value, list):
        value = " ".join(str(part.get("text") or f"[{part.get('type')}]") for part in value if isinstance(part, dict))
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return to_one_line(text, _MAX_VALUE_LENGTH)


def load_displayed(conversation: Conversation, last: int | None = None) -> list[DisplayedEntry]:
    """Return the messages, oldest first, with replies that were interrupted or arrived too late.

    Messages that were taken back with `rewind` are left out. The cost depends on `last`, not on the length of the
    conversation.

    Args:
        conversation: The conversation.
        last: Return at most this many of the newest; None: all.
    """
    displayed: list[DisplayedEntry] = []
    omitted: dict[int, str] = {}
    for entry in iter_newest_first(conversation.log, _FIRST_READ if last is None else last + _FIRST_READ):
        if found := DisplayedEntry.from_entry(entry):
            displayed.append(replace(found, kind=omitted.get(entry.position, entry.kind)))
            if len(displayed) == last:
                break
        for each in list_omissions(entry):
            if omits_whole_message([each]):
                omitted[each.location.position] = "turn_refused" if each.turn else "content_omitted"
    return displayed[::-1]


def _print_entries(entries: Sequence[DisplayedEntry]) -> None:
    screen = make_console()
    for entry in entries:
        note = f" ({entry.reason_not_sent})" if entry.reason_not_sent else ""
        screen.out(f"{entry.author}  {entry.time}  #{entry.position}{note}", style="bold", highlight=False)
        screen.out(f"{entry.text.rstrip()}\n", highlight=False)
