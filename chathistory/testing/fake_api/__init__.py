"""A fake of Claude's Messages API, for tests and for a first try without a key.

    api = FakeMessagesAPI(reply="Hello!")
    api.client().messages.create(...)     # the real SDK, on a transport in this process
    with api.serve() as url: ...          # the same over a real socket
    api.requests[-1].body                 # the last request

It has no model: it echoes, or gives the replies that a test sets. What it does check is what the API *refuses*: the
rules of `RULES`, each with its source. They are our reading of the documentation, not the API itself.

    request bytes ── envelope ── rules ── reply ── message ── events ── plan ──┬── transport (sync, async)
                                                                              └── server

Neither the SDK nor pytest is imported here; the SDK is imported by `client()` and `async_client()`.
"""

from __future__ import annotations

from chathistory.testing.fake_api.api import FakeMessagesAPI
from chathistory.testing.fake_api.recorded_requests import Recorded
from chathistory.testing.fake_api.replies import Cut, Drop, ErrorEvent, Failure, Paused, Raw, Reply, Reset
from chathistory.testing.fake_api.request import Limits
from chathistory.testing.fake_api.rules import RULES, Rule

__all__ = [
    "RULES",
    "Cut",
    "Drop",
    "ErrorEvent",
    "Failure",
    "FakeMessagesAPI",
    "Limits",
    "Paused",
    "Raw",
    "Recorded",
    "Reply",
    "Reset",
    "Rule",
]
