"""Fixtures of the engine's tests. Two processes with one store are two store objects of the same URL."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from uuid import uuid4

import pytest
from lease_clock import Clock

from chathistory import ChatEngine, History, HistoryStore, open_store
from chathistory.testing import FakeMessagesAPI

MODEL = "claude-sonnet-5-5"


@pytest.fixture(params=["memory", "file"])
def open_again(request, tmp_path) -> Iterator[Callable[[], HistoryStore]]:
    """Return a function that opens the same store once more, as another process would."""
    url = f"memory:{uuid4().hex}" if request.param == "memory" else f"file:{tmp_path}/store"
    stores = []

    def open_store_again() -> HistoryStore:
        stores.append(open_store(url))
        return stores[-1]

    yield open_store_again
    for store in stores:
        store.close()


@pytest.fixture
def engine_on(open_again) -> Callable[..., ChatEngine]:
    """Return a function that creates an engine of another process, on the fake API that it is given."""

    def make_engine(api: FakeMessagesAPI, **options) -> ChatEngine:
        return ChatEngine(api.client(), open_again(), model=MODEL, **options)

    return make_engine


@pytest.fixture
def chat_of(open_again) -> Callable[[str], object]:
    """Return a function that opens a conversation as another process sees it."""
    return lambda name: History(open_again()).conversation(name)


@pytest.fixture
def clock(monkeypatch) -> Clock:
    """Stop the time for leases and their keeper."""
    return Clock(monkeypatch)
