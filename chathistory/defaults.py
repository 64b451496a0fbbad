"""Values that stand for an argument that was not given, where None means something else or is more likely a bug."""

from __future__ import annotations

from typing import Final, Self

from chathistory.checks import class_name
from chathistory.errors import InvalidInput

__all__ = ["OWN_SCOPE", "UNCHANGED", "resolve_scope"]


class _NotGiven(str):
    """Text that stands for itself: `is` tells it from the same text given by a caller."""

    __slots__ = ("_name",)
    _name: str

    def __new__(cls, text: str, name: str) -> Self:
        made = super().__new__(cls, text)
        made._name = name
        return made

    def __repr__(self) -> str:
        return self._name


OWN_SCOPE: Final[str] = _NotGiven("default", "OWN_SCOPE")
"""The scope of a call that names none: that of the history, or of the conversation, that is called."""

UNCHANGED: Final[str] = _NotGiven("", "UNCHANGED")
"""The title in a call of `annotate` that leaves it as it is; None removes it."""


def resolve_scope(scope: str, own: str) -> str:
    """Return the scope that a call means.

    Args:
        scope: What the caller gave.
        own: The scope of a call that names none.

    Raises:
        InvalidInput: It is not text; None is a scope that somebody forgot to look up.
    """
    if scope is OWN_SCOPE:
        return own
    if not isinstance(scope, str):
        raise InvalidInput(
            f"scope: must be text, not {class_name(scope)}; leave it out for the own scope, or see `all_scopes`"
        )
    return scope
