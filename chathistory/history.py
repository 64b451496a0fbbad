"""The shelf: all conversations of a store."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from chathistory.conversation import Conversation
from chathistory.errors import CorruptRecord, UnsupportedRecord
from chathistory.log.journal import Journal
from chathistory.log.summary import summary_of
from chathistory.shelf.listing import ConversationInfo, Filter, recent
from chathistory.store import Cursor, HistoryStore, Key, Page

__all__ = ["ConversationInfo", "Deletion", "History"]


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

    def __init__(self, store: HistoryStore) -> None:
        """Use `store`, which stays the caller's to close."""
        self.store = store

    def conversation(self, id: str, *, scope: str = "default") -> Conversation:
        """Return the conversation of that name, whether it exists yet or not. Raises `InvalidInput` for a bad name."""
        return Conversation(self.store, Key(scope, id))

    def recent(
        self,
        *,
        scope: str = "default",
        limit: int = 20,
        after: Cursor | None = None,
        title: str | None = None,
        tag: str | Iterable[str] | None = None,
        metadata: Mapping[str, Any] | None = None,
        model: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> Page[ConversationInfo]:
        """Return the conversations of a scope, those with the newest activity first, `limit` at a time.

        `.items` are the rows (none for an unknown scope), `.next` is the `after` of the following page, None at the
        end. Only those are returned that fit all that is given: `title` is part of the title (of the preview where
        there is none), in upper or lower case; `tag` one tag, or several that must all be there; `metadata` values
        that must be there by their names; `model` that of the last reply; the newest activity is at `since` or later,
        and before `until` (aware datetimes).

        Without these a page is short only at the end. With them one call looks at 1,000 conversations at most, so a
        page may be short, or empty, with more to come: go on while there is a `next`.

        Raises `InvalidInput` for a `limit` below 1, a time without a zone or a cursor of another listing.
        """
        wanted = Filter.of(title=title, tag=tag, metadata=metadata, model=model, since=since, until=until)
        return recent(self.store, scope, limit=limit, after=after, wanted=wanted)

    def delete(self, id: str, *, scope: str = "default") -> Deletion | None:
        """Remove a conversation for good and return what went; None: there was none. A damaged one goes as well."""
        journal = Journal(self.store, Key(scope, id))
        with journal.lock:
            gone = _deletion(journal)
            return gone if journal.delete() else None

    def close(self) -> None:
        """Close the store."""
        self.store.close()
