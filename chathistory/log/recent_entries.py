"""The keys and response ids of the newest entries, so that messages that are appended twice are stored once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from chathistory.errors import InvalidInput
from chathistory.log.entry import Entry, is_message_entry
from chathistory.log.events import MessageAdded
from chathistory.log.field_types import NO_RESPONSE

__all__ = ["LOOKBACK_ENTRIES", "RecentEntries", "StoredBatch", "check_key"]

LOOKBACK_ENTRIES = 1000
"""How many of the newest entries are searched for a key or a response id."""

LONGEST_KEY = 255
"""Maximum length of a key, in characters."""


def check_key(key: object) -> None:
    """Check the idempotency key of an append.

    Args:
        key: The key.

    Raises:
        InvalidInput: It is not a string of 1 to 255 characters.
    """
    if not (isinstance(key, str) and 1 <= len(key) <= LONGEST_KEY):
        raise InvalidInput(f"key: must be text of 1 to {LONGEST_KEY} characters")


@dataclass(frozen=True, slots=True)
class StoredBatch:
    """Messages that one append stored.

    Attributes:
        first: The position of the first message.
        last: The position of the last message.
    """

    first: int
    last: int


class RecentEntries:
    """The keys and response ids of the newest entries.

    Args:
        version: The version of the conversation up to which they are complete.
    """

    def __init__(self, version: str) -> None:
        self.version = version
        self._keys: dict[str, StoredBatch] = {}
        self._responses: dict[str, int] = {}

    def extend(self, version: str, entries: Sequence[Entry], first: int) -> None:
        """Add the entries of an append.

        Args:
            version: The version after the append.
            entries: The entries.
            first: The position of the first.
        """
        for position, entry in enumerate(entries, first):
            event = entry.event
            if isinstance(event, MessageAdded) and not (event.key is None and event.response is NO_RESPONSE):
                self.add(entry, position)
        self.version = version
        low = first + len(entries) - LOOKBACK_ENTRIES
        if len(self._keys) > 2 * LOOKBACK_ENTRIES:
            self._keys = {key: batch for key, batch in self._keys.items() if batch.last >= low}
        if len(self._responses) > 2 * LOOKBACK_ENTRIES:
            self._responses = {id: position for id, position in self._responses.items() if position >= low}

    def add(self, entry: Entry, position: int) -> None:
        """Add an entry; entries other than messages have no effect.

        Args:
            entry: The entry.
            position: Where it is stored.
        """
        if not is_message_entry(entry):
            return
        if (key := entry.event.key) is not None:
            before = self._keys.get(key)
            first = before.first if before and before.last == position - 1 else position
            self._keys[key] = StoredBatch(first, position)
        if (id := entry.event.response.id) is not None:
            self._responses[id] = position

    def find_by_key(self, key: str, end: int) -> StoredBatch | None:
        """Return the messages that were stored with a key; None: not among the newest entries.

        Args:
            key: The key.
            end: One above the last position of the log.
        """
        batch = self._keys.get(key)
        return batch if batch and batch.last >= end - LOOKBACK_ENTRIES else None

    def find_by_response(self, id: str, end: int) -> int | None:
        """Return the position of a reply; None: not among the newest entries.

        Args:
            id: The id that the API gave the reply.
            end: One above the last position of the log.
        """
        position = self._responses.get(id)
        return position if position is not None and position >= end - LOOKBACK_ENTRIES else None
