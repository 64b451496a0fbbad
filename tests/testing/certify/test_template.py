"""The template of a plugin, as its author's users get it: both wheels, built and installed where nothing else is."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from count_code_lines import lines_of_code

ROOT = Path(__file__).parents[3]
TEMPLATE = ROOT / "plugins" / "template"
pytestmark = pytest.mark.wide  # it builds, and installs from an index


def run(*words, cwd, code=0):
    done = subprocess.run(list(map(str, words)), cwd=cwd, capture_output=True, text=True, timeout=500)
    assert done.returncode == code, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def wheels(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheels")
    sources = tmp_path_factory.mktemp("sources") / "template"
    shutil.copytree(TEMPLATE, sources)
    build = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder)
    run(*build, ROOT, cwd=folder)
    run(*build, sources, cwd=folder)
    return sorted(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheels, tmp_path_factory):
    """The commands of an environment that has both wheels, the extra for the command, pytest, and what they need."""
    folder = tmp_path_factory.mktemp("empty")
    run(sys.executable, "-m", "venv", folder, cwd=folder)
    [commands] = [found.parent for found in folder.glob("*/python")] or [folder / "Scripts"]
    library, template = wheels
    packages = (f"{library}[cli]", template, "pytest")
    run(commands / "python", "-m", "pip", "install", "--quiet", *packages, cwd=folder)
    return commands


def test_the_template_is_no_part_of_our_wheel(wheels):
    names = [set(zipfile.ZipFile(wheel).namelist()) for wheel in wheels]
    assert [wheel.name.partition("-")[0] for wheel in wheels] == ["chathistory", "chathistory_template"]
    assert not [name for name in names[0] if "template" in name]
    assert {"chathistory/testing/certify/suite.py", "chathistory/cli/certify.py"} <= names[0]
    assert {name for name in names[1] if "dist-info" not in name} == {"chathistory_template.py"}


def test_it_passes_the_contract(installed, fast_folder):
    shutil.copytree(TEMPLATE / "tests", fast_folder / "tests")
    shutil.copy(TEMPLATE / "pyproject.toml", fast_folder)
    words = ("-q", "-p", "no:cacheprovider", "--basetemp", fast_folder / "stores")
    output = run(installed / "python", "-I", "-m", "pytest", *words, cwd=fast_folder)
    passed, skipped = re.search(r"(\d+) passed, (\d+) skipped", output).groups()
    assert int(passed) > 450
    assert int(skipped) == 28, "it has no limits to exceed, does not restore heads, and nothing else is left out"


def test_it_holds_a_chat(installed, tmp_path):
    store_option = ("--store", "template:./history.db")
    chat = (installed / "chathistory", "chat", "--fake", "--conversation", "hello", *store_option)
    assert "You said: Hello (message 1 of" in run(*chat, "Hello", cwd=tmp_path)
    assert "You said: Again (message 3 of" in run(*chat, "Again", cwd=tmp_path)
    [row] = map(json.loads, run(installed / "chathistory", "list", "--json", *store_option, cwd=tmp_path).splitlines())
    assert (row["id"], row["messages"]) == ("hello", 4)
    assert (tmp_path / "history.db").stat().st_mode & 0o077 == 0, "others may read it"


def test_it_is_certified_by_its_url(installed, fast_folder):
    shutil.copytree(TEMPLATE / "tests", fast_folder / "tests")
    shutil.copy(TEMPLATE / "pyproject.toml", fast_folder)
    options = [f"--chathistory-only={number}" for number in (3, 4, 10)]
    options += ["--chathistory-url=template:./history.db", "--chathistory-report=report.json"]
    words = ("-q", "-p", "no:cacheprovider", "-p", "chathistory.testing.certify")
    output = run(installed / "pytest", *words, *options, cwd=fast_folder)
    assert "kept: retry-safe, durable on return, threads and processes; this is not a certificate" in output
    report = json.loads((fast_folder / "report.json").read_text())
    assert (report["passed"], report["certified"]) == (True, False), "some guarantees are no certificate"
    assert report["backend"] == "TemplateStore of chathistory-template 1.0.0"
    assert [each["passed"] > 0 for each in report["guarantees"]] == [True] * 3


def test_backends_lists_it_as_one_that_works(installed, tmp_path):
    assert "template:\tchathistory-template\tworks\n" in run(installed / "chathistory", "backends", cwd=tmp_path)


def test_a_store_is_as_short_as_its_page_says():
    assert lines_of_code((TEMPLATE / "chathistory_template.py").read_text()) <= 120
    for page in (TEMPLATE / "README.md", ROOT / "docs" / "writing-a-backend.md"):
        assert "in about 120 lines" in " ".join(page.read_text().split())
    assert lines_of_code((Path(__file__).with_name("chathistory_lmdb.py")).read_text()) <= 125


def test_lines_of_code_leave_out_comments_and_docstrings():
    source = '"""Doc."""\nimport a\nfrom b import (\n    c,\n)\n\n# aside\nx = """\n1\n"""\n'
    source += 'def f():\n    """Doc."""\n    y = 1  # so\n'
    assert lines_of_code(source) == 5
