"""Fixtures of the tests of the file store."""

import os

import pytest
from chathistory_file import FileStore


@pytest.fixture
def store(tmp_path):
    with FileStore(tmp_path / "history", lock_timeout=600) as store:
        yield store


@pytest.fixture
def no_sync(monkeypatch):
    """Skip syncs in tests of the written content; they do not depend on when it is on the disk."""
    monkeypatch.setattr("chathistory_file.write._sync", lambda fd: None)
    monkeypatch.setattr(os, "fsync", lambda fd: None)
