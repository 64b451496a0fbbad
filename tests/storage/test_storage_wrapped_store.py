"""A wrapped store passes every call on, also calls that are added to the storage contract later."""

from __future__ import annotations

import inspect
from dataclasses import replace

import pytest
from chathistory_memory import MemoryStore

from chathistory import History, HistoryStore, Key, Revision, Traits, WrappedStore
from chathistory.errors import ConfigError, StoreClosed
from chathistory.storage.url import StoreURL

CLASS_NAMES = {"from_url", "resolve_relative", "options"}
"""The names for opening a store by a URL, which a wrapped store does not support."""

NAMES = sorted({name for name in [*dir(HistoryStore), *HistoryStore.__annotations__] if not name.startswith("_")})
METHODS = [name for name in NAMES if inspect.isfunction(getattr(HistoryStore, name, None))]
ATTRIBUTES = [name for name in NAMES if name not in METHODS and name not in CLASS_NAMES]


class Recorder:
    """Has every method, and records its calls."""

    traits = Traits(durable=True, shared=False)
    ttl = 3.5

    def __init__(self):
        self.calls = []

    def __getattr__(self, name):
        if name not in METHODS:
            raise AttributeError(name)

        def called(*args, **options):
            self.calls.append((name, args, options))
            return self.calls[-1]

        return called


def make_arguments(method):
    """Return a new argument for each parameter of a method, by position and by name."""
    parameters = list(inspect.signature(method).parameters.values())
    by_position = [object() for each in parameters if each.kind is each.POSITIONAL_OR_KEYWORD]
    return by_position, {each.name: object() for each in parameters if each.kind is each.KEYWORD_ONLY}


def test_the_methods_and_attributes_of_a_store():
    assert {"append", "scan_keys", "check", "close", "get_recovery"} <= set(METHODS)
    assert ATTRIBUTES == ["traits", "ttl"]


@pytest.mark.parametrize("name", METHODS)
def test_every_method_reaches_the_inner_store_once_with_its_arguments(name):
    inner = Recorder()
    method = getattr(WrappedStore(inner), name)
    by_position, by_name = make_arguments(method)
    returned = method(*by_position, **by_name)
    assert inner.calls == [(name, tuple(by_position), by_name)]
    assert returned == (None if name in {"check", "close"} else inner.calls[0])


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_the_same_parameters(name):
    parameters = [inspect.signature(getattr(cls, name)).parameters for cls in (HistoryStore, WrappedStore)]
    assert parameters[0] == parameters[1]


def test_every_attribute_comes_from_the_inner_store():
    inner = Recorder()
    wrapped = WrappedStore(inner)
    for name in ATTRIBUTES:
        assert getattr(wrapped, name) == getattr(inner, name)
    wrapped.ttl = 7.0
    assert inner.ttl == 7.0


def test_the_close_of_a_subclass_is_called_at_the_end_of_a_with_block():
    class Closing(WrappedStore):
        closed = 0

        def close(self):
            self.closed += 1
            super().close()

    inner = MemoryStore()
    with Closing(inner) as store:
        pass
    assert store.closed == 1
    with pytest.raises(StoreClosed):
        inner.check()


class ReversingStore(WrappedStore):
    """Changes bodies when they are stored and read, like a store that encrypts them."""

    def append(self, key, bodies, **options):
        return super().append(key, [body[::-1] for body in bodies], **options)

    def read(self, key, **span):
        found = super().read(key, **span)
        return found and replace(found, records=[replace(each, body=each.body[::-1]) for each in found.records])


def test_a_history_works_on_a_wrapped_store_of_a_wrapped_store():
    inner = MemoryStore()
    chat = History(WrappedStore(ReversingStore(inner))).conversation("c")
    chat.append({"role": "user", "content": "hello"})
    assert chat.messages() == [{"role": "user", "content": "hello"}]
    [record] = inner.read(chat.log.key).records
    assert "olleh" in record.body


def test_it_cannot_be_opened_by_a_url_and_shows_the_inner_store():
    with pytest.raises(
        ConfigError, match="WrappedStore wraps another store and has no URL; open the other store, and pass it"
    ):
        WrappedStore.from_url(StoreURL.parse("memory:secret"))
    assert repr(WrappedStore(WrappedStore(StoreWithRepr()))) == "WrappedStore(WrappedStore(a store))"


class StoreWithRepr(MemoryStore):
    def __repr__(self):
        return "a store"


def test_it_has_the_conversations_of_the_inner_store():
    inner = MemoryStore()
    wrapped = WrappedStore(inner)
    head = wrapped.append(Key("s", "a"), ["x"], after=None, revision=Revision("v", 1))
    assert inner.read(Key("s", "a")).head == head
    assert list(wrapped.keys()) == [Key("s", "a")]
