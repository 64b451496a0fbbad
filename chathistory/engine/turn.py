"""A turn, as the store sees it: opened before the request goes out, closed by what becomes of it.

The user's message is durable first, so nothing typed is ever lost. Its record opens the turn and says until when it
counts as open: another engine that meets it raises `TurnInProgress` before it pays for tokens; past that time the turn
counts as abandoned. While a reply takes long, that time is put off (`engine.renewal`). The reply is stored only when it
is complete, and only if nobody wrote in between; what broke off, or came too late, is kept beside the conversation, for
people to read.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from chathistory.engine.api_errors import named
from chathistory.engine.lease_renewal import KEEPER
from chathistory.engine.refusals import closing, notes, refusal_in
from chathistory.engine.reply import Reply
from chathistory.engine.unstorable_reply import entry_of_text, refusal_of, reply_as_it_came, stop_reason_of
from chathistory.engine.view_cache import CachedView, ViewCache
from chathistory.errors import (
    ChatHistoryError,
    Conflict,
    ConversationChanged,
    IncompleteReply,
    InvalidInput,
    OrphanedReply,
    StoreUnavailable,
    TurnError,
)
from chathistory.log.active_path import ActiveEntries, newest_first, on_path
from chathistory.log.clock import MICROSECONDS, now
from chathistory.log.conversation_log import ConversationLog
from chathistory.log.entry import Entry, decode, encode
from chathistory.log.lease import give_up
from chathistory.log.message_entries import message_entry
from chathistory.log.process import this_process
from chathistory.log.reducers import last_said
from chathistory.log.state import Summary, summary_of
from chathistory.messages.content import Message, blocks_of
from chathistory.storage.store import Head, Record
from chathistory.trimming.plan_cut import Plan
from chathistory.view import view_of

__all__ = ["Turn", "can_be_sent", "ends_paused"]

_ATTEMPTS = 20


def can_be_sent(messages: list[Message], *, paused: bool) -> bool:
    """Return whether a request may have these messages.

    Args:
        messages: What would be sent.
        paused: Whether the last message is a reply that paused (stop reason "pause_turn"): the API continues it.

    Returns:
        False for an empty list, and for one that ends with a finished reply: the API refuses it, or has the model
        continue its own words, which are then paid for and stored.
    """
    return bool(messages) and (paused or messages[-1]["role"] != "assistant")


def ends_paused(sent: ActiveEntries) -> bool:
    """Return whether the last message of a conversation is a reply that paused."""
    last = last_said(sent.entries)
    return last is not None and last.data.get("response", {}).get("stop_reason") == "pause_turn"


_LATELY = 8  # entries among which one is looked for that was stored just now
RETRIES = (0.05, 0.2, 0.8)
"""Seconds before each further try to store what was paid for or done, where the store cannot be reached."""


def _insisted(step: Callable[[], Head]) -> Head:
    """Store something, several times if the store cannot be reached: the same entry is never stored twice."""
    for pause in RETRIES:
        with contextlib.suppress(StoreUnavailable):
            return step()
        time.sleep(pause)
    return step()


def _storable_result(block: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the result of a tool if it can be stored, else an error in its place that tells Claude so."""
    try:
        message_entry({"role": "user", "content": [block]})
    except Exception as error:  # noqa: BLE001 - also what the interpreter raises at great depth
        reason = str(refusal_of(error)).replace("message.content[0].content", "result")
        told = f"The tool ran, but its result could not be stored: {reason}"
        return {**block, "content": told, "is_error": True}
    return block


def _partial_of(error: BaseException) -> Message | None:
    """Return what is worth keeping of a response that was not complete; None: nothing is."""
    reply = error.reply if isinstance(error, IncompleteReply) else None
    blocks = reply.message["content"] if reply else []
    words = [block for block in blocks if isinstance(block, dict) and isinstance(block.get("text"), str)]
    kept = [{"type": "text", "text": block["text"]} for block in words if block["text"].strip()]
    return {"role": "assistant", "content": kept} if kept else None


@dataclass(slots=True, weakref_slot=True, eq=False)
class Turn:
    """An open turn, for `timeout` seconds after each of its steps and renewals.

    messages: what to send next. state: what is known of the conversation. plan: a cut whose summary is to be made.
    answered: the reply, if this turn had been completed before; there is nothing to send then. memory: what is
    remembered once it is complete; recall: where. paused: whether `messages` end with a reply that paused. lease: the
    id of the entry that opened it; who takes the turn over writes another one. renew_at: see `engine.renewal`.
    """

    log: ConversationLog
    id: str
    timeout: float
    messages: list[Message] = field(default_factory=list, repr=False)
    state: Summary | None = field(default=None, repr=False)
    plan: Plan | None = None
    answered: Reply | None = None
    memory: CachedView | None = None
    recall: ViewCache | None = None
    paused: bool = False
    lease: str = ""
    renew_at: float = 0.0
    forgotten: str | None = None
    _count: int = 0
    _before: list[Message] = field(default_factory=list, repr=False)
    _seen: ActiveEntries | None = field(default=None, repr=False)

    def begun(self, seen: ActiveEntries, before: Sequence[Message] = ()) -> None:
        """Take down the state after the append that opened it, and keep its lease from now on.

        seen: what the conversation sends, without what is known to be sent `before` it.
        """
        self._before = [*before]
        self._see(seen)
        self._count = seen.summary.messages
        KEEPER.keep(self)

    def outgoing(self) -> list[Message]:
        """Return the messages of the next request; every request of a turn gets them here.

        Raises:
            TurnError: They must not be sent: there are none, or they end with a finished reply.
        """
        if not can_be_sent(self.messages, paused=self.paused):
            raise TurnError(
                f"conversation {self.log.key.id!r} has nothing to send: a request must end with a user's message "
                "or with a reply that paused; send a new message"
            )
        return self.messages

    @property
    def container(self) -> str | None:
        """The container of the code execution tool to go on with, if there is one."""
        id = self.state.usable_container(now()) if self.state else None
        return None if id == self.forgotten else id

    def to_sum_up(self) -> list[Message]:
        """Return the messages that the planned cut leaves out, ready to be sent."""
        sent = on_path(self.log)
        return view_of(self.plan.left_out(sent)).messages if sent and self.plan else []

    def cut(self, made: Any) -> None:
        """Store the planned cut, with a text or the API's response that stands for what it leaves out.

        Raises `Conflict` if somebody else wrote meanwhile.
        """
        assert self.plan is not None  # noqa: S101  # else nothing was made
        entry = self.plan.entry(made) if isinstance(made, str) else self.plan.compaction(made)
        entry.data["tokens"] += self.plan.new  # that message is stored already
        with self.log.lock:
            if not self._is_open(self._count):
                raise Conflict(self.log.key, self.log.seen())
            self.log.append([replace(entry, turn=self.id)])
        self.plan = None
        self.go_on()

    def opening(self, entry: Entry) -> Entry:
        """Return an entry as the one that opens this turn, or begins it again, with the process that does so."""
        self.lease = entry.id
        return self.stepping(replace(entry, data=entry.data | {"by": this_process().to_dict()}))

    def stepping(self, entry: Entry) -> Entry:
        """Return an entry as one of this turn's, after which it stays open."""
        KEEPER.postpone(self)
        return replace(entry, turn=self.id, data=entry.data | {"until": self._until()})

    def _until(self) -> int:
        return now() + int(self.timeout * MICROSECONDS)

    def renew(self) -> bool:
        """Put off the time at which the turn counts as abandoned; False: it is closed, or somebody has taken it over.

        Raises what an append raises, and `Conflict` if the conversation was deleted.
        """
        with self.log.lock:
            if not self._is_open():
                return False
            self._beside(Entry("renewed", data={"until": self._until()}, turn=self.id))
            return self._is_open()

    def release(self) -> None:
        """Do not keep the lease any longer: the turn is closed, or not this one's."""
        KEEPER.release(self)

    def finish(self, response: Any, *, request_id: str | None = None, more: bool = False) -> Reply:
        """Store a complete response of the API and return it as the reply; a streamed one has no request id on it.

        more: the turn stays open, for results of tools that follow.

        Raises `IncompleteReply` if it is none, `OrphanedReply` if somebody else changed the conversation meanwhile (it
        is kept beside it then), `InvalidInput` if it cannot be stored as it is (it is kept beside as JSON text), and
        what an append raises; the error's `reply` has what was paid for.
        """
        if stop_reason_of(response) is None:
            msg = "the API answered with something that is not a complete message"
            incomplete = IncompleteReply(msg)
            incomplete.reply = None if isinstance(response, str) else reply_as_it_came(response, self.id)
            raise incomplete
        try:
            entry = message_entry(response, turn=self.id)
        except Exception as error:  # noqa: BLE001 - also what the SDK and the interpreter raise at great depth
            raise self.kept_as_text(response, error) from None
        if request_id:
            entry.data.setdefault("request_id", request_id)
        entry = self._marked(entry)
        if more:
            entry, self.memory = self.stepping(entry), None  # a turn with tools is read again
        try:
            head = self._taken_step(entry) if more else self._stored(entry)
        except ChatHistoryError as error:
            error.reply = Reply.of(entry)
            raise
        if not (more or stop_reason_of(response) == "pause_turn"):
            self.release()
        if self.recall and self.memory:
            self.recall.keep(self.log.key, self.memory.after(head, self.messages, entry))
        return Reply.of(replace(entry, position=head.end - 1))

    def kept_as_text(self, response: Any, error: Exception) -> InvalidInput:
        """Keep a reply that cannot be stored as it is, which closes the turn; return the error, with the reply."""
        refused = refusal_of(error)
        refused.reply = reply_as_it_came(response, self.id)
        kept = entry_of_text(response, self.id, error)
        self.release()
        try:
            head = _insisted(lambda: self._beside(self._marked(kept)))
        except ChatHistoryError as trouble:
            refused.add_note(
                f"chathistory: the reply is in this error's `reply` alone; it could not be kept: {trouble}"
            )
        else:
            words = f"the reply is in this error's `reply`, and kept as JSON text in record {head.end - 1}"
            refused.add_note(f"chathistory: {words} of {self.log.key.id!r}")
        return refused

    def add_results(self, message: Mapping[str, Any]) -> None:
        """Store the results of tools that the SDK's runner has run; the turn stays open.

        Raises what an append raises, and `OrphanedReply` as `finish` does. The tools have run, so the error has those
        `results` that are not stored.
        """
        blocks = [_storable_result(block) for block in message["content"]]
        try:
            self._taken_step(self.stepping(message_entry({"role": "user", "content": blocks})))
        except ChatHistoryError as error:
            error.results = blocks
            raise

    def _taken_step(self, entry: Entry) -> Head:
        """Store a step after which this turn goes on, and bring `messages` up to date; that reads nothing if it can."""
        head = self._stored(entry)
        seen = self._seen
        used = {block["id"] for message in self._before for block in blocks_of(message) if "id" in block}
        if seen is None or any(block.get("id") in used for block in blocks_of(entry.message or {"content": ""})):
            self.go_on()
            return head
        stored = decode(Record(head.end - 1, encode(entry)), self.log.key)  # what is sent is what is stored
        self._see(seen.extended(head, [stored]))
        return head

    def _see(self, sent: ActiveEntries | None) -> None:
        """Take down what the conversation sends now."""
        if self._seen and sent and sent.summary.begin > self._seen.summary.begin:
            self._before = []  # a reply stands for it, or it was cut
        self._seen, self.state = sent, sent.summary if sent else None
        self.messages = [*self._before, *view_of(sent).messages]
        self.paused = sent is not None and ends_paused(sent)

    def _stored(self, entry: Entry) -> Head:
        return _insisted(lambda: self._stored_once(entry))

    def _stored_once(self, entry: Entry) -> Head:
        with self.log.lock:
            head = self.log.seen()
            for _ in range(_ATTEMPTS):
                if not self._holds(head, self._count):
                    break  # the reply answers a conversation that is not this one any more
                self.log.see(head)
                with contextlib.suppress(
                    ConversationChanged
                ):  # perhaps by what stands beside: who lost this turn may write such
                    head = self.log.append([entry])
                    self._count += 1
                    return head
                if landed := self._landed(entry):
                    return landed
                head = self.log.seen()  # which that has looked up
            self.release()
            raise OrphanedReply(self.log.key, self._beside(replace(entry, kind="orphaned")))

    def _landed(self, entry: Entry) -> Head | None:
        """Return the head if an entry is stored: an earlier try got no answer, and a renewal came behind it."""
        newest = newest_first(self.log, _LATELY)
        if not any(each.id == entry.id for each in itertools.islice(newest, _LATELY)):
            return None
        self._count += 1
        self._seen = None  # where it stands is read again
        return self.log.seen()

    def _beside(self, entry: Entry) -> Head:
        """Store what is not part of the conversation, but never bring a deleted one back to life.

        The entry names the lease, so that it does not close the turn of those who have taken it over.
        """
        with self.log.lock:
            if self.log.seen() is None:
                raise Conflict(self.log.key, None)
            return self.log.append([replace(entry, data=entry.data | {"lease": self.lease})])

    def _is_open(self, count: int | None = None) -> bool:
        """Whether this process sees the turn as open, and the conversation with `count` messages."""
        return self._holds(self.log.seen(), count)

    def _holds(self, head: Head | None, count: int | None = None) -> bool:
        """Whether in this state the turn is open and this one's, and the conversation has `count` messages."""
        summary = summary_of(head) if head else None
        if summary is None or summary.turn is None or summary.turn.lease != self.lease:
            return False
        return count is None or summary.messages == count

    def go_on(self) -> None:
        """Bring `messages` up to date after a reply that paused: it is sent back as it is, to be continued.

        Raises `Conflict` if the turn is not this one's any longer: another request would be paid for in vain.
        """
        sent = on_path(self.log)
        if not self._is_open(self._count):
            self.release()
            raise Conflict(self.log.key, sent.head if sent else None)
        self._before = []
        self._see(sent)

    def left_at(self, reply: Reply | None) -> Reply:
        """Close the turn if it is still open after its last reply, and return that."""
        self.broke_off(GeneratorExit())
        if reply is None:
            raise IncompleteReply("the turn ended without a reply")
        return reply

    def broke_off(self, error: BaseException, partial: Message | None = None) -> None:
        """Close the turn without a reply, and keep what had come of one; notes on the error what is saved.

        Does nothing if the turn is closed already.
        """
        self.release()
        if not self._is_open():
            return
        told = [f"the message is saved in {self.log.key.id!r}", "`resume` sends it again"]
        if getattr(error, "results", None):
            told[1] = "the tools have run: give `error.results` to `run_tools`, or to `send`, to go on with them"
        elif partial is None:
            partial = _partial_of(error)
        try:
            refused = None if partial else self._refused(error)
            if refused:
                told = refused
            else:
                kind = "interrupted" if partial else "abandoned"
                self._close(Entry(kind, data={"reason": type(error).__name__}, message=partial))
        except ChatHistoryError as trouble:
            give_up(self.lease)
            told = [f"the message is saved, but the turn could not be closed: {trouble}", *told[1:]]
        for note in told:
            error.add_note(f"chathistory: {note}")

    def _close(self, entry: Entry) -> None:
        self._beside(self._marked(replace(entry, turn=self.id)))

    def _refused(self, error: BaseException) -> list[str]:
        """Close a turn that the API refused, and return what to say; [] if that is not what happened.

        The error gets the `refusal`. If others wrote meanwhile, that may be an answer, and nothing is marked.
        """
        if named(error) is None:
            return []
        with self.log.lock:
            sent = on_path(self.log)
            refusal = refusal_in(error, sent, self.id)
            if refusal is None or sent is None or refusal.sort == "container" or not self._is_open(self._count):
                return []
            if view_of(sent).messages != self.messages:  # the error counts in other messages than are found here
                return []
            data: dict[str, Any] = {"reason": type(error).__name__, "refusal": refusal.to_data()}
            if refusal.sort == "turn":
                data |= closing(refusal, sent, self.id)
                closed = Entry("refused", data=data, turn=self.id)
                try:
                    self.log.append([self._marked(closed)])
                except ConversationChanged:
                    return []
            else:
                self._close(Entry("abandoned", data=data))
        with contextlib.suppress(AttributeError):  # an error of the caller's client that takes no attributes
            error.refusal = refusal  # type: ignore[attr-defined]
        goes_on = any(block is not None for _, block, _ in data.get("places", ()))
        return notes(refusal, self.log.key.id, goes_on=goes_on)

    def forget_container(self, error: BaseException) -> bool:
        """Whether the API does not know the container any longer that this turn was sent with: go on without."""
        told = named(error)
        if told is None or told.about != "container" or self.container is None:
            return False
        self.forgotten = self.container
        return True

    def _marked(self, entry: Entry) -> Entry:
        """Return an entry that says which container is forgotten, if one is."""
        return replace(entry, data=entry.data | {"forgot_container": self.forgotten}) if self.forgotten else entry
