"""The contract catches what it is there to catch: each wrong store fails the tests that are meant for it."""

from __future__ import annotations

import inspect
import threading
from collections import Counter

import pytest
from wrong_stores import WRONG, Wrong

from chathistory.testing import HistoryStoreContract
from chathistory.testing.contract.every_method import catch_error
from chathistory.testing.guarantees import GUARANTEES, guarantee_of

pytestmark = pytest.mark.wide

pytest_plugins = ("pytester",)

ORDINARY = [
    "test_append_continues_after_the_last_batch",
    "test_read_returns_any_range_of_many_records",
    "test_every_method_returns_the_revision_unchanged[full]",
]
"""A store with one mistake still does these (unless they are what it does wrong): it is not red for being broken."""

MODULE = """
from correct_stores import contract_of
from {module} import {name}

TestIt = contract_of({name})
tests = {tests}
for test in dir(TestIt):
    if tests and test.startswith("test_") and test not in tests:
        setattr(TestIt, test, None)  # collecting all tests takes longer than running a few
"""

OURS = ("AssertionError", "assert", "Failed", "chathistory.errors.")


class Outcomes:
    """A plugin that keeps which tests failed, and with what."""

    def __init__(self):
        self.passed = set()
        self.failed = {}

    def pytest_runtest_logreport(self, report):
        name = report.nodeid.rpartition("::")[2]
        if report.when == "call" and report.passed:
            self.passed.add(name)
        elif report.failed:
            self.failed[name] = report.longrepr.reprcrash.message


@pytest.fixture
def run(pytester, monkeypatch):
    """Run tests of the contract on a class of stores, by pytest itself, in this process."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")

    def run(cls, *tests):
        names = {test.partition("[")[0] for test in tests}
        path = pytester.makepyfile(test_it=MODULE.format(module=cls.__module__, name=cls.__name__, tests=names))
        outcomes = Outcomes()
        nodes = [f"{path}::TestIt::{test}" for test in tests] or [str(path)]
        options = ("-q", "-W", "error", "--tb=native", "-p", "no:cacheprovider")
        pytester.inline_run(*options, *nodes, plugins=[outcomes])
        return outcomes

    return run


@pytest.mark.parametrize("cls", WRONG, ids=lambda cls: cls.__name__)
def test_a_wrong_store_is_caught(run, cls):
    ordinary = [test for test in ORDINARY if test.partition("[")[0] not in WRONG[cls]]
    outcomes = run(cls, *WRONG[cls], *ordinary)
    caught = {name.partition("[")[0] for name in outcomes.failed}
    assert caught == set(WRONG[cls]), outcomes.failed
    assert outcomes.passed >= {*ordinary}, outcomes.failed
    if getattr(cls, "hidden_by_its_lock", False):
        assert all(name.endswith("[one per thread]") for name in outcomes.failed), outcomes.failed
    odd = [message for message in outcomes.failed.values() if not message.startswith(OURS)]
    assert not odd, "failed by a mistake that was not meant"
    for name, message in outcomes.failed.items():
        guarantee = guarantee_of(getattr(HistoryStoreContract, name.partition("[")[0]))
        assert message.splitlines()[-1] == guarantee.note, "does not name its guarantee"


def test_the_base_of_the_wrong_stores_is_right(run):
    outcomes = run(Wrong)
    assert outcomes.failed == {}
    assert len(outcomes.passed) > 300


def test_every_catching_test_exists():
    for cls, tests in WRONG.items():
        for test in tests:
            assert hasattr(HistoryStoreContract, test), f"{cls.__name__}: {test}"


def test_every_test_is_about_a_guarantee_and_all_but_cost_have_some():
    tests = [getattr(HistoryStoreContract, name) for name in dir(HistoryStoreContract) if name.startswith("test_")]
    numbers = {guarantee_of(test).number for test in tests}
    assert numbers == set(GUARANTEES) - {6}, "constant cost is measured by `chathistory certify` only"


def test_no_theme_hides_a_test_or_a_helper_of_another():
    themes = [theme for theme in HistoryStoreContract.__mro__[1:] if theme.__module__.startswith("chathistory.")]
    names = Counter(name for theme in themes for name in vars(theme) if not name.startswith("__"))
    assert [name for name, count in names.items() if count > 1] == []


def test_every_theme_is_part_of_the_contract():
    package = inspect.getmodule(HistoryStoreContract)
    base = HistoryStoreContract.__mro__[-2]
    assert base.__name__ == "ContractTest"
    themes = {theme for theme in base.__subclasses__() if theme.__module__.startswith(package.__name__ + ".")}
    assert themes == set(HistoryStoreContract.__bases__)


def test_a_call_that_hangs_is_a_failure():
    patience = threading.Event()
    with pytest.raises(AssertionError, match=r"did not return within 0\.05 seconds"):
        catch_error(lambda: patience.wait(30), seconds=0.05)
    patience.set()


@pytest.mark.parametrize(
    ("lacking", "test", "word"),
    [
        ("store", "test_the_fixture_gives_an_empty_store", "override the fixture `store`"),
        ("reopen", "test_two_instances_see_each_others_writes_at_once", "override reopen()"),
        ("unreachable_store", "test_an_unreachable_store_can_be_closed", "override unreachable_store()"),
    ],
)
def test_what_the_author_has_not_given_is_a_failure(pytester, lacking, test, word):
    path = pytester.makepyfile(
        "from chathistory.testing import HistoryStoreContract\n"
        "from correct_stores import NamedStore, contract_of\n"
        "class TestIt(contract_of(NamedStore)):\n"
        f"    {lacking} = HistoryStoreContract.{lacking}\n"
    )
    outcomes = Outcomes()
    pytester.inline_run("-q", "--tb=native", "-p", "no:randomly", f"{path}::TestIt::{test}", plugins=[outcomes])
    assert list(outcomes.failed) == [test]
    assert word in outcomes.failed[test]


@pytest.mark.parametrize(
    ("hook", "test"),
    [
        ("remains", "test_no_text_remains_after_delete[pairs-short]"),
        ("damage_record", "test_a_range_without_a_damaged_record_is_readable[ones]"),
        ("damage_head", "test_a_call_on_a_damaged_head_raises_corrupt_record"),
        ("lose_index", "test_scan_keys_finds_conversations_missing_from_the_index"),
    ],
)
def test_what_looks_below_the_interface_is_skipped_by_name_if_it_is_not_given(pytester, hook, test):
    path = pytester.makepyfile(
        "from chathistory.testing import HistoryStoreContract\n"
        "from correct_stores import contract_of\n"
        "from wrong_sql_base import SQL\n"
        "class TestIt(contract_of(SQL)):\n"
        f"    {hook} = HistoryStoreContract.{hook}\n"
    )
    skipped = []

    class Reasons:
        def pytest_runtest_logreport(self, report):
            if report.skipped:
                skipped.append(report.longrepr[2])

    run = pytester.inline_run("-q", "-p", "no:randomly", f"{path}::TestIt::{test}", plugins=[Reasons()])
    run.assertoutcome(skipped=1)
    assert skipped == [f"Skipped: hook: {hook}() of TestIt is not overridden"]


def test_a_hook_that_finds_nothing_proves_nothing(pytester):
    path = pytester.makepyfile(
        "from correct_stores import contract_of\n"
        "from wrong_sql_base import SQL\n"
        "class TestIt(contract_of(SQL)):\n"
        "    def remains(self, text):\n"
        "        return []\n"
    )
    outcomes = Outcomes()
    pytester.inline_run("-q", "--tb=native", "-p", "no:randomly", str(path), "-k", "no_text", plugins=[outcomes])
    assert outcomes.passed == set(), outcomes.passed
    assert len(outcomes.failed) > 20
    assert all("proves nothing" in message for message in outcomes.failed.values())
