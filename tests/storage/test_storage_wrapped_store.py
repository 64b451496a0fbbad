"""A wrapped store hands everything on, whatever is added to the contract of stores."""

from __future__ import annotations

import inspect
from dataclasses import replace

import pytest
from chathistory_memory import MemoryStore

from chathistory import History, HistoryStore, Key, Revision, Traits, WrappedStore
from chathistory.errors import ConfigError, StoreClosed
from chathistory.storage.url import StoreURL

OF_THE_CLASS = {"from_url", "resolve_relative", "options"}
"""What opens a store by a URL: a wrapped store is not opened by one."""

NAMES = sorted({name for name in [*dir(HistoryStore), *HistoryStore.__annotations__] if not name.startswith("_")})
METHODS = [name for name in NAMES if inspect.isfunction(getattr(HistoryStore, name, None))]
ATTRIBUTES = [name for name in NAMES if name not in METHODS and name not in OF_THE_CLASS]


class Recorder:
    """Has every method, and notes how it is called."""

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


def arguments(method):
    """Return an argument of its own for each parameter of a method: by position and by name."""
    parameters = list(inspect.signature(method).parameters.values())
    by_position = [object() for each in parameters if each.kind is each.POSITIONAL_OR_KEYWORD]
    return by_position, {each.name: object() for each in parameters if each.kind is each.KEYWORD_ONLY}


def test_the_names_are_those_of_a_store():
    assert {"append", "scan_keys", "check", "close", "get_recovery"} <= set(METHODS)
    assert ATTRIBUTES == ["traits", "ttl"]


@pytest.mark.parametrize("name", METHODS)
def test_every_method_reaches_the_inner_store_once_with_its_arguments(name):
    inner = Recorder()
    method = getattr(WrappedStore(inner), name)
    by_position, by_name = arguments(method)
    returned = method(*by_position, **by_name)
    assert inner.calls == [(name, tuple(by_position), by_name)]
    assert returned == (None if name in {"check", "close"} else inner.calls[0])


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_called_in_the_same_way(name):
    parameters = [inspect.signature(getattr(cls, name)).parameters for cls in (HistoryStore, WrappedStore)]
    assert parameters[0] == parameters[1]


def test_every_attribute_is_that_of_the_inner_store():
    inner = Recorder()
    wrapped = WrappedStore(inner)
    for name in ATTRIBUTES:
        assert getattr(wrapped, name) == getattr(inner, name)
    wrapped.ttl = 7.0
    assert inner.ttl == 7.0


def test_what_a_subclass_does_on_close_is_done_at_the_end_of_a_with_block():
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


class Reversing(WrappedStore):
    """Changes bodies on their way in and out, as a store does that encrypts them."""

    def append(self, key, bodies, **options):
        return super().append(key, [body[::-1] for body in bodies], **options)

    def read(self, key, **span):
        found = super().read(key, **span)
        return found and replace(found, records=[replace(each, body=each.body[::-1]) for each in found.records])


def test_a_history_works_on_a_wrapped_store_of_a_wrapped_store():
    inner = MemoryStore()
    chat = History(WrappedStore(Reversing(inner))).conversation("c")
    chat.append({"role": "user", "content": "hello"})
    assert chat.messages() == [{"role": "user", "content": "hello"}]
    [record] = inner.read(chat.log.key).records
    assert "olleh" in record.body


def test_it_is_not_opened_by_a_url_and_shows_what_is_within():
    with pytest.raises(
        ConfigError, match="WrappedStore wraps another store and has no URL; open the other store, and pass it"
    ):
        WrappedStore.from_url(StoreURL.parse("memory:secret"))
    assert repr(WrappedStore(WrappedStore(Shown()))) == "WrappedStore(WrappedStore(a store))"


class Shown(MemoryStore):
    def __repr__(self):
        return "a store"


def test_conversations_are_those_of_the_inner_store():
    inner = MemoryStore()
    wrapped = WrappedStore(inner)
    head = wrapped.append(Key("s", "a"), ["x"], after=None, revision=Revision("v", 1))
    assert inner.read(Key("s", "a")).head == head
    assert list(wrapped.keys()) == [Key("s", "a")]
