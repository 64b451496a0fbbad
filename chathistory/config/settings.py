"""The settings that exist, and the values in force with the source of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from chathistory.config.source import Source
from chathistory.errors import ConfigError
from chathistory.storage.url import Option, StoreURL
from chathistory.trimming.context_editing import ContextEditing
from chathistory.trimming.parse import EDITING_OPTIONS, TRIMMING_OPTIONS, build_editing, build_policy, parse_count
from chathistory.trimming.policies import Policy

__all__ = ["DEFAULT", "MODEL", "OPTION", "SETTINGS", "TABLES", "Settings", "build_settings", "variable_of"]

T = TypeVar("T")

DEFAULT = Source("default")
OPTION = "store_options."
MODEL = "claude-sonnet-5-5"
_MAX_TOKENS = 16_000


def _parse_text(value: object, *, may_be_empty: bool = False) -> str:
    if not (isinstance(value, str) and (value or may_be_empty)):
        raise ConfigError("must be text" if may_be_empty else "must be text that is not empty")
    return value


TABLES: Mapping[str, Mapping[str, Option]] = {
    "trimming": TRIMMING_OPTIONS,
    "context_editing": EDITING_OPTIONS,
    "store_options": {},
}
"""The settings that are tables, with their keys. The backend declares the keys of `store_options`."""

SETTINGS: Mapping[str, Option] = {
    "store": Option(StoreURL.parse, None, "the URL of the store"),
    "scope": Option(_parse_text, "default", "the scope of the conversations, such as a user or a tenant"),
    "model": Option(_parse_text, MODEL, "the model to ask"),
    "system": Option(partial(_parse_text, may_be_empty=True), None, 'the system prompt; "" for none'),
    "max_tokens": Option(parse_count, _MAX_TOKENS, "the longest reply, in tokens"),
    **{f"{table}.{key}": option for table, options in TABLES.items() for key, option in options.items()},
}
"""All settings with a single value, by their full names, such as "trimming.keep_tokens"."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings in force. `repr` shows no password and no prompt.

    Attributes:
        store: The URL of the store, `store_options` included; None: no source names one.
        scope: The scope of the conversations.
        model: The model to ask.
        system: The system prompt; None or "": no system prompt.
        max_tokens: The longest reply, in tokens.
        trimming: The policy that limits what is sent; None: no trimming.
        context_editing: What the API clears or summarizes by itself; None: nothing.
        profile: The name of the profile in force; None: no profile.
        sources: Where each value came from, by its full name, such as "trimming.keep_tokens" or "store_options.ttl".
        files: The files that were read, in order of precedence.
    """

    store: StoreURL | None
    scope: str
    model: str
    system: str | None = field(repr=False)
    max_tokens: int
    trimming: Policy | None
    context_editing: ContextEditing | None
    profile: str | None
    sources: Mapping[str, Source] = field(repr=False)
    files: tuple[Path, ...] = field(default=(), repr=False)

    def is_set(self, name: str) -> bool:
        """Return True if some source sets this, and False if it has its default.

        Args:
            name: The full name of a setting, such as "trimming.keep_tokens".
        """
        return self.sources.get(name, DEFAULT) != DEFAULT


def variable_of(name: str) -> str:
    """Return the environment variable for a setting; name: its full name, such as "trimming.keep_tokens"."""
    return f"CHATHISTORY_{name.replace('.', '_').upper()}"


def build_settings(sources: Mapping[str, Source], files: tuple[Path, ...] = ()) -> Settings:
    """Return the settings in force.

    Args:
        sources: The value with the highest priority for each setting that is set, by its full name.
        files: The files that were read.

    Raises:
        ConfigError: A value is wrong; the text names its source.
    """
    found = {name: sources[name].read(option.parse) for name, option in SETTINGS.items() if name in sources}
    plain: dict[str, Any] = {
        name: found.get(name, option.default) for name, option in SETTINGS.items() if "." not in name
    }
    for name, source in sources.items():
        if name.startswith(OPTION):
            if plain["store"] is None:
                raise source.make_error("needs a store; set `store` as well")
            plain["store"] = source.read(partial(_join_option, plain["store"], name.removeprefix(OPTION)))
    return Settings(
        **plain,
        trimming=_build_table("trimming", build_policy, found, sources),
        context_editing=_build_table("context_editing", build_editing, found, sources),
        profile=sources["profile"].written if "profile" in sources else None,
        sources=dict.fromkeys(SETTINGS, DEFAULT) | dict(sources),
        files=files,
    )


def _join_option(store: StoreURL, name: str, value: object) -> StoreURL:
    if not isinstance(value, str | int | float):
        raise ConfigError("must be text, a number, true or false")
    return store.with_options({name: value})


def _build_table(
    name: str, build: Callable[[Mapping[str, Any]], T], found: Mapping[str, Any], sources: Mapping[str, Source]
) -> T:
    """Return what `build` makes of the keys of a table. Raises `ConfigError` that names their source."""
    keys = {full.removeprefix(f"{name}."): full for full in found if full.startswith(f"{name}.")}
    try:
        return build({key: found[full] for key, full in keys.items()})
    except ConfigError as error:
        words = str(error)
    wrong = min(
        keys, key=lambda key: words.find(key) if key in words else len(words)
    )  # the key that the text names first
    raise sources[keys[wrong]].make_error(words)
