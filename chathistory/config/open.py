"""Open the store and the history that the settings name."""

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
    """Open the history that the configuration names; use it with `with`, or close it.

    Like `open_store`, it makes no round trip to the store.

    Args:
        store: The URL of a store, in place of the configured one; None: the configured one.
        profile: The name of the profile to use; None: the one that the environment or a file selects, if any.
        config: A file to read in place of all files that the search would find; None: search.
        scope: A scope, in place of the configured one; None: the configured one, else "default".

    Returns:
        The open history, with the scope as its own.

    Raises:
        ConfigError: A setting is unknown or wrong, or no source names a store.
        PluginError: The backend is not installed, or does not work.
    """
    return open_configured(load_settings(profile=profile, config=config, store=store, scope=scope))


def open_configured(settings: Settings) -> History:
    """Open the history of these settings.

    Args:
        settings: The settings in force.

    Raises:
        ConfigError: The store cannot be opened; a note says where it is set.
    """
    url = find_store(settings)
    with _add_store_location(settings):
        return History(url, scope=settings.scope)


def check_url(settings: Settings) -> StoreURL:
    """Return the URL of the store with each option as the backend reads it, and with defaults; opens nothing.

    Args:
        settings: The settings in force.

    Raises:
        ConfigError: The URL or an option is wrong; a note says where it is set.
    """
    url = find_store(settings)
    with _add_store_location(settings):
        return url.parse_options(list_options(url.scheme))


def find_store(settings: Settings) -> StoreURL:
    """Return the URL of the store; a relative path in a file is relative to the folder of that file.

    Args:
        settings: The settings in force.

    Raises:
        ConfigError: No source names a store, or its backend is unknown.
    """
    if settings.store is None:
        raise ConfigError(
            'no store is configured: write store = "file:./history" into chathistory.toml, or set CHATHISTORY_STORE '
            "(only the command line has a default, in the user data folder; a program must name its store)"
        )
    file = settings.sources["store"].file
    with _add_store_location(settings):
        cls = load_store_class(settings.store.scheme)
        return cls.resolve_relative(settings.store, str(file.parent)) if file else settings.store


@contextmanager
def _add_store_location(settings: Settings) -> Iterator[None]:
    """Add a note to errors that says where the store and its options are set, each source once."""
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
