"""A store as a test sees it: the store under test, under fresh names, and otherwise as it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Self, cast

from chathistory.errors import ChatHistoryError, Conflict, CorruptRecord
from chathistory.storage.recovery import FoundRecords, HeadRecovery
from chathistory.storage.store import (
    Cursor,
    Damaged,
    Head,
    HistoryStore,
    Key,
    Leftovers,
    Page,
    ReadResult,
    Record,
    Revision,
)
from chathistory.storage.url import StoreURL
from chathistory.testing.certify.names import Names

__all__ = ["Room"]


class Room(HistoryStore):
    """Hands everything on to the store within, and changes nothing but the names of scopes on the way.

    Errors pass as they are, with their causes and notes, for the suite looks at those.
    """

    def __init__(self, within: HistoryStore, names: Names) -> None:
        self.within = within
        self.names = names

    @classmethod
    def around(cls, within: HistoryStore, names: Names) -> Room:
        """Return a room whose class has the traits and the abilities of the store's class."""
        bases = (_RecoveringRoom, cls) if isinstance(within, HeadRecovery) else (cls,)
        made = type(cls.__name__, bases, {"traits": type(within).traits})
        room: Room = made(within, names)
        return room

    @classmethod
    def from_url(cls, url: StoreURL) -> Self:
        raise TypeError(f"a room is not opened by a URL, such as {url}, but put around a store")

    def append(
        self, key: Key, bodies: Sequence[str], *, after: Head | None, revision: Revision, first: int = 0
    ) -> Head:
        seen = self.names.real_head(after) if after else None
        with self._our_names():
            head = self.within.append(self.names.real_key(key), bodies, after=seen, revision=revision, first=first)
        return cast("Head", self._head(head))

    def read(self, key: Key, *, start: int = 0, stop: int | None = None) -> ReadResult | None:
        with self._our_names():
            run = self.within.read(self.names.real_key(key), start=start, stop=stop)
        return ReadResult(self._head(run.head), run.records) if isinstance(run, ReadResult) else run

    def heads(self, scope: str, *, after: Cursor | None = None, limit: int = 20) -> Page[Head]:
        page = self.within.heads(self.names.real(scope), after=after, limit=limit)
        return Page(
            [self._head(head) for head in page.items], page.next, [self._damaged(each) for each in page.damaged]
        )

    def keys(self, scope: str | None = None) -> Iterator[Key]:
        if scope is not None:
            return map(self.names.given_key, self.within.keys(self.names.real(scope)))
        return map(self.names.given_key, filter(self.names.has, self.within.keys()))

    def forget(self, key: Key, *, before: int) -> Head | None:
        with self._our_names():
            return cast("Head | None", self._head(self.within.forget(self.names.real_key(key), before=before)))

    def delete(self, key: Key, *, version: str | None = None) -> bool:
        with self._our_names():
            return self.within.delete(self.names.real_key(key), version=version)

    def close(self) -> None:
        self.within.close()

    def damaged_keys(self, scope: str | None = None) -> Iterator[Damaged]:
        """Yield what is damaged in the scopes of this test: what others have damaged is not its business."""
        scopes = list(self.names) if scope is None else [self.names.real(scope)]
        found = {each.where: self._damaged(each) for name in scopes for each in self.within.damaged_keys(name)}
        return iter(found.values())

    def scan_keys(self, scope: str | None = None) -> Iterator[Key]:
        if scope is not None:
            return map(self.names.given_key, self.within.scan_keys(self.names.real(scope)))
        return map(self.names.given_key, filter(self.names.has, self.within.scan_keys()))

    def is_index_complete(self) -> bool:
        return self.within.is_index_complete()

    def remove_leftovers(self, scope: str) -> Leftovers:
        return self.within.remove_leftovers(self.names.real(scope))

    def check(self) -> None:
        self.within.check()

    def __enter__(self) -> Self:
        self.within.__enter__()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.within.__exit__(*exc_info)

    def __repr__(self) -> str:
        return repr(self.within)

    def _head(self, head: Any) -> Any:
        """Return a head under our names; anything else as it is, for the suite to see."""
        return self.names.given_head(head) if isinstance(head, Head) else head

    def _damaged(self, damaged: Damaged) -> Damaged:
        self._rename(damaged.error)
        return replace(damaged, key=self.names.given_key(damaged.key)) if damaged.key else damaged

    def _rename(self, error: ChatHistoryError) -> None:
        if isinstance(error, Conflict | CorruptRecord) and error.key is not None:
            error.key = self.names.given_key(error.key)
        if isinstance(error, Conflict):
            error.head = self._head(error.head)

    @contextmanager
    def _our_names(self) -> Iterator[None]:
        try:
            yield
        except ChatHistoryError as error:
            self._rename(error)
            raise


class _RecoveringRoom(Room):
    """A room around a store that can give a conversation a new head."""

    @property
    def _recovery(self) -> HeadRecovery:
        return cast("HeadRecovery", self.within)

    def find_records(self, key: Key) -> FoundRecords | None:
        with self._our_names():
            found = self._recovery.find_records(self.names.real_key(key))
        return found and replace(found, key=self.names.given_key(found.key))

    def read_found(self, found: FoundRecords, *, start: int, stop: int) -> Sequence[Record]:
        return self._recovery.read_found(self._real(found), start=start, stop=stop)

    def restore_head(self, found: FoundRecords, head: Head) -> Head:
        with self._our_names():
            new = self._recovery.restore_head(self._real(found), self.names.real_head(head))
        return cast("Head", self._head(new))

    def _real(self, found: FoundRecords) -> FoundRecords:
        return replace(found, key=self.names.real_key(found.key))
