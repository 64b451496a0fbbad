"""A fake of Claude's Messages API: for tests, and for a first try without a key.

    api = MessagesAPI(reply="Hello!")
    api.client().messages.create(...)     # the real SDK, on a transport in this process
    with api.serve() as url: ...          # the same over a real socket
    api.requests[-1].body                 # what was sent

It has no model: it echoes, or says what it was told to. What it takes seriously is what the API *refuses*: the rules
of `RULES`, each with its source. They are our reading of the documentation, not the API itself.

    request bytes ── envelope ── rules ── reply ── message ── events ── Plan ──┬── transport (sync, async)
                                                                              └── server

Neither the SDK nor pytest is imported here; a client that is asked for brings the SDK.
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
