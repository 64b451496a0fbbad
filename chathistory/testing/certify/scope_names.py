"""Fresh names: the scopes that a test speaks of, as scopes that nobody can have used before."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator

from chathistory.storage.values import LONGEST_NAME, Head, Key

__all__ = ["ScopeNames"]

_BEGINNING = "certify-"


class ScopeNames:
    """One test's scopes: what it calls them, and what they are called in the store.

    A fresh beginning is put before each, so prefixes stay prefixes and patterns stay patterns. With `plain` they are
    called what they are: for a place that is known to be empty. Ids are always what they are.
    """

    def __init__(self, *, plain: bool = False) -> None:
        self._beginning = "" if plain else f"{_BEGINNING}{secrets.token_hex(8)}-"
        self._real: dict[str, str] = {}
        self._given: dict[str, str] = {}
        self._lock = threading.Lock()

    def __iter__(self) -> Iterator[str]:
        """Yield the scopes that were used, as they are called in the store."""
        return iter(list(self._given))

    def stored_scope(self, scope: str) -> str:
        """Return what a scope is called in the store; what is no text stays as it is, for the store to refuse."""
        if not isinstance(scope, str):
            return scope
        with self._lock:
            if scope not in self._real:
                self._real[scope] = self._make_fresh(scope)
                self._given[self._real[scope]] = scope
            return self._real[scope]

    def _make_fresh(self, scope: str) -> str:
        """Put the beginning before a scope; where that is too long, in place of the scope's own."""
        beginning = self._beginning
        while True:
            left = LONGEST_NAME - len(beginning)
            name = beginning + (scope if len(scope) <= left else scope[-left:])
            if name not in self._given:
                return name
            beginning += "-"

    def stored_key(self, key: Key) -> Key:
        """Return the key in the store; what is no key stays as it is, for the store to refuse."""
        return Key(self.stored_scope(key.scope), key.id) if isinstance(key, Key) else key

    def stored_head(self, head: Head) -> Head:
        """Return the head as it is in the store."""
        return Head(self.stored_key(head.key), head.start, head.end, head.revision)

    def has_key(self, key: Key) -> bool:
        """Tell whether a key of the store is in a scope of this test."""
        return key.scope in self._given

    def original_key(self, key: Key) -> Key:
        """Return the key as the test calls it; one of somebody else stays what it is, and so is seen to be wrong."""
        return Key(self._given.get(key.scope, key.scope), key.id)

    def original_head(self, head: Head | None) -> Head | None:
        """Return the head as the test knows it."""
        return head and Head(self.original_key(head.key), head.start, head.end, head.revision)
