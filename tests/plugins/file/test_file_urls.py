"""The folder of a URL; parsing a URL touches no folder."""

import subprocess
import sys
from pathlib import Path

import pytest
from chathistory_file import FileStore
from file_samples import names

from chathistory import open_store
from chathistory.errors import ConfigError


@pytest.mark.parametrize(
    ("location", "folder"),
    [
        ("./history", "{here}/history"),
        ("history", "{here}/history"),
        ("/abs/dir", "/abs/dir"),
        ("///abs/dir", "/abs/dir"),
        ("~/x", "{home}/x"),
        ("./what%3F", "{here}/what?"),
        ("./a#b@c", "{here}/a#b@c"),
    ],
)
def test_a_url_names_a_folder(tmp_path, monkeypatch, location, folder):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    store = open_store("file:" + location)
    assert store.root == folder.format(here=tmp_path, home=tmp_path / "home")


@pytest.mark.parametrize(
    "location", ["", "?lock_timeout=5", "//host/folder", "//", "~nobody-of-this-name/x", "./a%00b"]
)
def test_a_location_that_cannot_be_right_is_refused(location):
    with pytest.raises(ConfigError):
        open_store("file:" + location)


@pytest.mark.parametrize("option", ["lock_timeout=0", "lock_timeout=soon", "lock_timeout=inf", "timeout=3"])
def test_a_wrong_option_is_refused(option):
    with pytest.raises(ConfigError):
        open_store("file:./x?" + option)


def test_open_and_read_create_no_folder(tmp_path):
    with open_store(f"file:{tmp_path}/a/b") as store:
        store.check()
        assert list(store.keys()) == []
    assert names(tmp_path) == []


def test_the_folder_stays_the_same_when_the_process_goes_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = FileStore(Path("history"))
    monkeypatch.chdir("/")
    assert store.root == str(tmp_path / "history")


WITHOUT_POSIX = """
import os

del os.O_NOFOLLOW  # as on Windows
from chathistory import open_store
from chathistory.errors import PluginError

try:
    open_store("file:./history")
except PluginError as error:
    print(error)
with open_store("memory:"):
    print("memory: works")
"""


def test_a_system_that_is_not_posix_is_named(tmp_path):
    command = [sys.executable, "-W", "error", "-c", WITHOUT_POSIX]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == [
        (
            f"file: needs a POSIX system such as Linux or macOS, and this is {sys.platform}; choose another backend "
            "(the command `chathistory backends` lists them)"
        ),
        "memory: works",
    ], done.stderr
