"""For all tests: nothing of the caller's environment reaches the SDK or a store; and stores in memory to work on."""

from __future__ import annotations

import os

import pytest
from chathistory_memory import MemoryStore
from faulty_stores import ShortStore, chat_on


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("ANTHROPIC_", "CHATHISTORY_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@pytest.fixture(params=["whole", "short"])
def store(request):
    """Stores that give a range at once, or three records at a time."""
    with MemoryStore() if request.param == "whole" else ShortStore() as store:
        yield store


@pytest.fixture
def chat(store):
    return chat_on(store)
