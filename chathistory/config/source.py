"""The source of a value, and references to environment variables in it.

A value in a file can refer to variables, so that a secret need not be written into the file:

    ${NAME}            the variable's value; an error if it is not set
    ${NAME:-default}   the variable's value; the default if it is not set or empty
    $${                the two characters "${"

The text of a variable is not searched for further references.
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
"""Variables that are never resolved: no setting needs them, and a foreign file could send them to a foreign store."""

_REFERENCE = re.compile(r"\$\$\{|\$\{(?:(?P<name>[A-Za-z_]\w*)(?P<or>:-(?P<default>[^}]*))?\})?", re.ASCII)
_PLAIN = re.compile(r"[\w.+-]{1,100}")


@dataclass(frozen=True, slots=True)
class Source:
    """Where a value came from. `str` and `repr` name the source and never show the value.

    Attributes:
        name: "--store", "CHATHISTORY_STORE", the path of a file, or "default".
        key: The key within the file, such as "profiles.prod.store"; "": the source has only this value.
        file: The absolute path of the file; None: the source is not a file.
        found: Whether the search found the file; False: the caller named it.
        written: The value as it is written there. It may be a secret.
    """

    name: str
    key: str = ""
    file: Path | None = None
    found: bool = False
    written: Any = field(default=None, repr=False)

    def at(self, key: str, written: Any) -> Source:
        """Return the source of a value within this table.

        Args:
            key: The key of the value.
            written: The value as it is written there.
        """
        return replace(self, key=f"{self.key}.{key}" if self.key else key, written=written)

    @property
    def references(self) -> tuple[str, ...]:
        """The names of the environment variables that a value in a file refers to."""
        return find_references(self.written) if self.file else ()

    @property
    def key_with_references(self) -> str:
        """The key, followed by the variables that the value refers to, such as "store (${REDIS_URL})"."""
        return " ".join((self.key, *(f"(${{{name}}})" for name in self.references)))

    def __str__(self) -> str:
        return f"{self.name}: {self.key_with_references}" if self.key else self.name

    def make_error(self, words: str) -> ConfigError:
        """Return an error that names this source.

        Args:
            words: What is wrong, and what is expected.
        """
        return ConfigError(f"{self.name}: {f'{self.key}: ' if self.key else ''}{words}")

    def make_unknown_error(self, kind: str, name: object, known: Iterable[str]) -> ConfigError:
        """Return an error for an unknown name, with the most similar known name and a list of all.

        Text that does not look like a name is not quoted, because it may be a secret.

        Args:
            kind: The kind of thing that is named, such as "setting".
            name: The unknown name.
            known: The names that exist.
        """
        shown = repr(name) if isinstance(name, str) and _PLAIN.fullmatch(name) else "of that name"
        return self.make_error(f"there is no {kind} {shown}{suggest_name(str(name), filter(_PLAIN.fullmatch, known))}")

    def table(self) -> dict[str, Any]:
        """Return the value as a table. Raises `ConfigError` if it is not one."""
        if not isinstance(self.written, dict):
            raise self.make_error("must be a table")
        return self.written

    def read(self, parse: Callable[[Any], T]) -> T:
        """Return the parsed value, with `${VARIABLE}` resolved if it is from a file.

        Args:
            parse: Parses the value; raises `ConfigError`.

        Raises:
            ConfigError: The value is wrong; the text names the source. It has no cause and no context, because these
                may hold a secret.
        """
        try:
            return parse(expand(self.written, os.environ) if self.file else self.written)
        except ConfigError as error:
            words = str(error)
        raise self.make_error(words)


def expand(value: Any, environment: Mapping[str, str]) -> Any:
    """Return a value of a file with all references resolved, at any depth.

    Args:
        value: Text, a table, a list, or another value, which is returned unchanged.
        environment: The environment variables.

    Raises:
        ConfigError: A variable is not set, or a reference is malformed; the text quotes no value.
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
        msg = "malformed reference: must be ${NAME} or ${NAME:-default}; write $${ for the characters ${"
    elif name in FORBIDDEN:
        msg = f"${{{name}}} cannot be used in settings: it is a key for the API only"
    elif default is not None:
        return environment.get(name) or default
    elif name in environment:
        return environment[name]
    else:
        msg = f"the environment variable {name} is not set"
    raise ConfigError(msg)


def find_references(value: Any) -> tuple[str, ...]:
    """Return the names of the variables that a text refers to, in order; () for a value that is not text."""
    found = _REFERENCE.finditer(value) if isinstance(value, str) else ()
    return tuple(reference["name"] for reference in found if reference["name"])
