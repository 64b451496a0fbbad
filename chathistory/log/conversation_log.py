"""The log of one conversation: how the core appends to it and reads it, the same for every store.

Within a process, all users of a conversation share one `LocalState`: a lock, and the head that this process knows.
Threads queue at the lock, so they do not conflict with each other, nor with a cancelled call that is still writing.

An append is conditional on the known head. If another process wrote in between, the append is retried on the new head
where that is safe, and raises `Conflict` where it is not. It is safe for

- *side entries*: annotations, renewals of a lease, an abandoned turn, and replies that are stored but never sent. They
  do not change the messages that are sent, so they may follow entries that their writer has not read;
- other entries, if the entries written in between only annotate the conversation, or renew the lease of a turn that
  this append does not take from its owner.

An expired conversation does not exist for any method.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace

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
from chathistory.log.local_state import get_local_state
from chathistory.log.recent_entries import LOOKBACK_ENTRIES, RecentEntries
from chathistory.log.state import AppendResult, ConversationHead, ConversationState, read_state
from chathistory.storage.store import HistoryStore
from chathistory.storage.values import LARGEST_NUMBER, Head, Key, ReadResult, Record, Revision

__all__ = ["ABSENT", "ConversationLog", "unless_expired"]

ABSENT = ""
"""The version of a conversation that does not exist."""

MAX_REBASES = 20
_SIDE_ENTRY_BATCH = 16  # records that are read at once to check whether only side entries were written


def unless_expired(head: Head | None) -> Head | None:
    """Return a head, or None if its time to live is over.

    A conversation that is taken for expired can be deleted. So the earliest time that it can be decides: a clock that
    jumped ahead lets nothing expire.

    Args:
        head: The head; None: the conversation does not exist.
    """
    if head is None or (head.revision.expires is not None and head.revision.expires <= earliest_now()):
        return None
    return head


class ConversationLog:
    """The log of one conversation, for one user of it. All methods can be called from several threads.

    Args:
        store: The store that has the conversation.
        key: The conversation.

    Attributes:
        version: The version of the last state that this object returned to its user; `ABSENT`: the conversation did not
            exist; None: no state was returned yet.
    """

    def __init__(self, store: HistoryStore, key: Key) -> None:
        self.store = store
        self.key = key
        self.version: str | None = None
        self._local_state = get_local_state(store, key)

    @property
    def lock(self) -> threading.RLock:
        """The lock of the conversation in this process. Hold it to keep other threads out between several calls."""
        return self._local_state.lock

    def with_state(self, head: Head, state: ConversationState | None = None) -> ConversationHead:
        """Return a head of this conversation together with its state.

        Args:
            head: The head.
            state: Its state, if the caller made it. None: read the state from the head's payload, unless that is the
                payload that was read last.

        Raises:
            CorruptRecord: The payload is not a valid state.
            UnsupportedRecord: The payload has another format.
        """
        last = self._local_state.last_read
        if state is None:
            is_same = last and last.stored.end == head.end and last.stored.revision.payload == head.revision.payload
            state = last.state if last and is_same else read_state(head)
        self._local_state.last_read = with_state = ConversationHead(head, state)
        return with_state

    def known_head(self) -> ConversationHead | None:
        """Return the head that this process knows, looked up by the first call; None: there is no conversation."""
        head = self._find_known_head()
        return self.with_state(head) if head else None

    def _find_known_head(self) -> Head | None:
        with self._local_state.lock:
            if self._local_state.is_known:
                return unless_expired(self._local_state.head)
            return self.note_returned(self._local_state.remember(self.fetch_head()))

    @property
    def last_head(self) -> Head | None:
        """The head that this process knows, without a round trip; None: it did not exist, or was not looked up yet."""
        return unless_expired(self._local_state.head)

    def refresh(self) -> ConversationHead | None:
        """Look up the present head in one round trip, and make it the known head; None: it does not exist."""
        with self._local_state.lock:
            head = self.note_returned(self._local_state.remember(self.fetch_head()))
            return self.with_state(head) if head else None

    def note_returned(self, head: Head | None) -> Head | None:
        """Note that the state of a head was returned to the user of this object.

        Args:
            head: The head; None: the user learned that the conversation does not exist.

        Returns:
            The same head.
        """
        self.version = _version_of(head)
        return head

    def confirm_version(self, version: str | None) -> ConversationHead | None:
        """Return the present head if the conversation has not changed since an earlier state.

        Side entries that were written since do not count as a change. One round trip, and another one if anything was
        written after that state.

        Args:
            version: The version of the earlier state; `ABSENT`: the conversation did not exist. None: the last state
                that this object returned; if it returned none, the present state.

        Returns:
            The present head; None: the conversation does not exist.

        Raises:
            Conflict: Another writer changed the conversation after that state.
            InvalidInput: The version is not a string.
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
        """Look up the present head in one round trip, without making it the known head; None: it does not exist."""
        part = self.store.read(self.key, start=0, stop=0)
        return unless_expired(part.head if part else None)

    def _has_only_side_entries_since(self, version: str, head: Head | None) -> bool:
        """Whether only side entries follow the append that made a version, which is the id of its last entry."""
        stop = head.end if head else 0
        while head and stop > head.start:
            start = max(head.start, stop - _SIDE_ENTRY_BATCH)
            found = self.fetch_records(start, stop)
            for record in reversed(found[1] if found else []):
                entry = decode(record, self.key)
                if entry.id == version or not _are_side_entries([entry]):
                    return entry.id == version
            stop = start
        return head is not None and head.start == 0 and version == ABSENT

    def read_in_parts(
        self, start: int = 0, stop: int | None = None, *, makes_known: bool = True
    ) -> Iterator[ReadResult]:
        """Yield the records of a range in the parts in which the store returns them.

        All parts belong to the state at the first one; what is appended meanwhile is left out.

        Args:
            start: The first position; a negative number counts from the end.
            stop: One above the last position; None: the end.
            makes_known: Whether the head of the first part becomes the known head, if the range goes to the end.

        Yields:
            The parts; none if the conversation does not exist.

        Raises:
            Conflict: A part of the range was forgotten, or the conversation was deleted, while it was read.
        """
        with self._local_state.lock:
            parts = read_in_parts(self.store, self.key, start, stop)
            first = next(parts, None)
            head = unless_expired(first.head if first else None)
            if stop is None and makes_known:
                self.note_returned(self._local_state.remember(head))
        if first is None or head is None:
            return
        yield first
        for part in parts:
            if not _is_same_conversation(part.head, head):
                raise Conflict(self.key, part.head)  # it was deleted and created again
            yield part

    def load(self, start: int = 0, stop: int | None = None) -> tuple[ConversationHead, list[Entry]] | None:
        """Return the head and the entries of a range, as they were at one moment.

        Args:
            start: The first position; a negative number counts from the end.
            stop: One above the last position; None: the end. Then the head becomes the known head.

        Returns:
            The head and the entries; None if the conversation does not exist.

        Raises:
            CorruptRecord: A record of the range, or the head, is damaged.
            Conflict: A part of the range was forgotten, or the conversation was deleted, while it was read.
        """
        found = self.fetch_records(start, stop)
        if found is None:
            return None
        head, entries = found[0], [decode(record, self.key) for record in found[1]]
        if stop is None and len(entries) >= min(LOOKBACK_ENTRIES, head.end - head.start):
            self._local_state.recent = RecentEntries(ABSENT)
            self._local_state.recent.extend(
                _version_of(head), entries[-LOOKBACK_ENTRIES:], head.end - min(len(entries), LOOKBACK_ENTRIES)
            )
        return self.with_state(head), entries

    def fetch_records(self, start: int = 0, stop: int | None = None) -> tuple[Head, list[Record]] | None:
        """Return the same as `load`, with records that are not decoded.

        Args:
            start: As in `load`.
            stop: As in `load`.
        """
        parts = list(self.read_in_parts(start, stop))
        return (parts[0].head, [record for part in parts for record in part.records]) if parts else None

    def read_entries(self, start: int, stop: int) -> list[Entry]:
        """Return the entries of a range below the end of the known head, which stays the known head.

        Args:
            start: The first position.
            stop: One above the last position.

        Raises:
            CorruptRecord: A record of the range is damaged.
            Conflict: A part of the range no longer exists, or the conversation was created again.
        """
        return [decode(record, self.key) for record in self.fetch_all_records(start, stop)]

    def fetch_all_records(self, start: int, stop: int) -> list[Record]:
        """Return the records of a range, as `read_entries` returns their entries.

        Args:
            start: The first position.
            stop: One above the last position.

        Raises:
            Conflict: A part of the range no longer exists, or the conversation was created again.
        """
        known = self.last_head
        head, found = self.fetch_records(start, stop) or (None, [])
        if len(found) != stop - start or (head and known and not _is_same_conversation(head, known)):
            raise Conflict(self.key, head)
        return found

    def decode_part(self, part: ReadResult) -> list[Entry]:
        """Return the entries of a part that the store returned.

        Args:
            part: The part.

        Raises:
            CorruptRecord: A record is damaged.
        """
        return [decode(record, self.key) for record in part.records]

    def append(self, entries: Sequence[Entry], *, expected: str | None = None) -> AppendResult:
        """Store entries as one batch after the known head.

        Args:
            entries: The entries.
            expected: The version that the conversation must have, instead of the version of the known head; see
                `confirm_version`.

        Returns:
            The new head, with the lines that were stored.

        Raises:
            Conflict: Another process wrote entries that these may not follow.
            ChatHistoryError: As `commit` raises it.
        """
        bodies = [encode(entry) for entry in entries]
        with self._local_state.lock:
            base = self._find_known_head() if expected is None else self._find_expected_head(expected)
            has_unread, is_side_batch = self._local_state.has_unread, _are_side_entries(entries)
            for _ in range(MAX_REBASES):
                if has_unread and not is_side_batch:
                    raise Conflict(self.key, base)
                try:
                    head = self._commit_entries(entries, bodies, base)
                except Conflict as conflict:
                    base, is_safe = self._rebase(base, conflict, entries)
                    if not (is_safe or is_side_batch):
                        raise
                    has_unread = has_unread or not is_safe
                else:
                    self._local_state.remember(head.stored, has_unread=has_unread)
                    if not is_side_batch:  # side entries may follow entries that were not returned
                        self.note_returned(head.stored)
                    return AppendResult(head.stored, head.state, bodies)
            raise Conflict(self.key, base)

    def append_once(
        self, entries: Sequence[Entry[MessageAdded]], *, key: str | None, expected: str | None = None
    ) -> ConversationHead:
        """Store messages as `append` does, unless they are among the newest entries already.

        Args:
            entries: The messages.
            key: The caller's idempotency key; messages that were stored with it are the same ones. None: only replies
                are recognized, by the id that the API gave them.
            expected: As in `append`.

        Returns:
            The head of the append that stored them, now or before, with the present state.

        Raises:
            InvalidInput: The key was used for other messages, or some of the messages are stored and others are not.
            Conflict: As `append` raises it.
        """
        with self._local_state.lock:
            try:
                recent = self._load_recent()
            except CorruptRecord:
                if key is not None:
                    raise
                return self.append(entries, expected=expected)  # a reply that is stored already cannot be recognized
            if (found := self._find_stored(entries, key, recent, self.last_head)) is not None:
                return found
            try:
                return self.append(entries, expected=expected)
            except Conflict as conflict:  # another process may have stored the same messages meanwhile
                head, newest = self._read_recent(-LOOKBACK_ENTRIES, None, makes_known=False)
                found = self._find_stored(entries, key, newest, head)
                if found is None:
                    raise conflict from conflict.__cause__
                return found

    def _load_recent(self) -> RecentEntries:
        """Return the keys and response ids of the newest entries below the known head; one read if they are unknown."""
        if not self._local_state.is_known:
            self._local_state.recent = self._read_recent(-LOOKBACK_ENTRIES, None, makes_known=True)[1]
        head, known = self.last_head, self._local_state.recent
        if head and (known is None or known.version != _version_of(head)):
            _, known = self._read_recent(max(head.start, head.end - LOOKBACK_ENTRIES), head.end, makes_known=False)
            known.version = _version_of(head)  # if others wrote meanwhile, the store refuses the append
            self._local_state.recent = known
        return known if head and known else RecentEntries(ABSENT)

    def _read_recent(self, start: int, stop: int | None, *, makes_known: bool) -> tuple[Head | None, RecentEntries]:
        """Read the keys and response ids of a range, part by part; damaged records are left out."""
        head, recent = None, RecentEntries(ABSENT)
        for part in self.read_in_parts(start, stop, makes_known=makes_known):
            head = head or part.head
            for record in part.records:
                with suppress(CorruptRecord):
                    recent.add(decode(record, self.key), record.position)
        recent.version = _version_of(head)
        return head, recent

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
                raise InvalidInput("key: was used for other messages before; use one key for one append")
            return found
        for index, entry in enumerate(entries):
            id = entry.event.response.id
            position = recent.find_by_response(id, head.end) if id else None
            if position is None or not self._is_on_path(head, position):
                continue
            if not self._find_same_messages(head, position, position + 1, [entry]):
                continue
            start = position - index
            found = self._find_same_messages(head, start, start + len(entries), entries)
            if found is None:
                raise InvalidInput(
                    f"messages[{index}].id: this reply is stored at position {position} already; append only the "
                    "messages after it"
                )
            return found
        return None

    def _find_same_messages(
        self, head: Head, start: int, stop: int, entries: Sequence[Entry]
    ) -> ConversationHead | None:
        """Return the head of the append that stored a range, if the range holds the same messages; else None."""
        fetched = self.fetch_records(max(start, 0), stop)
        stored = [decode(record, self.key) for record in fetched[1]] if fetched else []
        if [entry.message for entry in stored] != [entry.message for entry in entries]:
            return None
        found = Head(self.key, head.start, stop, replace(head.revision, version=stored[-1].id))
        if self.version is None:  # otherwise a state at least as new was returned
            self.note_returned(found)
        return ConversationHead(found, self.with_state(head).state)

    def _is_on_path(self, head: Head, position: int) -> bool:
        """Whether a position is on the active path: messages that a rewind took back can be stored again."""
        path = self.with_state(head).state.view.path_position
        if path is None or position > path:
            return True
        event = self.read_entries(path, path + 1)[0].event
        if not isinstance(event, Rewind | Snapshot | Repair):
            raise CorruptRecord(self.key, path, "it does not hold the active path")
        return any(start <= position < stop for start, stop in event.path)

    def _find_expected_head(self, version: str) -> Head | None:
        """Return the head to append after if a version is still current; no round trip if the known head has it."""
        if self._local_state.is_known and _version_of(self.last_head) == version:
            self._local_state.has_unread = False
            return self.last_head
        head = self.confirm_version(version)
        return head.stored if head else None

    def forget(self, before: int) -> Head | None:
        """Remove the records below a position permanently.

        Args:
            before: The position.

        Returns:
            The head after that; None: the conversation does not exist.
        """
        with self._local_state.lock:
            return self._local_state.remember(unless_expired(self.store.forget(self.key, before=before)))

    def remember(self, head: Head | None) -> Head | None:
        """Make a head the known head, after it was stored or looked up without this log.

        Args:
            head: The head; None: the conversation does not exist.

        Returns:
            The same head.
        """
        with self._local_state.lock:
            return self._local_state.remember(head)

    def delete(self, *, version: str | None = None) -> bool:
        """Remove the conversation, also if it is damaged.

        Args:
            version: The version that it must have; None: any version.

        Returns:
            True if it existed.

        Raises:
            Conflict: It has another version; nothing was removed.
        """
        with self._local_state.lock:
            existed = self.store.delete(self.key, version=version)
            self._local_state.remember(None)
            return existed

    def _commit_entries(self, entries: Sequence[Entry], bodies: Sequence[str], base: Head | None) -> ConversationHead:
        local = self._local_state
        if base is None and local.head is not None:  # it has expired: a new conversation begins in its place
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
        """Return the revision to store with an append.

        Its version is the id of the last entry. So the entries show which append made a version.

        Args:
            state: The state after the append.
            base: The head before it; None: it creates the conversation.
            version: The id of the last entry.
            is_active: Whether the append has messages or belongs to a turn. If not, the order in listings and the time
                to live do not change. They never go back, whatever this machine's clock says.
        """
        if base is not None and not is_active:
            return Revision(version, base.revision.updated, base.revision.expires, state.encode())
        ttl, expires = self.store.ttl, None
        if ttl is not None:  # never shorter than an earlier append promised
            promised = (base.revision.expires if base else None) or 0
            expires = max(0, promised, min(latest_now() + int(ttl * MICROSECONDS), LARGEST_NUMBER))
        updated = max(base.revision.updated, now()) if base else now()
        return Revision(version, updated, expires, state.encode())

    def _rebase(self, base: Head | None, conflict: Conflict, batch: Sequence[Entry]) -> tuple[Head | None, bool]:
        """Return the head to append after next, and whether the batch may follow what others wrote.

        Raises the conflict if no retry can succeed.
        """
        present = conflict.head
        if present is None:
            raise conflict
        if base is None and unless_expired(present) is None:
            self._local_state.remember(present)  # it had expired before: `_commit_entries` deletes it
            return None, True
        if base is None:
            return present, False
        last = base.end - 1
        if not _is_same_conversation(base, present) or present.end <= base.end or not present.start <= last:
            raise conflict  # it was created again, or records were lost or forgotten
        parts = read_in_parts(self.store, self.key, last, present.end)
        known, *since = [entry for part in parts for entry in self.decode_part(part)]
        if known.id != base.revision.version:
            raise conflict  # a failover lost entries that were read here, and others were written in their place
        return present, _can_rebase(batch, since)


def _version_of(head: Head | None) -> str:
    return head.revision.version if head else ABSENT


def _is_same_conversation(one: Head, other: Head) -> bool:
    """Whether two heads belong to the same conversation, which was not deleted and created again in between."""
    if one.revision.version == other.revision.version:
        return True
    return read_state(one).identity.creation_id == read_state(other).identity.creation_id


def _are_side_entries(entries: Sequence[Entry]) -> bool:
    """Whether all entries are side entries, which may follow entries that their writer has not read."""
    return all(isinstance(entry.event, _SIDE_EVENTS) for entry in entries)


_SIDE_EVENTS = (Annotation, LeaseRenewed, TurnAbandoned, ReplyInterrupted, ReplyOrphaned)


def _can_rebase(batch: Sequence[Entry], since: Sequence[Entry]) -> bool:
    """Whether a batch may follow entries that others wrote since its writer read the conversation.

    It may follow annotations. It may follow the renewal of a lease unless it takes that turn from its owner, or changes
    what the turn was sent with: then its writer must read the conversation again.
    """
    for other in since:
        if isinstance(other.event, Annotation):
            continue
        if not (isinstance(other.event, LeaseRenewed) and all(_can_follow_renewal(entry, other) for entry in batch)):
            return False
    return True


def _can_follow_renewal(entry: Entry, renewed: Entry) -> bool:
    """Whether an entry may follow the renewal of a lease: it belongs to no turn, or continues the renewed one."""
    event = entry.event
    if isinstance(event, MessageAdded) and event.lease_until is not None:
        return entry.turn == renewed.turn and event.opened_by is None
    return isinstance(event, (MessageAdded, *_SIDE_EVENTS))
