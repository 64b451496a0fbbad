"""What is kept, and what goes: single conversations, whole scopes, and those that are too old or too many."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, TypeAlias

from chathistory.errors import Conflict, CorruptRecord, InvalidInput, UnsupportedRecord
from chathistory.log.clock import now
from chathistory.log.journal import Journal, alive
from chathistory.log.summary import Summary, summary_of
from chathistory.shelf.listing import time_of
from chathistory.store import Head, HistoryStore, Key

__all__ = ["Deletion", "Erasure", "Policy", "Removal", "Retention", "deleted", "erased", "retained"]

Reason: TypeAlias = Literal["age", "count", "ttl", "expired"]
_PAGE = 500
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Deletion:
    """What a delete removed: a conversation of so many messages, in so many records of all kinds.

    None for both: it was damaged, or of a later version, and cannot be told.
    """

    id: str
    scope: str
    messages: int | None = None
    records: int | None = None


def _deletion(key: Key, head: Head) -> Deletion:
    summary = _summary(head)
    return Deletion(
        key.id, key.scope, summary.messages if summary else None, head.end - head.start if summary else None
    )


def _summary(head: Head) -> Summary | None:
    """Return the summary of a head; None: it is damaged, or of a later version."""
    try:
        return summary_of(head)
    except (CorruptRecord, UnsupportedRecord):
        return None


def deleted(journal: Journal) -> Deletion | None:
    """Remove a conversation, damaged or not, and return what went; None: it was absent, or expired, and is gone too."""
    with journal.lock:
        head, gone = _looked(journal)
        return gone if journal.delete() and (head is None or alive(head)) else None


def _looked(journal: Journal) -> tuple[Head | None, Deletion | None]:
    """Return the head (None: absent, or damaged) and what a delete will remove (None: nothing is there)."""
    key = journal.key
    try:
        part = journal.store.read(key, start=0, stop=0)
    except CorruptRecord:
        return None, Deletion(key.id, key.scope)
    return (part.head, _deletion(key, part.head)) if part else (None, None)


@dataclass(frozen=True, slots=True)
class Erasure:
    """What the erasure of a scope removed: a line for each conversation, those that had expired or broken off as well.

    at: when it ended (UTC). left: ids that others have begun anew meanwhile; none: nothing is left in the scope.
    """

    scope: str
    at: datetime
    removed: tuple[Deletion, ...]
    left: tuple[str, ...] = ()

    @property
    def messages(self) -> int:
        """How many messages went, as far as can be told."""
        return sum(gone.messages or 0 for gone in self.removed)

    @property
    def records(self) -> int:
        """How many records of all kinds went, as far as can be told."""
        return sum(gone.records or 0 for gone in self.removed)


def erased(store: HistoryStore, scope: str, tell: Callable[[Deletion], object] | None) -> Erasure:
    """Remove all conversations of a scope, and look again until none is there or they come back."""
    removed: list[Deletion] = []
    seen: set[str] = set()
    while new := [key for key in store.keys(scope) if key.id not in seen]:
        for key in new:
            seen.add(key.id)
            journal = Journal(store, key)
            with journal.lock:
                _, gone = _looked(journal)
                if journal.delete() and gone:
                    removed.append(gone)
                    if tell:
                        tell(gone)
    left = tuple(sorted(key.id for key in store.keys(scope)))
    return Erasure(scope, time_of(now()), tuple(removed), left)


@dataclass(frozen=True, slots=True)
class Policy:
    """What is kept of a scope; None asks for nothing.

    age: since it was begun. ttl: since its newest activity, as if the store had had this time-to-live. count: so many,
    those with the newest activity.
    """

    age: timedelta | None = None
    ttl: timedelta | None = None
    count: int | None = None

    def __post_init__(self) -> None:
        spans = [span for span in (self.age, self.ttl) if span is not None]
        if any(span < timedelta() for span in spans) or (self.count or 0) < 0:
            msg = "age, ttl and count of what is to be kept are not negative"
            raise InvalidInput(msg)

    def reason(self, head: Head, place: int, time: int) -> Reason | None:
        """Return why a conversation goes, the `place`th of those that are there, at that time; None: it is kept."""
        if not alive(head):
            return "expired"
        if self.ttl is not None and head.stamp.updated < time - self.ttl // _MICROSECOND:
            return "ttl"
        if self.count is not None and place >= self.count:
            return "count"
        summary = _summary(head)
        if self.age is not None and summary and summary.created < time - self.age // _MICROSECOND:
            return "age"
        return None


@dataclass(frozen=True, slots=True)
class Removal:
    """A conversation that went, or would go, and why; `expired` are also copies that were broken off.

    messages: None if its head is damaged, or of a later version. updated: its newest activity (UTC).
    """

    id: str
    scope: str
    why: Reason
    messages: int | None
    records: int
    updated: datetime


@dataclass(frozen=True, slots=True)
class Retention:
    """What a retention removed, or would remove (`dry_run`), the newest first, and how many conversations it kept.

    spared: ids of those that were written meanwhile, and so are kept.
    """

    scope: str
    dry_run: bool
    kept: int
    removed: tuple[Removal, ...]
    spared: tuple[str, ...] = ()


def retained(
    store: HistoryStore, scope: str, policy: Policy, *, dry_run: bool, tell: Callable[[Removal], object] | None
) -> Retention:
    """Remove what the policy does not keep; what is written meanwhile is kept."""
    kept, due = _sorted_out(store, scope, policy)
    removed: list[Removal] = []
    spared: list[str] = []
    for removal, version in due:
        if not dry_run and not _gone(Journal(store, Key(scope, removal.id)), version):
            spared.append(removal.id)
            continue
        removed.append(removal)
        if tell:
            tell(removal)
    return Retention(scope, dry_run, kept + len(spared), tuple(removed), tuple(spared))


def _sorted_out(store: HistoryStore, scope: str, policy: Policy) -> tuple[int, list[tuple[Removal, str]]]:
    """Return how many are kept, and what goes, with the version that was looked at."""
    time, kept, due = now(), 0, []
    for head in _heads(store, scope):
        why = policy.reason(head, kept, time)
        if why is None:
            kept += 1
            continue
        gone = _deletion(head.key, head)
        row = Removal(head.key.id, scope, why, gone.messages, head.end - head.start, time_of(head.stamp.updated))
        due.append((row, head.stamp.version))
    return kept, due


def _heads(store: HistoryStore, scope: str) -> Iterator[Head]:
    """Yield each conversation once, the newest first."""
    after, seen = None, set[str]()
    while True:
        page = store.heads(scope, after=after, limit=_PAGE)
        for head in page.items:
            if head.key.id not in seen:
                seen.add(head.key.id)
                yield head
        after = page.next
        if after is None:
            return


def _gone(journal: Journal, version: str) -> bool:
    """Remove a conversation if it still has this version; else False."""
    with journal.lock:
        try:
            journal.store.delete(journal.key, version=version)
        except Conflict:
            return False
        journal.see(None)
        return True
