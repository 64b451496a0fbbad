"""The memory backend keeps the contract, and so do correct stores of less usual kinds, and a database.

`memory:` runs the whole contract each time. The other stores run what they alone can break; all the rest of the
contract runs on them in the wide tier.
"""

from __future__ import annotations

import pytest
from chathistory_memory import MemoryStore
from correct_sql_store import SQLStore
from correct_stores import FrugalStore, LimitedStore, NamedStore, contract_of, find_text_in, run_first
from store_without_base_class import DuckStore
from wrong_sql_base import SQL

from chathistory import ChatEngine, History, WrappedStore
from chathistory.storage.values import Key
from chathistory.testing import FakeMessagesAPI, HistoryStoreContract
from chathistory.testing.contract.atomic_batches import Atomic
from chathistory.testing.contract.checked_reads import read_pages
from chathistory.testing.contract.concurrency import Concurrency
from chathistory.testing.contract.damage import DamagedHeads, DamagedRecords
from chathistory.testing.contract.errors import NoMessageText, UnreachableStore, WrongArguments
from chathistory.testing.contract.forget_and_delete import Deleting, Forgetting
from chathistory.testing.contract.head_recovery import RecoveredHeads
from chathistory.testing.contract.listing import Listing, ListingWhileOthersWrite
from chathistory.testing.contract.open_close_fork import OpenCloseFork
from chathistory.testing.contract.reading import Reading
from chathistory.testing.contract.removed_text import RemovedText
from chathistory.testing.contract.samples import create_conversation
from chathistory.testing.contract.scan_without_index import CompleteWalks
from chathistory.testing.contract.second_instance import DurableData, SharedInstances
from chathistory.testing.contract.version_guard import VersionGuard


class TestPrivate(HistoryStoreContract):
    """`memory:`, which is neither shared nor durable: its traits skip the tests that need that."""

    @pytest.fixture
    def store(self):
        with MemoryStore() as self.opened:
            yield self.opened

    def remains(self, text):
        return find_text_in(self.opened._data, text)


@pytest.mark.wide
class TestDuck(HistoryStoreContract):
    """A store without the base class. `TestWrapped` runs on one too."""

    @pytest.fixture
    def store(self):
        with DuckStore() as self.opened:
            yield self.opened

    def remains(self, text):
        return self.opened.find_text(text)


@run_first(Reading, Listing, VersionGuard, Forgetting, Deleting, WrongArguments, NoMessageText, OpenCloseFork)
class TestWrapped(HistoryStoreContract):
    """A store that wraps another one, which wraps a store without a base class: each method is passed on."""

    @pytest.fixture
    def store(self):
        self.opened = DuckStore()
        with WrappedStore(WrappedStore(self.opened)) as store:
            yield store

    def remains(self, text):
        return self.opened.find_text(text)


@pytest.mark.parametrize("wrap", [lambda store: store, WrappedStore])
def test_a_store_without_the_base_class_is_accepted_everywhere(wrap):
    store = wrap(DuckStore())
    chat = History(store).conversation("c", scope="s")
    chat.append({"role": "user", "content": "hello"})
    ChatEngine(FakeMessagesAPI().client(), store, model="claude-opus-4-8").send("d", "hello", scope="s")
    assert [found.id for found in History(store, scope="s").list().items] == ["d", "c"]
    assert History(store).conversation("c", scope="s").log.lock is chat.log.lock
    assert History(store).check(scope="s").found == ()
    assert History(store).erase("s").complete
    assert list(store.keys()) == []


@run_first(Concurrency, SharedInstances, DurableData, UnreachableStore, ListingWhileOthersWrite)
class TestNamed(contract_of(NamedStore)):
    """`memory:NAME` as a server: all tests with a second instance or an unreachable store run here."""


@run_first(Atomic)
class TestLimited(contract_of(LimitedStore)):
    """A store with limits: the tests of limits run here."""


@run_first(Reading, Listing, ListingWhileOthersWrite, CompleteWalks)
class TestFrugal(contract_of(FrugalStore)):
    """Short reads, short pages, lazy keys and a listing by buckets are within the contract."""


@run_first(DamagedRecords, DamagedHeads, RemovedText, CompleteWalks)
class TestSQL(contract_of(SQLStore)):
    """A database: the tests of damage run here."""

    @pytest.mark.parametrize("damage", ["id = char(1)", "id = ''", "id = CAST(x'ff' AS TEXT)"])
    def test_a_head_without_a_key_is_reported_for_its_scope(self, store, damage):
        for at in range(3):
            create_conversation(store, Key("scope", f"c{at}"))
        create_conversation(store, Key("other", "c"))
        self.damage_head(store, Key("scope", "c1"))
        SQLStore.execute(self.place, f"UPDATE heads SET {damage} WHERE (scope, id) = (?, ?)", Key("scope", "c1"))
        with self.reopen(store) as other:
            assert [head.key.id for page in read_pages(other, "scope", 1) for head in page.items] == ["c2", "c0"]
            [damaged] = other.heads("scope").damaged
            reported = [*other.heads("scope", limit=1).damaged, *other.damaged_keys("scope"), *other.damaged_keys()]
            assert [each.where for each in reported] == [damaged.where] * 3
            assert [each.key for each in reported] == [None] * 3
            assert list(other.damaged_keys("other")) == []
            assert sorted(other.keys("scope")) == [Key("scope", "c0"), Key("scope", "c2")]
            left = other.remove_leftovers("scope")
            assert (left.complete, damaged.where in left.left) == (False, True)


@run_first(RecoveredHeads)
class TestRecovering(contract_of(SQL)):
    """A database with HeadRecovery: the base class of the wrong stores on a database."""
