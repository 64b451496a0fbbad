"""Appending so that it is certain: what became of an append whose answer was lost, or was a false refusal.

A reply can be lost after the store did its work; a client library can repeat a request that had succeeded and report
the refusal of the second. Both are settled here for all backends, by looking: every line that the core writes carries a
unique id, so lines that are there are ours.
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
    """Append once and for certain; return the head of this append. A new conversation begins at position `first`.

    Raises `Conflict` if somebody else wrote first, `StoreUnavailable` if the store cannot be reached (its `outcome`
    says what became of the append), `OutcomeUnknown` if what could tell is gone.
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
            if lost is not None:  # what is said of the second try is not true of the first
                raise lost from lost.__cause__
            if not isinstance(error, StoreUnavailable) or error.outcome == "not stored":
                raise
            lost = error  # append again: if the first one landed, or lands yet, the guard refuses one of the two


def _find_outcome(
    store: HistoryStore, key: Key, bodies: Sequence[str], *, start: int, revision: Revision, refused: Conflict
) -> Head:
    """Return the head of our append if it is there, else raise what is true of it."""
    now = refused.head
    if now is not None and now.revision.version == revision.version:
        return now
    try:
        parts = list(read_in_parts(store, key, start, start + len(bodies)))
    except (Conflict, StoreError) as error:
        raise StoreUnavailable(
            "an append was not confirmed, and what became of it could not be looked up", outcome="unknown"
        ) from error
    if not parts or parts[0].head.start > start:
        raise OutcomeUnknown(key, parts[0].head if parts else None) from refused
    if [record.body for part in parts for record in part.records] != list(bodies):
        raise refused
    return Head(key, parts[0].head.start, start + len(bodies), revision)


def read_in_parts(store: HistoryStore, key: Key, start: int = 0, stop: int | None = None) -> Iterator[ReadResult]:
    """Yield a range in the portions in which the store gives it: all of one state, of which the first has the head.

    Nothing is yielded if there is no such conversation. What is appended meanwhile is left out. Raises `Conflict` if
    the rest of the range is forgotten or deleted before it was read.
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
