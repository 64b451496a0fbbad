"""A turn, as the store sees it: opened before the request goes out, closed by what becomes of it.

The user's message is durable first, so nothing typed is ever lost. Its record opens the turn and says until when it
counts as open: another engine that meets it raises `TurnInProgress` before it pays for tokens; past that time the turn
counts as abandoned. The reply is stored only when it is complete, and only if nobody wrote in between; what broke off,
or came too late, is kept beside the conversation, for people to read.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from chathistory.content import Message, message_entry
from chathistory.engine.reply import Reply
from chathistory.errors import (
    ChatHistoryError,
    Conflict,
    IncompleteReply,
    OrphanedReply,
    TurnError,
    TurnInProgress,
    TurnMismatch,
)
from chathistory.log.clock import MICROSECONDS, fresh_token, now
from chathistory.log.entry import Entry, decode, encode
from chathistory.log.journal import Journal
from chathistory.log.spans import on_path
from chathistory.log.summary import Summary, summary_of
from chathistory.store import Head, Record
from chathistory.view import view

__all__ = ["Turn", "abandon", "begin", "resumable", "resume"]

_ATTEMPTS = 20


@dataclass(slots=True)
class Turn:
    """An open turn. messages: what to send. answered: the reply, if this turn had been completed before."""

    journal: Journal
    id: str
    messages: list[Message] = field(repr=False)
    answered: Reply | None = None
    _count: int = 0

    def finish(self, response: Any, *, request_id: str | None = None) -> Reply:
        """Store a complete response of the API and return it as the reply; a streamed one has no request id on it.

        Raises `IncompleteReply` if it is none, `OrphanedReply` if somebody else changed the conversation meanwhile (it
        is kept beside it then), and what an append raises; the error's `reply` has what was paid for.
        """
        if getattr(response, "stop_reason", None) is None:
            msg = "the API answered with something that is not a complete message"
            raise IncompleteReply(msg)
        entry = message_entry(response, turn=self.id)
        if request_id:
            entry.data.setdefault("request_id", request_id)
        try:
            head = self._stored(entry)
        except ChatHistoryError as error:
            error.reply = Reply.of(entry)
            raise
        return Reply.of(replace(entry, position=head.end - 1))

    def _stored(self, entry: Entry) -> Head:
        with self.journal.lock:
            if self._is_open(self._count):
                with contextlib.suppress(Conflict):  # the reply answers a conversation that is not this one any more
                    head = self.journal.append([entry])
                    self._count += 1
                    return head
            raise OrphanedReply(self.journal.key, self._beside(replace(entry, kind="orphaned")))

    def _beside(self, entry: Entry) -> Head:
        """Store what is not part of the conversation, but never bring a deleted one back to life."""
        with self.journal.lock:
            if self.journal.seen() is None:
                raise Conflict(self.journal.key, None)
            return self.journal.append([entry])

    def _is_open(self, count: int | None = None) -> bool:
        """Whether this process sees the turn as open, and the conversation with `count` messages."""
        head = self.journal.seen()
        summary = summary_of(head) if head else None
        is_open = summary is not None and summary.turn is not None and summary.turn.id == self.id
        return is_open and (count is None or (summary is not None and summary.messages == count))

    def go_on(self) -> None:
        """Bring `messages` up to date after a reply that paused: it is sent back as it is, to be continued."""
        self.messages = _sendable(*_loaded(self.journal))

    def broke_off(self, error: BaseException, partial: Message | None = None) -> None:
        """Close the turn without a reply, and keep what had come of one; notes on the error what is saved.

        Does nothing if the turn is closed already.
        """
        if not self._is_open():
            return
        kind = "interrupted" if partial else "abandoned"
        entry = Entry(kind, message=partial, data={"reason": type(error).__name__}, turn=self.id)
        try:
            self._beside(entry)
        except ChatHistoryError as trouble:
            error.add_note(f"chathistory: the message is saved, but the turn could not be closed: {trouble}")
        else:
            error.add_note(f"chathistory: the message is saved in {self.journal.key.id!r}")
            error.add_note("chathistory: `resume` sends it again")


def begin(journal: Journal, content: Any, *, turn_id: str | None, timeout: float) -> Turn:
    """Store the user's message and open a turn. Raises `TurnInProgress` if one is open, `TurnMismatch`, `InvalidInput`.

    With a `turn_id` that was used before nothing is stored twice: the turn is answered already, or is begun again.
    """
    entry = message_entry({"role": "user", "content": content}, turn=turn_id or fresh_token())
    for _ in range(_ATTEMPTS):
        with contextlib.suppress(Conflict):  # somebody wrote between our look and our append: look again
            return _begun(journal, entry, timeout)
    return _begun(journal, entry, timeout)


def _begun(journal: Journal, entry: Entry, timeout: float) -> Turn:
    with journal.lock:
        head, entries = _loaded(journal)
        return _again(journal, head, entries, entry, timeout) or _opened(journal, head, entries, entry, timeout)


def resume(journal: Journal, *, timeout: float) -> Turn | None:
    """Open the last turn again, to send its messages once more; None: it has its reply, there is nothing to resume."""
    with journal.lock:
        head, entries = _loaded(journal)
        messages = [entry for entry in entries if entry.kind == "message"]
        if not messages or _reply(messages[-1]):
            return None
        _check_free(journal, head)
        return _reopened(journal, head, entries, messages[-1].turn or fresh_token(), timeout)


def resumable(turn: Turn | None) -> Turn:
    """Return the turn, or raise `TurnError` if there is none."""
    if turn is None:
        msg = "the conversation has no turn without a reply"
        raise TurnError(msg)
    return turn


def abandon(journal: Journal) -> bool:
    """Close the open turn, whoever holds it; False: there was none."""
    with journal.lock:
        head = journal.refresh()
        turn = summary_of(head).turn if head else None
        if turn:
            journal.append([Entry("abandoned", data={"reason": "abandoned by hand"}, turn=turn.id)])
        return turn is not None


def _loaded(journal: Journal) -> tuple[Head | None, list[Entry]]:
    return on_path(journal) or (None, [])


def _sendable(head: Head | None, entries: Sequence[Entry]) -> list[Message]:
    return view(entries, thinking_from=summary_of(head).thinking_from if head else 0).messages


def _reply(entry: Entry) -> bool:
    """Whether an entry holds a reply that needs no continuation."""
    role = entry.message["role"] if entry.message else None
    return role == "assistant" and entry.data.get("response", {}).get("stop_reason") != "pause_turn"


def _check_free(journal: Journal, head: Head | None) -> Summary | None:
    summary = summary_of(head) if head else None
    if summary and summary.turn and summary.turn.until > now():
        raise TurnInProgress(journal.key, summary.turn.id, summary.turn.until)
    return summary


def _until(timeout: float) -> dict[str, Any]:
    return {"until": now() + int(timeout * MICROSECONDS)}


def _opened(journal: Journal, head: Head | None, entries: Sequence[Entry], entry: Entry, timeout: float) -> Turn:
    summary = _check_free(journal, head)
    stale = [Entry("abandoned", data={"reason": "timed out"}, turn=summary.turn.id)] if summary and summary.turn else []
    opening = replace(entry, data=_until(timeout))
    head = journal.append([*stale, opening])
    stored = decode(Record(head.end - 1, encode(opening)), journal.key)  # what is sent is what is stored
    messages = _sendable(head, [*entries, stored])
    return Turn(journal, entry.turn or entry.id, messages, _count=summary_of(head).messages)


def _reopened(journal: Journal, head: Head | None, entries: Sequence[Entry], turn: str, timeout: float) -> Turn:
    head = journal.append([Entry("opened", data=_until(timeout), turn=turn)])
    return Turn(journal, turn, _sendable(head, entries), _count=summary_of(head).messages)


def _again(journal: Journal, head: Head | None, entries: Sequence[Entry], entry: Entry, timeout: float) -> Turn | None:
    """Return the turn of this id if it was opened before; None: it is new, or the conversation went on without it."""
    messages = [found for found in entries if found.kind == "message"]
    mine = [found for found in messages if found.turn == entry.turn]
    if not mine:
        return None
    if mine[0].message != entry.message:
        msg = f"turn {entry.turn!r} of conversation {journal.key.id!r} has another message already"
        raise TurnMismatch(msg)
    if _reply(mine[-1]):
        return Turn(journal, mine[-1].turn or "", [], answered=Reply.of(mine[-1]))
    _check_free(journal, head)
    if mine[-1] is not messages[-1]:
        return None
    return _reopened(journal, head, entries, mine[-1].turn or "", timeout)
