"""Storing a whole conversation in a new place, so that nobody sees it before its last line is stored.

A fork, a copy or an import can have more lines than a store takes at once. They are stored in batches, and until the
last batch the revision says that the conversation expired long ago. An expired conversation does not exist for any call
or process, so an incomplete copy is never taken for a whole one. The next writer at the same place removes what a crash
left behind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress

from chathistory.errors import Conflict, InvalidInput, StoreError
from chathistory.log.clock import fresh_token
from chathistory.log.commit import commit
from chathistory.log.conversation_log import ConversationLog, unless_expired
from chathistory.log.state import ConversationState, Identity
from chathistory.storage.store import HistoryStore
from chathistory.storage.values import Head, Revision

__all__ = ["BATCH_BYTES", "UNFINISHED_EXPIRY", "bulk_create", "split_into_batches"]

BATCH_BYTES = 8 * 1024 * 1024
"""Bytes of lines that one append stores; a longer line is a batch of its own."""

UNFINISHED_EXPIRY = 1
"""The time of expiry of a conversation that is not complete yet: the first microsecond of 1970."""


def bulk_create(log: ConversationLog, lines: Iterable[str], *, first: int, revision: Callable[[], Revision]) -> Head:
    """Store lines as a new conversation.

    Args:
        log: The log of the new conversation.
        lines: The lines of its entries, at least one.
        first: The position of the first line.
        revision: Called after the last line was taken; returns the final revision.

    Returns:
        The head of the new conversation.

    Raises:
        Conflict: The conversation exists already.
        InvalidInput: There are no lines.
        ChatHistoryError: Storing failed, or `lines` or `revision` raised it; nothing is left of the conversation.
    """
    store, key = log.store, log.key
    head: Head | None = None
    with log.lock:
        if (part := store.read(key, start=0, stop=0)) is not None:
            if unless_expired(part.head):
                raise Conflict(key, part.head)
            store.delete(key, version=part.head.revision.version)  # it has expired, or was never completed
        batches = split_into_batches(lines, store)
        if (pending := next(batches, None)) is None:
            raise InvalidInput("lines: must have at least one record; a conversation cannot be empty")
        try:
            for batch in batches:
                version = fresh_token()
                payload = ConversationState(Identity(version, 0)).encode()
                unfinished = Revision(version, updated=0, expires=UNFINISHED_EXPIRY, payload=payload)
                head = commit(store, key, pending, after=head, revision=unfinished, first=first)
                pending = batch
            head = commit(store, key, pending, after=head, revision=revision(), first=first)
        except BaseException:
            if head is not None:
                with suppress(Conflict, StoreError):
                    store.delete(key, version=head.revision.version)
            raise
        log.remember(head)
        return head


def split_into_batches(lines: Iterable[str], store: HistoryStore) -> Iterator[list[str]]:
    """Yield lines in batches of about `BATCH_BYTES` bytes, or of the size that the store takes at once if that is less.

    Args:
        lines: The lines.
        store: The store that gets them.
    """
    limit = min(BATCH_BYTES, store.traits.largest_batch or BATCH_BYTES)
    batch: list[str] = []
    size = 0
    for line in lines:
        length = len(line.encode())
        if batch and size + length > limit:
            yield batch
            batch, size = [], 0
        batch.append(line)
        size += length
    if batch:
        yield batch
