"""`chathistory certify` in this process: what it asks pytest for, and what it prints; pytest itself is replaced."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest


@pytest.fixture
def certify(run, monkeypatch):
    """Run the command with a pytest that ends with a code, after it has written a report; return both."""

    def certify(*words, code=0, report=None):
        given = []

        def main(arguments):
            given.extend(arguments)
            if report is not None:
                [path] = [word.partition("=")[2] for word in arguments if word.startswith("--chathistory-report=")]
                Path(path).write_text(json.dumps(report), "utf-8")
            return pytest.ExitCode(code)

        monkeypatch.setattr(pytest, "main", main)
        return run("certify", *words), given

    for name in ("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "PYTEST_ADDOPTS", "PYTEST_PLUGINS"):
        monkeypatch.setenv(name, "of the caller")  # the command changes its environment; this restores it
    return certify


@pytest.mark.parametrize(("code", "expected"), [(0, 0), (1, 1), (2, 1), (5, 1)])
def test_the_exit_code_says_whether_every_guarantee_is_kept(certify, code, expected):
    done, given = certify("memory:", code=code)
    assert (done.returncode, done.stdout, done.stderr) == (expected, "", "")
    assert "--chathistory-url=memory:" in given
    assert "--noconftest" in given
    assert "--tb=no" in given
    assert not any("report" in word for word in given)


def test_the_options_are_given_to_the_plugin(certify):
    words = ["--only", "3", "--only", "14", "--hooks", "a:b", "--exclusive", "--unreachable", "template:/nowhere"]
    _, given = certify("template:x", *words, "--debug")
    assert sorted(word.removeprefix("--chathistory-") for word in given if word.startswith("--chathistory-")) == [
        *("exclusive", "hooks=a:b", "only=14", "only=3", "unreachable=template:/nowhere", "url=template:x")
    ]
    assert "--tb=long" in given


@pytest.mark.parametrize(("code", "report"), [(0, {"passed": True}), (1, {"passed": False})])
def test_json_is_the_report_of_the_plugin(certify, code, report):
    done, given = certify("memory:", "--json", code=code, report=report)
    assert (done.returncode, json.loads(done.stdout), done.stderr) == (code, report, "")
    assert given[-3:-1] == ["-p", "no:terminal"]


def test_json_without_a_report_is_empty_and_a_failure(certify):
    done, _ = certify("memory:", "--json", code=4)
    assert (done.returncode, done.stdout) == (1, "")


def test_without_pytest_it_says_what_to_install(certify, monkeypatch):
    monkeypatch.setitem(sys.modules, "pytest", None)
    done, given = certify("memory:")
    assert (done.returncode, done.stdout, given) == (1, "", [])
    assert 'pip install "chathistory[certify]"' in done.stderr
