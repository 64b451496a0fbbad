"""Tokens, counted as a quarter of the characters, and the prompt cache, simulated.

The numbers are not those of a tokenizer, but they behave: the same prompt has the same count, a longer one has more,
and what one request wrote into the cache a later one reads if it begins the same. A test can so see that a prefix
stayed stable. The cache forgets nothing and has no smallest length.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

__all__ = ["NO_INPUT", "Prompt", "PromptCache", "count_tokens", "without_markers"]

LOOKBACK = 20
"""How many blocks before a marker the API searches for a cache entry."""

NO_INPUT: Mapping[str, int] = {
    "input_tokens": 0,
    "cache_creation_input_tokens": 0,
    "cache_read_input_tokens": 0,
    "output_tokens": 0,
}
"""The counts of a message with only a summary, which is counted separately."""


def count_tokens(value: object) -> int:
    """Return the tokens of a JSON value: a quarter of its characters, rounded up."""
    return -(-len(json.dumps(value)) // 4)


def without_markers(value: Any) -> Any:
    """Return a JSON value without the `cache_control` of its blocks; the input of tools is unchanged."""
    if isinstance(value, list):
        return [without_markers(item) for item in value]
    if not isinstance(value, dict):
        return value
    kept = {name: item for name, item in value.items() if name != "cache_control"}
    return {name: item if name in {"input", "input_schema"} else without_markers(item) for name, item in kept.items()}


@dataclass(frozen=True)  # without slots, for the cached property
class Prompt:
    """The input of the model: tools, system prompt and messages.

    Attributes:
        model: The name of the model.
        parts: The parts in order, each as [origin, block].
        marker: The `cache_control` of the whole request, which marks the last part.
    """

    model: str
    parts: tuple[list[Any], ...]
    marker: dict[str, Any] | None = None

    @cached_property
    def tokens(self) -> int:
        """The tokens of all parts."""
        return sum(count_tokens(without_markers(part)) for part in self.parts)


@dataclass(frozen=True, slots=True)
class _Segment:
    """A block of the prompt: its tokens, its cache marker, and a hash of the prompt up to its end."""

    count: int
    marker: dict[str, Any] | None
    name: str


class PromptCache:
    """The simulated prompt cache; safe to use in threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._names: set[str] = set()

    def count_usage(self, prompt: Prompt) -> dict[str, Any]:
        """Return the input counts of the `usage` for a prompt, and store what its markers cache."""
        segments = list(_split_segments(prompt))
        marked = [number for number, segment in enumerate(segments) if segment.marker]
        in_reach = {number for mark in marked for number in range(max(0, mark - LOOKBACK + 1), mark + 1)}
        with self._lock:
            reads = max((number + 1 for number in in_reach if segments[number].name in self._names), default=0)
            self._names.update(segments[number].name for number in marked)
        total, read = _count_segments(segments), _count_segments(segments[:reads])
        written = (_count_segments(segments[: marked[-1] + 1]) if marked else 0) - read
        time = str(((segments[marked[-1]].marker if marked else None) or {}).get("ttl", "5m"))
        return {
            "input_tokens": total - read - written,
            "cache_creation_input_tokens": written,
            "cache_read_input_tokens": read,
            "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0}
            | {f"ephemeral_{time}_input_tokens": written},
            "service_tier": "standard",
        }


def _count_segments(segments: list[_Segment]) -> int:
    return sum(segment.count for segment in segments)


def _split_segments(prompt: Prompt) -> Iterator[_Segment]:
    name = prompt.model
    for number, part in enumerate(prompt.parts):
        block = without_markers(part)
        name = hashlib.sha256(f"{name}{json.dumps(block)}".encode()).hexdigest()
        last = prompt.marker if number == len(prompt.parts) - 1 else None
        yield _Segment(count_tokens(block), part[-1].get("cache_control") or last, name)
