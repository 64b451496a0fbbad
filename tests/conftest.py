"""For all tests: a clean environment for the SDK and the stores, and stores in memory."""

from __future__ import annotations

import os
import signal

import hypothesis
import pytest
from chathistory_memory import MemoryStore
from faulty_stores import ShortStore, chat_on
from hypothesis import HealthCheck, settings

settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a job that a shell runs in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)

hypothesis.settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("any machine")  # no test may fail because the machine is busy


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("ANTHROPIC_", "CHATHISTORY_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@pytest.fixture(params=["whole", "short"])
def store(request):
    """Stores that return a range at once, or three records per read."""
    with MemoryStore() if request.param == "whole" else ShortStore() as store:
        yield store


@pytest.fixture
def chat(store):
    return chat_on(store)
