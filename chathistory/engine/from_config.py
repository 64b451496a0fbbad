"""`from_config` and `close` of both engines: an engine from the configuration owns its store and its client."""

from __future__ import annotations

import os
from typing import Any, ClassVar, NoReturn, Self

from chathistory.checks import refuse_pickling
from chathistory.engine.clients import MessagesClient

__all__ = ["AsyncFromConfig", "FromConfig"]


class _FromConfig:
    """The base of both engines: creates an engine from the configuration, which then owns what it was made of."""

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
        """Return an engine with the store, model and other settings of the configuration.

        Use the engine with `with` (`async with`), or call `close`. This reads small files; nothing is sent over the
        network.

        Args:
            client: A client of the SDK, which the caller closes; None: the engine creates one, and `close` closes it.
            profile: The name of the profile to use; None: the configured one.
            config: The path of a configuration file to read instead of the files that would be found; None: those.
            store: The URL of a store, instead of the configured one.
            scope: A scope, instead of the configured one.
            arguments: Arguments of the constructor, instead of the configured ones.

        Returns:
            The engine.

        Raises:
            ConfigError: The configuration is invalid, or does not name a store.
            InvalidInput: An argument is invalid.
        """
        from chathistory.config.load import load_settings  # not needed for an engine that is created in code
        from chathistory.config.open import open_configured  # imports pluggy

        settings = load_settings(profile=profile, config=config, store=store, scope=scope)
        configured = {"system": settings.system or None} | {
            name: getattr(settings, name) for name in ("model", "max_tokens", "trimming", "context_editing")
        }
        history = open_configured(settings)
        own: list[Any] = []
        if client is None:
            import anthropic  # takes 0.8 s and 65 MB

            own = [getattr(anthropic, cls._sdk_client)()]
        make: Any = cls
        engine: Self = make(*own or [client], history, **{**configured, **arguments})
        engine._closing = (history, *own)
        return engine

    def __reduce__(self) -> NoReturn:
        refuse_pickling(self, "pass the store's URL instead, and create an engine in the other process")


class FromConfig(_FromConfig):
    """The base of `ChatEngine`."""

    _sdk_client = "Anthropic"

    def close(self) -> None:
        """Close what the engine opened: a store that was given as a URL, and what `from_config` opened.

        A client, a store and a history that were passed in stay open.
        """
        for each in self._closing:
            each.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class AsyncFromConfig(_FromConfig):
    """The base of `AsyncChatEngine`."""

    _sdk_client = "AsyncAnthropic"

    async def close(self) -> None:
        """Close what `from_config` opened. A client and a store that were passed in stay open."""
        for each in self._closing:
            closing = each.close()
            if closing is not None:
                await closing

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()
