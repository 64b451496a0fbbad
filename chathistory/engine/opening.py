"""How a turn begins, or begins again: one look at the conversation, one guarded append."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from chathistory.content import message_entry
from chathistory.engine.recall import Memory, Recall
from chathistory.engine.reply import Reply
from chathistory.engine.setup import Setup
from chathistory.engine.turn import Turn, sendable
from chathistory.errors import Conflict, TurnError, TurnInProgress, TurnMismatch
from chathistory.log.clock import fresh_token, now
from chathistory.log.entry import Entry, decode, encode
from chathistory.log.journal import Journal
from chathistory.log.spans import on_path
from chathistory.log.summary import Summary, summary_of
from chathistory.store import Head, Record
from chathistory.view.item import ADDED

__all__ = ["Opening", "abandon"]

_ATTEMPTS = 20


def abandon(journal: Journal) -> bool:
    """Close the open turn, whoever holds it; False: there was none."""
    with journal.lock:
        head = journal.refresh()
        turn = summary_of(head).turn if head else None
        if turn:
            journal.append([Entry("abandoned", data={"reason": "abandoned by hand"}, turn=turn.id)])
        return turn is not None


@dataclass(frozen=True, slots=True)
class Opening:
    """Opens turns of one conversation, held with `setup`; each counts as open for `timeout` seconds."""

    journal: Journal
    setup: Setup
    timeout: float
    recall: Recall

    def begin(self, content: Any, *, turn_id: str | None = None) -> Turn:
        """Store the user's message and open a turn. Raises `TurnInProgress`, `TurnMismatch`, `InvalidInput`.

        With a `turn_id` that was used before nothing is stored twice: the turn is answered already, or begins again.
        """
        entry = message_entry({"role": "user", "content": content}, turn=turn_id or fresh_token())
        for _ in range(_ATTEMPTS):
            with contextlib.suppress(Conflict):  # somebody wrote between our look and our append: look again
                return self._begun(entry)
        return self._begun(entry)

    def resume(self) -> Turn | None:
        """Open the last turn again, to send its messages once more; None: it has its reply, nothing is left to do."""
        with self.journal.lock:
            head, entries = self._look()
            messages = [entry for entry in entries if entry.kind == "message" and not _is_system(entry)]
            if not messages or _is_reply(messages[-1]):
                return None
            summary = self._free(head)
            return self._reopened(summary, entries, messages[-1].turn or fresh_token())

    def resumable(self) -> Turn:
        """Like `resume`, but raises `TurnError` if there is nothing left to do."""
        turn = self.resume()
        if turn is None:
            msg = "the conversation has no turn without a reply"
            raise TurnError(msg)
        return turn

    def _look(self) -> tuple[Head | None, list[Entry]]:
        return on_path(self.journal) or (None, [])

    def _begun(self, entry: Entry) -> Turn:
        with self.journal.lock:
            memory = self.recall.of(self.journal)
            if memory and entry.turn not in memory.turns:
                with contextlib.suppress(Conflict):  # somebody wrote since: look
                    return self._opened(self.journal.seen(), [], entry, memory)
            head, entries = self._look()
            return self._again(head, entries, entry) or self._opened(head, entries, entry)

    def _free(self, head: Head | None) -> Summary | None:
        """Return the summary of a conversation in which no turn is open."""
        summary = summary_of(head) if head else None
        if summary and summary.turn and summary.turn.until > now():
            raise TurnInProgress(self.journal.key, summary.turn.id, summary.turn.until)
        return summary

    def _opened(self, head: Head | None, entries: Sequence[Entry], entry: Entry, memory: Memory | None = None) -> Turn:
        """Open a turn behind `entries`, or behind what is remembered of them."""
        summary = self._free(head)
        if memory and self.setup.entries(summary):
            memory, (head, entries) = None, self._look()  # the view may change with the setup
        memory = memory or Memory(self.journal, "", [], frozenset(found.turn for found in entries if found.turn))
        turn = Turn(self.journal, entry.turn or entry.id, self.timeout, memory=memory, recall=self.recall)
        self._start(turn, summary, entries, [*_abandoned(summary), turn.stepping(entry)])
        return turn

    def _reopened(self, summary: Summary | None, entries: Sequence[Entry], turn_id: str) -> Turn:
        turn = Turn(self.journal, turn_id, self.timeout)
        self._start(turn, summary, entries, [turn.stepping(Entry("opened"))])
        return turn

    def _start(self, turn: Turn, summary: Summary | None, entries: Sequence[Entry], opening: Sequence[Entry]) -> None:
        """Store what opens a turn, with what its view has to add at the end, and give the turn its messages."""
        batch = [*self.setup.entries(summary), *opening]
        if summary and opening[-1].kind == "opened":
            batch += self._missing(turn, summary, entries)
        self.setup.warn(summary, self.journal.key.id)  # before anything is stored: warnings may be errors
        head = self.journal.append(batch)
        stored = [
            decode(Record(position, encode(new)), self.journal.key)  # what is sent is what is stored
            for position, new in enumerate(batch, head.end - len(batch))
        ]
        before = turn.memory.messages if turn.memory else []
        turn.begun(head, [*before, *sendable(head, [*entries, *stored]).messages])

    def _missing(self, turn: Turn, summary: Summary, entries: Sequence[Entry]) -> list[Entry]:
        """Return the results of calls that a crash left without: what is sent to Claude has to be in the log."""
        found = sendable(summary, entries)
        if found.report.kept[-1:] != (ADDED,):
            return []
        return [turn.stepping(message_entry(found.messages[-1]))]

    def _again(self, head: Head | None, entries: Sequence[Entry], entry: Entry) -> Turn | None:
        """Return the turn of this id if it was opened before; None: it is new, or the conversation went on without."""
        messages = [found for found in entries if found.kind == "message"]
        mine = [found for found in messages if found.turn == entry.turn]
        if not mine:
            return None
        if mine[0].message != entry.message:
            msg = f"turn {entry.turn!r} of conversation {self.journal.key.id!r} has another message already"
            raise TurnMismatch(msg)
        if _is_reply(mine[-1]):
            return Turn(self.journal, mine[-1].turn or "", self.timeout, answered=Reply.of(mine[-1]))
        summary = self._free(head)
        return self._reopened(summary, entries, mine[-1].turn or "") if mine[-1] is messages[-1] else None


def _abandoned(summary: Summary | None) -> list[Entry]:
    """Return the record that closes a turn whose time is over, if there is one."""
    if summary is None or summary.turn is None:
        return []
    return [Entry("abandoned", data={"reason": "timed out"}, turn=summary.turn.id)]


def _is_system(entry: Entry) -> bool:
    """Whether an entry holds a system message, which waits for what the user says next."""
    return entry.message is not None and entry.message["role"] == "system"


def _is_reply(entry: Entry) -> bool:
    """Whether an entry holds a reply that ends its turn: it is not paused, and no tool is being run for it."""
    role = entry.message["role"] if entry.message else None
    paused = entry.data.get("response", {}).get("stop_reason") == "pause_turn"
    return role == "assistant" and not paused and "until" not in entry.data
