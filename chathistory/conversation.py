"""The `Conversation` class, which a program uses instead of a list of messages."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from chathistory.checks import check_count, check_position, check_range, check_store, check_type, refuse_pickling
from chathistory.defaults import OWN_SCOPE, UNCHANGED, resolve_scope
from chathistory.errors import ConversationNotFound, InvalidInput
from chathistory.log.active_path import iter_newest_first, load_active, load_setup
from chathistory.log.conversation_log import ConversationLog
from chathistory.log.entry import Entry, is_message_entry, make_message_entry
from chathistory.log.events import ThinkingPolicy
from chathistory.log.lease import check_no_open_turn
from chathistory.log.recent_entries import check_key
from chathistory.log.state import ConversationState, read_state
from chathistory.messages.content import Message, MessageInput
from chathistory.operations.annotate import make_annotation
from chathistory.operations.listing import ConversationInfo, describe
from chathistory.storage.store import HistoryStore
from chathistory.storage.values import LARGEST_NUMBER, Key
from chathistory.view import MessageView, ViewRepair, build_active_view

if TYPE_CHECKING:
    from chathistory.operations.reply_variants import Variant
    from chathistory.operations.restore_head import Restoration
    from chathistory.operations.usage import Usage
    from chathistory.trimming.plan_cut import TrimResult
    from chathistory.trimming.policies import Policy

__all__ = ["Conversation"]

_SLACK = 8  # how many more records are read than messages are wanted, because some records are not messages


class Conversation:
    """One conversation of a store. `History.conversation` returns it without any input or output.

    A conversation exists from its first append on. Before that, it has no messages, no title, and ends at position 0.

    Writes never overwrite what their caller has not seen:

    - `append` raises `Conflict`, and stores nothing, if another process has written a message since this process read
      the conversation last. Read it (`messages()`, or just `state()`) and append again. Threads of one process wait
      for each other.
    - `rewind`, `choose` and `forget`, which take messages away, compare the state with the one that *this object*
      returned last (`version`). A new object, which has returned nothing yet, uses the present state.
    - A version that was kept elsewhere, for example in a web page, can be given as `expected`. It replaces both rules.

    All methods raise subclasses of `chathistory.errors.StoreError` if the store cannot be used.
    """

    def __init__(self, store: HistoryStore, key: Key) -> None:
        """Use `History.conversation` instead.

        Args:
            store: The store of the conversation.
            key: Its scope and id.
        """
        if not isinstance(store, HistoryStore):
            check_store(store)
        self._log = ConversationLog(store, key)

    def __repr__(self) -> str:
        return f"Conversation({self.id!r}, scope={self.scope!r})"

    def __reduce__(self) -> NoReturn:
        refuse_pickling(self, "pass its id and scope instead, and call History.conversation(...) in the other process")

    @property
    def id(self) -> str:
        """The id of the conversation, as the caller chose it."""
        return self._log.key.id

    @property
    def scope(self) -> str:
        """The scope that the conversation belongs to, such as a user or a tenant."""
        return self._log.key.scope

    @property
    def log(self) -> ConversationLog:
        """Internal: the log of the conversation, for the engine and the commands, which work with single entries."""
        return self._log

    @property
    def version(self) -> str | None:
        """The version of the state that this object returned last.

        It is "" if there was no conversation, and None if this object has returned nothing yet. Give it to a later call
        as `expected`, here or in another process: that call raises `Conflict` if another writer has changed the
        conversation by then. `info()`, the rows of `History.list` and the replies of an engine have a version, too.
        """
        return self._log.version

    # Messages.

    def append(
        self, messages: MessageInput | Sequence[MessageInput], *, key: str | None = None, expected: str | None = None
    ) -> ConversationInfo:
        """Store a message, or several as one atomic batch, and return the same as `info` without another round trip.

        When the call returns, the messages are as durable as the store promises (`Traits.durable`). If they were stored
        before, `end` and `version` of the result are the ones from after that append.

        Repeated appends are recognized and not stored twice: messages by their `key`, and replies by the id that the
        API gave them. This works among the newest 1,000 entries, also in another process and after a restart.

        Args:
            messages: A message, or a list or tuple of messages. Each is a dict with `role` and `content`, or an object
                of the Anthropic SDK, such as the `Message` that `messages.create` returns. Of such an object, the exact
                content is stored, together with its id, usage, stop reason and request id.
            key: An idempotency key for these messages, chosen by the caller; None: only replies are recognized.
            expected: The version that the conversation must have; None: the one that this process has seen last.

        Raises:
            InvalidInput: A value is not a message or cannot be stored exactly (such as NaN, or a key that is not text);
                the error names the field. Or `key` was used for other messages, or a stored reply is appended again
                together with other messages.
            Conflict: Another process has written messages that this process has not read; nothing was stored.
        """
        batch = list(messages) if isinstance(messages, list | tuple) else [messages]
        if not batch:
            raise InvalidInput("messages: must hold at least one message, and the list is empty")
        if key is not None:
            check_key(key)
        entries = [make_message_entry(message, key=key) for message in batch]
        if key is None and not any(entry.event.response.id for entry in entries):
            return describe(self._log.append(entries, expected=expected))
        return describe(self._log.append_once(entries, key=key, expected=expected))

    def messages(self, *, tools: Iterable[Any] | None = None) -> list[Message]:
        """Return the messages to send to Claude, as new plain dicts; [] if there are no messages.

        They are the appended messages, as far as the API accepts them; `view` also reports what was changed.

        Args:
            tools: The tools of the request, or their names; see `view`.

        Raises:
            CorruptRecord: A record that is sent is damaged; see `repair`.
            UnsupportedRecord: A later version of chathistory wrote such a record.
        """
        return self.view(tools=tools).messages

    def view(self, *, tools: Iterable[Any] | None = None) -> MessageView:
        """Return the messages to send, and a report of what was left out, reordered or added to make them valid.

        Args:
            tools: The tools of the request, or their names. A `tool_reference` to any other tool is left out, because
                the API refuses it. None: all references are sent.

        Raises:
            InvalidInput: `tools` is not a list of tools or names.
            CorruptRecord: A record that is sent is damaged; see `repair`.
            UnsupportedRecord: A later version of chathistory wrote such a record.
        """
        if tools is not None:
            check_type("tools", tools, Iterable, "a list of tools or of their names")
        return build_active_view(load_active(self._log), tools=tools)

    def last_messages(self, count: int) -> list[Message]:
        """Return the newest messages as they are stored, oldest first; [] if there are no messages.

        For display only: they may begin within a turn. The cost does not depend on the length of the conversation.

        Args:
            count: How many messages to return, at most.

        Raises:
            InvalidInput: `count` is negative.
            CorruptRecord: One of the records is damaged; see `repair`.
        """
        return [entry.message for entry in self.last_entries(count) if entry.message is not None]

    def last_entries(self, count: int, *, before: int | None = None) -> list[Entry]:
        """Return the entries of the newest messages, oldest first, with their positions, times and usage.

        To page backward, call `last_entries(50)`, then `last_entries(50, before=page[0].position)`, and so on until the
        page is []. A page costs the same anywhere in a conversation of any length.

        Args:
            count: How many messages to return, at most.
            before: Only messages below this position; None: the newest ones.

        Raises:
            InvalidInput: A number is negative.
            CorruptRecord: One of the records is damaged; see `repair`.
        """
        check_count("count", count)
        if before is not None:
            check_count("before", before)
        entries = iter_newest_first(self._log, min(count + _SLACK, LARGEST_NUMBER), before=before)
        messages = (entry for entry in entries if is_message_entry(entry))
        newest_first: list[Entry] = list(itertools.islice(messages, count))
        return newest_first[::-1]

    def entries(self, start: int = 0, stop: int | None = None) -> Iterator[Entry]:
        """Yield the entries of all kinds at positions [start, stop), in order, a portion at a time.

        Yields nothing if there is no conversation. Entries that a rewind took back are included.

        Args:
            start: The first position; a negative number counts from the end.
            stop: The position after the last one; None: the end.

        Raises:
            InvalidInput: One of them is not an integer.
            CorruptRecord: A record is damaged; `salvage` reads the others.
            Conflict: The range was forgotten meanwhile.
        """
        check_range(start, stop)
        return (entry for part in self._log.read_in_parts(start, stop) for entry in self._log.decode_part(part))

    def repair(self, *, dry_run: bool = True, force: bool = False) -> tuple[ViewRepair, ...]:
        """Return what cannot be read or sent, in the order of the log; without `dry_run`, repair it in the log.

        Unlike `view`, this also works if records are damaged or were written by a later version of chathistory. A
        repair appends an entry that takes those records off the active path. If messages have to be changed, the first
        of these and all after it are appended again, as they are sent. The old records stay in the log. The
        conversation is read in portions; the records to append are held in memory.

        Args:
            dry_run: Store nothing; only report what would be changed.
            force: Repair it even while a turn is open.

        Raises:
            CorruptRecord: The head itself is damaged; call `restore`.
            TurnInProgress: A turn is open, and `force` was not given (without `dry_run`).
            Conflict: Another writer changed the conversation meanwhile.
        """
        from chathistory.operations.repair import repair

        return repair(self._log, dry_run=dry_run, force=force)

    def restore(self, *, dry_run: bool = True, force: bool = False) -> Restoration | None:
        """Store a new head if the present one is damaged, rebuilt from the records that can be read.

        If only the state in the head is damaged, this works on every store. If the store cannot read the head at all,
        it needs a store with the ability `HeadRecovery`. Records that cannot be read are left out, as `repair` does.
        If the store has a time to live, it starts again.

        Args:
            dry_run: Store nothing; only report what would be the result.
            force: Restore it even while a turn is open.

        Returns:
            What was, or would be, done; None if the head is not damaged, or if there is no conversation.

        Raises:
            CorruptRecord: No record can be read, or the store cannot read records without their head.
            UnsupportedRecord: A later version of chathistory wrote the head.
            TurnInProgress: A turn is open, and `force` was not given (without `dry_run`).
            Conflict: Another writer changed the conversation meanwhile; nothing was stored.
        """
        from chathistory.operations.restore_head import restore_head

        return restore_head(self._log, dry_run=dry_run, force=force)

    def salvage(self) -> Iterator[Entry | ViewRepair]:
        """Yield all entries that can be read, in order, and a `ViewRepair` for each position that cannot be read.

        This also works if the head is damaged. Nothing is stored. It yields nothing if there is no conversation.

        Raises:
            CorruptRecord: The head is damaged, and the store cannot read records without it.
            Conflict: The conversation was deleted or forgotten while it was read.
        """
        from chathistory.operations.restore_head import read_around_damage

        return read_around_damage(self._log)

    # State, title, tags and metadata.

    def state(self) -> ConversationState | None:
        """Return the present state, in one round trip; None if there is no conversation.

        After this call, what other processes have written counts as read. `info` returns a row for people instead.

        Raises:
            CorruptRecord: The head is damaged; see `restore`.
        """
        head = self._log.refresh()
        return read_state(head.stored) if head else None

    def info(self) -> ConversationInfo | None:
        """Return the same as the row of the listing, in one round trip; None if there is no conversation.

        After this call, what other processes have written counts as read.

        Raises:
            CorruptRecord: The head is damaged; see `restore`.
        """
        head = self._log.refresh()
        return describe(head) if head else None

    def set_title(self, title: str | None) -> ConversationInfo:
        """Set the title, and return the same as `info`. It takes one round trip.

        Args:
            title: The title, of at most 1,000 characters; None removes it.

        Raises:
            InvalidInput: The title is not text, or too long.
        """
        return self.annotate(title=title)

    def set_tags(self, tags: Iterable[str]) -> ConversationInfo:
        """Replace the tags, and return the same as `info`. It takes one round trip.

        Args:
            tags: The new tags; [] removes all. As JSON, they may have at most 4 KiB.

        Raises:
            InvalidInput: They are not a list of non-empty strings, or too large.
        """
        return self.annotate(tags=tags)

    def set_metadata(self, metadata: Mapping[str, Any]) -> ConversationInfo:
        """Replace the metadata, the caller's own JSON values, and return the same as `info`. It takes one round trip.

        Args:
            metadata: The new values; {} removes all. As JSON, they may have at most 32 KiB.

        Raises:
            InvalidInput: It is not a dict of JSON values, or too large.
        """
        return self.annotate(metadata=metadata)

    def setup(self) -> dict[str, Any] | None:
        """Return a dict with the `model`, `system` and `tools` that an engine used last; None if no engine was used.

        `system` and `tools` are as they were sent, or None. The result is the newest setup that this process knows of;
        `state()` refreshes it. It takes at most two round trips.

        Raises:
            CorruptRecord: The head, or the record with the setup, is damaged.
        """
        head = self._log.known_head()
        setup = load_setup(self._log, head) if head else None
        return {"model": setup.model, "system": setup.system, "tools": setup.tools} if setup else None

    def usage(self) -> Usage:
        """Return the tokens that its replies used: in total, by model and by turn. The whole log is read.

        The totals alone are in `info().usage`, without reading the log. All counts are 0 if there is no conversation.
        After a repair, a damaged reply counts in the total only.

        Raises:
            CorruptRecord: A record is damaged and not repaired.
        """
        from chathistory.log.read_damaged import read_repaired
        from chathistory.operations.usage import Usage, sum_usage

        head = self._log.refresh()
        if head is None:
            return Usage()
        return sum_usage(read_repaired(self._log, head.stored, head.end), head.state.totals.usage)

    def annotate(
        self,
        *,
        title: str | None = UNCHANGED,
        tags: Iterable[str] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> ConversationInfo:
        """Set several of title, tags and metadata at once, and return the same as `info`.

        It never conflicts with messages that others append meanwhile. It creates the conversation if necessary.

        Args:
            title: The title, of at most 1,000 characters; None removes it. Unchanged if omitted.
            tags: The new tags, of at most 4 KiB as JSON. Unchanged if omitted.
            metadata: The new JSON values, of at most 32 KiB. Unchanged if omitted.

        Raises:
            InvalidInput: No argument was given, or one has the wrong type or is too large.
        """
        optional = {"tags": tags, "metadata": metadata}
        changes: dict[str, Any] = {name: value for name, value in optional.items() if value is not None}
        event = make_annotation(changes if title is UNCHANGED else {"title": title, **changes})
        if self._log.version is None:  # what others write from here on has not been returned by this object
            head = self._log.known_head()
            self._log.note_returned(head.stored if head else None)
        return describe(self._log.append([Entry(event)]))

    # Trim, rewind, choose, leave out, fork and forget.

    def trim(self, policy: Policy, *, dry_run: bool = False) -> TrimResult | None:
        """Cut what is sent to Claude, if the policy says so; return what is left out, or None if nothing is cut.

        No message is removed from the log. The cut is stored in it, so that every process sends the same from then on.
        While a tool call waits for its result, nothing is cut.

        Args:
            policy: Decides whether to cut, and where; see `chathistory.trimming`.
            dry_run: Store nothing; only return what would be left out.

        Raises:
            TurnInProgress: A turn is open.
            Conflict: Another writer changed the conversation meanwhile; nothing was stored.
            InvalidInput: The policy is a `Compaction`, which needs `ChatEngine.compact`.
            Exception: The policy raised it.
        """
        from chathistory.trimming.plan_cut import trim

        return trim(self._log, policy, dry_run=dry_run)

    def set_drop_stale_thinking(self, *, drop: bool) -> None:
        """Choose who drops thinking that depends on messages that are no longer sent: the API, or this library.

        The choice is stored with the conversation. False, as in a new conversation: the library leaves such thinking
        out of the view. True: it is sent, and every engine asks the API to drop it (the beta option
        `prefix_mismatch_behavior` of the Messages API). After a change back to False, thinking from before the change
        is not sent.

        Args:
            drop: True: the API drops it. False: the library leaves it out.

        Raises:
            InvalidInput: `drop` cannot be set to False while a tool call waits for its result.
            TurnInProgress: A turn is open.
        """
        from chathistory.operations.rewind_forget import is_waiting_for_result

        with self._log.lock:
            head = self._log.known_head()
            check_no_open_turn(self._log.key, head.state if head else None)
            if head and head.state.view.drop_stale_thinking and not drop and is_waiting_for_result(self._log, head):
                raise InvalidInput(
                    "drop: cannot be turned off while a tool call waits for its result, because the API requires the "
                    "thinking before it; turn it off when the reply is complete"
                )
            self._log.append([Entry(ThinkingPolicy(drop_stale_thinking=bool(drop)))])

    def rewind(self, *, to: int, expected: str | None = None) -> ConversationInfo:
        """Take back the messages from a position on, and return the same as `info`. The log keeps the messages.

        Args:
            to: The position of the first message to take back (`Entry.position`; `chathistory show` prints it after the
                `#`), or the end of the conversation.
            expected: The version that the conversation must have; None: the one that this object returned last.

        Raises:
            Conflict: Another writer has changed the conversation since this object last returned its state.
            TurnInProgress: A turn is open; its reply would be paid for, and would no longer fit the conversation.
            ConversationNotFound: There is no such conversation.
            InvalidInput: `to` is not a position of the current conversation, or it is within a turn that waits for tool
                results and whose thinking can no longer be sent because of a later cut.
        """
        from chathistory.operations.rewind_forget import make_rewind

        check_position("to", to)
        with self._log.lock:
            head = self._log.confirm_version(expected)
            if head is None:
                raise ConversationNotFound(self._log.key)
            check_no_open_turn(self._log.key, head.state)
            return describe(self._log.append([Entry(make_rewind(self._log, head, to))]))

    def variants(self, position: int) -> list[Variant]:
        """Return all replies to one question, in the order in which they were stored; [] if there is no reply yet.

        This includes replies that a rewind or `ChatEngine.regenerate` took back. It reads the log from the question on.

        Args:
            position: The position of the question, or of any reply to it.

        Raises:
            InvalidInput: There is neither a question nor a reply at this position.
        """
        from chathistory.operations.reply_variants import list_variants

        check_position("position", position)
        return list_variants(self._log, position)

    def choose(self, position: int, *, expected: str | None = None) -> ConversationInfo:
        """Make one of the replies to a question the current one, and return the same as `info`.

        The conversation then ends with that reply, and continues from there. Messages after another reply are taken
        back. The log keeps everything, so another reply can be chosen later.

        Args:
            position: The position of the reply: `Variant.position`.
            expected: The version that the conversation must have; None: the one that this object returned last.

        Raises:
            Conflict: Another writer has changed the conversation since this object last returned its state.
            TurnInProgress: A turn is open.
            ConversationNotFound: There is no such conversation.
            InvalidInput: There is no reply at this position, or its thinking must be sent and no longer can.
        """
        from chathistory.operations.reply_variants import make_rewind_to_variant

        check_position("position", position)
        with self._log.lock:
            head = self._log.confirm_version(expected)
            if head is None:
                raise ConversationNotFound(self._log.key)
            check_no_open_turn(self._log.key, head.state)
            event = make_rewind_to_variant(self._log, head, position)
            if event:
                return describe(self._log.append([Entry(event)]))
            self._log.note_returned(head.stored)
            return describe(head)

    def leave_out(
        self, position: int | None = None, *, block: int | None = None, thinking: bool = False
    ) -> ConversationInfo:
        """Stop sending something, such as content that the API refuses; return the same as `info`. The log keeps it.

        Without arguments, it leaves out what the API refused last (`error.refusal`); `resume` of an engine then sends
        that turn again. Thinking after what is left out is sent only where the API allows it.

        Args:
            position: The position of the message of which a block, or all, is left out.
            block: The index of the content block; None: the whole message. If the block is a tool result, an error is
                sent in its place.
            thinking: Leave out all thinking so far, for example because it is from another account or was changed.

        Raises:
            ConversationNotFound: There is no such conversation.
            InvalidInput: There is no such message or block. Or no argument is given, and it is not certain what the API
                refused. Or it is thinking of a reply that waits for tool results, which the API requires with them.
            TurnInProgress: A turn is open.
            Conflict: Another writer changed the conversation meanwhile.
        """
        from chathistory.operations.leave_out import leave_out

        for name, number in (("position", position), ("block", block)):
            if number is not None:
                check_position(name, number)
        return describe(leave_out(self._log, position, block=block, thinking=bool(thinking)))

    def fork(self, new_id: str, *, at: int | None = None, scope: str = OWN_SCOPE) -> Conversation:
        """Create a new conversation that begins with the records of this one, and return it.

        Claude is sent the same messages for the fork as for this conversation at that point, so thinking stays valid.
        Title, tags and metadata are copied as they are now; `History.list` shows the origin. This conversation is not
        changed; if others write to it meanwhile, the fork has its records of one moment.

        Args:
            new_id: The id of the new conversation.
            at: Copy only records below this position; None: all.
            scope: The scope of the new conversation; the scope of this one if omitted.

        Raises:
            ConversationExists: There is a conversation with the new id already; nothing was stored.
            ConversationNotFound: This conversation does not exist.
            InvalidInput: There is no record below `at`, or `at` is above the end. Or it is within a tool turn whose
                thinking is no longer sent, because messages before it were forgotten or cut.
        """
        from chathistory.transfer.fork import fork_conversation

        if at is not None:
            check_position("at", at)
        forked = Conversation(self._log.store, Key(resolve_scope(scope, self.scope), new_id))
        forked.log.note_returned(fork_conversation(self._log, forked.log, at=at))
        return forked

    def forget(self, *, before: int, expected: str | None = None, dry_run: bool = False) -> ConversationInfo | None:
        """Remove the records below a position permanently; return the same as `info`, or None without a conversation.

        The rest can still be sent. If removed messages were sent until now, thinking in the rest is no longer sent,
        because it is bound to them.

        Args:
            before: The position of the first record that is kept.
            expected: The version that the conversation must have; None: the one that this object returned last.
            dry_run: Remove nothing; only check whether it can be done.

        Raises:
            Conflict: Another writer has changed the conversation since this object last returned its state.
            TurnInProgress: A turn is open.
            InvalidInput: A tool call waits for its result, or a reply is paused; the API requires thinking before it.
            CorruptRecord: A record that the head refers to is damaged; see `repair`.
        """
        from chathistory.operations.rewind_forget import is_waiting_for_result, make_snapshot_entries

        check_position("before", before)
        with self._log.lock:
            head = self._log.confirm_version(expected)
            if head is None:
                self._log.note_returned(None)
                return None
            if before > head.start:
                check_no_open_turn(self._log.key, head.state)
                if is_waiting_for_result(self._log, head):
                    raise InvalidInput(
                        "before: cannot forget while a tool call is waiting for its result or a reply is paused, "
                        "because the API requires the thinking before it; forget when the reply is complete"
                    )
                if not dry_run:
                    before = min(before, head.end)
                    self._log.append(make_snapshot_entries(self._log, head, before))
                    stored = self._log.forget(before)
                    return describe(self._log.with_state(stored)) if stored else None
            self._log.note_returned(head.stored)
            return describe(head)
