"""For tests of the configuration: a user with a home and a project of their own, and real servers for their stores."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    return folder


@pytest.fixture
def project(home, monkeypatch) -> Path:
    """A folder of the user's, in which the test runs."""
    folder = home / "work" / "project"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def users(home) -> Path:
    """The user's own file, which is not there yet; its folder is."""
    folder = home / ".config" / "chathistory"
    folder.mkdir(parents=True)
    return folder / "config.toml"
