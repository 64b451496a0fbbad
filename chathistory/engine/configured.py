"""What an engine is made of when it comes from configuration: a client, a history, and its arguments."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from chathistory.history import History

__all__ = ["STAND_IN", "Configured", "configured", "stand_in_api"]

STAND_IN = "stand-in"
"""The model that replies of the stand-in are stored under, so that they are told apart for ever."""


@dataclass(frozen=True, slots=True)
class Configured:
    """history: open, and to be closed by who asked for it. arguments: of the engine. stand_in: who is to reply."""

    history: History
    arguments: Mapping[str, Any]
    stand_in: bool

    def client(self) -> Any:
        """Return a client of its own for `ChatEngine`."""
        if self.stand_in:
            return stand_in_api().client()
        import anthropic  # noqa: PLC0415 - costs 0.8 s and 65 MB

        return anthropic.Anthropic()

    def async_client(self) -> Any:
        """Return a client of its own for `AsyncChatEngine`."""
        if self.stand_in:
            return stand_in_api().async_client()
        import anthropic  # noqa: PLC0415 - as above

        return anthropic.AsyncAnthropic()


def configured(
    client: Any,
    arguments: Mapping[str, Any],
    *,
    profile: str | None,
    config: str | os.PathLike[str] | None,
    store: str | None,
    scope: str | None,
) -> Configured:
    """Open what is configured; `arguments` stand above it, and so does a client that is not None."""
    from chathistory.config.load import load_settings  # noqa: PLC0415 - not needed for an engine that is built in code
    from chathistory.config.opening import open_configured  # noqa: PLC0415 - brings pluggy

    settings = load_settings(profile=profile, config=config, store=store, scope=scope)
    stand_in = settings.stand_in and client is None
    model = STAND_IN if stand_in else settings.model
    found = {"model": model, "system": settings.system or None, "max_tokens": settings.max_tokens}
    return Configured(open_configured(settings), {**found, **arguments}, stand_in)


def stand_in_api() -> Any:
    """Return a `MessagesAPI` that echoes, and says so."""
    from chathistory.testing import MessagesAPI  # noqa: PLC0415 - only who asks for it loads it

    return MessagesAPI(models=[STAND_IN], check_thinking=False)
