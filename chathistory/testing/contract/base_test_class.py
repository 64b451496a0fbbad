"""What the themes of the suite share: the fixture and the hooks that the author of a backend gives."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest

from chathistory.storage.store import HistoryStore
from chathistory.storage.values import Key
from chathistory.testing.contract.explain_failures import name_guarantees

__all__ = ["ContractTest", "skip_unless"]


class ContractTest:
    """The part of the suite that a backend fills in."""

    def __init_subclass__(cls, *, guarantee: int | None = None, **options: Any) -> None:
        """Take the number of the guarantee that the tests of a theme are about."""
        super().__init_subclass__(**options)
        if guarantee is not None:
            name_guarantees(cls, guarantee)

    @pytest.fixture
    def store(self) -> Any:
        """Yield a store that is open and empty; afterwards close it and remove its data. To be overridden."""
        pytest.fail("override the fixture `store`: it yields an open, empty store of the backend under test")

    def reopen(self, store: HistoryStore) -> HistoryStore:
        """Return a second instance onto the data of `store`, as another process would open from the same URL.

        Needed if `traits` say shared or durable. `store` may be closed by then. The suite closes what it gets.
        """
        pytest.fail(f"override reopen(): the traits of {type(store).__name__} say shared or durable")

    def unreachable_store(self) -> HistoryStore:
        """Return a store, opened without error, whose server or disk cannot be reached: every call has to fail.

        Needed if `traits` say shared or durable. The suite closes what it gets.
        """
        pytest.fail(
            f"override unreachable_store(): the traits that {type(self).__name__} is run with say shared or durable"
        )

    # Hooks that look below the interface. A test whose hook is not overridden does not run, and the report says so.
    # The texts that the suite looks for are ASCII letters, digits and blanks.

    def remains(self, text: str) -> Sequence[str]:
        """Return the places of the storage that still hold `text`, an empty list if none does.

        Reads what an account with full rights can read through the service's own interface (all rows, keys, documents
        or objects below the store's prefix), and for a backend that keeps files the files themselves, byte by byte.
        """
        pytest.skip(f"hook: remains() of {type(self).__name__} is not overridden")

    def damage_record(self, store: HistoryStore, key: Key, position: int) -> None:
        """Change a bit of the stored record at `position`, below the interface, so that it cannot be read."""
        pytest.skip(f"hook: damage_record() of {type(self).__name__} is not overridden")

    def damage_head(self, store: HistoryStore, key: Key) -> None:
        """Change the stored head of `key`, below the interface, so that it cannot be read."""
        pytest.skip(f"hook: damage_head() of {type(self).__name__} is not overridden")

    def lose_index(self, store: HistoryStore, key: Key) -> None:
        """Remove the entry of `key` from every index that can lose one on this server; leave the conversation itself.

        Only for stores that keep such an index; to be overridden by doing nothing if there is none.
        """
        pytest.skip(f"hook: lose_index() of {type(self).__name__} is not overridden")

    @contextmanager
    def _second_instance(self, store: HistoryStore) -> Iterator[HistoryStore]:
        """Give another instance onto the data of `store`, or `store` itself where there can be none."""
        shared = store.traits.shared or store.traits.durable
        with self.reopen(store) if shared else nullcontext(store) as other:
            yield other


def skip_unless(condition: object, reason: str) -> None:
    """Go on if `condition` holds; else say in the test report what the store lacks.

    The condition may look at nothing but the traits, and the abilities that the store's class has.
    """
    if not condition:
        pytest.skip(f"traits: {reason}")
