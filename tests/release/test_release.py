"""A release is complete, holds nothing else, and works in an empty environment."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import release

pytestmark = pytest.mark.wide

PYTHONS = ("3.11", "3.12", "3.13")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return release.build(tmp_path_factory.mktemp("dist"))


def test_a_release_is_complete_and_holds_nothing_else(built):
    release.check_contents(*built)
    release.run(sys.executable, "-m", "twine", "check", "--strict", *built)
    with zipfile.ZipFile(built[1]) as wheel:
        assert not [name for name in wheel.namelist() if name.startswith(("tests", "docs", "plugins"))]
        assert len([name for name in wheel.namelist() if name.endswith(".lua")]) >= 6


@pytest.mark.parametrize(
    "name", ["chathistory/storage/store.py", "chathistory_redis/append.lua", "chathistory_s3/py.typed"]
)
def test_a_missing_file_in_a_wheel_is_reported(built, name):
    with zipfile.ZipFile(built[1]) as wheel:
        names = [each for each in wheel.namelist() if each != name]
    assert f"lacks {name}" in release.faults_of_wheel(names)


@pytest.mark.parametrize("name", ["tests/conftest.py", "chathistory/__pycache__/store.pyc", "conftest.py"])
def test_an_extra_file_in_a_wheel_is_reported(built, name):
    with zipfile.ZipFile(built[1]) as wheel:
        assert release.faults_of_wheel([*wheel.namelist(), name]) == [f"holds {name}"]


def test_a_wheel_without_its_scripts_or_licence_is_reported(built):
    with zipfile.ZipFile(built[1]) as wheel:
        names = [each for each in wheel.namelist() if not each.endswith((".lua", "LICENSE"))]
    faults = release.faults_of_wheel(names)
    assert "has no scripts for Redis" in faults
    assert "lacks its LICENSE" in faults


def test_a_missing_or_extra_file_in_an_sdist_is_reported(built):
    with tarfile.open(built[0]) as sdist:
        names = [member.name for member in sdist.getmembers() if member.isfile()]
    top = names[0].partition("/")[0]
    lacking = [name for name in names if not name.endswith("chathistory_redis/append.lua")]
    assert release.faults_of_sdist([*lacking, f"{top}/.env"]) == [
        "lacks plugins/chathistory_redis/append.lua",
        "holds .env",
    ]


def test_a_missing_python_is_reported(monkeypatch, tmp_path, capsys):
    assert release.python_of("{}.{}".format(*sys.version_info))
    assert release.python_of("2.6") is None
    monkeypatch.setattr(release, "build", lambda folder: (folder / "a.tar.gz", folder / "a.whl"))
    monkeypatch.setattr(release, "check_contents", lambda *_: None)
    monkeypatch.setattr(release, "run", lambda *_, **__: "")
    with pytest.raises(SystemExit, match=r"NOT TESTED.*: 2\.6"):
        release.main(str(tmp_path), "2.6")


@pytest.mark.stress
@pytest.mark.parametrize("version", PYTHONS)
def test_the_wheel_works_in_an_empty_environment(built, version, tmp_path):
    python = release.python_of(version)
    assert python, f"NOT TESTED: there is no Python {version} on this machine; install it, for instance with pyenv"
    outcome = release.check_installed(built[1], python, tmp_path)
    assert re.search(r"\b[5-9]\d\d passed", outcome), outcome
    assert "failed" not in outcome


def test_pre_commit_hooks_fetch_nothing_and_run_installed_tools():
    config = (release.ROOT / ".pre-commit-config.yaml").read_text()
    assert re.findall(r"repo: (\S+)", config) == ["local"]
    entries = re.findall(r"entry: \.venv/bin/(\S+)(.*)", config)
    assert {tool for tool, _ in entries} == {"ruff", "mypy", "basedpyright", "python"}
    for tool, _ in entries:
        assert Path(sys.executable).with_name(tool).exists()
    pre_commit = Path(sys.executable).with_name("pre-commit")
    subprocess.run([pre_commit, "validate-config"], cwd=release.ROOT, check=True)
