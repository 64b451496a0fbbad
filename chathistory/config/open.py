"""The store and the history that settings name."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from chathistory.config.layers import OPTION
from chathistory.config.load import load_settings
from chathistory.config.settings import Settings
from chathistory.errors import ConfigError
from chathistory.history import History
from chathistory.storage.plugins import declared_options, open_store, store_class
from chathistory.storage.url import StoreURL

__all__ = ["checked_url", "open_configured", "open_history", "store_url"]


def open_history(
    *,
    profile: str | None = None,
    config: str | os.PathLike[str] | None = None,
    store: str | None = None,
    scope: str | None = None,
) -> History:
    """Return the history that the configuration names; use it with `with`, or close it.

    profile: the name of the profile to use. config: a file to read in place of all that would be found. store, scope:
    these in place of the configured ones. Like `open_store`, it makes no round trip to the store.

    Raises `ConfigError` for what is wrong in any place, and if no place names a store.
    """
    return open_configured(load_settings(profile=profile, config=config, store=store, scope=scope))


def open_configured(settings: Settings) -> History:
    """Return the history of these settings; an error tells where its store is set."""
    url = store_url(settings)
    with _told_where(settings):
        return History(open_store(url), scope=settings.scope)


def checked_url(settings: Settings) -> StoreURL:
    """Return the URL of the store with each option as the backend reads it, defaults filled in; opens nothing."""
    url = store_url(settings)
    with _told_where(settings):
        return url.checked(declared_options(url.scheme))


def store_url(settings: Settings) -> StoreURL:
    """Return the URL of the store; a relative path in a file is taken from the file's folder."""
    if settings.store is None:
        raise ConfigError(
            'no store is configured: write store = "file:./history" into chathistory.toml, or set CHATHISTORY_STORE '
            "(the command line keeps conversations in a folder of the user's own then; a program should say where)"
        )
    file = settings.sources["store"].file
    with _told_where(settings):
        cls = store_class(settings.store.scheme)
        return cls.anchored(settings.store, str(file.parent)) if file else settings.store


@contextmanager
def _told_where(settings: Settings) -> Iterator[None]:
    try:
        yield
    except ConfigError as error:
        error.add_note(f"chathistory: {_where(settings)}")
        raise


def _where(settings: Settings) -> str:
    """Say where the store and its options are set, each place once."""
    places: dict[str, list[str]] = {}
    for name, source in settings.sources.items():
        if name == "store" or name.startswith(OPTION):
            places.setdefault(source.place, []).append(source.within)
    told = [": ".join((place, *([", ".join(keys)] if all(keys) else []))) for place, keys in places.items()]
    return f"the store is set here: {'; '.join(told)}"
