"""`${VARIABLE}` in a file: how a secret gets into a setting without being written there.

    ${NAME}            the variable's value; an error if it is not set
    ${NAME:-default}   the same, with text for where it is not set or empty
    $${                the two characters "${"

The text of a variable is taken as it is, and is not looked through for further references.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from chathistory.errors import ConfigError

__all__ = ["FORBIDDEN", "expand", "find_references"]

FORBIDDEN = frozenset({"ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"})
"""No setting needs these, and a file of somebody else's could send them to a store of theirs."""

_REFERENCE = re.compile(r"\$\$\{|\$\{(?:(?P<name>[A-Za-z_]\w*)(?P<or>:-(?P<default>[^}]*))?\})?", re.ASCII)


def expand(value: Any, environment: Mapping[str, str]) -> Any:
    """Return a value of a file with its references resolved, in texts at any depth.

    Raises `ConfigError` for a variable that is not set, in words that quote no value.
    """
    if isinstance(value, str):
        return _REFERENCE.sub(lambda found: _resolve(found, environment), value)
    if isinstance(value, dict):
        return {name: expand(part, environment) for name, part in value.items()}
    if isinstance(value, list):
        return [expand(part, environment) for part in value]
    return value


def find_references(value: Any) -> tuple[str, ...]:
    """Return the names of the variables that a text refers to, in order; () for what is no text."""
    found = _REFERENCE.finditer(value) if isinstance(value, str) else ()
    return tuple(reference["name"] for reference in found if reference["name"])


def _resolve(found: re.Match[str], environment: Mapping[str, str]) -> str:
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
