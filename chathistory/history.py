"""The shelf: all conversations of a store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Self

from chathistory.conversation import Conversation
from chathistory.errors import CorruptRecord, UnsupportedRecord
from chathistory.log.journal import Journal, alive
from chathistory.log.summary import Summary, summary_of
from chathistory.store import Cursor, Head, HistoryStore, Key, Page

__all__ = ["OWN_SCOPE", "ConversationInfo", "Deletion", "History"]


class _NotNamed(str):
    """Text that stands for itself: `is` tells it from the same text given by a caller."""

    __slots__ = ()


OWN_SCOPE: Final = _NotNamed("default")
"""The scope of a call that names none: the history's own. Not None, which is more likely a bug of the caller's."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class ConversationInfo:
    """A row of the listing; all of it is known without reading messages.

    title: as set; None: never. preview: the beginning of the first user text; None: there was none, or it is forgotten.
    messages: how many. usage: token counts of all replies, summed, by the API's names. model: of the last reply.
    created, updated, expires (None: never): aware datetimes in UTC.
    """

    id: str
    scope: str
    title: str | None
    preview: str | None = field(repr=False)
    tags: tuple[str, ...]
    metadata: Mapping[str, Any] = field(repr=False)
    messages: int
    usage: Mapping[str, int]
    model: str | None
    created: datetime
    updated: datetime
    expires: datetime | None


@dataclass(frozen=True, slots=True)
class Deletion:
    """What a delete removed: a conversation of so many messages, in so many records of all kinds.

    None for both: it was damaged, or of a later version, and cannot be told.
    """

    id: str
    scope: str
    messages: int | None = None
    records: int | None = None


def _deletion(journal: Journal) -> Deletion | None:
    """Return what a delete will remove; None: the conversation is absent (or expired, which is the same)."""
    key = journal.key
    try:
        head = journal.refresh()
        return Deletion(key.id, key.scope, summary_of(head).messages, head.end - head.start) if head else None
    except (CorruptRecord, UnsupportedRecord):
        return Deletion(key.id, key.scope)


class History:
    """The conversations of one store. Opening it, or a conversation of it, does no input or output."""

    def __init__(self, store: HistoryStore, *, scope: str = "default") -> None:
        """Use `store`, which stays the caller's to close; scope: the one that calls mean which name none."""
        self.store = store
        self.scope = scope

    def key(self, id: str, scope: str = OWN_SCOPE) -> Key:
        """Return the key of a conversation, in the history's own scope unless one is named."""
        return Key(self.scope if scope is OWN_SCOPE else scope, id)

    def conversation(self, id: str, *, scope: str = OWN_SCOPE) -> Conversation:
        """Return the conversation of that name, whether it exists yet or not. Raises `InvalidInput` for a bad name."""
        return Conversation(self.store, self.key(id, scope))

    def recent(self, *, scope: str = OWN_SCOPE, limit: int = 20, after: Cursor | None = None) -> Page[ConversationInfo]:
        """Return the conversations of a scope, those with the newest activity first, `limit` at a time.

        `.items` are the rows (fewer than `limit` only at the end; none for an unknown scope), `.next` is the `after` of
        the following page, None at the end. Raises `InvalidInput` for a `limit` below 1 or a cursor of another listing.
        """
        scope = self.scope if scope is OWN_SCOPE else scope
        rows: list[ConversationInfo] = []
        while True:
            page = self.store.heads(scope, after=after, limit=limit - len(rows))
            rows += [_row(head) for head in page.items if alive(head)]
            after = page.next
            if after is None or len(rows) == limit:
                return Page(rows, after)

    def delete(self, id: str, *, scope: str = OWN_SCOPE) -> Deletion | None:
        """Remove a conversation for good and return what went; None: there was none. A damaged one goes as well."""
        journal = Journal(self.store, self.key(id, scope))
        with journal.lock:
            gone = _deletion(journal)
            return gone if journal.delete() else None

    def close(self) -> None:
        """Close the store."""
        self.store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def _row(head: Head) -> ConversationInfo:
    summary: Summary = summary_of(head)
    return ConversationInfo(
        id=head.key.id,
        scope=head.key.scope,
        title=summary.title,
        preview=summary.preview,
        tags=summary.tags,
        metadata=summary.metadata,
        messages=summary.messages,
        usage=summary.usage,
        model=summary.model,
        created=_time(summary.created),
        updated=_time(head.stamp.updated),
        expires=None if head.stamp.expires is None else _time(head.stamp.expires),
    )


def _time(microseconds: int) -> datetime:
    return _EPOCH + timedelta(microseconds=min(microseconds, _LAST))
