"""Merge all sources of settings.

Precedence, highest first:

    call            options of the command line, or arguments in code
    environment     CHATHISTORY_...
    files           the nearest chathistory.toml, the nearest pyproject.toml, the user's own file
    defaults

A *profile* is a table of settings with a name. It has the priority of the source that selected it: a profile that an
option names overrides the environment, one that a file names overrides the other values of that file. So
`--profile prod` gets the settings of prod, whatever a forgotten variable says.

`store_options` belong to the `store` of the same source: if a higher source sets `store`, the `store_options` of lower
sources are ignored.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from chathistory.config.files import ConfigFile, find_files, read_file
from chathistory.config.settings import OPTION, SETTINGS, TABLES, Settings, build_settings, variable_of
from chathistory.config.source import Source

__all__ = ["VARIABLES", "load_settings", "merge_sources"]

_CONFIG = variable_of("config")
VARIABLES = frozenset({_CONFIG, *map(variable_of, (*SETTINGS, "profile"))})
"""All environment variables that set something."""


def load_settings(
    *, profile: str | None = None, config: str | os.PathLike[str] | None = None, **given: Any
) -> Settings:
    """Return the settings in force, from arguments, environment variables and configuration files.

    It reads small files and opens no store. The page on configuration has the settings and their precedence.

    Args:
        profile: The name of the profile to use; None: the one that the environment or a file selects, if any.
        config: A file to read in place of all files that the search would find; None: search.
        given: Settings by their names; they override all other sources. None: not given. Tables are dicts, such as
            `trimming={"trigger_turns": 40, "keep_turns": 20}`.

    Returns:
        The settings, each with its source.

    Raises:
        ConfigError: A setting is unknown or wrong; the text names the source, and never quotes a value.
    """
    return merge_sources({**given, "profile": profile}, config, "argument {}".format)


def merge_sources(
    given: Mapping[str, Any],
    config: str | os.PathLike[str] | None,
    name_source: Callable[[str], str],
    defaults: Mapping[str, Any] | None = None,
) -> Settings:
    """Return the settings in force, as `load_settings` does.

    Args:
        given: The caller's values by their names, "profile" included; None: not given.
        config: See `load_settings`.
        name_source: Returns the name of the source of one of the caller's values, such as "--store".
        defaults: The caller's defaults, with the lowest priority.

    Raises:
        ConfigError: A setting is unknown or wrong.
    """
    config = config or os.environ.get(_CONFIG) or None
    files = find_files() if config is None else [read_file(config)]
    layers = [
        _list_sources(given, name_source),
        _list_sources(
            {name: os.environ.get(variable_of(name)) or None for name in (*SETTINGS, "profile")}, variable_of
        ),
        *(file.values for file in files),
        _list_sources(defaults or {}, lambda _: "default"),
    ]
    _insert_profile(layers, files)
    merged: dict[str, Source] = {}
    for layer in layers:
        is_other_store = "store" in merged  # options of a lower layer belong to its own store
        kept = {name: source for name, source in layer.items() if not (is_other_store and name.startswith(OPTION))}
        merged = kept | merged
    return build_settings(merged, tuple(file.path for file in files))


def _list_sources(given: Mapping[str, Any], name_source: Callable[[str], str]) -> dict[str, Source]:
    """Return the values that are not None; keys of tables have full names. Raises `ConfigError` for unknown names."""
    flat: dict[str, Any] = {}
    for name, value in given.items():
        is_table = name in TABLES and isinstance(value, Mapping)
        flat |= {f"{name}.{key}": part for key, part in value.items()} if is_table else {name: value}
    sources = {name: Source(name_source(name), written=value) for name, value in flat.items() if value is not None}
    for name, source in sources.items():
        if name not in SETTINGS and name != "profile" and not name.startswith(OPTION):
            raise source.make_unknown_error("setting", name, SETTINGS)
    return sources


def _insert_profile(layers: list[dict[str, Source]], files: Sequence[ConfigFile]) -> None:
    """Insert the values of the selected profile at its priority; if several files have it, in their order."""
    rank = next((number for number, layer in enumerate(layers) if "profile" in layer), None)
    if rank is None:
        return
    chosen = layers[rank]["profile"]
    values = [file.profiles[chosen.written] for file in files if chosen.written in file.profiles]
    if not values:
        raise chosen.make_unknown_error("profile", chosen.written, {name for file in files for name in file.profiles})
    rank += 0 if chosen.file else 1
    layers[rank:rank] = values
