"""What is kept, and what goes: single conversations, whole scopes, and those that are too old or too many.

What a walk cannot read never ends it. `prune` keeps a damaged conversation and names it; `erase` removes it.
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
from chathistory.log.conversation_log import ConversationLog, alive
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
"""Why a conversation was removed by `History.prune`: too old, too many, not active, or expired."""

_PAGE = 500
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class DeletedConversation:
    """A conversation that was deleted or, in a dry run, would be.

    Attributes:
        id: Its id.
        scope: Its scope.
        messages: How many messages it had; None: it was damaged, or a later version wrote it, so nobody can tell.
        records: How many records of all kinds it had; None: as above.
        updated: Its newest activity (UTC); None: as above.
        reason: Why `History.prune` removed it; "expired" are also copies that were broken off. None: it was named, by
            its id or its scope.
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
    """Remove a conversation, damaged or not, and return what went; None: it was absent, or expired, and is gone too.

    Args:
        log: Of the conversation.
        expected: The version that the caller has seen; None: whatever is there goes.
        dry_run: Only return what would go.

    Raises:
        Conflict: The conversation has another version than `expected`; nothing was removed.
    """
    if expected is not None:
        check_text("expected", expected)
    with log.lock:
        found = _look_up_conversation(log)
        if dry_run:
            head = found.head if found else None
            if expected is not None and (head is None or head.revision.version != expected):
                raise Conflict(log.key, head)
        elif not log.delete(version=expected):
            return None
        return found.report if found and (found.head is None or alive(found.head)) else None


@dataclass(frozen=True, slots=True)
class _StoredConversation:
    """What a delete removes, and how it is reported; head None: it is damaged."""

    head: Head | None
    report: DeletedConversation


def _look_up_conversation(log: ConversationLog) -> _StoredConversation | None:
    """Return what is stored under a key; None: nothing."""
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
        at: When it ended (UTC).
        dry_run: Whether nothing was removed, and `removed` is what would be.
        removed: One line for each conversation that was removed, expired and damaged ones included.
        left: What is still there: ids of conversations that others have begun meanwhile or that could not be removed,
            and places in the storage of what belongs to no conversation.
        leftovers: How many pieces were removed that belonged to no conversation that can be read.
        complete: True only if a walk over the whole storage, made after all was removed, found nothing of the scope.
        not_reached: Where the server may keep removed text on its own account, such as "backups".
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
        """How many messages went, as far as can be told."""
        return sum(gone.messages or 0 for gone in self.removed)

    @property
    def records(self) -> int:
        """How many records of all kinds went, as far as can be told."""
        return sum(gone.records or 0 for gone in self.removed)


def erase_scope(
    store: HistoryStore, scope: str, progress: Callable[[DeletedConversation], object] | None, *, dry_run: bool = False
) -> EraseReport:
    """Remove all that is stored in a scope, and look again until nothing is there or somebody brings it back."""
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
            is_scanned = False  # the account may not walk over the storage: what the index names is better than nothing
            continue
        if not new:
            break
        seen.update(key.id for key in new)
        for gone in _erase_each(store, new, failed, dry_run=dry_run):
            removed.append(gone)
            if progress:
                progress(gone)
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
    """Remove conversations, and yield what went; the ids of those that cannot be removed are added to `failed`."""
    for key in keys:
        log = ConversationLog(store, key)
        try:
            with log.lock:
                found = _look_up_conversation(log)
                is_gone = dry_run or log.delete()
        except (CorruptRecord, UnsupportedRecord, StoreRejected):
            failed.add(key.id)
            continue
        if found and is_gone:
            yield found.report


@dataclass(frozen=True, slots=True)
class PruneLimits:
    """What is kept of a scope; None asks for nothing.

    age: since it was begun. ttl: since its newest activity, as if the store had had this time-to-live. count: so many,
    those with the newest activity.
    """

    age: timedelta | None = None
    ttl: timedelta | None = None
    count: int | None = None

    def __post_init__(self) -> None:
        if self.count is not None:
            check_count("count", self.count)

    def find_reason(self, candidate: _Candidate, rank: int, time: int) -> RemovalReason | None:
        """Return why a conversation goes, the `place`th of those that are there, at that time; None: it is kept."""
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
        scope: The scope that was looked through.
        dry_run: Whether nothing was removed, and `removed` is what would be.
        kept: How many conversations are kept, not counting damaged ones.
        removed: Those that went, or would go, the newest first.
        spared: Ids of those that were written meanwhile, and so are kept.
        damaged: Conversations that cannot be read. They are kept: `repair` or `restore` may help, `delete` removes
            them.
        complete: Whether all conversations of the scope were looked at for certain. False if they were found through
            an index that can lose entries on this server, or that may be among what is damaged; `full_scan=True` looks
            at all.
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
    """What has to be known of a conversation to decide about it; in the order of a listing."""

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
    """Remove what the policy does not keep; what is written meanwhile is kept."""
    damaged: list[Damaged] = []
    removed: list[DeletedConversation] = []
    spared: list[str] = []
    going: list[tuple[_Candidate, RemovalReason]] = []
    time, kept = earliest_now(), 0
    for found in _list_candidates(store, scope, damaged, full_scan=full_scan):
        if why := limits.find_reason(found, kept, time):
            going.append((found, why))
        else:
            kept += 1
    for found, why in going:
        key = Key(scope, found.id)
        try:
            if not dry_run:
                ConversationLog(store, key).delete(version=found.version)
        except (Conflict, CorruptRecord, UnsupportedRecord) as error:  # written meanwhile, or it cannot be read now
            spared.append(found.id)
            damaged += [] if isinstance(error, Conflict) else [Damaged(key, key.id, error)]
            continue
        updated = to_datetime(found.updated)
        removed.append(gone := DeletedConversation(found.id, scope, found.messages, found.records, updated, why))
        if progress:
            progress(gone)
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
    """Yield each conversation once, the newest first; what cannot be read is added to `damaged`."""
    if full_scan:
        found: list[_Candidate] = []
        for key in store.scan_keys(scope):
            try:
                part = store.read(key, start=0, stop=0)
            except (CorruptRecord, UnsupportedRecord) as error:
                damaged.append(Damaged(key, key.id, error))
                continue
            found += _to_candidates(part.head, damaged) if part else ()
        damaged += store.damaged_keys(scope)
        yield from sorted(found, reverse=True)
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
    """Yield the candidate of a head, or add it to `damaged`."""
    try:
        summary = read_state(head)
    except (CorruptRecord, UnsupportedRecord) as error:
        damaged.append(Damaged(head.key, head.key.id, error))
        return
    revision = head.revision
    records = head.end - head.start
    is_expired = alive(head) is None
    yield _Candidate(
        revision.updated,
        head.key.id,
        revision.version,
        summary.identity.created,
        summary.totals.messages,
        records,
        is_expired,
    )
