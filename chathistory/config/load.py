"""All places together: what the caller gives, the environment, files, and defaults."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from chathistory.config.files import find_layers, read_file
from chathistory.config.layers import Layer, Source, merge_layers, near_name
from chathistory.config.settings import SETTINGS, TABLES, Settings, build_settings, variable_of

__all__ = ["VARIABLES", "load_layers", "load_settings"]

_CONFIG = variable_of("config")
VARIABLES = frozenset({_CONFIG, *map(variable_of, (*SETTINGS, "profile"))})
"""Every environment variable that sets something."""


def load_settings(
    *, profile: str | None = None, config: str | os.PathLike[str] | None = None, **given: Any
) -> Settings:
    """Return the settings in force here, as `docs/configuration.md` tells. Opens nothing.

    Args:
        profile: The name of the profile to use.
        config: A file to read in place of all that would be found.
        given: Settings by their names, above all others; None: not given. Tables are dicts, such as
            `trimming={"trigger_turns": 40, "keep_turns": 20}`.

    Raises:
        ConfigError: Something is wrong in any place; it says where.
    """
    return load_layers(given, profile=profile, config=config, name_place="argument {}".format)


def load_layers(
    given: Mapping[str, Any],
    *,
    profile: str | None,
    config: str | os.PathLike[str] | None,
    name_place: Callable[[str], str],
    defaults: Mapping[str, Any] | None = None,
) -> Settings:
    """Return the settings in force, as `load_settings` does.

    Args:
        given: The caller's own values.
        profile: See `load_settings`.
        config: See `load_settings`.
        name_place: Returns what to call one of the caller's own values in errors.
        defaults: The caller's own defaults.
    """
    environment = os.environ
    config = config or environment.get(_CONFIG) or None
    files = find_layers() if config is None else [read_file(config)]
    variables = {name: environment.get(variable_of(name)) or None for name in (*SETTINGS, "profile")}
    layers = [
        _make_layer({**_flatten(given), "profile": profile}, name_place),
        _make_layer(variables, variable_of),
        *files,
        _make_layer(defaults or {}, lambda _: "default"),
    ]
    return build_settings(merge_layers(layers), tuple(layer.file for layer in files if layer.file))


def _flatten(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values with those of tables by their full names."""
    flat: dict[str, Any] = {}
    for name, value in given.items():
        is_table = name in TABLES and isinstance(value, Mapping)
        flat |= {f"{name}.{key}": part for key, part in value.items()} if is_table else {name: value}
    return flat


def _make_layer(given: Mapping[str, Any], name_place: Callable[[str], str]) -> Layer:
    values = {name: Source(name_place(name), written=value) for name, value in given.items() if value is not None}
    for name, source in values.items():
        if name not in SETTINGS and name != "profile" and not name.startswith("store_options."):
            raise source.error("there is no such setting", near_name(name, SETTINGS))
    return Layer(values)
