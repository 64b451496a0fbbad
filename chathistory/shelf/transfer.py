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
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias

from chathistory.errors import ChatHistoryError, Conflict, CorruptRecord, InvalidInput, UnsupportedRecord
from chathistory.log.clock import fresh_token
from chathistory.log.commit import commit, slices
from chathistory.log.entry import Entry, decode, encode
from chathistory.log.fold import folded
from chathistory.log.journal import Journal, alive
from chathistory.log.planting import plant, portions
from chathistory.log.summary import summary_of
from chathistory.store import Head, HistoryStore, Key, Record, Stamp

__all__ = [
    "Arrival",
    "CopyReport",
    "Parcel",
    "Progress",
    "absent",
    "arrive",
    "copied",
    "delivered",
    "keys_of",
    "parcel_of",
]

Outcome: TypeAlias = Literal["copied", "continued", "same", "different", "failed"]
_ATTEMPTS = 3
_AHEAD = 4  # conversations that each thread may have waiting


@dataclass(frozen=True, slots=True)
class Arrival:
    """What became of one conversation.

    outcome: "copied" as a whole; "continued", what was added since; the "same" was there already; something
    "different" was there and stayed; "failed", and `error` says why. records: how many were stored.
    """

    key: Key
    outcome: Outcome
    records: int = 0
    error: ChatHistoryError | None = None


Progress: TypeAlias = Callable[[Arrival], object]
"""Called after each conversation, from the thread of the caller."""


@dataclass(slots=True)
class CopyReport:
    """What a copy or an import did: how many conversations were copied, continued, or the same already, and records.

    different: keys at which something else was there, and stayed. failed: keys, and why those could not be copied.
    """

    copied: int = 0
    continued: int = 0
    same: int = 0
    records: int = 0
    different: list[Key] = field(default_factory=list)
    failed: dict[Key, ChatHistoryError] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether all that was to be copied is there now."""
        return not (self.different or self.failed)

    def add(self, arrival: Arrival) -> None:
        """Count one more."""
        self.records += arrival.records
        if arrival.outcome == "different":
            self.different.append(arrival.key)
        elif arrival.error is not None:
            self.failed[arrival.key] = arrival.error
        else:
            setattr(self, arrival.outcome, getattr(self, arrival.outcome) + 1)


class Parcel(Protocol):
    """A conversation as it was at one moment; `lines` gives those from a position on, and may be called again."""

    @property
    def head(self) -> Head:
        """Positions and stamp."""
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
            changed = part.head.stamp.version != self.head.stamp.version
            if changed and _born(part.head) != _born(self.head):
                break  # it was deleted and made again
            yield from (record.body for record in part.records)
            position += len(part.records)
        if position != self.head.end:
            raise Conflict(self.head.key, None)


def parcel_of(store: HistoryStore, key: Key) -> Parcel | None:
    """Return the parcel of a conversation as it is now; None: it is absent, or has expired."""
    part = store.read(key, start=0, stop=0)
    head = alive(part.head if part else None)
    return _Stored(store, head) if head else None


def keys_of(store: HistoryStore, scope: str | None, ids: Iterable[str] | None) -> Iterator[Key]:
    """Return the keys that are meant: these ids of the scope ("default" if it is None), or all of the scope, or all."""
    return store.keys(scope) if ids is None else iter([Key("default" if scope is None else scope, id) for id in ids])


def absent(key: Key) -> Arrival:
    """Return what is told of a conversation that was named and is not there."""
    msg = f"there is no conversation {key.id!r} in scope {key.scope!r}"
    return Arrival(key, "failed", error=InvalidInput(msg))


def arrive(parcel: Parcel, target: Journal, *, replace: bool = False, verify: bool = True) -> Arrival:
    """Store a parcel under the key of `target`; see the top of this page.

    verify: read back what was stored and compare it with what was to be stored; if they differ, remove it again and
    raise `CorruptRecord`. Raises what the stores and the parcel raise.
    """
    with target.lock:
        part = target.store.read(target.key, start=0, stop=0)
        present = alive(part.head if part else None)
        if present is None:
            return _planted(parcel, target, verify=verify)
        if present.stamp.version == parcel.head.stamp.version:
            _forget(parcel, target, present)
            return Arrival(target.key, "same")
        if (added := _continued(parcel, target, present)) is not None:
            return Arrival(target.key, "continued", added)
        if not replace:
            return Arrival(target.key, "different")
        target.store.delete(target.key, version=present.stamp.version)
        return _planted(parcel, target, verify=verify)


def _planted(parcel: Parcel, target: Journal, *, verify: bool) -> Arrival:
    head = parcel.head
    if head.start == head.end:  # a store takes no conversation without a record: one that is forgotten at once
        stored = plant(target, [encode(Entry("annotation"))], first=max(head.end - 1, 0), stamp=lambda: head.stamp)
        _forget(parcel, target, stored)
        return Arrival(target.key, "copied")
    digest = hashlib.sha256()
    stored = plant(
        target, _digested(parcel.lines(head.start), digest.update), first=head.start, stamp=lambda: head.stamp
    )
    if verify:
        _verify(target, head, stored, digest.digest())
    return Arrival(target.key, "copied", head.end - head.start)


def _digested(lines: Iterable[str], update: Callable[[bytes], None]) -> Iterator[str]:
    for line in lines:
        update(f"{line}\n".encode())
        yield line


def _verify(target: Journal, head: Head, stored: Head, due: bytes) -> None:
    """Raise `CorruptRecord`, and remove the copy, if what is stored now is not what was to be."""
    digest, found = hashlib.sha256(), None
    for part in slices(target.store, target.key):
        found = found or part.head
        for record in part.records:
            digest.update(f"{record.body}\n".encode())
    if found is None or found.stamp.version != stored.stamp.version:
        return  # somebody has gone on with it already, or deleted it
    if (found.start, found.end, found.stamp, digest.digest()) != (head.start, head.end, head.stamp, due):
        target.store.delete(target.key, version=stored.stamp.version)
        target.see(None)
        raise CorruptRecord(target.key, None, "the copy was not what had been copied, and is removed")


def _forget(parcel: Parcel, target: Journal, present: Head) -> None:
    """Forget here what was forgotten there."""
    if present.start < parcel.head.start:
        target.forget(parcel.head.start)


def _continued(parcel: Parcel, target: Journal, present: Head) -> int | None:
    """Add what was added to an earlier state; return how many records; None: this is not an earlier state."""
    head = parcel.head
    if not (max(head.start, present.start) < present.end < head.end) or _born(present) != _born(head):
        return None
    if present.stamp.updated > head.stamp.updated:  # a time that goes back is not what a conversation has
        return None
    lines = parcel.lines(present.end - 1)
    part = target.store.read(target.key, start=present.end - 1, stop=present.end)
    if part is None or [record.body for record in part.records] != [next(lines)]:
        return None
    end = present
    for batch in portions(lines, target.store):
        end = commit(target.store, target.key, batch, after=end, stamp=_grown(end, batch, head))
        target.see(end)
    _forget(parcel, target, end)
    return head.end - present.end


def _born(head: Head) -> str:
    return summary_of(head).born


def _grown(base: Head, batch: list[str], head: Head) -> Stamp:
    """Return the stamp after a batch: that of the parcel, or that of the state in between, which is one that it had."""
    if base.end + len(batch) == head.end:
        return head.stamp
    entries = [decode(Record(position, line), base.key) for position, line in enumerate(batch, base.end)]
    return dataclasses.replace(
        base.stamp,
        version=entries[-1].id or fresh_token(),
        info=folded(summary_of(base), entries, base.end).encode(),
    )


def copied(
    source: HistoryStore,
    target: HistoryStore,
    keys: Iterable[Key],
    *,
    named: bool,
    replace: bool,
    verify: bool,
    threads: int,
) -> Iterator[Arrival]:
    """Copy conversations from one store to the other, several at once, and yield what became of each.

    named: they were asked for by name, so each that is absent is told.
    """
    from concurrent.futures import Future, ThreadPoolExecutor  # noqa: PLC0415  # not for who copies nothing

    def copy(key: Key) -> Arrival | None:
        done = delivered(lambda: parcel_of(source, key), Journal(target, key), replace=replace, verify=verify)
        return absent(key) if done is None and named else done

    pending: deque[Future[Arrival | None]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="chathistory-copy") as pool:
        try:
            for key in keys:
                pending.append(pool.submit(copy, key))
                if len(pending) >= _AHEAD * threads and (arrival := pending.popleft().result()):
                    yield arrival
            while pending:
                if arrival := pending.popleft().result():
                    yield arrival
        finally:
            for future in pending:
                future.cancel()


def delivered(parcel: Callable[[], Parcel | None], target: Journal, *, replace: bool, verify: bool) -> Arrival | None:
    """Let a parcel arrive, again if it changes meanwhile; None: it is gone.

    What is wrong with one conversation is its outcome; what is wrong with a store is raised.
    """
    left = _ATTEMPTS
    while True:
        try:
            found = parcel()
            return arrive(found, target, replace=replace, verify=verify) if found else None
        except Conflict as conflict:
            left -= 1
            if not left:
                return Arrival(target.key, "failed", error=conflict)
        except (CorruptRecord, UnsupportedRecord, InvalidInput) as error:
            return Arrival(target.key, "failed", error=error)
