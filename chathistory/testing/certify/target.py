"""What is certified: a URL, the hooks of its author, and the taking away of all that a test left there."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass, field

from chathistory.errors import ConfigError
from chathistory.storage.plugins import open_store
from chathistory.storage.store import HistoryStore
from chathistory.storage.values import Key, Traits
from chathistory.testing.certify.author_hooks import CertifyHooks
from chathistory.testing.certify.scope_names import ScopeNames
from chathistory.testing.certify.scoped_store import ScopedStore

__all__ = ["Target"]


@dataclass(slots=True, kw_only=True)
class Target:
    """The place under test.

    exclusive: nobody else has anything there, so the tests may use scopes by their plain names.
    left: scopes that could not be emptied again.
    """

    url: str = field(repr=False)
    unreachable: str | None = field(default=None, repr=False)
    hooks: CertifyHooks = field(default_factory=CertifyHooks)
    exclusive: bool = False
    leftover_scopes: list[str] = field(default_factory=list)

    def check_ready(self) -> Traits:
        """See that the store answers, and that an exclusive place is empty.

        Returns:
            The traits of the store.

        Raises:
            ConfigError: The place is meant to be empty, and is not.
            StoreError: The store does not answer.
        """
        with self.open_unscoped() as store:
            store.check()
            if self.exclusive and next(iter(store.keys()), None) is not None:
                raise ConfigError("there are conversations at this URL: an exclusive place has to be empty")
            return store.traits

    def open_unscoped(self) -> HistoryStore:
        """Open the store under test, by its own names."""
        return open_store(self.url)

    def open_scoped(self) -> ScopedStore:
        """Open the store under test, with fresh names."""
        return ScopedStore(self.open_unscoped(), ScopeNames(plain=self.exclusive))

    def reopen(self, scoped: ScopedStore) -> ScopedStore:
        """Return a second instance onto the data of a scoped store."""
        again = self.hooks.reopen(scoped.inner) if self.hooks.reopen else self.open_unscoped()
        return ScopedStore(again, scoped.names)

    def unreachable_store(self) -> HistoryStore | None:
        """Return a store that cannot be reached; None: nobody said how to come by one."""
        if self.hooks.unreachable_store:
            return self.hooks.unreachable_store()
        return open_store(self.unreachable) if self.unreachable else None

    def order(
        self, scoped: ScopedStore, key: Key, work: str, *, rounds: int, name: str = "writer", until_told: bool = False
    ) -> str:
        """Return what a process of its own has to know to work on a conversation, for its standard input.

        Not its arguments, which everybody can see: a URL may hold a password.
        """
        real = scoped.names.stored_key(key)
        whose = {"url": self.url, "scope": real.scope, "id": real.id, "name": name}
        return json.dumps(whose | {"work": work, "rounds": rounds, "until_told": until_told})

    def clear(self, scoped: ScopedStore) -> None:
        """Close a scoped store and remove what is in its scopes, and nothing else, whatever the store says is there."""
        with suppress(Exception):  # that it closes is for the suite to say
            scoped.inner.close()
        scopes = list(scoped.names)
        try:
            with self.open_unscoped() as store:
                self.leftover_scopes += [scope for scope in scopes if not _empty_scope(store, scope)]
        except Exception:  # noqa: BLE001  # a store that fails may fail here too; what is left is reported
            self.leftover_scopes += scopes


def _empty_scope(store: HistoryStore, scope: str) -> bool:
    """Remove what is in a scope, and return whether nothing is left."""
    for key in [*store.keys(scope), *store.scan_keys(scope)]:
        if key.scope == scope:  # whatever the store says
            store.delete(key)
    left = store.remove_leftovers(scope)
    return left.complete and next(iter(store.keys(scope)), None) is None
