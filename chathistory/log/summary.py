"""The fold of a log: what is to be known of a conversation without reading its messages.

It travels in `Stamp.info` with every append, so that a listing, a title or the next append needs no record at all.
What an entry changes of it is in `log.fold`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import MISSING, dataclass, field, fields
from datetime import datetime
from typing import Any

from chathistory.errors import CorruptRecord, UnsupportedRecord
from chathistory.log.entry import FORMAT, Entry, to_json
from chathistory.log.process import Process
from chathistory.store import Head

__all__ = ["OpenTurn", "Summary", "summary_in", "summary_of"]


@dataclass(frozen=True, slots=True)
class OpenTurn:
    """A turn whose reply is not stored yet.

    id: Its id; a turn that is begun again keeps it.
    until: When its lease ends: it counts as abandoned then (microseconds since 1970 UTC).
    since: When it was opened, or begun again.
    lease: The id of the entry that opened it or began it again; whoever wrote that holds the turn.
    process: The process that did so; None: unknown.
    """

    id: str
    until: int
    since: int = 0
    lease: str = ""
    process: Process | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        held = {"by": self.process.to_dict()} if self.process else {}
        return {"id": self.id, "until": self.until, "since": self.since, "lease": self.lease} | held

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> OpenTurn:
        """Return the turn that was stored."""
        process = Process.from_dict(values.get("by"))
        return cls(values["id"], values["until"], values.get("since", 0), values.get("lease", ""), process)


@dataclass(slots=True)
class Summary:
    """The state of a conversation; a copy of the caller's own.

    born: a token that tells this conversation from another one made later under the same key.
    created: microseconds since 1970 UTC. messages: how many were said, but for those that a rewind left out.
    turns: how many of them open a turn: a user's message that is no tool result.
    usage: sums of the token counts of all replies, by the API's names. model: of the last reply.
    preview: the beginning of the first user text. turn: the open turn, if any.
    path: the position of the newest rewind or snapshot, which tells the spans that the view goes through before it.
    begin: the position from which on messages are sent. cut: the position of the record that said so; its message, if
    any, is sent first. hidden: how many turns stand before `begin`. since: the time of the first message sent.
    context: about how many tokens are sent, the last reply included; exact if that is the last message.
    prefix: the position of the record that changed last what stands before others; what was cached is void then.
    thinking_from: the position from which on thinking may be sent; before it, it is bound to what is not sent any more.
    drop_block: the API is asked to drop such thinking itself.
    setup: fingerprints of the model, system prompt and tools of the last turn of an engine; setup_at: the position of
    the record that has them whole.
    container: id and expires_at (as the API wrote it) of the last container of the code execution tool.
    origin: of a fork: scope and id of the conversation that it came from, and the position at which it left it.
    """

    born: str
    created: int
    title: str | None = None
    tags: tuple[str, ...] = ()
    metadata: dict[str, Any] = field(default_factory=dict)
    messages: int = 0
    turns: int = 0
    usage: dict[str, int] = field(default_factory=dict)
    model: str | None = None
    preview: str | None = field(default=None, repr=False)
    turn: OpenTurn | None = None
    path: int | None = None
    begin: int = 0
    cut: int | None = None
    hidden: int = 0
    since: int = 0
    context: int = 0
    prefix: int = 0
    thinking_from: int = 0
    drop_block: bool = False
    setup: dict[str, str] = field(default_factory=dict)
    setup_at: int | None = None
    container: dict[str, Any] = field(default_factory=dict)
    origin: dict[str, Any] = field(default_factory=dict)

    def usable_container(self, time: int) -> str | None:
        """Return the id of the container if there is one that has not expired at `time` (microseconds, UTC)."""
        with suppress(ValueError, TypeError):
            if datetime.fromisoformat(self.container.get("expires_at", "")).timestamp() * 1e6 <= time:
                return None
        return self.container.get("id")

    def encode(self) -> str:
        """Return the line for `Stamp.info`."""
        values = {name: value for name, usual in _USUAL.items() if (value := getattr(self, name)) != usual}
        if self.turn:
            values["turn"] = self.turn.to_dict()
        return to_json({"v": FORMAT} | values)


_USUAL = {  # what is not written: that is how a summary is read again without it
    each.name: each.default_factory() if each.default_factory is not MISSING else each.default
    for each in fields(Summary)
}


def summary_of(head: Head) -> Summary:
    """Return the summary in a head. Raises `CorruptRecord` or `UnsupportedRecord` if it is not one of this version."""
    values = _values(head.stamp.info)
    if values is None or "v" not in values:
        raise CorruptRecord(head.key, None, "its info is not a summary")
    version = values.pop("v")
    if version != FORMAT:
        raise UnsupportedRecord(head.key, head.end, version)
    summary = _built(values)
    if summary is None:
        raise CorruptRecord(head.key, None, "its info is not a summary")
    return summary


def summary_in(entry: Entry) -> Summary | None:
    """Return the summary that a snapshot or the beginning of a fork holds; None: it is not one of this version."""
    return _built({name: value for name, value in entry.data["summary"].items() if name != "v"})


def _built(values: dict[str, Any]) -> Summary | None:
    try:
        turn = values.pop("turn", None)
        tags = tuple(values.pop("tags", ()))
        return Summary(**values, tags=tags, turn=OpenTurn.from_dict(turn) if turn else None)
    except (TypeError, KeyError):
        return None


def _values(info: str) -> dict[str, Any] | None:
    """Return the JSON object of an info, or None: an error raised here would carry the text in its context."""
    try:
        values = json.loads(info)
    except ValueError:
        return None
    return values if isinstance(values, dict) else None
