"""The contract, on files."""

from pathlib import Path

import pytest
from chathistory_file import FileStore

from chathistory import HistoryStore, open_store
from chathistory.testing import HistoryStoreContract


class TestFile(HistoryStoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path):
        self.folder = tmp_path
        with open_store(f"file:{tmp_path}/history", lock_timeout=30) as store:
            yield store

    def reopen(self, store: HistoryStore) -> HistoryStore:
        assert isinstance(store, FileStore)
        return open_store(f"file:{store.root}", lock_timeout=30)

    def dead_store(self) -> HistoryStore:
        in_the_way = self.folder / "a-file"
        in_the_way.write_text("not a folder")
        return open_store(f"file:{in_the_way}/history")
