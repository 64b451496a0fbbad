"""Optional abilities of a backend, each a protocol; the core asks for one with a method such as `get_recovery()`.

`HeadRecovery` makes a new head for a conversation if the old one is damaged. `StorageNotes` reports what is stored in
addition to the records. `Sweeping` frees the space of expired conversations and of leftovers of crashes.

In most storages the records of a conversation outlive its head. `find_records` and `read_found` read them without the
head, the core computes a new head from them, and `restore_head` stores it in place of the damaged one. The raw bytes
that were found are compared first, so that a write in the meantime is never overwritten.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from chathistory.storage.values import Head, Key, Record

__all__ = ["LONGEST_GAP", "FoundRecords", "HeadRecovery", "StorageNotes", "SweepReport", "Sweeping"]

LONGEST_GAP = 100_000
"""The most records that may be missing in a row; if there are more, the positions in the head are wrong."""


@dataclass(frozen=True, slots=True)
class FoundRecords:
    """The result of `HeadRecovery.find_records`: what is stored under a key, read without the head.

    Attributes:
        key: The name of the conversation.
        token: Identifies the raw bytes of the head as they were found (a hash, a revision; "" if there is no head).
            Printable ASCII without message text; only the store that made it understands it.
        start: The lowest position that is known to be kept.
        end: One above the highest position with a sound record; `start` if no record was found.
        problem: What is wrong with the head, without message text; None if it can be read.
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
        """Find what is stored under a key, whatever the state of its head.

        Args:
            key: The name of the conversation.

        Returns:
            What was found; None if nothing is stored under this key.

        Raises:
            StoreError: The storage cannot be read.
        """
        ...

    def read_found(self, found: FoundRecords, *, start: int, stop: int) -> Sequence[Record]:
        """Return the sound records at positions [start, stop), in order, without damaged and missing ones.

        Args:
            found: The result of `find_records`.
            start: The first position.
            stop: One above the last position. The range is read at once, so keep it to a few hundred positions.

        Raises:
            StoreError: The storage cannot be read.
        """
        ...

    def restore_head(self, found: FoundRecords, head: Head) -> Head:
        """Store a new head in place of the damaged one; records that are kept stay at their positions.

        A position between `head.start` and `head.end` without a sound record stays damaged: reading it raises
        `CorruptRecord`. Data that belong to no position are set aside or removed; the documentation of the backend says
        which. Takes the writer's lock if the backend has one.

        Args:
            found: The result of `find_records`, which the new head was computed from.
            head: The new head.

        Returns:
            The head that was stored; it is durable.

        Raises:
            Conflict: The raw bytes of the head are not those of `found.token`. Nothing changed.
        """
        ...


@runtime_checkable
class StorageNotes(Protocol):
    """A store that can report what it stores for a conversation in addition to the records."""

    def list_notes(self, key: Key) -> Sequence[str]:
        """Report what is stored in addition to the records of a conversation, and what will happen to it.

        Such data are: bytes of an append that a crash interrupted, or bytes that damage has made look like this; data
        that were set aside; a rewrite that was stopped. They are no damage of the conversation, but they are never
        ignored silently: `doctor` and `list` show them.

        Args:
            key: The name of the conversation.

        Returns:
            One sentence for each, without message text, which begins with its location as in `Damaged.where`; empty if
            there is nothing to report, or no such conversation.

        Raises:
            CorruptRecord: The head is damaged.
            StoreError: The storage cannot be read.
        """
        ...


@dataclass(slots=True)
class SweepReport:
    """The result of `Sweeping.sweep`. A backend may add fields for other things that it removed.

    Attributes:
        expired: The number of expired conversations that were removed.
        damaged: The number of heads that could not be read; nothing that belongs to them was removed.
    """

    expired: int = 0
    damaged: int = 0


@runtime_checkable
class Sweeping(Protocol):
    """A store on a server that does not remove expired conversations itself: call `sweep` regularly.

    Every reader treats an expired conversation as absent, swept or not. Readers and writers can continue meanwhile.
    """

    def sweep(self) -> SweepReport:
        """Remove expired conversations, and leftovers that are too old to belong to a running writer.

        Raises:
            StoreError: The storage cannot be read or written. What was removed before stays removed.
        """
        ...
