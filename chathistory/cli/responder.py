"""Who replies: Claude, through the Anthropic SDK, or a fake in this process that has no model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import click

from chathistory.cli.render import FAKE_MODEL
from chathistory.config.settings import MODEL, Settings

__all__ = ["Responder", "make_responder"]


@dataclass(frozen=True, slots=True)
class Responder:
    """A client of the SDK, and the model to ask.

    Attributes:
        client: The client; to be closed by whoever asked for it.
        model: The model that is asked for; None: that of the conversation.
        is_fake: The replies are an echo, and no model's.
    """

    client: Any
    model: str | None
    is_fake: bool = False

    @property
    def name(self) -> str:
        """What the one who replies is called."""
        return FAKE_MODEL if self.is_fake else "claude"

    def choose_model(self, setup: dict[str, Any] | None) -> str:
        """Return the model to ask: the one that is asked for, else that of the conversation's setup."""
        before = (setup or {}).get("model")
        return self.model or (None if before == FAKE_MODEL else before) or MODEL


class NoKey(click.UsageError):
    """Claude cannot be asked without a key."""

    def show(self, file: Any = None) -> None:  # without the usage, which is right
        click.ClickException.show(self, file)


def make_responder(settings: Settings, model: str | None = None, *, fake: bool = False) -> Responder:
    """Return who replies.

    Args:
        settings: The settings in force: a model that they set is asked for.
        model: The model that a flag names.
        fake: Reply without a model. Its replies are stored under a model name of their own.

    Raises:
        NoKey: The SDK finds no key.
    """
    if fake:
        from chathistory.testing import FakeMessagesAPI  # only this needs it

        return Responder(FakeMessagesAPI(models=[FAKE_MODEL], check_thinking=False).client(), FAKE_MODEL, is_fake=True)
    import anthropic  # costs 0.8 s and 65 MB

    client = anthropic.Anthropic()
    if not (client.api_key or client.auth_token or client.credentials):
        raise NoKey(
            "there is no API key: set ANTHROPIC_API_KEY=... to talk with Claude, or add --fake to try everything "
            "without a key and without a model (your conversation is saved all the same)"
        )
    return Responder(client, model or (settings.model if settings.is_set("model") else None))
