"""Title, tags and metadata, checked before they are stored."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from chathistory.errors import InvalidInput
from chathistory.log.plain import plain

__all__ = ["annotation"]


def annotation(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the data of an annotation entry. Raises `InvalidInput` that names the field."""
    if not changes:
        msg = "there is nothing to annotate; give title, tags or metadata"
        raise InvalidInput(msg)
    for name in changes:
        if name not in _CHECKS:
            msg = f"a conversation has no {name!r}; it has {', '.join(_CHECKS)}"
            raise InvalidInput(msg)
    return {name: _CHECKS[name](value) for name, value in changes.items()}


def _title(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    msg = "title: text or None is due"
    raise InvalidInput(msg)


def _tags(value: Any) -> list[str]:
    if isinstance(value, Iterable) and not isinstance(value, (str, Mapping)):
        tags = list(dict.fromkeys(value))
        if all(isinstance(tag, str) and tag for tag in tags):
            return tags
    msg = "tags: a list of texts that are not empty is due"
    raise InvalidInput(msg)


def _metadata(value: Any) -> dict[str, Any]:
    if isinstance(value, Mapping):
        return dict(plain(value, "metadata"))
    msg = "metadata: a dict is due"
    raise InvalidInput(msg)


_CHECKS = {"title": _title, "tags": _tags, "metadata": _metadata}
