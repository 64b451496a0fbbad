"""A turn, as the store sees it: opened before the request goes out, closed by what becomes of it.

The user's message is durable first, so nothing typed is ever lost. Its entry opens the turn and says until when it
counts as open: another engine that meets it raises `TurnInProgress` before it pays for tokens; past that time the turn
counts as abandoned. While a reply takes long, that time is put off (`engine.lease_renewal`). The reply is stored only
when it is complete, and only if nobody wrote in between; what broke off, or came too late, is kept beside the
conversation, for people to read.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from chathistory.engine.api_errors import find_cause
from chathistory.engine.lease_renewal import KEEPER
from chathistory.engine.refusals import describe_refusal, find_refusal, refuse_turn
from chathistory.engine.reply import (
    Reply,
    stop_reason_of,
    text_blocks,
    to_invalid_input,
    unstorable_entry,
    unstored_reply,
)
from chathistory.engine.view_cache import SentView, ViewCache
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
from chathistory.log.active_path import iter_newest_first, load_active
from chathistory.log.clock import MICROSECONDS, now
from chathistory.log.conversation_log import ConversationLog
from chathistory.log.entry import Entry, message_entry
from chathistory.log.events import (
    LeaseRenewed,
    MessageAdded,
    ReplyInterrupted,
    ReplyOrphaned,
    TurnAbandoned,
    TurnOpened,
    TurnRefused,
)
from chathistory.log.lease import give_up
from chathistory.log.process import this_process
from chathistory.log.state import AppendResult, ConversationHead, ConversationState
from chathistory.messages.content import Message
from chathistory.trimming.plan_cut import CutPlan
from chathistory.view import view_of

__all__ = ["Turn"]

_ATTEMPTS = 20
_RECENT_ENTRIES = 8  # entries among which one is looked for that was stored just now
RETRY_DELAYS = (0.05, 0.2, 0.8)
"""Seconds before each further try to store what was paid for or done, where the store cannot be reached."""


def _store_with_retries(step: Callable[[], ConversationHead]) -> ConversationHead:
    """Store something, several times if the store cannot be reached: the same entry is never stored twice."""
    for pause in RETRY_DELAYS:
        with contextlib.suppress(StoreUnavailable):
            return step()
        time.sleep(pause)
    return step()


@dataclass(slots=True, weakref_slot=True, eq=False)
class Turn:
    """An open turn, for `timeout` seconds after each of its steps and renewals.

    Attributes:
        log: Of the conversation.
        id: Of the turn.
        timeout: In seconds.
        state: What is known of the conversation.
        plan: A cut whose summary has to be made.
        stored_reply: The reply, if this turn had been completed before; there is nothing to send then.
        cache: Where the view is remembered once the turn is complete.
        view: What the conversation sends; None: it has to be read.
        lease: The id of the entry that opened it; who takes the turn over writes another one.
        renew_at: See `engine.lease_renewal`.
        forgotten: The id of a container that the API does not know any longer.
    """

    log: ConversationLog
    id: str
    timeout: float
    state: ConversationState | None = field(default=None, repr=False)
    plan: CutPlan | None = None
    stored_reply: Reply | None = None
    view_cache: ViewCache | None = None
    view: SentView | None = field(default=None, repr=False)
    lease: str = ""
    renew_at: float = 0.0
    forgotten_container: str | None = None
    _message_count: int = 0

    # What it sends.

    def messages_to_send(self) -> list[Message]:
        """Return the messages of the next request; every request of a turn gets them here.

        Raises:
            TurnError: They must not be sent: there are none, or they end with a finished reply.
        """
        if self.view is None or not self.view.is_sendable:
            raise TurnError(
                f"conversation {self.log.key.id!r} has nothing to send: a request must end with a user's message "
                "or with a reply that paused; send a new message"
            )
        return self.view.messages

    @property
    def container(self) -> str | None:
        """The container of the code execution tool to go on with, if there is one."""
        container = self.state.engine.container if self.state else None
        if container is None or container.id == self.forgotten_container or not container.is_usable(now()):
            return None
        return container.id

    def list_cut_messages(self) -> list[Message]:
        """Return the messages that the planned cut leaves out, ready to be sent."""
        return view_of(self.plan.select_left_out(self.view.active)).messages if self.view and self.plan else []

    # Its steps.

    def start(self, head: ConversationHead, view: SentView | None = None) -> None:
        """Take down the state after the append that opened it, and keep its lease from now on.

        view: What is sent; None: it has to be read.
        """
        self.view, self.state, self._message_count = view, head.state, head.state.totals.messages
        KEEPER.keep(self)

    def make_start_entry(self, entry: Entry[MessageAdded] | Entry[TurnOpened]) -> Entry:
        """Return an entry as the one that opens this turn, or begins it again, with the process that does so."""
        KEEPER.postpone(self)
        self.lease = entry.id
        event = replace(entry.event, lease_until=self._lease_end(), opened_by=this_process())
        return Entry(event, self.id, entry.id, entry.time_us)

    def with_lease(self, entry: Entry[MessageAdded]) -> Entry[MessageAdded]:
        """Return a message as a step of this turn, after which it stays open."""
        KEEPER.postpone(self)
        return replace(entry, turn=self.id, event=replace(entry.event, lease_until=self._lease_end()))

    def _lease_end(self) -> int:
        return now() + int(self.timeout * MICROSECONDS)

    def renew(self) -> bool:
        """Put off the time at which the turn counts as abandoned; False: it is closed, or somebody has taken it over.

        Raises what an append raises, and `Conflict` if the conversation was deleted.
        """
        with self.log.lock:
            if not self._is_open():
                return False
            self._append_side_entry(Entry(LeaseRenewed(self._lease_end(), self.lease), self.id))
            return self._is_open()

    def release(self) -> None:
        """Do not keep the lease any longer: the turn is closed, or not this one's."""
        KEEPER.release(self)

    def store_cut(self, summary: Any) -> None:
        """Store the planned cut, with a text or the API's response that stands for what it leaves out.

        Raises `Conflict` if somebody else wrote meanwhile.
        """
        if self.plan is None:
            return
        event = (
            self.plan.to_entry(summary) if isinstance(summary, str) else self.plan.to_compaction_entry(summary)
        ).event
        tokens = event.tokens + self.plan.new_tokens  # the message that opens the turn is stored already
        entry: Entry = Entry(replace(event, tokens=tokens), self.id)
        with self.log.lock:
            head = self.log.seen()
            if not self._is_open_at(head, self._message_count):
                raise Conflict(self.log.key, head.stored if head else None)
            self._update_view(self.log.append([entry]))
        self.plan = None
        self.continue_turn()

    def finish(self, response: Any, *, request_id: str | None = None, stays_open: bool = False) -> Reply:
        """Store a complete response of the API and return it as the reply.

        Args:
            response: What the API answered.
            request_id: Of a reply that was streamed, which has none itself.
            stays_open: Keep the turn open, for results of tools that follow.

        Raises:
            IncompleteReply: It is no complete message.
            OrphanedReply: Somebody else changed the conversation meanwhile; the reply is kept beside it.
            InvalidInput: It cannot be stored as it is; it is kept beside the conversation as JSON text.
            ChatHistoryError: What an append raises; the error's `reply` has what was paid for.
        """
        if stop_reason_of(response) is None:
            incomplete = IncompleteReply("the API answered with something that is not a complete message")
            incomplete.reply = None if isinstance(response, str) else unstored_reply(response, self.id)
            raise incomplete
        try:
            entry = message_entry(response, turn=self.id)
        except Exception as error:  # noqa: BLE001 - also what the SDK and the interpreter raise at great depth
            raise self.store_as_text(response, error) from None
        told = entry.event.request_id or request_id
        entry = replace(
            entry, event=replace(entry.event, request_id=told, forgotten_container=self.forgotten_container)
        )
        if stays_open:
            entry = self.with_lease(entry)
        try:
            head = self._store_step(entry) if stays_open else _store_with_retries(lambda: self._store_once(entry))
        except ChatHistoryError as error:
            error.reply = Reply.of(entry)
            raise
        if not (stays_open or stop_reason_of(response) == "pause_turn"):
            self.release()
        return Reply.of(replace(entry, position=head.end - 1))

    def store_as_text(self, response: Any, error: Exception) -> InvalidInput:
        """Keep a reply that cannot be stored as it is, which closes the turn; return the error, with the reply."""
        refused = to_invalid_input(error)
        refused.reply = unstored_reply(response, self.id)
        kept = unstorable_entry(response, self.id, error)
        self.release()
        try:
            head = _store_with_retries(lambda: self._append_side_entry(kept))
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
        blocks = list[Mapping[str, Any]]()
        for block in message["content"]:
            try:
                message_entry({"role": "user", "content": [block]})
            except Exception as error:  # noqa: BLE001 - also what the interpreter raises at great depth
                reason = str(to_invalid_input(error)).replace("message.content[0].content", "result")
                told = f"The tool ran, but its result could not be stored: {reason}"
                blocks.append({**block, "content": told, "is_error": True})
            else:
                blocks.append(block)
        try:
            self._store_step(self.with_lease(message_entry({"role": "user", "content": blocks})))
        except ChatHistoryError as error:
            error.results = blocks
            raise

    def _store_step(self, entry: Entry[MessageAdded]) -> ConversationHead:
        """Store a step after which this turn goes on; that reads nothing, unless others wrote meanwhile."""
        head = _store_with_retries(lambda: self._store_once(entry))
        if self.view is None:
            self.continue_turn()
        return head

    def _store_once(self, entry: Entry[MessageAdded]) -> ConversationHead:
        with self.log.lock:
            head = self.log.seen()
            for _ in range(_ATTEMPTS):
                if head is None or not self._is_open_at(head, self._message_count):
                    break  # the reply answers a conversation that is not this one any longer
                self.log.see(head.stored)
                with contextlib.suppress(ConversationChanged):  # perhaps by a side entry of one who lost this turn
                    head = self.log.append([entry])
                    self._message_count += 1
                    self._update_view(head)
                    return head
                newest = itertools.islice(iter_newest_first(self.log, _RECENT_ENTRIES), _RECENT_ENTRIES)
                is_stored = any(each.id == entry.id for each in newest)
                head = self.log.seen()  # which that has looked up
                if is_stored and head:  # an earlier try got no answer, and a renewal came behind it
                    self._message_count += 1
                    self.view = None
                    return head
            self.release()
            event = entry.event
            orphaned = ReplyOrphaned(
                event.message, event.response, event.request_id, forgotten_container=event.forgotten_container
            )
            kept = self._append_side_entry(Entry(orphaned, entry.turn, entry.id, entry.time_us))
            raise OrphanedReply(self.log.key, kept.stored)

    def _update_view(self, stored: AppendResult) -> None:
        """Bring the view up to date with what was stored; it has to be read again if others wrote in between."""
        self.state = stored.state
        if self.view and self.view.head.end == stored.end - len(stored.lines):
            self.view = self.view.with_stored(stored.head, stored.read_entries())  # what is sent is what is stored
        else:
            self.view = None
        if self.view_cache:
            self.view_cache.remember(self.log, self.view)

    def _append_side_entry(self, entry: Entry) -> ConversationHead:
        """Store what is not part of the conversation, but never bring a deleted one back to life.

        The entry names the lease, so that it does not close the turn of those who have taken it over.
        """
        event = entry.event
        if isinstance(event, TurnAbandoned | ReplyInterrupted | ReplyOrphaned):
            event = replace(event, lease=self.lease, forgotten_container=self.forgotten_container)
            entry = replace(entry, event=event)
        with self.log.lock:
            if self.log.seen() is None:
                raise Conflict(self.log.key, None)
            head = self.log.append([entry])
            self._update_view(head)
            return head

    def _is_open(self, count: int | None = None) -> bool:
        """Whether this process sees the turn as open, and the conversation with `count` messages."""
        return self._is_open_at(self.log.seen(), count)

    def _is_open_at(self, head: ConversationHead | None, count: int | None = None) -> bool:
        """Whether in this state the turn is open and this one's, and the conversation has `count` messages."""
        turn = head.state.engine.open_turn if head else None
        if head is None or turn is None or turn.lease != self.lease:
            return False
        return count is None or head.state.totals.messages == count

    def continue_turn(self) -> None:
        """Bring the view up to date after a reply that paused: it is sent back as it is, to be continued.

        Raises `Conflict` if the turn is not this one's any longer: another request would be paid for in vain.
        """
        head = self.log.refresh() if self.view else None
        if head is None or self.view is None or self.view.head.version != head.version:
            active = load_active(self.log)
            self.view, head = (SentView.of(active), active.head) if active else (None, None)
        if head is None or not self._is_open_at(head, self._message_count):
            self.release()
            raise Conflict(self.log.key, head.stored if head else None)
        self.state = head.state

    # Its end without a reply.

    def close_after(self, reply: Reply | None) -> Reply:
        """Close the turn if it is still open after its last reply, and return that."""
        self.abort(GeneratorExit())
        if reply is None:
            raise IncompleteReply("the turn ended without a reply")
        return reply

    def abort(self, error: BaseException, partial: Message | None = None) -> None:
        """Close the turn without a reply, and keep what had come of one; notes on the error what is saved.

        Does nothing if the turn is closed already.
        """
        self.release()
        if not self._is_open():
            return
        told = [f"the message is saved in {self.log.key.id!r}", "`resume` sends it again"]
        if getattr(error, "results", None):
            told[1] = "the tools have run: give `error.results` to `run_tools`, or to `send`, to go on with them"
        elif partial is None and isinstance(error, IncompleteReply) and error.reply:
            words = [block for block in text_blocks(error.reply.message["content"]) if block["text"].strip()]
            partial = {"role": "assistant", "content": words} if words else None
        reason = type(error).__name__
        try:
            refused = None if partial else self._close_refused(error)
            if refused:
                told = refused
            else:
                event = ReplyInterrupted(partial, reason=reason) if partial else TurnAbandoned(reason=reason)
                self._append_side_entry(Entry(event, self.id))
        except ChatHistoryError as trouble:
            give_up(self.lease)
            told = [f"the message is saved, but the turn could not be closed: {trouble}", *told[1:]]
        for note in told:
            error.add_note(f"chathistory: {note}")

    def _close_refused(self, error: BaseException) -> list[str]:
        """Close a turn that the API refused, and return what to say; [] if that is not what happened.

        The error gets the `refusal`. If others wrote meanwhile, that may be an answer, and nothing is marked.
        """
        if find_cause(error) is None:
            return []
        with self.log.lock:
            active = load_active(self.log)
            refusal = find_refusal(error, active, self.id)
            if (
                refusal is None
                or active is None
                or refusal.sort == "container"
                or not self._is_open(self._message_count)
            ):
                return []
            if self.view is None or view_of(active).messages != self.view.messages:  # it counts in other messages
                return []
            reason, goes_on = type(error).__name__, False
            if refusal.sort == "turn":
                event: TurnRefused = refuse_turn(refusal, active, self.id)
                event = replace(event, reason=reason, forgotten_container=self.forgotten_container)
                goes_on = any(place.block is not None for place in event.places)
                try:
                    closed: Entry = Entry(event, self.id)
                    self._update_view(self.log.append([closed]))
                except ConversationChanged:
                    return []
            else:
                self._append_side_entry(Entry(TurnAbandoned(reason=reason, refusal=refusal), self.id))
        with contextlib.suppress(AttributeError):  # an error of the caller's client that takes no attributes
            error.refusal = refusal  # type: ignore[attr-defined]
        return describe_refusal(refusal, self.log.key.id, goes_on=goes_on)

    def forget_container(self, error: BaseException) -> bool:
        """Whether the API does not know the container any longer that this turn was sent with: go on without."""
        told = find_cause(error)
        if told is None or told.about != "container" or self.container is None:
            return False
        self.forgotten_container = self.container
        return True
