"""Tokens, counted as a quarter of the characters, and the prompt cache, simulated.

The numbers are not those of a tokenizer, but they behave: the same prompt has the same count, a longer one has more,
and what one request wrote into the cache a later one reads if it begins the same. A test can so see that a prefix
stayed stable. The cache forgets nothing and has no smallest length.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from chathistory.testing.standin.request import Request

__all__ = ["PromptCache", "prompt_tokens", "tokens", "without_markers"]

LOOKBACK = 20
"""How many blocks before a marker the API looks for an entry of the cache."""


def tokens(value: object) -> int:
    """Return the count of a JSON value: a quarter of its characters, at least 1."""
    return -(-len(json.dumps(value)) // 4)


def without_markers(value: Any) -> Any:
    """Return a JSON value without the `cache_control` of its blocks; what tools are called with stays as it is."""
    if isinstance(value, list):
        return [without_markers(item) for item in value]
    if not isinstance(value, dict):
        return value
    kept = {name: item for name, item in value.items() if name != "cache_control"}
    return {name: item if name in {"input", "input_schema"} else without_markers(item) for name, item in kept.items()}


@dataclass(frozen=True, slots=True)
class _Segment:
    """A block of the prompt: its count, whether it is marked, and the name of the prompt up to and with it."""

    count: int
    marker: dict[str, Any] | None
    name: str


def prompt_tokens(request: Request) -> int:
    """Return the count of all that a request puts before the model."""
    return _count(list(_segments(request)))


class PromptCache:
    """What the requests so far have written; safe in threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._names: set[str] = set()

    def usage(self, request: Request) -> dict[str, Any]:
        """Return the input side of a request's `usage`, and keep what its markers write."""
        prompt = list(_segments(request))
        marked = [place for place, segment in enumerate(prompt) if segment.marker]
        with self._lock:
            read = self._longest(prompt, marked)
            self._names.update(prompt[place].name for place in marked)
        cached = _count(prompt[: marked[-1] + 1]) if marked else 0
        return _usage(_count(prompt), _count(prompt[:read]), cached, _span(prompt, marked))

    def _longest(self, prompt: list[_Segment], marked: list[int]) -> int:
        within = {place for mark in marked for place in range(max(0, mark - LOOKBACK + 1), mark + 1)}
        return max((place + 1 for place in within if prompt[place].name in self._names), default=0)


def _usage(total: int, read: int, cached: int, span: str) -> dict[str, Any]:
    written = cached - read
    spans = {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0} | {
        f"ephemeral_{span}_input_tokens": written
    }
    return {
        "input_tokens": total - read - written,
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": read,
        "cache_creation": spans,
        "service_tier": "standard",
    }


def _span(prompt: list[_Segment], marked: list[int]) -> str:
    marker = prompt[marked[-1]].marker if marked else None
    return str((marker or {}).get("ttl", "5m"))


def _count(prompt: list[_Segment]) -> int:
    return sum(segment.count for segment in prompt)


def _segments(request: Request) -> Iterator[_Segment]:
    parts = list(_parts(request))
    name = str(request.body["model"])
    for number, part in enumerate(parts):
        block = without_markers(part)
        name = hashlib.sha256(f"{name}{json.dumps(block)}".encode()).hexdigest()
        last = request.body.get("cache_control") if number == len(parts) - 1 else None
        yield _Segment(tokens(block), part[-1].get("cache_control") or last, name)


def _parts(request: Request) -> Iterator[list[Any]]:
    """Yield what the prompt is made of, in its order: tools, system, messages; each as [where it belongs, block]."""
    for tool in request.body.get("tools", ()):
        yield ["tool", tool if isinstance(tool, dict) else {"tool": tool}]
    for place in request.outer_places:
        yield [place.within if place.message is not None else "prompt", place.block]
