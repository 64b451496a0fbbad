"""A conversation stored whole in a new place: nobody sees it before its last line is there.

A fork, a copy or an import brings lines that may be more than a store takes at once. They are stored in portions, and
until the last one the revision says that the conversation expired long ago. What has expired is absent, in every call
and for every process, so half of it is never taken for whole; what a crash leaves, the next who writes there removes.
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
"""Bytes of lines that are stored by one append; a longer line is one by itself."""

UNFINISHED_EXPIRY = 1
"""The time of expiry of a conversation that is not whole yet: the first microsecond of 1970."""


def bulk_create(log: ConversationLog, lines: Iterable[str], *, first: int, revision: Callable[[], Revision]) -> Head:
    """Store `lines` as a new conversation, from position `first` on; return its head.

    `revision` is asked for the final revision when the last line was taken; what it raises, or what fails before,
    leaves nothing. Raises `Conflict` if there is such a conversation already, and `InvalidInput` if there are no lines.
    """
    store, key = log.store, log.key
    head: Head | None = None
    with log.lock:
        if (part := store.read(key, start=0, stop=0)) is not None:
            if unless_expired(part.head):
                raise Conflict(key, part.head)
            store.delete(key, version=part.head.revision.version)  # it has expired, or was not finished
        batches = split_into_batches(lines, store)
        if (held := next(batches, None)) is None:
            raise InvalidInput("a conversation has at least one record")
        try:
            for batch in batches:
                version = fresh_token()
                payload = ConversationState(Identity(version, 0)).encode()
                unfinished = Revision(version, updated=0, expires=UNFINISHED_EXPIRY, payload=payload)
                head = commit(store, key, held, after=head, revision=unfinished, first=first)
                held = batch
            head = commit(store, key, held, after=head, revision=revision(), first=first)
        except BaseException:
            if head is not None:
                with suppress(Conflict, StoreError):
                    store.delete(key, version=head.revision.version)
            raise
        log.remember(head)
        return head


def split_into_batches(lines: Iterable[str], store: HistoryStore) -> Iterator[list[str]]:
    """Yield the lines in batches of about `PORTION` bytes, or of what the store takes at once if that is less."""
    most = min(BATCH_BYTES, store.traits.largest_batch or BATCH_BYTES)
    batch: list[str] = []
    size = 0
    for line in lines:
        length = len(line.encode())
        if batch and size + length > most:
            yield batch
            batch, size = [], 0
        batch.append(line)
        size += length
    if batch:
        yield batch
