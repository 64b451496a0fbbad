"""Start a turn, or start it again: load the conversation once, then make one guarded append.

The conversation may come from the engine's cache (`engine.view_cache`). That is safe for opening a turn, because the
append is guarded by the cached version. Every other result, such as a stored reply or an error, is based on a fresh
read of the store.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from chathistory.checks import check_text, check_type
from chathistory.engine.reply import Reply
from chathistory.engine.request import PromptSetup
from chathistory.engine.stored_turns import (
    CalledReply,
    MessageEntry,
    StoredMessages,
    collect_turn,
    find_question,
    find_refused_turn,
    is_final_reply,
    is_thinking_required,
)
from chathistory.engine.turn import Turn
from chathistory.engine.view_cache import SentView, ViewCache
from chathistory.errors import ConversationChanged, InvalidInput, TurnError, TurnMismatch, TurnRefused
from chathistory.log.active_path import ActiveEntries, iter_newest_first, load_active
from chathistory.log.clock import fresh_token
from chathistory.log.conversation_log import ConversationLog
from chathistory.log.entry import Entry, is_message_entry, make_message_entry
from chathistory.log.events import ThinkingPolicy, TurnAbandoned, TurnOpened
from chathistory.log.lease import check_no_open_turn
from chathistory.log.process import has_ended
from chathistory.log.state import ConversationState
from chathistory.log.turn_boundaries import opens_turn
from chathistory.messages.content import blocks_of
from chathistory.operations.rewind_forget import make_rewind
from chathistory.trimming.plan_cut import may_be_trimmed, plan_cut
from chathistory.trimming.policies import Compaction, Policy, Summarize
from chathistory.view import build_active_view
from chathistory.view.clean_message import clean_items
from chathistory.view.item import ADDED, Notes, item_from_entry
from chathistory.view.tool_call_ids import map_sent_to_given_ids, restore_given_ids

__all__ = ["TurnStarter", "abandon"]

T = TypeVar("T")

_MAX_ATTEMPTS = 20
_BATCH_SIZE = 256  # entries that are read at once


def abandon(log: ConversationLog) -> bool:
    """Close the open turn of a conversation, whichever process holds it.

    Args:
        log: The log of the conversation.

    Returns:
        True if a turn was closed; False if none was open.
    """
    with log.lock:
        head = log.refresh()
        turn = head.state.engine.open_turn if head else None
        if turn:
            log.append([Entry(TurnAbandoned(reason="abandoned by hand"), turn.id)])
        return turn is not None


@dataclass(frozen=True, slots=True)
class TurnStarter:
    """Open turns of one conversation.

    Attributes:
        log: The log of the conversation.
        setup: Its model, system prompt and tools from now on.
        timeout: How long each turn counts as open, in seconds.
        view_cache: The engine's cached views.
        trimming: The policy that decides on cuts, which are stored with the message that opens a turn; None: there are
            no cuts.
        expected: The version that the conversation must have for new messages to be stored, see
            `ConversationLog.confirm_version`; None: any version.
    """

    log: ConversationLog
    setup: PromptSetup
    timeout: float
    view_cache: ViewCache
    trimming: Policy | None = None
    expected: str | None = None

    # A message of the user.

    def start(self, content: Any, *, turn_id: str | None = None) -> Turn:
        """Store the user's message and open a turn.

        If the `turn_id` was used before, nothing is stored twice: the turn has its stored reply, or is reopened. The
        same applies to the last turn if it has no reply and the same message, and to a turn that sent the same results.

        Args:
            content: The content of the message: text or content blocks.
            turn_id: The caller's id for the turn; None: a new one.

        Returns:
            The turn; its `stored_reply` is set if nothing has to be sent.

        Raises:
            InvalidInput: Nothing of the content can be sent, or a result refers to no call of the reply it answers.
            TurnMismatch: The `turn_id`, or a tool call, already has other content.
            TurnRefused: The API refused the turn of this `turn_id`.
            TurnInProgress: Another turn is open.
            TurnError: The results came too late, or the conversation does not exist.
            Conflict: The conversation changed since the version `expected`.
        """
        if turn_id is not None:
            check_text("turn_id", turn_id)
        entry = make_message_entry({"role": "user", "content": content}, turn=turn_id or fresh_token())
        if not list(clean_items([item_from_entry(entry)], Notes())):
            raise InvalidInput(
                "message.content: must have text that is not blank, or another content block; there is nothing to send"
            )
        return self._retry_on_conflict(lambda: self._start_once(entry, is_named=turn_id is not None))

    def _start_once(self, entry: MessageEntry, *, is_named: bool) -> Turn:
        with self.log.lock:
            cached = self.view_cache.find(self.log)
            if cached and self.expected in (None, cached.head.version):
                with contextlib.suppress(ConversationChanged, TurnError, InvalidInput):
                    turn = self._start_after(cached.active, entry, cached, is_named=is_named)
                    if turn.stored_reply is None:
                        return turn
            return self._start_after(load_active(self.log), entry, is_named=is_named)

    def _start_after(
        self, active: ActiveEntries | None, entry: MessageEntry, cached: SentView | None = None, *, is_named: bool
    ) -> Turn:
        if active and (
            turn := self._find_same_turn(active, entry) or self._find_same_message(active, entry, is_named=is_named)
        ):
            return turn
        if all(block["type"] != "tool_result" for block in blocks_of(entry.event.message)):
            return self._open_turn(active, entry, cached)
        called = self._find_called_reply(active, lambda stored: CalledReply.of_results(stored, entry.event.message))
        if called is None:  # no reply has such a call: use the last one, so that the error names the result
            called = CalledReply.last_in(StoredMessages.among(active.entries if active else ()))
        return self._send_results(active, called, entry)

    def _retry_on_conflict(self, step: Callable[[], T]) -> T:
        for _ in range(_MAX_ATTEMPTS):
            with contextlib.suppress(ConversationChanged):  # another writer was faster: load again
                return step()
            if self.expected is not None:
                self.log.confirm_version(self.expected)
        return step()

    # Results of tools.

    def submit(self, reply: Reply, results: Mapping[str, Any], *, partial: bool) -> Turn | list[str]:
        """Store results of the tools that a stored reply calls, and open the turn that sends them.

        Args:
            reply: The reply that called the tools.
            results: The result of each call, by the id of the call; see `Reply.results`.
            partial: Open the turn only if every call has a result.

        Returns:
            The turn; or with `partial` the ids of the calls that still await a result, and then nothing is sent.

        Raises:
            InvalidInput: There are no results, or one refers to no call of the reply.
            TurnMismatch: A call already has another result.
            TurnInProgress: Another turn is open.
            TurnError: The reply is not part of the conversation, or the conversation continued without the results.
            Conflict: The conversation changed since the version `expected`.
        """
        check_type("reply", reply, Reply, "a Reply")
        blocks = reply.results(results)
        if not blocks:
            raise InvalidInput("results: must have at least one tool result, by the id of its tool call")
        entry = make_message_entry({"role": "user", "content": blocks}, turn=fresh_token())
        return self._retry_on_conflict(lambda: self._submit_once(entry, reply, partial=partial))

    def _submit_once(self, entry: MessageEntry, reply: Reply, *, partial: bool) -> Turn | list[str]:
        with self.log.lock:
            active = load_active(self.log)
            called = self._find_called_reply(active, lambda stored: CalledReply.at(stored, reply.position))
            if called and not {call["id"] for call in reply.tool_calls}.issubset(called.calls):
                called = None  # another reply is at this position now
            new_entry = called.without_stored_results(entry) if called else None
            if active is None or called is None or not partial:
                return self._send_results(active, called, entry)
            ids = {block["tool_use_id"] for block in new_entry.event.message["content"]} if new_entry else set()
            left = [id for id in called.open_calls if id not in ids]
            if not left:
                return self._send_results(active, called, entry)
            if new_entry:
                check_no_open_turn(self.log.key, active.state, timeout=self.timeout)
                self.log.append([new_entry], expected=self.expected)
            return left

    def _find_called_reply(
        self, active: ActiveEntries | None, find: Callable[[StoredMessages], CalledReply | None]
    ) -> CalledReply | None:
        """Return the reply that `find` finds among the messages that are sent, or otherwise among all messages."""
        called = find(StoredMessages.among(active.entries if active else ()))
        if called is None and active and active.state.view.view_start:
            called = find(StoredMessages.among(self._load_all_entries()))
        return called

    def _send_results(self, active: ActiveEntries | None, called: CalledReply | None, entry: MessageEntry) -> Turn:
        """Open the turn that sends results; if all of them are stored already, return the turn that sent them."""
        if active is None or called is None:
            raise TurnError(
                f"conversation {self.log.key.id!r} has no reply with these tool calls: it was taken back or forgotten, "
                "or the conversation was deleted; nothing was stored"
            )
        new_entry = called.without_stored_results(entry)
        if new_entry:
            return self._open_turn(active, new_entry)
        turn = self._find_or_reopen(active, called.find_stored_answer(entry), [*called.answers, *called.following])
        if turn is None:
            raise TurnError(
                f"conversation {self.log.key.id!r} continued without a reply to these results; send a new message"
            )
        return turn

    # The last turn again.

    def resume(self, *, takeover: bool = False, force: bool = False) -> Turn | None:
        """Open the last turn again, to send its messages once more.

        Args:
            takeover: Open it even while another process holds it. A reply that the other process still gets is saved as
                a `reply_orphaned` entry.
            force: Open it even if the API refused it.

        Returns:
            The turn; None if the last turn has its reply, or nothing can be sent.

        Raises:
            TurnRefused: The API refused the turn, and `force` was not given.
            TurnInProgress: Another process holds the turn, and `takeover` was not given.
        """
        with self.log.lock:
            active = load_active(self.log)
            if active is None:
                return None
            refused = find_refused_turn(active)
            if force and refused:
                check_no_open_turn(self.log.key, active.state, timeout=self.timeout)
                return self._reopen_turn(active, refused, TurnOpened(lease_until=0, restores_refused=True))
            sendable = [m for m in StoredMessages.among(active.entries).sendable if m.event.message["role"] != "system"]
            if not sendable or is_final_reply(sendable[-1]):
                if refused:
                    raise TurnRefused(self._refusal_message(refused))
                return None
            if not takeover:
                check_no_open_turn(self.log.key, active.state, timeout=self.timeout)
            if not SentView.of(active).is_sendable:
                return None
            return self._reopen_turn(active, sendable[-1].turn or fresh_token(), TurnOpened(lease_until=0))

    def resume_unanswered(self, *, takeover: bool = False, force: bool = False) -> Turn:
        """Open the last turn again as `resume` does, or raise an error if there is nothing to send.

        Args:
            takeover: See `resume`.
            force: See `resume`.

        Returns:
            The turn.

        Raises:
            TurnError: The last turn has its reply.
            TurnRefused: See `resume`.
            TurnInProgress: See `resume`.
        """
        turn = self.resume(takeover=takeover, force=force)
        if turn is None:
            raise TurnError(f"conversation {self.log.key.id!r} has no turn without a reply; send a new message")
        return turn

    # Another reply to the last question.

    def regenerate(self, *, turn_id: str | None = None) -> Turn:
        """Take back the reply to the last question, and open a turn that asks it again.

        A question without a reply is sent as `resume` does. If the `turn_id` was used before, nothing is taken back
        twice: the turn has its stored reply, or is reopened.

        Args:
            turn_id: The caller's id for the turn; None: a new one.

        Returns:
            The turn; its `stored_reply` is set if nothing has to be sent.

        Raises:
            TurnInProgress: Another turn is open.
            TurnRefused: The API refused the question.
            TurnError: The conversation has no question.
            Conflict: The conversation changed since the version `expected`.
        """
        if turn_id is not None:
            check_text("turn_id", turn_id)
        return self._retry_on_conflict(lambda: self._regenerate_once(turn_id))

    def _regenerate_once(self, turn_id: str | None) -> Turn:
        with self.log.lock:
            active = load_active(self.log)
            messages = self._load_since_question(active)
            if active is None or not messages:
                raise TurnError(
                    f"conversation {self.log.key.id!r} has no user message that could be answered again; send one first"
                )
            if turn_id:
                among, known = self._find_turn(active, turn_id)
                turn = self._find_stored_reply(active, known or messages[0], turn_id)
                if turn is None and known:
                    turn = self._find_or_reopen_same(active, known, among, turn_id)
                if turn:
                    return turn
            if StoredMessages.among(active.entries).is_refused(messages[0]):
                raise TurnRefused(self._refusal_message(messages[0].turn))
            check_no_open_turn(self.log.key, active.state, timeout=self.timeout)
            reply = next((each for each in messages if each.event.message["role"] == "assistant"), None)
            opened = TurnOpened(lease_until=0, question_position=messages[0].position)
            turn_id = turn_id or fresh_token()
            if reply is None:
                return self._reopen_turn(active, turn_id, opened, expected=self.expected)
            return self._take_back_reply(active, reply, turn_id, opened)

    def _load_since_question(self, active: ActiveEntries | None) -> list[MessageEntry]:
        """Return the last question and the messages after it; [] if there is no question."""
        messages: list[MessageEntry] = []
        for entry in iter_newest_first(self.log, _BATCH_SIZE, before=active.head.end) if active else ():
            if is_message_entry(entry):
                messages.insert(0, entry)
                if opens_turn(entry.event.message):
                    return messages
        return []

    def _take_back_reply(self, active: ActiveEntries, reply: MessageEntry, turn_id: str, opened: TurnOpened) -> Turn:
        """Take back a reply and what follows it, and open a turn, in one append."""
        turn = Turn(self.log, turn_id, self.timeout, view_cache=self.view_cache)
        back: Entry = Entry(make_rewind(self.log, active.head, reply.position))
        self.setup.warn_if_changed(
            active.state, self.log.key.id
        )  # before anything is stored, because warnings can be errors
        batch = [
            *_close_abandoned(active.state),
            back,
            *self.setup.list_changes(active.state),
            turn.make_start_entry(Entry(opened)),
        ]
        head = self.log.append(batch, expected=self.expected)
        turn.start(head)
        try:
            turn.refresh_for_next_request()
        except BaseException as error:
            turn.abort(error)
            raise
        return turn

    # Turns that are stored already.

    def _find_same_turn(self, active: ActiveEntries, entry: MessageEntry) -> Turn | None:
        """Return the turn with the id of this entry if it was opened before; None if the id is new.

        Raises `TurnError` if the conversation continued without a reply to it: Claude was sent its message with later
        turns, and must not get it twice.
        """
        turn_id = entry.turn or ""
        messages, question = self._find_turn(active, turn_id)
        if question is None:
            return None
        if question.event.message != entry.event.message:
            raise TurnMismatch(
                f"turn {turn_id!r} of conversation {self.log.key.id!r} already has another message; use a new turn_id"
            )
        if StoredMessages.among(active.entries).is_refused(question):
            raise TurnRefused(self._refusal_message(question.turn))
        return self._find_or_reopen_same(active, question, messages, turn_id)

    def _find_turn(self, active: ActiveEntries, turn_id: str) -> tuple[Sequence[MessageEntry], MessageEntry | None]:
        """Return the messages among which a turn is, and its question; [] and None if there is no such turn."""
        question = find_question(active.entries, turn_id)
        if question is None and may_be_trimmed(active, turn_id):
            everything = self._load_all_entries()
            return StoredMessages.among(everything).messages, find_question(everything, turn_id)
        return (StoredMessages.among(active.entries).sendable if question else []), question

    def _find_same_message(self, active: ActiveEntries, entry: MessageEntry, *, is_named: bool) -> Turn | None:
        """Return the last turn, reopened, if it has no reply and the same message as this one; else None.

        Args:
            active: The active entries.
            entry: The message.
            is_named: Whether the caller gave the turn an id, which it then has from now on.
        """
        messages = StoredMessages.among(active.entries).sendable
        first = next((n for n in reversed(range(len(messages))) if opens_turn(messages[n].event.message)), None)
        if first is None or messages[first].event.message != entry.event.message:
            return None
        if any(map(is_final_reply, messages[first:])):
            return None
        turn_id = entry.turn if is_named else None
        return self._find_or_reopen(active, messages[first], messages, turn_id=turn_id, expected=self.expected)

    def _find_or_reopen_same(
        self, active: ActiveEntries, question: MessageEntry, messages: Sequence[MessageEntry], turn_id: str
    ) -> Turn:
        """Return the turn of a stored question. Raises `TurnError` if the conversation continued without a reply.

        A reply that was taken back since counts, too: each turn id is sent once.
        """
        path = active.state.view.path_position
        is_rerouted = path is not None and path > question.position
        if is_rerouted and not any(is_final_reply(m) for m in messages if m.position > question.position):
            turn = self._find_stored_reply(active, question, turn_id)
            if turn:
                return turn
        turn = self._find_or_reopen(active, question, messages, turn_id=turn_id)
        if turn is None:
            raise TurnError(
                f"conversation {self.log.key.id!r} continued without a reply to turn {turn_id!r}: Claude read its "
                "message with a later turn; send a new message with a new turn_id"
            )
        return turn

    def _find_stored_reply(self, active: ActiveEntries, question: MessageEntry, turn_id: str) -> Turn | None:
        """Return the turn with its stored reply, even if the reply was taken back; None if there is no reply."""
        for part in self.log.read_in_parts(question.position, active.head.end):
            for entry in self.log.decode_part(part):  # another reply may have been chosen or requested later
                if entry.turn == turn_id and is_message_entry(entry) and is_final_reply(entry):
                    return Turn(self.log, turn_id, self.timeout, stored_reply=Reply.of(entry))
        return None

    def _find_or_reopen(
        self,
        active: ActiveEntries,
        question: MessageEntry,
        messages: Sequence[MessageEntry],
        *,
        turn_id: str | None = None,
        expected: str | None = None,
    ) -> Turn | None:
        """Return the turn that answers a stored message of the user: with its stored reply, or reopened.

        Args:
            active: The active entries.
            question: The stored message.
            messages: Messages that include it and those after it.
            turn_id: The id of the reopened turn; None: the id that its last message has.
            expected: See `TurnStarter`; None: it is the same turn, which may have changed the conversation itself.

        Returns:
            None if the conversation continued without a reply to it.
        """
        chain = collect_turn(question, messages)
        reply = next(filter(is_final_reply, chain), None)
        if reply:
            return Turn(self.log, reply.turn or "", self.timeout, stored_reply=Reply.of(reply))
        check_no_open_turn(self.log.key, active.state, timeout=self.timeout)
        last = max((m.position for m in messages if m.event.message["role"] != "system"), default=-1)
        if last > chain[-1].position:
            return None
        is_same = turn_id in (None, chain[-1].turn)
        opened = TurnOpened(lease_until=0, question_position=None if is_same else question.position)
        return self._reopen_turn(active, turn_id or chain[-1].turn or fresh_token(), opened, expected=expected)

    def _load_all_entries(self) -> list[Entry]:
        """Return all entries of the active path in order, including those before a cut."""
        return list(iter_newest_first(self.log, _BATCH_SIZE))[::-1]

    def _refusal_message(self, turn: str | None) -> str:
        return (
            f"the API refused turn {turn!r} of conversation {self.log.key.id!r}, and would refuse it again; "
            "send another message, or call resume(id, force=True) to send it all the same"
        )

    # The append that opens a turn.

    def _open_turn(self, active: ActiveEntries | None, entry: MessageEntry, cached: SentView | None = None) -> Turn:
        """Open a turn with a new message at the end of the conversation."""
        head = active.head if active else self.log.known_head()
        state = head.state if head else None
        check_no_open_turn(self.log.key, state, timeout=self.timeout)
        plan = plan_cut(self.trimming, active, entry.event.message) if self.trimming and active else None
        turn = Turn(self.log, entry.turn or entry.id, self.timeout, view_cache=self.view_cache)
        if plan and isinstance(plan.policy, Compaction | Summarize):
            turn.plan, plan = plan, None  # the message is stored first, because a summary takes a while
        cut = [plan.to_entry()] if plan else []
        batch = [*cut, *self._list_setup(active, state), *_close_abandoned(state), turn.make_start_entry(entry)]
        self._store_turn_start(turn, active, state, batch, cached=cached, expected=self.expected)
        return turn

    def _reopen_turn(
        self, active: ActiveEntries, turn_id: str, opened: TurnOpened, *, expected: str | None = None
    ) -> Turn:
        """Reopen a turn for a message that is stored already."""
        turn = Turn(self.log, turn_id, self.timeout, view_cache=self.view_cache)
        batch = [*self._list_setup(active, active.state), turn.make_start_entry(Entry(opened))]
        sent = build_active_view(active)
        if sent.report.kept[-1:] == (ADDED,):  # the view added results for calls without one: store what is sent
            ids = map_sent_to_given_ids(
                active.entries, active.state.view.renamed_calls
            )  # the log has the ids of the replies
            message, sent_ids = restore_given_ids(sent.messages[-1], ids)
            results = make_message_entry(message)
            batch.append(turn.with_lease(replace(results, event=replace(results.event, sent_ids=sent_ids))))
        self._store_turn_start(turn, active, active.state, batch, expected=expected)
        return turn

    def _list_setup(self, active: ActiveEntries | None, state: ConversationState | None) -> list[Entry]:
        """Return the entries to store before the next message if model, system prompt or tools changed.

        Earlier thinking is bound to the former system prompt and tools. If the API still requires it, because a tool
        call awaits its result, the API drops it from now on (`drop_stale_thinking`).
        """
        changed = self.setup.list_changes(state)
        if (
            not (active and changed)
            or active.state.view.drop_stale_thinking
            or not self.setup.invalidates_thinking(active.state)
        ):
            return changed
        return [Entry(ThinkingPolicy(drop_stale_thinking=True)), *changed] if is_thinking_required(active) else changed

    def _store_turn_start(
        self,
        turn: Turn,
        active: ActiveEntries | None,
        state: ConversationState | None,
        batch: Sequence[Entry],
        *,
        cached: SentView | None = None,
        expected: str | None,
    ) -> None:
        """Store the entries that open a turn, and set the turn's view."""
        self.setup.warn_if_changed(state, self.log.key.id)  # before anything is stored, because warnings can be errors
        stored = self.log.append(batch, expected=expected)
        head, entries = stored.head, stored.read_entries()  # sent as it was stored
        if cached:
            turn.start(head, cached.with_stored(head, entries))
        else:
            turn.start(
                head, SentView.of(active.with_appended(head, entries) if active else ActiveEntries(head, entries))
            )


def _close_abandoned(state: ConversationState | None) -> list[Entry]:
    """Return the entry that closes an open turn after its time-out or the end of its process; [] if no turn is open."""
    turn = state.engine.open_turn if state else None
    if turn is None:
        return []
    reason = "its process ended" if turn.process and has_ended(turn.process) else "timed out"
    return [Entry(TurnAbandoned(reason=reason), turn.id)]
