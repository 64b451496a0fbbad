"""What the tests of the file store share."""

import os

import pytest
from chathistory_file import FileStore


@pytest.fixture
def store(tmp_path):
    with FileStore(tmp_path / "history") as store:
        yield store


@pytest.fixture
def no_sync(monkeypatch):
    """Leave out the syncs, in tests that are about what is written, not about when it is on the disk."""
    monkeypatch.setattr("chathistory_file.write._sync", lambda fd: None)
    monkeypatch.setattr(os, "fsync", lambda fd: None)
