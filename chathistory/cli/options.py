"""The options that commands share, each defined once; and the store and scope that they name."""

from __future__ import annotations

import difflib
import functools
import json
import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Any, TypeVar
from urllib.parse import quote

import click

from chathistory.cli.output import escape_controls
from chathistory.config.load import merge_sources
from chathistory.config.settings import Settings
from chathistory.conversation import Conversation
from chathistory.durations import parse_duration
from chathistory.errors import ConfigError, CorruptRecord, UnsupportedRecord
from chathistory.history import History
from chathistory.storage.url import StoreURL
from chathistory.trimming.parse import TRIMMING_OPTIONS

__all__ = [
    "DURATION",
    "FILTERS",
    "OPTIONS",
    "PAIR",
    "TRIMMING",
    "CommandTarget",
    "RunState",
    "format_filters",
    "id_argument",
    "ids_argument",
    "optional_id_argument",
    "select_filters",
    "shared_options",
]

F = TypeVar("F", bound=Callable[..., Any])
_SEARCHED = 200  # so many of the newest conversations are searched for an id like one that does not exist
_WALKED = 2_000  # so many conversations are looked at for scopes to complete
_TARGET = ("store", "scope", "profile", "config")
_COMPLETABLE = re.compile(r"[\w./@+-]+")  # what no shell would take apart


@dataclass(slots=True)
class RunState:
    """What the commands report to the function that runs them."""

    debug: bool = False


@dataclass(frozen=True, slots=True)
class CommandTarget:
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
    def from_options(cls, given: Mapping[str, str | None], *, all_scopes: bool = False) -> CommandTarget:
        """Return the target that the flags and the configuration name; else the store in the user's data folder.

        Raises:
            ConfigError: Something is wrong in any source.
            click.UsageError: The flags exclude each other.
        """
        from platformdirs import user_data_path

        if all_scopes and given["scope"] is not None:
            raise click.UsageError("--scope and --all-scopes exclude each other.")
        folder = user_data_path("chathistory", appauthor=False) / "history"
        defaults = {"store": f"file:{quote(folder.as_posix(), safe='/:')}"}
        named = {name: given[name] for name in ("store", "scope", "profile")}
        settings = merge_sources(named, given["config"], "--{}".format, defaults)
        url = given["store"]
        shown = {**given, "store": url if url is None or str(StoreURL.parse(url)) == url else "URL"}
        flags = tuple(word for name in _TARGET if (value := shown[name]) is not None for word in (f"--{name}", value))
        return cls(settings, flags, all_scopes)

    @property
    def scope(self) -> str:
        """The scope, unless the command works on all of them."""
        return self.settings.scope

    def __str__(self) -> str:
        """Return the URL without what is secret in it."""
        from chathistory.config.open import find_store  # brings pluggy

        return str(find_store(self.settings))

    def open(self) -> History:
        """Open the history, whose scope is that of the target; it is to be closed."""
        from chathistory.config.open import open_configured  # brings pluggy

        return open_configured(self.settings)

    @contextmanager
    def open_conversation(self, id: str) -> Iterator[Conversation]:
        """Open a conversation that exists, for the time of the body. Raises as `find_conversation` does."""
        with self.open() as history:
            yield self.find_conversation(history, id)

    def find_conversation(self, history: History, id: str) -> Conversation:
        """Return a conversation that exists. Raises `click.ClickException` that names ids like this one otherwise."""
        conversation = history.conversation(id)
        if conversation.state() is not None:
            return conversation
        ids = [row.id for row in history.list(limit=_SEARCHED).items]
        near = difflib.get_close_matches(id, ids, n=3) or [name for name in ids if name.startswith(id)][:3]
        hint = f"did you mean {' or '.join(near)}?" if near else f"{self.format_command('list')} lists those that exist"
        raise self.make_not_found_error(id, f"; {hint}")

    def find_version(self, history: History, id: str) -> str | None:
        """Return the version of a conversation that exists; None: it is damaged. Raises `click.ClickException`."""
        try:
            return self.find_conversation(history, id).version
        except (CorruptRecord, UnsupportedRecord):
            return None

    def make_not_found_error(self, id: str, hint: str = "") -> click.ClickException:
        """Return the error for a conversation that does not exist."""
        return click.ClickException(
            escape_controls(f"there is no conversation {id} in {self}, scope {self.scope}{hint}")
        )

    def format_command(self, *words: str) -> str:
        """Return the command line that does something with this target, for people to copy."""
        return shlex.join(["chathistory", *words, *self.flags])


def _complete_name(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Return the ids or scopes that begin like this, of as many conversations as are quick to look at."""
    is_scope = parameter.name == "scope"
    given = {name: context.params.get(name) for name in _TARGET} | ({"scope": None} if is_scope else {})
    try:
        with CommandTarget.from_options(given).open() as history:
            if is_scope:
                names = sorted({key.scope for key in islice(history.store.keys(None), _WALKED)})
            else:
                names = [row.id for row in history.list(limit=_SEARCHED).items]  # newest first
    except Exception:  # noqa: BLE001 - a shell that completes shows no errors
        return []
    return [name for name in names if name.startswith(incomplete) and _COMPLETABLE.fullmatch(name)]


class _ParsedBy(click.ParamType[Any]):
    """The type of an option that a function reads; its `ConfigError` is a usage error."""

    name = "text"

    def __init__(self, parse: Callable[[str], Any]) -> None:
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return self._parse(value)
        except ConfigError as error:
            self.fail(str(error), param, ctx)


def _parse_time(text: str) -> datetime:
    """Return a time that was given as such (without a zone: of this machine's), or as a duration before now."""
    with suppress(ConfigError, OverflowError):
        return datetime.now(UTC) - parse_duration(text)
    with suppress(ValueError, OverflowError):
        return datetime.fromisoformat(text).astimezone()
    raise ConfigError("must be a time such as 2026-01-31, 2026-01-31T12:00 or 7d (seven days ago)")


def _parse_pair(text: str) -> tuple[str, Any]:
    """Return a name and a value, which is JSON, or else text."""
    name, equals, value = text.partition("=")
    if not equals:
        raise ConfigError("must be NAME=VALUE")
    with suppress(ValueError):
        return name, json.loads(value)
    return name, value


PAIR = _ParsedBy(_parse_pair)
DURATION = _ParsedBy(parse_duration)
_TIME = _ParsedBy(_parse_time)


def _remember_debug(context: click.Context, _parameter: click.Parameter, value: bool) -> None:  # noqa: FBT001 - click
    context.ensure_object(RunState).debug |= value


OPTIONS: Mapping[str, Callable[[Any], Any]] = {
    "store": click.option(
        "--store",
        metavar="URL",
        help="Where conversations are kept, such as file:./history. [env var: CHATHISTORY_STORE; default: as "
        "configured, or a folder of your own]",
    ),
    "scope": click.option(
        "--scope",
        metavar="NAME",
        shell_complete=_complete_name,
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
    "title": click.option(
        "--title", metavar="TEXT", help="With this text in the title, or in the preview if there is no title."
    ),
    "tag": click.option("--tag", metavar="TAG", multiple=True, help="With this tag; several: with all of them."),
    "metadata": click.option(
        "--meta", "metadata", type=PAIR, metavar="NAME=VALUE", multiple=True, help="With this metadata."
    ),
    "model": click.option("--model", metavar="MODEL", help="With the last reply by this model."),
    "since": click.option(
        "--since", type=_TIME, metavar="TIME", help="Active then (2026-01-31, 2026-01-31T12:00, 7d) or later."
    ),
    "until": click.option("--until", type=_TIME, metavar="TIME", help="Not active at that time or later."),
    "unanswered": click.option("--open", "unanswered", is_flag=True, help="With no reply to the last turn."),
    **{
        name: click.option(
            f"--{name.replace('_', '-')}",
            name,
            type=_ParsedBy(option.parse),
            metavar="DURATION" if name.endswith("age") else "N",
            help=f"{option.help[0].upper()}{option.help[1:]}.",
        )
        for name, option in TRIMMING_OPTIONS.items()
    },
}
"""The options that several commands have, those that filter conversations, and those that say when to trim."""

FILTERS = ("title", "tag", "metadata", "model", "since", "until", "unanswered")
"""The options that filter conversations; they reach the command by the names of `History.list`."""

TRIMMING = tuple(name for name in TRIMMING_OPTIONS if name.startswith(("trigger_", "keep_")))
"""The options that say when to trim, and how far; they reach the command by the names of the settings."""

id_argument = click.argument("id", shell_complete=_complete_name)
optional_id_argument = click.argument("id", required=False, shell_complete=_complete_name)
ids_argument = click.argument("ids", nargs=-1, metavar="[ID]...", shell_complete=_complete_name)


def shared_options(*names: str) -> Callable[[F], F]:
    """Add those of `OPTIONS` that say which store and scope, which reach the command as `target`; `--debug`; and more.

    Args:
        names: Further options, which reach the command by their own names, but "all_scopes": it is part of the target.
    """

    def add_options(command: Any) -> Any:
        @functools.wraps(command)
        def run_on_target(*args: Any, all_scopes: bool = False, **kwargs: Any) -> Any:
            given = {name: kwargs.pop(name) for name in _TARGET}
            return command(*args, target=CommandTarget.from_options(given, all_scopes=all_scopes), **kwargs)

        with_options: Any = run_on_target
        for name in reversed((*names, *_TARGET, "debug")):
            with_options = OPTIONS[name](with_options)
        return with_options

    return add_options


def select_filters(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the filters that were given, as arguments of `History.list`."""
    filters = {name: value for name, value in given.items() if value not in (None, (), False)}
    return filters | ({"metadata": dict(filters["metadata"])} if "metadata" in filters else {})


def format_filters(filters: Mapping[str, Any]) -> Iterator[str]:
    """Yield the words of a command line that selects the same."""
    for name, value in filters.items():
        if name == "unanswered":
            yield "--open"
        elif name == "metadata":
            for key, part in value.items():
                yield from ("--meta", f"{key}={json.dumps(part)}")
        else:
            for part in value if isinstance(value, tuple) else (value,):
                yield from (f"--{name}", part.isoformat() if isinstance(part, datetime) else part)
