"""The log of one conversation, as the core writes and reads it: queue, guard, rebase and expiry, for all stores.

Within a process every conversation has one *lane*: a lock, and the head that this process has seen last. Threads queue
in it, so they do not conflict with each other, nor with a cancelled call that is still landing. An append is guarded by
the lane's head. If another process wrote in between, the append goes on where that is harmless: annotations commute
with everything, renewals of a lease with all that does not take that turn away from its holder, and what is kept beside
the conversation with what is said in it. Else it is a `Conflict`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from weakref import WeakValueDictionary

from chathistory.checks import check_text
from chathistory.errors import Conflict, CorruptRecord, InvalidInput
from chathistory.log.apply import apply_all
from chathistory.log.clock import MICROSECONDS, earliest_now, latest_now, now
from chathistory.log.commit import commit, read_in_parts
from chathistory.log.entry import Entry, decode, encode, is_activity
from chathistory.log.events import (
    Annotation,
    LeaseRenewed,
    MessageAdded,
    Repair,
    ReplyInterrupted,
    ReplyOrphaned,
    Rewind,
    Snapshot,
    TurnAbandoned,
)
from chathistory.log.recent_entries import NEWEST, RecentEntries
from chathistory.log.state import AppendResult, ConversationHead, ConversationState, read_state
from chathistory.storage.store import HistoryStore
from chathistory.storage.values import LARGEST_NUMBER, Head, Key, ReadResult, Record, Revision

__all__ = ["ABSENT", "ConversationLog", "unless_expired"]

ABSENT = ""
"""The version of a conversation that does not exist."""

MAX_REBASES = 20
_LOOK_BACK = 16  # records read at once to see whether all that came since stands beside the conversation


class LocalState:
    """The queue of one conversation within this process.

    known: `head` was looked up; None: absent. behind: others wrote messages below `head` that were not read here, and
    an annotation of ours went past them. recent: what keys and responses the newest entries hold; looked up when it is
    asked for, and kept up to date by what is stored from here.
    """

    def __init__(self, store: HistoryStore) -> None:
        self.store = store  # kept alive: its `id` in the table below stays its own
        self.lock = threading.RLock()
        self.is_known = False
        self.has_unread = False
        self.head: Head | None = None
        self.recent: RecentEntries | None = None
        self.last_read: ConversationHead | None = None

    def remember(self, head: Head | None, *, has_unread: bool = False) -> Head | None:
        self.head, self.is_known, self.has_unread = head, True, has_unread
        return head


_local_states: WeakValueDictionary[tuple[int, Key], LocalState] = WeakValueDictionary()
"""By `id` of a store, which need not be hashable, and by key; a state goes with the last log that uses it."""
_local_states_lock = threading.Lock()


def _renew_lock() -> None:
    """Replace the lock in a forked child: the thread that may have held it does not live there."""
    global _local_states_lock  # noqa: PLW0603 - there is one for the process
    _local_states_lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


def _get_local_state(store: HistoryStore, key: Key) -> LocalState:
    with _local_states_lock:
        local_state = _local_states.get((id(store), key))
        if local_state is None:
            local_state = _local_states[id(store), key] = LocalState(store)
        return local_state


def unless_expired(head: Head | None) -> Head | None:
    """Return the head, or None if its time to live is over: expired is absent, everywhere.

    A clock of this machine that jumped ahead lets nothing expire: what is taken for absent may be deleted.
    """
    if head is None or (head.revision.expires is not None and head.revision.expires <= earliest_now()):
        return None
    return head


class ConversationLog:
    """The log of one conversation, as one user of it has it. All methods are safe from many threads.

    version: of the state that was returned last by this object (`ABSENT`: there was no conversation); None: none was.
    """

    def __init__(self, store: HistoryStore, key: Key) -> None:
        self.store = store
        self.key = key
        self.version: str | None = None
        self._local_state = _get_local_state(store, key)

    @property
    def lock(self) -> threading.RLock:
        """Held during an append; hold it to make several steps one for the other threads of this process."""
        return self._local_state.lock

    def with_state(self, head: Head, state: ConversationState | None = None) -> ConversationHead:
        """Return a head of this conversation with its state. Raises `CorruptRecord` or `UnsupportedRecord`.

        state: What it is known to be, for it was made here. Else it is the one that was read last, if the head has the
            same payload, and is read if not.
        """
        last = self._local_state.last_read
        if state is None:
            is_same = last and last.stored.end == head.end and last.stored.revision.payload == head.revision.payload
            state = last.state if last and is_same else read_state(head)
        self._local_state.last_read = with_state = ConversationHead(head, state)
        return with_state

    def known_head(self) -> ConversationHead | None:
        """Return the head that this process has seen last, looking it up the first time; None: absent."""
        head = self._find_known_head()
        return self.with_state(head) if head else None

    def _find_known_head(self) -> Head | None:
        with self._local_state.lock:
            if self._local_state.is_known:
                return unless_expired(self._local_state.head)
            return self.note_returned(self._local_state.remember(self.fetch_head()))

    @property
    def last_head(self) -> Head | None:
        """The head that this process has seen last, without looking; None: absent then, or never looked for."""
        return unless_expired(self._local_state.head)

    def refresh(self) -> ConversationHead | None:
        """Look up the present head in one round trip: what others wrote counts as seen from now on."""
        with self._local_state.lock:
            head = self.note_returned(self._local_state.remember(self.fetch_head()))
            return self.with_state(head) if head else None

    def note_returned(self, head: Head | None) -> Head | None:
        """Take down that the state of `head` was returned to the user of this object."""
        self.version = _version_of(head)
        return head

    def confirm_version(self, version: str | None) -> ConversationHead | None:
        """Return the present head, if the conversation is still what it was in an earlier state; None: it is absent.

        One round trip, and another one if anything was written since. Entries that stand beside the conversation may
        have been; they do not change what is sent.

        Args:
            version: Of that state; `ABSENT` for none. None: of the state that this object returned last; if it
                returned none, of the present one.

        Raises:
            Conflict: Somebody else changed the conversation since.
            InvalidInput: The version is no text.
        """
        if version is not None:
            check_text("expected", version)
        with self._local_state.lock:
            expected = self.version if version is None else version
            head = self.fetch_head()
            if (
                expected is not None
                and _version_of(head) != expected
                and not self._has_only_side_entries_since(expected, head)
            ):
                raise Conflict(self.key, head)
            self._local_state.remember(head)
            return self.with_state(head) if head else None

    def fetch_head(self) -> Head | None:
        """Return the present head in one round trip, without counting it as seen; None: absent."""
        part = self.store.read(self.key, start=0, stop=0)
        return unless_expired(part.head if part else None)

    def _has_only_side_entries_since(self, version: str, head: Head | None) -> bool:
        """Whether only entries beside the conversation follow the append of a version, which is its last entry's id."""
        stop = head.end if head else 0
        while head and stop > head.start:
            start = max(head.start, stop - _LOOK_BACK)
            found = self.fetch_records(start, stop)
            for record in reversed(found[1] if found else []):
                entry = decode(record, self.key)
                if entry.id == version or not _are_side_entries([entry]):
                    return entry.id == version
            stop = start
        return head is not None and head.start == 0 and version == ABSENT

    def read_in_parts(self, start: int = 0, stop: int | None = None, *, counts: bool = True) -> Iterator[ReadResult]:
        """Yield the records of [start, stop) in portions; nothing if the conversation is absent.

        All are of the moment of the first, whose head counts as seen if the range goes to the end, unless `counts` is
        False. A negative `start` counts from the end. Raises `Conflict` if the range is forgotten or deleted while it
        is read.
        """
        with self._local_state.lock:
            parts = read_in_parts(self.store, self.key, start, stop)
            first = next(parts, None)
            head = unless_expired(first.head if first else None)
            if stop is None and counts:
                self.note_returned(self._local_state.remember(head))
        if first is None or head is None:
            return
        yield first
        for part in parts:
            if not _is_same_conversation(part.head, head):
                raise Conflict(self.key, part.head)  # it was deleted and made again
            yield part

    def load(self, start: int = 0, stop: int | None = None) -> tuple[ConversationHead, list[Entry]] | None:
        """Return the head and the entries of a range, of one moment; None if the conversation is absent."""
        found = self.fetch_records(start, stop)
        if found is None:
            return None
        head, entries = found[0], [decode(record, self.key) for record in found[1]]
        if stop is None and len(entries) >= min(NEWEST, head.end - head.start):
            self._local_state.recent = RecentEntries(ABSENT)
            self._local_state.recent.extend(_version_of(head), entries[-NEWEST:], head.end - min(len(entries), NEWEST))
        return self.with_state(head), entries

    def fetch_records(self, start: int = 0, stop: int | None = None) -> tuple[Head, list[Record]] | None:
        """Return what `load` returns as it is stored, for callers that may not need all of it."""
        parts = list(self.read_in_parts(start, stop))
        return (parts[0].head, [record for part in parts for record in part.records]) if parts else None

    def read_entries(self, start: int, stop: int) -> list[Entry]:
        """Return the entries of [start, stop), which is within what was seen; counts as seen what counted before.

        Raises `CorruptRecord`, and `Conflict` if some of them are gone, or the conversation was made again.
        """
        return [decode(record, self.key) for record in self.fetch_all_records(start, stop)]

    def fetch_all_records(self, start: int, stop: int) -> list[Record]:
        """Return the records of [start, stop), as `read` returns their entries. Raises `Conflict`."""
        seen = self.last_head
        head, found = self.fetch_records(start, stop) or (None, [])
        if len(found) != stop - start or (head and seen and not _is_same_conversation(head, seen)):
            raise Conflict(self.key, head)
        return found

    def decode_part(self, part: ReadResult) -> list[Entry]:
        """Return the entries of a slice. Raises `CorruptRecord`."""
        return [decode(record, self.key) for record in part.records]

    def append(self, entries: Sequence[Entry], *, expected: str | None = None) -> AppendResult:
        """Store the entries as one batch behind what this process has seen; return the new head, with what was stored.

        expected: the version behind which they are stored, in place of what this process has seen; see `confirm`.

        Raises `Conflict` if another process wrote more since than what commutes, and what `commit` raises.
        """
        bodies = [encode(entry) for entry in entries]
        with self._local_state.lock:
            base = self._find_known_head() if expected is None else self._find_expected_head(expected)
            has_unread, is_beside = self._local_state.has_unread, _are_side_entries(entries)
            for _ in range(MAX_REBASES):
                if has_unread and not is_beside:
                    raise Conflict(self.key, base)
                try:
                    head = self._commit_entries(entries, bodies, base)
                except Conflict as conflict:
                    base, quiet = self._rebase(base, conflict, entries)
                    if not (quiet or is_beside):
                        raise
                    has_unread = has_unread or not quiet
                else:
                    self._local_state.remember(head.stored, has_unread=has_unread)
                    if not is_beside:  # they may have gone past what was not returned
                        self.note_returned(head.stored)
                    return AppendResult(head.stored, head.state, bodies)
            raise Conflict(self.key, base)

    def append_once(
        self, entries: Sequence[Entry[MessageAdded]], *, key: str | None, expected: str | None = None
    ) -> ConversationHead:
        """Store messages as `append` does, unless they are among the newest entries already.

        Args:
            entries: The messages.
            key: The caller's name for them; entries that were stored with it are the same ones. None: without one, only
                replies are recognized, by the id that the API gave them.
            expected: As in `append`, if they have to be stored.

        Returns:
            The head of the append that stored them, now or before; the state is the present one.

        Raises:
            InvalidInput: The key stands for other messages, or a stored reply is among messages that are not.
            Conflict: As `append` does.
        """
        with self._local_state.lock:
            try:
                recent = self._load_recent()
            except CorruptRecord:
                if key is not None:
                    raise
                return self.append(entries, expected=expected)  # as well as nothing could be told of others
            if (found := self._find_stored(entries, key, recent, self.last_head)) is not None:
                return found
            try:
                return self.append(entries, expected=expected)
            except Conflict as conflict:  # another process may have stored the same meanwhile
                head, newest = self._read_recent(-NEWEST, None, counts=False)
                found = self._find_stored(entries, key, newest, head)
                if found is None:
                    raise conflict from conflict.__cause__
                return found

    def _load_recent(self) -> RecentEntries:
        """Return what the newest entries hold of the state that this process has seen last; one read if unknown."""
        if not self._local_state.is_known:
            self._local_state.recent = self._read_recent(-NEWEST, None, counts=True)[1]
        head, known = self.last_head, self._local_state.recent
        if head and (known is None or known.version != _version_of(head)):
            _, known = self._read_recent(max(head.start, head.end - NEWEST), head.end, counts=False)
            known.version = _version_of(head)  # if others wrote since, the append will be refused
            self._local_state.recent = known
        return known if head and known else RecentEntries(ABSENT)

    def _read_recent(self, start: int, stop: int | None, *, counts: bool) -> tuple[Head | None, RecentEntries]:
        """Read what entries hold, part by part; those that are damaged are left out."""
        head, made = None, RecentEntries(ABSENT)
        for part in self.read_in_parts(start, stop, counts=counts):
            head = head or part.head
            for record in part.records:
                with suppress(CorruptRecord):
                    made.add(decode(record, self.key), record.position)
        made.version = _version_of(head)
        return head, made

    def _find_stored(
        self, entries: Sequence[Entry[MessageAdded]], key: str | None, recent: RecentEntries, head: Head | None
    ) -> ConversationHead | None:
        """Return the head of the append that stored the same messages; None: they are not among the newest entries."""
        if head is None:
            return None
        if key is not None and (batch := recent.find_by_key(key, head.end)):
            start = batch.last + 1 - len(entries)  # it may begin before the newest entries
            found = self._find_same_messages(head, start, batch.last + 1, entries) if batch.first >= start else None
            if found is None:
                raise InvalidInput("key: was given with other messages before; one key stands for one append")
            return found
        for index, entry in enumerate(entries):
            id = entry.event.response.id
            place = recent.find_by_response(id, head.end) if id else None
            if (
                place is None
                or not self._is_on_path(head, place)
                or not self._find_same_messages(head, place, place + 1, [entry])
            ):
                continue
            found = self._find_same_messages(head, place - index, place - index + len(entries), entries)
            if found is None:
                raise InvalidInput(f"messages[{index}].id: this reply is stored at position {place} already")
            return found
        return None

    def _find_same_messages(
        self, head: Head, start: int, stop: int, entries: Sequence[Entry]
    ) -> ConversationHead | None:
        """Return the head of the append that stored [start, stop), if these are the messages there; else None."""
        fetched = self.fetch_records(max(start, 0), stop)
        stored = [decode(record, self.key) for record in fetched[1]] if fetched else []
        if [entry.message for entry in stored] != [entry.message for entry in entries]:
            return None
        found = Head(self.key, head.start, stop, replace(head.revision, version=stored[-1].id))
        if self.version is None:  # else the user has seen as much, or more
            self.note_returned(found)
        return ConversationHead(found, self.with_state(head).state)

    def _is_on_path(self, head: Head, position: int) -> bool:
        """Whether the view goes through a position: what was taken back may be stored once more."""
        path = self.with_state(head).state.view.path_position
        if path is None or position > path:
            return True
        event = self.read_entries(path, path + 1)[0].event
        if not isinstance(event, Rewind | Snapshot | Repair):
            raise CorruptRecord(self.key, path, "it does not say which part of the log is active")
        return any(start <= position < stop for start, stop in event.path)

    def _find_expected_head(self, version: str) -> Head | None:
        """Return the head to append behind, if this version is still current; no round trip if it was seen last."""
        if self._local_state.is_known and _version_of(self.last_head) == version:
            self._local_state.has_unread = False
            return self.last_head
        head = self.confirm_version(version)
        return head.stored if head else None

    def forget(self, before: int) -> Head | None:
        """Remove the records below `before` for good; return the head; None: absent."""
        with self._local_state.lock:
            return self._local_state.remember(unless_expired(self.store.forget(self.key, before=before)))

    def remember(self, head: Head | None) -> Head | None:
        """Count `head` as seen: it was stored, or looked up, by other means than this log's."""
        with self._local_state.lock:
            return self._local_state.remember(head)

    def delete(self, *, version: str | None = None) -> bool:
        """Remove the conversation, whatever its state, and unless `version` is given whatever its version.

        Returns:
            Whether there was one.

        Raises:
            Conflict: It has another version; nothing was removed.
        """
        with self._local_state.lock:
            there = self.store.delete(self.key, version=version)
            self._local_state.remember(None)
            return there

    def _commit_entries(self, entries: Sequence[Entry], bodies: Sequence[str], base: Head | None) -> ConversationHead:
        local = self._local_state
        if base is None and local.head is not None:  # it has expired: a new conversation can begin in its place
            self.store.delete(self.key, version=local.head.revision.version)
            local.remember(None)
        start = base.end if base else 0
        state = apply_all(self.with_state(base).state if base else None, entries, start)
        revision = self.make_revision(state, base, version=entries[-1].id, is_active=any(map(is_activity, entries)))
        head = commit(self.store, self.key, bodies, after=base, revision=revision)
        recent = RecentEntries(ABSENT) if base is None else local.recent
        if recent and recent.version == _version_of(base):
            recent.extend(revision.version, entries, head.end - len(entries))
            local.recent = recent
        return self.with_state(head, state)

    def make_revision(
        self, state: ConversationState, base: Head | None, *, version: str, is_active: bool = True
    ) -> Revision:
        """Return the revision of an append; its version is the id of its last entry, so that the two can be compared.

        Args:
            state: After the append.
            base: The head before it; None: of a new conversation.
            version: The id of the last entry.
            is_active: Whether somebody said something. Else the order of the listing and the time to live stay as they
                are. Neither ever goes back, whatever this machine's clock says.
        """
        if base is not None and not is_active:
            return Revision(version, base.revision.updated, base.revision.expires, state.encode())
        ttl, expires = self.store.ttl, None
        if ttl is not None:  # not shorter than the time to live that was promised
            promised = (base.revision.expires if base else None) or 0
            expires = max(0, promised, min(latest_now() + int(ttl * MICROSECONDS), LARGEST_NUMBER))
        updated = max(base.revision.updated, now()) if base else now()
        return Revision(version, updated, expires, state.encode())

    def _rebase(self, base: Head | None, conflict: Conflict, batch: Sequence[Entry]) -> tuple[Head | None, bool]:
        """Return the head to try next, and whether what others wrote commutes; raise the conflict if it is final."""
        present = conflict.head
        if present is None:
            raise conflict
        if base is None and unless_expired(present) is None:
            self._local_state.remember(present)  # it had expired before we looked: `_commit` buries it
            return None, True
        if base is None:
            return present, False
        last = base.end - 1
        if not _is_same_conversation(base, present) or present.end <= base.end or not present.start <= last:
            raise conflict  # made again, or records were lost or removed: what was seen is not what is there
        parts = read_in_parts(self.store, self.key, last, present.end)
        seen, *since = [entry for part in parts for entry in self.decode_part(part)]
        if seen.id != base.revision.version:
            raise conflict  # a failover lost what was seen, and others wrote something else in its place
        return present, _can_rebase(batch, since)


def _version_of(head: Head | None) -> str:
    return head.revision.version if head else ABSENT


def _is_same_conversation(one: Head, other: Head) -> bool:
    """Whether two heads are of one conversation, and not of one that was deleted and another made in its place."""
    if one.revision.version == other.revision.version:
        return True
    return read_state(one).identity.creation_id == read_state(other).identity.creation_id


def _are_side_entries(entries: Sequence[Entry]) -> bool:
    """Whether entries stand beside the conversation, so that they may follow what their writer has not read."""
    return all(isinstance(entry.event, _SIDE_EVENTS) for entry in entries)


_SIDE_EVENTS = (Annotation, LeaseRenewed, TurnAbandoned, ReplyInterrupted, ReplyOrphaned)


def _can_rebase(batch: Sequence[Entry], since: Sequence[Entry]) -> bool:
    """Whether a batch means the same before and behind what others wrote since.

    A renewal says that a turn is alive. Whoever would take that turn away, or change what it was sent with, has to look
    again; messages beside it, and the next step of the turn itself, need not.
    """
    for other in since:
        if isinstance(other.event, Annotation):
            continue
        if not (isinstance(other.event, LeaseRenewed) and all(_can_follow_renewal(entry, other) for entry in batch)):
            return False
    return True


def _can_follow_renewal(entry: Entry, renewed: Entry) -> bool:
    """Whether an entry may follow a renewal: it is no step of a turn, or one of the turn that was renewed."""
    event = entry.event
    if isinstance(event, MessageAdded) and event.lease_until is not None:
        return entry.turn == renewed.turn and event.opened_by is None
    return isinstance(event, (MessageAdded, *_SIDE_EVENTS))
