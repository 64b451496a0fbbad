"""Fixtures: a store, a conversation, the fake API with signed thinking blocks, and engines on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from trimming_requests import MODEL, answer

from chathistory import ChatEngine, History, HistoryStore, open_store
from chathistory.testing import FakeMessagesAPI


@pytest.fixture
def store() -> Iterator[HistoryStore]:
    with open_store("memory:") as opened:
        yield opened


@pytest.fixture
def chat(store):
    return History(store).conversation("a")


@pytest.fixture
def api() -> FakeMessagesAPI:
    return FakeMessagesAPI(answer, smallest_trigger=1)


@pytest.fixture
def engine_with(api, store) -> Callable[..., ChatEngine]:
    """Return a function that makes an engine with a trimming policy; to the core, each one is another process."""

    def make_engine(trimming=None, **options) -> ChatEngine:
        return ChatEngine(api.client(), store, model=MODEL, trimming=trimming, **options)

    return make_engine
