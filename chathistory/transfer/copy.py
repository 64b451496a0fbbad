"""Copies conversations into a store: completely, at the same positions, with the same times, and verified.

The source is a conversation as it was at one moment, in another store or in a file. The result depends on what is
stored under the same key in the target:

    nothing, or an expired one     the copy is stored; it is visible only when its last line is stored
    the same version               nothing is done, so an interrupted transfer can simply be repeated
    an earlier state of it         the records that it lacks are added
    anything else                  it is kept, and the report says so; with `replace`, it is deleted first

Records that were forgotten in the source are forgotten in the target. Expired conversations are not copied.
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
from chathistory.log.bulk_create import bulk_create, split_into_batches
from chathistory.log.clock import fresh_token
from chathistory.log.commit import commit, read_in_parts
from chathistory.log.conversation_log import ConversationLog, unless_expired
from chathistory.log.entry import Entry, decode, encode
from chathistory.log.events import Annotation
from chathistory.log.lease import check_no_open_turn
from chathistory.log.state import read_state
from chathistory.storage.store import HistoryStore
from chathistory.storage.values import Damaged, Head, Key, Record
from chathistory.transfer.copy_sources import CopySource, LineChecker, Selection, find_source, is_same_creation

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
"""The result for one conversation of a copy, an export or an import.

- `copied`: it was copied or exported completely.
- `continued`: an earlier state of it was in the target, and the records that it lacked were added.
- `same`: the same version was in the target already.
- `different`: another conversation was in the target under this key, and was kept.
- `failed`: it was not copied; `CopyResult.error` says why.
"""

_ATTEMPTS = 3
_RENAME_ATTEMPTS = 20
_AHEAD = 4  # conversations that each thread may have waiting


@dataclass(frozen=True, slots=True)
class CopyResult:
    """The result for one conversation of a copy, an export or an import.

    Attributes:
        key: The conversation.
        outcome: "copied": completely. "continued": the records that an earlier state lacked were added. "same": it was
            there already. "different": another conversation was there and was kept. "failed": see `error`.
        records: How many records were stored or written.
        error: Why it failed; `ConversationExists` if the outcome is "different"; None for the other outcomes.
        later: How many of the records have a later format than this version of chathistory knows. They are copied
            unchanged.
        lost: How many positions could not be read; each has a record of the kind `record_lost` in what was written
            (`salvage`).
    """

    key: Key
    outcome: Outcome
    records: int = 0
    error: ChatHistoryError | None = None
    later: int = 0
    lost: int = 0


Progress: TypeAlias = Callable[[CopyResult], object]
"""Called with the result for each conversation, in the thread of the caller."""


@dataclass(slots=True)
class CopyReport:
    """What a copy or an import did.

    Attributes:
        copied: How many conversations were copied completely.
        continued: How many were in the target in an earlier state, and were brought up to date.
        same: How many were in the target already.
        records: How many records were stored.
        later: How many of these have a later format than this version of chathistory knows; they are stored unchanged.
        different: Keys under which another conversation was in the target; it was kept.
        failed: The error for each conversation that could not be copied, by key.
        damaged: Damaged data in the source whose conversation cannot be identified.
        skipped: Parts of the file that belong to no conversation, with the reason; each as text.
        all_found: True if all conversations of the source were certainly found. False if they came from an index that
            can lose entries on that server, or that may itself be damaged; `full_scan=True` finds all.
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
        """True if everything that was asked for is in the target now."""
        return self.all_found and not (self.different or self.failed or self.damaged or self.skipped)

    def add(self, result: CopyResult) -> None:
        """Internal: add the result for one conversation.

        Args:
            result: The result.
        """
        self.records += result.records
        self.later += result.later
        if result.outcome == "different":
            self.different.append(result.key)
        elif result.error is not None:
            self.failed[result.key] = result.error
        else:
            setattr(self, result.outcome, getattr(self, result.outcome) + 1)


def report_absent(key: Key) -> CopyResult:
    """Return the result for a conversation that was named but does not exist.

    Args:
        key: The conversation.
    """
    return CopyResult(key, "failed", error=ConversationNotFound(key))


def copy_one(source: CopySource, target: ConversationLog, *, replace: bool = False, verify: bool = True) -> CopyResult:
    """Store a conversation under the key of `target`; the docstring of this module says what happens when.

    Args:
        source: The conversation.
        target: The log of the conversation to store it as.
        replace: If another conversation is stored under this key, delete it first.
        verify: Read back what was stored and compare it with the source.

    Raises:
        CorruptRecord: The stored copy differs from the source, and is removed again; or the source is damaged.
        ChatHistoryError: The source or one of the stores raised it.
    """
    with target.lock:
        try:
            part = target.store.read(target.key, start=0, stop=0)
        except CorruptRecord:
            if not replace:
                raise
            target.delete()
            part = None
        present = unless_expired(part.head if part else None)
        if present is None:
            return _create_copy(source, target, verify=verify)
        if present.revision.version == source.head.revision.version:
            _forget_same_records(source, target, present)
            return CopyResult(target.key, "same")
        checker = LineChecker()
        if (added := _continue_copy(source, target, present, checker)) is not None:
            return CopyResult(target.key, "continued", added, later=checker.later)
        if not replace:
            return CopyResult(target.key, "different", error=ConversationExists(target.key))
        target.store.delete(target.key, version=present.revision.version)
        return _create_copy(source, target, verify=verify)


def _create_copy(source: CopySource, target: ConversationLog, *, verify: bool) -> CopyResult:
    head = source.head
    checker = LineChecker()
    if head.start == head.end:  # a store needs at least one record: store one, and forget it at once
        stored = bulk_create(
            target, [encode(Entry(Annotation()))], first=max(head.end - 1, 0), revision=lambda: head.revision
        )
        _forget_same_records(source, target, stored)
        return CopyResult(target.key, "copied")
    digest = hashlib.sha256()

    def read_lines() -> Iterator[str]:
        for line in checker.check(source, head.start):
            digest.update(f"{line}\n".encode())
            yield line

    stored = bulk_create(target, read_lines(), first=head.start, revision=lambda: head.revision)
    if verify:
        _verify_copy(target, head, stored, digest.digest())
    return CopyResult(target.key, "copied", head.end - head.start, later=checker.later)


def _verify_copy(target: ConversationLog, head: Head, stored: Head, expected: bytes) -> None:
    """Raise `CorruptRecord`, and remove the copy, if it differs from the source."""
    digest, present = hashlib.sha256(), None
    for part in read_in_parts(target.store, target.key):
        present = present or part.head
        for record in part.records:
            digest.update(f"{record.body}\n".encode())
    if present is None or present.revision.version != stored.revision.version:
        return  # another writer has changed it already, or deleted it
    if (present.start, present.end, present.revision, digest.digest()) != (
        head.start,
        head.end,
        head.revision,
        expected,
    ):
        target.store.delete(target.key, version=stored.revision.version)
        target.remember(None)
        raise CorruptRecord(
            target.key, None, "the stored copy differs from its source and was removed; copy this conversation again"
        )


def _forget_same_records(source: CopySource, target: ConversationLog, present: Head) -> None:
    """Forget the records that were forgotten in the source."""
    if present.start < source.head.start:
        target.forget(source.head.start)


def _continue_copy(source: CopySource, target: ConversationLog, present: Head, checker: LineChecker) -> int | None:
    """Add the records that an earlier state lacks, and return how many; None if `present` is not an earlier state."""
    head = source.head
    if not (max(head.start, present.start) < present.end < head.end) or not is_same_creation(present, head):
        return None
    if present.revision.updated > head.revision.updated:  # the time of a conversation never goes back
        return None
    lines = checker.check(source, present.end - 1)
    part = target.store.read(target.key, start=present.end - 1, stop=present.end)
    if part is None or [record.body for record in part.records] != [next(lines)]:
        return None
    last = present
    for batch in split_into_batches(lines, target.store):
        revision = head.revision
        if last.end + len(batch) < head.end:  # store the revision of an intermediate state of the source
            entries = [decode(Record(position, line), target.key) for position, line in enumerate(batch, last.end)]
            payload = apply_all(read_state(last), entries, last.end).encode()
            version = entries[-1].id or fresh_token()
            revision = dataclasses.replace(last.revision, version=version, payload=payload)
        last = commit(target.store, target.key, batch, after=last, revision=revision)
        target.remember(last)
    _forget_same_records(source, target, last)
    return head.end - present.end


def copy_all(
    selection: Selection, target: HistoryStore, *, replace: bool, verify: bool, threads: int
) -> Iterator[CopyResult]:
    """Copy conversations into another store, several at once, and yield the result for each.

    Args:
        selection: The conversations.
        target: The store to copy them to.
        replace: Delete another conversation that is stored under the same key.
        verify: Read back each copy and compare it with its source.
        threads: How many conversations are copied at the same time, at most.

    Raises:
        StoreError: One of the stores cannot be used; the problem of one conversation is part of its result.
    """
    from concurrent.futures import Future, ThreadPoolExecutor  # imported only when something is copied

    def copy(key: Key) -> CopyResult | None:
        log = ConversationLog(target, key)
        result = copy_with_retry(lambda: find_source(selection.store, key), log, replace=replace, verify=verify)
        return report_absent(key) if result is None and selection.is_named else result

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
    """Copy a conversation, and try again if it changes meanwhile.

    Args:
        find: Returns the source as it is now; None if it does not exist.
        target: The log of the conversation to store it as.
        replace: Delete another conversation that is stored under this key.
        verify: Read back the copy and compare it with its source.

    Returns:
        The result; it has the error if something is wrong with this conversation. None if the source does not exist.

    Raises:
        StoreError: One of the stores cannot be used.
    """
    attempts_left = _ATTEMPTS
    while True:
        try:
            source = find()
            return copy_one(source, target, replace=replace, verify=verify) if source else None
        except ConversationChanged as conflict:
            attempts_left -= 1
            if not attempts_left:
                return CopyResult(target.key, "failed", error=conflict)
        except (CorruptRecord, UnsupportedRecord, InvalidInput) as error:
            return CopyResult(target.key, "failed", error=error)


# Renaming.


def rename_conversation(store: HistoryStore, old: Key, new: Key) -> None:
    """Move a conversation to another key.

    The copy has the same version, and is visible only when it is complete. Only then the old conversation is deleted,
    if it still has the version that was copied. So if the process ends between two steps, either the old conversation
    is left, or the same conversation under both keys, which the next call recognizes by its creation id and its lines.

    Args:
        store: The store.
        old: The present key.
        new: The new key.

    Raises:
        ConversationNotFound: There is no conversation under the old key.
        ConversationExists: There is another conversation under the new key; nothing was changed.
        TurnInProgress: A turn is open.
        Conflict: Other writers changed the conversation during each attempt; it keeps its key.
    """
    source_log, target_log = ConversationLog(store, old), ConversationLog(store, new)
    copied_version: str | None = None
    for attempt in range(_RENAME_ATTEMPTS):
        source = find_source(store, old)
        if source is None:
            raise ConversationNotFound(old)
        if old == new:
            return
        try:
            check_no_open_turn(old, read_state(source.head))
            if copy_one(source, target_log).outcome != "different":
                copied_version = source.head.revision.version
            elif not _is_later_state(store, new, source.head):
                raise ConversationExists(new)
            source_log.delete(version=source.head.revision.version)
        except Conflict:  # another writer changed the old one: bring the copy up to date
            if attempt + 1 < _RENAME_ATTEMPTS:
                continue
            _remove_copy(target_log, copied_version)
            raise
        except TurnInProgress:
            _remove_copy(target_log, copied_version)
            raise
        else:
            return


def _is_later_state(store: HistoryStore, new: Key, head: Head) -> bool:
    """Return True if the conversation under `new` is a copy of the one with `head` and was continued afterwards."""
    last = {"start": head.end - 1, "stop": head.end}
    part, expected = store.read(new, **last), store.read(head.key, **last)
    if part is None or expected is None or not is_same_creation(part.head, head):
        return False
    return [record.body for record in part.records] == [record.body for record in expected.records] != []


def _remove_copy(target: ConversationLog, version: str | None) -> None:
    """Remove the copy again unless it was continued; the old conversation certainly exists."""
    if version is not None:
        with suppress(Conflict):
            target.delete(version=version)
