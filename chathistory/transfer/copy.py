"""Conversations on their way into a store: whole, at the same positions, with the same times, and checked.

A source is a conversation as it was at one moment, in another store or in a file. What becomes of it depends on what
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
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from chathistory.errors import (
    ChatHistoryError,
    Conflict,
    ConversationChanged,
    ConversationExists,
    ConversationNotFound,
    CorruptRecord,
    InvalidInput,
    TurnInProgress,
    UnsupportedRecord,
)
from chathistory.log.apply import apply_all
from chathistory.log.bulk_create import create_whole, portions
from chathistory.log.clock import fresh_token
from chathistory.log.commit import commit, slices
from chathistory.log.conversation_log import ConversationLog, alive
from chathistory.log.entry import Entry, decode, encode
from chathistory.log.events import Annotation
from chathistory.log.lease import check_free
from chathistory.log.state import read_state
from chathistory.storage.store import HistoryStore
from chathistory.storage.values import Damaged, Head, Key, Record
from chathistory.transfer.copy_sources import CopySource, LineChecker, Selection, find_source, have_same_birth

__all__ = [
    "CopyReport",
    "CopyResult",
    "Outcome",
    "Progress",
    "copy_all",
    "copy_one",
    "copy_with_retry",
    "rename_conversation",
    "report_absent",
]

Outcome: TypeAlias = Literal["copied", "continued", "same", "different", "failed"]
"""What became of one conversation in a copy, an export or an import: see `CopyResult`."""

_ATTEMPTS = 3
_RENAME_ATTEMPTS = 20
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

    def add(self, result: CopyResult) -> None:
        """Internal: count one more."""
        self.records += result.records
        self.later += result.later
        if result.outcome == "different":
            self.different.append(result.key)
        elif result.error is not None:
            self.failed[result.key] = result.error
        else:
            setattr(self, result.outcome, getattr(self, result.outcome) + 1)


def report_absent(key: Key) -> CopyResult:
    """Return what is told of a conversation that was named and is not there."""
    return CopyResult(key, "failed", error=ConversationNotFound(key))


def copy_one(source: CopySource, target: ConversationLog, *, replace: bool = False, verify: bool = True) -> CopyResult:
    """Store a conversation under the key of `target`; see the top of this page.

    Args:
        source: The conversation.
        target: Where to.
        replace: Delete what stands there and is something else.
        verify: Read back what was stored and compare it with what was to be stored.

    Raises:
        CorruptRecord: What was stored is not what was to be stored, and is removed again; or the source is damaged.
        ChatHistoryError: What the stores and the source raise.
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
            return _create_copy(source, target, verify=verify)
        if present.revision.version == source.head.revision.version:
            _forget_same_records(source, target, present)
            return CopyResult(target.key, "same")
        tally = LineChecker()
        if (added := _continue_copy(source, target, present, tally)) is not None:
            return CopyResult(target.key, "continued", added, later=tally.later)
        if not replace:
            return CopyResult(target.key, "different", error=ConversationExists(target.key))
        target.store.delete(target.key, version=present.revision.version)
        return _create_copy(source, target, verify=verify)


def _create_copy(source: CopySource, target: ConversationLog, *, verify: bool) -> CopyResult:
    head = source.head
    tally = LineChecker()
    if head.start == head.end:  # a store takes no conversation without a record: one that is forgotten at once
        stored = create_whole(
            target, [encode(Entry(Annotation()))], first=max(head.end - 1, 0), revision=lambda: head.revision
        )
        _forget_same_records(source, target, stored)
        return CopyResult(target.key, "copied")
    digest = hashlib.sha256()

    def read_lines() -> Iterator[str]:
        for line in tally.check(source, head.start):
            digest.update(f"{line}\n".encode())
            yield line

    stored = create_whole(target, read_lines(), first=head.start, revision=lambda: head.revision)
    if verify:
        _verify_copy(target, head, stored, digest.digest())
    return CopyResult(target.key, "copied", head.end - head.start, later=tally.later)


def _verify_copy(target: ConversationLog, head: Head, stored: Head, expected: bytes) -> None:
    """Raise `CorruptRecord`, and remove the copy, if what is stored now is not what was to be."""
    digest, found = hashlib.sha256(), None
    for part in slices(target.store, target.key):
        found = found or part.head
        for record in part.records:
            digest.update(f"{record.body}\n".encode())
    if found is None or found.revision.version != stored.revision.version:
        return  # somebody has gone on with it already, or deleted it
    if (found.start, found.end, found.revision, digest.digest()) != (head.start, head.end, head.revision, expected):
        target.store.delete(target.key, version=stored.revision.version)
        target.see(None)
        raise CorruptRecord(target.key, None, "the copy was not what had been copied, and is removed")


def _forget_same_records(source: CopySource, target: ConversationLog, present: Head) -> None:
    """Forget here what was forgotten there."""
    if present.start < source.head.start:
        target.forget(source.head.start)


def _continue_copy(source: CopySource, target: ConversationLog, present: Head, tally: LineChecker) -> int | None:
    """Add what was added to an earlier state; return how many records; None: this is not an earlier state."""
    head = source.head
    if not (max(head.start, present.start) < present.end < head.end) or not have_same_birth(present, head):
        return None
    if present.revision.updated > head.revision.updated:  # a time that goes back is not what a conversation has
        return None
    lines = tally.check(source, present.end - 1)
    part = target.store.read(target.key, start=present.end - 1, stop=present.end)
    if part is None or [record.body for record in part.records] != [next(lines)]:
        return None
    last = present
    for batch in portions(lines, target.store):
        revision = head.revision
        if last.end + len(batch) < head.end:  # that of a state in between which the source had
            entries = [decode(Record(position, line), target.key) for position, line in enumerate(batch, last.end)]
            payload = apply_all(read_state(last), entries, last.end).encode()
            version = entries[-1].id or fresh_token()
            revision = dataclasses.replace(last.revision, version=version, payload=payload)
        last = commit(target.store, target.key, batch, after=last, revision=revision)
        target.see(last)
    _forget_same_records(source, target, last)
    return head.end - present.end


def copy_all(
    selection: Selection, target: HistoryStore, *, replace: bool, verify: bool, threads: int
) -> Iterator[CopyResult]:
    """Copy conversations into another store, several at once, and yield what became of each."""
    from concurrent.futures import Future, ThreadPoolExecutor  # only where something is copied

    def copy(key: Key) -> CopyResult | None:
        log = ConversationLog(target, key)
        done = copy_with_retry(lambda: find_source(selection.store, key), log, replace=replace, verify=verify)
        return report_absent(key) if done is None and selection.is_named else done

    pending: deque[Future[CopyResult | None]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="chathistory-copy") as pool:
        try:
            for key in selection.iter_keys():
                pending.append(pool.submit(copy, key))
                if len(pending) >= _AHEAD * threads and (result := pending.popleft().result()):
                    yield result
            while pending:
                if result := pending.popleft().result():
                    yield result
        finally:
            for future in pending:
                future.cancel()


def copy_with_retry(
    find: Callable[[], CopySource | None], target: ConversationLog, *, replace: bool, verify: bool
) -> CopyResult | None:
    """Copy a conversation, again if it changes meanwhile; None: it is gone.

    What is wrong with one conversation is its outcome; what is wrong with a store is raised.
    """
    left = _ATTEMPTS
    while True:
        try:
            source = find()
            return copy_one(source, target, replace=replace, verify=verify) if source else None
        except ConversationChanged as conflict:
            left -= 1
            if not left:
                return CopyResult(target.key, "failed", error=conflict)
        except (CorruptRecord, UnsupportedRecord, InvalidInput) as error:
            return CopyResult(target.key, "failed", error=error)


# Renaming.


def rename_conversation(store: HistoryStore, old: Key, new: Key) -> None:
    """Move a conversation to another key, as `History.rename` says.

    The copy has the same version, and is seen when it is whole; only then the old one goes, guarded by the version that
    was copied. So a process may end between any two steps: what is left is the old one alone, or the same conversation
    under both keys, which the next call recognizes by its birth and its lines.
    """
    source, target = ConversationLog(store, old), ConversationLog(store, new)
    copied: str | None = None
    for attempt in range(_RENAME_ATTEMPTS):
        found = find_source(store, old)
        if found is None:
            raise ConversationNotFound(old)
        if old == new:
            return
        try:
            check_free(old, read_state(found.head))
            if copy_one(found, target).outcome != "different":
                copied = found.head.revision.version
            elif not _is_later_state(store, new, found.head):
                raise ConversationExists(new)
            source.delete(version=found.head.revision.version)
        except Conflict:  # somebody wrote to the old one: bring the copy up to date
            if attempt + 1 < _RENAME_ATTEMPTS:
                continue
            _remove_copy(target, copied)
            raise
        except TurnInProgress:
            _remove_copy(target, copied)
            raise
        else:
            return


def _is_later_state(store: HistoryStore, new: Key, head: Head) -> bool:
    """Whether the conversation under `new` is a later state of another one: somebody went on with a renamed copy."""
    last = {"start": head.end - 1, "stop": head.end}
    found, expected = store.read(new, **last), store.read(head.key, **last)
    if found is None or expected is None or not have_same_birth(found.head, head):
        return False
    return [record.body for record in found.records] == [record.body for record in expected.records] != []


def _remove_copy(target: ConversationLog, version: str | None) -> None:
    """Remove the copy again unless somebody has gone on with it: the old conversation is certainly there."""
    if version is not None:
        with suppress(Conflict):
            target.delete(version=version)
