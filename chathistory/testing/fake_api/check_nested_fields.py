"""Checks of the fields within a block: sources, citations, callers and results, at any depth.

The fields are those of the SDK's parameter types (`chathistory.messages.block_types`). Blocks within blocks are checked
by `check_shape`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from chathistory.messages.block_fields import Field, find_block_type, find_fields
from chathistory.testing.fake_api import request_fields
from chathistory.testing.fake_api.request import ApiRequest, PlacedBlock

__all__ = ["markers_within", "nested_missing", "nested_null", "nested_unknown", "nested_wrong"]

Found = Iterator[dict[str, Any]]
_EXTRA, _NULL, _WRONG, _MISSING = "extra", "null", "wrong", "missing"


def nested_unknown(request: ApiRequest) -> Found:
    """An object within a block has a field that requests do not have."""
    return _faults_of_kind(request, _EXTRA)


def nested_missing(request: ApiRequest) -> Found:
    """An object within a block lacks a required field."""
    return _faults_of_kind(request, _MISSING)


def nested_null(request: ApiRequest) -> Found:
    """An optional field within a block is null, but must not be."""
    return _faults_of_kind(request, _NULL)


def nested_wrong(request: ApiRequest) -> Found:
    """A field within a block has the wrong type."""
    return _faults_of_kind(request, _WRONG)


def _faults_of_kind(request: ApiRequest, kind: str) -> Found:
    if "nested" not in request.once:
        request.once["nested"] = [found for place in request.known_places for found in _find_faults(place)]
    for found, path in request.once["nested"]:
        if found == kind:
            yield {"path": path, "wanted": "Input should be valid"}


def _find_faults(place: PlacedBlock) -> Iterator[tuple[str, str]]:
    name = find_block_type(place.type) or _OTHERS.get(place.type)
    if name is None:
        return
    for key, field in find_fields(name).items():
        is_places = key == "content" and isinstance(place.block.get(key), list)  # blocks, checked separately
        if key in place.block and key != "cache_control" and not is_places:
            found = _value_faults(place.block[key], field, f"{place.path}.{place.type}.{key}", outermost=True)
            is_image = place.type == "image" and key == "source"  # its content is checked by the rule on images
            yield from ((kind, path) for kind, path in found if kind == _EXTRA or not is_image)


_OTHERS = {
    "tool_reference": "ToolReferenceBlock",
    "browser_state": "BrowserStateBlock",
    "web_search_result": "WebSearchResultBlock",
}


def _value_faults(value: Any, field: Field, path: str, *, outermost: bool = False) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict) and field.types:
        tags = {name: find_fields(name).get("type") for name in field.types}
        names = [name for name, tag in tags.items() if tag is None or value.get("type") in tag.literals]
        if names:
            yield from _object_faults(value, names[0], path)
        elif not {"any", "dict"} & field.scalars:
            yield _WRONG, path
    elif isinstance(value, list) and field.items is not None:
        for index, part in enumerate(value):
            yield from _value_faults(part, field.items, f"{path}.{index}")
    elif not outermost and not _is_scalar(value, field):
        yield (_NULL if value is None else _WRONG), path


def _object_faults(value: dict[str, Any], name: str, path: str) -> Iterator[tuple[str, str]]:
    fields = find_fields(name)
    yield from ((_EXTRA, f"{path}.{key}") for key in value if key not in fields)
    yield from ((_MISSING, f"{path}.{key}") for key, field in fields.items() if field.required and key not in value)
    for key, field in fields.items():
        if key not in value or key == "cache_control":
            continue
        if key == "content" and name == "ContentBlockSource" and isinstance(value[key], list):
            continue  # blocks, checked separately
        if key == "data" and name.startswith("Base64"):
            continue  # checked by the rule on images
        yield from _value_faults(value[key], field, f"{path}.{key}")


def _is_scalar(value: Any, field: Field) -> bool:
    if isinstance(value, str) and value in field.literals:
        return True
    kinds = {"str": "string", "int": "integer", "bool": "boolean", "dict": "dictionary", "any": "any"}
    if value is None:
        return bool({"null", "any"} & field.scalars)
    wanted = [kinds[each] for each in field.scalars if each in kinds]
    return any(request_fields.fits_kind(each, value) for each in wanted) or (
        "float" in field.scalars and isinstance(value, float)
    )


def markers_within(place: PlacedBlock) -> Iterator[tuple[str, Any]]:
    """Yield the cache markers within a block that are not in inner blocks, each with the path of what it marks.

    Args:
        place: The block.

    Yields:
        The path and the marker.
    """
    if place.type in ("web_fetch_tool_result", "tool_search_tool_result"):
        yield from _markers_in(place.block.get("content"), f"{place.path}.{place.type}.content")


def _markers_in(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, part in parts:
        if name == "cache_control":
            if part is not None:
                yield path, part
        else:
            yield from _markers_in(part, f"{path}.{name}")
