"""The changelog: fragments have valid names, and a release gathers all of them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from changelog_pages import BEGIN, END, make_changelog

ROOT = Path(__file__).parents[2]


@pytest.fixture
def project(tmp_path):
    """Return a copy of what towncrier reads, with fragments of every kind."""
    for name in ("pyproject.toml", "CHANGELOG.md"):
        shutil.copy(ROOT / name, tmp_path)
    fragments = tmp_path / "docs" / "changelog"
    fragments.mkdir(parents=True)
    for name in ("README.md", "template.md"):
        shutil.copy(ROOT / "docs" / "changelog" / name, fragments)
    for number, kind in enumerate(("feature", "change", "fix", "deprecation", "removal", "security"), 1):
        (fragments / f"{number}.{kind}.md").write_text(f"Words of {number}.\n\n- A detail of {number}.\n")
    return tmp_path


def release(project: Path, version: str) -> str:
    """Gather the fragments for a release, as docs/contributing.md says, and return CHANGELOG.md."""
    command = [sys.executable, "-m", "towncrier", "build", "--yes", "--version", version, "--date", "2030-01-02"]
    subprocess.run(command, cwd=project, check=True, capture_output=True)
    (project / "CHANGELOG.md").write_text(make_changelog(project))
    return (project / "CHANGELOG.md").read_text()


def test_unreleased_changes_stand_between_the_comments(project):
    before, _, rest = make_changelog(project).partition(BEGIN)
    unreleased, _, released = rest.partition(END)
    assert before.startswith("# Changelog\n")
    assert unreleased.startswith(
        "\n\n## Unreleased\n\n### Security\n\n- Words of 6.\n\n  - A detail of 6.\n\n### Removed"
    )
    assert [f"Words of {number}." in unreleased for number in range(1, 7)] == [True] * 6
    assert released == "\n"


def test_a_release_gets_its_date_and_removes_the_fragments(project):
    text = release(project, "9.8.0")
    assert sorted(path.name for path in (project / "docs" / "changelog").iterdir()) == ["README.md", "template.md"]
    assert f"{BEGIN}\n\n## Unreleased\n\n{END}\n\n## 9.8.0 (2030-01-02)\n\n### Security\n" in text
    assert text.count("Words of 1.") == 1


def test_a_later_release_is_above_the_earlier_one(project):
    release(project, "9.8.0")
    (project / "docs" / "changelog" / "7.fix.md").write_text("Words of 7.\n")
    text = release(project, "9.8.1")
    assert text.index("## 9.8.1 (2030-01-02)\n\n### Fixed\n\n- Words of 7.") < text.index("## 9.8.0 (2030-01-02)")


def test_a_fragment_with_an_unknown_kind_is_refused(project):
    (project / "docs" / "changelog" / "7.improvement.md").write_text("Words of 7.\n")
    with pytest.raises(SystemExit, match=r"Invalid news fragment name: 7\.improvement\.md"):
        make_changelog(project)
