"""The contract of chathistory, on this backend: the same suite that its own backends pass."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from chathistory import HistoryStore, open_store
from chathistory.testing import HistoryStoreContract


class TestTemplate(HistoryStoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[HistoryStore]:
        self.folder = tmp_path
        with open_store(f"template:{tmp_path}/history.db") as store:
            yield store

    def reopen(self, store: HistoryStore) -> HistoryStore:
        return open_store(f"template:{self.folder}/history.db")

    def dead_store(self) -> HistoryStore:
        (self.folder / "a-file").write_text("where a folder should be")
        return open_store(f"template:{self.folder}/a-file/history.db")
