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
from click.core import ParameterSource

from chathistory.history import History

__all__ = ["Place", "Run", "debug_option", "default_url", "place_options"]

F = TypeVar("F", bound=Callable[..., Any])
SCOPE = "default"


@dataclass(slots=True)
class Run:
    """What the commands tell the one who runs them."""

    debug: bool = False


@dataclass(frozen=True, slots=True)
class Place:
    """A store's URL, and a scope in it. typed: the URL was given on the command line; chosen: the scope was."""

    url: str
    scope: str
    typed: bool = False
    chosen: bool = False

    @classmethod
    def of(cls, url: str | None, scope: str) -> Place:
        """Return the place that the options name; called within a command."""
        source = click.get_current_context().get_parameter_source
        typed, chosen = (source(name) is ParameterSource.COMMANDLINE for name in ("url", "scope"))
        return cls(url or default_url(), scope, typed, chosen)

    def __str__(self) -> str:
        """Return the URL without what is secret in it."""
        from chathistory.url import StoreURL  # noqa: PLC0415 - only a store's user needs it

        return str(StoreURL.parse(self.url))

    @contextmanager
    def opened(self) -> Iterator[History]:
        """Open the store for the time of the body."""
        from chathistory.plugins import open_store  # noqa: PLC0415 - brings pluggy

        with open_store(self.url) as store:
            yield History(store)

    def command(self, *words: str) -> str:
        """Return the command line that does something at this place, for people to copy."""
        line = ["chathistory", *words]
        if self.typed:
            line += ["--store", self.url if str(self) == self.url else "URL"]
        if self.scope != SCOPE:
            line += ["--scope", self.scope]
        return shlex.join(line)


def default_url() -> str:
    """Return the URL of the store in the user's data folder, whatever characters the folder's path has."""
    from platformdirs import user_data_path  # noqa: PLC0415 - not needed when a store is given

    return f"file:{quote((user_data_path('chathistory', appauthor=False) / 'history').as_posix(), safe='/:')}"


def place_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--store` and `--scope`, which reach the command as its parameter `place`."""

    @functools.wraps(command)
    def placed(*args: Any, url: str | None, scope: str, **kwargs: Any) -> Any:
        return command(*args, place=Place.of(url, scope), **kwargs)

    option = click.option("--scope", default=SCOPE, show_default=True, help="Whose conversations.")
    return click.option(
        "--store",
        "url",
        metavar="URL",
        envvar="CHATHISTORY_STORE",
        show_envvar=True,
        help="Where conversations are kept, such as file:./history. [default: a folder of your own]",
    )(option(placed))


def debug_option(command: F) -> F:
    """Add `--debug`, which the one who runs the command hears of."""

    def told(context: click.Context, _parameter: click.Parameter, value: bool) -> None:  # noqa: FBT001 - click's way
        context.ensure_object(Run).debug |= value

    return click.option(
        "--debug", is_flag=True, expose_value=False, callback=told, help="Show where in the program an error arose."
    )(command)
