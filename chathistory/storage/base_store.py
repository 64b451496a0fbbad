"""The base class of backends: what each of them would repeat is done here, once.

The public methods check that the store is open, that it is used by the process that opened it, and what they were
given; they cut listings into pages and make the cursors. Then each calls one *hook* of the backend, a method whose name
begins with an underscore, with values that are known to be right. A call of a public method is one call of its hook.

    append           -> _append_records             keys             -> _list_keys
    read             -> _read_range                 scan_keys        -> _scan_keys
    heads            -> _list_heads (or _list_page) damaged_keys     -> _list_damaged_keys
    forget           -> _forget_records             remove_leftovers -> _remove_leftovers
    delete           -> _delete                     check            -> _check
    close            -> _close                      is_index_complete -> _is_index_complete

`Head.narrow` and `Head.drop_below` do the arithmetic of ranges, `check_version` compares a writer's version.
"""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from types import NoneType
from typing import TypeVar, final

from chathistory.checks import check_count, check_text, check_type, class_name
from chathistory.errors import InvalidInput, StoreClosed
from chathistory.storage.abilities import HeadRecovery, StorageNotes, Sweeping
from chathistory.storage.checks import check_append, check_position, check_range, check_version
from chathistory.storage.cursors import decode_cursor, encode_cursor
from chathistory.storage.store import HistoryStore
from chathistory.storage.values import (
    LARGEST_NUMBER,
    Cursor,
    Damaged,
    Head,
    Key,
    Leftovers,
    Page,
    ReadResult,
    Revision,
    SortKey,
)

__all__ = ["BaseStore", "OpenGuard", "check_version"]

T = TypeVar("T")


class OpenGuard:
    """Refuses calls of what is closed, or of another process; `BaseStore` asks it at the start of every method.

    A forked child shares its parent's sockets and file locks: two processes writing into one of them mix up their
    bytes. So a store belongs to the process that used it first, and a child of that opens its own. A store that was not
    used before the fork has opened nothing yet (a backend connects at the first call): each child can use its copy.
    """

    def __init__(self, name: str = "this store") -> None:
        """Begin with something that is open.

        Args:
            name: What an error calls it.
        """
        self._what = name
        self._process: int | None = None  # that of the first call
        self._open = True

    def check(self) -> None:
        """Note the process of the first call.

        Raises:
            StoreClosed: It was closed, or used before a fork.
        """
        if self._process is None:
            self._process = os.getpid()
        elif os.getpid() != self._process:
            raise StoreClosed(f"{self._what} {_AFTER_FORK}")
        if not self._open:
            raise StoreClosed(f"{self._what} is closed")

    def close(self) -> bool:
        """Refuse every call from now on.

        Returns:
            Whether there is something to release: True the first time, and only in the process that used it.
        """
        was_open = self._open and self._process in (None, os.getpid())
        self._open = False
        return was_open


_AFTER_FORK = (
    "was used before a fork(); in the child, open another one, for example in gunicorn's post_fork, uWSGI's @postfork "
    "or Celery's worker_process_init; or do not use it before the fork"
)


class BaseStore(HistoryStore):
    """A `HistoryStore` for the author of a backend, who writes `from_url`, `traits` and the hooks.

    A subclass sets `traits` in its body: those that a store has with default options. Where options change them, its
    `__init__` sets `self.traits`. An `__init__` of its own calls `super().__init__()`, and connects to nothing.

    A hook raises `StoreUnavailable`, `StoreRejected` or `CorruptRecord` with the client library's error as `__cause__`,
    and never quotes the text of a body or of a payload, nor a credential.
    """

    def __init__(self) -> None:
        """Begin an open store."""
        self._open_guard = OpenGuard()

    # What the author of a backend writes.

    @abstractmethod
    def _append_records(
        self, key: Key, bodies: list[str], *, after: Head | None, revision: Revision, first: int
    ) -> Head:
        """Store bodies and revision in one step if the stored version is the one that the writer has seen.

        Args:
            key: The conversation.
            bodies: At least one line of text; the list is the hook's own.
            after: The head that the writer has seen; None: it expects that there is no such conversation.
            revision: What takes the place of the stored revision.
            first: The position of the first body in a new conversation; in one that is there, the first body goes to
                `end` of the stored head.

        Returns:
            The new head.

        Raises:
            Conflict: The stored version is another one (see `check_version`); with the stored head.
        """

    @abstractmethod
    def _read_range(self, key: Key, start: int, stop: int | None) -> ReadResult | None:
        """Return the head, and the records at `head.narrow(start, stop)`, as they were at one moment.

        The run of records may end early, to bound memory, but is empty only if the range is.

        Args:
            key: The conversation.
            start: The first position; a negative one counts from the end.
            stop: One above the last position; None: the end.

        Returns:
            None if there is no such conversation.

        Raises:
            CorruptRecord: The head or the first record of the range is damaged. If a later record is damaged, the run
                may also end before it.
        """

    def _list_heads(self, scope: str, *, below: SortKey | None, count: int) -> Iterable[Head | Damaged]:  # noqa: ARG002 - for those that override it
        """Return heads of a scope in descending order of `Head.sort_key`.

        Override it, or override `_list_page` if the storage has cursors of its own.

        Args:
            scope: The scope.
            below: Only heads whose sort key is smaller are wanted; None: all are.
            count: How many heads are wanted; fewer only if there are no more.

        Returns:
            The heads, and among them the conversations whose head is damaged, at about their place in the order. These
            do not count. They may come again with the next page, but none may be left out of all pages.
        """
        raise TypeError(f"{class_name(self)} must have a method _list_heads or _list_page")

    def _list_page(self, scope: str, *, after: Cursor | None, limit: int) -> Page[Head]:
        """Return a page of a scope; for stores with cursors of their own.

        Args:
            scope: The scope.
            after: `next` of the page before, as this method returned it or as anybody made it up; None: the first page.
            limit: How many heads the page has at most; 1 or more.

        Raises:
            InvalidInput: `after` is not a cursor of this store.
        """
        below = None if after is None else decode_cursor(after)
        rows = list(self._list_heads(scope, below=below, count=limit + 1))
        heads = [row for row in rows if isinstance(row, Head)]
        damaged = [row for row in rows if isinstance(row, Damaged)]
        return Page(heads[:limit], encode_cursor(heads[limit - 1]) if len(heads) > limit else None, damaged)

    @abstractmethod
    def _list_keys(self, scope: str | None) -> Iterable[Key]:
        """Return or yield the key of every conversation of a scope (None: of all scopes), in any order.

        A conversation whose head is damaged is among them if its key is known.
        """

    @abstractmethod
    def _forget_records(self, key: Key, before: int) -> Head | None:
        """Remove the records below a position in one step; the version stays.

        Args:
            key: The conversation.
            before: 0 or more; beyond the end: all records go, and `end` stays.

        Returns:
            `head.drop_below(before)`; None if there is no such conversation.
        """

    @abstractmethod
    def _delete(self, key: Key, version: str | None) -> bool:
        """Remove a conversation in one step.

        Args:
            key: The conversation.
            version: Remove it only if this is the stored version; None: in any case, also if its head is damaged.

        Returns:
            False if there is no such conversation.

        Raises:
            Conflict: The stored version is another one; with the stored head.
        """

    # What a backend may write as well.

    def _close(self) -> None:
        """Release what this store opened, and nothing that it was given. Called once, and not in a forked child."""

    def _list_damaged_keys(self, scope: str | None) -> Iterable[Damaged]:  # noqa: ARG002 - for those that can have some
        """Return or yield what is stored in a scope (None: in all scopes) and has no key that can be told.

        What does not even tell its scope belongs to every scope. The default is right for a storage in which nothing
        can be without its key.
        """
        return ()

    def _scan_keys(self, scope: str | None) -> Iterable[Key]:
        """Return what `_list_keys` returns, found in the storage itself and not in an index that can be lost."""
        return self._list_keys(scope)

    def _is_index_complete(self) -> bool:
        """Return whether `_list_keys` and the listing name every conversation for certain."""
        return True

    def _remove_leftovers(self, scope: str) -> Leftovers:
        """Remove what is stored in a scope beside conversations that can be read; then look whether anything is left.

        The default removes nothing: right for stores that keep nothing else.
        """
        left = [key.id for key in self._scan_keys(scope)]
        left += [damaged.where for damaged in self._list_damaged_keys(scope)]
        return Leftovers(0, tuple(left), not left)

    def _check(self) -> None:
        """Make one round trip to see whether the store can be reached, and raise what is wrong."""
        self._list_page("default", after=None, limit=1)

    # What the core calls.

    @final
    def append(
        self, key: Key, bodies: Sequence[str], *, after: Head | None, revision: Revision, first: int = 0
    ) -> Head:
        self._open_guard.check()
        check_type("key", key, Key, "a Key")
        batch = check_append(bodies, revision, self.traits, first=first)
        if (first if after is None else after.end) + len(batch) > LARGEST_NUMBER:
            raise InvalidInput("positions must be below 2**53")
        return self._append_records(key, batch, after=after, revision=revision, first=first)

    @final
    def read(self, key: Key, *, start: int = 0, stop: int | None = None) -> ReadResult | None:
        self._open_guard.check()
        check_type("key", key, Key, "a Key")
        check_range(start, stop)
        return self._read_range(key, start, stop)

    @final
    def heads(self, scope: str, *, after: Cursor | None = None, limit: int = 20) -> Page[Head]:
        self._open_guard.check()
        check_text("scope", scope)
        check_count("limit", limit, least=1)
        return self._list_page(scope, after=after, limit=limit)

    @final
    def keys(self, scope: str | None = None) -> Iterator[Key]:
        self._open_guard.check()
        check_type("scope", scope, (str, NoneType), "text or None")
        return self._while_open(self._list_keys(scope))

    @final
    def damaged_keys(self, scope: str | None = None) -> Iterator[Damaged]:
        self._open_guard.check()
        check_type("scope", scope, (str, NoneType), "text or None")
        return self._while_open(self._list_damaged_keys(scope))

    @final
    def scan_keys(self, scope: str | None = None) -> Iterator[Key]:
        self._open_guard.check()
        check_type("scope", scope, (str, NoneType), "text or None")
        return self._while_open(self._scan_keys(scope))

    @final
    def is_index_complete(self) -> bool:
        self._open_guard.check()
        return self._is_index_complete()

    @final
    def forget(self, key: Key, *, before: int) -> Head | None:
        self._open_guard.check()
        check_type("key", key, Key, "a Key")
        check_position("before", before)
        return self._forget_records(key, max(before, 0))

    @final
    def delete(self, key: Key, *, version: str | None = None) -> bool:
        self._open_guard.check()
        check_type("key", key, Key, "a Key")
        return self._delete(key, version)

    @final
    def remove_leftovers(self, scope: str) -> Leftovers:
        self._open_guard.check()
        check_text("scope", scope)
        return self._remove_leftovers(scope)

    @final
    def check(self) -> None:
        self._open_guard.check()
        self._check()

    @final
    def close(self) -> None:
        if self._open_guard.close():
            self._close()

    def get_recovery(self) -> HeadRecovery | None:
        return self if isinstance(self, HeadRecovery) else None

    def get_storage_notes(self) -> StorageNotes | None:
        return self if isinstance(self, StorageNotes) else None

    def get_sweeping(self) -> Sweeping | None:
        return self if isinstance(self, Sweeping) else None

    def _check_open(self) -> None:
        """Raise `StoreClosed` if the store is closed, or was used before a fork; abilities call this first."""
        self._open_guard.check()

    def _while_open(self, items: Iterable[T]) -> Iterator[T]:
        """Yield items until the store is closed."""
        for item in items:
            yield item
            self._check_open()
