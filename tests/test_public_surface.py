"""The public_members API: equal names in sync and async, types that can be imported, default scopes, renames."""

from __future__ import annotations

import asyncio
import builtins
import collections.abc
import inspect
import io
import itertools
import json
import re
import sys
import typing
from pathlib import Path

import pytest
from chathistory_memory import MemoryStore
from faulty_stores import said, texts, user

import chathistory
from chathistory import AsyncHistory, ChatEngine, History, StoreURL, open_history, open_store
from chathistory.checks import check_store
from chathistory.errors import (
    ConfigError,
    ConversationExists,
    ConversationNotFound,
    InvalidInput,
    StoreClosed,
    TurnInProgress,
)
from chathistory.testing import FakeMessagesAPI

sys.path.insert(0, str(Path(__file__).parent / "docs"))
import docs_names
from docs_names import modules, snapshot

PAIRS = [
    (chathistory.History, chathistory.AsyncHistory),
    (chathistory.Conversation, chathistory.AsyncConversation),
    (chathistory.ChatEngine, chathistory.AsyncChatEngine),
    (chathistory.ReplyStream, chathistory.AsyncReplyStream),
]
ONLY_ASYNC = {"run", "sync", "store", "scope"}  # its threads and the History that it wraps; attributes of a History
ONLY_SYNC = {"log"}  # internal: the engine for asyncio uses it in its threads


def public_members(cls):
    return {name: value for name, value in inspect.getmembers(cls) if not name.startswith("_")}


def list_parameters(function):
    return [
        (each.name, each.kind, repr(each.default), str(each.annotation))
        for each in inspect.signature(function).parameters.values()
    ]


@pytest.mark.parametrize(("sync", "aio"), PAIRS, ids=lambda cls: cls.__name__)
def test_sync_and_async_have_the_same_names_and_parameters(sync, aio):
    there, expected = public_members(aio), public_members(sync)
    assert expected.keys() - there.keys() <= ONLY_SYNC
    assert there.keys() - expected.keys() <= ONLY_ASYNC
    for name in there.keys() & expected.keys():
        assert isinstance(there[name], property) == isinstance(expected[name], property), name
        if callable(expected[name]) and not inspect.isclass(expected[name]):
            assert list_parameters(there[name]) == list_parameters(expected[name]), name


@pytest.mark.parametrize(("sync", "aio"), PAIRS, ids=lambda cls: cls.__name__)
def test_no_property_can_be_set(sync, aio):
    for cls in (sync, aio):
        assert not [name for name, value in public_members(cls).items() if isinstance(value, property) and value.fset]


def find_type_names(line):
    """Return the names of types in a line of the snapshot of the public_members interface."""
    parts = re.findall(r"(?::|->|\[|\||,)\s*([^=()]*)", re.sub(r"'[^']*'", "''", line))
    return {word for part in parts for word in re.findall(r"(?<![\w.])([A-Z]\w+)", part)}


def test_every_type_of_a_public_signature_can_be_imported_from_a_public_module():
    names = {name for module in modules() for name, _ in docs_names.public(module)}
    known = names | {*dir(typing), *dir(collections.abc), *dir(builtins), "Path", "AbstractContextManager"}
    section, found = "", set()
    for line in snapshot().splitlines():
        section = line if line.startswith("[") else section
        if not section.startswith("[chathistory.testing"):  # its classes are used through the module
            found |= {(word, line) for word in find_type_names(line) if word not in known}
    assert found == set()
    assert find_type_names("f(a: History, b: Callable[[Secret], None]) -> Other | None") == {
        "History",
        "Callable",
        "Secret",
        "None",
        "Other",
    }


@pytest.mark.parametrize("name", ["CutFailedWarning", "SetupChangedWarning", "TextReplacedWarning"])
def test_warnings_can_be_imported(name):
    assert issubclass(getattr(chathistory, name), UserWarning)


# Scopes.


@pytest.fixture
def shared(store):
    """The same ids in three scopes."""
    for scope in ("default", "team", "other"):
        for id in ("a", "b"):
            History(store).conversation(id, scope=scope).append([user(f"{scope}/{id}"), said("x")])
    return store


def list_exported(data):
    lines = [json.loads(line) for line in data.decode().splitlines()]
    return [(line["scope"], line["id"]) for line in lines if line.get("kind") == "conversation"]


TEAM = [("team", "a"), ("team", "b")]


def test_without_a_scope_a_call_works_on_the_own_scope(shared):
    history = History(shared, scope="team")
    out = io.BytesIO()
    assert history.export_to(out).conversations == 2
    assert sorted(list_exported(out.getvalue())) == TEAM
    with open_store("memory:") as empty:
        assert history.copy_to(empty).copied == 2
        assert sorted((key.scope, key.id) for key in empty.keys(None)) == TEAM
    assert history.check().checked == 2
    assert history.key("a").scope == history.conversation("a").scope == "team"
    assert {row.scope for row in history.list().items} == {"team"}
    assert {row.scope for row in history.prune(count=0).removed} == {"team"}
    assert history.exists("a")
    assert "a" in history
    assert "c" not in history
    assert 5 not in history
    assert history.erase(dry_run=True).removed == history.erase().removed
    assert History(shared).scopes() == ("default", "other")


def test_all_scopes_must_be_requested(shared):
    history, out = History(shared, scope="team"), io.BytesIO()
    assert history.export_to(out, all_scopes=True).conversations == 6
    assert history.check(all_scopes=True).checked == 6
    with open_store("memory:") as empty:
        assert history.copy_to(empty, all_scopes=True).copied == 6
    out.seek(0)
    with open_store("memory:") as empty:
        assert History(empty, scope="mine").import_from(out, all_scopes=True).copied == 6
        assert History(empty).scopes() == ("default", "other", "team")


@pytest.mark.parametrize("method", ["export_to", "copy_to", "check", "import_from"])
def test_a_scope_and_all_scopes_exclude_each_other(shared, method):
    arguments = {"export_to": [io.BytesIO()], "copy_to": [shared], "import_from": [io.BytesIO()]}.get(method, [])
    with pytest.raises(InvalidInput, match="all_scopes: cannot be given together"):
        getattr(History(shared), method)(*arguments, scope="team", all_scopes=True)
    if method != "import_from":
        with pytest.raises(InvalidInput, match="all_scopes: cannot be given together"):
            getattr(History(shared), method)(*arguments, ids=["a"], all_scopes=True)
        with pytest.raises(InvalidInput, match="ids: must be a list of ids"):
            getattr(History(shared), method)(*arguments, ids="a")


def test_an_imported_conversation_is_in_the_scope_of_the_history(shared):
    history = History(shared, scope="new")
    history.import_from(io.BytesIO(b'[{"role": "user", "content": "hello"}]'), id="list")
    assert texts(history.conversation("list").messages()) == ["hello"]
    out = io.BytesIO()
    History(shared, scope="team").export_to(out)
    out.seek(0)
    assert history.import_from(out).copied == 2
    assert texts(history.conversation("a").messages()) == ["team/a", "x"]
    assert texts(History(shared, scope="team").conversation("a").messages()) == ["team/a", "x"]


def test_conversations_with_one_name_do_not_replace_each_other_in_one_scope(shared):
    out = io.BytesIO()
    History(shared).export_to(out, all_scopes=True)
    with open_store("memory:") as empty:
        out.seek(0)
        report = History(empty, scope="one").import_from(out, replace=True)
        assert (report.copied, len(report.different)) == (2, 4)
        assert len({texts(History(empty, scope="one").conversation(id).messages())[0][:3] for id in "ab"}) == 1


def test_none_is_refused_as_a_scope(shared):
    history = History(shared)
    calls = [
        lambda: history.conversation("a", scope=None),
        lambda: history.list(scope=None),
        lambda: history.export_to(io.BytesIO(), scope=None),
        lambda: history.copy_to(shared, scope=None),
        lambda: history.import_from(io.BytesIO(b"[]"), id="x", scope=None),
        lambda: history.check(scope=None),
        lambda: history.erase(None),
        lambda: history.delete("a", scope=None),
        lambda: history.exists("a", scope=None),
        lambda: history.rename("a", "z", scope=None),
        lambda: history.conversation("a").fork("z", scope=None),
        lambda: ChatEngine(FakeMessagesAPI().client(), shared, model="m").send("a", "x", scope=None),
    ]
    for call in calls:
        with pytest.raises(InvalidInput, match="scope: must be text, not NoneType"):
            call()
    assert len(list(shared.keys(None))) == 6


def test_a_fork_stays_in_the_scope_of_its_conversation(shared):
    fork = History(shared, scope="team").conversation("a").fork("f")
    assert fork.scope == "team"
    assert History(shared, scope="team").conversation("a").fork("f", scope="default").scope == "default"


def test_scopes_in_asyncio_and_in_the_configuration(shared, tmp_path, monkeypatch):
    async def main():
        async with AsyncHistory(shared, scope="team") as history:
            out = io.BytesIO()
            await history.export_to(out)
            await history.import_from(io.BytesIO(b'[{"role": "user", "content": "hello"}]'), id="list")
            assert await history.exists("list")
            assert (history.scope, history.key("a").scope) == ("team", "team")
            assert (await history.check()).checked == 3
            assert [row.scope for row in (await history.list()).items] == ["team"] * 3
            return out.getvalue()

    assert sorted(list_exported(asyncio.run(main()))) == TEAM
    monkeypatch.chdir(tmp_path)
    (tmp_path / "chathistory.toml").write_text('store = "file:./h"\nscope = "team"\n')
    with open_history() as history:
        history.conversation("mine").append(user("hello"))
        history.conversation("theirs", scope="other").append(user("hello"))
        out = io.BytesIO()
        history.export_to(out)
        assert list_exported(out.getvalue()) == [("team", "mine")]


# What a history is opened with.


def test_a_history_takes_a_store_a_history_or_a_url(tmp_path):
    with History(f"file:{tmp_path}/h", scope="team") as history:
        history.conversation("a").append(user("x"))
        store = history.store
    with pytest.raises(StoreClosed):
        store.check()
    with History(StoreURL.parse(f"file:{tmp_path}/h")) as history:
        assert history.scopes() == ("team",)
        with History(history) as same, History(history, scope="team") as other:
            assert (same.store, same.scope, other.scope) == (history.store, "default", "team")
        assert other.exists("a")  # the store was handed in, so it is still open
        assert History(other).scope == "team"
        assert other.copy_to(f"file:{tmp_path}/copy").copied == 1
    assert open_history(f"file:{tmp_path}/copy").exists("a", scope="team")


def test_a_history_for_asyncio_closes_what_it_opened(tmp_path):
    async def main():
        async with AsyncHistory(f"file:{tmp_path}/h") as history:
            await history.conversation("a").append(user("x"))
            async with AsyncHistory(history.sync, scope="b"), AsyncHistory(history):
                pass
            assert await history.exists("a")
        with pytest.raises(StoreClosed):
            history.store.check()

    asyncio.run(main())


@pytest.mark.parametrize("wrong", [None, 5, object(), {}, History, b"memory:"])
def test_a_value_that_is_not_a_store_is_refused_at_once(wrong):
    for make in (History, AsyncHistory, lambda it: ChatEngine(FakeMessagesAPI().client(), it, model="m")):
        with pytest.raises(InvalidInput, match="store: must be a HistoryStore"):
            make(wrong)
    with pytest.raises(ConfigError):
        History("no such scheme")


# Renaming.


def test_a_conversation_is_renamed(store):
    history = History(store)
    chat = history.conversation("a")
    chat.append([user("1"), said("2")])
    chat.annotate(title="t")
    before, entries = chat.info(), list(chat.entries())
    history.rename("a", "b")
    now = history.conversation("b")
    assert list(now.entries()) == entries
    assert (now.info().version, now.info().updated, now.info().title) == (before.version, before.updated, "t")
    assert [row.id for row in history.list().items] == ["b"]
    assert chat.messages() == []
    assert texts([*now.messages()]) == ["1", "2"]
    history.rename("b", "b")
    assert history.exists("b")


def test_a_rename_to_an_existing_or_of_a_missing_conversation_is_refused(store):
    history = History(store)
    history.conversation("a").append(user("1"))
    history.conversation("b").append(user("2"))
    with pytest.raises(ConversationExists):
        history.rename("a", "b")
    for new in ("c", "nobody"):
        with pytest.raises(ConversationNotFound):
            history.rename("nobody", new)
    assert [texts(history.conversation(id).messages()) for id in "ab"] == [["1"], ["2"]]


class Killed(BaseException):
    """The process ends here."""


class DyingStore(MemoryStore):
    """Ends the process before or after a call: at the point with the number `end`, two for each call; 0 for never."""

    end = steps = 0

    def append(self, *args, **more):
        return self._survive(super().append, *args, **more)

    def read(self, *args, **more):
        return self._survive(super().read, *args, **more)

    def delete(self, *args, **more):
        return self._survive(super().delete, *args, **more)

    def forget(self, *args, **more):
        return self._survive(super().forget, *args, **more)

    def _survive(self, call, *args, **more):
        self._step()
        done = call(*args, **more)
        self._step()
        return done

    def _step(self):
        self.steps += 1
        if self.steps == self.end:
            raise Killed


def test_a_rename_interrupted_anywhere_loses_nothing_and_the_next_one_completes_it():
    for end in itertools.count(1):
        with DyingStore() as store:
            history = History(store)
            history.conversation("a").append([user("1"), said("2"), user("3")])
            store.end, store.steps = end, 0
            try:
                history.rename("a", "b")
            except Killed:
                store.end = 0
            else:
                assert end > 10
                return
            there = [row.id for row in history.list().items]
            assert there
            for id in there:
                assert texts(history.conversation(id).messages()) == ["1", "2", "3"]
            if "a" in there:
                history.rename("a", "b")
            assert [row.id for row in history.list().items] == ["b"]
            assert texts(history.conversation("b").messages()) == ["1", "2", "3"]


@pytest.mark.parametrize("continued", ["a", "b"])
def test_a_conversation_continued_under_one_of_two_names_after_a_kill_loses_nothing(store, monkeypatch, continued):
    history = History(store)
    history.conversation("a").append([user("1"), said("2")])
    with monkeypatch.context() as patch:
        patch.setattr(store, "delete", lambda *_, **__: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            history.rename("a", "b")
    history.conversation(continued).append(user("3"))
    history.rename("a", "b")
    assert [row.id for row in history.list().items] == ["b"]
    assert texts(history.conversation("b").messages()) == ["1", "2", "3"]


def test_conversations_continued_under_both_names_after_a_kill_stay_two(store, monkeypatch):
    history = History(store)
    history.conversation("a").append(user("1"))
    with monkeypatch.context() as patch:
        patch.setattr(store, "delete", lambda *_, **__: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            history.rename("a", "b")
    for id in "ab":
        history.conversation(id).append(said(id))
    with pytest.raises(ConversationExists):
        history.rename("a", "b")
    assert [texts(history.conversation(id).messages())[-1] for id in "ab"] == ["a", "b"]


def test_a_conversation_with_an_open_turn_keeps_its_id(store):
    engine = ChatEngine(FakeMessagesAPI().client(), store, model="m")
    turn = engine._settings.build_turn_starter("default", "a").start("hello")
    with pytest.raises(TurnInProgress):
        engine.history.rename("a", "b")
    assert (engine.history.exists("a"), engine.history.exists("b")) == (True, False)
    turn.abort(GeneratorExit())
    engine.history.rename("a", "b")
    assert engine.history.exists("b")


def test_messages_written_during_a_rename_are_kept(store, monkeypatch):
    history = History(store)
    history.conversation("a").append(user("1"))
    real, left = store.delete, [1]

    def delete(key, **more):
        if key.id == "a" and left:
            left.pop()
            history.conversation("a").append(said("2"))
        return real(key, **more)

    monkeypatch.setattr(store, "delete", delete)
    history.rename("a", "b")
    assert texts(history.conversation("b").messages()) == ["1", "2"]
    assert not history.exists("a")


def test_a_tuple_of_messages_is_one_batch(store):
    head = History(store).conversation("a").append((user("1"), said("2")))
    assert head.end == 2


def test_a_store_that_is_not_a_subclass_is_accepted(store):
    class Proxy:
        def __init__(self, inner):
            self._inner = inner

        def __getattr__(self, name):
            return getattr(self._inner, name)

    check_store(proxy := Proxy(store))
    assert History(proxy).scopes() == ()
