"""What is certified: a URL and the hooks of its author. Opens stores, and removes what a test left."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field

from chathistory.errors import ConfigError
from chathistory.storage.plugins import open_store
from chathistory.storage.store import HistoryStore
from chathistory.storage.url import StoreURL
from chathistory.storage.values import Key, Traits
from chathistory.testing.certify.author_hooks import CertifyHooks
from chathistory.testing.certify.scope_names import ScopeNames
from chathistory.testing.certify.scoped_store import ScopedStore
from chathistory.testing.certify.writer_process import WriterOrder

__all__ = ["Target"]


@dataclass(slots=True, kw_only=True)
class Target:
    """The store under test.

    Attributes:
        url: The URL to certify; its `repr` hides secrets.
        unreachable: The URL of a store that cannot be reached, or None.
        hooks: The hooks of the author.
        exclusive: True if nothing else is stored there, so the tests may use scopes by their own names.
        leftover_scopes: Scopes that could not be emptied.
    """

    url: StoreURL
    unreachable: StoreURL | None = None
    hooks: CertifyHooks = field(default_factory=CertifyHooks)
    exclusive: bool = False
    leftover_scopes: list[str] = field(default_factory=list)

    def check_ready(self) -> Traits:
        """Check that the store answers, and that an exclusive one is empty.

        Returns:
            The traits of the store.

        Raises:
            ConfigError: The store must be empty (`exclusive`), and is not.
            StoreError: The store does not answer.
        """
        with self.open_unscoped() as store:
            store.check()
            if self.exclusive and next(iter(store.keys()), None) is not None:
                raise ConfigError("there are conversations at this URL; an exclusive store must be empty")
            return store.traits

    def open_unscoped(self) -> HistoryStore:
        """Open the store under test, with unchanged names."""
        return open_store(self.url)

    def open_scoped(self) -> ScopedStore:
        """Open the store under test, with fresh names of scopes."""
        return ScopedStore(self.open_unscoped(), ScopeNames(plain=self.exclusive))

    def reopen(self, scoped: ScopedStore) -> ScopedStore:
        """Return a second instance on the data of a scoped store."""
        again = self.hooks.reopen(scoped.inner) if self.hooks.reopen else self.open_unscoped()
        return ScopedStore(again, scoped.names)

    def unreachable_store(self) -> HistoryStore | None:
        """Return a store that cannot be reached, or None if neither a hook nor a URL was given."""
        if self.hooks.unreachable_store:
            return self.hooks.unreachable_store()
        return open_store(self.unreachable) if self.unreachable else None

    def order(
        self,
        scoped: ScopedStore,
        key: Key,
        work: str,
        *,
        rounds: int,
        name: str = "writer",
        until_stdin_closes: bool = False,
    ) -> WriterOrder:
        """Return an order for a writer process.

        Args:
            scoped: The store; its names are used.
            key: The conversation to work on.
            work: A method of the writer's jobs, such as "appends".
            rounds: How many rounds it does at least.
            name: Part of the bodies that it writes.
            until_stdin_closes: Whether it continues until its standard input is closed.
        """
        return WriterOrder(
            self.url,
            scoped.names.stored_key(key),
            work=work,
            rounds=rounds,
            name=name,
            until_stdin_closes=until_stdin_closes,
        )

    def clear(self, scoped: ScopedStore) -> None:
        """Close a scoped store and remove everything in its scopes; other scopes are never touched."""
        with suppress(Exception):  # the suite tests whether it closes
            scoped.inner.close()
        scopes = list(scoped.names)
        try:
            with self.open_unscoped() as store:
                self.leftover_scopes += [scope for scope in scopes if not _empty_scope(store, scope)]
        except Exception:  # noqa: BLE001  # a failing store may fail here, too; the scopes are reported
            self.leftover_scopes += scopes


def _empty_scope(store: HistoryStore, scope: str) -> bool:
    """Remove everything in a scope; return True if nothing is left."""
    for key in [*store.keys(scope), *store.scan_keys(scope)]:
        if key.scope == scope:  # a wrong store may yield keys of other scopes
            store.delete(key)
    left = store.remove_leftovers(scope)
    return left.complete and next(iter(store.keys(scope)), None) is None
