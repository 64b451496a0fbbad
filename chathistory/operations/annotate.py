"""Checks a title, tags and metadata, and makes the event that stores them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from chathistory.checks import class_name
from chathistory.errors import InvalidInput
from chathistory.log.entry import to_json
from chathistory.log.events import Annotation
from chathistory.log.field_types import KEEP
from chathistory.messages.json_values import to_plain_json

__all__ = ["make_annotation"]

_FIELDS = ("title", "tags", "metadata")
LONGEST_TITLE = 1000
LARGEST_TAGS = 4 * 1024
LARGEST_METADATA = 32 * 1024


def make_annotation(changes: Mapping[str, Any]) -> Annotation:
    """Return the event that sets some of title, tags and metadata.

    Args:
        changes: New values by field: "title" (text or None), "tags" (an iterable of texts), "metadata" (a mapping of
            JSON values). Fields that are missing stay as they are.

    Raises:
        InvalidInput: No field is given, a field is unknown, or a value has the wrong type or is too large. The text
            names the field.
    """
    if not changes:
        raise InvalidInput("nothing to annotate: give at least one of title, tags or metadata")
    for name in changes:
        if name not in _FIELDS:
            raise InvalidInput(f"a conversation has no field {name!r}; give one of {', '.join(_FIELDS)}")
    title, tags, metadata = (changes.get(name, KEEP) for name in _FIELDS)
    if title is not KEEP and not (title is None or (isinstance(title, str) and len(title) <= LONGEST_TITLE)):
        raise InvalidInput(f"title: must be text of at most {LONGEST_TITLE} characters, or None")
    if tags is not KEEP:
        is_list = isinstance(tags, Iterable) and not isinstance(tags, (str, Mapping))
        each_tag: list[Any] = list(tags) if is_list else [None]
        if not all(isinstance(tag, str) and tag for tag in each_tag):
            raise InvalidInput("tags: must be a list of non-empty strings, such as ['work']")
        tags = tuple(dict.fromkeys(each_tag))
        _check_size("tags", list(tags), LARGEST_TAGS)
    if metadata is not KEEP:
        if not isinstance(metadata, Mapping):
            raise InvalidInput(f"metadata: must be a dict, not {class_name(metadata)}")
        metadata = to_plain_json(metadata, "metadata")
        _check_size("metadata", metadata, LARGEST_METADATA)
    return Annotation(title, tags, metadata)


def _check_size(name: str, value: Any, largest: int) -> None:
    size = len(to_json(value).encode())
    if size > largest:
        raise InvalidInput(
            f"{name}: must be at most {largest} bytes as JSON, not {size}: every append writes them again; "
            "store larger values elsewhere"
        )
