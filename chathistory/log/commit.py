"""Appending with a certain outcome, also if the store's answer was lost or was wrong.

The answer to an append can be lost after the store has done it. A client library can repeat a request that succeeded,
and report that the second one was refused. Both cases are resolved here for all backends, by reading: every line that
the core writes has a unique id, so if the lines are in the store, this append stored them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from chathistory.errors import Conflict, OutcomeUnknown, StoreError, StoreUnavailable
from chathistory.storage.store import HistoryStore
from chathistory.storage.values import Head, Key, ReadResult, Revision

__all__ = ["commit", "read_in_parts"]


def commit(
    store: HistoryStore, key: Key, bodies: Sequence[str], *, after: Head | None, revision: Revision, first: int = 0
) -> Head:
    """Append lines exactly once.

    Args:
        store: The store.
        key: The conversation.
        bodies: The lines; each has an id that no other line has.
        after: The head that the conversation must have; None: it must not exist.
        revision: The revision after the append.
        first: The position of the first line of a new conversation.

    Returns:
        The head of this append.

    Raises:
        Conflict: Another writer was first; nothing was stored.
        StoreUnavailable: The store cannot be reached; its `outcome` says whether the append was stored.
        OutcomeUnknown: The records that would show whether the append was stored no longer exist.
        StoreError: The store refused the append; nothing was stored.
    """
    lost: StoreUnavailable | None = None
    while True:
        try:
            return store.append(key, bodies, after=after, revision=revision, first=first)
        except Conflict as refused:
            return _find_outcome(
                store, key, bodies, start=after.end if after else first, revision=revision, refused=refused
            )
        except StoreError as error:
            if lost is not None:  # the second error says nothing about the first attempt
                raise lost from lost.__cause__
            if not isinstance(error, StoreUnavailable) or error.outcome == "not stored":
                raise
            lost = error  # append again: if the first one is stored, now or later, the condition refuses one of the two


def _find_outcome(
    store: HistoryStore, key: Key, bodies: Sequence[str], *, start: int, revision: Revision, refused: Conflict
) -> Head:
    """Return the head of an append that the store refused, if it is stored; else raise the error that applies."""
    now = refused.head
    if now is not None and now.revision.version == revision.version:
        return now
    try:
        parts = list(read_in_parts(store, key, start, start + len(bodies)))
    except (Conflict, StoreError) as error:
        raise StoreUnavailable(
            "an append was not confirmed, and reading whether it was stored failed; read the conversation again",
            outcome="unknown",
        ) from error
    if not parts or parts[0].head.start > start:
        raise OutcomeUnknown(key, parts[0].head if parts else None) from refused
    if [record.body for part in parts for record in part.records] != list(bodies):
        raise refused
    return Head(key, parts[0].head.start, start + len(bodies), revision)


def read_in_parts(store: HistoryStore, key: Key, start: int = 0, stop: int | None = None) -> Iterator[ReadResult]:
    """Yield the records of a range in the parts in which a store returns them.

    All parts belong to the state at the first one; what is appended meanwhile is left out.

    Args:
        store: The store.
        key: The conversation.
        start: The first position; a negative number counts from the end.
        stop: One above the last position; None: the end.

    Yields:
        The parts, of which the first has the head; none if the conversation does not exist.

    Raises:
        Conflict: The rest of the range was forgotten or deleted before it was read.
    """
    part = store.read(key, start=start, stop=stop)
    if part is None:
        return
    yield part
    stop = part.head.end if stop is None else min(stop, part.head.end)
    while part.records and (position := part.records[-1].position + 1) < stop:
        part = store.read(key, start=position, stop=stop)
        if part is None or not part.records or part.records[0].position != position:
            raise Conflict(key, part.head if part else None)
        yield part
