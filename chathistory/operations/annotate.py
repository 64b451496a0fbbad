"""Title, tags and metadata, checked before they are stored."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from chathistory.errors import InvalidInput
from chathistory.log.entry import to_json
from chathistory.messages.json_values import plain

__all__ = ["annotation"]

T = TypeVar("T")

LONGEST_TITLE = 1000
LARGEST_TAGS = 4 * 1024
LARGEST_METADATA = 32 * 1024


def annotation(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the data of an annotation entry. Raises `InvalidInput` that names the field."""
    if not changes:
        raise InvalidInput("there is nothing to annotate; give title, tags or metadata")
    for name in changes:
        if name not in _CHECKS:
            raise InvalidInput(f"a conversation has no {name!r}; it has {', '.join(_CHECKS)}")
    return {name: _CHECKS[name](value) for name, value in changes.items()}


def _title(value: Any) -> str | None:
    if value is None or (isinstance(value, str) and len(value) <= LONGEST_TITLE):
        return value
    raise InvalidInput(f"title: text of at most {LONGEST_TITLE} characters, or None, is due")


def _tags(value: Any) -> list[str]:
    tags: list[Any] = list(value) if isinstance(value, Iterable) and not isinstance(value, (str, Mapping)) else [None]
    if not all(isinstance(tag, str) and tag for tag in tags):
        raise InvalidInput("tags: a list of texts that are not empty is due")
    return _small("tags", list(dict.fromkeys(tags)), LARGEST_TAGS)


def _metadata(value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise InvalidInput("metadata: a dict is due")
    return _small("metadata", plain(value, "metadata"), LARGEST_METADATA)


def _small(name: str, value: T, largest: int) -> T:
    size = len(to_json(value).encode())
    if size > largest:
        raise InvalidInput(
            f"{name}: {size} bytes of JSON are too much, at most {largest} are kept: they travel with every append"
        )
    return value


_CHECKS = {"title": _title, "tags": _tags, "metadata": _metadata}
