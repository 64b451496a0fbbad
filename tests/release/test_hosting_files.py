"""The files that a host of repositories reads: they can be parsed, and agree with the project."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
GITHUB = ROOT / ".github"
WORKFLOW = GITHUB / "workflows" / "test.yml"
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


@pytest.fixture(scope="module")
def workflow():
    return load(WORKFLOW)


def test_the_workflow_may_only_read_and_every_job_ends(workflow):
    assert workflow["permissions"] == {"contents": "read"}
    assert workflow["concurrency"]["group"]
    assert all(job["timeout-minutes"] <= 90 and "permissions" not in job for job in workflow["jobs"].values())
    assert "secrets" not in WORKFLOW.read_text()


def test_the_workflow_names_the_major_version_of_each_action(workflow):
    actions = [step["uses"] for job in workflow["jobs"].values() for step in job["steps"] if "uses" in step]
    assert actions
    assert [each for each in actions if not re.fullmatch(r"actions/[a-z-]+@v\d+", each)] == []


def test_the_workflow_runs_tests_that_exist(workflow):
    core = workflow["env"]["CORE_TESTS"].split()
    named = re.findall(r"\b(tests/\S+)", "\n".join(_commands(workflow)))
    assert len(core) >= 10
    assert {"tests/plugins/file", "tests/engine"} <= set(named)
    assert [path for path in (*core, *named) if not (ROOT / path).exists()] == []


def test_the_workflow_runs_make_targets_that_exist(workflow):
    targets = {target for command in _commands(workflow) for target in re.findall(r"^make (\S+)", command)}
    makefile = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {"test", "test-wide", "test-lowest", "release"} <= targets <= makefile


def _commands(workflow: dict) -> list[str]:
    return [step["run"] for job in workflow["jobs"].values() for step in job["steps"] if "run" in step]


def test_the_workflow_has_the_pythons_that_the_project_supports(workflow):
    """A classifier names a Python on which the project was tested; the workflow may try a newer one."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    classifiers = [each.rpartition(" ")[2] for each in project["classifiers"] if "Language :: Python :: 3." in each]
    pythons = workflow["jobs"]["platforms"]["strategy"]["matrix"]["python"]
    assert project["requires-python"] == f">={pythons[0]}"
    assert pythons[: len(classifiers)] == classifiers
    others = [job for name, job in workflow["jobs"].items() if name != "platforms"]
    options = [step.get("with", {}) for job in others for step in job["steps"]]
    assert {each["python-version"] for each in options if "python-version" in each} == {pythons[0]}
