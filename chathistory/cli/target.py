"""Which store and which scope a command works on, and the options for them."""

from __future__ import annotations

import functools
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import quote

import click

from chathistory.config.load import load_layers
from chathistory.config.settings import Settings
from chathistory.history import History
from chathistory.storage.url import StoreURL

__all__ = ["Place", "Run", "configuration_options", "debug_option", "default_url", "place_options", "settings_for"]

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(slots=True)
class Run:
    """What the commands tell the one who runs them."""

    debug: bool = False


@dataclass(frozen=True, slots=True)
class Place:
    """A store's URL, and a scope in it. settings: all that is in force; typed: the flags that led here."""

    url: StoreURL
    scope: str
    settings: Settings
    typed: tuple[str, ...] = ()

    @classmethod
    def of(cls, url: str | None, scope: str | None, *, profile: str | None = None, config: str | None = None) -> Place:
        """Return the place that the options and the configuration name. Raises `ConfigError`."""
        from chathistory.config.open import find_store  # noqa: PLC0415 - brings pluggy

        settings = settings_for(url, scope, profile=profile, config=config)
        flags = {"--store": _shown(url), "--scope": scope, "--profile": profile, "--config": config}
        typed = tuple(word for flag, value in flags.items() if value is not None for word in (flag, value))
        return cls(find_store(settings), settings.scope, settings, typed)

    @property
    def chosen(self) -> bool:
        """Whether somebody named a scope: else what works on all of them may."""
        return self.settings.is_set("scope")

    def __str__(self) -> str:
        """Return the URL without what is secret in it."""
        return str(self.url)

    @contextmanager
    def opened(self) -> Iterator[History]:
        """Open the store for the time of the body."""
        from chathistory.config.open import open_configured  # noqa: PLC0415 - brings pluggy

        with open_configured(self.settings) as history:
            yield history

    def command(self, *words: str) -> str:
        """Return the command line that does something at this place, for people to copy."""
        return shlex.join(["chathistory", *words, *self.typed])


def settings_for(url: str | None, scope: str | None, *, profile: str | None, config: str | None) -> Settings:
    """Return the settings in force for a command with these flags; where no place names a store, it is the user's."""
    given, defaults = {"store": url, "scope": scope}, {"store": default_url()}
    return load_layers(given, profile=profile, config=config, name_place="--{}".format, defaults=defaults)


def _shown(url: str | None) -> str | None:
    return url if url is None or str(StoreURL.parse(url)) == url else "URL"


def default_url() -> str:
    """Return the URL of the store in the user's data folder, whatever characters the folder's path has."""
    from platformdirs import user_data_path  # noqa: PLC0415 - not needed when a store is given

    return f"file:{quote((user_data_path('chathistory', appauthor=False) / 'history').as_posix(), safe='/:')}"


def place_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--store`, `--scope`, `--profile` and `--config`, which reach the command as its parameter `place`."""

    @functools.wraps(command)
    def placed(
        *args: Any, url: str | None, scope: str | None, profile: str | None, config: str | None, **kwargs: Any
    ) -> Any:
        return command(*args, place=Place.of(url, scope, profile=profile, config=config), **kwargs)

    return configuration_options(placed)


def configuration_options(command: F) -> F:
    """Add the options that name a place, one by one: `url`, `scope`, `profile`, `config`."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


_OPTIONS = (
    click.option(
        "--store",
        "url",
        metavar="URL",
        help="Where conversations are kept, such as file:./history. [env var: CHATHISTORY_STORE; default: as "
        "configured, or a folder of your own]",
    ),
    click.option(
        "--scope", help='Whose conversations. [env var: CHATHISTORY_SCOPE; default: as configured, or "default"]'
    ),
    click.option("--profile", metavar="NAME", help="Settings of that name. [env var: CHATHISTORY_PROFILE]"),
    click.option("--config", metavar="FILE", help="Read this file, and no other. [env var: CHATHISTORY_CONFIG]"),
)


def debug_option(command: F) -> F:
    """Add `--debug`, which the one who runs the command hears of."""

    def told(context: click.Context, _parameter: click.Parameter, value: bool) -> None:  # noqa: FBT001 - click's way
        context.ensure_object(Run).debug |= value

    return click.option(
        "--debug", is_flag=True, expose_value=False, callback=told, help="Show where in the program an error arose."
    )(command)
