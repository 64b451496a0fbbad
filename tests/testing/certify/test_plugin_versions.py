"""Plugins that are older or newer than this chathistory: each works, or an error says what to install."""

from __future__ import annotations

from textwrap import dedent

import pytest

from chathistory import __version__

HEAD = "from chathistory import hookimpl\nfrom chathistory_template import TemplateStore\n"

OLDER = """
    from pathlib import Path
    from threading import Lock

    from chathistory import BaseStore, Traits, hookimpl
    from chathistory_template import TemplateStore

    class Older(BaseStore):  # made before there was `_check`, `_close`, `options`, `ttl` or a trait but these
        traits = Traits(durable=True, shared=True)

        def __init__(self, path, timeout):
            super().__init__()
            self._path, self._timeout, self._lock, self._db = path, timeout, Lock(), None

    for name in BaseStore.__abstractmethods__:
        setattr(Older, name, vars(TemplateStore)[name])
    for name in ("_list_heads", "_transaction", "_connect", "_read_heads"):
        setattr(Older, name, vars(TemplateStore)[name])
    Older.from_url = classmethod(lambda cls, url: cls(Path(url.path), 5))
    Older.__abstractmethods__ = frozenset()

    @hookimpl
    def chathistory_store():  # made before the hook was given the scheme
        return Older
"""

NEWER = {
    "a class with methods of which nobody here has heard": """
        class Newer(TemplateStore):
            def search(self, scope, words, *, limit=20):
                return []

        @hookimpl
        def chathistory_store(scheme):
            return Newer
    """,
    "an optional hook of which nobody here has heard": """
        @hookimpl
        def chathistory_store(scheme):
            return TemplateStore

        @hookimpl(optionalhook=True)
        def chathistory_later(scheme, more):
            return None
    """,
}

TOO_NEW = {
    "an argument of the hook": (
        "@hookimpl\ndef chathistory_store(scheme, settings):\n    return TemplateStore\n",
        ("settings", "needs something that chathistory", __version__),
    ),
    "a hook that it needs": (
        "@hookimpl\ndef chathistory_later(scheme):\n    return None\n",
        ("chathistory_later", "needs something that chathistory", __version__),
    ),
    "a name": (
        "from chathistory import Searchable\n",
        ("Searchable", f"chathistory {__version__} does not have", "pip install --upgrade chathistory"),
    ),
    "a module": (
        "import chathistory.searching\n",
        ("chathistory.searching", "needs something that chathistory", "pip install --upgrade chathistory"),
    ),
    "a trait": (
        "from chathistory import Traits\nTraits(durable=True, shared=True, searchable=True)\n",
        ("searchable", "fails on import"),
    ),
}


@pytest.fixture
def plugin_error(command):
    """Return the error that a command prints for a plugin, and check that other backends still work."""

    def open_plugin(scheme):
        done = command("list", "--store", f"{scheme}:./history.db")
        assert (done.code, done.output) == (1, ""), done
        assert command("list", "--store", "memory:").code == 0, "others have to go on"
        message, where = done.errors.splitlines()
        assert where == "the store is set here: --store"
        return f"{message}\n"

    return open_plugin


def test_an_older_plugin_of_this_version_works(plugin, command):
    plugin("older", "older_plugin", OLDER)
    done = command("certify", "older:./history.db", "--only", "3", "--only", "9")
    assert done.code == 0, done.output + done.errors
    assert "Older of older-plugin 1.0" in done.output


@pytest.mark.parametrize("what", NEWER)
def test_a_newer_plugin_of_this_version_works_if_it_can(plugin, command, what):
    plugin("newer", "newer_plugin", HEAD + dedent(NEWER[what]))
    done = command("certify", "newer:./history.db", "--only", "3")
    assert done.code == 0, done.output + done.errors


@pytest.mark.parametrize("what", TOO_NEW)
def test_a_newer_plugin_that_cannot_work_says_what_it_asks_for(plugin, plugin_error, what):
    source, words = TOO_NEW[what]
    plugin("newer", "newer_plugin", HEAD + source, requires="chathistory>=9.5")
    error = plugin_error("newer")
    for word in ("newer:", "newer-plugin", *words, f"it requires chathistory>=9.5; this is {__version__}"):
        assert word in error


@pytest.mark.parametrize("group", ["chathistory.v2", "chathistory.v0"])
def test_a_plugin_for_another_version_says_so(plugin, plugin_error, group):
    plugin("other", "other_plugin", "raise SystemError('this is never imported')", group=group)
    error = plugin_error("other")
    for word in ("other-plugin", group, "chathistory.v1", "to get versions that match, run: pip install"):
        assert word in error


def test_one_distribution_may_serve_two_versions(plugin, command):
    source = HEAD + dedent(NEWER["a class with methods of which nobody here has heard"])
    plugin("both", "both_plugin", source, more="[chathistory.v2]\nboth = no_such_module\n")
    assert command("list", "--store", "both:./history.db").code == 0
