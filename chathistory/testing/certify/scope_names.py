"""Fresh names: maps the scopes of a test to scopes that were never used before."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator

from chathistory.storage.values import LONGEST_NAME, Head, Key

__all__ = ["ScopeNames"]

_PREFIX = "certify-"


class ScopeNames:
    """The scopes of a test, by the names of the test and by their names in the store.

    Every scope gets the same fresh prefix, so prefixes stay prefixes and patterns stay patterns. Ids are unchanged.

    Args:
        plain: Use scopes under their own names, for a store that is known to be empty.
    """

    def __init__(self, *, plain: bool = False) -> None:
        self._prefix = "" if plain else f"{_PREFIX}{secrets.token_hex(8)}-"
        self._stored: dict[str, str] = {}
        self._original: dict[str, str] = {}
        self._lock = threading.Lock()

    def __iter__(self) -> Iterator[str]:
        """Yield the scopes that were used, by their names in the store."""
        return iter(list(self._original))

    def stored_scope(self, scope: str) -> str:
        """Return the name of a scope in the store; a value that is not a str is unchanged, for the store to refuse."""
        if not isinstance(scope, str):
            return scope
        with self._lock:
            if scope not in self._stored:
                self._stored[scope] = self._make_fresh(scope)
                self._original[self._stored[scope]] = scope
            return self._stored[scope]

    def _make_fresh(self, scope: str) -> str:
        """Return a scope with the prefix; if that is too long, the start of the scope is cut off."""
        prefix = self._prefix
        while True:
            left = LONGEST_NAME - len(prefix)
            name = prefix + (scope if len(scope) <= left else scope[-left:])
            if name not in self._original:
                return name
            prefix += "-"

    def stored_key(self, key: Key) -> Key:
        """Return the key in the store; a value that is not a Key is unchanged, for the store to refuse."""
        return Key(self.stored_scope(key.scope), key.id) if isinstance(key, Key) else key

    def stored_head(self, head: Head) -> Head:
        """Return a head of the test with its key in the store."""
        return Head(self.stored_key(head.key), head.start, head.end, head.revision)

    def has_key(self, key: Key) -> bool:
        """Return True if a key of the store is in a scope of this test."""
        return key.scope in self._original

    def original_key(self, key: Key) -> Key:
        """Return the key by the name of the test; a key of another scope is unchanged, which the test notices."""
        return Key(self._original.get(key.scope, key.scope), key.id)

    def original_head(self, head: Head | None) -> Head | None:
        """Return a head of the store with the key of the test."""
        return head and Head(self.original_key(head.key), head.start, head.end, head.revision)
