"""Stores with one mistake each, and the tests of the contract that must catch it."""

from __future__ import annotations

from correct_stores import NamedStore

WRONG = {}
"""The names of the tests that must fail, by class of store."""


def caught_by(*tests):
    def keep(cls):
        WRONG[cls] = tests
        return cls

    return keep


class Wrong(NamedStore):
    """The base class of the wrong stores, which is correct itself."""

    def present_head(self, key):
        """Return the current head, or None."""
        with self._data.lock:
            found = self._find_conversation(key)
            return found.head if found else None

    def all_heads(self, scope):
        with self._data.lock:
            return [found.head for found in self._data.scopes.get(scope, {}).values()]

    def put_head(self, head):
        """Replace the stored head below the interface."""
        with self._data.lock:
            self._find_conversation(head.key).head = head
        return head


import wrong_column_types  # noqa: E402, F401
import wrong_damage  # noqa: E402, F401
import wrong_errors  # noqa: E402, F401
import wrong_hooks  # noqa: E402, F401
import wrong_leftovers  # noqa: E402, F401
import wrong_open_close  # noqa: E402, F401  # registers its stores
import wrong_reads  # noqa: E402, F401
import wrong_stored_text  # noqa: E402, F401
import wrong_transactions  # noqa: E402, F401
import wrong_writes  # noqa: E402, F401
