"""The files that a host of repositories reads: they can be parsed, and agree with the project."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
GITHUB = ROOT / ".github"
FORMS = [GITHUB / "ISSUE_TEMPLATE" / name for name in ("bug.yml", "feature.yml")]


def load(path: Path) -> dict:
    return yaml.safe_load(path.read_text())


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.name)
def test_an_issue_form_has_what_the_host_requires(path):
    form = load(path)
    assert form["name"]
    assert form["description"]
    fields = [part for part in form["body"] if part["type"] != "markdown"]
    assert all(part["type"] == "textarea" and part["attributes"]["label"] for part in fields)
    assert len({part["id"] for part in fields}) == len(fields)
    assert any(part.get("validations", {}).get("required") for part in fields)


def test_the_bug_report_asks_for_what_helps_and_warns_of_secrets():
    text = FORMS[0].read_text()
    for words in (
        "chathistory config",
        "chathistory doctor ID",
        "Versions",
        "Do not paste conversations",
        "SECURITY.md",
    ):
        assert words in text, words


def test_every_issue_uses_a_form():
    assert load(GITHUB / "ISSUE_TEMPLATE" / "config.yml") == {"blank_issues_enabled": False}
