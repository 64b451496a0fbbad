"""Restores a damaged head of a conversation from its records, and reads what can be read around damage.

The state in a head is the result of all events. So it can be rebuilt: the events are applied again, a portion of the
records at a time, beginning with the first record. If the first records were forgotten, the newest record that holds a
complete state (a snapshot or a fork) replaces them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial

from chathistory.errors import CorruptRecord
from chathistory.log.apply import apply, begin_state
from chathistory.log.clock import MICROSECONDS, fresh_token, latest_now
from chathistory.log.commit import commit
from chathistory.log.conversation_log import ConversationLog, unless_expired
from chathistory.log.entry import Entry, encode, is_activity
from chathistory.log.events import Annotation, Forked, Snapshot
from chathistory.log.lease import check_no_open_turn
from chathistory.log.read_damaged import LostRecord, ReadableRecord, iter_around_damage, iter_found_around_damage
from chathistory.log.state import ConversationState, parse_state, read_state
from chathistory.operations.repair import repair
from chathistory.storage.abilities import FoundRecords, HeadRecovery
from chathistory.storage.values import LARGEST_NUMBER, LONGEST_VERSION, Head, Revision
from chathistory.view import ViewRepair

__all__ = [
    "RebuiltState",
    "Restoration",
    "StoredLog",
    "find_stored_log",
    "read_around_damage",
    "rebuild_state",
    "restore_head",
]


@dataclass(frozen=True, slots=True)
class Restoration:
    """The result of restoring a conversation with a damaged head.

    Attributes:
        problem: What is wrong with the head, without message text.
        start: The position of the first record that is kept.
        end: The position after the last record.
        messages: How many messages can be read.
        lost: Each position that is left out, with the reason.
        written: True if the new head is stored; False in a dry run.
    """

    problem: str
    start: int
    end: int
    messages: int
    lost: tuple[ViewRepair, ...]
    written: bool = False


def restore_head(log: ConversationLog, *, dry_run: bool = True, force: bool = False) -> Restoration | None:
    """Store a new head for a conversation, rebuilt from the records that can be read; the others are left out.

    Args:
        log: The log of the conversation.
        dry_run: Store nothing; only return what would be the result.
        force: Restore it even while a turn is open.

    Returns:
        What was, or would be, done; None if the head is not damaged, or if there is no such conversation.

    Raises:
        CorruptRecord: No record can be read, or the store cannot read records without their head.
        UnsupportedRecord: A later version of chathistory wrote the head.
        TurnInProgress: A turn is open, and `force` was not given.
        Conflict: Another writer changed the conversation meanwhile; nothing was stored.
    """
    with log.lock:
        head = _find_head(log)
        if head is None:
            return None
        damage: _HeadToRebuild | _UnreadableState
        if isinstance(head, _HeadToRebuild):
            damage = head
        else:
            try:
                read_state(head)
            except CorruptRecord as error:
                damage = _UnreadableState(head, error.reason)
            else:
                return None
        rebuilt = rebuild_state(damage.read(log))
        if rebuilt is None:
            raise CorruptRecord(
                log.key,
                None,
                f"{damage.problem}, and none of its records can be read; import it from an export or a backup, or "
                "delete it with `History.delete` or `chathistory delete`",
            )
        restoration = Restoration(damage.problem, damage.start, damage.end, rebuilt.state.totals.messages, rebuilt.lost)
        if dry_run:
            return restoration
        if not force:
            check_no_open_turn(log.key, rebuilt.state)
        log.remember(damage.store_head(log, rebuilt))
        if rebuilt.lost:
            repair(log, dry_run=False, force=force)
        return replace(restoration, written=True)


def read_around_damage(log: ConversationLog) -> Iterator[Entry | ViewRepair]:
    """Yield each entry that can be read, in order, and a `ViewRepair` for each position that cannot.

    Yields nothing if there is no such conversation.

    Args:
        log: The log of the conversation.

    Raises:
        CorruptRecord: The head is damaged, and the store cannot read records without it.
        Conflict: The conversation was deleted or forgotten while it was read.
    """
    stored = find_stored_log(log)
    for each in stored.read() if stored else ():
        yield _to_view_repair(each) if isinstance(each, LostRecord) else each.entry


@dataclass(frozen=True, slots=True)
class StoredLog:
    """The records of a conversation, whether its head can be read or not.

    Attributes:
        start: The position of the first record that is kept.
        end: The position after the last record.
        revision: The revision in the head; None if it cannot be read.
        read: Yields what is at each position, sound or lost.
    """

    start: int
    end: int
    revision: Revision | None
    read: Callable[[], Iterator[ReadableRecord | LostRecord]]


def find_stored_log(log: ConversationLog) -> StoredLog | None:
    """Return the records of a conversation; None if there is no such conversation.

    Args:
        log: The log of the conversation.

    Raises:
        CorruptRecord: The head is damaged, and the store cannot read records without it.
    """
    head = _find_head(log)
    if isinstance(head, _HeadToRebuild):
        return StoredLog(head.start, head.end, None, partial(head.read, log))
    if head is None:
        return None
    read = partial(iter_around_damage, log.store, head, head.start, head.end)
    return StoredLog(head.start, head.end, head.revision, read)


def _to_view_repair(lost: LostRecord) -> ViewRepair:
    return ViewRepair(lost.position, f"left out: the record is damaged, {lost.reason}")


@dataclass(frozen=True, slots=True)
class _HeadToRebuild:
    """A head that the store cannot read, or that has wrong positions; the records were found without it."""

    recovery: HeadRecovery
    records: FoundRecords
    problem: str

    @property
    def start(self) -> int:
        return self.records.start

    @property
    def end(self) -> int:
        return self.records.end

    def read(self, _log: ConversationLog) -> Iterator[ReadableRecord | LostRecord]:
        return iter_found_around_damage(self.recovery, self.records, self.start, self.end)

    def store_head(self, log: ConversationLog, rebuilt: RebuiltState) -> Head:
        ttl = log.store.ttl
        expires = None if ttl is None else max(0, min(latest_now() + int(ttl * MICROSECONDS), LARGEST_NUMBER))
        revision = Revision(rebuilt.version, rebuilt.updated, expires, rebuilt.state.encode())
        return self.recovery.restore_head(self.records, Head(log.key, self.start, self.end, revision))


@dataclass(frozen=True, slots=True)
class _UnreadableState:
    """A head that the store can read, but that has no valid state."""

    head: Head
    problem: str

    @property
    def start(self) -> int:
        return self.head.start

    @property
    def end(self) -> int:
        return self.head.end

    def read(self, log: ConversationLog) -> Iterator[ReadableRecord | LostRecord]:
        return iter_around_damage(log.store, self.head, self.start, self.end)

    def store_head(self, log: ConversationLog, rebuilt: RebuiltState) -> Head:
        entry = Entry(Annotation())  # only an append replaces a head; this entry changes nothing
        revision = replace(self.head.revision, version=entry.id, payload=rebuilt.state.encode())
        return commit(log.store, log.key, [encode(entry)], after=self.head, revision=revision)


def _find_head(log: ConversationLog) -> Head | _HeadToRebuild | None:
    """Return the head, or what is wrong with it; None if there is no conversation, or if it was restored meanwhile."""
    recovery = log.store.get_recovery()
    try:
        part = log.store.read(log.key, start=0, stop=0)
    except CorruptRecord as error:
        records = recovery.find_records(log.key) if recovery else None
        if records is None or recovery is None:
            raise
        if records.problem is None:  # another process has restored it meanwhile
            return None
        return _HeadToRebuild(recovery, records, error.reason)
    head = unless_expired(part.head if part else None)
    if head is None:
        return None
    if recovery is not None:
        records = recovery.find_records(log.key)
        if records is not None and records.problem is not None:
            # the head can be read, but the records are not at the positions that it gives
            return _HeadToRebuild(recovery, records, records.problem)
    return head


@dataclass(frozen=True, slots=True)
class RebuiltState:
    """The state of a conversation, rebuilt from the records that can be read.

    Attributes:
        state: The state.
        version: The version for the new head: the id of the last record, or a new one if that cannot be read.
        updated: When the newest activity was (microseconds since 1970 UTC).
        lost: Each position that is left out, with the reason.
    """

    state: ConversationState
    version: str
    updated: int
    lost: tuple[ViewRepair, ...]


def rebuild_state(entries: Iterable[ReadableRecord | LostRecord]) -> RebuiltState | None:
    """Return the state after all records that can be read; None if none can.

    Args:
        entries: What is at each position that is kept, in order.
    """
    state: ConversationState | None = None
    last: Entry | None = None
    is_whole = False  # whether the state before the first record is known
    updated, end = 0, 0
    lost: list[ViewRepair] = []
    for each in entries:
        end = each.position + 1
        if isinstance(each, LostRecord):
            lost.append(_to_view_repair(each))
            continue
        entry = each.entry
        stored = parse_state(entry.event.state) if isinstance(entry.event, Snapshot | Forked) else None
        if stored is not None:
            state, is_whole = stored, True
        elif last is None:
            is_whole = each.position == 0
        state = apply(state or begin_state(entry), entry, each.position)
        if is_activity(entry):
            updated = max(updated, entry.time_us)
        last = entry
    if state is None or last is None:
        return None
    if not is_whole:  # thinking is bound to the first records, and these are gone
        state = replace(state, view=replace(state.view, thinking_valid_from=end))
    is_valid_version = 1 <= len(last.id) <= LONGEST_VERSION and last.id.isascii() and last.id.isprintable()
    version = last.id if is_valid_version and last.position == end - 1 else fresh_token()
    return RebuiltState(state, version, updated or state.identity.created, tuple(lost))
