"""All places together: what the caller gives, the environment, files, and defaults."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from chathistory.config.files import layer_of, layers_found
from chathistory.config.layers import Layer, Source, Value, error_at, layered, merged, near
from chathistory.config.settings import SETTINGS, Settings, settings_of, variable_of

__all__ = ["VARIABLES", "load_settings", "loaded"]

_CONFIG = variable_of("config")
VARIABLES = frozenset({_CONFIG, *map(variable_of, (*SETTINGS, "profile"))})
"""Every variable of the environment that says something."""


def load_settings(
    *, profile: str | None = None, config: str | os.PathLike[str] | None = None, **given: Any
) -> Settings:
    """Return the settings in force here, as `docs/configuration.md` tells.

    profile: the name of the profile to use. config: a file to read in place of all that would be found. given: settings
    by their names, which stand above all others; None: not given.

    Raises `ConfigError` for what is wrong in any place, and says where; it opens nothing.
    """
    return loaded(given, profile=profile, config=config, called=lambda name: f"argument {name}")


def loaded(
    given: Mapping[str, Any],
    *,
    profile: str | None,
    config: str | os.PathLike[str] | None,
    called: Callable[[str], str],
    defaults: Mapping[str, Any] | None = None,
) -> Settings:
    """See `load_settings`; called: what the caller's own values are called. defaults: of the caller."""
    environment = os.environ
    config = config or environment.get(_CONFIG) or None
    files = layers_found() if config is None else [layer_of(config)]
    layers = [
        _layer({**given, "profile": profile}, called),
        _layer({name: environment.get(variable_of(name)) or None for name in (*SETTINGS, "profile")}, variable_of),
        *files,
        _layer(defaults or {}, lambda _: "default"),
    ]
    chosen, stack = layered(layers)
    settings = settings_of(merged(stack), chosen, environment)
    return replace(settings, files=tuple(layer.file for layer in files if layer.file))


def _layer(given: Mapping[str, Any], called: Callable[[str], str]) -> Layer:
    values = {name: Value(value, Source(called(name))) for name, value in given.items() if value is not None}
    profile = values.pop("profile", None)
    for name, value in values.items():
        if name not in SETTINGS:
            raise error_at(value.source, "there is no such setting", near(name, SETTINGS))
    return Layer(values, profile)
