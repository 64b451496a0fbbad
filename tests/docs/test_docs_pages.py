"""The documentation: its Python blocks run, and the targets of its links exist."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from forked_programs import ForkServer

from chathistory.testing import FakeMessagesAPI

pytestmark = pytest.mark.wide

ROOT = Path(__file__).parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PYTHON = [page for page in PAGES if BLOCK.search(page.read_text())]


def page_id(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.fixture(scope="module")
def fake_api():
    with FakeMessagesAPI().serve() as url:
        yield url


@pytest.fixture(scope="module")
def forks():
    server = ForkServer(os.environ | {"PYTHONWARNINGS": "error"})
    yield server
    server.close()


@pytest.mark.parametrize("page", PYTHON, ids=page_id)
def test_the_python_blocks_of_a_page_run_as_one_program(page, tmp_path, fake_api, forks):
    code = "".join(BLOCK.findall(page.read_text()))
    environment = os.environ | {"ANTHROPIC_API_KEY": "x", "ANTHROPIC_BASE_URL": fake_api, "HOME": str(tmp_path)}
    folder = tmp_path / "reader"
    folder.mkdir()
    (tmp_path / "page.py").write_text(code)
    program = forks.run(tmp_path / "page.py", env=environment, folder=folder)
    assert program.returncode == 0, program.stderr


def test_the_readme_shows_a_conversation_that_is_saved(tmp_path, fake_api):
    code = BLOCK.findall((ROOT / "README.md").read_text())[0]
    assert len([line for line in code.splitlines() if line]) <= 12
    environment = os.environ | {"ANTHROPIC_API_KEY": "x", "ANTHROPIC_BASE_URL": fake_api}
    outputs = [
        subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
        for _ in range(2)
    ]
    assert "You said: My name is Ada. (message 1 of" in outputs[0].stdout
    assert "You said: My name is Ada. (message 5 of" in outputs[1].stdout
    assert "support/42 8" in outputs[1].stdout


def test_the_readme_and_the_home_page_say_the_same():
    readme = (ROOT / "README.md").read_text().partition("\n## From a checkout\n")[0]
    _, _, home = (ROOT / "docs" / "index.md").read_text().partition("\n---\n\n")
    assert readme.replace("](docs/", "](").rstrip() == home.rstrip()


def test_no_code_of_the_home_page_is_cut_off_in_a_narrow_window():
    for line in "".join(BLOCK.findall((ROOT / "docs" / "index.md").read_text())).splitlines():
        assert len(line) <= 75, line


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_link_targets_exist(page):
    for target in re.findall(r"\]\(([^)#:]+)[^)]*\)", page.read_text()):
        assert (page.parent / target).exists(), target
