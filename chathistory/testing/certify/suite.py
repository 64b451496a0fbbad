"""The pytest class that certifies: the contract, and the tests of this package."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from chathistory.storage.store import HistoryStore
from chathistory.storage.values import Key
from chathistory.testing.certify.base_test_class import TARGET, CertifyTest, skip_as_not_tested
from chathistory.testing.certify.constant_cost import ConstantCost
from chathistory.testing.certify.killed_processes import ConcurrentProcesses, Crashes, KilledRemovals, ReportedDamage
from chathistory.testing.certify.lost_answers import LostAnswers
from chathistory.testing.certify.scoped_store import ScopedStore
from chathistory.testing.certify.target import Target
from chathistory.testing.contract import HistoryStoreContract
from chathistory.testing.contract.checked_reads import read_bodies
from chathistory.testing.contract.samples import create_conversation, make_lines
from chathistory.testing.guarantees import belongs_to

__all__ = ["TestStore"]

_KEY = Key("bystander", "conversation")


@pytest.fixture(scope="session")
def bystander(request: pytest.FixtureRequest) -> Iterator[ScopedStore]:
    """Keep a conversation in the store from the first test to the last; no test may touch it."""
    target: Target = request.config.stash[TARGET]
    scoped = target.open_scoped()
    create_conversation(scoped, _KEY, 5)
    yield scoped
    target.clear(scoped)


class TestStore(
    HistoryStoreContract,
    LostAnswers,
    Crashes,
    KilledRemovals,
    ConcurrentProcesses,
    ReportedDamage,
    ConstantCost,
    CertifyTest,
):
    """All tests, on the store at a URL."""

    __test__ = True  # whatever names of test classes a project has configured

    @pytest.fixture
    def store(self, request: pytest.FixtureRequest) -> Iterator[HistoryStore]:
        self.target = request.config.stash[TARGET]
        request.getfixturevalue("bystander")
        self.scoped = self.target.open_scoped()
        yield self.scoped
        self.target.clear(self.scoped)

    def reopen(self, store: HistoryStore) -> HistoryStore:
        assert isinstance(store, ScopedStore)
        return self.target.reopen(store)

    def unreachable_store(self) -> HistoryStore:
        store = self.target.unreachable_store()
        return store or skip_as_not_tested("a store that cannot be reached (its URL, or the hook `unreachable_store`)")

    def remains(self, text: str) -> Sequence[str]:
        return (self.target.hooks.remains or skip_as_not_tested("the hook `remains`"))(text)

    def damage_record(self, store: HistoryStore, key: Key, position: int) -> None:
        damage = self.target.hooks.damage or skip_as_not_tested("the hook `damage`")
        assert isinstance(store, ScopedStore)
        damage(store.inner, store.names.stored_key(key), position)

    def damage_head(self, store: HistoryStore, key: Key) -> None:
        damage = self.target.hooks.damage_head or skip_as_not_tested("the hook `damage_head`")
        assert isinstance(store, ScopedStore)
        damage(store.inner, store.names.stored_key(key))

    def lose_index(self, store: HistoryStore, key: Key) -> None:
        lose = self.target.hooks.lose_index or skip_as_not_tested("the hook `lose_index`")
        assert isinstance(store, ScopedStore)
        lose(store.inner, store.names.stored_key(key))

    @belongs_to(8)
    def test_existing_conversations_are_untouched(self, bystander: ScopedStore) -> None:
        """Run last (see `LAST_TEST`), after all tests that might touch the conversation."""
        assert read_bodies(bystander, _KEY) == make_lines(5), "a conversation of another scope was changed by a test"
