"""Fixtures of the engine's tests. Two processes with one store are two store objects of the same URL."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from uuid import uuid4

import pytest
from lease_clock import Clock

from chathistory import ChatEngine, History, HistoryStore, open_store
from chathistory.testing import FakeMessagesAPI

MODEL = "claude-sonnet-5-5"


@pytest.fixture(params=["memory", pytest.param("file", marks=pytest.mark.wide)])
def store_url(request, tmp_path) -> str:
    """Return the URL of a new store.

    The engine does the same on every backend (tests/plugins has a scenario on each), so files are for the wide
    tests, except where test files override this fixture.
    """
    return f"memory:{uuid4().hex}" if request.param == "memory" else f"file:{tmp_path}/store"


@pytest.fixture
def open_again(store_url) -> Iterator[Callable[[], HistoryStore]]:
    """Return a function that opens the same store once more, as another process would."""
    with ExitStack() as stores:
        yield lambda: stores.enter_context(open_store(store_url))


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
