"""A backend of somebody else's keeps the contract: LMDB, in about as many lines as the template."""

from __future__ import annotations

import pytest
from chathistory_lmdb import LMDBStore, _hash, _record

from chathistory.testing import HistoryStoreContract


class TestLMDB(HistoryStoreContract):
    @pytest.fixture
    def store(self, fast_folder):
        self.folder = fast_folder
        with LMDBStore(fast_folder / "history.lmdb", 2**33) as store:
            yield store

    def reopen(self, store):
        return LMDBStore(self.folder / "history.lmdb", 2**33)

    def unreachable_store(self):
        (self.folder / "a-file").write_text("where a folder should be")
        return LMDBStore(self.folder / "a-file" / "history.lmdb", 2**33)

    def remains(self, text):
        """Look at all keys and values; LMDB keeps freed pages in its file, which its page would have to name."""
        with LMDBStore(self.folder / "history.lmdb")._transaction() as txn:
            return [key.hex() for key, value in txn.cursor() if text.encode() in key + value]

    def damage_record(self, store, key, position):
        self.damage(_record(key, position))

    def damage_head(self, store, key):
        self.damage(b"h" + _hash(key.scope, key.id))

    def damage(self, place):
        with LMDBStore(self.folder / "history.lmdb")._transaction(write=True) as txn:
            txn.put(place, txn.get(place)[:-1])

    def lose_index(self, store, key):
        """Do nothing: its index is written in the transaction of the head, and cannot lose an entry."""


def test_it_is_certified_by_the_command(plugin, command):
    plugin("lmdb", "chathistory_lmdb")
    options = [word for number in (3, 6) for word in ("--only", str(number))]
    done = command("certify", "lmdb:./history.lmdb", "--json", *options)
    assert (done.code, done.errors) == (0, "")
    assert done.data["backend"] == "LMDBStore of lmdb-plugin 1.0"
    assert [each["passed"] > 0 for each in done.data["guarantees"]] == [True] * 2
