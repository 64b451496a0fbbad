"""Abilities that some backends have, each a protocol; a store is asked for one by a method, such as `get_recovery()`.

`HeadRecovery` gives a conversation a new head where the old one is damaged, `StorageNotes` names what is stored beside
the records, and `Sweeping` frees the space of what expired and of what crashes left over.

The records of a conversation outlive its head in most storages. `find_records` and `read_found` read them without the
head; the core folds them into a new one; `restore_head` stores that in the place of the damaged one, guarded by the raw
bytes that were found, so that a writer who came meanwhile is never overwritten.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from chathistory.storage.values import Head, Key, Record

__all__ = ["LONGEST_GAP", "FoundRecords", "HeadRecovery", "StorageNotes", "SweepReport", "Sweeping"]

LONGEST_GAP = 100_000
"""How many records in a row may be missing; where more are, it is the head that names wrong positions."""


@dataclass(frozen=True, slots=True)
class FoundRecords:
    """What is stored under a key, read without trusting its head.

    Attributes:
        key: The conversation.
        token: Stands for the raw bytes of the head as they were found (a hash, a revision; "" if there is no head).
            Printable ASCII without message text; only the store that made it understands it.
        start: The lowest position that is known to be kept.
        end: One above the highest position at which a sound record was found; `start` if there is none.
        problem: What is wrong with the head, in words without message text; None if it can be read.
    """

    key: Key
    token: str
    start: int
    end: int
    problem: str | None


@runtime_checkable
class HeadRecovery(Protocol):
    """A store that can give a conversation a new head when the old one is damaged."""

    def find_records(self, key: Key) -> FoundRecords | None:
        """Look at what is stored under a key, whatever the state of its head.

        Returns:
            What was found; None if nothing at all is stored under this key.

        Raises:
            StoreError: The storage cannot be read at all.
        """
        ...

    def read_found(self, found: FoundRecords, *, start: int, stop: int) -> Sequence[Record]:
        """Return the sound records at positions [start, stop), in order; a damaged or missing one is left out.

        Reads all of the range at once, so the caller bounds it (a few hundred positions).
        """
        ...

    def restore_head(self, found: FoundRecords, head: Head) -> Head:
        """Store `head` in the place of the damaged one; records that are kept stay at their positions.

        A position between `head.start` and `head.end` that has no sound record stays damaged: reading it raises
        `CorruptRecord`. What belongs to no position is set aside or removed, as the page of the backend says. Takes the
        writer's lock where the backend has one. On return the head is durable.

        Raises:
            Conflict: The raw bytes of the head are not those of `found.token`; nothing changes then.
        """
        ...


@runtime_checkable
class StorageNotes(Protocol):
    """A store that can name what is stored beside the records of a conversation."""

    def list_notes(self, key: Key) -> Sequence[str]:
        """Say what is stored beside the records of a conversation, and what will become of it.

        That is: bytes of an append that a crash tore, or that is destroyed so far that nobody can tell; what was set
        aside; a rewrite that was stopped. None of it is damage of the conversation, and none of it is passed over in
        silence: `doctor` and `list` show it.

        Returns:
            A sentence for each, which begins with its place as in `Damaged.where`, without message text; empty if there
            is nothing, or no such conversation.

        Raises:
            CorruptRecord: The head is damaged.
            StoreError: The storage cannot be read.
        """
        ...


@dataclass(slots=True)
class SweepReport:
    """How much a sweep removed. A backend may add fields for what else it removed.

    Attributes:
        expired: Conversations that had expired.
        damaged: Heads that could not be read; what belongs to them was left as it is.
    """

    expired: int = 0
    damaged: int = 0


@runtime_checkable
class Sweeping(Protocol):
    """A store whose server does not remove expired conversations by itself: call `sweep` now and then.

    To every reader what expired is absent, swept or not. Readers and writers need not stop.
    """

    def sweep(self) -> SweepReport:
        """Remove what has expired by now, and leftovers that are old enough to belong to nobody.

        Raises:
            StoreError: The storage cannot be read or written; what was removed until then stays removed.
        """
        ...
