"""The changelog: `towncrier` gathers the fragments in docs/changelog, for the versions before and at a release.

Until a release, CHANGELOG.md shows the fragments between two comments. `towncrier build` writes the section of a
release below the second one and removes the fragments.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from reference_pages import ROOT

MADE = "<!-- made from CHANGELOG.md by `make reference`: change the files in docs/changelog -->"
BEGIN, END = "<!-- unreleased -->", "<!-- releases -->"


def make_changelog(root: Path = ROOT) -> str:
    """Return CHANGELOG.md with the section of the changes that are not released."""
    command = [sys.executable, "-m", "towncrier", "build", "--draft", "--version", "Unreleased", "--date", ""]
    gathered = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if gathered.returncode:
        sys.exit(f"towncrier cannot gather docs/changelog: {gathered.stderr}")
    text = (root / "CHANGELOG.md").read_text()
    section = f"{BEGIN}\n\n{gathered.stdout.strip()}\n\n{END}"
    return re.sub(f"{BEGIN}.*?{END}", lambda _: section, text, count=1, flags=re.DOTALL)


def make_changelog_page() -> str:
    """Return the same as a page of the site, which has only pages of docs/."""
    title, _, text = make_changelog().partition("\n")
    return f"{title}\n\n{MADE}\n{text}".replace("](docs/", "](")
