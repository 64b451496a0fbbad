"""Who replies: Claude, through the Anthropic SDK, or a stand-in in this process that has no model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import click

from chathistory.config.settings import MODEL
from chathistory.engine.from_config import STAND_IN, stand_in_api

__all__ = ["MODEL", "NoKey", "Voice", "voice_of"]

_NO_KEY = (
    "there is no API key: set ANTHROPIC_API_KEY=... to talk with Claude, or add --stand-in to try everything with "
    "a stand-in that is no model (your conversation is saved all the same)"
)


@dataclass(frozen=True, slots=True)
class Voice:
    """A client of the SDK and the model to ask, None: not said; name: what to call who answers."""

    client: Any
    model: str | None
    name: str

    @property
    def is_stand_in(self) -> bool:
        """Whether nobody answers but an echo."""
        return self.name == STAND_IN


class NoKey(click.ClickException):
    """Claude cannot be asked for want of a key."""

    exit_code = 2


def voice_of(model: str | None, *, stand_in: bool) -> Voice:
    """Return who replies. Raises `NoKey`.

    The stand-in's replies are stored under a model name of their own, so that they are told apart for ever.
    """
    if stand_in:
        return Voice(stand_in_api().client(), STAND_IN, STAND_IN)
    import anthropic  # noqa: PLC0415 - costs 0.8 s and 65 MB

    client = anthropic.Anthropic()
    if not (client.api_key or client.auth_token or client.credentials):
        raise NoKey(_NO_KEY)
    return Voice(client, model, "claude")
