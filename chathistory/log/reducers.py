"""What each kind of entry changes of a conversation's summary: the fold of a log, step by step."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields, replace
from typing import Any

from chathistory.log.entry import Entry
from chathistory.log.message_sizes import context_of, estimated
from chathistory.log.process import Process
from chathistory.log.state import ClosedTurn, OpenTurn, Summary, is_list_of_marks, is_sendable_id, summary_in
from chathistory.messages.content import blocks_of, text_of
from chathistory.storage.store import LARGEST_NUMBER

__all__ = [
    "begins_view",
    "ends_turn",
    "folded",
    "is_said_by_user",
    "last_said",
    "open_reply",
    "opens_turn",
    "reply_in",
    "stands_for_all_before",
]

_PREVIEW = 80


def folded(summary: Summary | None, entries: Iterable[Entry], end: int) -> Summary:
    """Fold `entries`, stored from position `end` on, into `summary` (None: of a new conversation), and return it."""
    for position, entry in enumerate(entries, end):
        if summary is None:
            summary = Summary(born=entry.id, created=entry.at, since=entry.at)
        if summary.container and entry.data.get("forgot_container") == summary.container.get("id"):
            summary.container = {}
        if entry.kind in _CHANGES:
            _CHANGES[entry.kind](summary, entry, position)
        if entry.kind in _CLOSING:
            _close(summary, entry)
    assert summary is not None  # noqa: S101  # an append has at least one entry
    return summary


_CLOSING = frozenset({"abandoned", "refused", "interrupted", "orphaned", "rewind"})


_WITHOUT_REPLY = {
    "abandoned": "interrupted",
    "interrupted": "interrupted",
    "orphaned": "interrupted",
    "refused": "refused",
}
"""What a turn is that was closed by an entry of a kind, and not by a reply."""


def _close(summary: Summary, entry: Entry) -> None:
    """Close the open turn, if this entry is about it; its holder names the lease, for others may have taken it over."""
    turn = summary.turn
    if turn is None or entry.data.get("lease", turn.lease) != turn.lease:
        return
    if entry.kind == "rewind" or entry.turn in (None, turn.id):
        state = _WITHOUT_REPLY.get(entry.kind)
        summary.turn = None
        summary.unanswered = ClosedTurn(turn.id, state, entry.at, turn.process) if state else None


def opens_turn(message: dict[str, Any]) -> bool:
    """Whether this is the user's own message: not a tool's result, which belongs to the turn before."""
    content = message["content"]
    blocks = content if isinstance(content, list) else []
    return message["role"] == "user" and all(block["type"] != "tool_result" for block in blocks)


def last_said(entries: Sequence[Entry]) -> Entry | None:
    """Return the last message that is the user's or Claude's; one of the system opens no turn, and ends none."""
    said = (entry for entry in reversed(entries) if entry.kind == "message")
    return next((entry for entry in said if entry.message and entry.message["role"] != "system"), None)


def open_reply(newest_first: Iterable[Entry]) -> Entry | None:
    """Return the last reply if it is left open: it called tools, and no reply came since, or it paused.

    When the conversation goes on, whatever is said then, the API wants the thinking of such a reply back as it was. A
    reply with nothing in it, as may come after results of tools, is not sent again and so closes nothing. Replies that
    follow one another are one turn for the API: a call in any of them is open. A refused reply is not sent, nor is its
    turn: what stands before that turn counts.
    """
    replies: list[Entry] = []
    for entry in _without_refused(newest_first):
        if entry.kind == "message" and reply_in(entry):
            replies.append(entry)
        elif replies and entry.kind == "message" and is_said_by_user(entry):
            break
    if replies and _stop_reason_of(replies[0]) == "pause_turn":
        return replies[0]
    calling = (entry for entry in replies if any(block["type"] == "tool_use" for block in reply_in(entry)))
    return next(calling, None)


def _without_refused(newest_first: Iterable[Entry]) -> Iterator[Entry]:
    """Yield the entries but for refused replies and what each of them answers, as the view leaves them out."""
    is_refused = False
    for entry in newest_first:
        if entry.kind == "message" and entry.message is not None:
            if _stop_reason_of(entry) == "refusal":
                is_refused = True
                continue
            if is_refused and not (ends_turn(entry.message, _stop_reason_of(entry)) or begins_view(entry)):
                is_refused = not opens_turn(entry.message)
                continue
            is_refused = False
        yield entry


def ends_turn(message: dict[str, Any], stop_reason: str | None) -> bool:
    """Whether this is a reply that leaves neither a tool's call nor a pause open."""
    is_open = stop_reason == "pause_turn" or any(block["type"] == "tool_use" for block in blocks_of(message))
    return bool(message["role"] == "assistant") and not is_open


def _stop_reason_of(reply: Entry) -> Any:
    return reply.data.get("response", {}).get("stop_reason")


def is_said_by_user(entry: Entry) -> bool:
    """Whether a message is the user's, results of tools included, and says something."""
    return entry.message is not None and entry.message["role"] == "user" and not _is_blank(entry.message)


def _is_blank(message: dict[str, Any]) -> bool:
    return all(block["type"] == "text" and not str(block.get("text") or "").strip() for block in blocks_of(message))


def reply_in(entry: Entry) -> list[dict[str, Any]]:
    """Return the blocks of a reply that say something; [] of all else."""
    if entry.message is None or entry.message["role"] != "assistant":
        return []
    return [block for block in blocks_of(entry.message) if block["type"] != "text" or (block.get("text") or "").strip()]


def _message(summary: Summary, entry: Entry, position: int) -> None:
    message = entry.message or {}
    summary.unanswered = None
    summary.messages += 1
    summary.turns += opens_turn(message)
    summary.context += estimated(message)
    if message["role"] == "assistant":
        _replied(summary, entry, position)
        if "until" in entry.data:
            _opened(summary, entry, position)
        elif entry.data.get("response", {}).get("stop_reason") != "pause_turn":
            _close(summary, entry)
        return
    if "until" in entry.data:
        _opened(summary, entry, position)
    if summary.preview is None and message["role"] == "user":
        summary.preview = " ".join(text_of(message)[: 4 * _PREVIEW].split())[:_PREVIEW] or None


def _replied(summary: Summary, entry: Entry, position: int) -> None:
    if "again" not in entry.data:  # it was counted where it stood before it was mended
        _paid(summary, entry, position)
    summary.context = context_of(entry.data.get("response", {}).get("usage")) or summary.context
    if begins_view(entry):
        _begin(summary, position, None, summary.turns, entry.at)
        summary.prefix = position


def begins_view(entry: Entry) -> bool:
    """Whether what is sent begins with this reply from now on; one that was refused is not sent itself."""
    is_refused = _stop_reason_of(entry) == "refusal"
    return entry.kind == "message" and not is_refused and stands_for_all_before(entry.message)


def stands_for_all_before(message: dict[str, Any] | None) -> bool:
    """Whether a reply has a compaction, so that what stands before it need not be sent; one without content failed.

    It has to be sent all the same if the reply has the result of a server's tool that was called before.
    """
    blocks = message["content"] if message and isinstance(message["content"], list) else []
    if not any(block["type"] == "compaction" and block.get("content") for block in blocks):
        return False
    called = {block.get("id") for block in blocks}
    return called.issuperset(block["tool_use_id"] for block in blocks if block["type"].endswith("_tool_result"))


def _begin(summary: Summary, begin: int, cut: int | None, hidden: int, since: int) -> None:
    summary.begin, summary.cut, summary.hidden, summary.since = begin, cut, hidden, since


def _opened(summary: Summary, entry: Entry, _position: int) -> None:
    """Open a turn, or note that the one who holds it took another step."""
    until, turn = min(entry.data["until"], LARGEST_NUMBER), summary.turn
    summary.unanswered = None
    if "by" not in entry.data and turn and turn.id == entry.turn:
        summary.turn = replace(turn, until=until)
    else:
        by = Process.from_dict(entry.data.get("by"))
        summary.turn = OpenTurn(entry.turn or entry.id, until, since=entry.at, lease=entry.id, process=by)


def _renewed(summary: Summary, entry: Entry, _position: int) -> None:
    if summary.turn and summary.turn.lease == entry.data["lease"]:  # else somebody has taken the turn over
        summary.turn = replace(summary.turn, until=min(entry.data["until"], LARGEST_NUMBER))


def _paid(summary: Summary, entry: Entry, _position: int) -> None:
    response = entry.data.get("response", {})
    for name, count in (response.get("usage") or {}).items():
        if type(count) is int and count >= 0:
            summary.usage[name] = min(summary.usage.get(name, 0) + count, LARGEST_NUMBER)
    summary.model = response.get("model") or summary.model
    container = response.get("container")
    if isinstance(container, dict) and is_sendable_id(container.get("id")):
        same = bool(summary.container) and container.get("id") == summary.container.get("id")
        since = summary.container.get("since") if same else entry.at
        summary.container = {"id": container.get("id"), "expires_at": container.get("expires_at"), "since": since}


def _annotation(summary: Summary, entry: Entry, _position: int) -> None:
    summary.title = entry.data.get("title", summary.title)
    summary.tags = tuple(entry.data.get("tags", summary.tags))
    summary.metadata = entry.data.get("metadata", summary.metadata)


def _setup(summary: Summary, entry: Entry, position: int) -> None:
    marks = entry.data["fingerprints"]
    if any(summary.setup and summary.setup.get(name) != marks.get(name) for name in ("system", "tools")):
        _unbind(summary, position)
    summary.setup, summary.setup_at = marks, position


def _unbind(summary: Summary, position: int) -> None:
    """Take note that what stood before others has changed: neither cache nor thinking holds any more."""
    summary.prefix = position
    if not summary.drop_block:
        summary.thinking_from = position


def _cut(summary: Summary, entry: Entry, position: int) -> None:
    data = entry.data
    _begin(summary, data["from"], position, data["hidden"], data["since"])
    summary.context = data["tokens"]
    summary.renamed = _marks_in(entry)
    _unbind(summary, position)


def _marks_in(entry: Entry) -> list[str]:
    """Return the tool calls that stay renamed; an entry may come from another program."""
    marks = entry.data.get("renamed", [])
    return marks if is_list_of_marks(marks) else []


def _compaction(summary: Summary, entry: Entry, position: int) -> None:
    bound = summary.thinking_from
    _paid(summary, entry, position)
    _cut(summary, entry, position)
    summary.thinking_from = bound


def _choice(summary: Summary, entry: Entry, position: int) -> None:
    if summary.drop_block and not entry.data["drop_block"]:
        summary.thinking_from = position
    summary.drop_block = entry.data["drop_block"]


def _rewind(summary: Summary, entry: Entry, position: int) -> None:
    _reroute(summary, entry, position)
    summary.unanswered = None
    if "view" in entry.data:  # it went back before what was sent: what was cut off later is sent again
        _begin(summary, **entry.data["view"])
        _unbind(summary, position)


def _reroute(summary: Summary, entry: Entry, position: int) -> None:
    summary.path = position
    summary.messages, summary.turns = entry.data["messages"], entry.data["turns"]
    summary.context = entry.data["tokens"]


def _snapshot(summary: Summary, entry: Entry, position: int) -> None:
    _reroute(summary, entry, position)
    summary.preview = None
    summary.hidden = entry.data["hidden"]
    summary.renamed = _marks_in(entry)
    if entry.data["sent"]:
        _unbind(summary, position)
        summary.thinking_from = position  # not even the API could tell what it was bound to
    if entry.data["cut"] is None:
        summary.cut = None


def _mend(summary: Summary, entry: Entry, position: int) -> None:
    _reroute(summary, entry, position)
    summary.hidden, summary.cut = entry.data["hidden"], entry.data["cut"]
    if "setup" in entry.data:  # the record that has it whole is lost: the next turn of an engine stores it again
        summary.setup, summary.setup_at = {}, None
    if entry.data["lost"]:
        _unbind(summary, position)
        summary.thinking_from = position


def _refused(summary: Summary, entry: Entry, _position: int) -> None:
    summary.context = max(0, summary.context - entry.data["tokens"])


def _omitted(summary: Summary, entry: Entry, position: int) -> None:
    summary.context = max(0, summary.context - entry.data["tokens"])
    if entry.data["unbinds"]:
        _unbind(summary, position)
    if entry.data["thinking"]:
        summary.thinking_from = position


def _lost(summary: Summary, _entry: Entry, position: int) -> None:
    _unbind(summary, position)
    summary.thinking_from = position  # what follows was bound to what stood here


def _forked(summary: Summary, entry: Entry, _position: int) -> None:
    state = summary_in(entry) or summary
    for each in fields(Summary):
        setattr(summary, each.name, getattr(state, each.name))


_CHANGES = {
    "message": _message,
    "annotation": _annotation,
    "rewind": _rewind,
    "snapshot": _snapshot,
    "opened": _opened,
    "renewed": _renewed,
    "setup": _setup,
    "cut": _cut,
    "compaction": _compaction,
    "choice": _choice,
    "mend": _mend,
    "refused": _refused,
    "omitted": _omitted,
    "forked": _forked,
    "lost": _lost,
    "interrupted": _paid,
    "orphaned": _paid,
}
