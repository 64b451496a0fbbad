"""Checks of the content of blocks: empty text, misplaced documents and citations, images, cache markers."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

from chathistory.testing.fake_api.check_nested_fields import markers_within
from chathistory.testing.fake_api.request import ApiRequest, PlacedBlock

__all__ = [
    "bad_image",
    "bad_marker",
    "blank_text",
    "citations_in_user",
    "document_in_assistant",
    "empty_content",
    "empty_signature",
    "empty_text",
    "find_markers",
    "marked_empty_text",
    "markers_out_of_order",
    "too_many_images",
    "too_many_markers",
    "unknown_reference",
]

Found = Iterator[dict[str, Any]]
MOST_MARKERS = 4
_IMAGES = ("image/jpeg", "image/png", "image/gif", "image/webp")


def empty_content(request: ApiRequest) -> Found:
    """A message has no content; only the last message may, if it is the assistant's."""
    last = len(request.body["messages"]) - 1
    for number, message in request.messages:
        spared = number == last and message["role"] == "assistant"
        if not message.get("content") and not spared and "output_config" not in message:
            yield {"path": f"messages.{number}"}


def empty_text(request: ApiRequest) -> Found:
    """A text block has no text."""
    for place in _find_texts(request):
        if place.block["text"] == "":
            yield {"where": place.path.partition(".")[0]}


def blank_text(request: ApiRequest) -> Found:
    """A text block has nothing but whitespace."""
    for place in _find_texts(request):
        if not place.block["text"].strip():
            yield {"where": place.path.partition(".")[0]}


def _find_texts(request: ApiRequest) -> Iterator[PlacedBlock]:
    for place in request.outer_places:
        number = place.message
        content = request.body["system"] if number is None else request.body["messages"][number]["content"]
        if place.type == "text" and content != "":  # an empty string is empty content, not an empty block
            yield place


def document_in_assistant(request: ApiRequest) -> Found:
    """A document stands directly in an assistant message."""
    for place in request.outer_places:
        if place.within == "assistant" and place.type == "document" and request.version >= "2026-10-21":
            yield {"path": place.path}


def citations_in_user(request: ApiRequest) -> Found:
    """Text of the user, or in a search result, has citations."""
    roles = [message["role"] for _, message in request.messages]
    for place in request.places:
        by_user = place.message is not None and roles[place.message] == "user"
        if place.type == "text" and by_user and place.block.get("citations") and request.version >= "2026-10-21":
            yield {"path": f"{place.path}.text.citations"}


def unknown_reference(request: ApiRequest) -> Found:
    """A `tool_reference` names a tool that the request does not define."""
    defined = _defined_tools(request)
    for place in request.places:
        for name in _referenced_tools(place):
            if defined is not None and name not in defined:
                yield {"name": name}


def _referenced_tools(place: PlacedBlock) -> Iterator[Any]:
    if place.type == "tool_reference":
        yield place.block["tool_name"]
    if place.type == "tool_search_tool_result" and isinstance(place.block["content"], dict):
        references = place.block["content"].get("tool_references") or ()
        yield from (each.get("tool_name") for each in references if isinstance(each, dict))


def _defined_tools(request: ApiRequest) -> list[Any] | None:
    """Return the names of the tools of a request, or None if only the server knows some of them."""
    tools = [tool for tool in request.body.get("tools") or () if isinstance(tool, dict)]
    added = [place.block["tool"] for place in request.places if place.type == "tool_addition"]
    added = [tool.get("definition", tool) for tool in added if isinstance(tool, dict)]
    defined = [tool.get("name") for tool in (*tools, *added) if isinstance(tool, dict)]
    return None if request.body.get("mcp_servers") or None in defined else defined


def bad_image(request: ApiRequest) -> Found:
    """An image is neither a URL, nor a file, nor base64 of a type that the API reads."""
    for place in request.places:
        if place.type == "image" and not _is_image(place.block["source"]):
            yield {"path": f"{place.path}.image.source"}


def _is_image(source: dict[str, Any]) -> bool:
    if source.get("type") != "base64":
        needed = {"url": "url", "file": "file_id"}.get(str(source.get("type")))
        return needed is not None and isinstance(source.get(needed), str)
    data = source.get("data")
    if source.get("media_type") not in _IMAGES or not isinstance(data, str):
        return False
    try:
        return bool(base64.b64decode(data, validate=True))
    except ValueError:
        return False


def too_many_images(request: ApiRequest) -> Found:
    """The request has more images than the model takes."""
    count = sum(place.type == "image" for place in request.places)
    most = request.setting.models.most_images(request.body["model"])
    if count > most:
        yield {"count": count, "most": most}


def empty_signature(request: ApiRequest) -> Found:
    """A thinking block is sent without its signature."""
    for place in request.outer_places:
        if place.type == "thinking" and not place.block["signature"]:
            yield {"path": place.path}


def find_markers(request: ApiRequest) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the cache markers of a request, each with the path of what it marks, in the order of the prompt.

    Args:
        request: The request.

    Yields:
        The path and the marker; the path is empty for the marker of the whole request.
    """
    for number, tool in enumerate(request.body.get("tools", ())):
        if isinstance(tool, dict) and tool.get("cache_control"):
            yield f"tools.{number}", tool["cache_control"]
    for place in request.places:
        if place.block.get("cache_control"):
            yield f"{place.path}.{place.type}", place.block["cache_control"]
        yield from markers_within(place)
    if request.body.get("cache_control"):
        yield "", request.body["cache_control"]


def bad_marker(request: ApiRequest) -> Found:
    """A cache marker has another type than "ephemeral", another time than 5m and 1h, or more fields."""
    for path, marker in find_markers(request):
        known = isinstance(marker, dict) and marker.keys() <= {"type", "ttl"}
        if not known or marker.get("type") != "ephemeral" or marker.get("ttl", "5m") not in ("5m", "1h"):
            yield {"path": f"{path}.cache_control".lstrip(".")}


def too_many_markers(request: ApiRequest) -> Found:
    """There are more than four cache markers."""
    count = sum(1 for _ in find_markers(request))
    if count > MOST_MARKERS:
        yield {"count": count}


def markers_out_of_order(request: ApiRequest) -> Found:
    """A marker of one hour comes after one of five minutes."""
    short = False
    for path, marker in find_markers(request):
        if short and marker.get("ttl") == "1h":
            yield {"path": f"{path}.cache_control.ttl".lstrip(".")}
        short = short or marker.get("ttl", "5m") == "5m"


def marked_empty_text(request: ApiRequest) -> Found:
    """A text block without text is marked for the cache."""
    for place in request.outer_places:
        if place.type == "text" and place.block["text"] == "" and place.block.get("cache_control"):
            yield {"path": f"{place.path}.text"}
