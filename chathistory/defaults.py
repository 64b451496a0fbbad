"""Defaults for arguments where None has a meaning of its own, or is more likely a mistake of the caller."""

from __future__ import annotations

from typing import Final, Self

from chathistory.checks import class_name
from chathistory.errors import InvalidInput

__all__ = ["OWN_SCOPE", "UNCHANGED", "resolve_scope"]


class _NotGiven(str):
    """A default that is text; compare with `is`, since a caller may pass an equal text."""

    __slots__ = ("_name",)
    _name: str

    def __new__(cls, text: str, name: str) -> Self:
        default = super().__new__(cls, text)
        default._name = name
        return default

    def __repr__(self) -> str:
        return self._name


OWN_SCOPE: Final[str] = _NotGiven("default", "OWN_SCOPE")
"""The default of `scope`: the scope of the `History` or `Conversation` that the method belongs to."""

UNCHANGED: Final[str] = _NotGiven("", "UNCHANGED")
"""The default of `title` in `annotate`: keep the title. None removes it."""


def resolve_scope(scope: str, own: str) -> str:
    """Return the scope that a method works on.

    Args:
        scope: The argument of the caller; `OWN_SCOPE` if it was omitted.
        own: The scope to use if it was omitted.

    Raises:
        InvalidInput: `scope` is not text. None is refused: it is most likely a scope that was not looked up.
    """
    if scope is OWN_SCOPE:
        return own
    if not isinstance(scope, str):
        raise InvalidInput(
            f"scope: must be text, not {class_name(scope)}; omit it for the default scope, or pass all_scopes=True "
            "where the method takes it"
        )
    return scope
