"""The store and the history that settings name."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from chathistory.config.load import load_settings
from chathistory.config.settings import OPTION, Settings
from chathistory.errors import ConfigError
from chathistory.history import History
from chathistory.storage.plugins import list_options, load_store_class
from chathistory.storage.url import StoreURL

__all__ = ["check_url", "find_store", "open_configured", "open_history"]


def open_history(
    store: str | None = None,
    *,
    profile: str | None = None,
    config: str | os.PathLike[str] | None = None,
    scope: str | None = None,
) -> History:
    """Return the history that the configuration names; use it with `with`, or close it.

    Like `open_store`, it makes no round trip to the store.

    Args:
        store: The URL of a store, in place of the configured one.
        profile: The name of the profile to use.
        config: A file to read in place of all that would be found.
        scope: A scope, in place of the configured one.

    Raises:
        ConfigError: Something is wrong in any source, or no source names a store.
    """
    return open_configured(load_settings(profile=profile, config=config, store=store, scope=scope))


def open_configured(settings: Settings) -> History:
    """Return the history of these settings; an error tells where its store is set."""
    url = find_store(settings)
    with _add_store_location(settings):
        return History(url, scope=settings.scope)


def check_url(settings: Settings) -> StoreURL:
    """Return the URL of the store with each option as the backend reads it, defaults filled in; opens nothing."""
    url = find_store(settings)
    with _add_store_location(settings):
        return url.parse_options(list_options(url.scheme))


def find_store(settings: Settings) -> StoreURL:
    """Return the URL of the store; a relative path in a file is taken from the file's folder."""
    if settings.store is None:
        raise ConfigError(
            'no store is configured: write store = "file:./history" into chathistory.toml, or set CHATHISTORY_STORE '
            "(the command line keeps conversations in a folder of the user's own then; a program should say where)"
        )
    file = settings.sources["store"].file
    with _add_store_location(settings):
        cls = load_store_class(settings.store.scheme)
        return cls.resolve_relative(settings.store, str(file.parent)) if file else settings.store


@contextmanager
def _add_store_location(settings: Settings) -> Iterator[None]:
    """Add to errors where the store and its options are set, each source once."""
    try:
        yield
    except ConfigError as error:
        keys: dict[str, list[str]] = {}
        for name, source in settings.sources.items():
            if name == "store" or name.startswith(OPTION):
                keys.setdefault(source.name, []).append(source.key_with_references)
        words = [f"{name}: {', '.join(within)}" if all(within) else name for name, within in keys.items()]
        error.add_note(f"chathistory: the store is set here: {'; '.join(words)}")
        raise
