"""Engines from the configuration: what they are made of then, and that they close it."""

from __future__ import annotations

import os
from typing import Any, ClassVar, NoReturn, Self

from chathistory.checks import refuse_pickling
from chathistory.engine.clients import MessagesClient

__all__ = ["AsyncFromConfig", "FromConfig"]


class _FromConfig:
    """What both kinds of engine have: they can be made from the configuration, and then own what they were made of."""

    _sdk_client: ClassVar[str]
    _closing: tuple[Any, ...] = ()

    @classmethod
    def from_config(
        cls,
        client: MessagesClient | None = None,
        *,
        profile: str | None = None,
        config: str | os.PathLike[str] | None = None,
        store: str | None = None,
        scope: str | None = None,
        **arguments: Any,
    ) -> Self:
        """Return an engine on the store and with the model that the configuration names; close it, or use `with`.

        Small files are read; there is no round trip.

        Args:
            client: A client of the SDK, which stays the caller's to close; None: one of the engine's own.
            profile: The name of the profile to use.
            config: A file to read in place of those that would be found.
            store: The URL of a store, in place of the configured one.
            scope: A scope, in place of the configured one.
            arguments: Those of the constructor, in place of what is configured.

        Raises:
            ConfigError: Something is wrong in any place, or no place names a store.
        """
        from chathistory.config.load import load_settings  # not needed for an engine that is built in code
        from chathistory.config.open import open_configured  # brings pluggy

        settings = load_settings(profile=profile, config=config, store=store, scope=scope)
        configured = {"system": settings.system or None} | {
            name: getattr(settings, name) for name in ("model", "max_tokens", "trimming", "context_editing")
        }
        history = open_configured(settings)
        own: list[Any] = []
        if client is None:
            import anthropic  # costs 0.8 s and 65 MB

            own = [getattr(anthropic, cls._sdk_client)()]
        make: Any = cls
        engine: Self = make(*own or [client], history, **{**configured, **arguments})
        engine._closing = (history, *own)
        return engine

    def __reduce__(self) -> NoReturn:
        refuse_pickling(self, "pass the store's URL instead, and make an engine in the other process")


class FromConfig(_FromConfig):
    """For the engine of synchronous programs."""

    _sdk_client = "Anthropic"

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
