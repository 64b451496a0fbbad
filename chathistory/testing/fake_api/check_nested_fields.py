"""What is wrong within a block: fields of sources, citations, callers and results, at any depth.

The table is the one that the parameter types of the SDK give (`chathistory.messages.block_types`); blocks within
blocks are places of their own, and looked at by `check_shape`.
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
    """Something within a block has a field that it does not have in requests."""
    return _faults_of_kind(request, _EXTRA)


def nested_missing(request: ApiRequest) -> Found:
    """Something within a block lacks a field that it must have."""
    return _faults_of_kind(request, _MISSING)


def nested_null(request: ApiRequest) -> Found:
    """A field within a block is null that may be left out, but not null."""
    return _faults_of_kind(request, _NULL)


def nested_wrong(request: ApiRequest) -> Found:
    """A field within a block holds something else than it should."""
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
        is_places = key == "content" and isinstance(place.block.get(key), list)  # blocks that are looked at themselves
        if key in place.block and key != "cache_control" and not is_places:
            found = _value_faults(place.block[key], field, f"{place.path}.{place.type}.{key}", outermost=True)
            is_image = place.type == "image" and key == "source"  # the rule on images looks at what it holds
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
            continue  # places of their own
        if key == "data" and name.startswith("Base64"):
            continue  # the rule on images looks at it
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
    """Yield the cache markers within a block but for those of places of their own, with the paths of what they mark."""
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
