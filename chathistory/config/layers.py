"""Which place wins. Places are stacked, and of each setting the uppermost value counts.

    call            flags of the command line, or arguments in code
    environment     CHATHISTORY_...
    files           the nearest chathistory.toml, pyproject.toml, the user's own
    defaults

A *profile* is a table of settings, chosen by name. It ranks where its name was given: one that a flag names stands
above the environment, one that a file names above that file's other values. So whoever asks for `--profile prod` gets
it, whatever a forgotten variable says.

Options belong to the store that they stand beside: a place that names another store leaves the options of all places
below it behind.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chathistory.errors import ConfigError
from chathistory.storage.url import near_match

__all__ = ["OPTION", "Layer", "Source", "Value", "Values", "error_at", "layered", "merged", "near", "shown_name"]

OPTION = "store_options."
_PLAIN = re.compile(r"[\w.+-]{1,100}")


@dataclass(frozen=True, slots=True)
class Source:
    """Where a value came from.

    place: "--store", "CHATHISTORY_STORE", the path of a file, "default". key: within a file, such as
    "profiles.prod.store". file: its absolute path. found: the file was found by looking for it, and not named.
    references: the variables that the value takes its text from.
    """

    place: str
    key: str = ""
    file: Path | None = None
    found: bool = False
    references: tuple[str, ...] = ()

    @property
    def within(self) -> str:
        """What it is called in its file, and the variables it comes from; "" if it is from no file."""
        return " ".join((self.key, *(f"(${{{name}}})" for name in self.references)))

    def __str__(self) -> str:
        return f"{self.place}: {self.within}" if self.key else self.place


@dataclass(frozen=True, slots=True)
class Value:
    """A setting as it was written, which may be secret, and where."""

    written: Any = field(repr=False)
    source: Source


Values = Mapping[str, Value]


@dataclass(frozen=True, slots=True)
class Layer:
    """What one place says: values by name (options of the store as "store_options.NAME"), profiles by theirs.

    profile: the name of the one that is to be used. Named in a file, it stands above the other values of the file;
    elsewhere below them.
    """

    values: Values = field(default_factory=dict)
    profile: Value | None = None
    profiles: Mapping[str, Values] = field(default_factory=dict)
    file: Path | None = None


def layered(layers: Sequence[Layer]) -> tuple[Value | None, list[Values]]:
    """Return the profile in force (None: none), and what is to be stacked, uppermost first.

    Raises `ConfigError` for a profile that is nowhere, with the near match and all that there are.
    """
    at = next((number for number, layer in enumerate(layers) if layer.profile), None)
    if at is None:
        return None, [layer.values for layer in layers]
    chosen = layers[at].profile
    assert chosen is not None  # noqa: S101  # that is how `at` was found
    profile = _tables(chosen, layers)
    place = at if layers[at].file else at + 1
    stack = [layer.values for layer in layers]
    return chosen, [*stack[:place], *profile, *stack[place:]]


def _tables(chosen: Value, layers: Sequence[Layer]) -> list[Values]:
    found = [layer.profiles[chosen.written] for layer in layers if chosen.written in layer.profiles]
    if not found:
        known = {name for layer in layers for name in layer.profiles}
        raise error_at(chosen.source, f"there is no profile {shown_name(chosen.written)}", near(chosen.written, known))
    return found


def merged(stack: Iterable[Values]) -> dict[str, Value]:
    """Return the uppermost value of each setting; options only of places that do not stand below the store's."""
    result: dict[str, Value] = {}
    for values in stack:
        below = "store" in result
        result = dict(_kept(values, below=below)) | result
    return result


def _kept(values: Values, *, below: bool) -> Iterator[tuple[str, Value]]:
    return ((name, value) for name, value in values.items() if not (below and name.startswith(OPTION)))


def near(name: str, known: Iterable[str]) -> str:
    """Return words that help after an unknown name."""
    return near_match(name, filter(_PLAIN.fullmatch, known))


def shown_name(name: object) -> str:
    """Return a name for an error; not if it is none, for then it may be anything, and a secret too."""
    return repr(name) if isinstance(name, str) and _PLAIN.fullmatch(name) else "of that name"


def error_at(source: Source, *words: str) -> ConfigError:
    """Return the error that says where."""
    return ConfigError(f"{source}: {''.join(words)}")
