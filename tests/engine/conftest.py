"""Stores for the engine's tests: two processes with one store are two instances of one URL."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from uuid import uuid4

import pytest
from engine_clock import Clock

from chathistory import ChatEngine, History, HistoryStore, open_store
from chathistory.testing import FakeMessagesAPI

MODEL = "claude-sonnet-5-5"


@pytest.fixture(params=["memory", "file"])
def opened(request, tmp_path) -> Iterator[Callable[[], HistoryStore]]:
    """Each call opens the same store once more, as another process would."""
    url = f"memory:{uuid4().hex}" if request.param == "memory" else f"file:{tmp_path}/store"
    stores = []

    def again() -> HistoryStore:
        stores.append(open_store(url))
        return stores[-1]

    yield again
    for store in stores:
        store.close()


@pytest.fixture
def engine_on(opened) -> Callable[..., ChatEngine]:
    """Make an engine of another process, with a stand-in of its own."""

    def made(api: FakeMessagesAPI, **options) -> ChatEngine:
        return ChatEngine(api.client(), opened(), model=MODEL, **options)

    return made


@pytest.fixture
def chat_of(opened) -> Callable[[str], object]:
    """Return a conversation as another process sees it."""
    return lambda name: History(opened()).conversation(name)


@pytest.fixture
def clock(monkeypatch) -> Clock:
    """Stand the time still, for leases and their keeper."""
    return Clock(monkeypatch)
