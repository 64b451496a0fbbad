"""Correct stores of different kinds, and the contract as a test class for a class of stores."""

from __future__ import annotations

import contextlib
import functools
import random
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest
from chathistory_memory import MemoryStore

from chathistory.errors import InvalidInput, StoreUnavailable
from chathistory.storage.cursors import decode_cursor, encode_cursor
from chathistory.storage.store import HistoryStore
from chathistory.storage.values import Page, ReadResult, Traits
from chathistory.testing import HistoryStoreContract


class NamedStore(MemoryStore):
    """Shared by all instances of a name, like a server, and can be made unreachable."""

    traits: ClassVar = Traits(durable=True, shared=True)

    def __init__(self, place):
        super().__init__(str(place))

    @classmethod
    def unreachable(cls, place):
        """Return a store whose calls cannot reach the data."""
        store = cls(place / "dead")
        store._data = replace(store._data, lock=Unreachable())
        return store

    @classmethod
    def remains(cls, place, text):
        return find_text_in(MemoryStore._named[str(place)], text)


class Unreachable:
    """Replaces the lock of the data: every attempt to take it fails."""

    def __enter__(self):
        try:
            raise ConnectionRefusedError(111, "no answer")
        except OSError as error:
            raise StoreUnavailable("the server cannot be reached", outcome="not stored") from error

    def __exit__(self, *exc_info):
        pass


class LimitedStore(NamedStore):
    """Has limits for a body and for a batch."""

    traits: ClassVar = Traits(durable=True, shared=True, largest_record=2001, largest_batch=50_000)


class FrugalStore(NamedStore):
    """Returns small parts, lists by time bucket, and yields keys lazily: unusual, but allowed."""

    traits: ClassVar = Traits(durable=True, shared=True, recency="bucket")

    def read(self, key, *, start=0, stop=None):
        run = super().read(key, start=start, stop=stop)
        return run and ReadResult(run.head, tuple(run.records[:2]))

    def heads(self, scope, *, after=None, limit=20):
        below = "\U0010ffff" * 256 if after is None else decode_cursor(after)[1]
        if limit < 1:
            raise InvalidInput
        heads = sorted(super().heads(scope, limit=10_000).items, key=lambda head: head.key.id, reverse=True)
        rest = [head for head in heads if head.key.id < below]
        size = random.randint(1, limit)
        return Page(rest[:size], encode_cursor(rest[size - 1]) if len(rest) > size else None)

    def keys(self, scope=None):
        yield from super().keys(scope)


def find_text_in(data, text):
    """Return the conversations of a memory store that hold a text."""
    kept = [found for scope in data.scopes.values() for found in scope.values()]
    return [str(found.head.key) for found in kept if text in "\n".join([found.head.revision.payload, *found.bodies])]


def run_first(*themes):
    """Return a decorator of a test class: inherited tests of all other themes of the contract are marked `wide`."""
    names = {name for theme in themes for name in vars(theme)}

    def mark_others(cls):
        for name in dir(cls):
            if name.startswith("test_") and name not in names and name not in vars(cls):
                setattr(cls, name, pytest.mark.wide(_wrap_test(getattr(cls, name))))
        return cls

    return mark_others


def _wrap_test(test):
    """Return the same test as another function, which can have marks of its own."""

    @functools.wraps(test)
    def run_test(*args, **kwargs):
        test(*args, **kwargs)

    return run_test


HOOKS = ("remains", "damage_record", "damage_head", "lose_index")


def contract_of(cls):
    """Return the contract as a test class for a class of stores that take a folder, real or only as a name."""

    class TestIt(HistoryStoreContract):
        @pytest.fixture
        def store(self):
            memory = Path("/dev/shm")
            with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
                self.place = Path(folder)
                store = cls(self.place)
                yield store
                with contextlib.suppress(Exception):  # that it closes is for the contract to say
                    store.close()
            for place in (self.place, self.place / "dead"):
                MemoryStore._named.pop(str(place), None)

        def reopen(self, store):
            return cls(self.place)

        def unreachable_store(self):
            return cls.unreachable(self.place)

    for name in HOOKS:
        if hasattr(cls, name):
            setattr(TestIt, name, _hook(cls, name))
    return TestIt


def _hook(cls, name):
    def hook(self, *args):
        given = [arg for arg in args if not isinstance(arg, HistoryStore)]
        return getattr(cls, name)(self.place, *given)

    return hook
