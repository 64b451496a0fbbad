"""How large a message is for Claude: exactly where the API said so, else by its length.

What a reply and all before it take is told by the reply's own usage. There is no tokenizer for Claude outside of the
API, so the rest is estimated, rather too high than too low.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["count_context_tokens", "estimate_tokens"]

_BYTES = 3.5  # of UTF-8 a token; with the tokenizer of current models English has about four
_FRAME = 4  # tokens of a message beside its content
_IMAGE = 1600  # tokens: what the page on vision says that an image takes at most before it is scaled down
_PDF = 40  # bytes of base64 a token, by the same page: text and picture of each page
_OPAQUE = frozenset({"signature", "cache_control"})


def count_context_tokens(usage: Mapping[str, Any] | None) -> int | None:
    """Return the tokens of a request and its reply, by the reply's usage; None: it does not say.

    Tokens read from the cache and written to it are counted beside `input_tokens`, not in it (page on prompt caching).
    """
    if not usage or type(usage.get("input_tokens")) is not int:
        return None
    return sum(count for name in _COUNTED if type(count := usage.get(name)) is int)


_COUNTED = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens", "output_tokens")


def estimate_tokens(message: Mapping[str, Any]) -> int:
    """Return about how many tokens a message takes."""
    return _FRAME + _estimate_value(message.get("content"))


def _estimate_value(value: Any) -> int:
    if isinstance(value, str):
        return int(len(value.encode("utf-8", "surrogatepass")) / _BYTES) + 1
    if isinstance(value, list):
        return sum(map(_estimate_value, value))
    if not isinstance(value, dict):
        return 1
    if value.get("type") == "base64":
        return _estimate_document(value)
    if value.get("type") == "image":
        return _IMAGE
    return sum(_estimate_value(part) for name, part in value.items() if name not in _OPAQUE)


def _estimate_document(source: Mapping[str, Any]) -> int:
    """Return the tokens of a document that is attached as base64."""
    data = source.get("data")
    return max(_IMAGE, len(data) // _PDF) if isinstance(data, str) else _IMAGE
