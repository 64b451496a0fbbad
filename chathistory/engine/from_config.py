"""Engines from the configuration: what they are made of then, and that they close it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NoReturn, Self

from chathistory.checks import refuse_pickling
from chathistory.history import History

__all__ = ["STAND_IN", "AsyncFromConfig", "FromConfig", "stand_in_api"]

STAND_IN = "stand-in"
"""The model that replies of the stand-in are stored under, so that they are told apart for ever."""


class _FromConfig:
    """What both kinds of engine have: they can be made from the configuration, and then own what they were made of."""

    _sdk_client: ClassVar[str]
    _api_client: ClassVar[str]
    _closing: tuple[Any, ...] = ()

    @classmethod
    def from_config(
        cls,
        client: Any = None,
        *,
        profile: str | None = None,
        config: str | os.PathLike[str] | None = None,
        store: str | None = None,
        scope: str | None = None,
        **arguments: Any,
    ) -> Self:
        """Return an engine on the store and with the model that the configuration names; close it, or use `with`.

        client: None for one of its own. profile: the name of the one to use. config: a file to read in place of those
        that would be found. store, scope and arguments (those of the constructor) stand above what is configured.
        Small files are read; there is no round trip.

        Raises `ConfigError` for what is wrong in any place, and if no place names a store.
        """
        found = _configured(client, arguments, profile=profile, config=config, store=store, scope=scope)
        own = cls._own_client(stand_in=found.stand_in) if client is None else client
        make: Any = cls
        engine: Self = make(own, found.history, **found.arguments)
        engine._closing = (found.history, *([own] if client is None else []))
        return engine

    def __reduce__(self) -> NoReturn:
        refuse_pickling(self, "pass the store's URL instead, and make an engine in the other process")

    @classmethod
    def _own_client(cls, *, stand_in: bool) -> Any:
        if stand_in:
            return getattr(stand_in_api(), cls._api_client)()
        import anthropic  # noqa: PLC0415 - costs 0.8 s and 65 MB

        return getattr(anthropic, cls._sdk_client)()


class FromConfig(_FromConfig):
    """For the engine of synchronous programs."""

    _sdk_client = "Anthropic"
    _api_client = "client"

    def close(self) -> None:
        """Close what `from_config` opened; a client and a store that were handed in stay open."""
        for each in self._closing:
            each.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class AsyncFromConfig(_FromConfig):
    """For the engine for asyncio."""

    _sdk_client = "AsyncAnthropic"
    _api_client = "async_client"

    async def close(self) -> None:
        """Close what `from_config` opened."""
        for each in self._closing:
            closing = each.close()
            if closing is not None:
                await closing

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()


@dataclass(frozen=True, slots=True)
class _Configured:
    history: History
    arguments: Mapping[str, Any]
    stand_in: bool


def _configured(
    client: Any,
    arguments: Mapping[str, Any],
    *,
    profile: str | None,
    config: str | os.PathLike[str] | None,
    store: str | None,
    scope: str | None,
) -> _Configured:
    """Open what is configured; `arguments` stand above it, and so does a client that is not None."""
    from chathistory.config.load import load_settings  # noqa: PLC0415 - not needed for an engine that is built in code
    from chathistory.config.open import open_configured  # noqa: PLC0415 - brings pluggy

    settings = load_settings(profile=profile, config=config, store=store, scope=scope)
    stand_in = settings.stand_in and client is None
    model = STAND_IN if stand_in else settings.model
    found = {"model": model, "system": settings.system or None}
    found |= {name: getattr(settings, name) for name in ("max_tokens", "trimming", "context_editing")}
    return _Configured(open_configured(settings), {**found, **arguments}, stand_in)


def stand_in_api() -> Any:
    """Return a `FakeMessagesAPI` that echoes, and says so."""
    from chathistory.testing import FakeMessagesAPI  # noqa: PLC0415 - only who asks for it loads it

    return FakeMessagesAPI(models=[STAND_IN], check_thinking=False)
