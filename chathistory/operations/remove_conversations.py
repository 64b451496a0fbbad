"""Removes conversations: a single one, a whole scope, or those that are too old or too many.

A damaged conversation does not stop the others from being removed. `prune` keeps it and names it; `erase` removes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, TypeAlias

from chathistory.checks import check_count, check_text
from chathistory.errors import Conflict, CorruptRecord, StoreRejected, UnsupportedRecord
from chathistory.log.clock import earliest_now, now, to_datetime
from chathistory.log.conversation_log import ConversationLog, unless_expired
from chathistory.log.state import read_state
from chathistory.storage.store import HistoryStore
from chathistory.storage.values import Damaged, Head, Key, Leftovers

__all__ = [
    "DeletedConversation",
    "EraseReport",
    "PruneLimits",
    "PruneReport",
    "delete_conversation",
    "erase_scope",
    "prune_scope",
]

RemovalReason: TypeAlias = Literal["age", "count", "ttl", "expired"]
"""Why `History.prune` removes a conversation.

- `age`: it was created too long ago.
- `count`: there are enough with newer activity.
- `ttl`: it had no activity for too long.
- `expired`: its time to live has ended, or it is a copy that was interrupted.
"""

_PAGE = 500
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class DeletedConversation:
    """A conversation that was deleted or, in a dry run, would be.

    Attributes:
        id: Its id.
        scope: Its scope.
        messages: How many messages it had; None if it was damaged or written by a later version of chathistory.
        records: How many records of all kinds it had; None as for `messages`.
        updated: When it had its newest activity (UTC); None as for `messages`.
        reason: Why `History.prune` removed it; interrupted copies are "expired". None if it was deleted by its id or
            its scope.
    """

    id: str
    scope: str
    messages: int | None = None
    records: int | None = None
    updated: datetime | None = None
    reason: RemovalReason | None = None


def delete_conversation(
    log: ConversationLog, expected: str | None = None, *, dry_run: bool = False
) -> DeletedConversation | None:
    """Remove a conversation, damaged or not, and return what was removed.

    Args:
        log: The log of the conversation.
        expected: The version that the caller has seen; None: remove it whatever its version is.
        dry_run: Remove nothing; only return what would be removed.

    Returns:
        The conversation; None if it did not exist. What is left of an expired one is removed, too, but not returned.

    Raises:
        Conflict: The conversation has another version than `expected`; nothing was removed.
    """
    if expected is not None:
        check_text("expected", expected)
    with log.lock:
        stored = _look_up_conversation(log)
        if dry_run:
            head = stored.head if stored else None
            if stored and expected is not None and (head is None or head.revision.version != expected):
                raise Conflict(log.key, head)
        elif not log.delete(version=expected):
            return None
        return stored.report if stored and (stored.head is None or unless_expired(stored.head)) else None


@dataclass(frozen=True, slots=True)
class _StoredConversation:
    """A conversation that will be removed, and how it is reported; `head` is None if it is damaged."""

    head: Head | None
    report: DeletedConversation


def _look_up_conversation(log: ConversationLog) -> _StoredConversation | None:
    """Return what is stored under a key; None if nothing is."""
    key, head = log.key, None
    try:
        part = log.store.read(key, start=0, stop=0)
        if part is None:
            return None
        head = part.head
        messages, records = read_state(head).totals.messages, head.end - head.start
    except (CorruptRecord, UnsupportedRecord):
        return _StoredConversation(head, DeletedConversation(key.id, key.scope))
    updated = to_datetime(head.revision.updated)
    return _StoredConversation(head, DeletedConversation(key.id, key.scope, messages, records, updated))


@dataclass(frozen=True, slots=True)
class EraseReport:
    """What the erasure of a scope did or, in a dry run, would do.

    Attributes:
        scope: The scope that was erased.
        at: When the erasure ended (UTC).
        dry_run: True if nothing was removed, so that `removed` is what would be.
        removed: The conversations that were removed, expired and damaged ones included.
        left: What is still there: ids of conversations that others created meanwhile or that could not be removed, and
            places in the storage of data that belongs to no conversation.
        leftovers: How many pieces of data were removed that belonged to no readable conversation.
        complete: True if the whole storage was scanned after everything was removed, and nothing of the scope is left.
            In a dry run: True if the whole storage was scanned.
        not_reached: Where the server itself may keep copies of removed text, such as "backups".
    """

    scope: str
    at: datetime
    dry_run: bool
    removed: tuple[DeletedConversation, ...]
    left: tuple[str, ...] = ()
    leftovers: int = 0
    complete: bool = True
    not_reached: tuple[str, ...] = ()

    @property
    def messages(self) -> int:
        """The number of messages that were removed, not counting those of damaged conversations."""
        return sum(deleted.messages or 0 for deleted in self.removed)

    @property
    def records(self) -> int:
        """The number of records of all kinds that were removed, not counting those of damaged conversations."""
        return sum(deleted.records or 0 for deleted in self.removed)


def erase_scope(
    store: HistoryStore, scope: str, progress: Callable[[DeletedConversation], object] | None, *, dry_run: bool = False
) -> EraseReport:
    """Remove everything that is stored in a scope.

    The storage is scanned again until a scan finds no conversation that was not handled before.

    Args:
        store: The store.
        scope: The scope to erase.
        progress: Called with each conversation that was removed; None: not called.
        dry_run: Remove nothing; only report what would be removed.

    Raises:
        StoreRejected: The account may neither scan the storage nor read the index.
    """
    removed: list[DeletedConversation] = []
    failed: set[str] = set()
    seen: set[str] = set()
    is_scanned = True
    while True:
        try:
            new = [key for key in (store.scan_keys if is_scanned else store.keys)(scope) if key.id not in seen]
        except StoreRejected:
            if not is_scanned:
                raise
            is_scanned = False  # the account may not scan the storage: erase at least what the index lists
            continue
        if not new:
            break
        seen.update(key.id for key in new)
        for deleted in _erase_each(store, new, failed, dry_run=dry_run):
            removed.append(deleted)
            if progress:
                progress(deleted)
    leftovers = Leftovers(complete=dry_run)
    if not dry_run:
        with suppress(StoreRejected):
            leftovers = store.remove_leftovers(scope)
    left = tuple(sorted({*leftovers.left, *failed}))
    return EraseReport(
        scope,
        to_datetime(now()),
        dry_run,
        tuple(removed),
        left,
        leftovers.removed,
        complete=is_scanned and leftovers.complete and not left,
        not_reached=store.traits.not_reached,
    )


def _erase_each(
    store: HistoryStore, keys: Iterable[Key], failed: set[str], *, dry_run: bool
) -> Iterator[DeletedConversation]:
    """Remove conversations and yield each; the ids of those that cannot be removed are added to `failed`."""
    for key in keys:
        log = ConversationLog(store, key)
        try:
            with log.lock:
                stored = _look_up_conversation(log)
                is_removed = dry_run or log.delete()
        except (CorruptRecord, UnsupportedRecord, StoreRejected):
            failed.add(key.id)
            continue
        if stored and is_removed:
            yield stored.report


@dataclass(frozen=True, slots=True)
class PruneLimits:
    """Which conversations of a scope are kept; a limit that is None removes nothing.

    Attributes:
        age: How long ago a conversation may have been created.
        ttl: How long it may be without activity.
        count: How many are kept, those with the newest activity; at least 0.
    """

    age: timedelta | None = None
    ttl: timedelta | None = None
    count: int | None = None

    def __post_init__(self) -> None:
        if self.count is not None:
            check_count("count", self.count)

    def find_reason(self, candidate: _Candidate, rank: int, time: int) -> RemovalReason | None:
        """Return why a conversation is removed; None if it is kept.

        Args:
            candidate: What is known of the conversation.
            rank: How many conversations with newer activity are kept.
            time: The present time (microseconds since 1970 UTC).
        """
        if candidate.is_expired:
            return "expired"
        if self.ttl is not None and candidate.updated < time - self.ttl // _MICROSECOND:
            return "ttl"
        if self.count is not None and rank >= self.count:
            return "count"
        if self.age is not None and candidate.created < time - self.age // _MICROSECOND:
            return "age"
        return None


@dataclass(frozen=True, slots=True)
class PruneReport:
    """What `History.prune` did or, in a dry run, would do.

    Attributes:
        scope: The scope that was pruned.
        dry_run: True if nothing was removed, so that `removed` is what would be.
        kept: How many conversations are kept, `spared` included. Those that were found damaged before the first removal
            are not counted.
        removed: Those that were removed, or would be, the newest activity first.
        spared: Ids of those that were changed, or found damaged, between the listing and their removal. They are kept.
        damaged: Conversations that cannot be read, at first or when they were to be removed. They are kept: `repair` or
            `restore` may help, and `delete` removes them.
        complete: True if all conversations of the scope were certainly found. False if they came from an index that
            can lose entries on this server, or that may itself be damaged; `full_scan=True` finds all.
    """

    scope: str
    dry_run: bool
    kept: int
    removed: tuple[DeletedConversation, ...]
    spared: tuple[str, ...] = ()
    damaged: tuple[Damaged, ...] = ()
    complete: bool = True


@dataclass(frozen=True, slots=True, order=True)
class _Candidate:
    """What the decision about a conversation needs. The order of the fields is the order of a listing."""

    updated: int
    id: str
    version: str
    created: int
    messages: int
    records: int
    is_expired: bool


def prune_scope(
    store: HistoryStore,
    scope: str,
    limits: PruneLimits,
    *,
    dry_run: bool,
    full_scan: bool,
    progress: Callable[[DeletedConversation], object] | None,
) -> PruneReport:
    """Remove conversations that exceed the limits, and what has expired; what is written meanwhile is kept.

    Args:
        store: The store.
        scope: The scope to prune.
        limits: Which conversations are kept.
        dry_run: Remove nothing; only report what would be removed.
        full_scan: Find the conversations by a scan of the whole storage instead of the listing.
        progress: Called with each conversation that is removed; None: not called.

    Raises:
        StoreRejected: The account may not scan the storage (`full_scan`).
    """
    damaged: list[Damaged] = []
    removed: list[DeletedConversation] = []
    spared: list[str] = []
    to_remove: list[tuple[_Candidate, RemovalReason]] = []
    time, kept = earliest_now(), 0
    for candidate in _list_candidates(store, scope, damaged, full_scan=full_scan):
        if reason := limits.find_reason(candidate, kept, time):
            to_remove.append((candidate, reason))
        else:
            kept += 1
    for candidate, reason in to_remove:
        key = Key(scope, candidate.id)
        try:
            if not dry_run:
                ConversationLog(store, key).delete(version=candidate.version)
        except (Conflict, CorruptRecord, UnsupportedRecord) as error:  # it was changed, or damaged, meanwhile
            spared.append(candidate.id)
            damaged += [] if isinstance(error, Conflict) else [Damaged(key, key.id, error)]
            continue
        deleted = DeletedConversation(
            candidate.id, scope, candidate.messages, candidate.records, to_datetime(candidate.updated), reason
        )
        removed.append(deleted)
        if progress:
            progress(deleted)
    return PruneReport(
        scope,
        dry_run,
        kept + len(spared),
        tuple(removed),
        tuple(spared),
        tuple(damaged),
        complete=full_scan or (all(each.key for each in damaged) and store.is_index_complete()),
    )


def _list_candidates(
    store: HistoryStore, scope: str, damaged: list[Damaged], *, full_scan: bool
) -> Iterator[_Candidate]:
    """Yield each conversation once, the newest activity first; what cannot be read is added to `damaged`."""
    if full_scan:
        candidates: list[_Candidate] = []
        for key in store.scan_keys(scope):
            try:
                part = store.read(key, start=0, stop=0)
            except (CorruptRecord, UnsupportedRecord) as error:
                damaged.append(Damaged(key, key.id, error))
                continue
            candidates += _to_candidates(part.head, damaged) if part else ()
        damaged += store.damaged_keys(scope)
        yield from sorted(candidates, reverse=True)
        return
    after, seen = None, set[str]()
    while True:
        page = store.heads(scope, after=after, limit=_PAGE)
        damaged += [each for each in page.damaged if each not in damaged]
        for head in page.items:
            if head.key.id not in seen:
                seen.add(head.key.id)
                yield from _to_candidates(head, damaged)
        after = page.next
        if after is None:
            return


def _to_candidates(head: Head, damaged: list[Damaged]) -> Iterator[_Candidate]:
    """Yield the candidate of a head; if its state cannot be read, yield nothing and add it to `damaged`."""
    try:
        state = read_state(head)
    except (CorruptRecord, UnsupportedRecord) as error:
        damaged.append(Damaged(head.key, head.key.id, error))
        return
    revision = head.revision
    records = head.end - head.start
    is_expired = unless_expired(head) is None
    yield _Candidate(
        revision.updated,
        head.key.id,
        revision.version,
        state.identity.created,
        state.totals.messages,
        records,
        is_expired,
    )
