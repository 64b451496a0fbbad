"""Plugins that are broken, missing, installed twice or made for another version: each one affects only its scheme.

All are real: metadata and modules in a folder on the path, which are found like an installed distribution.
"""

from __future__ import annotations

import importlib
import sys
import textwrap

import pytest

from chathistory import open_store
from chathistory.errors import ConfigError, PluginError
from chathistory.storage.plugins import list_backends, load_store_class

GOOD = """
    from chathistory import hookimpl
    from chathistory_memory import MemoryStore

    class Store(MemoryStore):
        pass

    @hookimpl
    def chathistory_store(scheme):
        return Store if scheme in ("good", "better", "twice") else None
"""

RETURNS = """
    from chathistory import hookimpl, HistoryStore
    {before}

    @hookimpl
    def chathistory_store({arguments}):
        return {what}
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """A function that installs a distribution: its entry points, and one module."""
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)

    def install(name, points, module=None, source="", group="chathistory.v1"):
        payload = tmp_path / f"{name.replace('-', '_')}-1.0.dist-info"
        payload.mkdir()
        extras = "".join(f"Provides-Extra: {extra}\n" for extra in ("spare", "parts"))
        (payload / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{extras}")
        lines = "".join(f"{scheme} = {value}\n" for scheme, value in points.items())
        (payload / "entry_points.txt").write_text(f"[{group}]\n{lines}")
        if module:
            (tmp_path / f"{module}.py").write_text(textwrap.dedent(source))
        importlib.invalidate_caches()

    yield install
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and str(tmp_path) in str(sys.modules[name].__file__):
            del sys.modules[name]


@pytest.fixture(autouse=True)
def other_backends_work(install, request):
    """Whatever is broken, the other backends work, before and after."""
    yield
    with open_store("memory:") as store:
        store.check()


def check_failure(scheme, *words):
    with pytest.raises(PluginError) as failed:
        open_store(f"{scheme}:")
    for word in (scheme, *words):
        assert word in str(failed.value)
    [problem] = [backend.problem for backend in list_backends() if backend.scheme == scheme] or [str(failed.value)]
    assert problem == str(failed.value)
    return failed.value


def test_a_plugin_works_for_all_its_schemes(install):
    install("good-dist", {"good": "good_one", "better": "good_one"}, "good_one", GOOD)
    for scheme in ("good", "better", "GOOD"):
        with open_store(f"{scheme}:?ttl=3") as store:
            assert (type(store).__name__, store.ttl) == ("Store", 3.0)
    assert [(b.distribution, b.problem) for b in list_backends() if b.scheme in ("good", "better")] == [
        ("good-dist", None)
    ] * 2


def test_built_in_backends_are_plugins():
    found = {backend.scheme: backend for backend in list_backends()}
    assert {"memory", "file"} <= found.keys()
    assert {found[scheme].distribution for scheme in ("memory", "file")} == {"chathistory"}
    assert {found[scheme].problem for scheme in ("memory", "file")} == {None}


def test_only_the_plugin_of_the_scheme_is_imported(install):
    install("good-dist", {"good": "good_one"}, "good_one", GOOD)
    install("bad-dist", {"bad": "bad_one"}, "bad_one", "raise SystemError('I should not run')")
    open_store("good:").close()
    open_store("memory:").close()
    assert "bad_one" not in sys.modules


@pytest.mark.parametrize("error", ["ValueError('no luck')", "SystemError('no luck')", "AttributeError('no luck')"])
def test_a_plugin_that_fails_on_import(install, error):
    install("bad-dist", {"bad": "bad_one"}, "bad_one", f"raise {error}")
    caught = check_failure("bad", "bad-dist", "no luck")
    assert type(caught.__cause__).__name__ == error.partition("(")[0]


def test_a_plugin_with_a_syntax_error(install):
    install("bad-dist", {"bad": "bad_one"}, "bad_one", "def (:")
    check_failure("bad", "bad-dist", "SyntaxError")


def test_a_plugin_without_its_client_library(install):
    install("bad-dist", {"bad": "bad_one [spare,parts]"}, "bad_one", "import a_client_library_that_is_not_there")
    caught = check_failure("bad", "a_client_library_that_is_not_there", 'pip install --upgrade "bad-dist[spare,parts]"')
    assert isinstance(caught.__cause__, ImportError)


def test_a_plugin_without_its_module(install):
    install("bad-dist", {"bad": "no_such_module_anywhere"})
    check_failure("bad", "no_such_module_anywhere", 'pip install --upgrade "bad-dist"')


def test_an_entry_point_of_something_else_with_the_name_of_a_scheme_is_ignored(install):
    install("odd-dist", {"odd": "odd_one"}, group="console_scripts")
    check_failure("odd", "no installed backend serves odd:")


def test_a_plugin_can_say_why_it_cannot_be_used(install):
    source = "from chathistory.errors import PluginError\nraise PluginError('bad: needs a newer kernel')"
    install("bad-dist", {"bad": "bad_one"}, "bad_one", source)
    assert str(check_failure("bad")) == "bad: needs a newer kernel"


def test_a_plugin_without_its_object(install):
    install("bad-dist", {"bad": "good_one:nothing"}, "good_one", GOOD)
    check_failure("bad", "bad-dist", "nothing")


def test_two_distributions_for_one_scheme(install):
    install("one-dist", {"twice": "good_one", "good": "good_one"}, "good_one", GOOD)
    install("two-dist", {"twice": "good_one"})
    check_failure("twice", "one-dist", "two-dist", "uninstall")
    open_store("good:").close()


def test_a_second_plugin_for_a_built_in_scheme_is_an_error(install, tmp_path):
    install("thief-dist", {"memory": "good_one"}, "good_one", GOOD)
    check_failure("memory", "thief-dist", "chathistory", "uninstall")
    (tmp_path / "thief_dist-1.0.dist-info" / "entry_points.txt").unlink()  # so that `memory:` works at the end
    importlib.invalidate_caches()


def test_a_plugin_for_another_version(install):
    install("late-dist", {"late": "late_one"}, group="chathistory.v2")
    caught = check_failure("late", "late-dist", "chathistory.v2", "chathistory.v1")
    assert caught.__cause__ is None


def test_plugins_for_two_versions_of_the_interface(install):
    install("good-dist", {"good": "good_one"}, "good_one", GOOD)
    install("late-dist", {"good": "late_one"}, group="chathistory.v2")
    open_store("good:").close()


def test_an_unknown_scheme():
    caught = check_failure("memroy", "did you mean 'memory'", "file")
    assert isinstance(caught, ValueError)


WRONG_PLUGINS = {
    "misspelt hook": (
        "from chathistory import hookimpl\n@hookimpl\ndef chathistory_stroe(scheme):\n    return None\n",
        ("chathistory_stroe",),
    ),
    "no hook": ("x = 1\n", ("does not serve this",)),
    "hook without its decorator": (
        "def chathistory_store(scheme):\n    return None\n",
        ("does not serve this",),
    ),
    "serves another scheme": (GOOD, ("does not serve this",)),
    "other arguments": (RETURNS.format(before="", arguments="scheme, colour", what="None"), ("colour",)),
    "fails": (RETURNS.format(before="", arguments="scheme", what="1 / 0"), ("ZeroDivisionError",)),
    "an object that is not a class": (
        RETURNS.format(before="", arguments="scheme", what="object()"),
        ("not a HistoryStore class",),
    ),
    "another class": (RETURNS.format(before="", arguments="scheme", what="dict"), ("not a HistoryStore class",)),
    "a store instead of its class": (
        RETURNS.format(before="from chathistory_memory import MemoryStore", arguments="scheme", what="MemoryStore()"),
        ("not a HistoryStore class",),
    ),
    "abstract": (
        RETURNS.format(before="class S(HistoryStore):\n        def close(self): ...", arguments="scheme", what="S"),
        ("append", "delete", "forget", "from_url", "heads", "keys", "read"),
    ),
}


@pytest.mark.parametrize("name", WRONG_PLUGINS)
def test_a_plugin_with_a_wrong_hook(install, name):
    source, words = WRONG_PLUGINS[name]
    install("bad-dist", {"bad": "bad_one"}, "bad_one", source)
    check_failure("bad", *words)


def test_a_class_without_traits(install):
    source = """
        from chathistory import hookimpl, HistoryStore

        def nothing(self, *args, **kwargs): ...

        S = type("S", (HistoryStore,), {name: nothing for name in HistoryStore.__abstractmethods__})

        @hookimpl
        def chathistory_store(scheme):
            return S
    """
    install("bad-dist", {"bad": "bad_one"}, "bad_one", source)
    check_failure("bad", "traits")


def test_only_the_options_of_the_class_are_accepted(install):
    source = """
        from chathistory import Option, hookimpl
        from chathistory_memory import MemoryStore

        class Store(MemoryStore):
            options = {"colour": Option(str, "red", "the colour"), "size": Option(int, 3, "the size")}

            @classmethod
            def from_url(cls, url):
                store = cls(url.path)
                store.seen = dict(url.options)
                return store

        @hookimpl
        def chathistory_store(scheme):
            return Store
    """
    install("good-dist", {"good": "good_one"}, "good_one", source)
    with open_store("good:?size=7&ttl=2") as store:
        assert (store.seen, store.ttl) == ({"colour": "red", "size": 7}, 2.0)
    for url in ("good:?colur=blue", "good:?size=big", "good:?size=", "memory:?colour=red", "good:?ttl=0"):
        with pytest.raises(ConfigError) as wrong:
            open_store(url)
        assert url.partition("?")[2].partition("=")[0] in str(wrong.value)
        assert not isinstance(wrong.value, PluginError)
    with pytest.raises(ConfigError, match="did you mean 'colour'"):
        open_store("good:", colur="blue")
    assert load_store_class("good").__name__ == "Store"
