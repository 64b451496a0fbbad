"""How many tokens messages take: exact where the API reported it, otherwise estimated from their length.

The usage of a reply gives the size of the reply and of everything before it. There is no public tokenizer for current
Claude models, so the rest is estimated, and rather too high than too low.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["count_context_tokens", "estimate_tokens"]

_BYTES_PER_TOKEN = 3.5  # of UTF-8 for each token; English text has about four with the tokenizer of current models
_TOKENS_PER_MESSAGE = 4  # tokens of a message in addition to its content
_TOKENS_PER_IMAGE = 1600  # tokens of an image that is just not scaled down (source: the page on vision)
_PDF_BYTES_PER_TOKEN = 40  # bytes of base64 for each token, for text and image of each page (source: the same page)
_OPAQUE = frozenset({"signature", "cache_control"})


def count_context_tokens(usage: Mapping[str, Any] | None) -> int | None:
    """Return the tokens of a request and its reply.

    Tokens that were read from the cache or written to it are not part of `input_tokens`, so they are added (source: the
    page on prompt caching).

    Args:
        usage: The usage of the reply; None: unknown.

    Returns:
        The tokens; None if the usage does not say.
    """
    if not usage or type(usage.get("input_tokens")) is not int:
        return None
    return sum(count for name in _COUNTED if type(count := usage.get(name)) is int)


_COUNTED = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens", "output_tokens")


def estimate_tokens(message: Mapping[str, Any]) -> int:
    """Return an estimate of the tokens of a message.

    Args:
        message: The message.
    """
    return _TOKENS_PER_MESSAGE + _estimate_value(message.get("content"))


def _estimate_value(value: Any) -> int:
    if isinstance(value, str):
        return int(len(value.encode("utf-8", "surrogatepass")) / _BYTES_PER_TOKEN) + 1
    if isinstance(value, list):
        return sum(map(_estimate_value, value))
    if not isinstance(value, dict):
        return 1
    if value.get("type") == "base64":
        return _estimate_document(value)
    if value.get("type") == "image":
        return _TOKENS_PER_IMAGE
    return sum(_estimate_value(part) for name, part in value.items() if name not in _OPAQUE)


def _estimate_document(source: Mapping[str, Any]) -> int:
    """Return an estimate of the tokens of a document that is given as base64."""
    data = source.get("data")
    return max(_TOKENS_PER_IMAGE, len(data) // _PDF_BYTES_PER_TOKEN) if isinstance(data, str) else _TOKENS_PER_IMAGE
