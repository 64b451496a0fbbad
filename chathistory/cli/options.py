"""The options that commands share, each defined once, and the store and scope that they select."""

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
from typing import TYPE_CHECKING, Any, TypeVar
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

if TYPE_CHECKING:
    _ParamType = click.ParamType[Any]
else:
    _ParamType = click.ParamType  # which is generic from click 8.4 on only

F = TypeVar("F", bound=Callable[..., Any])
_MAX_SEARCHED = 200  # newest conversations that are searched for an id similar to one that does not exist
_MAX_WALKED = 2_000  # conversations that are read to complete the name of a scope
_TARGET = ("store", "scope", "profile", "config")
_COMPLETABLE = re.compile(r"[\w./@+-]+")  # characters that need no quotes in any shell


@dataclass(slots=True)
class RunState:
    """State that a command shares with the function that runs it."""

    debug: bool = False


@dataclass(frozen=True, slots=True)
class CommandTarget:
    """The store and the scope that a command works on.

    Attributes:
        settings: The settings in force.
        flags: The options that select the target, for command lines to copy.
        all_scopes: Whether the command works on all scopes.
    """

    settings: Settings
    flags: tuple[str, ...] = ()
    all_scopes: bool = False

    @classmethod
    def from_options(cls, given: Mapping[str, str | None], *, all_scopes: bool = False) -> CommandTarget:
        """Return the target that options and configuration select; by default the store in the user's data folder.

        Args:
            given: The values of the options --store, --scope, --profile and --config; None: not given.
            all_scopes: Whether --all-scopes was given.

        Raises:
            ConfigError: A setting is wrong in some source.
            click.UsageError: --scope and --all-scopes were given together.
        """
        from platformdirs import user_data_path

        if all_scopes and given["scope"] is not None:
            raise click.UsageError("--scope and --all-scopes cannot be given together; leave one of them out.")
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
        """The scope in force; it has no meaning if `all_scopes` is set."""
        return self.settings.scope

    def __str__(self) -> str:
        """Return the URL of the store, with secrets hidden."""
        from chathistory.config.open import find_store  # brings pluggy

        return str(find_store(self.settings))

    def open(self) -> History:
        """Open the history, with the target's scope as its own. The caller closes it."""
        from chathistory.config.open import open_configured  # brings pluggy

        return open_configured(self.settings)

    @contextmanager
    def open_conversation(self, id: str) -> Iterator[Conversation]:
        """Open the history and yield a conversation that exists. Raises what `find_conversation` raises."""
        with self.open() as history:
            yield self.find_conversation(history, id)

    def find_conversation(self, history: History, id: str) -> Conversation:
        """Return a conversation that exists.

        Args:
            history: The open history of this target.
            id: The conversation.

        Raises:
            click.ClickException: It does not exist; the text names similar ids.
        """
        conversation = history.conversation(id)
        if conversation.state() is not None:
            return conversation
        ids = [row.id for row in history.list(limit=_MAX_SEARCHED).items]
        near = difflib.get_close_matches(id, ids, n=3) or [name for name in ids if name.startswith(id)][:3]
        hint = (
            f"did you mean {' or '.join(near)}?"
            if near
            else f"list the conversations with: {self.format_command('list')}"
        )
        raise self.make_not_found_error(id, f"; {hint}")

    def find_version(self, history: History, id: str) -> str | None:
        """Return the version of a conversation; None if it is damaged.

        Args:
            history: The open history of this target.
            id: The conversation.

        Raises:
            click.ClickException: It does not exist; the text names similar ids.
        """
        try:
            return self.find_conversation(history, id).version
        except (CorruptRecord, UnsupportedRecord):
            return None

    def make_not_found_error(self, id: str, hint: str = "") -> click.ClickException:
        """Return the error for a conversation that does not exist.

        Args:
            id: The conversation.
            hint: Text to append, such as what to do.
        """
        return click.ClickException(
            escape_controls(f"there is no conversation {id} in {self}, scope {self.scope}{hint}")
        )

    def format_command(self, *words: str) -> str:
        """Return a command line for this target that users can copy; words: the command and its arguments."""
        return shlex.join(["chathistory", *words, *self.flags])


def _complete_name(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Return ids or scopes that start with the text, out of as many conversations as can be read quickly."""
    is_scope = parameter.name == "scope"
    given = {name: context.params.get(name) for name in _TARGET} | ({"scope": None} if is_scope else {})
    try:
        with CommandTarget.from_options(given).open() as history:
            if is_scope:
                names = sorted({key.scope for key in islice(history.store.keys(None), _MAX_WALKED)})
            else:
                names = [row.id for row in history.list(limit=_MAX_SEARCHED).items]  # newest first
    except Exception:  # noqa: BLE001 - completion in a shell must not print errors
        return []
    return [name for name in names if name.startswith(incomplete) and _COMPLETABLE.fullmatch(name)]


class _ParsedBy(_ParamType):
    """The type of an option that a function parses; its `ConfigError` becomes a usage error."""

    name = "text"

    def __init__(self, parse: Callable[[str], Any]) -> None:
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return self._parse(value)
        except ConfigError as error:
            self.fail(str(error), param, ctx)


def _parse_time(text: str) -> datetime:
    """Return the time of an ISO date or time (local time if it has no zone), or of a duration before now."""
    with suppress(ConfigError, OverflowError):
        return datetime.now(UTC) - parse_duration(text)
    with suppress(ValueError, OverflowError):
        return datetime.fromisoformat(text).astimezone()
    raise ConfigError("must be a time such as 2026-01-31, 2026-01-31T12:00 or 7d (seven days ago)")


def _parse_pair(text: str) -> tuple[str, Any]:
    """Return the name and the value of NAME=VALUE; the value is JSON, otherwise text."""
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
        help="URL of the store, such as file:./history. [env var: CHATHISTORY_STORE; default: as configured, or your "
        "user data folder]",
    ),
    "scope": click.option(
        "--scope",
        metavar="NAME",
        shell_complete=_complete_name,
        help="Scope of the conversations, such as a user or a tenant. [env var: CHATHISTORY_SCOPE; default: as "
        'configured, or "default"]',
    ),
    "all_scopes": click.option("--all-scopes", is_flag=True, help="Work on the conversations of all scopes."),
    "profile": click.option(
        "--profile", metavar="NAME", help="Use the settings of this profile. [env var: CHATHISTORY_PROFILE]"
    ),
    "config": click.option(
        "--config", metavar="FILE", help="Read this configuration file and no other. [env var: CHATHISTORY_CONFIG]"
    ),
    "debug": click.option(
        "--debug",
        is_flag=True,
        expose_value=False,
        callback=_remember_debug,
        help="Print the traceback of an error.",
    ),
    "dry_run": click.option("--dry-run", is_flag=True, help="Only show what would be done."),
    "yes": click.option("--yes", is_flag=True, help="Do not ask for confirmation."),
    "json": click.option("--json", "as_json", is_flag=True, help="Print JSON with all fields."),
    "full_scan": click.option(
        "--full-scan", is_flag=True, help="Find conversations by reading the whole storage, not an index; may be slow."
    ),
    "replace": click.option("--replace", is_flag=True, help="Replace a different conversation with the same ID."),
    "title": click.option(
        "--title", metavar="TEXT", help="Only with this text in the title, or in the preview if there is no title."
    ),
    "tag": click.option(
        "--tag", metavar="TAG", multiple=True, help="Only with this tag; repeat it to require several."
    ),
    "metadata": click.option(
        "--meta",
        "metadata",
        type=PAIR,
        metavar="NAME=VALUE",
        multiple=True,
        help="Only with this metadata; repeat it to require several.",
    ),
    "model": click.option("--model", metavar="MODEL", help="Only if this model gave the last reply."),
    "since": click.option(
        "--since",
        type=_TIME,
        metavar="TIME",
        help="Only if active at or after this time: 2026-01-31, 2026-01-31T12:00 or 7d (ago).",
    ),
    "until": click.option(
        "--until", type=_TIME, metavar="TIME", help="Only if last active before this time, in the same forms."
    ),
    "unanswered": click.option("--open", "unanswered", is_flag=True, help="Only if the last turn has no reply."),
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
"""The options that several commands share, the filters of conversations, and the limits of trimming."""

FILTERS = ("title", "tag", "metadata", "model", "since", "until", "unanswered")
"""The options that filter conversations; the command gets them by the names of `History.list`."""

TRIMMING = tuple(name for name in TRIMMING_OPTIONS if name.startswith(("trigger_", "keep_")))
"""The options that say when to trim, and how far; the command gets them by the names of the settings."""

id_argument = click.argument("id", shell_complete=_complete_name)
optional_id_argument = click.argument("id", required=False, shell_complete=_complete_name)
ids_argument = click.argument("ids", nargs=-1, metavar="[ID]...", shell_complete=_complete_name)


def shared_options(*names: str) -> Callable[[F], F]:
    """Return a decorator that adds the options for the store and scope, `--debug`, and those that are named.

    The command gets the store and scope as the argument `target`.

    Args:
        names: Further keys of `OPTIONS`. The command gets each as an argument of that name, except "all_scopes", which
            is part of the target.
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
    """Return the filters that were given, as arguments of `History.list`.

    Args:
        given: The values of the options `FILTERS` by their names; None, () or False: not given.
    """
    filters = {name: value for name, value in given.items() if value not in (None, (), False)}
    return filters | ({"metadata": dict(filters["metadata"])} if "metadata" in filters else {})


def format_filters(filters: Mapping[str, Any]) -> Iterator[str]:
    """Yield the words of a command line with the same filters.

    Args:
        filters: Arguments of `History.list`, as `select_filters` returns them.
    """
    for name, value in filters.items():
        if name == "unanswered":
            yield "--open"
        elif name == "metadata":
            for key, part in value.items():
                yield from ("--meta", f"{key}={json.dumps(part)}")
        else:
            for part in value if isinstance(value, tuple) else (value,):
                yield from (f"--{name}", part.isoformat() if isinstance(part, datetime) else part)
