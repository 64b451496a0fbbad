"""Entries, rows and times as people read them. All text that comes out of here is safe for a terminal."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from chathistory.cli.escape import show_controls, to_one_line
from chathistory.conversation import Conversation
from chathistory.log.active_path import iter_newest_first
from chathistory.log.entry import Entry
from chathistory.log.events import MessageAdded, ReplyInterrupted, ReplyOrphaned
from chathistory.log.omissions import is_whole, list_omissions

if TYPE_CHECKING:
    from rich.console import Console

__all__ = [
    "FAKE_MODEL",
    "ShownEntry",
    "describe_mark",
    "format_age",
    "format_body",
    "load_readable",
    "local_time",
    "make_console",
    "name_speaker",
    "shown_entry",
]

FAKE_MODEL = "fake"
"""The model that replies of the fake are stored under, so that they are never taken for Claude's."""

_READABLE = {
    "message": "",
    "interrupted": "broken off, not sent",
    "orphaned": "came too late, not sent",
    "refused": "refused by the API, not sent",
    "omitted": "left out, not sent",
}
_PORTION = 16
_LONGEST = 200
_UNITS = (("year", 31_536_000), ("month", 2_592_000), ("day", 86_400), ("hour", 3600), ("minute", 60))


def make_console(*, stderr: bool = False) -> Console:
    """Return a console that takes text as it is: no markup, no emoji codes, no colours by guessing."""
    from rich.console import Console  # 50 ms that `--help` can do without

    return Console(stderr=stderr, markup=False, emoji=False, highlight=False)


@dataclass(frozen=True, slots=True)
class ShownEntry:
    """Something that was said, as it is shown; kind: that of the entry that says it is not sent, else its own."""

    event: MessageAdded | ReplyInterrupted | ReplyOrphaned
    kind: str
    at: int
    position: int


def shown_entry(entry: Entry) -> ShownEntry | None:
    """Return an entry as it is shown; None: it is an event of the log, and not something that was said."""
    event = entry.event
    if not isinstance(event, MessageAdded | ReplyInterrupted | ReplyOrphaned):
        return None
    return ShownEntry(event, entry.kind, entry.at, entry.position)


def load_readable(conversation: Conversation, last: int | None = None) -> list[ShownEntry]:
    """Return what was said, oldest first, with replies that broke off or came too late; the newest `last` of it.

    What was taken back (`rewind`) is left out. The cost depends on `last`, not on the conversation's length.
    """
    portion = _PORTION if last is None else last + _PORTION
    said = _list_said(iter_newest_first(conversation.log, portion))
    return list(itertools.islice(said, last))[::-1]


def _list_said(newest: Iterable[Entry]) -> Iterator[ShownEntry]:
    """Yield what was said, newest first; a message that is not sent again has the kind of the entry that says so."""
    omitted: dict[int, str] = {}
    for entry in newest:
        if shown := shown_entry(entry):
            yield replace(shown, kind=omitted.get(entry.position, entry.kind))
        omitted |= {
            each.place.position: "refused" if each.turn else "omitted"
            for each in list_omissions(entry)
            if is_whole([each])
        }


def describe_mark(entry: ShownEntry) -> str:
    """Return what to say of an entry in addition to its words; "": nothing."""
    return _READABLE[entry.kind]


def name_speaker(entry: ShownEntry) -> str:
    """Return who speaks: "you", "claude", "fake" or "system"."""
    role = entry.event.message["role"]
    if role != "assistant":
        return "you" if role == "user" else str(role)
    return FAKE_MODEL if entry.event.response.model == FAKE_MODEL else "claude"


def format_body(entry: ShownEntry) -> str:
    """Return the words of an entry; other blocks are described in one line each."""
    content = entry.event.message.get("content") or ""
    if isinstance(content, str):
        return show_controls(content)
    return "\n".join(line for block in content if (line := _format_block(block)))


def _format_block(block: Mapping[str, Any]) -> str:
    kind = str(block["type"])
    if kind == "text":
        return show_controls(block.get("text") or "")
    if kind in ("thinking", "redacted_thinking"):
        return "[thinking, hidden]"
    if kind.endswith("tool_use"):
        return f"[calls {to_one_line(str(block.get('name')))}: {_shorten(block.get('input'))}]"
    if kind.endswith("tool_result"):
        return f"[{'failed' if block.get('is_error') else 'result'}: {_shorten(block.get('content'))}]"
    return f"[{to_one_line(kind)}]"


def _shorten(value: Any) -> str:
    if isinstance(value, list):
        value = " ".join(str(part.get("text") or f"[{part.get('type')}]") for part in value if isinstance(part, dict))
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return to_one_line(text, _LONGEST)


def local_time(microseconds: int) -> str:
    """Return a time of the log as the local clock shows it, to the minute."""
    time = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)
    return f"{time.astimezone():%Y-%m-%d %H:%M}"


def format_age(time: datetime, now: datetime | None = None) -> str:
    """Return how long ago a time was, such as "2 hours ago"; "just now" within a minute, and for what is to come."""
    seconds = ((now or datetime.now(UTC)) - time).total_seconds()
    for unit, size in _UNITS:
        if seconds >= size:
            count = int(seconds // size)
            return f"{count} {unit}{'' if count == 1 else 's'} ago"
    return "just now"
