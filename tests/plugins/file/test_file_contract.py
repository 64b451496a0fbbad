"""The storage contract, on files."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from chathistory_file import FileStore
from file_samples import flip, line_of, path_of

from chathistory import HistoryStore, Key, open_store
from chathistory.testing import HistoryStoreContract


class TestFile(HistoryStoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path):
        self.folder = tmp_path
        with open_store(f"file:{tmp_path}/history", lock_timeout=600) as store:
            yield store

    def reopen(self, store: HistoryStore) -> HistoryStore:
        assert isinstance(store, FileStore)
        return open_store(f"file:{store.root}", lock_timeout=600)

    def unreachable_store(self) -> HistoryStore:
        in_the_way = self.folder / "a-file"
        in_the_way.write_text("not a folder")
        return open_store(f"file:{in_the_way}/history")

    def remains(self, text: str) -> Sequence[str]:
        files = [path for path in self.folder.rglob("*") if path.is_file()]
        return [str(path) for path in files if text.encode() in path.read_bytes() or text in path.name]

    def damage_record(self, store: HistoryStore, key: Key, position: int) -> None:
        place = line_of(path_of(store, key), position)
        flip(path_of(store, key), place.stop - 4)

    def damage_head(self, store: HistoryStore, key: Key) -> None:
        flip(path_of(store, key), path_of(store, key).read_bytes().rindex(b'"end":') + 6)

    def lose_index(self, store: HistoryStore, key: Key) -> None:
        """Do nothing: the folder is the index, and has an entry for each conversation."""
