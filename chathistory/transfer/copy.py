"""Conversations on their way into a store: whole, at the same positions, with the same times, and checked.

A *parcel* is a conversation as it was at one moment, in another store or in a file. What becomes of it depends on what
is in its place already:

    nothing, or what expired       it is stored; nobody sees it before its last line is there
    the same version               nothing has to be done, so a transfer that broke off is just begun again
    an earlier state of it         what has been added since is added
    anything else                  that stays, and the report says so; with `replace`, it goes

What was forgotten there is forgotten here. What has expired is not taken along.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias

from chathistory.errors import (
    ChatHistoryError,
    Conflict,
    ConversationChanged,
    ConversationExists,
    ConversationNotFound,
    CorruptRecord,
    InvalidInput,
    UnsupportedRecord,
)
from chathistory.log.apply import apply_all
from chathistory.log.bulk_create import plant, portions
from chathistory.log.clock import fresh_token
from chathistory.log.commit import commit, slices
from chathistory.log.conversation_log import ConversationLog, alive
from chathistory.log.entry import FORMAT, Entry, decode, encode
from chathistory.log.events import Annotation
from chathistory.log.state import read_state
from chathistory.storage.store import HistoryStore
from chathistory.storage.values import Damaged, Head, Key, Record, Revision

__all__ = [
    "CopyReport",
    "CopyResult",
    "CopySource",
    "Progress",
    "Selection",
    "Tally",
    "absent",
    "arrive",
    "copied",
    "delivered",
    "have_one_birth",
    "parcel_of",
]

Outcome: TypeAlias = Literal["copied", "continued", "same", "different", "failed"]
"""What became of one conversation in a copy, an export or an import: see `CopyResult`."""

_ATTEMPTS = 3
_AHEAD = 4  # conversations that each thread may have waiting


@dataclass(frozen=True, slots=True)
class CopyResult:
    """What became of one conversation.

    Attributes:
        key: The conversation.
        outcome: "copied" as a whole; "continued", what was added since; the "same" was there already; something
            "different" was there and stayed; "failed", and `error` says why.
        records: How many were stored or written.
        error: Why it failed; `ConversationExists` if something different stayed.
        later: How many of the records have a later format than this version knows; they are carried over as they are.
        lost: How many positions could not be read, and are marked as such in what was written (`salvage`).
    """

    key: Key
    outcome: Outcome
    records: int = 0
    error: ChatHistoryError | None = None
    later: int = 0
    lost: int = 0


Progress: TypeAlias = Callable[[CopyResult], object]
"""Called after each conversation, from the thread of the caller."""


@dataclass(slots=True)
class CopyReport:
    """What a copy or an import did.

    Attributes:
        copied: How many conversations were copied as a whole.
        continued: Of how many what was added since was copied.
        same: How many were there already.
        records: How many records were stored.
        later: How many of these have a later format than this version knows; they are stored as they are.
        different: Keys at which something else was there, and stayed.
        failed: Keys of what could not be copied, and why.
        damaged: What is stored in the source and has no key that can be told.
        skipped: Parts of the file that were passed over, with the reason: they belong to no conversation.
        all_found: Whether the conversations of the source were all found for certain. False if they were looked for in
            an index that can lose entries on that server, or that may be among what is damaged; `full_scan=True` finds
            all.
    """

    copied: int = 0
    continued: int = 0
    same: int = 0
    records: int = 0
    later: int = 0
    different: list[Key] = field(default_factory=list)
    failed: dict[Key, ChatHistoryError] = field(default_factory=dict)
    damaged: list[Damaged] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    all_found: bool = True

    @property
    def complete(self) -> bool:
        """Whether all that was to be copied is there now."""
        return self.all_found and not (self.different or self.failed or self.damaged or self.skipped)

    def add(self, arrival: CopyResult) -> None:
        """Internal: count one more."""
        self.records += arrival.records
        self.later += arrival.later
        if arrival.outcome == "different":
            self.different.append(arrival.key)
        elif arrival.error is not None:
            self.failed[arrival.key] = arrival.error
        else:
            setattr(self, arrival.outcome, getattr(self, arrival.outcome) + 1)


class CopySource(Protocol):
    """A conversation as it was at one moment; `lines` gives those from a position on, and may be called again."""

    @property
    def head(self) -> Head:
        """Positions and revision."""
        ...

    def lines(self, start: int) -> Iterator[str]:
        """Yield the lines of [start, head.end). Raises what shows that they cannot be had, also behind the last."""
        ...


@dataclass(frozen=True, slots=True)
class _Stored:
    """A parcel that is fetched from a store. It raises `Conflict` if its lines go while they are fetched."""

    store: HistoryStore
    head: Head

    def lines(self, start: int) -> Iterator[str]:
        position = start
        for part in slices(self.store, self.head.key, start, self.head.end):
            changed = part.head.revision.version != self.head.revision.version
            if changed and _born(part.head) != _born(self.head):
                break  # it was deleted and made again
            yield from (record.body for record in part.records)
            position += len(part.records)
        if position != self.head.end:
            raise Conflict(self.head.key, None)


def parcel_of(store: HistoryStore, key: Key) -> CopySource | None:
    """Return the parcel of a conversation as it is now; None: it is absent, or has expired."""
    part = store.read(key, start=0, stop=0)
    head = alive(part.head if part else None)
    if head is None:
        return None
    read_state(head)  # what is no summary would be none in its new place either
    return _Stored(store, head)


@dataclass(frozen=True, slots=True)
class Selection:
    """The conversations of a store that are meant.

    Attributes:
        store: Where they are.
        scope: All of this scope, or those `ids` of it ("default" if it is None); None: all of the store.
        ids: Only these.
        full_scan: Find them by a walk over the whole storage.
    """

    store: HistoryStore
    scope: str | None
    ids: tuple[str, ...] | None
    full_scan: bool

    @property
    def is_named(self) -> bool:
        """Whether they were asked for by name, so that each that is absent is told."""
        return self.ids is not None

    def keys(self) -> Iterator[Key]:
        """Yield their keys."""
        if self.ids is not None:
            return iter([Key("default" if self.scope is None else self.scope, id) for id in self.ids])
        return self.store.scan_keys(self.scope) if self.full_scan else self.store.keys(self.scope)

    def damaged(self) -> list[Damaged]:
        """Return what is stored among them and has no key that can be told."""
        return [] if self.is_named else list(self.store.damaged_keys(self.scope))

    def all_found(self, damaged: Sequence[Damaged]) -> bool:
        """Return whether `keys` names all of them for certain; what is `damaged` may be the index itself."""
        return self.is_named or self.full_scan or (not damaged and self.store.is_index_complete())


def absent(key: Key) -> CopyResult:
    """Return what is told of a conversation that was named and is not there."""
    return CopyResult(key, "failed", error=ConversationNotFound(key))


def arrive(parcel: CopySource, target: ConversationLog, *, replace: bool = False, verify: bool = True) -> CopyResult:
    """Store a parcel under the key of `target`; see the top of this page.

    verify: read back what was stored and compare it with what was to be stored; if they differ, remove it again and
    raise `CorruptRecord`. Raises what the stores and the parcel raise.
    """
    with target.lock:
        try:
            part = target.store.read(target.key, start=0, stop=0)
        except CorruptRecord:
            if not replace:
                raise
            target.delete()
            part = None
        present = alive(part.head if part else None)
        if present is None:
            return _planted(parcel, target, verify=verify)
        if present.revision.version == parcel.head.revision.version:
            _forget(parcel, target, present)
            return CopyResult(target.key, "same")
        tally = Tally()
        if (added := _continued(parcel, target, present, tally)) is not None:
            return CopyResult(target.key, "continued", added, later=tally.later)
        if not replace:
            return CopyResult(target.key, "different", error=ConversationExists(target.key))
        target.store.delete(target.key, version=present.revision.version)
        return _planted(parcel, target, verify=verify)


def _planted(parcel: CopySource, target: ConversationLog, *, verify: bool) -> CopyResult:
    head = parcel.head
    tally = Tally()
    if head.start == head.end:  # a store takes no conversation without a record: one that is forgotten at once
        stored = plant(
            target, [encode(Entry(Annotation()))], first=max(head.end - 1, 0), revision=lambda: head.revision
        )
        _forget(parcel, target, stored)
        return CopyResult(target.key, "copied")
    digest = hashlib.sha256()
    stored = plant(
        target,
        _digested(tally.check(parcel, head.start), digest.update),
        first=head.start,
        revision=lambda: head.revision,
    )
    if verify:
        _verify(target, head, stored, digest.digest())
    return CopyResult(target.key, "copied", head.end - head.start, later=tally.later)


@dataclass(slots=True)
class Tally:
    """Checks the lines of a parcel as they pass, and counts those of a later format."""

    later: int = 0

    def check(self, parcel: CopySource, start: int) -> Iterator[str]:
        """Yield the lines from `start` on. Raises `CorruptRecord` at one that is not the line of an entry."""
        for position, line in enumerate(parcel.lines(start), start):
            if decode(Record(position, line), parcel.head.key).version > FORMAT:
                self.later += 1
            yield line


def _digested(lines: Iterable[str], update: Callable[[bytes], None]) -> Iterator[str]:
    for line in lines:
        update(f"{line}\n".encode())
        yield line


def _verify(target: ConversationLog, head: Head, stored: Head, due: bytes) -> None:
    """Raise `CorruptRecord`, and remove the copy, if what is stored now is not what was to be."""
    digest, found = hashlib.sha256(), None
    for part in slices(target.store, target.key):
        found = found or part.head
        for record in part.records:
            digest.update(f"{record.body}\n".encode())
    if found is None or found.revision.version != stored.revision.version:
        return  # somebody has gone on with it already, or deleted it
    if (found.start, found.end, found.revision, digest.digest()) != (head.start, head.end, head.revision, due):
        target.store.delete(target.key, version=stored.revision.version)
        target.see(None)
        raise CorruptRecord(target.key, None, "the copy was not what had been copied, and is removed")


def _forget(parcel: CopySource, target: ConversationLog, present: Head) -> None:
    """Forget here what was forgotten there."""
    if present.start < parcel.head.start:
        target.forget(parcel.head.start)


def _continued(parcel: CopySource, target: ConversationLog, present: Head, tally: Tally) -> int | None:
    """Add what was added to an earlier state; return how many records; None: this is not an earlier state."""
    head = parcel.head
    if not (max(head.start, present.start) < present.end < head.end) or not have_one_birth(present, head):
        return None
    if present.revision.updated > head.revision.updated:  # a time that goes back is not what a conversation has
        return None
    lines = tally.check(parcel, present.end - 1)
    part = target.store.read(target.key, start=present.end - 1, stop=present.end)
    if part is None or [record.body for record in part.records] != [next(lines)]:
        return None
    end = present
    for batch in portions(lines, target.store):
        end = commit(target.store, target.key, batch, after=end, revision=_grown(end, batch, head))
        target.see(end)
    _forget(parcel, target, end)
    return head.end - present.end


def _born(head: Head) -> str:
    return read_state(head).identity.born


def have_one_birth(one: Head, other: Head) -> bool:
    """Whether two heads are of one conversation, as far as can be told."""
    try:
        return _born(one) == _born(other)
    except (CorruptRecord, UnsupportedRecord):
        return False


def _grown(base: Head, batch: list[str], head: Head) -> Revision:
    """Return the revision after a batch: that of the source, or of a state in between that it had."""
    if base.end + len(batch) == head.end:
        return head.revision
    entries = [decode(Record(position, line), base.key) for position, line in enumerate(batch, base.end)]
    return dataclasses.replace(
        base.revision,
        version=entries[-1].id or fresh_token(),
        payload=apply_all(read_state(base), entries, base.end).encode(),
    )


def copied(
    chosen: Selection, target: HistoryStore, *, replace: bool, verify: bool, threads: int
) -> Iterator[CopyResult]:
    """Copy conversations into another store, several at once, and yield what became of each."""
    from concurrent.futures import Future, ThreadPoolExecutor  # not for who copies nothing

    def copy(key: Key) -> CopyResult | None:
        done = delivered(
            lambda: parcel_of(chosen.store, key), ConversationLog(target, key), replace=replace, verify=verify
        )
        return absent(key) if done is None and chosen.is_named else done

    pending: deque[Future[CopyResult | None]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="chathistory-copy") as pool:
        try:
            for key in chosen.keys():  # noqa: SIM118 - it is no mapping
                pending.append(pool.submit(copy, key))
                if len(pending) >= _AHEAD * threads and (arrival := pending.popleft().result()):
                    yield arrival
            while pending:
                if arrival := pending.popleft().result():
                    yield arrival
        finally:
            for future in pending:
                future.cancel()


def delivered(
    parcel: Callable[[], CopySource | None], target: ConversationLog, *, replace: bool, verify: bool
) -> CopyResult | None:
    """Let a parcel arrive, again if it changes meanwhile; None: it is gone.

    What is wrong with one conversation is its outcome; what is wrong with a store is raised.
    """
    left = _ATTEMPTS
    while True:
        try:
            found = parcel()
            return arrive(found, target, replace=replace, verify=verify) if found else None
        except ConversationChanged as conflict:
            left -= 1
            if not left:
                return CopyResult(target.key, "failed", error=conflict)
        except (CorruptRecord, UnsupportedRecord, InvalidInput) as error:
            return CopyResult(target.key, "failed", error=error)
