"""Stores for the tests of the core that do not bring their own."""

from __future__ import annotations

import pytest
from chathistory_memory import MemoryStore
from core_faults import ShortStore, chat_on


@pytest.fixture(params=["whole", "short"])
def store(request):
    """Stores that give a range at once, or three records at a time."""
    with MemoryStore() if request.param == "whole" else ShortStore() as store:
        yield store


@pytest.fixture
def chat(store):
    return chat_on(store)
