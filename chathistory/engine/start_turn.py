"""How a turn begins, or begins again: one look at the conversation, one guarded append."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from chathistory.checks import check_kind, check_text
from chathistory.engine.prompt_setup import PromptSetup
from chathistory.engine.reply import Reply
from chathistory.engine.tool_calls import CalledReply, check_not_empty, has_results
from chathistory.engine.turn import Turn, can_be_sent, ends_paused
from chathistory.engine.view_cache import CachedView, ViewCache
from chathistory.errors import ConversationChanged, InvalidInput, TurnError, TurnMismatch, TurnRefused
from chathistory.log.active_path import ActiveEntries, newest_first, on_path
from chathistory.log.clock import fresh_token
from chathistory.log.conversation_log import ConversationLog
from chathistory.log.entry import Entry, decode, encode
from chathistory.log.lease import check_free
from chathistory.log.message_entries import message_entry
from chathistory.log.omissions import Omission, is_whole, omissions_in
from chathistory.log.process import is_gone
from chathistory.log.reducers import last_said, open_reply, opens_turn
from chathistory.log.state import Summary, summary_of
from chathistory.messages.content import blocks_of
from chathistory.operations.rewind import rewound
from chathistory.storage.store import Head, Record
from chathistory.trimming.plan_cut import is_callers, is_due, may_be_hidden, planned
from chathistory.trimming.policies import Compaction, Policy, Summarize
from chathistory.view import view_of
from chathistory.view.clean_message import thoughts
from chathistory.view.item import ADDED
from chathistory.view.tool_call_ids import given_ids, with_given_ids

__all__ = ["TurnStarter", "abandon", "is_thinking"]

T = TypeVar("T")

_ATTEMPTS = 20
_PORTION = 256


def abandon(log: ConversationLog) -> bool:
    """Close the open turn, whoever holds it; False: there was none."""
    with log.lock:
        head = log.refresh()
        turn = summary_of(head).turn if head else None
        if turn:
            log.append([Entry("abandoned", data={"reason": "abandoned by hand"}, turn=turn.id)])
        return turn is not None


@dataclass(frozen=True, slots=True)
class TurnStarter:
    """Opens turns of one conversation, held with `setup`; each counts as open for `timeout` seconds.

    trimming: what decides on cuts, which are stored with the message that opens a turn; None: nothing does. expected:
    the version behind which new messages are stored, as `ConversationLog.confirm` says; None: whatever is there.
    """

    log: ConversationLog
    setup: PromptSetup
    timeout: float
    recall: ViewCache
    trimming: Policy | None = None
    expected: str | None = None

    def begin(self, content: Any, *, turn_id: str | None = None) -> Turn:
        """Store the user's message and open a turn.

        With a `turn_id` that was used before nothing is stored twice: the turn is answered already, or begins again.
        So does the last turn if it has no reply and its message is the same, and a turn that sent the same results.

        Raises:
            InvalidInput: Nothing of the content can be sent, or a result names no call of the reply that it answers.
            TurnMismatch: The `turn_id`, or a tool call, has other content already.
            TurnInProgress: Another turn is open.
            TurnError: The results came too late, or the conversation does not exist.
            Conflict: Somebody changed the conversation since the version `expected`.
        """
        if turn_id is not None:
            check_text("turn_id", turn_id)
        entry = message_entry({"role": "user", "content": content}, turn=turn_id or fresh_token())
        check_not_empty(entry)
        return self._retried(lambda: self._begun(entry, named=turn_id is not None))

    def submit(self, reply: Reply, results: Mapping[str, Any], *, partial: bool) -> Turn | list[str]:
        """Store results of the tools that a stored reply calls, and open the turn that sends them.

        Args:
            reply: The reply that called the tools.
            results: By the id of each call; see `Reply.results`.
            partial: Open the turn only if no call is left without a result.

        Returns:
            The turn, or with `partial` the ids of the calls that still await a result; nothing is sent then.

        Raises:
            InvalidInput: There are no results, or one names no call of the reply.
            TurnMismatch: A call has another result already.
            TurnInProgress: Another turn is open.
            TurnError: The reply is not part of the conversation (any longer), or the conversation went on without
                the results.
            Conflict: Somebody changed the conversation since the version `expected`.
        """
        check_kind("reply", reply, Reply, "a Reply")
        blocks = reply.results(results)
        if not blocks:
            raise InvalidInput("results: must hold the result of at least one call")
        entry = message_entry({"role": "user", "content": blocks}, turn=fresh_token())
        return self._retried(lambda: self._submitted(entry, reply, partial=partial))

    def _retried(self, step: Callable[[], T]) -> T:
        for _ in range(_ATTEMPTS):
            with contextlib.suppress(ConversationChanged):  # somebody wrote between our look and our append: look again
                return step()
            if self.expected is not None:
                self.log.confirm(self.expected)
        return step()

    def resume(self, *, takeover: bool = False, force: bool = False) -> Turn | None:
        """Open the last turn again, to send its messages once more; None: it has its reply, nothing is left to do.

        takeover: also while another process holds the turn; what comes of that is kept beside the conversation. force:
        also if the API refused it, which raises `TurnRefused` otherwise.
        """
        with self.log.lock:
            sent = self._look()
            if sent and force and (refused := _refused_last(sent)):
                self.free(sent.head)
                return self._reopened(sent, refused, Entry("opened", data={"restored": True}))
            last = last_said(_sendable(sent)) if sent else None
            if sent and (last is None or _is_reply(last)) and _refused_last(sent):
                raise TurnRefused(self._refused_words(_refused_last(sent)))
            if sent is None or last is None or _is_reply(last):
                return None
            if not takeover:
                self.free(sent.head)
            if not can_be_sent(view_of(sent).messages, paused=ends_paused(sent)):
                return None
            return self._reopened(sent, last.turn or fresh_token())

    def resumable(self, *, takeover: bool = False, force: bool = False) -> Turn:
        """Like `resume`, but raises `TurnError` if there is nothing left to do."""
        turn = self.resume(takeover=takeover, force=force)
        if turn is None:
            raise TurnError("the conversation has no turn without a reply")
        return turn

    def regenerate(self, *, turn_id: str | None = None) -> Turn:
        """Take back the reply to the last question, and open a turn that asks it again.

        A question that has no reply yet is asked as `resume` does. With a `turn_id` that was used before nothing is
        taken back twice: the turn is answered already, or begins again.

        Raises:
            TurnInProgress: Another turn is open.
            TurnError: There is no question.
            Conflict: Somebody changed the conversation since the version `expected`.
        """
        if turn_id is not None:
            check_text("turn_id", turn_id)
        return self._retried(lambda: self._regenerated(turn_id))

    def _regenerated(self, turn_id: str | None) -> Turn:
        with self.log.lock:
            sent = self._look()
            messages = self._since_question(sent.head) if sent else []
            if sent is None or not messages:
                raise TurnError(f"conversation {self.log.key.id!r} has no question to answer again")
            if turn_id and (turn := self._regenerated_before(sent, messages[0], turn_id)):
                return turn
            if _is_refused(sent, messages[0]):
                raise TurnRefused(self._refused_words(messages[0].turn))
            self.free(sent.head)
            reply = next((each for each in messages if _role(each) == "assistant"), None)
            opened = Entry("opened", data={"question": messages[0].position})
            turn_id = turn_id or fresh_token()
            if reply is None:
                return self._reopened(sent, turn_id, opened, expected=self.expected)
            return self._asked_anew(sent, reply, turn_id, opened)

    def _regenerated_before(self, sent: ActiveEntries, question: Entry, turn_id: str) -> Turn | None:
        """Return the turn of this id if it was opened before; None: it is new.

        Raises `TurnError` if the conversation went on without a reply to it.
        """
        messages, asked = self._turn_of(sent, turn_id)
        turn = self._replied_before(sent, asked or question, turn_id)
        if turn or asked is None:
            return turn
        return self._same_turn(sent, asked, messages, turn_id)

    def _replied_before(self, sent: ActiveEntries, question: Entry, turn_id: str) -> Turn | None:
        """Return a turn with the reply that it had, whether or not the conversation goes through it now."""
        for part in self.log.slices(question.position, sent.head.end):
            for entry in self.log.entries(part):  # another reply may have been chosen, or asked for, since
                if entry.kind == "message" and entry.turn == turn_id and _is_reply(entry):
                    return Turn(self.log, turn_id, self.timeout, answered=Reply.of(entry))
        return None

    def _asked_anew(self, sent: ActiveEntries, reply: Entry, turn_id: str, opened: Entry) -> Turn:
        """Take back a reply and what follows it, and open a turn, in one append."""
        turn = Turn(self.log, turn_id, self.timeout)
        back = rewound(self.log, sent.head, reply.position)
        self.setup.warn(sent.summary, self.log.key.id)  # before anything is stored: warnings may be errors
        batch = [*_abandoned(sent.summary), back, *self.setup.entries(sent.summary), turn.opening(opened)]
        head = self.log.append(batch, expected=self.expected)
        turn.begun(ActiveEntries(head, summary_of(head), []))
        try:
            turn.go_on()
        except BaseException as error:
            turn.broke_off(error)
            raise
        return turn

    def _since_question(self, head: Head) -> list[Entry]:
        """Return the last question and the messages behind it; none if there is no question."""
        found: list[Entry] = []
        for entry in newest_first(self.log, _PORTION, before=head.end):
            if entry.kind == "message":
                found.insert(0, entry)
                if opens_turn(entry.message or {}):
                    return found
        return []

    def _refused_words(self, turn: str | None) -> str:
        return (
            f"the API refused turn {turn!r} of conversation {self.log.key.id!r}, and would refuse it again: say "
            "something else, or resume(id, force=True) to send it again all the same"
        )

    def _look(self) -> ActiveEntries | None:
        return on_path(self.log)

    def _begun(self, entry: Entry, *, named: bool) -> Turn:
        with self.log.lock:
            if memory := self._remembered(entry):
                with contextlib.suppress(ConversationChanged):  # somebody wrote since: look
                    return self._opened(None, entry, memory)
            sent = self._look()
            if sent and (turn := self._again(sent, entry) or self._asked_again(sent, entry, named=named)):
                return turn
            if has_results(entry.message or {}):
                return self._answering(sent, self._called_for(sent, entry), entry)
            return self._opened(sent, entry)

    def _submitted(self, entry: Entry, reply: Reply, *, partial: bool) -> Turn | list[str]:
        with self.log.lock:
            sent = self._look()
            called = self._called(sent, reply)
            fresh = called.without_stored(entry) if called else None
            if sent is None or called is None or not partial:
                return self._answering(sent, called, entry)
            ids = {block["tool_use_id"] for block in fresh.message["content"]} if fresh and fresh.message else set()
            left = [id for id in called.open_calls if id not in ids]
            if not left:
                return self._answering(sent, called, entry)
            if fresh:
                self.free(sent.head)
                self.log.append([fresh], expected=self.expected)
            return left

    def _called(self, sent: ActiveEntries | None, reply: Reply) -> CalledReply | None:
        """Return what is stored of a reply's assistant turn; None: it is not part of the conversation."""
        called = CalledReply.at(_messages(sent), reply.position)
        if called is None and sent and sent.summary.begin > reply.position:
            called = CalledReply.at(_messages(self._everything()), reply.position)
        ids = {call["id"] for call in reply.tool_calls}
        return called if called and ids.issubset(called.calls) else None

    def _called_for(self, sent: ActiveEntries | None, entry: Entry) -> CalledReply | None:
        """Return the assistant turn that called for the results in a message; the last one if none did."""
        messages, results = _messages(sent), entry.message or {}
        called = CalledReply.of_results(messages, results)
        if called is None and sent and sent.summary.begin:
            called = CalledReply.of_results(_messages(self._everything()), results)
        return called or CalledReply.last_in(messages)

    def _answering(self, sent: ActiveEntries | None, called: CalledReply | None, entry: Entry) -> Turn:
        """Open the turn that sends results; if all of them are stored already, return the turn that sent them."""
        if sent is None or called is None:
            raise TurnError(
                f"conversation {self.log.key.id!r} has no reply that these results belong to: it was taken back, "
                "forgotten, or the conversation was deleted; nothing was stored"
            )
        fresh = called.without_stored(entry)
        if fresh:
            return self._opened(sent, fresh)
        turn = self._continued(sent, called.asked(entry), [*called.answers, *called.following])
        if turn is None:
            raise TurnError(f"conversation {self.log.key.id!r} went on without a reply to these results")
        return turn

    def _remembered(self, entry: Entry) -> CachedView | None:
        """Return what is remembered of the conversation, if that is all that is needed to open a turn."""
        memory, head = self.recall.of(self.log), self.log.seen()
        if memory is None or head is None or entry.turn in memory.turns or has_results(entry.message or {}):
            return None
        if self.expected not in (None, memory.version):
            return None
        summary = summary_of(head)
        repeated = summary.begin and is_callers(entry.turn or "")  # perhaps one that is not sent any more
        cut = self.trimming and is_due(self.trimming, summary, entry.message)
        return None if repeated or cut or self.setup.entries(summary) else memory

    def free(self, head: Head | None) -> Summary | None:
        """Return the summary of a conversation in which no turn is open. Raises `TurnInProgress`."""
        summary = summary_of(head) if head else None
        check_free(self.log.key, summary, timeout=self.timeout)
        return summary

    def _opened(self, sent: ActiveEntries | None, entry: Entry, memory: CachedView | None = None) -> Turn:
        """Open a turn behind what was sent so far, or behind what is remembered of that."""
        summary = self.free(sent.head if sent else self.log.seen())
        plan = planned(self.trimming, sent, entry.message) if self.trimming and sent else None
        memory = memory or CachedView(self.log, "", [], _turns(sent))
        turn = Turn(self.log, entry.turn or entry.id, self.timeout, memory=memory, recall=self.recall)
        if plan and isinstance(plan.policy, Compaction | Summarize):
            turn.plan, plan = plan, None  # the message is stored first: what stands for the rest takes a while to make
        cut = [plan.entry()] if plan else []
        batch = [*cut, *self._held(sent, summary), *_abandoned(summary), turn.opening(entry)]
        self._start(turn, sent, summary, batch, expected=self.expected)
        return turn

    def _reopened(
        self, sent: ActiveEntries, turn_id: str, opened: Entry | None = None, *, expected: str | None = None
    ) -> Turn:
        turn = Turn(self.log, turn_id, self.timeout)
        opening = [*self._held(sent, sent.summary), turn.opening(opened or Entry("opened"))]
        self._start(turn, sent, sent.summary, [*opening, *self._missing(turn, sent)], expected=expected)
        return turn

    def _held(self, sent: ActiveEntries | None, summary: Summary | None) -> list[Entry]:
        """Return the records that have to be stored before the next message, for it is held with something else.

        Thinking is bound to what it was held with. If the API wants it back nevertheless, for a tool's result is due,
        it is asked to drop it itself from now on.
        """
        changed = self.setup.entries(summary)
        if sent and changed and self.setup.unbinds(sent.summary) and not sent.summary.drop_block and is_thinking(sent):
            return [Entry("choice", data={"drop_block": True}), *changed]
        return changed

    def _start(
        self,
        turn: Turn,
        sent: ActiveEntries | None,
        summary: Summary | None,
        batch: Sequence[Entry],
        *,
        expected: str | None,
    ) -> None:
        """Store what opens a turn, and give the turn its messages."""
        self.setup.warn(summary, self.log.key.id)  # before anything is stored: warnings may be errors
        head = self.log.append(batch, expected=expected)
        stored = [
            decode(Record(position, encode(new)), self.log.key)  # what is sent is what is stored
            for position, new in enumerate(batch, head.end - len(batch))
        ]
        seen = sent.extended(head, stored) if sent else ActiveEntries(head, summary_of(head), stored)
        turn.begun(seen, turn.memory.messages if turn.memory else ())

    def _missing(self, turn: Turn, sent: ActiveEntries) -> list[Entry]:
        """Return the results of calls that a crash left without: what is sent to Claude has to be in the log."""
        found = view_of(sent)
        if found.report.kept[-1:] != (ADDED,):
            return []
        ids = given_ids(sent.entries, sent.summary.renamed)  # the log has the ids of the replies
        message, beside = with_given_ids(found.messages[-1], ids)
        entry = message_entry(message)
        return [turn.stepping(replace(entry, data=entry.data | beside))]

    def _again(self, sent: ActiveEntries, entry: Entry) -> Turn | None:
        """Return the turn of this id if it was opened before; None: it is new.

        Raises `TurnError` if the conversation went on without a reply to it: its words are part of what Claude was sent
        since, and would be there twice.
        """
        messages, question = self._turn_of(sent, entry.turn or "")
        if question is None:
            return None
        if question.message != entry.message:
            raise TurnMismatch(f"turn {entry.turn!r} of conversation {self.log.key.id!r} has another message already")
        if _is_refused(sent, question):
            raise TurnRefused(self._refused_words(question.turn))
        return self._same_turn(sent, question, messages, entry.turn or "")

    def _same_turn(self, sent: ActiveEntries, question: Entry, messages: Sequence[Entry], turn_id: str) -> Turn:
        """Return the turn that a stored question belongs to. Raises `TurnError` if the conversation went on without.

        A reply that it had before counts even if it was taken back since: one turn id is sent once.
        """
        behind = [each for each in messages if each.position > question.position]
        path = sent.summary.path
        if path is not None and path > question.position and not any(map(_is_reply, behind)):
            turn = self._replied_before(sent, question, turn_id)
            if turn:
                return turn
        turn = self._continued(sent, question, messages, turn_id=turn_id)
        if turn is None:
            raise TurnError(
                f"conversation {self.log.key.id!r} went on without a reply to turn {turn_id!r}, whose message is "
                "part of it; send a new message, under another turn_id"
            )
        return turn

    def _turn_of(self, sent: ActiveEntries, turn_id: str) -> tuple[list[Entry], Entry | None]:
        """Return the messages among which a turn stands, if it was opened, and what it asked; None: it is not there."""
        question = _question(sent.entries, turn_id)
        if question is None and may_be_hidden(sent, turn_id):
            everything = self._everything()
            return _messages(everything), _question(everything, turn_id)
        return [each for each in _messages(sent) if not _is_refused(sent, each)], question

    def _asked_again(self, sent: ActiveEntries, entry: Entry, *, named: bool) -> Turn | None:
        """Return the last turn, begun again, if it has no reply and the same message as this; else None.

        named: the caller gave the turn an id, which it has from now on.
        """
        messages = [entry for entry in _sendable(sent) if entry.kind == "message"]
        first = next((index for index in range(len(messages))[::-1] if opens_turn(messages[index].message or {})), None)
        if first is None or messages[first].message != entry.message or any(map(_is_reply, messages[first:])):
            return None
        turn_id = entry.turn if named else None
        return self._continued(sent, messages[first], messages, turn_id=turn_id, expected=self.expected)

    def _continued(
        self,
        sent: ActiveEntries,
        asked: Entry,
        messages: Sequence[Entry],
        *,
        turn_id: str | None = None,
        expected: str | None = None,
    ) -> Turn | None:
        """Return the turn that answers a stored message of the user: with its reply, or begun again.

        Args:
            sent: What the conversation sends.
            asked: The stored message.
            messages: Messages among which it and those behind it are.
            turn_id: The id of the turn that is begun again; None: that of its last message.
            expected: See `TurnStarter`; None: it is the same turn, which may have changed the conversation itself.

        Returns:
            None if the conversation went on without a reply to it.
        """
        behind = [each for each in messages if each.position > asked.position and _role(each) != "system"]
        chain = [asked, *itertools.takewhile(lambda each: not opens_turn(each.message or {}), behind)]
        reply = next(filter(_is_reply, chain), None)
        if reply:
            return Turn(self.log, reply.turn or "", self.timeout, answered=Reply.of(reply))
        self.free(sent.head)
        if len(chain) <= len(behind):
            return None
        same = turn_id in (None, chain[-1].turn)
        opened = Entry("opened") if same else Entry("opened", data={"question": asked.position})
        return self._reopened(sent, turn_id or chain[-1].turn or fresh_token(), opened, expected=expected)

    def _everything(self) -> list[Entry]:
        """Return all entries of the conversation in order, those that stand before what is sent as well."""
        return list(newest_first(self.log, _PORTION))[::-1]


def is_thinking(sent: ActiveEntries) -> bool:
    """Whether the API wants thinking of the last reply back, for that is left open."""
    reply = open_reply(reversed(sent.entries))
    return reply is not None and thoughts(reply) > 0


def _turns(sent: ActiveEntries | None) -> frozenset[str]:
    """Return the ids of the turns that are known to be there."""
    return frozenset(found.turn for found in sent.entries if found.turn) if sent else frozenset()


def _abandoned(summary: Summary | None) -> list[Entry]:
    """Return the record that closes a turn whose time is over, if there is one."""
    if summary is None or summary.turn is None:
        return []
    process = summary.turn.process
    reason = "its process ended" if process and is_gone(process) else "timed out"
    return [Entry("abandoned", data={"reason": reason}, turn=summary.turn.id)]


def _sendable(sent: ActiveEntries) -> list[Entry]:
    """Return the entries of what is sent, without the messages of which nothing is sent."""
    omissions = omissions_in(sent.entries)
    return [each for each in sent.entries if each.kind != "message" or not is_whole(omissions.get(each.position, ()))]


def _is_refused(sent: ActiveEntries, question: Entry) -> bool:
    """Whether the API refused a message of the user, so that it is not sent any more."""
    return is_whole(omissions_in(sent.entries).get(question.position, ()))


def _refused_last(sent: ActiveEntries) -> str | None:
    """Return the id of the last turn, if the API refused what it sent and nothing was said since; else None."""
    for entry in reversed(sent.entries):
        if entry.kind == "refused":
            gone = omissions_in(sent.entries)
            return entry.turn if any(place[0] in gone for place in entry.data["places"]) else None
        if entry.kind == "message":
            return None
    return None


def _messages(sent: ActiveEntries | Sequence[Entry] | None) -> list[Entry]:
    """Return the messages among entries, or among those that are sent."""
    entries = (sent.entries if isinstance(sent, ActiveEntries) else sent) or ()
    omissions = omissions_in(entries)
    return [_marked(entry, omissions.get(entry.position, ())) for entry in entries if entry.kind == "message"]


def _marked(entry: Entry, omissions: Sequence[Omission]) -> Entry:
    """Return a message with the ids of the tool results that the API refused, for which others may come."""
    blocks = blocks_of(entry.message or {"content": ""})
    gone = {each.block for each in omissions}
    ids = [
        block["tool_use_id"] for index, block in enumerate(blocks) if index in gone and block["type"] == "tool_result"
    ]
    return replace(entry, data=entry.data | {"refused_results": ids}) if ids else entry


def _question(entries: Sequence[Entry], turn: str | None) -> Entry | None:
    """Return the user's message that a turn sent first: its own, or the stored one that it was opened for."""
    places = [entry.data["question"] for entry in entries if entry.turn == turn and "question" in entry.data]
    messages = [entry for entry in entries if entry.kind == "message" and _role(entry) == "user"]
    own = [entry for entry in messages if entry.turn == turn or entry.position in places]
    return own[0] if own else None


def _is_reply(entry: Entry) -> bool:
    """Whether an entry holds a reply that ends its turn: it is not paused, and no tool is being run for it."""
    paused = entry.data.get("response", {}).get("stop_reason") == "pause_turn"
    return _role(entry) == "assistant" and not paused and "until" not in entry.data


def _role(entry: Entry) -> str | None:
    return entry.message["role"] if entry.message else None
