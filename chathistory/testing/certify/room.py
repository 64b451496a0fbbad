"""A store as a test sees it: the store under test, under fresh names, and otherwise as it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self, cast

from chathistory.errors import Conflict
from chathistory.store import Cursor, Head, HistoryStore, Key, Page, Slice, Stamp
from chathistory.testing.certify.names import Names
from chathistory.url import StoreURL

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
        """Return a room whose class has the traits of the store's class, as every store's class has."""
        made = type(cls.__name__, (cls,), {"traits": type(within).traits})
        room: Room = made(within, names)
        return room

    @classmethod
    def from_url(cls, url: StoreURL) -> Self:
        msg = f"a room is not opened by a URL, such as {url}, but put around a store"
        raise TypeError(msg)

    def append(self, key: Key, bodies: Sequence[str], *, after: Head | None, stamp: Stamp, first: int = 0) -> Head:
        seen = self.names.real_head(after) if after else None
        with self._our_names():
            head = self.within.append(self.names.real_key(key), bodies, after=seen, stamp=stamp, first=first)
        return cast("Head", self._head(head))

    def read(self, key: Key, *, start: int = 0, stop: int | None = None) -> Slice | None:
        run = self.within.read(self.names.real_key(key), start=start, stop=stop)
        return Slice(self._head(run.head), run.records) if isinstance(run, Slice) else run

    def heads(self, scope: str, *, after: Cursor | None = None, limit: int = 20) -> Page[Head]:
        page = self.within.heads(self.names.real(scope), after=after, limit=limit)
        return Page([self._head(head) for head in page.items], page.next)

    def keys(self, scope: str | None = None) -> Iterator[Key]:
        if scope is not None:
            return map(self.names.given_key, self.within.keys(self.names.real(scope)))
        return map(self.names.given_key, filter(self.names.has, self.within.keys()))

    def forget(self, key: Key, *, before: int) -> Head | None:
        return cast("Head | None", self._head(self.within.forget(self.names.real_key(key), before=before)))

    def delete(self, key: Key, *, version: str | None = None) -> bool:
        with self._our_names():
            return self.within.delete(self.names.real_key(key), version=version)

    def close(self) -> None:
        self.within.close()

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

    @contextmanager
    def _our_names(self) -> Iterator[None]:
        try:
            yield
        except Conflict as conflict:
            conflict.key = self.names.given_key(conflict.key)
            conflict.head = self._head(conflict.head)
            raise
