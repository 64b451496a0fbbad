"""The contract of chathistory, on this backend: the same suite that its own backends pass."""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from chathistory import HistoryStore, Key, open_store
from chathistory.testing import HistoryStoreContract


class TestTemplate(HistoryStoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[HistoryStore]:
        self.folder = tmp_path
        with open_store(f"template:{tmp_path}/history.db") as store:
            yield store

    def reopen(self, store: HistoryStore) -> HistoryStore:
        return open_store(f"template:{self.folder}/history.db")

    def unreachable_store(self) -> HistoryStore:
        (self.folder / "a-file").write_text("where a folder should be")
        return open_store(f"template:{self.folder}/a-file/history.db")

    # The hooks: what is stored, below the interface.

    def remains(self, text: str) -> Sequence[str]:
        files = [path for path in self.folder.rglob("*") if path.is_file()]
        return [str(path) for path in files if text.encode() in path.read_bytes()]

    def damage_record(self, store: HistoryStore, key: Key, position: int) -> None:
        self._execute("UPDATE records SET body = '[' || body WHERE (scope, id, position) = (?, ?, ?)", key, position)

    def damage_head(self, store: HistoryStore, key: Key) -> None:
        self._execute("UPDATE heads SET high = high + 1 WHERE (scope, id) = (?, ?)", key)

    def lose_index(self, store: HistoryStore, key: Key) -> None:
        """Do nothing: the index is SQLite's own, and cannot lose an entry."""

    def _execute(self, sql: str, key: Key, *values: object) -> None:
        with closing(sqlite3.connect(self.folder / "history.db")) as db, db:
            db.execute(sql, (key.scope, key.id, *values))
