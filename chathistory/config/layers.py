"""Which place wins. Places are layers, and of each setting the uppermost value counts.

    call            flags of the command line, or arguments in code
    environment     CHATHISTORY_...
    files           the nearest chathistory.toml, pyproject.toml, the user's own
    defaults

A *profile* is a table of settings, chosen by name. It has the priority of the place that selected it: one that a flag
names is above the environment, one that a file names is above that file's other values. So whoever asks for
`--profile prod` gets it, whatever a forgotten variable says.

Options belong to the store that they are set with: if a higher layer sets `store`, the `store_options` of all lower
layers are ignored.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from chathistory.config.variables import expand, find_references
from chathistory.errors import ConfigError
from chathistory.storage.url import near_match

__all__ = ["OPTION", "Layer", "Source", "Values", "merge_layers", "near_name", "show_name"]

T = TypeVar("T")

OPTION = "store_options."
_PLAIN = re.compile(r"[\w.+-]{1,100}")


@dataclass(frozen=True, slots=True)
class Source:
    """Where a value came from. `str` and `repr` say where, never what.

    Attributes:
        place: "--store", "CHATHISTORY_STORE", the path of a file, or "default".
        key: The name within the place, such as "profiles.prod.store"; "": the place has only this value.
        file: The absolute path of the file; None: it is from no file.
        found: Whether the file was found by looking for it, and not named.
        written: The value as it was written there. It may be secret.
    """

    place: str
    key: str = ""
    file: Path | None = None
    found: bool = False
    written: Any = field(default=None, repr=False)

    def at(self, key: str, written: Any) -> Source:
        """Return the source of a value within this table."""
        return replace(self, key=f"{self.key}.{key}" if self.key else key, written=written)

    @property
    def references(self) -> tuple[str, ...]:
        """The environment variables that a value in a file refers to."""
        return find_references(self.written) if self.file else ()

    @property
    def within(self) -> str:
        """The name within the place, and the variables that the value refers to."""
        return " ".join((self.key, *(f"(${{{name}}})" for name in self.references)))

    def __str__(self) -> str:
        return f"{self.place}: {self.within}" if self.key else self.place

    def error(self, *words: str) -> ConfigError:
        """Return an error that says where the wrong value is."""
        return ConfigError(f"{self.place}: {f'{self.key}: ' if self.key else ''}{''.join(words)}")

    def table(self) -> dict[str, Any]:
        """Return the value, which must be a table."""
        if not isinstance(self.written, dict):
            raise self.error("must be a table")
        return self.written

    def read(self, parse: Callable[[Any], T]) -> T:
        """Return the value as `parse` reads it, `${VARIABLE}` resolved if it is from a file.

        Raises:
            ConfigError: It says where; it has no cause and no context, for they may hold a secret.
        """
        try:
            return parse(expand(self.written, os.environ) if self.file else self.written)
        except ConfigError as error:
            words = str(error)
        raise self.error(words)


Values: TypeAlias = Mapping[str, Source]
"""Values by the full names of their settings, such as "store" or "trimming.keep_tokens"."""


@dataclass(frozen=True, slots=True)
class Layer:
    """What one place sets: values (and "profile", the one to use), and profiles by their names."""

    values: Values = field(default_factory=dict)
    profiles: Mapping[str, Values] = field(default_factory=dict)
    file: Path | None = None


def merge_layers(layers: Sequence[Layer]) -> dict[str, Source]:
    """Return the uppermost value of each setting; layers: uppermost first.

    Raises:
        ConfigError: The chosen profile does not exist; with the near match and all that there are.
    """
    stack = [layer.values for layer in layers]
    at = next((number for number, values in enumerate(stack) if "profile" in values), None)
    if at is not None:
        chosen = stack[at]["profile"]
        known = {name for layer in layers for name in layer.profiles}
        if chosen.written not in known:
            raise chosen.error(
                f"there is no profile {show_name(chosen.written)}", near_name(str(chosen.written), known)
            )
        place = at if chosen.file else at + 1
        stack[place:place] = [layer.profiles[chosen.written] for layer in layers if chosen.written in layer.profiles]
    merged: dict[str, Source] = {}
    for values in stack:
        ignored = OPTION if "store" in merged else None
        kept = {name: value for name, value in values.items() if not (ignored and name.startswith(ignored))}
        merged = kept | merged
    return merged


def near_name(name: str, known: Iterable[str]) -> str:
    """Return words that help after an unknown name."""
    return near_match(name, filter(_PLAIN.fullmatch, known))


def show_name(name: object) -> str:
    """Return a name for an error, unless it does not look like one: then it may be anything, and a secret too."""
    return repr(name) if isinstance(name, str) and _PLAIN.fullmatch(name) else "of that name"
