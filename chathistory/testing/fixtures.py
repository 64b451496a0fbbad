"""Fixtures for pytest. In your `conftest.py`: `pytest_plugins = ["chathistory.testing.fixtures"]`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from chathistory.testing.fake_api import FakeMessagesAPI

__all__ = ["messages_api", "messages_api_url"]


@pytest.fixture
def messages_api() -> FakeMessagesAPI:
    """Return a fake of the Messages API that echoes; `messages_api.client()` is a client of it."""
    return FakeMessagesAPI()


@pytest.fixture
def messages_api_url(messages_api: FakeMessagesAPI) -> Iterator[str]:
    """Serve `messages_api` on the loopback interface during the test, and yield its URL."""
    with messages_api.serve() as url:
        yield url
