"""The fold of a log: what is to be known of a conversation without reading its messages.

It travels in `Stamp.info` with every append, so that a listing, a title or the next append needs no record at all.
`folded` is the one place that says what an entry changes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from chathistory.content import text_of
from chathistory.errors import CorruptRecord, InvalidInput, UnsupportedRecord
from chathistory.log.entry import FORMAT, Entry, to_json
from chathistory.store import Head

__all__ = ["OpenTurn", "Summary", "folded", "summary_of"]

LONGEST_INFO = 64 * 1024
_PREVIEW = 80


@dataclass(frozen=True, slots=True)
class OpenTurn:
    """A turn whose reply is not stored yet: its id, the position of its message, and when it counts as abandoned."""

    id: str
    position: int
    until: int


@dataclass(frozen=True, slots=True)
class Summary:
    """The state of a conversation.

    born: a token that tells this conversation from another one made later under the same key.
    created: microseconds since 1970 UTC. messages: how many the view goes through, before any repair.
    usage: sums of the token counts of all replies, by the API's names. model: of the last reply.
    preview: the beginning of the first user text. turn: the open turn, if any.
    path: the position of the newest rewind or snapshot, which tells the spans that the view goes through before it.
    thinking_from: the position from which on thinking may be sent; before it, it is bound to messages since forgotten.
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

    def encode(self) -> str:
        """Return the line for `Stamp.info`. Raises `InvalidInput` if title, tags and metadata make it too large."""
        values = {name: value for name, value in asdict(self).items() if value not in (None, {}, ())}
        line = to_json({"v": FORMAT} | values)
        if len(line) > LONGEST_INFO:
            msg = f"title, tags and metadata take {len(line)} characters; at most {LONGEST_INFO} are kept"
            raise InvalidInput(msg)
        return line


def summary_of(head: Head) -> Summary:
    """Return the summary in a head. Raises `CorruptRecord` or `UnsupportedRecord` if it is not one of this version."""
    try:
        values = json.loads(head.stamp.info)
        version = values.pop("v")
        if version == FORMAT:
            turn = values.pop("turn", None)
            tags = tuple(values.pop("tags", ()))
            return Summary(**values, tags=tags, turn=OpenTurn(**turn) if turn else None)
    except (ValueError, TypeError, AttributeError, KeyError):
        raise CorruptRecord(head.key, None, "its info is not a summary") from None
    raise UnsupportedRecord(head.key, head.end, version)


def folded(summary: Summary | None, entries: Iterable[Entry], end: int) -> Summary:
    """Return the summary after `entries`, stored from position `end` on; None: of a new conversation."""
    for position, entry in enumerate(entries, end):
        if summary is None:
            summary = Summary(born=entry.id, created=entry.at)
        change = _CHANGES.get(entry.kind)
        summary = change(summary, entry, position) if change else summary
        summary = _closed(summary, entry) if entry.kind in _CLOSING else summary
    assert summary is not None  # noqa: S101  # an append has at least one entry
    return summary


_CLOSING = frozenset({"abandoned", "interrupted", "orphaned", "rewind"})


def _closed(summary: Summary, entry: Entry) -> Summary:
    ends = summary.turn is not None and (entry.kind == "rewind" or entry.turn in (None, summary.turn.id))
    return replace(summary, turn=None) if ends else summary


def _message(summary: Summary, entry: Entry, position: int) -> Summary:
    message = entry.message or {}
    summary = replace(summary, messages=summary.messages + 1)
    if message["role"] == "assistant":
        paused = entry.data.get("response", {}).get("stop_reason") == "pause_turn"
        summary = _paid(summary, entry, position)
        return summary if paused else _closed(summary, entry)
    if "until" in entry.data:
        summary = _opened(summary, entry, position)
    if summary.preview is None and message["role"] == "user":
        words = " ".join(text_of(message)[: 4 * _PREVIEW].split())[:_PREVIEW]
        summary = replace(summary, preview=words or None)
    return summary


def _opened(summary: Summary, entry: Entry, position: int) -> Summary:
    return replace(summary, turn=OpenTurn(entry.turn or entry.id, position, entry.data["until"]))


def _paid(summary: Summary, entry: Entry, _position: int) -> Summary:
    response = entry.data.get("response", {})
    usage = dict(summary.usage)
    for name, count in (response.get("usage") or {}).items():
        if type(count) is int:
            usage[name] = usage.get(name, 0) + count
    return replace(summary, usage=usage, model=response.get("model") or summary.model)


def _annotation(summary: Summary, entry: Entry, _position: int) -> Summary:
    changes: dict[str, Any] = {name: entry.data[name] for name in ("title", "metadata") if name in entry.data}
    if "tags" in entry.data:
        changes["tags"] = tuple(entry.data["tags"])
    return replace(summary, **changes)


def _rewind(summary: Summary, entry: Entry, position: int) -> Summary:
    return replace(summary, path=position, messages=entry.data["messages"])


def _snapshot(summary: Summary, entry: Entry, position: int) -> Summary:
    forgot = entry.data["messages"] < summary.messages
    summary = replace(summary, path=position, messages=entry.data["messages"], preview=None)
    return replace(summary, thinking_from=position) if forgot else summary


_CHANGES = {
    "message": _message,
    "annotation": _annotation,
    "rewind": _rewind,
    "snapshot": _snapshot,
    "opened": _opened,
    "interrupted": _paid,
    "orphaned": _paid,
}
