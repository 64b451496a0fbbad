"""For all tests: nothing of the caller's environment reaches the SDK or a store."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("ANTHROPIC_", "CHATHISTORY_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
