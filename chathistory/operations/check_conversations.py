"""Checks conversations for damage. They are found by a scan of the storage itself, not through an index."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from chathistory.errors import (
    ChatHistoryError,
    ConversationChanged,
    CorruptRecord,
    StoreClosed,
    StoreRejected,
    StoreUnavailable,
    UnsupportedRecord,
)
from chathistory.log.conversation_log import ConversationLog
from chathistory.operations.repair import find_damage_off_path, repair
from chathistory.operations.restore_head import restore_head
from chathistory.storage.store import HistoryStore
from chathistory.storage.values import Key
from chathistory.view import ViewRepair
from chathistory.view.item import ADDED

__all__ = [
    "CheckReport",
    "CheckState",
    "Diagnosis",
    "check_conversations",
    "diagnose_conversation",
    "list_storage_notes",
    "repair_diagnosed",
]

CheckState: TypeAlias = Literal["sound", "repairable", "waiting", "restorable", "unsupported", "lost", "changing"]
"""What can be done about a conversation.

- `sound`: nothing has to be done.
- `repairable`: `Conversation.repair(dry_run=False)` makes it sendable again without what cannot be read or sent.
- `waiting`: the last reply called tools and their results are not stored; `repair` stores errors in their place.
- `restorable`: the head is damaged; `Conversation.restore(dry_run=False)` rebuilds it from the records.
- `unsupported`: a later version of chathistory wrote it; update chathistory.
- `lost`: nothing of it can be read, or its key is unknown; import a copy of it, or delete it with `History.delete`.
- `changing`: other writers changed it during each attempt to check it; check it again.
"""

_ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What a check found in one conversation.

    Attributes:
        key: The conversation; None if its key cannot be read.
        where: Its id, or its place in the storage if its key cannot be read.
        state: What can be done about it.
        findings: Each position that a repair leaves out or changes, with the reason; position -1 means the end.
        problem: What is wrong with the conversation as a whole; None if nothing is.
        left_out: Positions that cannot be read and that are not on the active path, because of an earlier repair or
            rewind. Messages are sent without them, but exports and copies still read them.
        notes: What else is stored with the records, such as bytes of an interrupted append. The next append or repair
            deals with it; it contains nothing that was acknowledged.
    """

    key: Key | None
    where: str
    state: CheckState
    findings: tuple[ViewRepair, ...] = ()
    problem: ChatHistoryError | None = None
    left_out: tuple[ViewRepair, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What a check of many conversations found.

    Attributes:
        checked: How many conversations were checked.
        found: Those that are not sound, or that have `left_out` or `notes`.
        complete: True if everything that is stored was certainly checked. False if this account may not scan the
            storage, so that the conversations came from an index, which can lose entries.
    """

    checked: int
    found: tuple[Diagnosis, ...]
    complete: bool


def check_conversations(
    store: HistoryStore,
    scope: str | None,
    ids: Iterable[str] | None,
    progress: Callable[[Diagnosis], object] | None,
) -> CheckReport:
    """Check conversations for what cannot be read or sent; nothing is changed.

    Args:
        store: The store to check.
        scope: The scope to check; None: all scopes.
        ids: Only these conversations of the scope; None: all of them. Ids that do not exist are skipped.
        progress: Called with the diagnosis of each conversation, sound ones included; None: not called.

    Raises:
        StoreError: The store cannot be used at all; damage of one conversation is part of the report.
    """
    walk = ConversationWalk(store, scope, ids)
    checked, found = 0, []
    for diagnosis in walk.iter_diagnoses():
        checked += 1
        if diagnosis.state != "sound" or diagnosis.left_out or diagnosis.notes:
            found.append(diagnosis)
        if progress:
            progress(diagnosis)
    return CheckReport(checked, tuple(found), walk.is_complete)


class ConversationWalk:
    """Goes through everything that is stored in a scope (None: in all scopes), or through the named conversations.

    Attributes:
        is_complete: False if the storage could not be scanned, so that something may have been missed. It is known
            only when the walk has ended.
    """

    def __init__(self, store: HistoryStore, scope: str | None, ids: Iterable[str] | None) -> None:
        self._store = store
        self._scope = scope
        self._ids = ids
        self.is_complete = True

    def iter_diagnoses(self) -> Iterator[Diagnosis]:
        """Yield the diagnosis of each conversation; named ones that do not exist are skipped."""
        for key in self.iter_keys():
            diagnosis = diagnose_conversation(ConversationLog(self._store, key))
            if diagnosis is not None:
                yield diagnosis
        if self._ids is None:
            for damaged in self._store.damaged_keys(self._scope):
                yield Diagnosis(damaged.key, damaged.where, "lost", problem=damaged.error)

    def iter_keys(self) -> Iterator[Key]:
        """Yield the keys of all conversations whose key can be read."""
        if self._ids is not None:
            yield from (Key("default" if self._scope is None else self._scope, id) for id in self._ids)
            return
        seen: set[Key] = set()
        try:
            for key in self._store.scan_keys(self._scope):
                seen.add(key)
                yield key
        except StoreRejected:
            self.is_complete = False
            yield from (key for key in self._store.keys(self._scope) if key not in seen)


def diagnose_conversation(log: ConversationLog) -> Diagnosis | None:
    """Check one conversation and return what was found; None if it does not exist.

    Args:
        log: The log of the conversation.

    Raises:
        StoreUnavailable: The store cannot be reached.
        StoreClosed: The store is closed.
    """
    key = log.key
    attempts_left = _ATTEMPTS
    while True:
        try:
            diagnosis = _diagnose_once(log)
            return diagnosis and replace(diagnosis, notes=list_storage_notes(log.store, key))
        except (StoreUnavailable, StoreClosed):
            raise
        except ConversationChanged as error:
            attempts_left -= 1
            if not attempts_left:
                return Diagnosis(key, key.id, "changing", problem=error)
        except UnsupportedRecord as error:
            return Diagnosis(key, key.id, "unsupported", problem=error)
        except ChatHistoryError as error:
            return Diagnosis(key, key.id, "lost", problem=error)


def list_storage_notes(store: HistoryStore, key: Key) -> tuple[str, ...]:
    """Return notes on what else is stored with the records of a conversation; () if the store has no such notes."""
    storage_notes = store.get_storage_notes()
    try:
        return tuple(storage_notes.list_notes(key)) if storage_notes else ()
    except CorruptRecord:  # the head is damaged; the diagnosis says so already
        return ()


def _diagnose_once(log: ConversationLog) -> Diagnosis | None:
    key = log.key
    try:
        findings = repair(log)
        left_out = () if findings or log.last_head is None else find_damage_off_path(log)
    except CorruptRecord as error:
        restoration = restore_head(log)
        return None if restoration is None else Diagnosis(key, key.id, "restorable", restoration.lost, error)
    if not findings and log.last_head is None:
        return None
    is_waiting = any(each.position == ADDED for each in findings)
    state: CheckState = "waiting" if is_waiting else "repairable" if findings else "sound"
    return Diagnosis(key, key.id, state, findings, left_out=left_out)


def repair_diagnosed(log: ConversationLog, diagnosis: Diagnosis, *, force: bool = False) -> tuple[ViewRepair, ...]:
    """Repair a conversation that is repairable, waiting or restorable, and return what was left out or changed.

    Args:
        log: The log of the conversation.
        diagnosis: What the check found in it.
        force: Repair it even while a turn is open.

    Raises:
        CorruptRecord: The head is damaged and no record can be read.
        UnsupportedRecord: A later version of chathistory wrote the head.
        TurnInProgress: A turn is open, and `force` was not given.
        Conflict: Another writer changed the conversation meanwhile.
    """
    if diagnosis.state == "restorable":
        restoration = restore_head(log, dry_run=False, force=force)
        return restoration.lost if restoration else ()
    return repair(log, dry_run=False, force=force)
