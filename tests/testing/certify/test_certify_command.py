"""`chathistory certify`: the short form of the plugin, for people without tests of their own."""

from __future__ import annotations

import re

import pytest


@pytest.fixture(autouse=True)
def _template(plugin):
    plugin("template", "chathistory_template")


def test_it_prints_the_certificate(command):
    done = command("certify", "memory://user:s3cr3t@host/name", "--only", "3")
    assert (done.code, done.errors) == (0, "")
    certificate = done.output.partition("= certificate =")[2]
    assert "memory://***@host/name: MemoryStore of chathistory" in certificate
    assert re.search(r"^ 3  retry-safe +kept in part +6 tests, 1 did not run$", certificate, re.MULTILINE), certificate
    assert certificate.splitlines()[-1].startswith("kept: retry-safe; this is not a certificate")
    assert "s3cr3t" not in done.output


def test_json_is_all_that_it_prints_and_its_pytest_is_not_that_of_the_caller(command, fast_folder):
    (fast_folder / "pytest.ini").write_text("[pytest]\naddopts = -k nothing_at_all\n")
    (fast_folder / "conftest.py").write_text("raise SystemError('this should not be read')")
    (fast_folder / "own_hooks.py").write_text("from chathistory.testing import CertifyHooks\nhooks = CertifyHooks()\n")
    words = ("--only", "3", "--hooks", "own_hooks:hooks", "--complete", "--json")
    done = command("certify", "template:x", *words, PYTEST_ADDOPTS="-k nothing_at_all")
    assert (done.code, done.errors) == (1, ""), "the hook `lose_answer` is missing"
    assert (done.data["passed"], done.data["complete"]) == (True, False)


@pytest.mark.wide
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("nothing:here",), "no installed backend serves nothing:"),
        (("template:x", "--hooks", ""), "cannot be imported"),
        (("template:x", "--hooks", "chathistory:Key", "--json"), "not a CertifyHooks"),
    ],
)
def test_what_cannot_be_certified_says_why(command, words, message):
    done = command("certify", *words)
    assert (done.code, done.output) == (1, "")
    assert message in done.errors


def test_without_pytest_it_says_what_to_install(command, tmp_path):
    (tmp_path / "installed" / "pytest.py").write_text("raise ImportError")
    done = command("certify", "template:x")
    assert (done.code, done.output) == (1, "")
    assert 'pip install "chathistory[certify]"' in done.errors
