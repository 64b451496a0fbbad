"""The store under test with fresh names of scopes, and otherwise unchanged."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Self, cast

from chathistory.errors import ChatHistoryError, Conflict, CorruptRecord
from chathistory.storage.abilities import FoundRecords, HeadRecovery
from chathistory.storage.store import HistoryStore
from chathistory.storage.values import Cursor, Damaged, Head, Key, Leftovers, Page, ReadResult, Record, Revision
from chathistory.storage.wrapped_store import WrappedStore
from chathistory.testing.certify.scope_names import ScopeNames

__all__ = ["ScopedStore"]


class ScopedStore(WrappedStore):
    """Passes every call on to the store under test, and changes only the names of scopes.

    Errors pass with their causes and notes, since the suite checks those.
    """

    def __init__(self, inner: HistoryStore, names: ScopeNames) -> None:
        super().__init__(inner)
        self.names = names

    def append(
        self, key: Key, bodies: Sequence[str], *, after: Head | None, revision: Revision, first: int = 0
    ) -> Head:
        seen = self.names.stored_head(after) if after else None
        with self.rename_errors():
            head = self.inner.append(self.names.stored_key(key), bodies, after=seen, revision=revision, first=first)
        return cast("Head", self._rename_head(head))

    def read(self, key: Key, *, start: int = 0, stop: int | None = None) -> ReadResult | None:
        with self.rename_errors():
            run = self.inner.read(self.names.stored_key(key), start=start, stop=stop)
        return ReadResult(self._rename_head(run.head), run.records) if isinstance(run, ReadResult) else run

    def heads(self, scope: str, *, after: Cursor | None = None, limit: int = 20) -> Page[Head]:
        page = self.inner.heads(self.names.stored_scope(scope), after=after, limit=limit)
        return Page(
            [self._rename_head(head) for head in page.items],
            page.next,
            [self._rename_damaged(each) for each in page.damaged],
        )

    def keys(self, scope: str | None = None) -> Iterator[Key]:
        if scope is not None:
            return map(self.names.original_key, self.inner.keys(self.names.stored_scope(scope)))
        return map(self.names.original_key, filter(self.names.has_key, self.inner.keys()))

    def forget(self, key: Key, *, before: int) -> Head | None:
        with self.rename_errors():
            return cast("Head | None", self._rename_head(self.inner.forget(self.names.stored_key(key), before=before)))

    def delete(self, key: Key, *, version: str | None = None) -> bool:
        with self.rename_errors():
            return self.inner.delete(self.names.stored_key(key), version=version)

    def damaged_keys(self, scope: str | None = None) -> Iterator[Damaged]:
        """Yield what is damaged in the scopes of this test; damage in other scopes is left out."""
        scopes = list(self.names) if scope is None else [self.names.stored_scope(scope)]
        found = {each.where: self._rename_damaged(each) for name in scopes for each in self.inner.damaged_keys(name)}
        return iter(found.values())

    def scan_keys(self, scope: str | None = None) -> Iterator[Key]:
        if scope is not None:
            return map(self.names.original_key, self.inner.scan_keys(self.names.stored_scope(scope)))
        return map(self.names.original_key, filter(self.names.has_key, self.inner.scan_keys()))

    def remove_leftovers(self, scope: str) -> Leftovers:
        return self.inner.remove_leftovers(self.names.stored_scope(scope))

    def get_recovery(self) -> HeadRecovery | None:
        recovery = self.inner.get_recovery()
        return _ScopedRecovery(recovery, self) if recovery else None

    def __enter__(self) -> Self:
        self.inner.__enter__()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.inner.__exit__(*exc_info)

    def __repr__(self) -> str:
        return repr(self.inner)

    def _rename_head(self, head: Any) -> Any:
        """Return a head with the key of the test; any other value is unchanged, so that the suite sees it."""
        return self.names.original_head(head) if isinstance(head, Head) else head

    def _rename_damaged(self, damaged: Damaged) -> Damaged:
        self._rename_error(damaged.error)
        return replace(damaged, key=self.names.original_key(damaged.key)) if damaged.key else damaged

    def _rename_error(self, error: ChatHistoryError) -> None:
        if isinstance(error, Conflict | CorruptRecord) and error.key is not None:
            error.key = self.names.original_key(error.key)
        if isinstance(error, Conflict):
            error.head = self._rename_head(error.head)

    @contextmanager
    def rename_errors(self) -> Iterator[None]:
        try:
            yield
        except ChatHistoryError as error:
            self._rename_error(error)
            raise


@dataclass(frozen=True, slots=True)
class _ScopedRecovery:
    """The HeadRecovery of the store under test, with the names of the test."""

    recovery: HeadRecovery
    scoped: ScopedStore

    def find_records(self, key: Key) -> FoundRecords | None:
        with self.scoped.rename_errors():
            found = self.recovery.find_records(self.scoped.names.stored_key(key))
        return found and replace(found, key=self.scoped.names.original_key(found.key))

    def read_found(self, found: FoundRecords, *, start: int, stop: int) -> Sequence[Record]:
        return self.recovery.read_found(self._with_stored_key(found), start=start, stop=stop)

    def restore_head(self, found: FoundRecords, head: Head) -> Head:
        with self.scoped.rename_errors():
            new = self.recovery.restore_head(self._with_stored_key(found), self.scoped.names.stored_head(head))
        return cast("Head", self.scoped.names.original_head(new))

    def _with_stored_key(self, found: FoundRecords) -> FoundRecords:
        return replace(found, key=self.scoped.names.stored_key(found.key))
