"""Checks of sizes (request, prompt, images), of PDFs, and of files and containers that no longer exist."""

from __future__ import annotations

import base64
import binascii
import struct
from collections.abc import Iterator
from typing import Any

from chathistory.testing.fake_api.edited_prompt import edit_prompt
from chathistory.testing.fake_api.request import ApiRequest, PlacedBlock

__all__ = [
    "gone_container",
    "gone_file",
    "image_dimensions",
    "image_too_large",
    "many_image_dimensions",
    "prompt_too_long",
    "unreadable_pdf",
]

Found = Iterator[dict[str, Any]]
LONGEST_SIDE = 8000
MANY_IMAGES = 20
LONGEST_SIDE_OF_MANY = 2000


def image_too_large(request: ApiRequest) -> Found:
    """An image has more bytes of base64 than allowed."""
    most = request.setting.limits.image
    for place in _find_images(request):
        size = len(_image_data(place))
        if size > most:
            yield {"path": place.path, "size": size, "most": most, "megabytes": most // (1024 * 1024)}


def image_dimensions(request: ApiRequest) -> Found:
    """A side of an image has more than 8,000 pixels."""
    return _images_over(request, LONGEST_SIDE)


def many_image_dimensions(request: ApiRequest) -> Found:
    """The request has more than 20 images, and a side of one has more than 2,000 pixels."""
    if len(_find_images(request)) > MANY_IMAGES:
        yield from _images_over(request, LONGEST_SIDE_OF_MANY)


def _images_over(request: ApiRequest, longest: int) -> Found:
    over = [place for place in _find_images(request) if max(_png_dimensions(_image_data(place))) > longest]
    if over:
        paths = [place.path.replace(".tool_result.", ".") for place in over]  # without the types of blocks
        details = {"max_side_length_pixels": longest, "paths": paths}
        yield {"path": over[0].path, "longest": longest, "details": details}


def _find_images(request: ApiRequest) -> list[PlacedBlock]:
    return [place for place in request.places if place.type == "image"]


def _image_data(place: PlacedBlock) -> str:
    source = place.block.get("source")
    data = source.get("data") if isinstance(source, dict) else None
    return data if isinstance(data, str) else ""


def _png_dimensions(data: str) -> tuple[int, int]:
    """Return the width and height of a PNG in base64, or (0, 0) if it is not a PNG."""
    try:
        head = base64.b64decode(data[:64])
    except (binascii.Error, ValueError):
        return 0, 0
    if not head.startswith(b"\x89PNG\r\n\x1a\n") or len(head) < _PNG_HEAD:
        return 0, 0
    width, height = struct.unpack(">II", head[16:_PNG_HEAD])
    return width, height


_PNG_HEAD = 24


def unreadable_pdf(request: ApiRequest) -> Found:
    """A document has the media type of a PDF, but does not begin like one."""
    for place in request.places:
        source = place.block.get("source") if place.type == "document" else None
        if isinstance(source, dict) and source.get("media_type") == "application/pdf":
            head = str(source.get("data", ""))[:8]
            if not head.startswith(base64.b64encode(b"%PDF-1").decode()[:6]):
                yield {"path": place.path}


def prompt_too_long(request: ApiRequest) -> Found:
    """The prompt has more tokens than the model's context."""
    most = request.setting.limits.context or request.setting.models.context(request.body["model"])
    if not request.counts_only and len(request.raw) > most:  # a token has at least one byte
        count = edit_prompt(request).prompt.tokens
        if count > most:
            yield {"count": count, "most": most}


def gone_file(request: ApiRequest) -> Found:
    """A block names a file that no longer exists."""
    for place in request.places:
        source = place.block.get("source")
        id = place.block.get("file_id") or (source.get("file_id") if isinstance(source, dict) else None)
        if id in request.setting.gone:
            yield {"id": id}


def gone_container(request: ApiRequest) -> Found:
    """The request names a container that no longer exists."""
    container = request.body.get("container")
    id = container.get("id") if isinstance(container, dict) else container
    if id in request.setting.gone:
        yield {"id": id}
