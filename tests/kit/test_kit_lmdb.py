"""A backend of somebody else's keeps the contract: LMDB, in a hundred lines."""

from __future__ import annotations

import pytest
from chathistory_lmdb import LMDBStore

from chathistory.testing import HistoryStoreContract

pytestmark = pytest.mark.timeout(300)  # a run of the kit is hundreds of tests, and a machine may be busy


class TestLMDB(HistoryStoreContract):
    @pytest.fixture
    def store(self, tmp_path):
        self.folder = tmp_path
        with LMDBStore(tmp_path / "history.lmdb", 2**33) as store:
            yield store

    def reopen(self, store):
        return LMDBStore(self.folder / "history.lmdb", 2**33)

    def dead_store(self):
        (self.folder / "a-file").write_text("where a folder should be")
        return LMDBStore(self.folder / "a-file" / "history.lmdb", 2**33)


def test_it_is_certified_by_the_command(plugin, command):
    plugin("lmdb", "chathistory_lmdb")
    asked = [word for number in (3, 4, 6, 10) for word in ("--only", str(number))]
    done = command("certify", "lmdb:./history.lmdb", "--json", *asked)
    assert (done.code, done.errors) == (0, "")
    assert done.data["backend"] == "LMDBStore of lmdb-plugin 1.0"
    assert [each["passed"] > 0 for each in done.data["guarantees"]] == [True] * 4
