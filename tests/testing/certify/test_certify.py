"""`chathistory certify`: what it finds, what it says, what it leaves alone."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing

import pytest
from chathistory_memory import MemoryStore
from chathistory_template import TemplateStore
from stores_caught_by_certify import CAUGHT

from chathistory import Key, StoreURL, open_store
from chathistory.cli.certify import _print_progress
from chathistory.errors import ChatHistoryError, ConfigError
from chathistory.storage.values import LONGEST_NAME, Revision
from chathistory.testing.certify.report import Certificate, Outcome
from chathistory.testing.certify.run_suite import certify
from chathistory.testing.certify.scope_names import ScopeNames
from chathistory.testing.certify.scoped_store import ScopedStore
from chathistory.testing.certify.target import Target
from chathistory.testing.contract.tricky_names import NAMES, NEIGHBOURS
from chathistory.testing.guarantees import GUARANTEES

pytestmark = [
    pytest.mark.repeated,
    pytest.mark.timeout(300),
]  # a run is hundreds of tests, on a machine that may be busy

ONLY_ATOMIC = "kept: atomic; this is not a certificate, since the other guarantees were not tested"
HOOKS = ("--hooks", "stores_caught_by_certify:hooks")


@pytest.fixture(autouse=True)
def _template(plugin):
    plugin("template", "chathistory_template")


@pytest.mark.parametrize("scheme", CAUGHT)
def test_a_store_that_only_processes_show_to_be_wrong(plugin, command, scheme):
    plugin(scheme, "stores_caught_by_certify")
    number, test, words = CAUGHT[scheme]
    done = command("certify", f"{scheme}:./history.db", "--only", str(number), "--json", *HOOKS)
    assert done.code == 1, done.errors
    guarantee = done.guarantee(GUARANTEES[number].name)
    assert guarantee["state"] == "failed"
    seen = {each["test"]: each["seen"] for each in guarantee["failed"]}
    assert test in {name.partition("[")[0] for name in seen} | seen.keys(), seen
    assert any(words in text for name, text in seen.items() if name.startswith(test)), seen


@pytest.mark.parametrize("number", sorted({number for number, _, _ in CAUGHT.values()}))
def test_the_base_of_them_is_right(command, number):
    done = command("certify", "template:./history.db", "--only", str(number), "--json", *HOOKS)
    assert done.code == 0, done.output
    [guarantee] = done.data["guarantees"]
    assert guarantee["passed"] > 0
    assert [each for each in guarantee["not_tested"] if each["tests"]] == []


def test_the_report_names_each_guarantee_what_was_seen_and_expected(plugin, command):
    plugin("skipping", "stores_caught_by_certify")
    done = command("certify", "skipping:./history.db", "--only", "3", "--only", "7", *HOOKS)
    assert done.code == 1
    assert re.search(r"^ 3  retry-safe +kept +\d+ tests$", done.output, re.MULTILINE), done.output
    assert re.search(r"^ 7  whole or absent +FAILED", done.output, re.MULTILINE)
    assert "FAILED: a damaged record raises corrupt record (2)\n        seen: " in done.output
    assert f"expected: {GUARANTEES[7].expected[:40]}" in done.output
    assert done.output.endswith("NOT certified: whole or absent\n")
    assert "does not fit" not in done.errors


def test_tests_that_did_not_run_are_listed_and_fail_with_complete(command):
    words = ("certify", "template:./history.db", "--only", "3", "--only", "4")
    done = command(*words)
    assert done.code == 0
    for hook, test in (
        ("lose_answer", "an append without an answer can be repeated"),
        ("crash", "appends survive a crash of the server"),
    ):
        assert f"not tested: needs the hook `{hook}` [1 test]\n        {test}\n" in done.output
    assert len(re.findall(r"kept in part +\d+ tests, 1 did not run$", done.output, re.MULTILINE)) == 2
    assert done.output.splitlines()[-1] == (
        "kept: retry-safe, durable on return; this is not a certificate, since the other guarantees were not tested"
    )
    done = command(*words, "--complete")
    assert done.code == 1
    assert "NOT complete" in done.output
    assert command(*words, *HOOKS, "--complete").code == 0


def test_what_was_not_tested_is_listed_for_programs(command):
    done = command("certify", "template:./history.db", "--only", "3", "--only", "1", "--json")
    assert (done.data["certified"], done.data["passed"], done.data["complete"]) == (False, True, False)
    assert (done.data["only"], done.data["did_not_run"]) == ([1, 3], 1)
    retry = done.guarantee("retry-safe")
    assert retry["did_not_run"] == 1
    assert retry["not_tested"] == [
        {
            "what": "needs the hook `lose_answer`",
            "tests": 1,
            "names": ["test_an_append_without_an_answer_can_be_repeated"],
        }
    ]
    whys = {each["why"]: each["names"] for each in done.guarantee("atomic")["does_not_apply"]}
    assert whys["no largest_record that a test could exceed"] == ["test_a_body_above_the_limit_is_refused"]


@pytest.mark.parametrize(
    ("not_run", "only", "verdict"),
    [
        ((), (), "certified"),
        (("needs a hook",), (), "certified in part: 1 test did not run, see above"),
        (("needs a hook", "needs another"), (), "certified in part: 2 tests did not run, see above"),
        (("traits: not shared",), (), "certified"),
        ((), (1,), ONLY_ATOMIC),
        (("needs a hook",), (1,), ONLY_ATOMIC),
    ],
)
def test_the_verdict_says_no_more_than_was_tested(not_run, only, verdict):
    outcomes = [Outcome(f"test_{number}", number, "passed", "") for number in GUARANTEES if number in only or not only]
    outcomes += [Outcome(f"test_it[{at}]", 1, "not run", reason) for at, reason in enumerate(not_run)]
    certificate = Certificate(
        store="memory:",
        backend="MemoryStore",
        traits=MemoryStore.traits,
        outcomes=tuple(outcomes),
        exclusive=False,
        only=frozenset(only),
        leftover_scopes=(),
        seconds=1.0,
    )
    lines = list(certificate.lines())
    assert lines[-1] == verdict
    assert certificate.to_dict()["certified"] is (not only)
    for reason in not_run:
        assert any(reason.removeprefix("traits: ") in line for line in lines)
    assert lines.count("        it") == len(set(not_run))


def test_an_unreachable_store_is_listed_as_needed(command):
    words = ("certify", "template:./history.db", "--only", "11")
    done = command(*words)
    assert done.code == 0, done.output
    assert (
        "not tested: needs a store that cannot be reached (--unreachable URL, or the hook `unreachable_store`)"
        in done.output
    )
    done = command(*words, "--unreachable", "template:/dev/null/history.db", "--json")
    assert done.code == 0, done.output
    [guarantee] = done.data["guarantees"]
    assert guarantee["passed"] > 20
    assert [each for each in guarantee["not_tested"] if each["tests"]] == []


def test_a_kit_that_does_not_come_to_its_end_certifies_nothing(monkeypatch):
    monkeypatch.setattr(pytest, "main", lambda *_args, **_options: pytest.ExitCode.INTERNAL_ERROR)
    with pytest.raises(ChatHistoryError, match="did not run the suite to its end"):
        certify("memory:")


def test_progress_is_printed_on_standard_error(capsys):
    for done in (3, 4):
        _print_progress(done, 4)
    assert capsys.readouterr().err == "\r3 of 4 tests\r4 of 4 tests\n"


def test_a_scoped_store_is_not_opened_by_a_url_and_passes_on_what_is_no_head():
    with pytest.raises(ConfigError, match="wraps another store"):
        ScopedStore.from_url(StoreURL.parse("memory:"))
    with MemoryStore() as store:
        assert ScopedStore(store, ScopeNames())._rename_head("no head") == "no head"


def test_scopes_that_cannot_be_emptied_are_reported():
    target = Target(url="file:/dev/null/history")
    with MemoryStore() as store:
        scoped = ScopedStore(store, ScopeNames())
        scoped.append(Key("scope", "id"), ["a"], after=None, revision=Revision("v", 1))
        target.clear(scoped)
        assert target.leftover_scopes == list(scoped.names)


def test_what_the_traits_leave_out_is_listed(command):
    done = command("certify", "memory:", "--only", "4", "--only", "9")
    assert re.search(r"^ 4  durable on return +does not apply$", done.output, re.MULTILINE), done.output
    assert re.search(r"does not apply: not durable \[\d+ tests\]", done.output)
    done = command("certify", "memory:", "--only", "4")
    assert (done.code, done.output.splitlines()[-1]) == (1, "NOT certified: nothing was tested")


def test_what_is_there_is_left_alone_and_nothing_stays(command, place):
    url = f"file:{place}/history"
    with open_store(url) as store:
        for at, name in enumerate(("scope", "certify-", "bystander")):
            store.append(Key(name, "conversation"), ["kept"], after=None, revision=Revision(f"v{at}", at))
        before = {key: store.read(key) for key in list(store.keys())}
    done = command("certify", url, "--only", "9", "--json")
    assert (done.code, done.data["left_behind"]) == (0, [])
    with open_store(url) as store:
        assert {key: store.read(key) for key in list(store.keys())} == before


def test_what_is_there_is_left_alone_whatever_the_store_says_is_in_a_scope(plugin, command, place):
    source = """
        from chathistory import hookimpl
        from chathistory_template import TemplateStore

        class Mixing(TemplateStore):
            def keys(self, scope=None):
                return super().keys()

        @hookimpl
        def chathistory_store(scheme):
            return Mixing
    """
    plugin("mixing", "mixing_plugin", source)
    key = Key("scope", "conversation")
    with TemplateStore(place / "history.db", 9) as store:
        store.append(key, ["kept"], after=None, revision=Revision("v", 1))
        before = store.read(key)
    done = command("certify", "mixing:./history.db", "--only", "1")
    assert (done.code, done.output.splitlines()[-1]) == (
        1,
        "NOT certified: the store did not remove all that was deleted",
    )
    with TemplateStore(place / "history.db", 9) as store:
        assert store.read(key) == before


def test_an_exclusive_place_is_empty_and_is_used_by_plain_names(command, place):
    url = f"file:{place}/history"
    done = command("certify", url, "--only", "8", "--exclusive")
    assert done.code == 0
    assert "by their own names" not in done.output
    with open_store(url) as store:
        assert list(store.keys()) == []
        store.append(Key("a", "b"), ["kept"], after=None, revision=Revision("v", 1))
    done = command("certify", url, "--only", "8", "--exclusive")
    assert (done.code, done.output) == (1, "")
    assert "--exclusive needs an empty store" in done.errors


def test_a_store_that_does_not_remove_is_reported(plugin, command):
    source = """
        from chathistory import hookimpl
        from chathistory_template import TemplateStore

        class Keeping(TemplateStore):
            def delete(self, key, *, version=None):
                return True

        @hookimpl
        def chathistory_store(scheme):
            return Keeping
    """
    plugin("keeping", "keeping_plugin", source)
    done = command("certify", "keeping:./history.db", "--only", "1")
    assert done.code == 1
    assert "not removed by the store: scope certify-" in done.output
    assert "NOT certified: the store did not remove all that was deleted" in done.output


def test_it_can_be_reached_by_a_url_with_a_secret_that_nobody_sees(command):
    done = command("certify", "memory://user:s3cr3t@host/name", "--only", "3")
    assert done.output.startswith("memory://***@host/name: MemoryStore of chathistory")
    assert "s3cr3t" not in done.output + done.errors


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("nothing:here",), "no installed backend serves nothing:"),
        (("template:/dev/null/x",), "SQLite failed"),
        (("template:x", "--hooks", "no_such_module:hooks"), "cannot be imported"),
        (("template:x", "--hooks", "stores_caught_by_certify:nothing"), "cannot be imported"),
        (("template:x", "--hooks", "stores_caught_by_certify:WRONG"), "not a CertifyHooks"),
        (("template:x", "--hooks", ""), "cannot be imported"),
    ],
)
def test_what_cannot_be_certified_says_why(command, words, message):
    done = command("certify", *words)
    assert (done.code, done.output) == (1, "")
    assert message in done.errors
    assert len(done.errors.splitlines()) == 1, done.errors


def test_without_pytest_it_says_what_to_install(command, tmp_path):
    (tmp_path / "installed" / "pytest.py").write_text("raise ImportError")
    done = command("certify", "template:x")
    assert (done.code, done.output) == (1, "")
    assert 'pip install "chathistory[certify]"' in done.errors
    assert command("certify", "--help").code == 0


def test_options_and_plugins_of_the_callers_pytest_play_no_part(command, place):
    (place / "pytest.ini").write_text("[pytest]\naddopts = -k nothing_at_all\n")
    (place / "conftest.py").write_text("raise SystemError('this should not be read')")
    done = command("certify", "template:x", "--only", "3", PYTEST_ADDOPTS="-k nothing_at_all")
    assert done.code == 0, done.errors


def test_names_are_fresh_and_distinct():
    names = ScopeNames()
    cut = ("x" * length for length in range(200, LONGEST_NAME + 1))  # of which the long ones become as long as others
    scopes = sorted({*NAMES, *(name for pair in NEIGHBOURS for name in pair), *cut})
    stored = [names.stored_scope(scope) for scope in scopes]
    assert len(set(stored)) == len(scopes)
    assert all(len(name) <= LONGEST_NAME for name in stored)
    assert {names.original_key(Key(name, "id")).scope for name in stored} == set(scopes)
    assert names.stored_scope("foobar").startswith(names.stored_scope("foo"))
    assert set(stored).isdisjoint(map(ScopeNames().stored_scope, scopes))
    assert [ScopeNames(plain=True).stored_scope(scope) for scope in scopes] == scopes


def test_the_template_keeps_nothing_of_what_was_certified(command, place):
    assert command("certify", "template:./history.db", "--only", "1").code == 0
    with closing(sqlite3.connect(place / "history.db")) as db:
        assert [db.execute(f"SELECT count(*) FROM {table}").fetchone() for table in ("heads", "records")] == [(0,)] * 2
