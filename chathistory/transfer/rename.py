"""A conversation under another id of the same scope: copied whole, then deleted under the old one."""

from __future__ import annotations

from contextlib import suppress

from chathistory.errors import Conflict, ConversationExists, ConversationNotFound, TurnInProgress
from chathistory.log.conversation_log import ConversationLog
from chathistory.log.lease import check_free
from chathistory.log.state import read_state
from chathistory.storage.store import HistoryStore
from chathistory.storage.values import Head, Key
from chathistory.transfer.copy import arrive, have_one_birth, parcel_of

__all__ = ["rename"]

_ATTEMPTS = 20


def rename(store: HistoryStore, old: Key, new: Key) -> None:
    """Move a conversation to another key, as `History.rename` says.

    The copy has the same version, and is seen when it is whole; only then the old one goes, guarded by the version that
    was copied. So a process may end between any two steps: what is left is the old one alone, or the same conversation
    under both keys, which the next call recognizes by its birth and its lines.
    """
    source, target = ConversationLog(store, old), ConversationLog(store, new)
    copied: str | None = None
    for attempt in range(_ATTEMPTS):
        parcel = parcel_of(store, old)
        if parcel is None:
            raise ConversationNotFound(old)
        if old == new:
            return
        try:
            check_free(old, read_state(parcel.head))
            if arrive(parcel, target).outcome != "different":
                copied = parcel.head.revision.version
            elif not _continues(store, new, parcel.head):
                raise ConversationExists(new)
            source.delete(version=parcel.head.revision.version)
        except Conflict:  # somebody wrote to the old one: bring the copy up to date
            if attempt + 1 < _ATTEMPTS:
                continue
            _remove_copy(target, copied)
            raise
        except TurnInProgress:
            _remove_copy(target, copied)
            raise
        else:
            return


def _continues(store: HistoryStore, new: Key, head: Head) -> bool:
    """Whether the conversation under `new` is a later state of another one: somebody went on with a renamed copy."""
    last = {"start": head.end - 1, "stop": head.end}
    found, expected = store.read(new, **last), store.read(head.key, **last)
    if found is None or expected is None or not have_one_birth(found.head, head):
        return False
    return [record.body for record in found.records] == [record.body for record in expected.records] != []


def _remove_copy(target: ConversationLog, version: str | None) -> None:
    """Remove the copy again unless somebody has gone on with it: the old conversation is certainly there."""
    if version is not None:
        with suppress(Conflict):
            target.delete(version=version)
