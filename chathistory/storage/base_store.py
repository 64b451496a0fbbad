"""The base class of backends, with the code that all of them need.

The public methods check that the store is open, that the process that opened it is the one that uses it, and that the
arguments are valid. They split listings into pages and make the cursors. Then each one calls one *hook* of the backend,
a method with a leading underscore, with valid arguments. One call of a public method is one call of its hook.

    append           -> _append_records             keys             -> _list_keys
    read             -> _read_range                 scan_keys        -> _scan_keys
    heads            -> _list_heads (or _list_page) damaged_keys     -> _list_damaged_keys
    forget           -> _forget_records             remove_leftovers -> _remove_leftovers
    delete           -> _delete                     check            -> _check
    close            -> _close                      is_index_complete -> _is_index_complete

`Head.narrow` and `Head.drop_below` compute ranges, and `check_version` compares the version of a writer.
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
    """Refuses calls after `close`, and in another process; `BaseStore` calls `check` at the start of every method.

    A forked child shares the sockets and file locks of its parent, and two processes that write to one of them mix up
    their bytes. So a store belongs to the process that used it first, and a child must open its own. A store that was
    not used before the fork has not connected yet (a backend connects at the first call), so each child can use its
    copy.
    """

    def __init__(self, name: str = "this store") -> None:
        """Create a guard that is open.

        Args:
            name: The name of the guarded object, for an error.
        """
        self._name = name
        self._process: int | None = None  # the process of the first call
        self._open = True

    def check(self) -> None:
        """Check that the guard is open and belongs to this process; the first call decides to which it belongs.

        Raises:
            StoreClosed: It was closed, or the parent process used it before a fork.
        """
        if self._process is None:
            self._process = os.getpid()
        elif os.getpid() != self._process:
            raise StoreClosed(f"{self._name} {_AFTER_FORK}")
        if not self._open:
            raise StoreClosed(f"{self._name} is closed; open another one")

    def close(self) -> bool:
        """Refuse all further calls.

        Returns:
            True if there is something to release: at the first call, in the process that used it.
        """
        was_open = self._open and self._process in (None, os.getpid())
        self._open = False
        return was_open


_AFTER_FORK = (
    "was used before a fork(); in the child, open another one, for example in gunicorn's post_fork, uWSGI's @postfork "
    "or Celery's worker_process_init; or do not use it before the fork"
)


class BaseStore(HistoryStore):
    """The base class of backends; a subclass writes `from_url`, `traits` and the hooks.

    The class attribute `traits` describes a store with default options. If options change the traits, `__init__` sets
    `self.traits`. A subclass with its own `__init__` calls `super().__init__()`, and does not connect in it.

    A hook raises `StoreUnavailable`, `StoreRejected` or `CorruptRecord`, with the client library's error as
    `__cause__`. It never quotes a body, a payload or a credential.
    """

    def __init__(self) -> None:
        """Create a store that is open."""
        self._open_guard = OpenGuard()

    # Hooks that a backend must implement.

    @abstractmethod
    def _append_records(
        self, key: Key, bodies: list[str], *, after: Head | None, revision: Revision, first: int
    ) -> Head:
        """Store bodies and a revision atomically, if the stored version is the one that the writer has seen.

        Args:
            key: The name of the conversation.
            bodies: The lines to store; at least one. The hook may change the list.
            after: The head that the writer has seen; None if it expects no such conversation.
            revision: The revision that replaces the stored one.
            first: The position of the first body in a new conversation. In an existing one, the first body gets the
                position `end` of the stored head.

        Returns:
            The new head.

        Raises:
            Conflict: The stored version differs (see `check_version`); with the stored head.
        """

    @abstractmethod
    def _read_range(self, key: Key, start: int, stop: int | None) -> ReadResult | None:
        """Return the head, and the records at `head.narrow(start, stop)`, in one consistent read.

        Args:
            key: The name of the conversation.
            start: The first position; a negative one counts from the end.
            stop: One above the last position; None for the end.

        Returns:
            The head and the records. To bound memory, there may be fewer records than the range has, but at least one
            unless the range is empty. None if there is no such conversation.

        Raises:
            CorruptRecord: The head or the first record of the range is damaged. If a later record is damaged, the hook
                may also return the records before it.
        """

    def _list_heads(self, scope: str, *, below: SortKey | None, count: int) -> Iterable[Head | Damaged]:  # noqa: ARG002 - for those that override it
        """Return heads of a scope in descending order of `Head.sort_key`.

        Override this method, or `_list_page` if the storage has its own cursors.

        Args:
            scope: The scope.
            below: Return only heads with a smaller sort key; None to start with the first.
            count: The number of heads to return; fewer only if there are no more.

        Returns:
            The heads. Conversations with a damaged head are among them, near their place in the order, and do not
            count. They may be returned again with the next page, but each must be on at least one page.
        """
        raise TypeError(f"{class_name(self)} must override _list_heads or _list_page")

    def _list_page(self, scope: str, *, after: Cursor | None, limit: int) -> Page[Head]:
        """Return one page of a scope. Override it if the storage has its own cursors.

        Args:
            scope: The scope.
            after: `next` of the page before; None for the first page. It comes from a caller, so it may be any text.
            limit: The most heads of the page; 1 or more.

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
        """Return or yield the key of every conversation of a scope, in any order.

        A conversation with a damaged head must be among them if its key is known.

        Args:
            scope: The scope; None for all scopes.
        """

    @abstractmethod
    def _forget_records(self, key: Key, before: int) -> Head | None:
        """Remove the records below a position atomically; the version stays the same.

        Args:
            key: The name of the conversation.
            before: The first position to keep; 0 or more. Beyond the end all records are removed, and `end` stays.

        Returns:
            `head.drop_below(before)`; None if there is no such conversation.
        """

    @abstractmethod
    def _delete(self, key: Key, version: str | None) -> bool:
        """Remove a conversation atomically.

        Args:
            key: The name of the conversation.
            version: Remove it only if this is the stored version; None to remove it in any case, also if its head is
                damaged.

        Returns:
            True if it was removed; False if there is no such conversation.

        Raises:
            Conflict: The stored version differs; with the stored head.
        """

    # Hooks that a backend may override.

    def _close(self) -> None:
        """Release what this store opened, never what it was given. Called once, and not in a forked child."""

    def _list_damaged_keys(self, scope: str | None) -> Iterable[Damaged]:  # noqa: ARG002 - for those that can have some
        """Return or yield everything stored in a scope that has no known key.

        The default is right for a storage in which everything has its key.

        Args:
            scope: The scope; None for all scopes. Data without a known scope belong to every scope.
        """
        return ()

    def _scan_keys(self, scope: str | None) -> Iterable[Key]:
        """Return the same as `_list_keys`, from the storage itself and not from an index that can be lost.

        Args:
            scope: The scope; None for all scopes.
        """
        return self._list_keys(scope)

    def _is_index_complete(self) -> bool:
        """Return True if `_list_keys` and the listing certainly name every conversation."""
        return True

    def _remove_leftovers(self, scope: str) -> Leftovers:
        """Remove everything stored in a scope that belongs to no readable conversation, then look for remains.

        The default removes nothing, which is right for stores that keep nothing else.

        Args:
            scope: The scope.
        """
        left = [key.id for key in self._scan_keys(scope)]
        left += [damaged.where for damaged in self._list_damaged_keys(scope)]
        return Leftovers(0, tuple(left), not left)

    def _check(self) -> None:
        """Make one round trip, and raise an error if the store cannot be reached or used."""
        self._list_page("default", after=None, limit=1)

    # The methods that the core calls; see `HistoryStore`.

    @final
    def append(
        self, key: Key, bodies: Sequence[str], *, after: Head | None, revision: Revision, first: int = 0
    ) -> Head:
        self._open_guard.check()
        check_type("key", key, Key, "a Key")
        batch = check_append(bodies, revision, self.traits, first=first)
        if (first if after is None else after.end) + len(batch) > LARGEST_NUMBER:
            raise InvalidInput("the last position would be 2**53 or more, which is the limit; start a new conversation")
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
        return self._yield_while_open(self._list_keys(scope))

    @final
    def damaged_keys(self, scope: str | None = None) -> Iterator[Damaged]:
        self._open_guard.check()
        check_type("scope", scope, (str, NoneType), "text or None")
        return self._yield_while_open(self._list_damaged_keys(scope))

    @final
    def scan_keys(self, scope: str | None = None) -> Iterator[Key]:
        self._open_guard.check()
        check_type("scope", scope, (str, NoneType), "text or None")
        return self._yield_while_open(self._scan_keys(scope))

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
        """Raise `StoreClosed` if the store is closed, or was used before a fork. Abilities call this first."""
        self._open_guard.check()

    def _yield_while_open(self, items: Iterable[T]) -> Iterator[T]:
        """Yield the items; raise `StoreClosed` once the store is closed."""
        for item in items:
            yield item
            self._check_open()
