"""Which store and scope a command works on, and the options that commands share: each is defined once, here."""

from __future__ import annotations

import difflib
import functools
import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar
from urllib.parse import quote

import click

from chathistory.cli.escape import show_controls
from chathistory.config.load import merge_sources
from chathistory.config.settings import Settings
from chathistory.conversation import Conversation
from chathistory.errors import CorruptRecord, UnsupportedRecord
from chathistory.history import History
from chathistory.storage.url import StoreURL

__all__ = [
    "OPTIONS",
    "Run",
    "Target",
    "default_url",
    "id_argument",
    "ids_argument",
    "optional_id_argument",
    "shared_options",
]

F = TypeVar("F", bound=Callable[..., Any])
_SEARCHED = 200  # so many of the newest conversations are searched for an id like one that does not exist
_WALKED = 2_000  # so many conversations are looked at for scopes to complete
_PLACE = ("store", "scope", "profile", "config")
_COMPLETABLE = re.compile(r"[\w./@+-]+")  # what no shell would take apart


@dataclass(slots=True)
class Run:
    """What the commands report to the function that runs them."""

    debug: bool = False


@dataclass(frozen=True, slots=True)
class Target:
    """The store and the scope that a command works on.

    Attributes:
        settings: All that is in force.
        flags: The flags that led here.
        all_scopes: Whether the command works on all scopes.
    """

    settings: Settings
    flags: tuple[str, ...] = ()
    all_scopes: bool = False

    @classmethod
    def choose(cls, given: Mapping[str, str | None], *, all_scopes: bool = False) -> Target:
        """Return the target that the flags and the configuration name; else the store in the user's data folder.

        Raises:
            ConfigError: Something is wrong in any place.
            click.UsageError: The flags exclude each other.
        """
        if all_scopes and given["scope"] is not None:
            raise click.UsageError("--scope and --all-scopes exclude each other.")
        named = {name: given[name] for name in ("store", "scope", "profile")}
        settings = merge_sources(named, given["config"], "--{}".format, {"store": default_url()})
        url = given["store"]
        shown = {**given, "store": url if url is None or str(StoreURL.parse(url)) == url else "URL"}
        flags = tuple(word for name in _PLACE if (value := shown[name]) is not None for word in (f"--{name}", value))
        return cls(settings, flags, all_scopes)

    @property
    def names_scope(self) -> bool:
        """Whether `--scope` is one of the flags."""
        return "--scope" in self.flags[::2]

    @property
    def scope(self) -> str:
        """The scope, unless the command works on all of them."""
        return self.settings.scope

    def __str__(self) -> str:
        """Return the URL without what is secret in it."""
        from chathistory.config.open import find_store  # brings pluggy

        return str(find_store(self.settings))

    @contextmanager
    def opened(self) -> Iterator[History]:
        """Open the history, whose scope is that of the target, for the time of the body."""
        from chathistory.config.open import open_configured  # brings pluggy

        with open_configured(self.settings) as history:
            yield history

    def command(self, *words: str) -> str:
        """Return the command line that does something with this target, for people to copy."""
        return shlex.join(["chathistory", *words, *self.flags])

    def find(self, history: History, id: str) -> Conversation:
        """Return a conversation that exists. Raises `click.ClickException` that names ids like this one otherwise."""
        conversation = history.conversation(id)
        if conversation.state() is not None:
            return conversation
        ids = [row.id for row in history.list(limit=_SEARCHED).items]
        near = difflib.get_close_matches(id, ids, n=3) or [name for name in ids if name.startswith(id)][:3]
        hint = f"did you mean {' or '.join(near)}?" if near else f"{self.command('list')} lists those that exist"
        raise self.absent(id, f"; {hint}")

    def find_version(self, history: History, id: str) -> str | None:
        """Return the version of a conversation that exists; None: it is damaged. Raises `click.ClickException`."""
        try:
            return self.find(history, id).version
        except (CorruptRecord, UnsupportedRecord):
            return None

    def absent(self, id: str, hint: str = "") -> click.ClickException:
        """Return the error for a conversation that does not exist."""
        return click.ClickException(show_controls(f"there is no conversation {id} in {self}, scope {self.scope}{hint}"))


def default_url() -> str:
    """Return the URL of the store in the user's data folder, whatever characters the folder's path has."""
    from platformdirs import user_data_path  # not needed when a store is given

    return f"file:{quote((user_data_path('chathistory', appauthor=False) / 'history').as_posix(), safe='/:')}"


def _complete_ids(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Return the ids that begin like this, newest first; none if the store cannot be read."""
    try:
        with Target.choose({name: context.params.get(name) for name in _PLACE}).opened() as history:
            rows = history.list(limit=_SEARCHED).items
    except Exception:  # noqa: BLE001 - a shell that completes shows no errors
        return []
    return [row.id for row in rows if row.id.startswith(incomplete) and _COMPLETABLE.fullmatch(row.id)]


def _complete_scopes(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Return the scopes that begin like this, of as many conversations as are quick to look at."""
    try:
        given = {name: context.params.get(name) for name in _PLACE} | {"scope": None}
        with Target.choose(given).opened() as history:
            scopes = {key.scope for key in islice(history.store.keys(None), _WALKED)}
    except Exception:  # noqa: BLE001 - as above
        return []
    return sorted(name for name in scopes if name.startswith(incomplete) and _COMPLETABLE.fullmatch(name))


def _remember_debug(context: click.Context, _parameter: click.Parameter, value: bool) -> None:  # noqa: FBT001 - click
    context.ensure_object(Run).debug |= value


OPTIONS: Mapping[str, Callable[[Callable[..., Any]], Callable[..., Any]]] = {
    "store": click.option(
        "--store",
        metavar="URL",
        help="Where conversations are kept, such as file:./history. [env var: CHATHISTORY_STORE; default: as "
        "configured, or a folder of your own]",
    ),
    "scope": click.option(
        "--scope",
        shell_complete=_complete_scopes,
        help='Whose conversations. [env var: CHATHISTORY_SCOPE; default: as configured, or "default"]',
    ),
    "all_scopes": click.option("--all-scopes", is_flag=True, help="The conversations of all scopes."),
    "profile": click.option("--profile", metavar="NAME", help="Settings of that name. [env var: CHATHISTORY_PROFILE]"),
    "config": click.option(
        "--config", metavar="FILE", help="Read this file, and no other. [env var: CHATHISTORY_CONFIG]"
    ),
    "debug": click.option(
        "--debug",
        is_flag=True,
        expose_value=False,
        callback=_remember_debug,
        help="Show where in the program an error was raised.",
    ),
    "dry_run": click.option("--dry-run", is_flag=True, help="Only show what would be done."),
    "yes": click.option("--yes", is_flag=True, help="Do not ask."),
    "json": click.option("--json", "as_json", is_flag=True, help="JSON on standard output, with everything."),
    "full_scan": click.option(
        "--full-scan", is_flag=True, help="Find conversations by a walk over the whole storage; may be slow."
    ),
    "replace": click.option("--replace", is_flag=True, help="Replace a different conversation that has the same name."),
}
"""The options that several commands have."""


def shared_options(*names: str) -> Callable[[F], F]:
    """Add those of `OPTIONS` that say which store and scope, which reach the command as `target`; `--debug`; and more.

    Args:
        names: Further options, which reach the command by their own names, but "all_scopes": it is part of the target.
    """

    def add_options(command: Any) -> Any:
        @functools.wraps(command)
        def run_on_target(*args: Any, all_scopes: bool = False, **kwargs: Any) -> Any:
            given = {name: kwargs.pop(name) for name in _PLACE}
            return command(*args, target=Target.choose(given, all_scopes=all_scopes), **kwargs)

        with_options: Any = run_on_target
        for name in reversed((*names, *_PLACE, "debug")):
            with_options = OPTIONS[name](with_options)
        return with_options

    return add_options


id_argument = click.argument("id", shell_complete=_complete_ids)
optional_id_argument = click.argument("id", required=False, shell_complete=_complete_ids)
ids_argument = click.argument("ids", nargs=-1, metavar="[ID]...", shell_complete=_complete_ids)
