"""Where a value came from, and what it is once `${VARIABLE}` in a file is resolved.

That is how a secret gets into a setting without being written into the file:

    ${NAME}            the variable's value; an error if it is not set
    ${NAME:-default}   the same, with text for where it is not set or empty
    $${                the two characters "${"

The text of a variable is taken as it is, and is not looked through for further references.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from chathistory.errors import ConfigError
from chathistory.storage.url import suggest_name

__all__ = ["FORBIDDEN", "Source", "expand", "find_references"]

T = TypeVar("T")

FORBIDDEN = frozenset({"ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"})
"""No setting needs these, and a file of somebody else's could send them to a store of theirs."""

_REFERENCE = re.compile(r"\$\$\{|\$\{(?:(?P<name>[A-Za-z_]\w*)(?P<or>:-(?P<default>[^}]*))?\})?", re.ASCII)
_PLAIN = re.compile(r"[\w.+-]{1,100}")


@dataclass(frozen=True, slots=True)
class Source:
    """Where a value came from. `str` and `repr` say where, never what.

    Attributes:
        name: "--store", "CHATHISTORY_STORE", the path of a file, or "default".
        key: The key within the file, such as "profiles.prod.store"; "": the source has only this value.
        file: The absolute path of the file; None: it is from no file.
        found: Whether the file was found by looking for it, and not named.
        written: The value as it was written there. It may be secret.
    """

    name: str
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
    def key_with_references(self) -> str:
        """The key, and the variables that the value refers to."""
        return " ".join((self.key, *(f"(${{{name}}})" for name in self.references)))

    def __str__(self) -> str:
        return f"{self.name}: {self.key_with_references}" if self.key else self.name

    def make_error(self, words: str) -> ConfigError:
        """Return an error that says where the wrong value is."""
        return ConfigError(f"{self.name}: {f'{self.key}: ' if self.key else ''}{words}")

    def make_unknown_error(self, kind: str, name: object, known: Iterable[str]) -> ConfigError:
        """Return an error for an unknown name, with the nearest known one and all that there are.

        What does not look like a name is not quoted: it may be anything, and a secret too.
        """
        shown = repr(name) if isinstance(name, str) and _PLAIN.fullmatch(name) else "of that name"
        return self.make_error(f"there is no {kind} {shown}{suggest_name(str(name), filter(_PLAIN.fullmatch, known))}")

    def table(self) -> dict[str, Any]:
        """Return the value, which must be a table."""
        if not isinstance(self.written, dict):
            raise self.make_error("must be a table")
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
        raise self.make_error(words)


def expand(value: Any, environment: Mapping[str, str]) -> Any:
    """Return a value of a file with its references resolved, in texts at any depth.

    Raises:
        ConfigError: A variable is not set, or a reference cannot be read; it quotes no value.
    """
    if isinstance(value, str):
        return _REFERENCE.sub(partial(_resolve_reference, environment), value)
    if isinstance(value, dict):
        return {name: expand(part, environment) for name, part in value.items()}
    if isinstance(value, list):
        return [expand(part, environment) for part in value]
    return value


def _resolve_reference(environment: Mapping[str, str], found: re.Match[str]) -> str:
    name, default = found["name"], found["default"]
    if found[0] == "$${":
        return "${"
    if name is None:
        msg = "${ begins a reference such as ${NAME} or ${NAME:-default}, which this is not; for the characters: $${"
    elif name in FORBIDDEN:
        msg = f"${{{name}}} is for the API only: no setting may use it"
    elif default is not None:
        return environment.get(name) or default
    elif name in environment:
        return environment[name]
    else:
        msg = f"the environment variable {name} is not set"
    raise ConfigError(msg)


def find_references(value: Any) -> tuple[str, ...]:
    """Return the names of the variables that a text refers to, in order; () for what is no text."""
    found = _REFERENCE.finditer(value) if isinstance(value, str) else ()
    return tuple(reference["name"] for reference in found if reference["name"])
