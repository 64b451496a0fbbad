"""What can be set, and the settings in force with where each came from."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from chathistory.config.layers import OPTION, Source, Value, error_at
from chathistory.config.variables import expanded, references
from chathistory.errors import ConfigError
from chathistory.storage.url import Option, StoreURL, boolean
from chathistory.trimming.context_editing import ContextEditing
from chathistory.trimming.parse import editing_of, policy_of
from chathistory.trimming.policies import Policy

__all__ = ["DEFAULT", "MODEL", "SETTINGS", "Settings", "settings_of", "variable_of"]

T = TypeVar("T")

DEFAULT = Source("default")
MODEL = "claude-sonnet-5-5"
_MAX_TOKENS = 16_000


def _text(value: object) -> str:
    if not (isinstance(value, str) and value):
        raise ConfigError("text is due")
    return value


def _prompt(value: object) -> str | None:
    if not isinstance(value, str):
        raise ConfigError("text is due")
    return value


def _count(value: object) -> int:
    with contextlib.suppress(ValueError):
        if isinstance(value, str | int) and not isinstance(value, bool) and (number := int(value)) > 0:
            return number
    raise ConfigError("a whole number above 0 is due")


SETTINGS: Mapping[str, Option] = {
    "store": Option(_text, None, "the URL of the store that keeps the conversations"),
    "scope": Option(_text, "default", "whose conversations, within the store"),
    "model": Option(_text, MODEL, "the model to ask"),
    "system": Option(_prompt, None, 'the system prompt; "" for none'),
    "max_tokens": Option(_count, _MAX_TOKENS, "the longest reply, in tokens"),
    "trimming": Option(policy_of, None, "when and how far to cut what is sent, such as tokens=100000:50000"),
    "context_editing": Option(editing_of, None, "what the API does with its own copy, such as clear_tool_uses"),
    "stand_in": Option(boolean, default=False, help="replies of a stand-in without a model: needs no key"),
}
"""All that has one value. The table `store_options` holds options of the store, which the backend declares."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings in force. `repr` shows no password and no prompt.

    store: the URL, with its options (those of the table `store_options` too); None: no place names one.
    scope: whose conversations. model, system (None, "": no system prompt), max_tokens: what the engine asks with;
    trimming, context_editing: what it does about long conversations, None: nothing.
    stand_in: a stand-in without a model replies. profile: the name of the one in force; None: none.
    sources: where each value came from, by its name; options as "store_options.NAME". files: those that were read.
    """

    store: StoreURL | None
    scope: str
    model: str
    system: str | None = field(repr=False)
    max_tokens: int
    trimming: Policy | None
    context_editing: ContextEditing | None
    stand_in: bool
    profile: str | None
    sources: Mapping[str, Source] = field(repr=False)
    files: tuple[Path, ...] = field(default=(), repr=False)

    def given(self, name: str) -> Any:
        """Return the value of a setting, but None where it is only the default."""
        return None if self.sources[name] == DEFAULT else getattr(self, name)


def variable_of(name: str) -> str:
    """Return the environment variable for a setting."""
    return f"CHATHISTORY_{name.upper()}"


def settings_of(values: Mapping[str, Value], profile: Value | None, environment: Mapping[str, str]) -> Settings:
    """Return the settings in force from the uppermost values. Raises `ConfigError` that says where a wrong one is."""
    read = {name: _read(values[name], SETTINGS[name], environment) for name in SETTINGS if name in values}
    found = {name: option.default for name, option in SETTINGS.items()} | read
    options = {name: value for name, value in values.items() if name.startswith(OPTION)}
    found["store"] = _store(found["store"], values, options, environment)
    sources = dict.fromkeys(SETTINGS, DEFAULT) | {name: _source(value) for name, value in values.items()}
    if profile:
        sources["profile"] = profile.source
    return Settings(**found, profile=profile.written if profile else None, sources=sources)


def _source(value: Value) -> Source:
    source = value.source
    names = references(value.written) if source.file else ()
    return Source(source.place, source.key, source.file, source.found, names)


def _read(value: Value, option: Option, environment: Mapping[str, str]) -> Any:
    return _at(value.source, lambda: option.parse(_expanded(value, environment)))


def _expanded(value: Value, environment: Mapping[str, str]) -> Any:
    return expanded(value.written, environment) if value.source.file else value.written


def _store(
    url: str | None, values: Mapping[str, Value], options: Mapping[str, Value], environment: Mapping[str, str]
) -> StoreURL | None:
    if url is None:
        if options:
            raise error_at(next(iter(options.values())).source, "there is no store that this is an option of")
        return None
    store = _at(values["store"].source, lambda: StoreURL.parse(url))
    for name, value in options.items():
        given = {name.removeprefix(OPTION): _read(value, _SCALAR, environment)}
        store = _at(value.source, partial(store.joined, given))
    return store


def _scalar(value: object) -> object:
    if not isinstance(value, str | int | float):
        raise ConfigError("a text, a number, true or false is due")
    return value


_SCALAR = Option(_scalar, None, "the value of an option")


def _at(source: Source, read: Callable[[], T]) -> T:
    """Return what `read` returns; its `ConfigError` says where. Without cause and context: they may hold a secret."""
    try:
        return read()
    except ConfigError as error:
        words = str(error)
    raise error_at(source, words)
