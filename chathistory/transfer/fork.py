"""Forks a conversation: creates a new one that begins with the first part of another one.

The lines of that part are copied unchanged, to the same positions. So positions in entries stay valid, and requests to
Claude begin with the same characters, so that thinking and the prompt cache stay valid. A `forked` record follows, with
the state at that point and the origin.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Self

from chathistory.errors import (
    Conflict,
    ConversationExists,
    ConversationNotFound,
    CorruptRecord,
    InvalidInput,
    UnsupportedRecord,
)
from chathistory.log.active_path import contains_position
from chathistory.log.apply import apply, apply_all, begin_state
from chathistory.log.bulk_create import bulk_create
from chathistory.log.clock import fresh_token, now
from chathistory.log.conversation_log import ConversationLog, unless_expired
from chathistory.log.entry import FORMAT, Entry, encode, is_message_entry
from chathistory.log.events import Forked, MessageAdded, Repair, Rewind, Snapshot
from chathistory.log.field_types import PositionRange
from chathistory.log.read_damaged import LostRecord, read_repaired
from chathistory.log.state import ConversationState, Identity, Origin, parse_state, read_state
from chathistory.log.turn_boundaries import find_open_reply, is_said_by_user, list_reply_blocks
from chathistory.storage.values import Head, ReadResult, Revision
from chathistory.transfer.copy_sources import make_lost_record
from chathistory.view.clean_message import count_thinking_blocks

__all__ = ["fork_conversation"]

_ATTEMPTS = 20


def fork_conversation(source: ConversationLog, target: ConversationLog, *, at: int | None) -> Head:
    """Create `target` with the first records of `source`, and return its head.

    It is created completely or not at all, from one moment of the source. Only a portion is in memory at a time.

    Args:
        source: The log of the conversation to fork.
        target: The log of the new conversation.
        at: Copy the records below this position; None: all records.

    Raises:
        ConversationExists: The new conversation exists already.
        ConversationNotFound: The conversation to fork does not exist.
        InvalidInput: `at` is outside the conversation or has no record before it, or it is within a turn whose
            thinking is no longer sent.
        CorruptRecord: A record below `at` is damaged and was not repaired.
        UnsupportedRecord: A record below `at` was written before the stored format was frozen.
    """
    for _ in range(_ATTEMPTS):
        try:
            return _fork_once(source, target, at=at)
        except Conflict as conflict:
            if conflict.key == target.key:
                raise (ConversationExists(target.key) if conflict.head else conflict) from None
            # the records that were being read have been forgotten, or the source was deleted: try again
    return _fork_once(source, target, at=at)


def _fork_once(source: ConversationLog, target: ConversationLog, *, at: int | None) -> Head:
    stop = None if at is None else max(at, 0)
    parts = source.read_in_parts(0, stop, makes_known=False)  # a copy does not count as read
    try:
        first = next(
            parts, None
        )  # this locks the source for a moment, so it must not happen while the target is locked
        whole = itertools.chain([first], parts) if first else parts
        return _store_fork(source, target, first.head if first else None, at, lambda _: whole)
    except CorruptRecord as error:
        if error.key != source.key or error.position is None:
            raise
    part = source.store.read(source.key, start=0, stop=0)
    head = unless_expired(part.head if part else None)

    def read_marked(stop: int) -> Iterator[ReadResult]:
        """Yield the records below a position, with a `record_lost` for each one that a repair has left out."""
        if head is None:
            return
        time = 0
        for each in read_repaired(source, head, stop):
            sound = make_lost_record(each, time) if isinstance(each, LostRecord) else each
            time = sound.entry.time_us
            yield ReadResult(head, [sound.record])

    return _store_fork(source, target, head, at, read_marked)


def _store_fork(
    source: ConversationLog,
    target: ConversationLog,
    head: Head | None,
    at: int | None,
    read: Callable[[int], Iterator[ReadResult]],
) -> Head:
    if head is None:
        raise ConversationNotFound(source.key)
    stop = head.end if at is None else at
    if not head.start < stop <= head.end:
        raise InvalidInput(f"cannot fork at position {stop}: choose one from {head.start + 1} to {head.end}")
    builder = _ForkBuilder(source, target, head, stop)
    return bulk_create(target, builder.iter_lines(read(stop)), first=head.start, revision=builder.make_revision)


@dataclass(frozen=True, slots=True)
class _CopiedMessage:
    """A message that was copied.

    Attributes:
        position: Its position.
        is_by_user: Whether it is a message of the user, not tool results or a reply.
        needs_thinking: True for a reply that is left open, so that the API requires its thinking.
    """

    position: int
    is_by_user: bool
    needs_thinking: bool

    @classmethod
    def from_entry(cls, entry: Entry[MessageAdded]) -> Self:
        needs_thinking = find_open_reply([entry]) is not None and count_thinking_blocks(entry.event.message) > 0
        return cls(entry.position, is_said_by_user(entry.event.message), needs_thinking)


class _ForkBuilder:
    """Builds a fork: applies the events while their lines are copied, and adds the `forked` record at the end."""

    def __init__(self, source: ConversationLog, target: ConversationLog, head: Head, at: int) -> None:
        self._source, self._target = source, target
        self._head, self._at = head, at
        self._is_state_complete = head.start == 0  # False until a snapshot is read, if the first records were forgotten
        self._state: ConversationState | None = None
        self._token = fresh_token()
        self._messages: list[_CopiedMessage] = []
        self._path: list[PositionRange] = []  # the active path before the newest entry that stores one

    def iter_lines(self, parts: Iterator[ReadResult]) -> Iterator[str]:
        """Yield the lines of the fork.

        Args:
            parts: The records to copy, in order.
        """
        for part in parts:
            for entry in self._source.decode_part(part):
                if entry.version < FORMAT:
                    raise UnsupportedRecord(self._source.key, entry.position, entry.version)
                if isinstance(entry.event, Snapshot):  # its state includes the forgotten records
                    self._state, self._is_state_complete = parse_state(entry.event.state), True
                self._state = apply(self._state or begin_state(entry), entry, entry.position)
                if isinstance(entry.event, Rewind | Snapshot | Repair):
                    self._path = list(entry.event.path)
                if is_message_entry(entry):
                    message = entry.event.message
                    if is_said_by_user(message) or list_reply_blocks(message):
                        self._messages.append(_CopiedMessage.from_entry(entry))
            yield from (record.body for record in part.records)
        entry = self._make_fork_entry()
        self._state = apply_all(self._state, [entry], self._at)
        yield encode(entry)

    def make_revision(self) -> Revision:
        """Return the revision of the fork; call it after the last line was read."""
        return self._target.make_revision(self._get_state(), None, version=self._token)

    def _get_state(self) -> ConversationState:
        if self._state is None:
            raise CorruptRecord(self._source.key, None, "it has no records")
        return self._state

    def _check_thinking(self, state: ConversationState) -> None:
        """Raise `InvalidInput` if the fork ends within a turn whose thinking is required but no longer sent."""
        path = [*self._path, (state.view.path_position or 0, self._at)]
        messages = [each for each in reversed(self._messages) if contains_position(path, each.position)]
        replies = itertools.dropwhile(lambda each: each.is_by_user, messages)
        turn = itertools.takewhile(lambda each: not each.is_by_user, replies)
        if any(each.needs_thinking and each.position < state.view.thinking_valid_from for each in turn):
            raise InvalidInput(
                f"cannot fork at position {self._at}, within a tool turn whose thinking is no longer sent; "
                "fork at the start of that turn, or after its last reply"
            )

    def _make_fork_entry(self) -> Entry:
        """Return the `forked` entry: title, tags and metadata as they are now, the rest as it was at that point."""
        key, present, before = self._source.key, read_state(self._head), self._get_state()
        origin = Origin(key.scope, key.id, self._at)
        view = before.view
        if not self._is_state_complete:  # thinking up to here is bound to records that were forgotten
            renamed = (call for call in present.view.renamed_calls if int(call.partition(".")[0]) < self._at)
            view = replace(view, thinking_valid_from=self._at, renamed_calls=tuple(renamed))
        state = replace(
            before,
            identity=Identity(self._token, now(), origin),
            annotations=present.annotations,
            view=view,
            # the container belongs to the original, and may hold files of another scope
            engine=replace(before.engine, open_turn=None, container=None),
        )
        self._check_thinking(state)
        event = Forked(origin=origin.to_dict(), state=state.to_dict())
        return Entry(event, id=self._token, time_us=state.identity.created)
