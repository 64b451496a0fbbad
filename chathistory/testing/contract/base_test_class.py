"""The base class of the suite: the fixture and the hooks that the author of a backend overrides."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest

from chathistory.storage.store import HistoryStore
from chathistory.storage.values import Key
from chathistory.testing.contract.explain_failures import name_guarantees

__all__ = ["DOES_NOT_APPLY", "ContractTest", "skip_unless"]

DOES_NOT_APPLY = "traits: "
"""Prefix of the reason of a skip that is caused by the traits or the abilities of the store."""


class ContractTest:
    """The part of the suite that is overridden for a backend."""

    def __init_subclass__(cls, *, guarantee: int | None = None, **options: Any) -> None:
        """Note the guarantee that the tests of a class are about."""
        super().__init_subclass__(**options)
        if guarantee is not None:
            name_guarantees(cls, guarantee)

    @pytest.fixture
    def store(self) -> Any:
        """Yield an open, empty store; afterwards close it and remove its data. Must be overridden.

        Yields:
            The store under test.
        """
        pytest.fail(f"override the fixture `store` in {type(self).__name__}: it must yield an open, empty store")

    def reopen(self, store: HistoryStore) -> HistoryStore:
        """Return a second instance on the data of `store`, as another process would open it by the same URL.

        Must be overridden if `traits` are shared or durable.

        Args:
            store: The store under test; it may be closed.

        Returns:
            A new, open store. The suite closes it.
        """
        pytest.fail(
            f"override reopen() in {type(self).__name__}: the traits of {type(store).__name__} are shared or durable, "
            "so the suite needs a second instance on the same data"
        )

    def unreachable_store(self) -> HistoryStore:
        """Return a store with a server or disk that cannot be reached.

        Must be overridden if `traits` are shared or durable. Opening it must not fail; every call must.

        Returns:
            The store. The suite closes it.
        """
        pytest.fail(
            f"override unreachable_store() in {type(self).__name__}: the traits are shared or durable, so the suite "
            "needs a store whose server or disk cannot be reached"
        )

    # Hooks that look below the interface. Tests are skipped if their hook is not overridden, and the report says so.
    # The texts that the suite searches for are ASCII letters, digits and blanks.

    def remains(self, text: str) -> Sequence[str]:
        """Find where the storage still holds a text.

        Search what an account with full rights can read through the service's own interface (all rows, keys, documents
        or objects under the store's prefix), and for a backend that keeps files, every byte of the files.

        Args:
            text: ASCII letters, digits and blanks.

        Returns:
            The places that hold the text, for the failure message; an empty list if no place does.
        """
        pytest.skip(f"hook: remains() of {type(self).__name__} is not overridden")

    def damage_record(self, store: HistoryStore, key: Key, position: int) -> None:
        """Damage a stored record below the interface, so that it cannot be read: change a bit of it.

        Args:
            store: The store under test.
            key: The conversation.
            position: The position of the record.
        """
        pytest.skip(f"hook: damage_record() of {type(self).__name__} is not overridden")

    def damage_head(self, store: HistoryStore, key: Key) -> None:
        """Damage the stored head of a conversation below the interface, so that it cannot be read.

        Args:
            store: The store under test.
            key: The conversation.
        """
        pytest.skip(f"hook: damage_head() of {type(self).__name__} is not overridden")

    def lose_index(self, store: HistoryStore, key: Key) -> None:
        """Remove a conversation from every index that can lose an entry on this server, and keep the conversation.

        If the store has no such index, override the hook with a method that does nothing.

        Args:
            store: The store under test.
            key: The conversation.
        """
        pytest.skip(f"hook: lose_index() of {type(self).__name__} is not overridden")

    @contextmanager
    def _second_instance(self, store: HistoryStore) -> Iterator[HistoryStore]:
        """Yield another instance on the data of `store`, or `store` itself if it is neither shared nor durable."""
        shared = store.traits.shared or store.traits.durable
        with self.reopen(store) if shared else nullcontext(store) as other:
            yield other


def skip_unless(condition: object, reason: str) -> None:
    """Skip a test that does not apply to the store, and say in the report what the store lacks.

    Args:
        condition: False to skip. It may depend only on the traits and the abilities of the store.
        reason: What the store lacks, such as "not shared".
    """
    if not condition:
        pytest.skip(DOES_NOT_APPLY + reason)
