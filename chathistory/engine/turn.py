"""A turn in the store: opened before the request is sent, and closed by its reply or by an error.

The user's message is durable first, so no message is ever lost. Its entry opens the turn with a lease, the time until
which the turn counts as open. Until then, another engine raises `TurnInProgress` before it pays for tokens; later, the
turn counts as abandoned. While a reply is slow, the lease is renewed (`engine.lease_renewal`). A reply is stored as
a message only if it is complete, and if nobody wrote in between. A partial reply is saved with the conversation as an
`reply_interrupted` entry, and one that came too late as a `reply_orphaned` entry; both are for people to read, and are
never sent to Claude.
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
from chathistory.engine.refusals import describe_refusal, find_refusal, make_turn_refused_event
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
from chathistory.log.entry import Entry, make_message_entry
from chathistory.log.events import (
    LeaseRenewed,
    MessageAdded,
    ReplyInterrupted,
    ReplyOrphaned,
    TurnAbandoned,
    TurnOpened,
    TurnRefusedByAPI,
)
from chathistory.log.lease import mark_given_up
from chathistory.log.process import this_process
from chathistory.log.state import AppendResult, ConversationHead, ConversationState
from chathistory.messages.content import Message
from chathistory.trimming.plan_cut import CutPlan
from chathistory.view import build_active_view

__all__ = ["Turn"]

_MAX_ATTEMPTS = 20  # appends of a reply or results while other processes keep writing
_LOOKBACK_ENTRIES = 8  # how many of the newest entries are searched for one that may have been stored just now
RETRY_DELAYS = (0.05, 0.2, 0.8)
"""The delay before each further attempt to store a reply or results, in seconds, if the store cannot be reached."""


def _store_with_retries(step: Callable[[], ConversationHead]) -> ConversationHead:
    """Run a step, with retries if the store cannot be reached. The log never stores the same entry twice."""
    for delay in RETRY_DELAYS:
        with contextlib.suppress(StoreUnavailable):
            return step()
        time.sleep(delay)
    return step()


@dataclass(slots=True, weakref_slot=True, eq=False)
class Turn:
    """A turn of a conversation, open or complete.

    An open turn counts as open for `timeout` seconds after each of its steps and renewals. `compact`, `check` and
    `count_tokens` use a turn that is never opened: it is not stored, and only makes requests.

    Attributes:
        log: The log of the conversation.
        id: The id of the turn.
        timeout: The length of its lease, in seconds.
        state: The state of the conversation, as this process saw it last; None: it is not known.
        plan: A planned cut that still needs a summary; None: no cut is planned.
        stored_reply: The reply, if the turn was complete before; then nothing is sent. None: the turn is open.
        view_cache: The cache for the view after each step; None: it is not cached.
        view: The entries and messages of the conversation; None: they have to be read.
        lease: The id of the entry that opened the turn; a process that takes the turn over stores another one.
        renew_at: When to renew the lease next; see `engine.lease_renewal`.
        forgotten_container: The id of a container that the API no longer knows; None: the API reported no such error.
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
        """Return the messages of the next request. Every request of a turn uses this method.

        Returns:
            The messages; the last one is a user's message, or a reply that paused.

        Raises:
            TurnError: There are no messages, or they end with a finished reply.
        """
        if self.view is None or not self.view.is_sendable:
            raise TurnError(
                f"conversation {self.log.key.id!r} has nothing to send: a request must end with a user's message "
                "or with a reply that paused; send a new message"
            )
        return self.view.messages

    @property
    def container(self) -> str | None:
        """The container of the code execution tool for the next request; None: a new one."""
        container = self.state.engine.container if self.state else None
        if container is None or container.id == self.forgotten_container or not container.is_usable(now()):
            return None
        return container.id

    def list_cut_messages(self) -> list[Message]:
        """Return the messages that the planned cut leaves out, ready to be sent; [] if no cut is planned."""
        return (
            build_active_view(self.plan.select_left_out(self.view.active)).messages if self.view and self.plan else []
        )

    # Its steps.

    def start(self, head: ConversationHead, view: SentView | None = None) -> None:
        """Set the state after the append that opened the turn, and renew its lease from now on.

        Args:
            head: The head that the append returned.
            view: The entries and messages; None: they have to be read.
        """
        self.view, self.state, self._message_count = view, head.state, head.state.totals.messages
        KEEPER.keep(self)

    def make_start_entry(self, entry: Entry[MessageAdded] | Entry[TurnOpened]) -> Entry:
        """Return an entry as the one that opens or reopens this turn, with a lease and the id of this process.

        Args:
            entry: The user's message, or the event that reopens the turn.

        Returns:
            The entry to store.
        """
        KEEPER.postpone(self)
        self.lease = entry.id
        event = replace(entry.event, lease_until=self._lease_end(), opened_by=this_process())
        return Entry(event, self.id, entry.id, entry.time_us)

    def with_lease(self, entry: Entry[MessageAdded]) -> Entry[MessageAdded]:
        """Return a message as a step of this turn, with a lease that keeps the turn open.

        Args:
            entry: A reply that called tools, or a message with their results.

        Returns:
            The entry to store.
        """
        KEEPER.postpone(self)
        return replace(entry, turn=self.id, event=replace(entry.event, lease_until=self._lease_end()))

    def _lease_end(self) -> int:
        return now() + int(self.timeout * MICROSECONDS)

    def renew(self) -> bool:
        """Extend the lease.

        Returns:
            True if this process still has the turn; False if the turn is closed, or another process took it over.

        Raises:
            Conflict: The conversation was deleted.
            ChatHistoryError: Any other error that an append raises.
        """
        with self.log.lock:
            if not self._is_open():
                return False
            self._append_side_entry(Entry(LeaseRenewed(self._lease_end(), self.lease), self.id))
            return self._is_open()

    def stop_renewing(self) -> None:
        """Stop renewing the lease, because the turn is closed, or another process has it."""
        KEEPER.stop_renewing(self)

    def store_cut(self, summary: Any) -> None:
        """Store the planned cut. Does nothing if no cut is planned.

        Args:
            summary: The summary of the messages that are left out: text, or the API's response to a compaction request.

        Raises:
            Conflict: Another writer changed the conversation meanwhile.
            ChatHistoryError: Any other error that an append raises.
        """
        if self.plan is None:
            return
        event = (
            self.plan.to_entry(summary) if isinstance(summary, str) else self.plan.to_compaction_entry(summary)
        ).event
        tokens = event.tokens + self.plan.new_tokens  # the message that opens the turn is stored already
        entry: Entry = Entry(replace(event, tokens=tokens), self.id)
        with self.log.lock:
            head = self.log.known_head()
            if not self._is_open_at(head, self._message_count):
                raise Conflict(self.log.key, head.stored if head else None)
            self._update_view(self.log.append([entry]))
        self.plan = None
        self.refresh_for_next_request()

    def finish(self, response: Any, *, request_id: str | None = None, stays_open: bool = False) -> Reply:
        """Store a complete response of the API and return it as the reply.

        Args:
            response: What the API answered.
            request_id: The id of the request; a streamed message does not have it. None: the id that the response has.
            stays_open: Keep the turn open, because results of tools follow.

        Returns:
            The stored reply.

        Raises:
            IncompleteReply: The response is not a complete message.
            OrphanedReply: Another writer changed the conversation meanwhile; a `reply_orphaned` entry has the reply.
            InvalidInput: The response cannot be stored as a message; a `reply_orphaned` entry has it as JSON text.
            ChatHistoryError: Any other error that an append raises; the error's `reply` has what was paid for.
        """
        if stop_reason_of(response) is None:
            incomplete = IncompleteReply(
                "the API's answer is not a complete message (no stop_reason); call resume(id) to send the turn again"
            )
            incomplete.reply = None if isinstance(response, str) else unstored_reply(response, self.id)
            raise incomplete
        try:
            entry = make_message_entry(response, turn=self.id)
        except Exception as error:  # noqa: BLE001 - the SDK and the interpreter have their own errors for deep nesting
            raise self.store_as_text(response, error) from None
        request_id = entry.event.request_id or request_id
        entry = replace(
            entry, event=replace(entry.event, request_id=request_id, forgotten_container=self.forgotten_container)
        )
        if stays_open:
            entry = self.with_lease(entry)
        try:
            head = self._store_step(entry) if stays_open else _store_with_retries(lambda: self._store_once(entry))
        except ChatHistoryError as error:
            error.reply = Reply.of(entry)
            raise
        if not (stays_open or stop_reason_of(response) == "pause_turn"):
            self.stop_renewing()
        return Reply.of(replace(entry, position=head.end - 1))

    def store_as_text(self, response: Any, error: Exception) -> InvalidInput:
        """Save a reply that cannot be a message as JSON text in a `reply_orphaned` entry, and close the turn.

        Args:
            response: What the API answered.
            error: Why it cannot be stored.

        Returns:
            The error to raise, with the reply.
        """
        invalid = to_invalid_input(error)
        invalid.reply = unstored_reply(response, self.id)
        orphaned = unstorable_entry(response, self.id, error)
        self.stop_renewing()
        try:
            head = _store_with_retries(lambda: self._append_side_entry(orphaned))
        except ChatHistoryError as trouble:
            invalid.add_note(f"chathistory: only this error's `reply` has the reply; saving it failed: {trouble}")
        else:
            place = f"this error's `reply` has the reply, and record {head.end - 1} has it as JSON text"
            invalid.add_note(f"chathistory: {place} (conversation {self.log.key.id!r})")
        return invalid

    def add_results(self, message: Mapping[str, Any]) -> None:
        """Store the results of tools that the SDK's runner has run; the turn stays open.

        A result that cannot be stored is replaced by an error for Claude.

        Args:
            message: A message with `tool_result` blocks.

        Raises:
            OrphanedReply: Another writer changed the conversation meanwhile.
            ChatHistoryError: Any other error that an append raises. Since the tools have run, the error's `results` has
                the blocks that are not stored.
        """
        blocks = list[Mapping[str, Any]]()
        for block in message["content"]:
            try:
                make_message_entry({"role": "user", "content": [block]})
            except Exception as error:  # noqa: BLE001 - the interpreter has its own error for deep nesting
                reason = str(to_invalid_input(error)).replace("message.content[0].content", "result")
                text = f"The tool ran, but its result could not be stored: {reason}"
                blocks.append({**block, "content": text, "is_error": True})
            else:
                blocks.append(block)
        try:
            self._store_step(self.with_lease(make_message_entry({"role": "user", "content": blocks})))
        except ChatHistoryError as error:
            error.results = blocks
            raise

    def _store_step(self, entry: Entry[MessageAdded]) -> ConversationHead:
        """Store a step after which this turn continues. Nothing is read, unless another writer was faster."""
        head = _store_with_retries(lambda: self._store_once(entry))
        if self.view is None:
            self.refresh_for_next_request()
        return head

    def _store_once(self, entry: Entry[MessageAdded]) -> ConversationHead:
        with self.log.lock:
            head = self.log.known_head()
            for _ in range(_MAX_ATTEMPTS):
                if head is None or not self._is_open_at(head, self._message_count):
                    break  # the conversation changed, so the entry does not belong to it any longer
                self.log.remember(head.stored)
                with contextlib.suppress(
                    ConversationChanged
                ):  # perhaps only by a side entry of a process that lost the turn
                    head = self.log.append([entry])
                    self._message_count += 1
                    self._update_view(head)
                    return head
                newest = itertools.islice(iter_newest_first(self.log, _LOOKBACK_ENTRIES), _LOOKBACK_ENTRIES)
                is_stored = any(each.id == entry.id for each in newest)
                head = self.log.known_head()  # as the iteration loaded it
                if is_stored and head:  # an earlier attempt got no answer but was stored, and a renewal followed
                    self._message_count += 1
                    self.view = None
                    return head
            self.stop_renewing()
            event = entry.event
            orphaned = ReplyOrphaned(
                event.message, event.response, event.request_id, forgotten_container=event.forgotten_container
            )
            head = self._append_side_entry(Entry(orphaned, entry.turn, entry.id, entry.time_us))
            raise OrphanedReply(self.log.key, head.stored)

    def _update_view(self, stored: AppendResult) -> None:
        """Add what was stored to the view; if another writer wrote in between, the view has to be read again."""
        self.state = stored.state
        if self.view and self.view.head.end == stored.end - len(stored.lines):
            self.view = self.view.with_stored(stored.head, stored.read_entries())  # sent as it was stored
        else:
            self.view = None
        if self.view_cache:
            self.view_cache.remember(self.log, self.view)

    def _append_side_entry(self, entry: Entry) -> ConversationHead:
        """Store an entry that is never sent to Claude. Raises `Conflict` if the conversation was deleted.

        The entry names the lease, so it does not close the turn of a process that took it over.
        """
        event = entry.event
        if isinstance(event, TurnAbandoned | ReplyInterrupted | ReplyOrphaned):
            event = replace(event, lease=self.lease, forgotten_container=self.forgotten_container)
            entry = replace(entry, event=event)
        with self.log.lock:
            if self.log.known_head() is None:
                raise Conflict(self.log.key, None)
            head = self.log.append([entry])
            self._update_view(head)
            return head

    def _is_open(self, count: int | None = None) -> bool:
        """Whether, as this process saw it last, this turn is open and the conversation has `count` messages."""
        return self._is_open_at(self.log.known_head(), count)

    def _is_open_at(self, head: ConversationHead | None, count: int | None = None) -> bool:
        """Whether, in the state of `head`, this turn is open and the conversation has `count` messages (None: any)."""
        turn = head.state.engine.open_turn if head else None
        if head is None or turn is None or turn.lease != self.lease:
            return False
        return count is None or head.state.totals.messages == count

    def refresh_for_next_request(self) -> None:
        """Update the view for the next request of this turn, and check that this process still has the turn.

        A reply that paused is sent back as it is.

        Raises:
            Conflict: This process no longer has the turn, so another request would waste money.
        """
        head = self.log.refresh() if self.view else None
        if head is None or self.view is None or self.view.head.version != head.version:
            active = load_active(self.log)
            self.view, head = (SentView.of(active), active.head) if active else (None, None)
        if head is None or not self._is_open_at(head, self._message_count):
            self.stop_renewing()
            raise Conflict(self.log.key, head.stored if head else None)
        self.state = head.state

    # The end without a reply.

    def close_after(self, reply: Reply | None) -> Reply:
        """Close the turn after its last request, if it is still open.

        Args:
            reply: The last reply; None: no request got one.

        Returns:
            The same reply.

        Raises:
            IncompleteReply: There was no reply.
        """
        self.abort(GeneratorExit())
        if reply is None:
            raise IncompleteReply("the turn ended without a reply; call resume(id) to send it again")
        return reply

    def abort(self, error: BaseException, partial: Message | None = None) -> None:
        """Close the turn without a reply, and save a partial reply. Does nothing if the turn is closed already.

        Args:
            error: Why the turn ends. It gets notes that say what was saved and how to continue.
            partial: What was received of the reply; None: nothing.
        """
        self.stop_renewing()
        if not self._is_open():
            return
        notes = [f"the message is saved in {self.log.key.id!r}", "`resume` sends it again"]
        if getattr(error, "results", None):
            notes[1] = (
                "the tools have run: pass `error.results` to `run_tools` or `send` to continue with their results"
            )
        elif partial is None and isinstance(error, IncompleteReply) and error.reply:
            blocks = [block for block in text_blocks(error.reply.message["content"]) if block["text"].strip()]
            partial = {"role": "assistant", "content": blocks} if blocks else None
        reason = type(error).__name__
        try:
            refused = None if partial else self._close_refused(error)
            if refused:
                notes = refused
            else:
                event = ReplyInterrupted(partial, reason=reason) if partial else TurnAbandoned(reason=reason)
                self._append_side_entry(Entry(event, self.id))
        except ChatHistoryError as trouble:
            mark_given_up(self.lease)
            notes = [f"the message is saved, but closing the turn failed: {trouble}", *notes[1:]]
        for note in notes:
            error.add_note(f"chathistory: {note}")

    def _close_refused(self, error: BaseException) -> list[str]:
        """Close a turn that the API refused, and return the notes for the error; [] if the API did not refuse it.

        The error gets the `refusal`. If another writer wrote meanwhile, nothing is marked, and [] is returned.
        """
        if find_cause(error) is None:
            return []
        with self.log.lock:
            active = load_active(self.log)
            refusal = find_refusal(error, active, self.id)
            if (
                refusal is None
                or active is None
                or refusal.kind == "container"
                or not self._is_open(self._message_count)
            ):
                return []
            if (
                self.view is None or build_active_view(active).messages != self.view.messages
            ):  # the error counts in other messages than these
                return []
            reason, goes_on = type(error).__name__, False
            if refusal.kind == "turn":
                event: TurnRefusedByAPI = make_turn_refused_event(refusal, active, self.id)
                event = replace(event, reason=reason, forgotten_container=self.forgotten_container)
                goes_on = any(place.block is not None for place in event.locations)
                try:
                    closed: Entry = Entry(event, self.id)
                    self._update_view(self.log.append([closed]))
                except ConversationChanged:
                    return []
            else:
                self._append_side_entry(Entry(TurnAbandoned(reason=reason, refusal=refusal), self.id))
        with contextlib.suppress(AttributeError):  # an error class without attributes, of the caller's client
            error.refusal = refusal  # type: ignore[attr-defined]
        return describe_refusal(refusal, self.log.key.id, goes_on=goes_on)

    def forget_container(self, error: BaseException) -> bool:
        """Continue without the container of this turn, if the API no longer knows it.

        Args:
            error: The error of a request.

        Returns:
            True if that was the error, so the request can be made again; otherwise False.
        """
        cause = find_cause(error)
        if cause is None or cause.about != "container" or self.container is None:
            return False
        self.forgotten_container = self.container
        return True
