"""A conversation: what a program that talks to Claude keeps instead of a list of messages."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from chathistory.checks import check_count, check_position, check_range, check_store, check_type, refuse_pickling
from chathistory.defaults import OWN_SCOPE, UNCHANGED, resolve_scope
from chathistory.errors import ConversationNotFound, InvalidInput
from chathistory.log.active_path import iter_newest_first, load_active, load_setup
from chathistory.log.conversation_log import ConversationLog
from chathistory.log.entry import Entry, is_message_entry, message_entry
from chathistory.log.events import ThinkingPolicy
from chathistory.log.lease import check_free
from chathistory.log.recent_entries import check_key
from chathistory.log.state import ConversationState, read_state
from chathistory.messages.content import Message, MessageInput
from chathistory.operations.annotate import make_annotation
from chathistory.operations.listing import ConversationInfo, describe
from chathistory.storage.store import HistoryStore
from chathistory.storage.values import LARGEST_NUMBER, Key
from chathistory.view import MessageView, ViewRepair, view_of

if TYPE_CHECKING:
    from chathistory.operations.reply_variants import Variant
    from chathistory.operations.restore_head import Restoration
    from chathistory.operations.usage import Usage
    from chathistory.trimming.plan_cut import TrimResult
    from chathistory.trimming.policies import Policy

__all__ = ["Conversation"]

_SLACK = 8  # records that are no messages, read along so that one round trip is usually enough


class Conversation:
    """One conversation of a store; made by `History.conversation`, without input or output.

    It exists from its first append on. Until then there is nothing to read: no messages, no title, position 0.

    Appends are guarded by what this process has seen of the conversation. If another process has written a message
    since, they raise `Conflict` and store nothing: look at what came (`messages()`, or just `state()`) and append
    again. Threads of one process queue. `rewind` and `forget`, which take messages away, are guarded by what *this
    object* returned last (`version`), so that they never take away what its user has not seen; in a new object, which
    has returned nothing yet, by the present state. A version that was carried elsewhere, such as through a web page, is
    given as `expected`, and counts in place of both. All methods raise the errors of `chathistory.errors.StoreError`.
    """

    def __init__(self, store: HistoryStore, key: Key) -> None:
        if not isinstance(store, HistoryStore):
            check_store(store)
        self._log = ConversationLog(store, key)

    def __repr__(self) -> str:
        return f"Conversation({self.id!r}, scope={self.scope!r})"

    def __reduce__(self) -> NoReturn:
        refuse_pickling(self, "pass its id and scope instead, and call History.conversation(...) in the other process")

    @property
    def id(self) -> str:
        """The caller's name for it."""
        return self._log.key.id

    @property
    def scope(self) -> str:
        """Whose it is."""
        return self._log.key.scope

    @property
    def log(self) -> ConversationLog:
        """Internal: the log beneath, for what the engine and the commands do with single entries."""
        return self._log

    @property
    def version(self) -> str | None:
        """The version of the state that this object returned last; "": there was no conversation; None: it was none.

        Give it to a later call as `expected`, here or in another process, and that call raises `Conflict` if somebody
        else has changed the conversation since. `info()` and the rows of `History.list` have it as well, and so has
        each reply of an engine.
        """
        return self._log.version

    # What was said.

    def append(
        self, messages: MessageInput | Sequence[MessageInput], *, key: str | None = None, expected: str | None = None
    ) -> ConversationInfo:
        """Store a message, or a list or tuple of them as one atomic batch; durable on return.

        What comes again is not stored again: with a `key`, messages are found among the newest 1,000 entries, also by
        another process and after a restart; so is a reply that was stored before, by the id that the API gave it.

        Args:
            messages: Each is a dict with role and content, or an object of the Anthropic SDK such as the `Message` that
                `messages.create` returns: of that, the exact content is stored, and id, usage, stop reason and request
                id beside it.
            key: A name of the caller's for these messages.
            expected: A version in place of what this process has seen; see `version`.

        Returns:
            What `info` returns then, without another round trip. If the messages were stored before, `end` and
            `version` are those of the first time.

        Raises:
            InvalidInput: Something is no message or cannot be stored exactly (NaN, a key that is not text); the text
                names the field. Or `key` stands for other messages, or a stored reply comes again together with other
                messages.
            Conflict: Somebody else has changed the conversation since; nothing was stored.
        """
        given = list(messages) if isinstance(messages, list | tuple) else [messages]
        if not given:
            raise InvalidInput("there is nothing to append: an empty list")
        if key is not None:
            check_key(key)
        entries = [message_entry(message, key=key) for message in given]
        if key is None and not any(entry.event.response.id for entry in entries):
            return describe(self._log.append(entries, expected=expected))
        return describe(self._log.append_once(entries, key=key, expected=expected))

    def messages(self, *, tools: Iterable[Any] | None = None) -> list[Message]:
        """Return the messages to send to Claude: plain dicts, the caller's own; [] if there are none.

        It is what was appended, as far as the API accepts it: see `view`.

        Args:
            tools: See `view`.
        """
        return self.view(tools=tools).messages

    def view(self, *, tools: Iterable[Any] | None = None) -> MessageView:
        """Return the messages to send and a report of what was left out, put in order or added to make them valid.

        Args:
            tools: The tools of the request, or their names: a `tool_reference` to any other is left out, for the API
                refuses it. None: references are sent as they are.
        """
        if tools is not None:
            check_type("tools", tools, Iterable, "a list of tools or of their names")
        return view_of(load_active(self._log), tools=tools)

    def last_messages(self, count: int) -> list[Message]:
        """Return the newest messages as stored, oldest first; fewer if there are no more, [] if there are none.

        The cost does not depend on how long the conversation is. To show, not to send: it may begin anywhere.

        Args:
            count: How many at most.

        Raises:
            InvalidInput: `count` is negative.
        """
        return [entry.message for entry in self.last_entries(count) if entry.message is not None]

    def last_entries(self, count: int, *, before: int | None = None) -> list[Entry]:
        """Return the entries of the newest `count` messages, oldest first, with what their responses told.

        A page costs the same anywhere in a conversation of any length: `last_entries(50)`, then
        `last_entries(50, before=page[0].position)` and so on go backward page by page, until an empty one.

        Args:
            count: How many messages at most.
            before: Only those below this position; None: from the end.

        Raises:
            InvalidInput: A number is negative.
        """
        check_count("count", count)
        if before is not None:
            check_count("before", before)
        entries = iter_newest_first(self._log, min(count + _SLACK, LARGEST_NUMBER), before=before)
        messages = (entry for entry in entries if is_message_entry(entry))
        found: list[Entry] = list(itertools.islice(messages, count))
        return found[::-1]

    def entries(self, start: int = 0, stop: int | None = None) -> Iterator[Entry]:
        """Yield the log's entries of all kinds at positions [start, stop), in order, without loading all at once.

        Nothing if the conversation is absent.

        Args:
            start: The first position; a negative one counts from the end.
            stop: One above the last; None: the end.

        Raises:
            CorruptRecord: A record is damaged.
            Conflict: The range was forgotten meanwhile.
        """
        check_range(start, stop)
        return (entry for part in self._log.slices(start, stop) for entry in self._log.entries(part))

    def repair(self, *, dry_run: bool = True, force: bool = False) -> tuple[ViewRepair, ...]:
        """Return what has to be changed so that all of it can be sent; without `dry_run`, change it in the log.

        Unlike `view`, this finds its way around records that are damaged, or that a later version wrote, wherever they
        stand. Written are a record that leads the view around what cannot be read or sent, and the messages behind the
        first that cannot be sent, as they are sent; the log keeps what it had. The conversation is read in portions;
        what is written is held in memory.

        Args:
            dry_run: Only report what would be changed.
            force: Repair it even while a turn is open.

        Returns:
            What is left out or changed, in the order of the log.

        Raises:
            CorruptRecord: The head itself is damaged: see `restore`.
            TurnInProgress: A turn is open, and `force` was not given (without `dry_run`).
            Conflict: Somebody else wrote meanwhile.
        """
        from chathistory.operations.repair import repair

        return repair(self._log, dry_run=dry_run, force=force)

    def restore(self, *, dry_run: bool = True, force: bool = False) -> Restoration | None:
        """Give the conversation a new head if its own is damaged, folded from the records that can be read.

        Works for a head in which there is no summary on every store, and for one that the store itself cannot read on
        stores that have the ability `HeadRecovery`. The time to live begins anew if the store has one. Records that
        cannot be read are led around, as `repair` does.

        Args:
            dry_run: Only report what the conversation would become.
            force: Do it even while a turn is open.

        Returns:
            What was, or would be, done; None: the head is not damaged, or there is no such conversation.

        Raises:
            CorruptRecord: No record can be read.
            UnsupportedRecord: A later version of chathistory wrote the head.
            TurnInProgress: A turn is open, and `force` was not given (without `dry_run`).
            Conflict: Somebody else wrote meanwhile; nothing was changed.
        """
        from chathistory.operations.restore_head import restore_head

        return restore_head(self._log, dry_run=dry_run, force=force)

    def salvage(self) -> Iterator[Entry | ViewRepair]:
        """Yield all that can be read, of all kinds and in order, and a `ViewRepair` for each position that cannot.

        Also if the head is damaged, where the store can read records without it. Nothing is written.

        Raises:
            CorruptRecord: The head is damaged, and the store cannot read records without it.
            Conflict: The conversation was deleted or forgotten while it was read.
        """
        from chathistory.operations.restore_head import read_around_damage

        return read_around_damage(self._log)

    # What is known of it.

    def state(self) -> ConversationState | None:
        """Look up the present state in one round trip; what others wrote counts as seen. None: absent.

        `info` has what people are shown of it.
        """
        head = self._log.refresh()
        return read_state(head.stored) if head else None

    def info(self) -> ConversationInfo | None:
        """Look up the row that the listing has for it, in one round trip; None: absent."""
        head = self._log.refresh()
        return describe(head) if head else None

    def set_title(self, title: str | None) -> ConversationInfo:
        """Set the title, in one round trip; None removes it. See `annotate`."""
        return self.annotate(title=title)

    def set_tags(self, tags: Iterable[str]) -> ConversationInfo:
        """Set the tags in place of those that it has, in one round trip. See `annotate`."""
        return self.annotate(tags=tags)

    def set_metadata(self, metadata: Mapping[str, Any]) -> ConversationInfo:
        """Set the caller's own JSON values in place of those that it has, in one round trip. See `annotate`."""
        return self.annotate(metadata=metadata)

    def setup(self) -> dict[str, Any] | None:
        """Return what an engine held it with last: its model, system and tools; None: no engine did.

        One round trip. `system` and `tools` are as they were sent, None if there were none.
        """
        head = self._log.seen()
        setup = load_setup(self._log, head) if head else None
        return {"model": setup.model, "system": setup.system, "tools": setup.tools} if setup else None

    def usage(self) -> Usage:
        """Return what its replies cost in tokens: in all, by model, by turn; from what is stored, reading all of it.

        The sums alone are in `state().totals.usage`, without reading. What a damaged reply cost is in the total alone
        once the conversation is repaired; until then it is a `CorruptRecord`.
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
        """Set several of title, tags and metadata at once; return what `info` returns then.

        Never in conflict with messages that others append meanwhile. Begins the conversation if it was absent.

        Args:
            title: The title, of at most 1,000 characters; None removes it. Not given: it stays.
            tags: The tags in place of those that it has; None: they stay.
            metadata: A JSON object in place of the present one; None: it stays.

        Raises:
            InvalidInput: Nothing was given, or something is of a wrong type or too large.
        """
        given = {"tags": tags, "metadata": metadata}
        changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        event = make_annotation(changes if title is UNCHANGED else {"title": title, **changes})
        if self._log.version is None:  # what others write from here on was not returned
            head = self._log.seen()
            self._log.note(head.stored if head else None)
        return describe(self._log.append([Entry(event)]))

    # What is sent, going back, branching off, and forgetting.

    def trim(self, policy: Policy, *, dry_run: bool = False) -> TrimResult | None:
        """Cut what is sent, if the policy asks for it; the log stays whole.

        The cut is a record of the log, so that every process sends the same from now on. There is no cut while a tool
        call awaits its result.

        Args:
            policy: Decides whether to cut, and where.
            dry_run: Store nothing, and only return what would be left out.

        Returns:
            What the cut leaves out; None: there is no cut.

        Raises:
            TurnInProgress: A turn is open.
            Conflict: Somebody wrote meanwhile; nothing was stored.
            InvalidInput: The policy is a `Compaction` (see `ChatEngine.compact`).
            Exception: What the policy raises.
        """
        from chathistory.trimming.plan_cut import trim

        return trim(self._log, policy, dry_run=dry_run)

    def set_drop_stale_thinking(self, *, drop: bool) -> None:
        """Say who leaves out thinking that is bound to what is no longer sent: the API, or the view.

        The choice is stored: with `drop` every engine asks the API to drop such thinking from then on (its
        `prefix_mismatch_behavior`, a beta), and cuts leave thinking to it. Once the choice is taken back, thinking from
        before is not sent.

        Args:
            drop: Whether the API drops it; False, as in a new conversation: the view leaves it out.

        Raises:
            InvalidInput: The choice cannot be taken back while a tool call waits for its result.
            TurnInProgress: A turn is open.
        """
        from chathistory.operations.rewind import is_waiting_for_result

        with self._log.lock:
            head = self._log.seen()
            check_free(self._log.key, head.state if head else None)
            if head and head.state.view.drop_stale_thinking and not drop and is_waiting_for_result(self._log, head):
                raise InvalidInput(
                    "drop: cannot be turned off while a tool call waits for its result, which needs the thinking "
                    "before it; turn it off when the reply is complete"
                )
            self._log.append([Entry(ThinkingPolicy(drop_stale_thinking=bool(drop)))])

    def rewind(self, *, to: int, expected: str | None = None) -> ConversationInfo:
        """Go on from position `to`: what stands from there on is not sent again; the log keeps it.

        For undo, or for an edit. Returns what `info` returns then.

        Args:
            to: A position that the conversation goes through, or its end.
            expected: A version in place of that which this object returned last; see `version`.

        Raises:
            Conflict: Somebody else has changed the conversation since.
            TurnInProgress: A turn is open; its reply would be paid for and find another conversation.
            ConversationNotFound: There is no such conversation.
            InvalidInput: `to` is no such position, or within a turn that waits for the results of tools and whose
                thinking can no longer be sent, for a cut came since.
        """
        from chathistory.operations.rewind import make_rewind

        check_position("to", to)
        with self._log.lock:
            head = self._log.confirm(expected)
            if head is None:
                raise ConversationNotFound(self._log.key)
            check_free(self._log.key, head.state)
            return describe(self._log.append([Entry(make_rewind(self._log, head, to))]))

    def variants(self, position: int) -> list[Variant]:
        """Return the replies to one question, in the order in which they came; [] if there is none yet.

        Replies that a rewind, or `ChatEngine.regenerate`, has taken back are among them. Reads the log from the
        question on.

        Args:
            position: Of the question, or of a reply to it.

        Raises:
            InvalidInput: Neither is at this position.
        """
        from chathistory.operations.reply_variants import list_variants

        check_position("position", position)
        return list_variants(self._log, position)

    def choose(self, position: int, *, expected: str | None = None) -> ConversationInfo:
        """Go back to one of the replies to a question; what was said after another one of them is taken back.

        The conversation ends with that reply then, and goes on from there. The log keeps everything, so any of them can
        be chosen later. Returns what `info` returns then.

        Args:
            position: Of the reply: `Variant.position`.
            expected: A version in place of that which this object returned last; see `version`.

        Raises:
            Conflict: Somebody else has changed the conversation since.
            TurnInProgress: A turn is open.
            ConversationNotFound: There is no such conversation.
            InvalidInput: No reply is at this position, or its thinking must be sent and no longer can.
        """
        from chathistory.operations.reply_variants import make_rewind_to_variant

        check_position("position", position)
        with self._log.lock:
            head = self._log.confirm(expected)
            if head is None:
                raise ConversationNotFound(self._log.key)
            check_free(self._log.key, head.state)
            event = make_rewind_to_variant(self._log, head, position)
            if event:
                return describe(self._log.append([Entry(event)]))
            self._log.note(head.stored)
            return describe(head)

    def leave_out(
        self, position: int | None = None, *, block: int | None = None, thinking: bool = False
    ) -> ConversationInfo:
        """Go on without something that the API refuses; it stays in the log.

        Without arguments: what the API refused when a turn was sent last (`error.refusal` of that error); `resume` of
        an engine sends that turn then. What stands behind it keeps its thinking only where the API allows that.
        Returns what `info` returns then.

        Args:
            position: The position of the message of which something, or all, is no longer sent.
            block: The index of its content block; None: the whole message. An error is sent in place of a tool result.
            thinking: Leave out all thinking so far: of another account, or changed on the way.

        Raises:
            InvalidInput: There is no such message or block, or without arguments nothing that was refused for certain.
                Or it is thinking of a reply that awaits the results of its tools, which the API wants back with them.
            TurnInProgress: A turn is open.
            Conflict: Somebody wrote meanwhile.
        """
        from chathistory.operations.leave_out import leave_out

        for name, number in (("position", position), ("block", block)):
            if number is not None:
                check_position(name, number)
        return describe(leave_out(self._log, position, block=block, thinking=bool(thinking)))

    def fork(self, new_id: str, *, at: int | None = None, scope: str = OWN_SCOPE) -> Conversation:
        """Begin a new conversation with what this one holds.

        What Claude is sent of the fork is what it was sent here at that point, so
        thinking in it stays valid. Title, tags and metadata come along as they are now; `History.list` shows where
        it came from (`origin`). This conversation is not changed, and others may write to it meanwhile: the fork has
        what was there at one moment.

        Args:
            new_id: The id of the new conversation.
            at: Take only what is below this position; None: all.
            scope: The scope of the new conversation; without it that of this one.

        Raises:
            ConversationExists: There is a conversation of that name; nothing was stored.
            ConversationNotFound: This one does not exist.
            InvalidInput: There is nothing below `at`, or no such position, or it is within a tool call's turn whose
                thinking is no longer sent (what was before it is forgotten or cut).
        """
        from chathistory.transfer.fork import fork_conversation

        if at is not None:
            check_position("at", at)
        forked = Conversation(self._log.store, Key(resolve_scope(scope, self.scope), new_id))
        forked.log.note(fork_conversation(self._log, forked.log, at=at))
        return forked

    def forget(self, *, before: int, expected: str | None = None, dry_run: bool = False) -> ConversationInfo | None:
        """Remove the records below a position for good.

        What is left stays sendable; if any of what is gone was sent so far, thinking in the rest is not sent from then
        on, for it is bound to that.

        Args:
            before: The position; a record at it stays.
            expected: A version in place of that which this object returned last; see `version`.
            dry_run: Only check whether it can be done; nothing is removed.

        Returns:
            What `info` returns then; None: there is no such conversation.

        Raises:
            Conflict: Somebody else has changed the conversation since.
            TurnInProgress: A turn is open.
            InvalidInput: A tool call waits for its result, and the API wants the thinking before it.
        """
        from chathistory.operations.rewind import is_waiting_for_result, make_snapshot_entries

        check_position("before", before)
        with self._log.lock:
            head = self._log.confirm(expected)
            if head is None:
                self._log.note(None)
                return None
            if before > head.start:
                check_free(self._log.key, head.state)
                if is_waiting_for_result(self._log, head):
                    raise InvalidInput("before: a turn is under way; forget when its reply is complete")
                if not dry_run:
                    before = min(before, head.end)
                    self._log.append(make_snapshot_entries(self._log, head, before))
                    stored = self._log.forget(before)
                    return describe(self._log.with_state(stored)) if stored else None
            self._log.note(head.stored)
            return describe(head)
