"""Looking at conversations for damage: of all that a store holds, found in the storage itself and not in an index."""

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
from chathistory.operations.repair import find_left_out, repair
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

sound: nothing has to be done.
repairable: `Conversation.repair(dry_run=False)` leads around what cannot be read or sent.
waiting: the last reply called tools and their results are not stored; `repair` stores errors in their place.
restorable: the head is damaged; `Conversation.restore(dry_run=False)` makes a new one from the records.
unsupported: a later version of chathistory wrote it.
lost: nothing of it can be read, or its key cannot be told; a copy, or `delete`, is all that is left.
changing: others wrote to it all the time while it was looked at.
"""

_ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What was found in a conversation.

    Attributes:
        key: The conversation; None if not even that can be told.
        where: Its place in the storage, if it has no key that can be told; else its id.
        state: What can be done about it.
        findings: Each position that is left out or changed by repairing it, with the reason; -1: at the end.
        problem: What is wrong with the conversation as a whole; None: nothing.
        left_out: Positions that cannot be read and that the conversation no longer goes through: it was repaired before
            or went back; exports and copies still meet them.
        notes: What is stored beside the records, such as bytes of an append that was broken off; the next append or
            repair deals with it, and nothing that was acknowledged is in it.
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
        checked: How many were looked at.
        found: Those that are not sound, or of which there is something to be told.
        complete: Whether all that is stored was looked at for certain. False if this account may not walk over the
            storage, so that an index had to be used that can lose entries.
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
    """Look at the conversations of a scope (None: of all), or at those that are named, and tell of each."""
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
    """A walk over all that is stored in a scope (None: in all), or over the conversations that are named.

    Attributes:
        is_complete: Whether it comes past all that is stored; known when it has ended.
    """

    def __init__(self, store: HistoryStore, scope: str | None, ids: Iterable[str] | None) -> None:
        self._store = store
        self._scope = scope
        self._ids = ids
        self.is_complete = True

    def iter_diagnoses(self) -> Iterator[Diagnosis]:
        """Yield what was found of each; those that are named and not there are left out."""
        for key in self.iter_keys():
            diagnosis = diagnose_conversation(ConversationLog(self._store, key))
            if diagnosis is not None:
                yield diagnosis
        if self._ids is None:
            for damaged in self._store.damaged_keys(self._scope):
                yield Diagnosis(damaged.key, damaged.where, "lost", problem=damaged.error)

    def iter_keys(self) -> Iterator[Key]:
        """Yield the keys of what can be named."""
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
    """Return what is the matter with a conversation; None: there is no such.

    Raises:
        StoreUnavailable: The store cannot be reached.
        StoreClosed: The store is closed.
    """
    key = log.key
    left = _ATTEMPTS
    while True:
        try:
            diagnosis = _diagnose_once(log)
            return diagnosis and replace(diagnosis, notes=list_storage_notes(log.store, key))
        except (StoreUnavailable, StoreClosed):
            raise
        except ConversationChanged as error:
            left -= 1
            if not left:
                return Diagnosis(key, key.id, "changing", problem=error)
        except UnsupportedRecord as error:
            return Diagnosis(key, key.id, "unsupported", problem=error)
        except ChatHistoryError as error:
            return Diagnosis(key, key.id, "lost", problem=error)


def list_storage_notes(store: HistoryStore, key: Key) -> tuple[str, ...]:
    """Return what is stored beside the records of a conversation, where the store can tell; else ()."""
    storage_notes = store.get_storage_notes()
    try:
        return tuple(storage_notes.list_notes(key)) if storage_notes else ()
    except CorruptRecord:  # the head is damaged, and that is told by itself
        return ()


def _diagnose_once(log: ConversationLog) -> Diagnosis | None:
    key = log.key
    try:
        findings = repair(log)
        left_out = () if findings or log.last is None else find_left_out(log)
    except CorruptRecord as error:
        made = restore_head(log)
        return None if made is None else Diagnosis(key, key.id, "restorable", made.lost, error)
    if not findings and log.last is None:
        return None
    is_waiting = any(each.position == ADDED for each in findings)
    state: CheckState = "waiting" if is_waiting else "repairable" if findings else "sound"
    return Diagnosis(key, key.id, state, findings, left_out=left_out)


def repair_diagnosed(log: ConversationLog, diagnosis: Diagnosis, *, force: bool = False) -> tuple[ViewRepair, ...]:
    """Repair a conversation that is repairable, waiting or restorable, and return what was left out or changed.

    Raises what `repair` and `restore` raise.
    """
    if diagnosis.state == "restorable":
        made = restore_head(log, dry_run=False, force=force)
        return made.lost if made else ()
    return repair(log, dry_run=False, force=force)
