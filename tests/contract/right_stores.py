"""Stores that are right, each in its own way, and the contract as it is run on a class of stores."""

from __future__ import annotations

import contextlib
import random
import uuid
from dataclasses import replace
from typing import ClassVar

import pytest
from chathistory_memory import MemoryStore

from chathistory.cursor import decode_cursor, encode_cursor
from chathistory.errors import InvalidInput, StoreUnavailable
from chathistory.store import Page, Slice, Traits
from chathistory.testing import HistoryStoreContract


class NamedStore(MemoryStore):
    """Shared by all that open its name, as a server would be; and it has a server that can be cut off."""

    traits: ClassVar = Traits(durable=True, shared=True)

    def __init__(self, name):
        super().__init__(name)
        self.name = name

    def cut_off(self):
        """Let no call reach the data any more."""
        self._room = replace(self._room, lock=Unreachable())


class Unreachable:
    """Stands where the lock of the data was: nobody gets in."""

    def __enter__(self):
        try:
            raise ConnectionRefusedError(111, "no answer")
        except OSError as error:
            msg = "the server cannot be reached"
            raise StoreUnavailable(msg, outcome="not stored") from error

    def __exit__(self, *exc_info):
        pass


class LimitedStore(NamedStore):
    """Keeps only so much of a body and of a batch."""

    traits: ClassVar = Traits(durable=True, shared=True, largest_record=2001, largest_batch=5000)


class FrugalStore(NamedStore):
    """Gives all in small portions, lists by time bucket, and yields keys late: unusual, and allowed."""

    traits: ClassVar = Traits(durable=True, shared=True, recency="bucket")

    def read(self, key, *, start=0, stop=None):
        run = super().read(key, start=start, stop=stop)
        return run and Slice(run.head, tuple(run.records[:2]))

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


def contract_of(cls):
    """Return the contract as a test class for stores of a class that is derived from `NamedStore`."""

    class TestIt(HistoryStoreContract):
        @pytest.fixture
        def store(self):
            name = uuid.uuid4().hex
            store = cls(name)
            yield store
            with contextlib.suppress(Exception):  # that it closes is for the contract to say
                store.close()
            MemoryStore._named.pop(name)

        def reopen(self, store):
            return cls(store.name)

        def dead_store(self):
            name = uuid.uuid4().hex
            store = cls(name)
            MemoryStore._named.pop(name, None)
            store.cut_off()
            return store

    return TestIt
