"""The pytest plugin `chathistory.testing.certify`: what it finds, what it says, what it leaves alone."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from chathistory_memory import MemoryStore
from chathistory_template import TemplateStore
from stores_caught_by_certify import CAUGHT

from chathistory import Key, StoreURL, open_store
from chathistory.errors import ConfigError
from chathistory.storage.values import LONGEST_NAME, Revision
from chathistory.testing.certify.base_test_class import LAST_TEST
from chathistory.testing.certify.report import Certificate, Outcome
from chathistory.testing.certify.scope_names import ScopeNames
from chathistory.testing.certify.scoped_store import ScopedStore
from chathistory.testing.certify.target import Target
from chathistory.testing.contract.tricky_names import NAMES, NEIGHBOURS
from chathistory.testing.guarantees import GUARANTEES

pytest_plugins = ["pytester"]
ATTEMPTS = 10
ONLY_ATOMIC = "kept: atomic; this is not a certificate, since the other guarantees were not tested"
HOOKS = "--hooks=stores_caught_by_certify:hooks"


@pytest.fixture(autouse=True)
def _template(plugin):
    plugin("template", "chathistory_template")


@pytest.mark.wide
@pytest.mark.parametrize("scheme", CAUGHT)
def test_a_store_that_only_processes_show_to_be_wrong(plugin, run_certify, scheme):
    plugin(scheme, "stores_caught_by_certify")
    number, test, words = CAUGHT[scheme]
    chosen = () if number == 8 else ("-k", test.partition("[")[0])  # the bystander is harmed by other tests
    for _ in range(ATTEMPTS):  # a process may be killed, or look, at a moment without danger
        done = run_certify(f"{scheme}:./history.db", f"--only={number}", HOOKS, more=chosen)
        if done.code:
            break
    assert done.code == 1, done.errors
    guarantee = done.guarantee(GUARANTEES[number].name)
    assert guarantee["state"] == "failed"
    seen = {each["test"]: each["seen"] for each in guarantee["failed"]}
    assert any(words in text for name, text in seen.items() if name.startswith(test)), seen


@pytest.mark.wide
def test_the_base_of_them_is_right(run_certify):
    numbers = sorted({number for number, _, _ in CAUGHT.values()})
    done = run_certify("template:./history.db", *[f"--only={number}" for number in numbers], HOOKS)
    assert done.code == 0, done.output
    for guarantee in done.report["guarantees"]:
        assert guarantee["passed"] > 0
        assert [each for each in guarantee["not_tested"] if each["tests"]] == []


def test_the_certificate_follows_the_output_of_pytest(plugin, run_certify):
    plugin("skipping", "stores_caught_by_certify")
    done = run_certify("skipping:./history.db", "--only=3", "--only=7", HOOKS, more=["--junitxml=results.xml"])
    assert done.code == 1
    assert "chathistory: certifying skipping:./history.db\n" in done.output
    assert "with self.reopen(store) as other, pytest.raises(CorruptRecord) as caught:" in done.output, "no traceback"
    certificate = done.output.partition("= certificate =")[2]
    assert re.search(r"^ 3  retry-safe +kept +\d+ tests$", certificate, re.MULTILINE), certificate
    assert re.search(r"^ 7  whole or absent +FAILED", certificate, re.MULTILINE)
    assert "FAILED: a damaged record raises corrupt record (2)\n        seen: " in certificate
    assert f"expected: {GUARANTEES[7].expected[:40]}" in certificate
    assert "\nNOT certified: whole or absent\n" in certificate
    assert done.report["verdict"] == "NOT certified: whole or absent"
    assert 'failures="3"' in Path("results.xml").read_text()


def test_tests_that_did_not_run_are_listed_and_fail_with_complete(run_certify):
    done = run_certify("template:./history.db", "--only=1", "--only=3", "--complete")
    assert done.code == 1
    assert (
        "not tested: needs the hook `lose_answer` [1 test]\n        an append without an answer can be repeated\n"
        in done.output
    )
    assert re.search(r"^ 3  retry-safe +kept in part +\d+ tests, 1 did not run$", done.output, re.MULTILINE)
    assert "NOT complete" in done.output
    report = done.report
    assert (report["certified"], report["passed"], report["complete"]) == (False, True, False)
    assert (report["only"], report["did_not_run"]) == ([1, 3], 1)
    assert report["verdict"].startswith("kept: atomic, retry-safe; this is not a certificate")
    assert done.guarantee("retry-safe")["not_tested"] == [
        {
            "what": "needs the hook `lose_answer`",
            "tests": 1,
            "names": ["test_an_append_without_an_answer_can_be_repeated"],
        }
    ]
    whys = {each["why"]: each["names"] for each in done.guarantee("atomic")["does_not_apply"]}
    assert whys["no largest_record that a test could exceed"] == ["test_a_body_above_the_limit_is_refused"]


def test_complete_succeeds_if_every_hook_is_given(run_certify):
    assert run_certify("template:./history.db", "--only=3", "--complete", HOOKS).code == 0


BROKEN = """
    from chathistory import hookimpl
    from chathistory_memory import MemoryStore

    class Broken(MemoryStore):
        @classmethod
        def from_url(cls, url):
            store = super().from_url(url)
            store.location, store.token = url.location, url.options["token"]
            return store

        options = {**MemoryStore.options, "token": Option(str, "", "a secret")}

        def _append_records(self, key, bodies, *, after, revision, first):
            user, password = self.location.strip("/").split("@")[0].split(":")
            raise ValueError(f"cannot log in as {user} with {password!r} and {self.token}")

    @hookimpl
    def chathistory_store(scheme):
        return Broken
"""


def test_secrets_of_a_url_are_not_printed(plugin, run_certify):
    plugin("broken", "broken_plugin", BROKEN.replace("hookimpl\n", "Option, hookimpl\n", 1))
    options = ["--showlocals", "-vv", "-k", "equal_bodies", "--junitxml=results.xml"]
    done = run_certify("broken://user:s3cr3t@host/name?token=t0ken", "--only=3", more=options)
    assert done.code == 1
    assert "certifying broken://***@host/name?..." in done.output
    assert "password   = '***'" in done.output, "the variables of a frame are not shown, so the test proves nothing"
    everything = "".join([done.output, done.errors, str(done.report), Path("results.xml").read_text()])
    assert "cannot log in as user with '***' and ***" in everything
    assert "s3cr3t" not in everything
    assert "t0ken" not in everything


def test_a_run_that_pytest_cut_short_is_no_certificate(plugin, run_certify):
    done = run_certify("memory:", more=["-k", "equal_bodies or keys_of_an_empty_store"])
    assert done.code == 0
    assert re.search(
        r"^nothing failed; this is not a certificate, .* not run \d+ of \d+ tests$", done.output, re.MULTILINE
    )
    assert (done.report["certified"], done.report["complete"]) == (False, False)
    assert re.search(r"^ 3  retry-safe +kept in part +1 test, 6 did not run$", done.output, re.MULTILINE)
    assert re.search(r"^ 4  durable on return +not tested +8 did not run$", done.output, re.MULTILINE)
    plugin("skipping", "stores_caught_by_certify")
    done = run_certify("skipping:./history.db", HOOKS, "--only=7", more=["-x", "-k", "corrupt_record or one_moment"])
    assert done.code == 1
    assert done.guarantee("whole or absent")["did_not_run"] > 0
    assert done.report["verdict"] == "NOT certified: whole or absent"


def test_one_test_by_its_name_is_no_certificate(run_certify):
    done = run_certify("memory:", more=["::TestStore::test_equal_bodies_are_stored_as_separate_records"])
    assert done.code == 0
    assert done.report["verdict"].startswith("nothing failed; this is not a certificate, since pytest did not run ")


def test_tests_of_the_author_do_not_count(run_certify):
    Path("test_own.py").write_text("def test_own():\n    pass\ndef test_other():\n    assert False\n")
    done = run_certify("memory:", "--only=3", more=["test_own.py"])
    assert done.code == 1, "it has an exit code for all tests"
    assert (done.report["passed"], done.guarantee("retry-safe")["passed"]) == (True, 6)
    Path("test_own.py").write_text("import no_such_module\n")
    done = run_certify("memory:", "--only=3", more=["test_own.py"])
    assert done.code == 2, "pytest runs no test if one module cannot be imported"
    assert done.report["verdict"] == "NOT certified: nothing was tested"


def test_the_bystander_is_checked_last_in_any_order(pytester):
    Path("conftest.py").write_text("def pytest_collection_modifyitems(items):\n    items.reverse()\n")
    options = ["-p", "chathistory.testing.certify", "--chathistory-url=memory:", "--collect-only", "-q"]
    names = [line for line in pytester.runpytest_inprocess(*options).stdout.lines if line.startswith("::")]
    assert names[-1] == f"::TestStore::{LAST_TEST}"


def test_without_a_url_it_does_nothing(pytester):
    Path("test_own.py").write_text("def test_own():\n    pass\n")
    done = pytester.runpytest_inprocess("-p", "chathistory.testing.certify")
    done.assert_outcomes(passed=1)
    assert "certificate" not in done.stdout.str()


@pytest.mark.parametrize(
    ("not_run", "only", "verdict"),
    [
        ((), (), "certified"),
        ((("not tested", "needs a hook"),), (), "certified in part: 1 test did not run, see above"),
        (
            (("not tested", "needs a hook"), ("not tested", "needs another")),
            (),
            "certified in part: 2 tests did not run, see above",
        ),
        ((("does not apply", "not shared"),), (), "certified"),
        ((), (1,), ONLY_ATOMIC),
        ((("not tested", "needs a hook"),), (1,), ONLY_ATOMIC),
    ],
)
def test_the_verdict_says_no_more_than_was_tested(not_run, only, verdict):
    outcomes = [Outcome(f"test_{number}", number, "passed") for number in GUARANTEES if number in only or not only]
    outcomes += [Outcome(f"test_it[{at}]", 1, state, reason) for at, (state, reason) in enumerate(not_run)]
    certificate = Certificate(
        store="memory:",
        backend="MemoryStore",
        traits=MemoryStore.traits,
        outcomes=tuple(outcomes),
        exclusive=False,
        only=frozenset(only),
        leftover_scopes=(),
    )
    lines = list(certificate.lines())
    assert lines[-1] == verdict
    assert certificate.to_dict()["certified"] is (not only)
    for state, reason in not_run:
        assert any(f"{state}: {reason}" in line for line in lines)
    assert lines.count("        it") == len(set(not_run))


def test_an_unreachable_store_is_listed_as_needed(run_certify):
    chosen = ["-k", "unreachable_store_can_be_closed"]
    done = run_certify("template:./history.db", "--only=11", more=chosen)
    assert (
        "not tested: needs a store that cannot be reached (its URL, or the hook `unreachable_store`) [1 test]"
        in done.output
    )
    done = run_certify("template:./history.db", "--only=11", "--unreachable=template:/dev/null/history.db", more=chosen)
    assert (done.code, done.guarantee("errors are ours")["passed"]) == (0, 1), done.output


def test_a_scoped_store_is_not_opened_by_a_url_and_passes_on_what_is_no_head():
    with pytest.raises(ConfigError, match="wraps another store"):
        ScopedStore.from_url(StoreURL.parse("memory:"))
    with MemoryStore() as store:
        assert ScopedStore(store, ScopeNames())._rename_head("no head") == "no head"


def test_scopes_that_cannot_be_emptied_are_reported():
    target = Target(url=StoreURL.parse("file:/dev/null/history"))
    with MemoryStore() as store:
        scoped = ScopedStore(store, ScopeNames())
        scoped.append(Key("scope", "id"), ["a"], after=None, revision=Revision("v", 1))
        target.clear(scoped)
        assert target.leftover_scopes == list(scoped.names)


def test_what_the_traits_leave_out_is_listed(run_certify):
    done = run_certify("memory:", "--only=4")
    assert re.search(r"^ 4  durable on return +does not apply$", done.output, re.MULTILINE), done.output
    assert re.search(r"does not apply: not durable \[\d+ tests\]", done.output)
    assert (done.code, done.report["verdict"]) == (1, "NOT certified: nothing was tested")


def test_what_is_there_is_left_alone_and_nothing_stays(run_certify, fast_folder):
    url = f"file:{fast_folder}/history"
    with open_store(url) as store:
        for at, name in enumerate(("scope", "certify-", "bystander")):
            store.append(Key(name, "conversation"), ["kept"], after=None, revision=Revision(f"v{at}", at))
        before = {key: store.read(key) for key in list(store.keys())}
    done = run_certify(url, "--only=1")
    assert (done.code, done.report["left_behind"]) == (0, [])
    with open_store(url) as store:
        assert {key: store.read(key) for key in list(store.keys())} == before


def test_what_is_there_is_left_alone_whatever_the_store_says_is_in_a_scope(plugin, run_certify, fast_folder):
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
    with TemplateStore(fast_folder / "history.db", 9) as store:
        store.append(key, ["kept"], after=None, revision=Revision("v", 1))
        before = store.read(key)
    done = run_certify("mixing:./history.db", "--only=3")
    assert (done.code, done.report["verdict"]) == (1, "NOT certified: the store did not remove all that was deleted")
    assert re.search(r"^not removed by the store: scope certify-", done.output, re.MULTILINE)
    with TemplateStore(fast_folder / "history.db", 9) as store:
        assert store.read(key) == before


def test_an_exclusive_place_is_empty_and_is_used_by_plain_names(run_certify, cannot_certify, fast_folder):
    url = f"file:{fast_folder}/history"
    done = run_certify(url, "--only=8", "--exclusive", more=["-k", "existing_conversations"])
    assert done.code == 0
    assert "by their own names" not in done.output
    with open_store(url) as store:
        assert list(store.keys()) == []
        store.append(Key("a", "b"), ["kept"], after=None, revision=Revision("v", 1))
    assert "an exclusive store must be empty" in cannot_certify(url, "--exclusive")


@pytest.fixture
def cannot_certify(pytester, monkeypatch, tmp_path):
    """Return the error with which pytest refuses to certify."""
    monkeypatch.syspath_prepend(tmp_path / "installed")

    def cannot_certify(url, *options, more=()):
        words = [f"--chathistory-{option.removeprefix('--')}" for option in (f"url={url}", *options)]
        with pytest.raises(pytest.UsageError) as caught:
            pytester.parseconfigure("-p", "chathistory.testing.certify", *words, *more)
        return str(caught.value)

    return cannot_certify


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("nothing:here",), "no installed backend serves nothing:"),
        (("template:/dev/null/x",), "SQLite failed"),
        (("template:x", "--hooks=no_such_module:hooks"), "cannot be imported"),
        (("template:x", "--hooks=stores_caught_by_certify:nothing"), "cannot be imported"),
        (("template:x", "--hooks=stores_caught_by_certify:WRONG"), "not a CertifyHooks"),
        (("template:x", "--hooks=:hooks"), "cannot be imported"),
    ],
)
def test_what_cannot_be_certified_says_why(cannot_certify, words, message):
    error = cannot_certify(*words)
    assert message in error
    assert len(error.splitlines()) == 1, error


def test_an_error_of_a_store_that_is_not_ours_shows_no_secret(plugin, cannot_certify):
    plugin(
        "failing",
        "failing_plugin",
        BROKEN.replace("hookimpl\n", "Option, hookimpl\n", 1).replace(
            "def _append_records(self, key, bodies, *, after, revision, first):", "def check(self):"
        ),
    )
    error = cannot_certify("failing://user:s3cr3t@host/name")
    assert error == "ValueError: cannot log in as user with '***' and "


def test_other_options_need_a_url(pytester):
    with pytest.raises(pytest.UsageError, match="--chathistory-complete needs --chathistory-url=URL"):
        pytester.parseconfigure("-p", "chathistory.testing.certify", "--chathistory-complete")


def test_several_processes_of_pytest_are_refused(cannot_certify):
    assert "add -n 0" in cannot_certify("memory:", more=["--dist=load"])


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


def test_the_template_keeps_nothing_of_what_was_certified(run_certify, fast_folder):
    assert run_certify("template:./history.db", "--only=1").code == 0
    with closing(sqlite3.connect(fast_folder / "history.db")) as db:
        assert [db.execute(f"SELECT count(*) FROM {table}").fetchone() for table in ("heads", "records")] == [(0,)] * 2
