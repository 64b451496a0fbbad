"""The fold of a log: what is to be known of a conversation without reading its messages.

It travels in `Stamp.info` with every append, so that a listing, a title or the next append needs no record at all.
`folded` is the one place that says what an entry changes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any

from chathistory.content import text_of
from chathistory.errors import CorruptRecord, UnsupportedRecord
from chathistory.log.entry import FORMAT, Entry, to_json
from chathistory.store import Head

__all__ = ["OpenTurn", "Summary", "folded", "summary_of"]

_PREVIEW = 80


@dataclass(frozen=True, slots=True)
class OpenTurn:
    """A turn whose reply is not stored yet: its id, the position of its message, and when it counts as abandoned."""

    id: str
    position: int
    until: int


@dataclass(slots=True)
class Summary:
    """The state of a conversation; a copy of the caller's own.

    born: a token that tells this conversation from another one made later under the same key.
    created: microseconds since 1970 UTC. messages: how many the view goes through, before any repair.
    usage: sums of the token counts of all replies, by the API's names. model: of the last reply.
    preview: the beginning of the first user text. turn: the open turn, if any.
    path: the position of the newest rewind or snapshot, which tells the spans that the view goes through before it.
    thinking_from: the position from which on thinking may be sent; before it, it is bound to what is not sent any more.
    setup: fingerprints of the model, system prompt and tools of the last turn of an engine.
    container: id and expires_at (as the API wrote it) of the last container of the code execution tool.
    """

    born: str
    created: int
    title: str | None = None
    tags: tuple[str, ...] = ()
    metadata: dict[str, Any] = field(default_factory=dict)
    messages: int = 0
    usage: dict[str, int] = field(default_factory=dict)
    model: str | None = None
    preview: str | None = field(default=None, repr=False)
    turn: OpenTurn | None = None
    path: int | None = None
    thinking_from: int = 0
    setup: dict[str, str] = field(default_factory=dict)
    container: dict[str, Any] = field(default_factory=dict)

    def usable_container(self, time: int) -> str | None:
        """Return the id of the container if there is one that has not expired at `time` (microseconds, UTC)."""
        with suppress(ValueError, TypeError):
            if datetime.fromisoformat(self.container.get("expires_at", "")).timestamp() * 1e6 <= time:
                return None
        return self.container.get("id")

    def encode(self) -> str:
        """Return the line for `Stamp.info`."""
        values = {name: value for name in _FIELDS if (value := getattr(self, name)) or type(value) in _TOLD_IF_FALSE}
        if self.turn:
            values["turn"] = {"id": self.turn.id, "position": self.turn.position, "until": self.turn.until}
        return to_json({"v": FORMAT} | values)


_FIELDS = [each.name for each in fields(Summary)]
_TOLD_IF_FALSE = (int, str)  # a 0 or an empty title says something; an empty dict does not


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


def _built(values: dict[str, Any]) -> Summary | None:
    try:
        turn, tags = values.pop("turn", None), tuple(values.pop("tags", ()))
        return Summary(**values, tags=tags, turn=OpenTurn(**turn) if turn else None)
    except TypeError:
        return None


def _values(info: str) -> dict[str, Any] | None:
    """Return the JSON object of an info, or None: an error raised here would carry the text in its context."""
    try:
        values = json.loads(info)
    except ValueError:
        return None
    return values if isinstance(values, dict) else None


def folded(summary: Summary | None, entries: Iterable[Entry], end: int) -> Summary:
    """Fold `entries`, stored from position `end` on, into `summary` (None: of a new conversation), and return it."""
    for position, entry in enumerate(entries, end):
        if summary is None:
            summary = Summary(born=entry.id, created=entry.at)
        if entry.kind in _CHANGES:
            _CHANGES[entry.kind](summary, entry, position)
        if entry.kind in _CLOSING:
            _close(summary, entry)
    assert summary is not None  # noqa: S101  # an append has at least one entry
    return summary


_CLOSING = frozenset({"abandoned", "interrupted", "orphaned", "rewind"})


def _close(summary: Summary, entry: Entry) -> None:
    if summary.turn is not None and (entry.kind == "rewind" or entry.turn in (None, summary.turn.id)):
        summary.turn = None


def _message(summary: Summary, entry: Entry, position: int) -> None:
    message = entry.message or {}
    summary.messages += 1
    if message["role"] == "assistant":
        _paid(summary, entry, position)
        if "until" in entry.data:
            _opened(summary, entry, position)
        elif entry.data.get("response", {}).get("stop_reason") != "pause_turn":
            _close(summary, entry)
        return
    if "until" in entry.data:
        _opened(summary, entry, position)
    if summary.preview is None and message["role"] == "user":
        summary.preview = " ".join(text_of(message)[: 4 * _PREVIEW].split())[:_PREVIEW] or None


def _opened(summary: Summary, entry: Entry, position: int) -> None:
    summary.turn = OpenTurn(entry.turn or entry.id, position, entry.data["until"])


def _paid(summary: Summary, entry: Entry, _position: int) -> None:
    response = entry.data.get("response", {})
    for name, count in (response.get("usage") or {}).items():
        if type(count) is int:
            summary.usage[name] = summary.usage.get(name, 0) + count
    summary.model = response.get("model") or summary.model
    container = response.get("container")
    if isinstance(container, dict):
        summary.container = {name: container.get(name) for name in ("id", "expires_at")}


def _annotation(summary: Summary, entry: Entry, _position: int) -> None:
    summary.title = entry.data.get("title", summary.title)
    summary.tags = tuple(entry.data.get("tags", summary.tags))
    summary.metadata = entry.data.get("metadata", summary.metadata)


def _setup(summary: Summary, entry: Entry, position: int) -> None:
    marks = entry.data["fingerprints"]
    if any(summary.setup and summary.setup.get(name) != marks.get(name) for name in ("system", "tools")):
        summary.thinking_from = position
    summary.setup = marks


def _rewind(summary: Summary, entry: Entry, position: int) -> None:
    summary.path = position
    summary.messages = entry.data["messages"]


def _snapshot(summary: Summary, entry: Entry, position: int) -> None:
    if entry.data["messages"] < summary.messages:
        summary.thinking_from = position
    summary.preview = None
    _rewind(summary, entry, position)


_CHANGES = {
    "message": _message,
    "annotation": _annotation,
    "rewind": _rewind,
    "snapshot": _snapshot,
    "opened": _opened,
    "setup": _setup,
    "interrupted": _paid,
    "orphaned": _paid,
}
