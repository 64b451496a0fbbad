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
from chathistory.engine.turn import Turn
from chathistory.errors import Conflict, TurnError, TurnMismatch
from chathistory.log.clock import fresh_token
from chathistory.log.entry import Entry, decode, encode
from chathistory.log.fold import last_said, open_reply
from chathistory.log.journal import Journal
from chathistory.log.spans import Sent, newest_first, on_path
from chathistory.log.summary import Summary, check_free, summary_of
from chathistory.store import Head, Record
from chathistory.trimming.cutting import is_callers, is_due, may_be_hidden, planned
from chathistory.trimming.policies import Compaction, Policy, Summarize
from chathistory.view import view_of
from chathistory.view.cleaning import thoughts
from chathistory.view.item import ADDED

__all__ = ["Opening", "abandon", "is_thinking"]

_ATTEMPTS = 20
_PORTION = 256


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
    """Opens turns of one conversation, held with `setup`; each counts as open for `timeout` seconds.

    trimming: what decides on cuts, which are stored with the message that opens a turn; None: nothing does.
    """

    journal: Journal
    setup: Setup
    timeout: float
    recall: Recall
    trimming: Policy | None = None

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
            sent = self._look()
            last = last_said(sent.entries) if sent else None
            if sent is None or last is None or _is_reply(last):
                return None
            self.free(sent.head)
            return self._reopened(sent, last.turn or fresh_token())

    def resumable(self) -> Turn:
        """Like `resume`, but raises `TurnError` if there is nothing left to do."""
        turn = self.resume()
        if turn is None:
            msg = "the conversation has no turn without a reply"
            raise TurnError(msg)
        return turn

    def _look(self) -> Sent | None:
        return on_path(self.journal)

    def _begun(self, entry: Entry) -> Turn:
        with self.journal.lock:
            if memory := self._remembered(entry):
                with contextlib.suppress(Conflict):  # somebody wrote since: look
                    return self._opened(None, entry, memory)
            sent = self._look()
            return (self._again(sent, entry) if sent else None) or self._opened(sent, entry)

    def _remembered(self, entry: Entry) -> Memory | None:
        """Return what is remembered of the conversation, if that is all that is needed to open a turn."""
        memory, head = self.recall.of(self.journal), self.journal.seen()
        if memory is None or head is None or entry.turn in memory.turns:
            return None
        summary = summary_of(head)
        repeated = summary.begin and is_callers(entry.turn or "")  # perhaps one that is not sent any more
        cut = self.trimming and is_due(self.trimming, summary, entry.message)
        return None if repeated or cut or self.setup.entries(summary) else memory

    def free(self, head: Head | None) -> Summary | None:
        """Return the summary of a conversation in which no turn is open. Raises `TurnInProgress`."""
        summary = summary_of(head) if head else None
        check_free(self.journal.key, summary)
        return summary

    def _opened(self, sent: Sent | None, entry: Entry, memory: Memory | None = None) -> Turn:
        """Open a turn behind what was sent so far, or behind what is remembered of that."""
        summary = self.free(sent.head if sent else self.journal.seen())
        plan = planned(self.trimming, sent, entry.message) if self.trimming and sent else None
        memory = memory or Memory(self.journal, "", [], _turns(sent))
        turn = Turn(self.journal, entry.turn or entry.id, self.timeout, memory=memory, recall=self.recall)
        if plan and isinstance(plan.policy, Compaction | Summarize):
            turn.plan, plan = plan, None  # the message is stored first: what stands for the rest takes a while to make
        cut = [plan.entry()] if plan else []
        self._start(turn, sent, summary, [*cut, *self._held(sent, summary), *_abandoned(summary), turn.stepping(entry)])
        return turn

    def _reopened(self, sent: Sent, turn_id: str) -> Turn:
        turn = Turn(self.journal, turn_id, self.timeout)
        opening = [*self._held(sent, sent.summary), turn.stepping(Entry("opened"))]
        self._start(turn, sent, sent.summary, [*opening, *self._missing(turn, sent)])
        return turn

    def _held(self, sent: Sent | None, summary: Summary | None) -> list[Entry]:
        """Return the records that have to be stored before the next message, for it is held with something else.

        Thinking is bound to what it was held with. If the API wants it back nevertheless, for a tool's result is due,
        it is asked to drop it itself from now on.
        """
        changed = self.setup.entries(summary)
        if sent and changed and self.setup.unbinds(sent.summary) and not sent.summary.drop_block and is_thinking(sent):
            return [Entry("choice", data={"drop_block": True}), *changed]
        return changed

    def _start(self, turn: Turn, sent: Sent | None, summary: Summary | None, batch: Sequence[Entry]) -> None:
        """Store what opens a turn, and give the turn its messages."""
        self.setup.warn(summary, self.journal.key.id)  # before anything is stored: warnings may be errors
        head = self.journal.append(batch)
        stored = [
            decode(Record(position, encode(new)), self.journal.key)  # what is sent is what is stored
            for position, new in enumerate(batch, head.end - len(batch))
        ]
        seen = sent.extended(head, stored) if sent else Sent(head, summary_of(head), stored)
        before = turn.memory.messages if turn.memory else []
        turn.begun(head, [*before, *view_of(seen).messages])

    def _missing(self, turn: Turn, sent: Sent) -> list[Entry]:
        """Return the results of calls that a crash left without: what is sent to Claude has to be in the log."""
        found = view_of(sent)
        if found.report.kept[-1:] != (ADDED,):
            return []
        return [turn.stepping(message_entry(found.messages[-1]))]

    def _again(self, sent: Sent, entry: Entry) -> Turn | None:
        """Return the turn of this id if it was opened before; None: it is new, or the conversation went on without."""
        messages = [found for found in sent.entries if found.kind == "message"]
        mine = [found for found in messages if found.turn == entry.turn]
        if not mine or _role(mine[0]) != "user":  # all of the turn was cut off, or its beginning
            mine = self._hidden(sent, entry) or mine
        if not mine:
            return None
        if mine[0].message != entry.message:
            msg = f"turn {entry.turn!r} of conversation {self.journal.key.id!r} has another message already"
            raise TurnMismatch(msg)
        if _is_reply(mine[-1]):
            return Turn(self.journal, mine[-1].turn or "", self.timeout, answered=Reply.of(mine[-1]))
        self.free(sent.head)
        return self._reopened(sent, mine[-1].turn or "") if mine[-1] is messages[-1] else None

    def _hidden(self, sent: Sent, entry: Entry) -> list[Entry]:
        """Return the messages of a turn that stand before what is sent."""
        if not may_be_hidden(sent, entry.turn or ""):
            return []
        earlier = newest_first(self.journal, _PORTION)
        return [found for found in earlier if found.kind == "message" and found.turn == entry.turn][::-1]


def is_thinking(sent: Sent) -> bool:
    """Whether the API wants thinking of the last reply back, for that is left open."""
    reply = open_reply(reversed(sent.entries))
    return reply is not None and thoughts(reply) > 0


def _turns(sent: Sent | None) -> frozenset[str]:
    """Return the ids of the turns that are known to be there."""
    return frozenset(found.turn for found in sent.entries if found.turn) if sent else frozenset()


def _abandoned(summary: Summary | None) -> list[Entry]:
    """Return the record that closes a turn whose time is over, if there is one."""
    if summary is None or summary.turn is None:
        return []
    return [Entry("abandoned", data={"reason": "timed out"}, turn=summary.turn.id)]


def _is_reply(entry: Entry) -> bool:
    """Whether an entry holds a reply that ends its turn: it is not paused, and no tool is being run for it."""
    paused = entry.data.get("response", {}).get("stop_reason") == "pause_turn"
    return _role(entry) == "assistant" and not paused and "until" not in entry.data


def _role(entry: Entry) -> str | None:
    return entry.message["role"] if entry.message else None
