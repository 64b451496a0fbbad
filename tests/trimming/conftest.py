"""Conversations held through an engine with the stand-in, in which every thinking block is really signed."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from trimming_talks import MODEL, answer

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
    """Make an engine with a trimming policy; each is another process as far as the core can tell."""

    def made(trimming=None, **options) -> ChatEngine:
        return ChatEngine(api.client(), store, model=MODEL, trimming=trimming, **options)

    return made
