"""The memory backend keeps the contract; so do stores that are right in less usual ways, and a database."""

from __future__ import annotations

import pytest
from chathistory_memory import MemoryStore
from right_sql import SQLStore
from right_stores import FrugalStore, LimitedStore, NamedStore, contract_of, found_in
from wrong_sql import SQL

from chathistory.testing import HistoryStoreContract


class TestPrivate(HistoryStoreContract):
    """`memory:`, which is neither shared nor durable: what needs that is left out by its traits."""

    @pytest.fixture
    def store(self):
        with MemoryStore() as self.opened:
            yield self.opened

    def remains(self, text):
        return found_in(self.opened._room, text)


class TestNamed(contract_of(NamedStore)):
    """`memory:NAME`, taken for a server: every test that needs a second instance or a dead one runs here."""


class TestLimited(contract_of(LimitedStore)):
    """A store with limits: the tests of limits run here."""


class TestFrugal(contract_of(FrugalStore)):
    """Short reads, short pages, lazy keys and a listing by buckets are within the contract."""


class TestSQL(contract_of(SQLStore)):
    """A database: the tests of damage run here."""


class TestRecovering(contract_of(SQL)):
    """A database whose heads can be restored: the base of the wrong ones."""
